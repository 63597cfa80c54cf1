"""Random histories over the real control, workers and evaluate calls, on a clock of their own: no device has two
holders, no stale command is carried out, every accepted evaluation ends exactly once. And: broken rules are caught."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from unittest import mock

import pytest
from fleet_in_a_box import Box
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fieldstation.fleet.client.run import Run
from fieldstation.fleet.client.window import Window
from fieldstation.fleet.control.leases import Leases
from fieldstation.fleet.store import ledger
from fieldstation.fleet.worker import Worker

SERIALS = {"a": ("a1", "a2"), "b": ("b1",)}
CLIENTS = ("ann", "bob", "cho")
PATIENCE_S = 150  # an outage of 60 s, a lease of 30 s and what comes after, with room

HAPPENED: Counter[str] = Counter()  # over all histories: so that a fleet which does nothing is not called faultless

WHAT = (
    *("reserve", "reserve and evaluate", "reserve and evaluate", "evaluate", "end", "extend", "intrude"),
    *("kill worker", "start worker", "start worker", "restart control", "database", "cut worker from control"),
    *("silence", "cut client from worker", "cut client from control", "wait", "wait", "wait"),
)

workers = st.sampled_from(sorted(SERIALS))
clients = st.sampled_from(CLIENTS)
sometimes = st.sampled_from([False, False, True])  # what breaks is mended more often than it is broken


class Fire(RuleBasedStateMachine):
    """What users do, what breaks, and the clock; afterwards all is mended, and everything must come right."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Box(SERIALS, CLIENTS)

    @initialize(count=st.integers(1, 20))
    def begin(self, count):
        """Everybody works, so that there is something to break."""
        for client in CLIENTS:
            self.reserve(client, 1)
            self.evaluate(client, count)
        self.wait(0.5)

    # One rule for all: of many, Hypothesis leaves most out in each history, and little would happen.

    @rule(what=st.sampled_from(WHAT), client=clients, worker=workers, count=st.integers(1, 20), broken=sometimes)
    def happen(self, what, client, worker, count, broken):
        {
            "reserve": lambda: self.reserve(client, 1 + count % 3),
            "reserve and evaluate": lambda: self.reserve_and_evaluate(client, count),
            "evaluate": lambda: self.evaluate(client, count),
            "end": lambda: self.end(client),
            "extend": lambda: self.extend(client),
            "intrude": lambda: self.intrude(client, count),
            "kill worker": lambda: self.kill_worker(worker),
            "start worker": lambda: self.start_worker(worker, found_after_s=[0.0, 0.0, 1.0, 8.0][count % 4]),
            "restart control": lambda: self.restart_control(),
            "database": lambda: self.database(broken),
            "cut worker from control": lambda: self.cut_worker_from_control(worker, broken),
            "silence": lambda: self.silence(worker, broken, mute=broken and count % 2 == 0),
            "cut client from worker": lambda: self.cut_client_from_worker(client, worker, broken),
            "cut client from control": lambda: self.cut_client_from_control(client, broken),
            "wait": lambda: self.wait([0.5, 1.0, 3.0, 8.0, 40.0][count % 5]),
        }[what]()

    # What users do.

    def reserve(self, client, amount):
        self.box.do(self.box.clients[client].reserve, amount)

    def end(self, client):
        self.box.do(self.box.clients[client].end, list(self.box.clients[client].held))

    def extend(self, client):
        self.box.do(self.box.clients[client].extend)

    def reserve_and_evaluate(self, client, count):
        self.reserve(client, 1)
        self.evaluate(client, count)

    def evaluate(self, client, count):
        self.box.do(self.box.clients[client].evaluate, count)

    def intrude(self, client, which):
        """Somebody commands with a lease that is over."""
        old = self.box.clients[client].old
        if old:
            self.box.do(self.box.clients[client].intrude, *old[which % len(old)])

    # What breaks.

    def kill_worker(self, worker):
        if self.box.benches[worker].worker is not None:
            self.box.do(self.box.benches[worker].kill)

    def start_worker(self, worker, found_after_s=0.0):
        bench = self.box.benches[worker]
        if bench.worker is None:
            bench.driver.found_after_s = found_after_s
            self.box.do(bench.start)

    def restart_control(self):
        self.box.do(self.box.stop_control)
        self.box.do(self.box.start_control)

    def database(self, down):
        self.box.database.down = down

    def cut_worker_from_control(self, worker, cut):
        bench = self.box.benches[worker]
        bench.cut = cut
        if cut:
            self.box.do(bench.hang_up)

    def silence(self, worker, silent, mute):
        """The line stands; nothing passes, or nothing comes back."""
        self.box.benches[worker].silent = silent
        self.box.benches[worker].mute = mute

    def cut_client_from_worker(self, client, worker, cut):
        one = self.box.clients[client]
        self.box.do(one.lose, worker)
        (one.cut.add if cut else one.cut.discard)(worker)

    def cut_client_from_control(self, client, cut):
        one = self.box.clients[client]
        self.box.do(one.lose_control)
        (one.cut.add if cut else one.cut.discard)("control")

    def wait(self, seconds):
        self.box.wait(seconds)

    # What must hold, always and in the end.

    @invariant()
    def no_device_has_two_holders(self):
        for serial, client, fence, _ in self.box.seen:
            owner = self.box.granted.get((serial, fence), client)
            assert owner == client, f"{client} commanded {serial} with {owner}'s fence {fence}"

    @invariant()
    def no_stale_command_is_carried_out(self):
        highest: Counter[str] = Counter()
        for serial, client, fence, known in self.box.seen:
            assert fence == known, f"{client} commanded {serial} with fence {fence} when there was {known}"
            assert fence >= highest[serial], f"{client} commanded {serial} with fence {fence} after {highest[serial]}"
            highest[serial] = fence

    @invariant()
    def no_evaluation_ends_twice(self):
        for client in self.box.clients.values():
            ended = Counter((result.serial, result.evaluation.id) for result in client.results)
            assert all(count <= client.asked[key] for key, count in ended.items()), "an evaluation ended twice"
            for result in client.results:
                assert result.failed == bool(result.reason)
                assert result.failed or result.value.startswith(result.serial)

    def teardown(self) -> None:
        HAPPENED.update(reserved=len(self.box.granted), measured=len(self.box.seen))
        try:
            self.everything_comes_right()
        finally:
            self.box.close()

    def everything_comes_right(self):
        fleet = self.box
        fleet.database.down = False
        for bench in fleet.benches.values():
            bench.cut = bench.silent = bench.mute = False
            if bench.worker is None:
                self.start_worker(bench.name)
        for client in fleet.clients.values():
            client.cut.clear()
        waited = 0.0
        while waited < PATIENCE_S and any(len(c.results) < c.asked.total() for c in fleet.clients.values()):
            fleet.wait(5.0)
            waited += 5.0
        for client in fleet.clients.values():
            ended = Counter((result.serial, result.evaluation.id) for result in client.results)
            assert ended == client.asked, f"never ended: {client.asked - ended}"
            self.end(client.name)
        fleet.wait(45.0)  # what nobody knows that they hold runs out
        self.no_device_has_two_holders()
        control = fleet.control
        assert control is not None
        assert control.index.holdings == {}
        assert control.amount == sum(map(len, SERIALS.values()))
        self.the_book_is_in_order()

    def the_book_is_in_order(self):
        """Control wrote down a reservation and its end in turn for each device, and the fences count them."""
        fences: Counter[str] = Counter()
        reserved: set[str] = set()
        for row in self.box.database.audit():
            for serial in row["target"].split(","):
                if row["action"] == "reserve":
                    assert serial not in reserved
                    reserved.add(serial)
                    fences[serial] += 1
                elif row["action"] == "end":
                    reserved.remove(serial)
        assert not reserved
        assert {s: d.fence for s, d in self.box.control.index.devices.items() if d.fence} == fences


