"""Follow the newest observing run of every module in a data directory: which files there are, and what is new in them.

Plain synchronous code on paths: the thread that drives it is in `pff.py`.
"""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fieldstation.stream.errors import PffNameError
from fieldstation.stream.model import Frame
from fieldstation.stream.pff import PffName, parse_name
from fieldstation.stream.sources.tail import DamagedStretch, Position, Tail

log = logging.getLogger(__name__)

FRAMES_PER_TURN = 64
_START = re.compile(r"start_([^.]+)")
_MODULE = re.compile(r"module_(\d+)")

Key = tuple[int, str]  # module id, product name


class ProductTail:
    """The files of one product of one module in one run, read one after the other."""

    def __init__(self, run: Path, module_id: int) -> None:
        self.run = run
        self.module_id = module_id
        self.files: list[tuple[Path, PffName]] = []  # all of the run, in order
        self._waiting: deque[tuple[Path, PffName]] = deque()
        self.current: Tail | None = None
        self._full = False  # the last turn was

    def add(self, files: Iterable[tuple[Path, PffName]]) -> None:
        """Queue files that are new here. They come after those known, whatever the clock wrote into their names."""
        fresh = sorted(files, key=lambda item: item[1].order)
        self.files += fresh
        self._waiting += fresh

    def read(self, every: bool, on_damage: list[DamagedStretch]) -> Sequence[Frame]:
        """Return what is new: each frame (a turn's worth), or only the newest."""
        # Worth a look where the last turn left something.
        if every and self._full and self.current is not None:
            series = self.current.series(FRAMES_PER_TURN)
            if series is not None:
                return series
        frames: list[Frame] = []
        while True:
            if self.current is not None:
                # Asked before reading: what was written before the next file got its first byte is then read too.
                rolled_over = self._next_has_data()
                if every:
                    frames += self.current.read(FRAMES_PER_TURN - len(frames))
                    self._full = len(frames) >= FRAMES_PER_TURN
                    if self._full or self.current.behind:
                        return frames
                elif (newest := self.current.newest()) is not None:
                    frames = [newest]
                if not rolled_over or self.current.behind:
                    return frames
                self.current.close()
            if not self._waiting:
                return frames
            path, name = self._waiting.popleft()
            self.current = Tail(path, name, self.module_id, on_damage.append)

    def _next_has_data(self) -> bool:
        # An unused product leaves empty files; so does a run that has just begun.
        while len(self._waiting) > 1 and self._size(self._waiting[0][0]) == 0 and self._size(self._waiting[1][0]):
            self._waiting.popleft()
        return bool(self._waiting) and self._size(self._waiting[0][0]) > 0

    @staticmethod
    def _size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def position(self) -> Position | None:
        """How far this product has been read, None before its first file."""
        return self.current.position if self.current is not None else None

    def close(self) -> None:
        """Close the open file."""
        if self.current is not None:
            self.current.close()


