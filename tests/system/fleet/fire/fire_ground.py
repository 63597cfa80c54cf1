"""A fleet as processes with lines between them: one control, two workers, three programs; and the hand that strikes."""

from __future__ import annotations

import heapq
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from fire_attacks import PROGRAMS, WORKERS, controls, lines

from fieldstation.testing import Postgres, ServerProcess, free_port, wait_for
from fieldstation.testing.line import Line

BOARDS = 2  # on each worker
SETTINGS = {"grace_s": 3, "lease_s": 25, "ending_soon_s": 8, "return_s": 15}
DEADLINE_S = 90  # for whatever must come right by itself once the fire has ended


class Program:
    """One of the programs that use the fleet (`fire_holder.py`)."""

    def __init__(self, url: str, name: str, folder: Path, seed: int) -> None:
        self.name = name
        self.killed = False
        self.journal = folder / f"{name}.jsonl"
        script = Path(__file__).with_name("fire_holder.py")
        with (folder / f"{name}.err").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, script, url, name, folder, str(seed)], stdin=subprocess.PIPE, stderr=errors
            )

    def written(self) -> str:
        return self.journal.read_text() if self.journal.exists() else ""

    def enough(self) -> None:
        with suppress(OSError):
            self.process.stdin.write(b"enough\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


class Ground:
    """Start with `with`; `strike` a history; `cease`; then reckon."""

    def __init__(self, folder: Path, database: Postgres | None, seed: int) -> None:
        self.folder = folder
        self.database = database
        self.seed = seed
        self.journals = folder / "programs"
        self.journals.mkdir()
        self.address = database.new_database() if database else f"sqlite:///{folder / 'fleet.db'}"
        self.controls = controls(database is not None)
        self.ports = {name: free_port() for name in (*self.controls, *WORKERS)}
        self.lines = {name: Line(self.ports[name.partition(">")[2]], seed=seed) for name in lines(database is not None)}
        self.servers: dict[str, ServerProcess] = {}
        self.ended: list[tuple[str, ServerProcess]] = []  # killed or gone by themselves, in order
        self.mishaps: list[str] = []
        self.programs: dict[str, Program] = {}
        self.former: list[Program] = []
        self._incarnations = itertools.count()
        self._down: set[str] = set()  # servers that are meant to be down now
        self._stopped: dict[str, int] = {}

    def __enter__(self) -> Ground:
        with ExitStack() as stack:
            stack.callback(self._end)
            for name in self.controls:  # one after the other: the first leads, and makes the tables
                self.start(name)
                self.servers[name].wait_ready(60)
            for name in WORKERS:
                self.start(name)
            for name in WORKERS:
                self.servers[name].wait_ready(60)
            wait_for(lambda: self.available() == BOARDS * len(WORKERS), 60, every_s=0.1)
            for name in PROGRAMS:
                self.start_program(name)
            # Only what burns can be put out: each program has had a result before the first blow.
            for program in self.programs.values():
                wait_for(lambda p=program: '"result"' in p.written(), 60, what="a result", every_s=0.1)
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for program in [*self.programs.values(), *self.former]:
            if program.process.poll() is None:
                program.kill()
            program.process.stdin.close()
        for name in reversed(list(self.servers)):
            self.servers[name].send(signal.SIGCONT)
            self.servers[name].stop()
        for line in self.lines.values():
            line.close()

    # Servers and programs.

    def start(self, name: str) -> None:
        if name in self.controls:
            words = ["control", "--port", str(self.ports[name]), "--database", self.address]
        else:
            serials = [f"{name}{n}".rjust(4, "0") for n in range(BOARDS)]
            boards = {"journal": str(self.board_journal(name)), "measure_s": 0.01, "serials": serials}
            settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in boards.items())
            config = self.folder / f"{name}.toml"
            config.write_text(f"[fleet.worker.settings.simulated]\n{settings}")
            words = ["worker", "--name", name, "--driver", "simulated", "--config", str(config)]
            words += ["--port", str(self.ports[name]), "--dir", str(self.folder / name)]
            words += ["--url", f"http://127.0.0.1:{self.lines[f'clients>{name}'].port}"]
            words += ["--control", self.way(name)]
        environment = {f"FIELDSTATION_FLEET_CONTROL_{key.upper()}": str(value) for key, value in SETTINGS.items()}
        self.servers[name] = ServerProcess(["fieldstation", "fleet", *words], env=environment, cwd=self.folder)

    def way(self, who: str) -> str:
        """The addresses of the controls as `who` has them: through its lines."""
        return ",".join(f"http://127.0.0.1:{self.lines[f'{who}>{control}'].port}" for control in self.controls)

    def board_journal(self, worker: str) -> Path:
        return self.folder / f"boards-{worker}.jsonl"

    def start_program(self, name: str) -> None:
        number = next(self._incarnations)
        self.programs[name] = Program(
            self.way("clients"), f"p{name}-{number}", self.journals, self.seed * 1000 + number
        )

    def tend(self) -> None:
        """Start what has ended by itself, as an init system would, and remember it."""
        for name, server in list(self.servers.items()):
            if name not in self._down and (code := server.process.poll()) is not None:
                server.wait()
                database_was_down = "database" in self._down or "cannot be used" in server.output
                if not (name in self.controls and code == 1 and database_was_down):
                    self.mishaps.append(f"{name} ended by itself with {code}:\n{server.output[-3000:]}")
                self.ended.append((name, server))
                self.start(name)
        for name, program in list(self.programs.items()):
            if (code := program.process.poll()) is not None:
                text = (self.journals / f"{program.name}.err").read_text()
                self.mishaps.append(f"the program {program.name} ended by itself with {code}:\n{text[-3000:]}")
                self.former.append(program)
                self.start_program(name)

    # Blows. Each returns what undoes it.

    def strike(self, blows: list[Any]) -> None:
        """Carry out the history, and undo what is to be undone, in time."""
        began = time.monotonic()
        due: list[tuple[float, int, str, str, float, bool]] = [
            (blow.at_s, n, blow.what, blow.target, blow.for_s, True) for n, blow in enumerate(blows)
        ]
        heapq.heapify(due)
        count = len(due)
        while due:
            at_s, _, what, target, for_s, on = heapq.heappop(due)
            while (left := began + at_s - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))
                self.tend()
            print(f"{time.monotonic() - began:7.2f} s  {'' if on else 'no more '}{what} {target}", flush=True)
            self._blow(what, target, on)
            if on and what not in ("cut line", "cut part of line", "strand line"):
                count += 1
                heapq.heappush(due, (at_s + for_s, count, what, target, 0.0, False))
        self.tend()

    def _blow(self, what: str, target: str, on: bool) -> None:
        verb, _, noun = what.rpartition(" ")
        if noun == "line":
            self._strike_line(verb, self.lines[target], on)
        elif verb == "kill":
            self._kill(target, noun, on)
        else:
            self._stop(target, noun, on)

    def _strike_line(self, verb: str, line: Line, on: bool) -> None:
        if verb == "cut":
            line.cut()
        elif verb == "cut part of":
            line.cut(0.5)
        elif verb == "strand":
            line.strand(0.7)
        elif verb == "refuse":
            line.refuse(on)
        elif verb == "hold":
            line.hold(on)
        elif verb == "slow":
            line.delay_s = 0.15 if on else 0.0
        else:
            line.spread_s = 0.4 if on else 0.0

    def _kill(self, target: str, noun: str, on: bool) -> None:
        if noun == "client":
            if on:
                program = self.programs.pop(target, None)
                if program is not None:
                    program.kill()
                    self.former.append(program)
            elif target not in self.programs:
                self.start_program(target)
            return
        if noun == "database":
            assert self.database is not None
            if on and target not in self._down:
                self._down.add(target)
                self.database.kill()
            elif not on and target in self._down:
                self.database.start()
                self._down.discard(target)
            return
        # A machine that is down refuses at its own port; the line in between must not hide it.
        line = self.lines.get(f"clients>{target}")
        if on and target not in self._down:
            self._down.add(target)
            self.servers[target].kill()
            self.ended.append((target, self.servers[target]))
            if line is not None:
                line.refuse()
        elif not on and target in self._down:
            self.start(target)
            self._down.discard(target)
            if line is not None:
                line.refuse(False)

    def _stop(self, target: str, noun: str, on: bool) -> None:
        program = self.programs.get(target)
        pid = program.process.pid if noun == "client" and program else 0
        if noun != "client":
            pid = self.servers[target].pid
        if pid and on:
            # The boards go on: a computer that hangs does not stop what is plugged into it.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            self._stopped[f"{noun} {target}"] = pid
        elif not on and (pid := self._stopped.pop(f"{noun} {target}", 0)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    # After the fire.

    def cease(self) -> None:
        """Let the programs end what they are at, and wait until every device is free again."""
        began = time.monotonic()
        for program in self.programs.values():
            program.enough()
        for program in self.programs.values():
            try:
                code = program.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.mishaps.append(f"the program {program.name} does not end; last: {self.last(program)}")
                program.kill()
            else:
                if code != 0:
                    text = (self.journals / f"{program.name}.err").read_text()
                    self.mishaps.append(f"the program {program.name} ended with {code}:\n{text[-3000:]}")
                print(f"{program.name} has ended {time.monotonic() - began:.1f} s after the fire", flush=True)
        self.former += self.programs.values()
        self.programs.clear()
        wait_for(lambda: self.available() == BOARDS * len(WORKERS), DEADLINE_S, every_s=0.1)
        print(f"all devices are free {time.monotonic() - began:.1f} s after the fire", flush=True)

    def last(self, program: Program) -> list[str]:
        return program.written().splitlines()[-3:]

    def ask(self, path: str) -> Any:
        """Ask whichever control leads."""
        for name in self.controls[:-1]:
            with suppress(OSError):
                return self._ask(name, path)
        return self._ask(self.controls[-1], path)

    def _ask(self, control: str, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.ports[control]}{path}", timeout=10) as answer:
            return json.load(answer)

    def available(self) -> int:
        with suppress(OSError):
            return int(self.ask("/available")["amount"])
        return -1

    def audit(self) -> list[dict[str, Any]]:
        """All that control wrote down, oldest first."""
        rows: list[dict[str, Any]] = []
        while page := self.ask("/api/fleet/events?limit=1000" + (f"&before={rows[-1]['id']}" if rows else "")):
            rows += page
        return rows[::-1]
