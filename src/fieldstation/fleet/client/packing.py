"""From what the user names to the bytes that a device reads, and to the message that carries them."""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgpack

from fieldstation.core.children import output_of
from fieldstation.fleet.client.evaluation import BITSTREAM_BYTES, Evaluation, FileEvaluation
from fieldstation.fleet.errors import FleetError

CACHED_BYTES = 64_000_000

_Key = tuple[str, int, int]  # path, time of change, size


class BitstreamError(FleetError):
    """The file {path} cannot be evaluated: {problem}."""


class NoIcepackError(BitstreamError):
    """The circuit {path} is text (.asc) and icepack, which packs it to a bitstream, is not installed here.
    Install it (Debian: apt-get install fpga-icestorm), or give the packed .bin file."""


async def pack_asc(path: Path) -> bytes:
    """Return the bitstream of an `.asc` file, made by `icepack`."""
    icepack = shutil.which("icepack")
    if icepack is None:
        raise NoIcepackError(path=path)
    with tempfile.TemporaryDirectory(prefix="fieldstation-") as folder:
        packed = Path(folder) / "circuit.bin"
        try:
            code, said = await output_of(icepack, str(path), str(packed), timeout_s=60)
        except TimeoutError as error:
            raise BitstreamError(path=path, problem="icepack did not end within 60 s") from error
        if code != 0 or not packed.exists():
            complaint = said.rpartition("\n")[2].rstrip(". ")
            raise BitstreamError(path=path, problem=complaint or "icepack refused it")
        return packed.read_bytes()


def check(path: str | Path, size: int = BITSTREAM_BYTES) -> None:
    """Raise BitstreamError for a file that cannot be a bitstream of `size` bytes, without reading it."""
    file = Path(path)
    try:
        found = file.stat()
        file.open("rb").close()
    except OSError as error:
        raise BitstreamError(path=path, problem=error.strerror or error) from error
    if file.suffix == ".asc":
        if shutil.which("icepack") is None:
            raise NoIcepackError(path=path)
    elif found.st_size != size:
        raise _wrong_size(path, found.st_size, size)


class Bitstreams:
    """Reads bitstream files, each once as long as it does not change: a file often goes to many devices."""

    def __init__(self) -> None:
        self._cache: OrderedDict[_Key, bytes] = OrderedDict()
        self._size = 0

    async def read(self, path: str | Path, size: int | None = BITSTREAM_BYTES) -> bytes:
        """Return the bytes for the device; `size` is what they must measure. Raises BitstreamError with the reason."""
        file = Path(path)
        try:
            # Read on the loop: a bitstream is far below what makes a hop to a thread worth its price.
            key, data = self._known(file, size)
            if data is None:
                data = await pack_asc(file)
                self._keep(key, data)
        except OSError as error:
            raise BitstreamError(path=path, problem=error.strerror or error) from error
        if size is not None and len(data) != size:
            raise _wrong_size(path, len(data), size)
        return data

    def _known(self, file: Path, size: int | None) -> tuple[_Key, bytes | None]:
        status = file.stat()
        key = (str(file), status.st_mtime_ns, status.st_size)
        if key not in self._cache and file.suffix != ".asc":
            if size is not None and status.st_size != size:
                raise _wrong_size(file, status.st_size, size)
            self._keep(key, file.read_bytes())
        return key, self._cache.get(key)

    def _keep(self, key: _Key, data: bytes) -> None:
        self._cache[key] = data
        self._size += len(data)
        while self._size > CACHED_BYTES and len(self._cache) > 1:
            self._size -= len(self._cache.popitem(last=False)[1])


def _wrong_size(path: str | Path, found: int, size: int) -> BitstreamError:
    return BitstreamError(path=path, problem=f"it has {found} bytes, and the device reads exactly {size}")


async def contents_of(evaluation: Evaluation, wire_id: str, batch_id: str, files: Bitstreams) -> bytes:
    """Return the packed `contents` of an evaluation's request."""
    if isinstance(evaluation, FileEvaluation):
        data = await files.read(evaluation.filepath)
        contents: dict[str, Any] = {"files": {wire_id: data}}
    else:
        contents = dict(evaluation._toJson())  # noqa: SLF001 - the documented extension point has this name
        if wire_id != evaluation.id and evaluation.id in contents.get("files", {}):
            contents["files"] = {wire_id: contents["files"][evaluation.id]}
    packed: bytes = msgpack.packb({**contents, "batch_id": batch_id})
    return packed


def request(serials: list[str], event: str, packed_contents: bytes) -> bytes:
    """Return the message for a worker. The contents are packed already: once, however many workers get them."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(3)
    for value in ("serial", serials, "event", event, "contents"):
        packer.pack(value)
    head: bytes = packer.bytes()
    return head + packed_contents
