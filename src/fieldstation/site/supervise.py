"""Keep the roles of this machine running: in order, restarted with growing pauses, one stream of their words."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fieldstation.core.children import die_with_parent
from fieldstation.core.files import write_file
from fieldstation.core.log import mask
from fieldstation.core.retry import Backoff
from fieldstation.site.errors import RoleStartError, SiteFolderError, SiteRunningError
from fieldstation.site.model import Role, levels

log = logging.getLogger(__name__)

READY_S = 90.0  # the first start on a slow disk compiles every module
STEADY_S = 10.0  # a role that ran so long starts its back-off anew
STOP_S = 8.0
PROBE_S = 0.05
LINE_LIMIT = 1 << 16

Tell = Callable[[str, str], None]


class RoleProcess:
    """One role and its process. `state` is waiting, starting, running, restarting or stopped."""

    def __init__(self, role: Role, tell: Tell, status: Path) -> None:
        self.role = role
        self.state = "waiting"
        self.pid = 0
        self.restarts = 0
        self.url = ""
        self.ready = asyncio.Event()  # it has been ready once
        self._running = asyncio.Event()  # it is ready now
        self.stopping = False
        self.tell = tell
        self._status = status
        self._tail: deque[str] = deque(maxlen=20)
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self, after: Sequence[RoleProcess]) -> None:
        """Start when all of `after` are ready, and again whenever it ends, until `stop`."""
        for other in after:
            await other.ready.wait()
        if self._is_over():
            return
        backoff, failures = Backoff(0.2, 10.0), 0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            code = await self._once()
            if self._is_over():
                return
            if not self.ready.is_set() and code > 0:
                # It never worked, and it said why: a mistake to mend, not a fault to outlive.
                raise RoleStartError(role=self.role.name, problem=self._last_words(code))
            failures = 0 if loop.time() - began > STEADY_S else failures
            pause = backoff.delay(failures)
            failures += 1
            self.restarts += 1
            self._set("restarting")
            log.error("%s ended (%s); starting it again in %.1f s", self.role.name, _ending(code), pause)
            await asyncio.sleep(pause)
            if self._is_over():
                return

    def _is_over(self) -> bool:
        return self.stopping

    async def _once(self) -> int:
        role = self.role
        if role.port and await _accepts(role.host, role.port):
            # It would be taken for ours, and the roles that wait for it would speak to a stranger.
            self._tail.append(f"port {role.port} is taken by another program; choose another one in [{role.name}].")
            return 98
        try:
            for path, text in role.files.items():
                write_private(path, text)
            self._process = process = await asyncio.create_subprocess_exec(
                *role.command,
                cwd=role.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **role.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE_LIMIT,
                start_new_session=True,  # a Ctrl-C is ours to pass on, in order
                preexec_fn=die_with_parent,  # whoever kills us leaves no roles behind
            )
        except OSError as error:
            self._tail.append(f"{error.filename or role.command[0]}: {error.strerror}")
            return 127
        self.pid = process.pid
        self._set("starting")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(process.stdout, "out"))
                group.create_task(self._read(process.stderr, "err"))
                watch = group.create_task(self._watch(process))
                await process.wait()
                watch.cancel()
        except BaseException:
            self.kill()
            raise
        self.kill()  # what it left behind in its session must not meet its successor
        return process.returncode or 0

    async def _read(self, stream: asyncio.StreamReader | None, kind: str) -> None:
        assert stream is not None
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # a line without end: what is there so far was dropped by the reader
                continue
            if not raw:
                return
            text = raw.decode(errors="replace").rstrip("\r\n")
            if kind == "out" and self.role.says_ready and text.startswith("ready"):
                self._is_ready(text.partition(" ")[2])
                continue
            self._tail.append(text)
            self.tell(self.role.name, text)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """See that it gets ready in time, by its port when it does not say so itself."""
        role = self.role
        try:
            async with asyncio.timeout(READY_S):
                if role.port:
                    await _accepting(role.host, role.port)
                if not role.says_ready:
                    self._is_ready(role.url)
                await self._running.wait()
        except TimeoutError:
            self._tail.append(f"it was not ready within {READY_S:g} s")
            log.error("%s was not ready within %g s; ending it", role.name, READY_S)
            process.kill()

    def _is_ready(self, url: str) -> None:
        self.url = url
        self._set("running")
        self.ready.set()

    async def until_running(self) -> None:
        """Wait until it is ready, again if it was started again."""
        await self._running.wait()

    def _last_words(self, code: int) -> str:
        words = [line.removeprefix("fieldstation: ") for line in self._tail if line.strip()]
        return words[-1] if words else f"it {_ending(code)}."

    async def stop(self, limit_s: float) -> None:
        """SIGTERM, wait for the end, SIGKILL when it is late."""
        self.stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            self._set("stopped")
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)  # process.terminate() takes the exit code away from who waits for it
        try:
            async with asyncio.timeout(limit_s):
                await process.wait()
        except TimeoutError:
            log.error("%s did not stop within %g s and is killed", self.role.name, limit_s)
        self.kill()
        await process.wait()
        self._set("stopped")

    def kill(self) -> None:
        """End the process and everything in its session at once."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _set(self, state: str) -> None:
        self.state = state
        if state == "running":
            self._running.set()
        else:
            self._running.clear()
        if state in ("stopped", "restarting"):
            self.pid = 0
        report = {"state": state, "pid": self.pid, "restarts": self.restarts, "url": self.url, "up": os.getpid()}
        with contextlib.suppress(OSError):  # a full disk is no reason to stop anything
            write_private(self._status, json.dumps(report))


