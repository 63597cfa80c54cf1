"""pico2-ice boards on USB: found through udev, restarted by a 1200-baud touch, flashed through their disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from fieldstation.core.children import output_of
from fieldstation.core.errors import FieldstationError
from fieldstation.core.plugins import require
from fieldstation.fleet.driver import PARTITION, TTY, Driver, Hotplug, Node, NoFirmwareError, Timing
from fieldstation.fleet.errors import FleetError
from fieldstation.fleet.port import Port, touch
from fieldstation.fleet.states import pulsecount, variance

log = logging.getLogger(__name__)

VENDORS = frozenset({"2e8a", "1209"})  # Raspberry Pi, pid.codes
MODELS = frozenset({"RP2350", "pico-ice", "Pico"})
VARIABLES = {"default": "ICEFARM_DEFAULT", "pulsecount": "ICEFARM_PULSE_COUNT", "variance": "ICEFARM_VARIANCE"}


class MountError(FleetError):
    """{command} failed: {problem}. Mounting needs root; or set mount and unmount to commands that work here."""


class PicoSettings(BaseModel):
    """The table `[fleet.worker.settings.pico2_ice]`."""

    model_config = ConfigDict(extra="forbid")

    firmware: dict[str, Path] = Field(default_factory=dict, description="UF2 files by name: default, and each kind.")
    media: Path = Field(default=Path("worker_media"), description="Folder for mount points, one per board.")
    mount: list[str] = Field(default=["mount"], min_length=1, description="Command; gets device and folder.")
    unmount: list[str] = Field(default=["umount"], min_length=1, description="Command; gets the folder.")
    touch_s: float = Field(default=10.0, gt=0, description="Seconds from the touch to the disk, then touched again.")
    flash_s: float = Field(default=60.0, gt=0, description="Seconds that one flash may take, all tries together.")
    test_s: float = Field(default=30.0, gt=0, description="Seconds the default firmware has to answer.")
    open_tries: int = Field(default=5, ge=1, description="How often opening the serial port is tried.")
    open_pause_s: float = Field(default=2.0, ge=0, description="Seconds between these tries.")
    settle_s: float = Field(default=2.0, ge=0, description="Seconds at most for a new firmware to say that it waits.")
    chunk_bytes: int = Field(default=512, ge=1, description="Bytes written at once.")
    chunk_pause_s: float = Field(default=10e-6, ge=0, description="Seconds between two writes.")
    answer_s: float = Field(default=10.0, gt=0, description="Seconds from a bitstream's last byte to its result.")
    replug_s: float = Field(default=10.0, gt=0, description="Seconds a reserved board that vanished has to come back.")


class Pico2IceDriver(Driver):
    """The driver `pico2_ice`. Everything that can block (open, mount, copy) happens off the event loop."""

    kinds: ClassVar[tuple[str, ...]] = (pulsecount.KIND, variance.KIND)
    Settings = PicoSettings

    def __init__(self, settings: PicoSettings | None = None) -> None:
        self._udev: Any = require("pyudev", extra="usb", feature="The driver pico2_ice")
        self.settings = s = settings or PicoSettings()
        self.timing = Timing(
            touch_s=s.touch_s,
            flash_s=s.flash_s,
            test_s=s.test_s,
            open_tries=s.open_tries,
            open_pause_s=s.open_pause_s,
            settle_s=s.settle_s,
            chunk_bytes=s.chunk_bytes,
            chunk_pause_s=s.chunk_pause_s,
            answer_s=s.answer_s,
            replug_s=s.replug_s,
        )

    async def events(self) -> AsyncIterator[Hotplug]:
        """Follow the kernel's notices about ttys and disks; what is there already comes first, as added."""
        context = self._udev.Context()
        monitor = self._udev.Monitor.from_netlink(context)
        for subsystem in ("tty", "block"):
            monitor.filter_by(subsystem)
        # Listening begins before the look around: a board that comes in between is seen twice, not never.
        monitor.start()
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(monitor.fileno(), arrived.set)
        shown: dict[str, Hotplug] = {}
        try:
            for subsystem in ("tty", "block"):
                for device in await asyncio.to_thread(list, context.list_devices(subsystem=subsystem)):
                    if (event := hotplug("add", dict(device.properties))) is not None:
                        shown[event.node.path] = event
                        yield event
            while True:
                await arrived.wait()
                arrived.clear()
                while (device := monitor.poll(timeout=0)) is not None:
                    event = hotplug(device.action, dict(device.properties))
                    if event is not None and event.action == "add":
                        shown[event.node.path] = event
                        yield event
                    elif device.action == "remove" and device.device_node in shown:
                        # By its path: a node that is gone may have lost its properties too.
                        gone = shown.pop(device.device_node)
                        yield Hotplug("remove", gone.serial, gone.node)
        finally:
            loop.remove_reader(monitor.fileno())

    async def touch(self, node: Node) -> None:
        """Open and close the tty at 1200 baud."""
        async with asyncio.timeout(self.timing.touch_s):
            await asyncio.to_thread(touch, node.path)

    @asynccontextmanager
    async def drive(self, node: Node) -> AsyncIterator[Path]:
        """Mount the boot loader's disk, or use where a desktop has mounted it already."""
        folder = await asyncio.to_thread(_mounted_at, node.path)
        if folder is None:
            folder = (self.settings.media / node["ID_SERIAL_SHORT"] / "mount").absolute()
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            await self._command([*self.settings.mount, node.path, str(folder)])
        try:
            yield folder
        finally:
            # The board restarts as soon as it has the whole file, so the disk may be gone already.
            with contextlib.suppress(FieldstationError):
                await self._command([*self.settings.unmount, str(folder)])

    async def _command(self, command: list[str]) -> None:
        try:
            code, said = await output_of(*command, timeout_s=self.timing.mount_s)
        except TimeoutError as error:
            raise MountError(command=" ".join(command), problem=f"no end within {self.timing.mount_s:g} s") from error
        except OSError as error:
            raise MountError(command=" ".join(command), problem=error.strerror) from error
        if code:
            raise MountError(command=" ".join(command), problem=said or f"exit code {code}")

    async def port(self, node: Node) -> Port:
        """Open the tty."""
        return Port.open(node.path, chunk_bytes=self.timing.chunk_bytes, pause_s=self.timing.chunk_pause_s)

    async def firmware(self, name: str) -> bytes:
        """Read the UF2 file configured for `name`."""
        path = self.settings.firmware.get(name)
        if path is None:
            mend = f"set firmware_{name} (or {VARIABLES.get(name, 'firmware.' + name)}) to a UF2 file"
            raise NoFirmwareError(name=name, problem=f"none is configured; {mend}")
        try:
            return await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise NoFirmwareError(name=name, problem=f"{path} cannot be read: {error.strerror}") from error


def hotplug(action: str | None, properties: Mapping[str, str]) -> Hotplug | None:
    """Turn a udev device into an event, or None when it is not a node of one of our boards."""
    if action not in ("add", "remove"):
        return None
    path, serial = properties.get("DEVNAME", ""), properties.get("ID_SERIAL_SHORT", "")
    ours = properties.get("ID_VENDOR_ID") in VENDORS and properties.get("ID_MODEL") in MODELS
    if not ours or not serial or not path.startswith("/dev/") or path.startswith("/dev/bus/"):
        return None
    if properties.get("SUBSYSTEM") == "tty":
        kind = TTY
    elif properties.get("DEVTYPE") == "partition":
        kind = PARTITION
    else:
        return None
    done: Literal["add", "remove"] = "add" if action == "add" else "remove"
    return Hotplug(done, serial, Node(kind, path, properties.get("ID_USB_INTERFACE_NUM"), dict(properties)))


def _mounted_at(device: str) -> Path | None:
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        source, folder, *_ = line.split(" ")
        if source == device:
            return Path(folder.encode().decode("unicode_escape"))
    return None
