"""The process that plays the boards: `python -m fieldstation.fleet.sim --dir D [--serial S]... [--socket PATH]`.

With `--journal FILE` it adds a line of JSON for each bitstream that a board measures.

It writes one JSON object a line about nodes to stdout: `{"event": "add", "serial", "kind": "tty"|"partition", "path"}`
and `{"event": "remove", "serial", "path"}`. It reads commands in the same form from stdin and from the Unix socket:
`{"cmd": "plug"|"unplug"|"cycle", "serial"}` (a new serial is a new board; `cycle` cuts its power for a moment),
`{"cmd": "habits", "serial"?, "boot_s"?, ..., "faults"?: {name: times}}`. Commands on the socket are answered with
`{"ok": true}` or `{"error": ...}`. The end of stdin is the end of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from fieldstation.core.service import new_event_loop
from fieldstation.fleet.sim.answers import ANSWERS, Ask, journaled, load
from fieldstation.fleet.sim.board import Board
from fieldstation.fleet.sim.firmware import Habits
from fieldstation.fleet.sim.inotify import Inotify


class Bench:
    """All boards of one process."""

    def __init__(self, folder: Path, ask: Ask, habits: dict[str, Any], journal: Path | None = None) -> None:
        self._folder = folder
        self._ask = ask if journal is None else journaled(ask, journal)
        self._habits = habits
        self._inotify = Inotify()
        self._boards: dict[str, Board] = {}
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._notices)

    def command(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        name = command.get("cmd")
        if name == "plug":
            self._board(command["serial"]).plug()
        elif name == "unplug":
            self._boards[command["serial"]].unplug()
        elif name == "cycle":
            self._boards[command["serial"]].cut_power()
        elif name == "habits":
            changes = {key: value for key, value in command.items() if key not in ("cmd", "serial")}
            chosen = [self._boards[command["serial"]]] if "serial" in command else list(self._boards.values())
            for board in chosen:
                _change(board.habits, changes)
        else:
            raise ValueError(f"there is no command {name!r}")
        return {"ok": True}

    def _board(self, serial: str) -> Board:
        if serial not in self._boards:
            habits = Habits(**self._habits)
            self._boards[serial] = Board(serial, self._folder, self._inotify, emit, self._ask, habits)
        return self._boards[serial]

    def _notices(self) -> None:
        for notice in self._inotify.read():
            for board in self._boards.values():
                board.noticed(notice)

    def try_command(self, line: bytes) -> dict[str, Any]:
        """Carry out one line; what is wrong with it is the answer."""
        try:
            return self.command(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}


def _change(habits: Habits, changes: dict[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(habits)}
    for key, value in changes.items():
        if key not in known:
            raise ValueError(f"there is no habit {key!r}")
        setattr(habits, key, {**habits.faults, **value} if key == "faults" else value)


def emit(event: dict[str, Any]) -> None:
    """Write one event; without a reader there is nobody left to play for."""
    try:
        os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")
    except BrokenPipeError:
        os._exit(0)


async def main(arguments: argparse.Namespace) -> None:
    """Play until stdin ends."""
    async with load(arguments.answers)(arguments.answer_settings) as ask:
        await play(Bench(arguments.dir, ask, json.loads(arguments.habits), arguments.journal), arguments)


async def play(bench: Bench, arguments: argparse.Namespace) -> None:
    """Plug the boards in and carry out commands until stdin ends."""
    for serial in arguments.serial:
        bench.command({"cmd": "plug", "serial": serial})

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(json.dumps(bench.try_command(line)).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(talk, arguments.socket) if arguments.socket else None
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        answer = bench.try_command(line)
        if "error" in answer:
            sys.stderr.write(answer["error"] + "\n")
    if server is not None:
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--serial", action="append", default=[])
    parser.add_argument("--answers", choices=sorted(ANSWERS), default="bytes")
    parser.add_argument("--answer-settings", default="{}", help="JSON object for what computes the answers")
    parser.add_argument("--journal", type=Path, help="file to which a line is added for each bitstream measured")
    parser.add_argument("--habits", default="{}", help="JSON object of delays and faults for every board")
    parser.add_argument("--socket", help="Unix socket that takes commands")
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(parser.parse_args()))