class Supervisor:
    """The roles of a site on this machine (`core.service.Service`)."""

    def __init__(self, name: str, roles: Sequence[Role], folder: Path, *, as_json: bool = False) -> None:
        self.name = f"site {name}"
        self._site = name
        self._folder = folder
        width = max(len(role.name) for role in roles)
        tell = _tell_json if as_json else _tell_text(width)
        self.processes = {role.name: RoleProcess(role, tell, folder / "roles" / f"{role.name}.json") for role in roles}
        self._levels = levels(roles)
        self._locks: list[int] = []

    def tell(self, tell: Tell) -> None:
        """Send what roles say to `tell(role, text)` instead of stderr."""
        for process in self.processes.values():
            process.tell = tell

    async def end(self, name: str) -> None:
        """Stop one role for good, once it runs; the others go on."""
        process = self.processes[name]
        await process.until_running()
        await process.stop(process.role.stop_s + process.role.drains_s)

    @property
    def stop_s(self) -> float:
        """How long a stop may take: 8 s, and what a station needs to tear down and send what is queued."""
        return max([STOP_S, *(role.stop_s + role.drains_s for role in self._roles if role.drains_s)])

    @property
    def _roles(self) -> list[Role]:
        return [process.role for process in self.processes.values()]

    async def start(self) -> None:
        """Take the folder; SiteRunningError when somebody runs one of these roles from it already."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # whose folder is there already keeps it open
            (self._folder / "roles").mkdir(mode=0o700, exist_ok=True)
            for name in self.processes:
                self._lock(name)
        except OSError as error:
            raise SiteFolderError(folder=self._folder, problem=error.strerror or error) from error

    def _lock(self, name: str) -> None:
        lock = os.open(self._folder / "roles" / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._locks.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).decode() or "?"
            raise SiteRunningError(name=self._site, pid=pid, folder=self._folder) from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())

    async def run(self) -> None:
        """Keep everything running until cancelled, then stop it in order."""
        try:
            async with asyncio.TaskGroup() as group:
                for process in self.processes.values():
                    after = [self.processes[name] for name in process.role.after if name in self.processes]
                    group.create_task(process.keep(after), name=process.role.name)
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    # The roles' last words are read meanwhile: their keepers live until here.
                    await self._stop_all()
                    raise
        finally:
            for process in self.processes.values():
                process.kill()

    async def _stop_all(self) -> None:
        deadline = asyncio.get_running_loop().time() + self.stop_s
        for process in self.processes.values():
            process.stopping = True  # nobody is started again, not even by a keeper that just sleeps
        for level in reversed(self._levels):
            left = max(0.5, deadline - asyncio.get_running_loop().time())
            async with asyncio.TaskGroup() as group:
                for role in level:
                    limit = min(left, role.stop_s + role.drains_s)
                    group.create_task(self.processes[role.name].stop(limit))

    async def until_ready(self) -> None:
        """Wait until every role has been ready once."""
        for process in self.processes.values():
            await process.ready.wait()

    async def stop(self) -> None:
        """Give the folder back; nothing runs any more."""
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()

    def health(self) -> dict[str, object]:
        """Say which roles run."""
        states = {name: process.state for name, process in self.processes.items()}
        return {"ok": all(state == "running" for state in states.values()), "roles": states}


def write_private(path: Path, text: str) -> None:
    """Write a file in one step that only its owner may read."""
    write_file(path, text, 0o600, durable=False)


def read_status(folder: Path) -> Mapping[str, dict[str, object]]:
    """Return what the last `up` wrote of each role in a site's folder: state, pid, restarts, url."""
    found = {}
    for path in sorted((folder / "roles").glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            found[path.stem] = dict(json.loads(path.read_text()))
    return found


async def _accepting(host: str, port: int) -> None:
    """Wait until somebody listens there."""
    while not await _accepts(host, port):  # noqa: ASYNC110 - another process decides
        await asyncio.sleep(PROBE_S)


async def _accepts(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _tell_text(width: int) -> Tell:
    def tell(role: str, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            sys.stderr.write(f"{role:<{width}} | {mask(text)}\n")
            sys.stderr.flush()

    return tell


def _tell_json(role: str, text: str) -> None:
    entry: dict[str, object] = {"message": mask(text)}
    with contextlib.suppress(ValueError, TypeError):
        parsed = json.loads(text)
        entry = parsed if isinstance(parsed, dict) else entry
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(json.dumps({"role": role, **entry}) + "\n")
        sys.stderr.flush()
