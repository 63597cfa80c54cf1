import asyncio
import os
import signal

import pytest

from fieldstation.core import service
from fieldstation.core.errors import StoreError


class Recorder:
    """A service that writes down what happens to it."""

    def __init__(self, name, book, *, start=None, run=None, stop=None):
        self.name, self.book = name, book
        self._start, self._run, self._stop = start, run, stop

    async def _do(self, what, action):
        self.book.append(f"{what} {self.name}")
        if isinstance(action, BaseException):
            raise action
        if action is not None:
            await action()

    async def start(self):
        await self._do("start", self._start)

    async def run(self):
        await self._do("run", self._run)

    async def stop(self):
        await self._do("stop", self._stop)

    def health(self):
        return {"ok": True}


async def forever():
    await asyncio.Event().wait()


async def test_services_start_in_order_run_together_and_stop_in_reverse():
    book = []
    await service.serve([Recorder("a", book), Recorder("b", book)], ready=lambda: book.append("ready"))
    assert book == ["start a", "start b", "ready", "run a", "run b", "stop b", "stop a"]


async def test_a_failed_start_stops_what_was_touched_and_nothing_runs():
    book = []
    services = [Recorder("a", book), Recorder("b", book, start=OSError("port taken")), Recorder("c", book)]
    with pytest.raises(OSError, match="port taken"):
        await service.serve(services)
    assert book == ["start a", "start b", "stop b", "stop a"]


async def test_a_service_that_fails_ends_the_others_and_its_error_is_told_with_its_cause():
    book = []
    error = StoreError(path="a.db", problem="full")
    error.__cause__ = OSError("no space")
    with pytest.raises(StoreError) as caught:
        await service.serve([Recorder("a", book, run=forever), Recorder("b", book, run=error)])
    assert caught.value is error
    assert isinstance(caught.value.__cause__, OSError)
    assert book[-2:] == ["stop b", "stop a"]


async def test_of_an_error_in_a_task_group_of_a_service_the_innermost_is_told(caplog):
    async def group():
        raise ExceptionGroup("tasks", [ValueError("first"), ExceptionGroup("more", [KeyError("second")])])

    with pytest.raises(ValueError, match="first"):
        await service.serve([Recorder("a", [], run=group)])
    assert "second" in caplog.text


async def test_a_service_that_does_not_stop_is_left_behind_and_the_others_still_stop(caplog):
    book = []
    services = [Recorder("good", book), Recorder("stuck", book, stop=forever)]
    await service.serve(services, stop_deadline_s=0.0)
    assert book[-2:] == ["stop stuck", "stop good"]
    assert "stuck did not stop in time" in caplog.text


async def test_the_same_holds_after_a_signal(caplog):
    book = []

    async def work():
        os.kill(os.getpid(), signal.SIGTERM)
        await forever()

    services = [Recorder("good", book), Recorder("stuck", book, run=work, stop=forever)]
    await service.run(services, stop_deadline_s=0.0)
    assert book[-2:] == ["stop stuck", "stop good"]
    assert "stuck did not stop in time" in caplog.text


async def test_a_service_that_fails_while_stopping_does_not_stop_the_stopping(caplog):
    book = []
    await service.serve([Recorder("good", book), Recorder("bad", book, stop=TimeoutError("its own"))])
    assert book[-1] == "stop good"
    assert "bad failed while stopping" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_run_cleanly(number, capsys):
    book = []

    async def work():
        os.kill(os.getpid(), number)
        await forever()

    await service.run([Recorder("a", book, run=work)], ready_url=lambda: "http://127.0.0.1:1")
    assert book == ["start a", "run a", "stop a"]
    assert capsys.readouterr().out == "ready http://127.0.0.1:1\n"


async def test_a_second_signal_does_not_cut_the_stopping_short():
    book = []

    async def work():
        os.kill(os.getpid(), signal.SIGTERM)
        await forever()

    async def slow_stop():
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        book.append("stopped")

    await service.run([Recorder("first", book), Recorder("a", book, run=work, stop=slow_stop)])
    assert book[-2:] == ["stopped", "stop first"]


async def test_a_signal_during_the_start_stops_what_has_started():
    book = []

    async def slow_start():
        os.kill(os.getpid(), signal.SIGTERM)
        await forever()

    await service.run([Recorder("a", book, start=slow_start), Recorder("b", book)])
    assert book == ["start a", "stop a"]


async def test_cancellation_from_outside_is_not_taken_for_a_clean_end():
    book = []
    task = asyncio.create_task(service.run([Recorder("a", book, run=forever)]))
    while "run a" not in book:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert book[-1] == "stop a"


async def test_what_hangs_after_a_signal_is_ended_hard(monkeypatch):
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(service, "_end_process", lambda: loop.call_soon_threadsafe(ended.set))

    async def deaf():
        os.kill(os.getpid(), signal.SIGTERM)
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue

    main = asyncio.create_task(service.serve([Recorder("a", [], run=deaf)]))
    await service.until_signalled(main, hard_end_s=0.0)
    assert ended.is_set()
