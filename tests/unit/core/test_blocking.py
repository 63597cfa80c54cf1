import asyncio
import concurrent.futures
import os
import signal
import threading

import pytest

from fieldstation.core.blocking import Portal


@pytest.fixture
def portal():
    portal = Portal()
    yield portal
    portal.close()


async def answer(value):
    await asyncio.sleep(0)
    return value


async def fail():
    raise ValueError("no")


def test_a_call_returns_what_the_coroutine_returns_or_raises(portal):
    assert portal.call(answer(7)) == 7
    with pytest.raises(ValueError, match="no"):
        portal.call(fail())


def test_threads_share_one_loop(portal):
    async def which():
        return threading.current_thread().name, id(asyncio.get_running_loop())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(lambda _: portal.call(which()), range(100)))
    assert seen == {("fieldstation-portal", id(portal.loop))}


def test_a_blocking_call_from_the_loop_itself_is_refused_instead_of_hanging(portal):
    async def nested():
        return portal.call(answer(1))

    with pytest.raises(RuntimeError, match="use the async client there"):
        portal.call(nested())


def test_one_portal_may_be_called_from_the_loop_of_another(portal):
    other = Portal()

    async def nested():
        return other.call(answer(2))

    assert portal.call(nested()) == 2
    other.close()


def test_a_timeout_cancels_the_coroutine_and_waits_until_it_has_let_go(portal):
    let_go = []

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            let_go.append(True)

    with pytest.raises(TimeoutError):
        portal.call(slow(), timeout_s=0.01)
    assert let_go == [True]


def test_a_timeout_of_the_coroutine_itself_passes_through(portal):
    async def own():
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        portal.call(own())


def interrupt():
    """What Ctrl-C does: the signal reaches the main thread, wherever it waits."""
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_cancels_the_coroutine(portal):
    ended = []

    async def slow():
        asyncio.get_running_loop().call_soon(interrupt)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        portal.call(slow())
    assert ended == [True]


def test_a_ctrl_c_that_wakes_nobody_is_noticed_all_the_same(portal):
    # As when it strikes between Python's last look for signals and the wait: the mark is set, the wait goes on.
    async def slow():
        asyncio.get_running_loop().call_soon(interrupt)
        await asyncio.Event().wait()

    assert portal.loop  # its thread does not inherit the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with pytest.raises(KeyboardInterrupt):
            portal.call(slow())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Source:
    """An async generator with a clean-up that takes a while."""

    def __init__(self):
        self.closed = False

    async def numbers(self, hang_at=None):
        try:
            for number in range(5):
                if number == hang_at:
                    asyncio.get_running_loop().call_soon(interrupt)
                    await asyncio.Event().wait()
                yield number
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.closed = True


def test_iterate_walks_to_the_end_and_closes(portal):
    source = Source()
    assert list(portal.iterate(source.numbers())) == [0, 1, 2, 3, 4]
    assert source.closed


def test_leaving_an_iteration_early_closes_the_source(portal):
    source = Source()
    walk = portal.iterate(source.numbers())
    for number in walk:
        if number == 1:
            break
    walk.close()
    assert source.closed


def test_ctrl_c_in_an_iteration_closes_the_source(portal):
    source = Source()
    with pytest.raises(KeyboardInterrupt):
        list(portal.iterate(source.numbers(hang_at=2)))
    assert source.closed


def test_iterate_takes_iterators_without_aclose(portal):
    class Two:
        left = 2

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(portal.iterate(Two())) == [1, 0]


def test_an_error_of_the_source_reaches_the_caller(portal):
    async def broken():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(portal.iterate(broken()))


def test_close_cancels_what_runs_and_the_next_call_starts_afresh(portal):
    running = threading.Event()

    async def wait():
        running.set()
        await asyncio.Event().wait()

    caller = concurrent.futures.ThreadPoolExecutor(1)
    pending = caller.submit(portal.call, wait())
    running.wait(5)
    first = portal.loop
    portal.close()
    with pytest.raises(concurrent.futures.CancelledError):
        pending.result(5)
    caller.shutdown()
    assert first.is_closed()
    assert portal.call(answer(3)) == 3


def test_calls_that_race_with_close_all_come_to_an_end(portal):
    def work():
        for _ in range(100):
            try:
                assert portal.call(answer(1)) == 1
            except concurrent.futures.CancelledError:
                continue
        return True

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work) for _ in range(4)]
        while not all(worker.done() for worker in workers):
            portal.close()
        assert all(worker.result() for worker in workers)


def test_a_forked_child_gets_a_loop_of_its_own(portal):
    assert portal.call(answer(1)) == 1
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(portal.call(answer(42), timeout_s=5))
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert portal.call(answer(2)) == 2


def test_a_child_forked_while_the_portal_is_locked_does_not_hang(portal):
    with portal._lock:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(portal.call(answer(42), timeout_s=5))
            except BaseException:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