class RunFollower:
    """All products of all modules under `root`. Files that a symbolic link leads out of `root` are refused."""

    def __init__(self, root: Path, modules: frozenset[int] = frozenset()) -> None:
        self.root = root
        self._real_root = root.resolve()
        self._modules = modules
        self.products: dict[Key, ProductTail] = {}
        self._by_path: dict[str, Key] = {}
        self.folders: set[Path] = set()  # what is worth watching for new names
        self.damaged: list[DamagedStretch] = []
        self.refused: set[str] = set()
        self.problem: str | None = None
        self.full_turn = False  # the last read stopped at a turn's worth of some product: there may be more

    def rescan(self) -> None:
        """Look for new modules, runs and files."""
        try:
            groups = list(self._runs())
        except OSError as error:
            self._lost(error)
            return
        self.problem = None
        for run, fixed_module in groups:
            try:
                self._scan_run(run, fixed_module)
            except OSError as error:
                self.problem = f"{run} cannot be read: {error.strerror}"

    def _lost(self, error: OSError) -> None:
        self.problem = f"{self.root} cannot be read: {error.strerror}"
        for tail in self.products.values():
            tail.close()  # an open file would keep a disk from being unmounted

    def _runs(self) -> Iterator[tuple[Path, int | None]]:
        """Yield (run folder, module id or None when the file names tell it)."""
        self.folders = {self.root}
        entries = list(self._entries(self.root))
        modules = [(int(m[1]), e) for e in entries if (m := _MODULE.fullmatch(e.name)) and self._is_dir(e)]
        for module_id, entry in modules:
            if self._modules and module_id not in self._modules:
                continue
            folder = Path(entry.path)
            self.folders.add(folder)
            newest = self._newest_run(self._entries(folder))
            if newest is not None:
                yield newest, module_id
        if not modules:
            # The head node keeps all modules in one run folder; that folder itself may be named, too.
            if any(e.name.endswith(".pff") for e in entries):
                yield self.root, None
            elif (newest := self._newest_run(entries)) is not None:
                yield newest, None

    def _newest_run(self, entries: Iterable[os.DirEntry[str]]) -> Path | None:
        runs = [e for e in entries if e.name.startswith("obs_") and self._is_dir(e)]

        def age(entry: os.DirEntry[str]) -> tuple[str, float]:
            # By the time in the name, not by modification time: touching an old run must not make it win.
            start = _START.search(entry.name)
            return (start[1].replace("_", ":") if start else "", entry.stat().st_mtime)

        return Path(max(runs, key=age).path) if runs else None

    def _scan_run(self, run: Path, fixed_module: int | None) -> None:
        self.folders.add(run)
        fresh: dict[Key, list[tuple[Path, PffName]]] = {}
        for entry in self._entries(run):
            if not entry.name.endswith(".pff") or entry.path in self._by_path:
                continue
            try:
                name = parse_name(entry.name)
            except PffNameError:
                continue  # hk.pff and the like are no frames
            module_id = fixed_module if fixed_module is not None else name.module_id
            if module_id is None or (self._modules and module_id not in self._modules):
                continue
            fresh.setdefault((module_id, name.product.name), []).append((Path(entry.path), name))
        for key, files in fresh.items():
            tail = self.products.get(key)
            if tail is None or tail.run != run:
                if tail is not None:
                    tail.close()
                tail = self.products[key] = ProductTail(run, key[0])
            tail.add(files)
            self._by_path |= {str(path): key for path, _ in files}

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(self._real_root):
                    if entry.path not in self.refused:
                        self.refused.add(entry.path)
                        log.warning("%s leads out of the data directory and is not read", entry.path)
                    continue
                yield entry

    @staticmethod
    def _is_dir(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:
            return False

    def read(self, every: bool, grown: set[str] | None = None) -> list[Sequence[Frame]]:
        """Return new frames, of each product up to a turn's worth; with `grown`, only of those paths' products."""
        if grown is None:
            keys: Iterable[Key] = list(self.products)
        else:
            keys = {self._by_path[path] for path in grown if path in self._by_path}
        turns: list[Sequence[Frame]] = []
        self.full_turn = False
        for key in keys:
            tail = self.products[key]
            try:
                if grown is None and tail.current is not None:
                    tail.current.check_identity()
                fresh = tail.read(every, self.damaged)
                if fresh:
                    turns.append(fresh)
                self.full_turn = self.full_turn or len(fresh) >= FRAMES_PER_TURN
            except OSError as error:
                tail.close()
                self.problem = f"{tail.run} cannot be read: {error.strerror}"
        return turns

    @property
    def behind(self) -> bool:
        """True when some product has more to read than its turn allowed."""
        return any(tail.current is not None and tail.current.behind for tail in self.products.values())

    def close(self) -> None:
        """Close all files."""
        for tail in self.products.values():
            tail.close()
