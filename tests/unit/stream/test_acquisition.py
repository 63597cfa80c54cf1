import asyncio
from contextlib import asynccontextmanager

import pytest

from fieldstation.stream.acquisition import Acquisition
from fieldstation.stream.errors import (
    DataDirError,
    IntervalError,
    NoRunError,
    NotInitialisedError,
    ReadersActiveError,
    SourceFailedError,
    StreamEndedError,
    StreamError,
    TooManyReadersError,
)
from fieldstation.stream.hub import Hub, Newest
from fieldstation.stream.model import HpIo, Wanted

WANTED = Wanted(True, True, frozenset(), 0.0)


class FakeSource:
    """Starts when told, fails when told."""

    def __init__(self, request, log):
        self.request, self.log = request, log
        self.gate = asyncio.Event()
        self.failure = asyncio.get_running_loop().create_future()
        if not request.data_dir.startswith("slow"):
            self.gate.set()

    async def start(self, publish):
        await self.gate.wait()
        if self.request.data_dir.startswith("bad"):
            raise StreamError("the disk is on fire")
        self.log.append(("start", self.request.data_dir))

    async def run(self):
        await asyncio.shield(self.failure)

    async def stop(self):
        self.log.append(("stop", self.request.data_dir))

    def demand(self, readers, every):
        pass

    def history(self):
        return None

    def health(self):
        return {"ok": True}


class World:
    def __init__(self, acquisition, sources, log):
        self.acquisition, self.sources, self.log = acquisition, sources, log
        self.active = None


@asynccontextmanager
async def world(max_readers=100):
    log, sources = [], []

    def open_source(request):
        sources.append(FakeSource(request, log))
        return sources[-1]

    def check(data_dir):
        if data_dir == "missing":
            raise DataDirError(path=data_dir, problem="does not exist")

    async def active():
        return found.active

    acquisition = Acquisition(
        Hub(lambda frame, ns: b"", lambda series, ns: []), open_source, min_interval_s=0.001, max_readers=max_readers,
        check_data_dir=check, run_active=active,
    )  # fmt: skip
    found = World(acquisition, sources, log)
    owner = asyncio.create_task(acquisition.run())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        for source in sources:
            if source.failure.done():
                source.failure.exception()
        owner.cancel()
        await asyncio.wait([owner])


def request(data_dir="good", **kwargs):
    return HpIo(data_dir, kwargs.pop("interval", 0.1), **kwargs)


async def reader(acquisition, started):
    subscription = Newest(WANTED, "peer-1")
    async with acquisition.reader(subscription):
        started.set()
        while True:
            await subscription.ready()


async def test_a_reader_before_any_init_is_refused():
    async with world() as w:
        with pytest.raises(NotInitialisedError, match="never initialised"):
            await w.acquisition.check_ready()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (request("missing"), DataDirError),
        (request(interval=0.0001), IntervalError),
        (request(interval=-1), IntervalError),
        (request(interval=float("nan")), IntervalError),
        (request(interval=float("inf")), IntervalError),
    ],
)
async def test_a_refused_init_changes_nothing(wrong, error):
    async with world() as w:
        assert await w.acquisition.init(request()) is None
        with pytest.raises(error):
            await w.acquisition.init(wrong)
        assert w.acquisition.current == request()
        assert w.log == [("start", "good")]


async def test_an_init_needs_an_active_run_unless_simulated():
    async with world() as w:
        w.active = "no process is named 'hashpipe'"
        with pytest.raises(NoRunError, match="hashpipe"):
            await w.acquisition.init(request())
        assert await w.acquisition.init(request(simulate=True)) is None


async def test_without_force_active_readers_are_named_and_undisturbed():
    async with world() as w:
        await w.acquisition.init(request())
        started = asyncio.Event()
        task = asyncio.create_task(reader(w.acquisition, started))
        await started.wait()
        with pytest.raises(ReadersActiveError, match=r"1 StreamImages.*peer-1"):
            await w.acquisition.init(request("other"))
        assert not task.done()
        with pytest.raises(ReadersActiveError):  # the refusal broke nothing
            await w.acquisition.init(request("other"))
        assert await w.acquisition.init(request("third", force=True)) is None
        with pytest.raises(StreamEndedError):
            await task


async def test_force_ends_the_readers_first():
    async with world() as w:
        await w.acquisition.init(request())
        started = asyncio.Event()
        task = asyncio.create_task(reader(w.acquisition, started))
        await started.wait()
        assert await w.acquisition.init(request("other", force=True)) is None
        with pytest.raises(StreamEndedError):
            await task
        assert w.log == [("start", "good"), ("stop", "good"), ("start", "other")]


async def test_a_failed_init_restores_the_last_good_configuration():
    async with world() as w:
        await w.acquisition.init(request())
        assert await w.acquisition.init(request("bad")) == "the disk is on fire"
        assert w.acquisition.current == request()
        await w.acquisition.check_ready()
        assert w.log[-1] == ("start", "good")


async def test_a_failed_first_init_leaves_the_server_uninitialised_with_the_reason():
    async with world() as w:
        await w.acquisition.init(request("bad"))
        with pytest.raises(NotInitialisedError, match="on fire"):
            await w.acquisition.check_ready()


async def test_inits_and_readers_queue_behind_a_working_init():
    async with world() as w:
        first = asyncio.create_task(w.acquisition.init(request("slow")))
        while not w.sources:
            await asyncio.sleep(0)
        second = asyncio.create_task(w.acquisition.init(request("two")))
        waiting = asyncio.create_task(w.acquisition.check_ready())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not first.done()
        assert not second.done()
        assert not waiting.done()
        w.sources[0].gate.set()
        assert await first is None
        assert await second is None
        await waiting
        assert w.log == [("start", "slow"), ("stop", "slow"), ("start", "two")]


async def test_a_caller_that_gives_up_leaves_no_half_done_change():
    async with world() as w:
        first = asyncio.create_task(w.acquisition.init(request("slow")))
        while not w.sources:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        w.sources[0].gate.set()
        await w.acquisition.check_ready()
        assert w.acquisition.current == request("slow")


async def test_a_source_that_dies_ends_its_readers_with_the_reason():
    async with world() as w:
        await w.acquisition.init(request())
        started = asyncio.Event()
        task = asyncio.create_task(reader(w.acquisition, started))
        await started.wait()
        w.sources[0].failure.set_exception(SourceFailedError(problem="the thread died"))
        with pytest.raises(SourceFailedError, match="the thread died"):
            await task
        with pytest.raises(NotInitialisedError):
            await w.acquisition.check_ready()


async def test_the_reader_slots_are_limited_and_freed():
    async with world(max_readers=1) as w:
        await w.acquisition.init(request())
        async with w.acquisition.reader(Newest(WANTED, "")):
            with pytest.raises(TooManyReadersError):
                async with w.acquisition.reader(Newest(WANTED, "")):
                    pass
        async with w.acquisition.reader(Newest(WANTED, "")):
            pass
