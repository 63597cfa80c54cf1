"""States of a device that fails: which steps they take, and that an idle one alone is looked at."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from fieldstation.fleet.driver import Driver, Node, Timing
from fieldstation.fleet.hosted import Devices, Hooks
from fieldstation.fleet.ladder import Budgets
from fieldstation.fleet.model import DeviceState, Health, OutOfService
from fieldstation.fleet.power import PowerCycleError
from fieldstation.fleet.states.care import Care, CareSettings
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.device import Device, DeviceBrokenError
from fieldstation.fleet.states.lifecycle import OutOfServiceState, ReadyState, fresh
from fieldstation.fleet.states.machine import Machine
from fieldstation.fleet.states.recovery import BrokenState, PowerCycleState
from fieldstation.testing import eventually

NODE = Node("tty", "/dev/ttyACM0", "00")


class Line:
    """A port on which a board says the banner, or nothing."""

    def __init__(self, driver):
        self.driver = driver

    async def line(self):
        while self.driver.mute:
            await asyncio.sleep(0.01)
        return "default firmware"

    def close(self):
        self.driver.open -= 1


class BoardDriver(Driver):
    """Boards that need no real flash: a firmware is written as soon as it is asked for."""

    timing = Timing(test_s=0.05, banner_s=0.02, retry_s=0.001, replug_s=0.05, open_tries=1)

    def __init__(self, *, mute=False):
        self.mute = mute
        self.open = 0
        self.looks = 0

    def events(self):
        raise NotImplementedError

    async def port(self, node):
        self.open += 1
        self.looks += 1
        return Line(self)


class Plain(Driver):
    flashes = False
    timing = Timing(retry_s=0.001)

    def events(self):
        raise NotImplementedError


class Leased(AbstractState):
    pass


class Life:
    def __init__(self, driver, **care):
        self.steps = []
        self.states = []
        self.care = Care("D", CareSettings(**{"check_s": 0.0, **care}), lambda step, detail: self.steps.append(step))
        self.device = Device("D", driver, lambda items: None, care=self.care)
        self.device.add(NODE)
        self.device.firmware = "default"
        self.machine = Machine(self.device, changed=self.on_change, lost=self.on_lost)

    def on_change(self):
        self.states.append(type(self.machine.state))

    def on_lost(self, reason, error):
        self.device.at_fault = isinstance(error, DeviceBrokenError)
        return BrokenState

    async def reach(self, state):
        await eventually(lambda: isinstance(self.machine.state, state))


@asynccontextmanager
async def life(driver, **care):
    found = Life(driver, **care)
    async with asyncio.TaskGroup() as group:
        group.create_task(found.machine.run())
        yield found
        found.machine.close()


async def test_an_idle_board_that_answers_is_looked_at_again_and_again_and_stays_ready():
    driver = BoardDriver()
    async with life(driver, check_s=0.01) as found:
        found.machine.become(ReadyState)
        await eventually(lambda: driver.looks >= 3)
        assert found.states == [ReadyState]
        assert found.steps == []


async def test_an_idle_board_that_falls_silent_is_broken_and_only_looked_at_again_first():
    driver = BoardDriver(mute=True)
    async with life(driver, check_s=0.01, budgets=Budgets(retries=1, reflashes=0)) as found:
        reasons = []

        def mend(step, detail):
            found.steps.append(step)
            if step == "broken":
                reasons.append(detail)
                driver.mute = False

        found.care.note = mend
        found.machine.become(ReadyState)
        await eventually(lambda: found.steps == ["broken", "retry", "recovered"])
        assert "health check" in reasons[0]
        assert found.device.health is Health.OK


async def test_a_lease_ends_a_look_that_is_under_way_and_the_port_is_closed_again():
    driver = BoardDriver(mute=True)
    async with life(driver, check_s=0.001) as found:
        found.machine.become(ReadyState)
        await eventually(lambda: driver.open)
        found.machine.become(Leased, blocking=False)
        await found.reach(Leased)
        assert driver.open == 0
        looked = driver.looks
        await asyncio.sleep(0.05)  # far longer than the interval: nothing may come, so there is nothing to wait for
        assert driver.looks == looked


@pytest.mark.parametrize(("check_s", "driver"), [(0.0, BoardDriver(mute=True)), (0.001, Plain())])
async def test_checks_are_off_at_zero_and_for_boards_that_have_no_default_firmware(check_s, driver):
    async with life(driver, check_s=check_s) as found:
        found.machine.become(ReadyState)
        await found.reach(ReadyState)
        await asyncio.sleep(0.05)  # see above
        assert found.states == [ReadyState]


async def test_what_is_not_the_boards_fault_climbs_nothing_and_is_tried_for_ever():
    class Mistaken(AbstractState):
        blocking = False

        async def run(self):
            raise ValueError("the firmware file is not there")

    async with life(Plain(), budgets=Budgets(0, 0, 0)) as found:
        found.machine.become(Mistaken)
        await found.reach(ReadyState)
    assert found.states == [Mistaken, BrokenState, ReadyState]
    assert found.steps == ["broken", "recovered"]


async def test_without_budget_a_board_is_quarantined_and_whatever_happens_to_it_is_left_alone():
    async with life(Plain(), budgets=Budgets(0, 0, 0)) as found:
        found.machine.fail(DeviceBrokenError(serial="D", reason="smoke"))
        await found.reach(OutOfServiceState)
        assert found.machine.state.status is DeviceState.BROKEN
        assert (found.device.health, found.device.reason) == (Health.QUARANTINED, "smoke")
        found.machine.reboot()
        found.machine.hotplug("remove", NODE)
        found.machine.hotplug("add", NODE)
        found.machine.become(fresh)
        await eventually(lambda: len(found.states) == 3)
    assert found.states == [BrokenState, OutOfServiceState, OutOfServiceState]
    assert found.steps == ["broken", "quarantined"]


async def test_a_board_that_is_gone_is_not_quarantined_but_waits_to_be_forgotten():
    async with life(Plain(), budgets=Budgets(0, 0, 0)) as found:
        found.machine.hotplug("remove", NODE)
        found.machine.fail(DeviceBrokenError(serial="D", reason="it was unplugged"))
        await found.reach(BrokenState)
        assert not found.machine.state.keeps
        found.machine.hotplug("add", NODE)
        await found.reach(ReadyState)
    assert found.steps == ["broken", "plugged in", "recovered"]


class Hub:
    """A hub whose switch brings the board back, or does not."""

    def __init__(self, works=True):
        self.works = works
        self.machine = None

    def can(self, serial, seen):
        return True

    async def cycle(self, serial, seen):
        if self.works:
            self.machine.hotplug("add", NODE)
        return "switched"


async def test_a_board_that_vanished_is_kept_while_its_hub_can_still_cut_its_power():
    hub = Hub()
    async with life(Plain(), power=hub, back_s=5.0) as found:
        hub.machine = found.machine
        found.machine.hotplug("remove", NODE)
        found.machine.fail(DeviceBrokenError(serial="D", reason="it hangs"))
        await found.reach(ReadyState)
    assert found.states == [BrokenState, PowerCycleState, ReadyState]
    assert found.steps == ["broken", "power cycle", "recovered"]


async def test_a_board_that_does_not_come_back_is_given_up_after_its_budget():
    hub = Hub(works=False)
    async with life(Plain(), power=hub, back_s=0.01, budgets=Budgets(power_cycles=2)) as found:
        found.machine.hotplug("remove", NODE)
        found.machine.fail(DeviceBrokenError(serial="D", reason="it hangs"))
        await eventually(lambda: found.steps.count("broken") == 3)
        await found.reach(BrokenState)
        assert not found.machine.state.keeps
    assert found.steps == ["broken", "power cycle", "broken", "power cycle", "broken"]


class Stiff(Hub):
    async def cycle(self, serial, seen):
        raise PowerCycleError(serial=serial, problem="no such hub")


async def test_a_hub_that_does_not_switch_is_in_the_history_and_not_the_reason():
    async with life(Plain(), power=Stiff(), budgets=Budgets(retries=0, power_cycles=1)) as found:
        found.machine.fail(DeviceBrokenError(serial="D", reason="it hangs"))
        await found.reach(OutOfServiceState)
        assert found.device.reason == "it hangs"
    assert found.steps == ["broken", "power cycle", "power cycle failed", "broken", "quarantined"]


class Slow(Hub):
    async def cycle(self, serial, seen):
        self.cutting = True
        await asyncio.sleep(0.05)
        self.cutting = False
        return "switched"


async def test_a_power_cycle_that_has_begun_is_not_stopped_half_way():
    hub = Slow()
    async with life(Plain(), power=hub, budgets=Budgets(retries=0)) as found:
        found.machine.fail(DeviceBrokenError(serial="D", reason="it hangs"))
        await eventually(lambda: getattr(hub, "cutting", False))
        found.care.out = OutOfService(Health.MAINTENANCE, "new fan")
        found.machine.become(fresh)
        await found.reach(OutOfServiceState)
        assert not hub.cutting


async def test_a_device_that_is_out_of_service_begins_there():
    async with life(BoardDriver()) as found:
        found.care.out = OutOfService(Health.MAINTENANCE, "new fan")
        found.machine.become(fresh)
        await found.reach(OutOfServiceState)
        assert found.device.health is Health.MAINTENANCE


async def test_controls_word_after_a_hello_is_taken_but_a_quarantine_of_our_own_stays():
    steps = []
    nothing = Hooks(*[lambda *_: None] * 4, lambda serial, step, detail: steps.append((serial, step)))
    devices = Devices({}, nothing)
    devices.care("OURS").quarantine("smoke")
    devices.set_service("OVER", "maintenance", "new fan")
    devices.reunite({"A": {"health": "maintenance", "reason": "x"}, "B": {"health": "a word of tomorrow"}, "C": {}})
    found = {serial: devices.care(serial).out for serial in ("OURS", "OVER", "A", "B", "C", "D")}
    assert found["OURS"] == OutOfService(Health.QUARANTINED, "smoke")
    assert found["OVER"] is None
    assert found["A"] == OutOfService(Health.MAINTENANCE, "x")
    # Whatever a newer control means by it: such a device is left alone.
    assert found["B"].health is found["C"].health is Health.MAINTENANCE
    assert found["D"] is None
    devices.set_service("OURS", None)
    assert devices.care("OURS").out is None
    assert steps == [("OURS", "quarantined")]
