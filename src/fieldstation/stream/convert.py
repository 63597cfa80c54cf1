"""PFF to Zarr, HDF5 or NumPy and back.

Layout: one group `module_<id>/<product>` with `images` (n, rows, columns), `frame_number`, `file_index` (into the
attribute `files`), and one column per header field: (n,) for a one-header product, (n, 4) for four quabos. A header
with other fields is kept as JSON text: `header_json` holds the bytes of all, `header_end` where each ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fieldstation.core.errors import FieldstationError
from fieldstation.core.plugins import require
from fieldstation.stream.files import pff_files
from fieldstation.stream.model import PRODUCTS, Frame
from fieldstation.stream.sources.tail import DamagedStretch, Tail

FIELDS = ("pkt_num", "pkt_tai", "pkt_nsec", "tv_sec", "tv_usec")
FORMATS = {".zarr": "zarr", ".h5": "hdf5", ".hdf5": "hdf5", ".npz": "npz"}
_CHUNK = 256


class ConversionError(FieldstationError):
    """Cannot convert to {target}: {problem}."""


class Store(Protocol):
    """Where columns go: append to `group/name`, remember attributes, finish."""

    def append(self, group: str, name: str, rows: np.ndarray[Any, Any]) -> None: ...  # noqa: D102 - a protocol: the name says it
    def attributes(self, group: str, values: dict[str, Any]) -> None: ...  # noqa: D102 - a protocol: the name says it
    def close(self) -> None: ...  # noqa: D102 - a protocol: the name says it


class ZarrStore:
    """A Zarr group on disk."""

    def __init__(self, path: Path) -> None:
        zarr = require("zarr", extra="convert", feature="Zarr")
        self._root = zarr.open_group(str(path), mode="w")

    def append(self, group: str, name: str, rows: np.ndarray[Any, Any]) -> None:
        """Append rows, creating the array at first."""
        key = f"{group}/{name}"
        if key not in self._root:
            self._root.create_array(key, shape=(0, *rows.shape[1:]), chunks=(_CHUNK, *rows.shape[1:]), dtype=rows.dtype)
        self._root[key].append(rows)

    def attributes(self, group: str, values: dict[str, Any]) -> None:
        """Set attributes of a group."""
        self._root[group].attrs.update(values)

    def close(self) -> None:
        """All is on disk already."""


class Hdf5Store:
    """An HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._file = require("h5py", extra="convert", feature="HDF5").File(path, "w")

    def append(self, group: str, name: str, rows: np.ndarray[Any, Any]) -> None:
        """Append rows, creating the dataset at first."""
        key = f"{group}/{name}"
        if key not in self._file:
            self._file.create_dataset(
                key,
                shape=(0, *rows.shape[1:]),
                maxshape=(None, *rows.shape[1:]),
                chunks=(_CHUNK, *rows.shape[1:]),
                dtype=rows.dtype,
            )
        dataset = self._file[key]
        dataset.resize(len(dataset) + len(rows), axis=0)
        dataset[len(dataset) - len(rows) :] = rows

    def attributes(self, group: str, values: dict[str, Any]) -> None:
        """Set attributes of a group; lists become JSON text."""
        for key, value in values.items():
            self._file[group].attrs[key] = json.dumps(value) if isinstance(value, list) else value

    def close(self) -> None:
        """Flush and close."""
        self._file.close()


class NpzStore:
    """One compressed NumPy archive; everything is held in memory until the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: dict[str, list[np.ndarray[Any, Any]]] = {}
        self._attributes: dict[str, dict[str, Any]] = {}

    def append(self, group: str, name: str, rows: np.ndarray[Any, Any]) -> None:
        """Keep rows."""
        self._columns.setdefault(f"{group}/{name}", []).append(rows)

    def attributes(self, group: str, values: dict[str, Any]) -> None:
        """Kept as JSON text under the name `attributes`."""
        self._attributes[group] = values

    def close(self) -> None:
        """Write the file."""
        arrays = {key: np.concatenate(parts) for key, parts in self._columns.items()}
        np.savez_compressed(self._path, attributes=np.array(json.dumps(self._attributes)), **arrays)  # type: ignore[arg-type]  # the stub takes the names for its own arguments


_STORES: dict[str, Callable[[Path], Store]] = {"zarr": ZarrStore, "hdf5": Hdf5Store, "npz": NpzStore}


def open_store(path: Path, form: str) -> Store:
    """Return a new store; the target must not exist."""
    if path.exists():
        raise ConversionError(target=path, problem="it exists already; nothing is overwritten")
    if not path.parent.exists():
        raise ConversionError(target=path, problem=f"the folder {path.parent} does not exist")
    return _STORES[form](path)


class FrameTables:
    """Puts frames into a store, each into the group of its module and product; closes the store with itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tables: dict[str, _FrameTable] = {}

    def add(self, frame: Frame) -> None:
        """Append a frame (in chunks)."""
        group = f"module_{frame.module_id}/{frame.product}"
        if group not in self._tables:
            self._tables[group] = _FrameTable(self._store, group)
        self._tables[group].add(frame)

    def close(self) -> None:
        """Write what is waiting."""
        for table in self._tables.values():
            table.close()
        self._store.close()


