"""One simulated board: it enumerates as a tty, restarts as a disk when touched at 1200 baud, takes a UF2 file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fieldstation.fleet import uf2
from fieldstation.fleet.sim.answers import Ask
from fieldstation.fleet.sim.firmware import DefaultFirmware, EvaluatingFirmware, Firmware, Habits
from fieldstation.fleet.sim.inotify import IN_CLOSE, IN_CLOSE_WRITE, IN_OPEN, Inotify, Notice

INFO = "UF2 Bootloader v1.0\nModel: Raspberry Pi RP2350\nBoard-ID: RP2350\n"
INDEX = "<html><head><meta http-equiv='refresh' content='0;URL=https://www.raspberrypi.com'/></head></html>\n"

Emit = Callable[[dict[str, Any]], None]


class Board:
    """Plays one board until it is unplugged for good. `emit` gets what the kernel would tell about its nodes."""

    def __init__(self, serial: str, folder: Path, inotify: Inotify, emit: Emit, ask: Ask, habits: Habits) -> None:
        self.serial = serial
        self.habits = habits
        self.flashes = 0
        self._folder = folder / serial
        self._inotify = inotify
        self._emit = emit
        self._ask = ask
        self._name: str | None = "default"
        self._firmware: Firmware | None = None
        self._master = self._slave = -1
        self._path = ""
        self._watch = -1
        self._open = 0
        self._away = False  # it unplugged itself and means to come back
        self._pending: asyncio.TimerHandle | None = None

    def plug(self) -> None:
        """Connect the board; it starts the firmware it has."""
        if self._away and self._pending is not None:
            self._pending.cancel()
            self._pending = None
        if self._firmware is None and self._pending is None and not self._path:
            self._start()

    def unplug(self) -> None:
        """Cut its cable, whatever it is doing."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        self._stop()

    def cut_power(self) -> None:
        """Take its power away for a moment; what it was stuck in is over, and the kernel sees it go and come."""
        self.unplug()
        self.habits.faults.pop("stuck", None)
        self._start()

    def noticed(self, notice: Notice) -> None:
        """React to the kernel's notice, when it is about this board."""
        if notice.watch != self._watch:
            return
        if self._master < 0:
            if notice.mask & IN_CLOSE_WRITE:
                self._copied(self._folder / notice.name)
        elif notice.mask & IN_OPEN:
            self._open += 1
            if self._firmware is not None and not self._touched():
                self._firmware.opened()
        elif notice.mask & IN_CLOSE:
            self._open -= 1
            stuck = self.habits.faults.get("stuck")
            if self._touched() and not stuck and not self.habits.fault("ignore_touch"):
                self._stop()
                self._after(self._show_disk)

    def _touched(self) -> bool:
        return bool(termios.tcgetattr(self._slave)[4] == termios.B1200)

    def _after(self, call: Callable[[], None]) -> None:
        def due() -> None:
            self._pending = None
            call()

        if self.habits.boot_s > 0:
            self._pending = asyncio.get_running_loop().call_later(self.habits.boot_s, due)
        else:
            call()

    def _start(self) -> None:
        # Our own slave descriptor stays open: without one, the master would report a hang-up again and again.
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        tty.setraw(self._slave)
        self._path = os.ttyname(self._slave)
        self._watch = self._inotify.watch(self._path, IN_OPEN | IN_CLOSE)
        self._open = 0
        self._away = False
        self._firmware = self._boot()
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        self._emit({"event": "add", "serial": self.serial, "kind": "tty", "path": self._path, "interface": "00"})

    def _boot(self) -> Firmware:
        if self._name in ("pulsecount", "variance"):
            return EvaluatingFirmware(
                self.habits, self._say, self._vanish, kind=self._name, serial=self.serial, ask=self._ask
            )
        return (DefaultFirmware if self._name == "default" else Firmware)(self.habits, self._say, self._vanish)

    def _stop(self) -> None:
        if self._firmware is not None:
            self._firmware.stop()
            self._firmware = None
        if self._path:
            self._inotify.forget(self._watch)
            self._emit({"event": "remove", "serial": self.serial, "path": self._path})
            self._path, self._watch = "", -1
        if self._master >= 0:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._slave)
            os.close(self._master)
            self._master = self._slave = -1
        shutil.rmtree(self._folder, ignore_errors=True)

    def _vanish(self) -> None:
        self.unplug()
        self._away = True
        self._pending = asyncio.get_running_loop().call_later(self.habits.back_s, self._return)

    def _return(self) -> None:
        self._pending = None
        self._start()

    def _show_disk(self) -> None:
        self._folder.mkdir(parents=True)
        (self._folder / "INFO_UF2.TXT").write_text(INFO)
        (self._folder / "INDEX.HTM").write_text(INDEX)
        if self.habits.fault("wrong_disk"):
            (self._folder / "HOLIDAY.JPG").write_text("not a boot loader")
        self._path = str(self._folder)
        self._watch = self._inotify.watch(self._path, IN_CLOSE_WRITE)
        self._emit({"event": "add", "serial": self.serial, "kind": "partition", "path": self._path})

    def _copied(self, file: Path) -> None:
        try:
            image = uf2.unpack(file.read_bytes())
        except OSError:
            return
        if image is None:
            return  # the boot loader waits for the missing blocks
        self.flashes += 1
        self._name = "default" if self.habits.fault("wrong_firmware") else uf2.placeholder_name(image)
        self._stop()
        self._after(self._start)

    def _readable(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return
        if self._firmware is not None:
            self._firmware.received(data)

    def _say(self, text: str) -> None:
        # Without a listener the USB stack throws text away; so does a listener that does not read.
        if self._open > 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._master, text.encode("latin-1"))
