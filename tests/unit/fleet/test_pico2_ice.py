import pytest

from fieldstation.fleet.driver import Node, NoFirmwareError
from fieldstation.fleet.drivers.pico2_ice import MountError, Pico2IceDriver, PicoSettings, hotplug

TTY = {
    "SUBSYSTEM": "tty",
    "DEVNAME": "/dev/ttyACM0",
    "ID_VENDOR_ID": "1209",
    "ID_MODEL": "pico-ice",
    "ID_SERIAL_SHORT": "DE62A8",
    "ID_USB_INTERFACE_NUM": "00",
}
DISK = {**TTY, "SUBSYSTEM": "block", "DEVTYPE": "partition", "DEVNAME": "/dev/sda1", "ID_VENDOR_ID": "2e8a"}


def test_a_tty_and_a_partition_are_nodes_of_their_board():
    tty, disk = hotplug("add", TTY), hotplug("remove", {**DISK, "ID_MODEL": "RP2350"})
    assert (tty.action, tty.serial, tty.node.kind, tty.node.path) == ("add", "DE62A8", "tty", "/dev/ttyACM0")
    assert tty.node.interface == "00"
    assert (disk.action, disk.node.kind, disk.node["DEVNAME"]) == ("remove", "partition", "/dev/sda1")


@pytest.mark.parametrize(
    "change",
    [
        {"ID_VENDOR_ID": "0403"},
        {"ID_MODEL": "Arduino"},
        {"DEVNAME": "/dev/bus/usb/001/002"},
        {"DEVNAME": "/sys/x"},
        {"ID_SERIAL_SHORT": ""},
    ],
)
def test_what_is_not_one_of_our_boards_is_left_alone(change):
    assert hotplug("add", {**TTY, **change}) is None


def test_a_whole_disk_and_other_actions_are_no_events():
    assert hotplug("add", {**DISK, "DEVTYPE": "disk"}) is None
    assert hotplug("change", TTY) is None
    assert hotplug(None, TTY) is None


async def test_a_disk_is_mounted_used_and_unmounted(tmp_path):
    log = tmp_path / "log"
    script = f'echo "$@" >> {log}'
    settings = PicoSettings(
        media=tmp_path / "media",
        mount=["sh", "-c", script, "mount", "in"],
        unmount=["sh", "-c", script, "umount", "out"],
    )
    node = Node("partition", "/dev/sda1", properties={"ID_SERIAL_SHORT": "DE62A8"})
    async with Pico2IceDriver(settings).drive(node) as folder:
        assert folder == tmp_path / "media/DE62A8/mount"
        assert folder.is_dir()
    assert log.read_text() == f"in /dev/sda1 {folder}\nout {folder}\n"


@pytest.mark.parametrize("command", [["sh", "-c", "echo only root can do that >&2; exit 1"], ["/no/such/program"]])
async def test_a_mount_that_fails_says_why_and_what_helps(tmp_path, command):
    driver = Pico2IceDriver(PicoSettings(media=tmp_path, mount=command))
    with pytest.raises(MountError, match=r"(only root can do that|No such file).*Mounting needs root"):
        async with driver.drive(Node("partition", "/dev/sda1", properties={"ID_SERIAL_SHORT": "D"})):
            pass


async def test_a_firmware_that_is_not_there_is_named(tmp_path):
    driver = Pico2IceDriver(PicoSettings(firmware={"default": tmp_path / "gone.uf2"}))
    with pytest.raises(NoFirmwareError, match=r"gone\.uf2 cannot be read"):
        await driver.firmware("default")
    with pytest.raises(NoFirmwareError, match="ICEFARM_PULSE_COUNT"):
        await driver.firmware("pulsecount")


def test_the_documented_patience_is_the_default():
    timing = Pico2IceDriver().timing
    assert (timing.chunk_bytes, timing.chunk_pause_s, timing.flash_s, timing.test_s) == (512, 10e-6, 60, 30)
    assert (timing.touch_s, timing.copy_s, timing.mount_s, timing.banner_s) == (10, 15, 10, 2)
    assert (timing.open_tries, timing.open_pause_s, timing.settle_s) == (5, 2, 2)