class _FrameTable:
    """Collects frames of one group and appends them in chunks."""

    def __init__(self, store: Store, group: str) -> None:
        self._store = store
        self._group = group
        self._frames: list[Frame] = []
        self._files: dict[str, int] = {}
        self._json_bytes = 0
        self._product = ""

    def add(self, frame: Frame) -> None:
        """Take one frame."""
        self._frames.append(frame)
        if len(self._frames) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Append what was collected."""
        frames, self._frames = self._frames, []
        if not frames:
            return
        self._product = frames[0].product

        def put(name: str, rows: np.ndarray[Any, Any]) -> None:
            self._store.append(self._group, name, rows)

        put("images", np.stack([frame.image for frame in frames]))
        put("frame_number", np.array([frame.number for frame in frames], np.uint32))
        put("file_index", np.array([self._files.setdefault(f.file, len(self._files)) for f in frames], np.int32))
        rows = [standard_row(frame) for frame in frames]
        one_header = PRODUCTS[frames[0].product].one_header
        empty = np.zeros((1 if one_header else 4, len(FIELDS) + 1), np.int64)
        table = np.stack([empty if row is None else row for row in rows])
        for column, name in enumerate((*FIELDS, "quabo_num")):
            if one_header or name != "quabo_num":
                put(name, table[:, 0, column] if one_header else table[:, :, column])
        texts = [b"" if row is not None else json.dumps(f.header).encode() for row, f in zip(rows, frames, strict=True)]
        ends = self._json_bytes + np.cumsum([len(text) for text in texts], dtype=np.int64)
        self._json_bytes = int(ends[-1])
        put("header_json", np.frombuffer(b"".join(texts), np.uint8))
        put("header_end", ends)

    def close(self) -> None:
        """Append the rest and the attributes."""
        self.flush()
        self._store.attributes(self._group, {"product": self._product, "files": list(self._files)})


def standard_row(frame: Frame) -> np.ndarray[Any, Any] | None:
    """Return the header's whole numbers as (1 or 4 quabos, fields), None for a header of another form."""
    header = frame.header
    one_header = PRODUCTS[frame.product].one_header
    quabos = [header] if one_header else [header.get(f"quabo_{number}") for number in range(4)]
    if not one_header and len(header) != 4:
        return None
    expected = len(FIELDS) + (1 if one_header else 0)
    rows = []
    for quabo in quabos:
        if not isinstance(quabo, dict) or len(quabo) != expected:
            return None
        values: list[Any] = [quabo.get(name) for name in FIELDS] + [quabo.get("quabo_num", 0)]
        if not all(type(v) in (int, float) and abs(v) < 2**53 and v == int(v) for v in values):
            return None
        rows.append([int(value) for value in values])
    return np.array(rows, np.int64)


def convert(source: Path, target: Path, form: str | None = None, *, quiet: bool = False) -> tuple[int, int]:
    """Write all frames of `source` (file, run folder or data directory); returns frames and damaged stretches."""
    from rich.progress import Progress

    form = form or FORMATS.get(target.suffix)
    if form is None:
        raise ConversionError(target=target, problem=f"its suffix is none of {', '.join(FORMATS)}; name a --format")
    files = pff_files(source)
    if not any(path.stat().st_size for path, _ in files):
        raise ConversionError(target=target, problem=f"{source} holds no frame")
    tables = FrameTables(open_store(target, form))
    damaged: list[DamagedStretch] = []
    count = 0
    with Progress(disable=quiet) as bar:
        task = bar.add_task("converting", total=sum(path.stat().st_size for path, _ in files))
        for path, name in files:
            tail = Tail(path, name, name.module_id or 0, damaged.append)
            before = 0
            while (frames := tail.read(_CHUNK)) or tail.behind:
                for frame in frames:
                    tables.add(frame)
                count += len(frames)
                bar.advance(task, tail.offset - before)
                before = tail.offset
            tail.close()
    tables.close()
    return count, len(damaged)


def load(path: Path) -> Iterator[Frame]:
    """Read converted frames back, group after group."""
    form = FORMATS.get(path.suffix)
    if form == "zarr":
        root = require("zarr", extra="convert", feature="Zarr").open_group(str(path), mode="r")
        for module, product in [(m, p) for m in sorted(root.group_keys()) for p in sorted(root[m].group_keys())]:
            group = root[f"{module}/{product}"]
            yield from _rows(module, product, lambda name, g=group: g[name][:], list(group.attrs["files"]))
    elif form == "hdf5":
        with require("h5py", extra="convert", feature="HDF5").File(path, "r") as file:
            for module, product in [(m, p) for m in sorted(file) for p in sorted(file[m])]:
                group = file[f"{module}/{product}"]
                yield from _rows(module, product, lambda name, g=group: g[name][:], json.loads(group.attrs["files"]))
    elif form == "npz":
        with np.load(path) as data:
            for key, attributes in sorted(json.loads(str(data["attributes"])).items()):
                module, _, product = key.partition("/")
                yield from _rows(module, product, lambda name, k=key: data[f"{k}/{name}"], attributes["files"])
    else:
        raise ConversionError(f"{path} is none of {', '.join(FORMATS)}.")


def _rows(module: str, product_name: str, column: Any, files: list[str]) -> Iterator[Frame]:
    product = PRODUCTS[product_name]
    names = (*FIELDS, "quabo_num") if product.one_header else FIELDS
    columns = {name: column(name) for name in names}
    images, numbers, file_index = column("images"), column("frame_number"), column("file_index")
    ends, text = column("header_end"), column("header_json").tobytes()
    begin = 0
    for row in range(len(images)):
        end = int(ends[row])
        header: dict[str, Any]
        if end > begin:
            header = json.loads(text[begin:end])
        elif product.one_header:
            header = {name: int(columns[name][row]) for name in ("quabo_num", *FIELDS)}
        else:
            header = {f"quabo_{q}": {name: int(columns[name][row][q]) for name in FIELDS} for q in range(4)}
        begin = end
        yield Frame(
            product.type,
            int(module.removeprefix("module_")),
            product.name,
            product.shape,
            product.bytes_per_pixel,
            header,
            images[row].tobytes(),
            files[int(file_index[row])],
            int(numbers[row]),
        )
