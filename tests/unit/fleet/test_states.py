"""The interface for device states, as the document shows it."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from fieldstation.fleet import AbstractState, reservable
from fieldstation.fleet.driver import Driver, Hotplug, Node
from fieldstation.fleet.errors import BadRequestError, UnknownKindError
from fieldstation.fleet.states.core import NoDatabaseError, SwitchInConstructorError
from fieldstation.fleet.states.device import Device, DeviceBrokenError
from fieldstation.fleet.states.lifecycle import ReadyState
from fieldstation.fleet.states.machine import Machine
from fieldstation.fleet.states.pulsecount import PulseCountState
from fieldstation.fleet.states.recovery import BrokenState
from fieldstation.fleet.states.reservable import kind
from fieldstation.fleet.states.variance import fitness
from fieldstation.testing import eventually


class NoDriver(Driver):
    flashes = False

    async def events(self):
        yield Hotplug("add", "D", Node("tty", "/dev/null"))


class Kept(AbstractState):
    """Keeps what happens to it."""

    def __init__(self, device):
        super().__init__(device)
        self.calls = []

    def start(self):
        self.calls.append(("start", threading.current_thread().name))

    def handleAdd(self, dev):
        self.calls.append(("add", dev["DEVNAME"]))

    def handleRemove(self, dev):
        self.calls.append(("remove", dev.path))

    def reboot(self):
        self.calls.append(("reboot",))

    def handleExit(self):
        self.calls.append(("exit",))

    @AbstractState.register("measure", "amount", "names", "options")
    def measure(self, amount: int, names: list[str], options: dict):
        self.calls.append(("measure", amount, names, options))

    @AbstractState.register("file", "data")
    def takeFile(self, data: bytes):
        self.calls.append(("file", data))

    @AbstractState.register("anything", "value")
    def takeAnything(self, value):
        self.calls.append(("anything", value))


class Overriding(Kept):
    def takeFile(self, data: bytes):
        self.calls.append(("overridden", data))


class Life:
    def __init__(self):
        self.posted = []
        self.lost = []
        self.device = Device("D", NoDriver(), self.posted.extend)
        self.machine = Machine(self.device, changed=lambda: None, lost=self.on_lost, stuck_s=0.05)

    def on_lost(self, reason, error):
        self.lost.append(reason)
        return BrokenState if isinstance(error, DeviceBrokenError) else ReadyState

    async def become(self, factory, cls=None):
        self.machine.become(factory)
        await eventually(lambda: isinstance(self.machine.state, cls or factory))
        return self.machine.state


@asynccontextmanager
async def running():
    life = Life()
    async with asyncio.TaskGroup() as group:
        group.create_task(life.machine.run())
        yield life
        life.machine.close()


async def test_a_state_hears_what_happens_in_order_and_in_its_own_thread():
    async with running() as life:
        state = await life.become(Kept)
        node = Node("tty", "/dev/ttyACM0", properties={"DEVNAME": "/dev/ttyACM0"})
        life.machine.hotplug("add", node)
        life.machine.reboot()
        life.machine.hotplug("remove", node)
        await life.become(ReadyState)
    assert state.calls == [
        ("start", "device D"),
        ("add", "/dev/ttyACM0"),
        ("reboot",),
        ("remove", "/dev/ttyACM0"),
        ("exit",),
    ]


async def test_a_request_calls_the_registered_method_with_the_named_fields():
    refused = []
    async with running() as life:
        state = await life.become(Kept)
        life.machine.request("measure", {"options": {}, "names": ["a"], "amount": 2, "extra": 1}, refused.append)
        life.machine.request("file", {"data": b"\x00"}, refused.append)
        life.machine.request("anything", {"value": None}, refused.append)
        await eventually(lambda: len(state.calls) == 4)
    assert refused == []
    assert state.calls[1:4] == [("measure", 2, ["a"], {}), ("file", b"\x00"), ("anything", None)]


@pytest.mark.parametrize(
    ("event", "contents", "field"),
    [
        ("measure", {"amount": True, "names": [], "options": {}}, "contents.amount"),
        ("measure", {"amount": "2", "names": [], "options": {}}, "contents.amount"),
        ("measure", {"amount": 2, "names": [1], "options": {}}, "contents.names"),
        ("measure", {"amount": 2, "names": [], "options": []}, "contents.options"),
        ("measure", {"amount": 2, "names": []}, "contents.options"),
        ("file", {"data": "text"}, "contents.data"),
        ("fly", {}, "event"),
    ],
)
async def test_a_wrong_argument_refuses_the_request_and_names_the_field(event, contents, field):
    refused = []
    async with running() as life:
        state = await life.become(Kept)
        life.machine.request(event, contents, refused.append)
        await eventually(lambda: refused)
        assert state.calls == [("start", "device D")]
    (error,) = refused
    assert isinstance(error, BadRequestError)
    assert error.fields["field"] == field


async def test_an_overridden_method_stays_registered():
    async with running() as life:
        state = await life.become(Overriding)
        life.machine.request("file", {"data": b"x"}, print)
        await eventually(lambda: ("overridden", b"x") in state.calls)


async def test_a_reserved_state_without_a_start_of_its_own_says_initialized():
    @reservable("plain", "message", "missing")
    class Plain(AbstractState):
        def __init__(self, device, message, missing):
            super().__init__(device)
            self.told = (message, missing)

    async with running() as life:
        life.machine.become(lambda device: kind("plain").build(device, {"message": "hello", "other": 1}))
        await eventually(lambda: life.posted)
        assert life.posted == [{"event": "initialized"}]
        assert life.machine.state.told == ("hello", None)


async def test_events_from_a_states_thread_arrive_and_the_key_event_is_overwritten():
    class Telling(AbstractState):
        def start(self):
            self.device_event_sender.sendDeviceEvents([("one", {"event": "x", "n": 1}), ("two", {})])
            self.device_event_sender.sendDeviceFailure()

    async with running() as life:
        await life.become(Telling)
        await eventually(lambda: len(life.posted) == 3)
    assert life.posted == [{"event": "one", "n": 1}, {"event": "two"}, {"event": "failure"}]


async def test_a_state_switches_once_and_not_in_its_constructor():
    class Hasty(AbstractState):
        def __init__(self, device):
            super().__init__(device)
            self.switch(Kept)

    class Twice(AbstractState):
        def start(self):
            self.switch(Kept)
            self.switch(ReadyState)

    async with running() as life:
        assert isinstance(await life.become(Twice, Kept), Kept)
        life.machine.become(Hasty)
        await eventually(lambda: life.lost)
        assert SwitchInConstructorError.__name__ in life.lost[0]


async def test_a_factory_may_take_nothing_as_documented():
    async with running() as life:
        device = life.device
        life.machine.become(lambda: Kept(device))
        await eventually(lambda: isinstance(life.machine.state, Kept))


async def test_a_state_that_raises_is_lost_and_the_machine_goes_on():
    class Clumsy(AbstractState):
        def start(self):
            raise ValueError("slipped")

    class LaterClumsy(AbstractState):
        async def run(self):
            raise DeviceBrokenError(serial="D", reason="smoke")

    async with running() as life:
        await life.become(Clumsy, ReadyState)
        assert life.lost == ["ValueError: slipped"]
        await life.become(LaterClumsy, BrokenState)
        assert life.lost[1] == "smoke"
        assert life.device.reason == "smoke"


async def test_a_state_that_never_returns_does_not_keep_its_device():
    release = threading.Event()

    class Stuck(AbstractState):
        def start(self):
            release.wait(30)

    async with running() as life:
        await life.become(Stuck)
        await life.become(ReadyState)
    release.set()


async def test_a_state_has_no_database_and_says_what_to_do_instead():
    async with running() as life:
        state = await life.become(Kept)
        with pytest.raises(NoDatabaseError, match="status"):
            _ = state.database
        assert (state.serial, state.switching) == ("D", False)


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(UnknownKindError, match="telepathy"):
        kind("telepathy")


def test_two_states_cannot_share_a_kind():
    with pytest.raises(BadRequestError):
        reservable(PulseCountState.kind)(Kept)


@pytest.mark.parametrize(
    ("samples", "value"), [([], 0.0), ([5], 0.0), ([5, 5, 5], 0.0), ([1, 2, 3, 4, 5, 4, 3, 2, 1], 8 / 9)]
)
def test_fitness_is_the_sum_of_steps_over_the_number_of_samples(samples, value):
    assert fitness(samples) == value