QUICK = settings(
    max_examples=10,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=True,  # `make soak` goes by chance
    phases=(Phase.generate, Phase.shrink),
    print_blob=True,
)


@pytest.mark.timeout(60)
def test_no_history_breaks_the_rules_of_holding():
    run_state_machine_as_test(Fire, settings=QUICK)


def by_dice(seed):
    """A history as long as the others; dice repeat themselves less than a search for the smallest one does."""
    dice = random.Random(seed)

    def play(fire):
        fire.begin(dice.randint(1, 20))
        for _ in range(30):
            broken = dice.random() < 1 / 3
            fire.happen(
                dice.choice(WHAT), dice.choice(CLIENTS), dice.choice(sorted(SERIALS)), dice.randint(1, 20), broken
            )

    return play


@pytest.mark.timeout(60)
def test_no_history_by_dice_breaks_the_rules_of_holding():
    HAPPENED.clear()
    for seed in range(20):
        replay(by_dice(seed))
    assert HAPPENED["reserved"] >= 50
    assert HAPPENED["measured"] >= 200


# The proof that it can fail: each of these breaks one rule.


def obey_everybody(self, session, serial, event, contents):
    """A worker that carries out what any lease says that it has ever known."""
    hosted = self.devices.get(serial)
    if hosted is not None and any(self.holdings.get(lease) is not None for lease in session.leases):
        hosted.machine.request(event, contents, lambda error: None)


