import asyncio

import pytest

from fieldstation.fleet.driver import Driver, Hotplug, Node, Timing
from fieldstation.fleet.states.device import Device, DeviceBrokenError


class Silent(Driver):
    timing = Timing(open_tries=2, open_pause_s=0.0, replug_s=0.01)

    def __init__(self):
        self.opened = []

    async def events(self):
        yield Hotplug("add", "D", Node("tty", "/dev/x"))

    async def port(self, node):
        self.opened.append(node.path)
        raise OSError(16, "Device or resource busy")


@pytest.fixture
async def device():
    return Device("D", Silent(), print)


async def test_the_serial_line_is_the_tty_of_interface_00(device):
    device.add(Node("tty", "/dev/ttyACM0", "00"))
    device.add(Node("tty", "/dev/ttyACM1", "02"))
    with pytest.raises(DeviceBrokenError, match="busy"):
        async with device.port():
            pass
    assert device.driver.opened == ["/dev/ttyACM0", "/dev/ttyACM0"]


async def test_another_interface_alone_is_not_opened(device):
    device.add(Node("tty", "/dev/ttyACM1", "02"))
    with pytest.raises(DeviceBrokenError, match="did not appear"):
        async with device.port():
            pass
    assert device.driver.opened == []


async def test_a_node_that_is_waited_for_is_found_when_it_comes(device):
    waiting = asyncio.ensure_future(device.node("partition"))
    await asyncio.sleep(0)
    device.add(Node("tty", "/dev/ttyACM0", "00"))
    await asyncio.sleep(0)
    assert not waiting.done()
    device.add(Node("partition", "/dev/sda1"))
    assert (await waiting).path == "/dev/sda1"
    assert device.in_boot_loader
    device.forget("/dev/sda1")
    assert device.present
    assert not device.in_boot_loader