def read_no_leases(connection):
    """A control that comes back without the leases that it had given."""
    return replace(read(connection), leases=[])


def answer_again(self, serial, wire_id, now):
    """A client that takes a repeated result for another one."""
    desk = self._desks.get(serial)
    return desk.outstanding.get(wire_id) if desk is not None else None


def lose_quietly(self, serial, reason):
    """A client that forgets what it asked of a device that it lost."""
    self._window.give_up(serial)


def believe_the_worker(self, serials, reason, **_):
    """A control that ends nothing."""
    return asyncio.sleep(0, [])


read = ledger.read


def steal(fire):
    fire.reserve("ann", 3)
    fire.evaluate("ann", 1)
    fire.wait(3.0)
    fire.end("ann")
    fire.wait(3.0)
    fire.reserve("bob", 3)
    fire.wait(1.0)
    fire.intrude("ann", 0)
    fire.wait(3.0)


def come_back(fire):
    fire.reserve("ann", 3)
    fire.wait(1.0)
    fire.restart_control()
    fire.wait(8.0)
    fire.reserve("bob", 1)


def repeat(fire):
    fire.reserve("ann", 1)
    fire.evaluate("ann", 20)
    fire.wait(1.0)
    fire.cut_client_from_worker("ann", "a", False)
    fire.wait(8.0)


def unplug(fire):
    fire.reserve("ann", 3)
    fire.evaluate("ann", 20)
    fire.kill_worker("a")
    fire.wait(8.0)


def leave(fire):
    fire.reserve("ann", 1)
    fire.end("ann")


# What is broken, by what, and a history that shows it.
BROKEN = {
    "fencing": (Worker, "request", obey_everybody, steal),
    "durable leases": (ledger, "read", read_no_leases, come_back),
    "one result": (Window, "answered", answer_again, repeat),
    "a stated failure": (Run, "lost", lose_quietly, unplug),
    "leases that end": (Leases, "end", believe_the_worker, leave),
}


def replay(history):
    fire = Fire()
    try:
        history(fire)
        fire.no_device_has_two_holders()
        fire.no_stale_command_is_carried_out()
        fire.no_evaluation_ends_twice()
    finally:
        fire.teardown()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("rule_of", sorted(BROKEN))
def test_a_broken_rule_is_caught(rule_of):
    where, name, broken, history = BROKEN[rule_of]
    replay(history)
    with mock.patch.object(where, name, broken), pytest.raises((AssertionError, KeyError)):
        replay(history)


# Histories that once broke something.


def run_out_while_the_database_is_down(fire):
    """Control could not end the lease that the restarted worker had just ended by itself, and listed it again."""
    fire.reserve("ann", 3)
    fire.database(True)
    fire.kill_worker("b")
    fire.wait(40.0)
    fire.start_worker("b")
    fire.wait(3.0)


def take_what_the_worker_never_heard_of(fire):
    """The worker died before it heard of a lease, came back without its boards, and found them with the fences that it
    knew: control had forgotten the boards, and gave the last fence once more."""
    fire.reserve("ann", 3)
    fire.end("ann")
    fire.wait(3.0)
    fire.silence("a", True, False)
    fire.reserve("bob", 3)
    fire.kill_worker("a")
    fire.wait(40.0)
    fire.silence("a", False, False)
    fire.start_worker("a", found_after_s=3.0)
    fire.wait(8.0)
    fire.reserve("cho", 3)
    fire.wait(3.0)


def come_back_before_it_was_written_that_they_are_gone(fire):
    """Control gave boards up that a restarted worker did not find, could not write it, and forgot them when it could:
    by then the worker had found them, and had nothing more to say."""
    fire.reserve("ann", 3)
    fire.kill_worker("a")
    fire.database(True)
    fire.start_worker("a", found_after_s=8.0)
    fire.wait(40.0)


ONCE = (
    run_out_while_the_database_is_down,
    take_what_the_worker_never_heard_of,
    come_back_before_it_was_written_that_they_are_gone,
)


@pytest.mark.parametrize("history", ONCE)
def test_a_history_that_once_broke_something_comes_right(history):
    replay(history)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rule_of", sorted(BROKEN))
def test_a_broken_rule_is_found_by_chance(rule_of):
    where, name, broken, _ = BROKEN[rule_of]
    thorough = settings(
        QUICK, max_examples=2000, derandomize=False, phases=(Phase.generate,), report_multiple_bugs=False
    )
    with mock.patch.object(where, name, broken), pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Fire, settings=thorough)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_no_long_history_breaks_the_rules_of_holding():
    for seed in range(3000):
        replay(by_dice(seed))
    run_state_machine_as_test(
        Fire, settings=settings(QUICK, max_examples=3000, derandomize=False, stateful_step_count=50)
    )
