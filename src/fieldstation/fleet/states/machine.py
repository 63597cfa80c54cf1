"""Runs the states of one device: one state at a time, one call after another, and nothing it does escapes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

from fieldstation.fleet.driver import Node
from fieldstation.fleet.model import Health
from fieldstation.fleet.states.core import AbstractState
from fieldstation.fleet.states.device import Device, DeviceBrokenError

Factory = Callable[..., AbstractState]
Job = Callable[[], Awaitable[None]]

STUCK_S = 5.0  # how long a blocked call of a state may hold up that its device is taken away from it


class Machine:
    """The life of a device's states.

    `changed()` is called after each switch. `lost(reason, error)` is called when a state failed; it returns the state
    that follows. Call all methods from the event loop; states themselves may switch from any thread.
    """

    def __init__(
        self,
        device: Device,
        *,
        changed: Callable[[], None],
        lost: Callable[[str, BaseException], Factory],
        stuck_s: float = STUCK_S,
    ) -> None:
        self.device = device
        self._stuck_s = stuck_s
        self.state: AbstractState | None = None
        self._changed = changed
        self._lost = lost
        self._jobs: asyncio.Queue[Job | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._thread = _Thread(device.serial)
        self._pressed = asyncio.Event()
        self._taking = 0  # switches that were asked for from outside and have not happened yet
        self._group: asyncio.TaskGroup | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work through what happens to the device until `close`; then leave the state it is in."""
        try:
            async with asyncio.TaskGroup() as self._group:
                try:
                    while (job := await self._jobs.get()) is not None:
                        await job()
                finally:
                    await self._leave()
        finally:
            self._thread.close()

    def close(self) -> None:
        """End `run` once the calls before this one are through."""
        self._pressed.set()
        self._jobs.put_nowait(None)

    def become(self, factory: Factory, *, blocking: bool | None = None) -> None:
        """Take the device away from whatever state it is in. `blocking` says whether making the new state may wait."""
        self._pressed.set()
        self._taking += 1
        self._jobs.put_nowait(lambda: self._take(factory, blocking))

    async def _take(self, factory: Factory, blocking: bool | None) -> None:
        self._taking -= 1
        if self._taking == 0:
            self._pressed.clear()
        await self._switch(None, factory, blocking)

    def fail(self, error: Exception) -> None:
        """Treat the device as if its state had raised `error`."""
        self._pressed.set()
        self._taking += 1
        self._jobs.put_nowait(lambda: self._take_failed(error))

    async def _take_failed(self, error: Exception) -> None:
        self._taking -= 1
        if self._taking == 0:
            self._pressed.clear()
        await self._failed(self.state, error)

    def hotplug(self, action: str, node: Node) -> None:
        """Tell the state that a node appeared (`add`) or went away."""
        if action == "add":
            self.device.add(node)
            self._jobs.put_nowait(lambda: self._call("handleAdd", node))
        else:
            self.device.forget(node.path)
            self._jobs.put_nowait(lambda: self._call("handleRemove", node))

    def reboot(self) -> None:
        """Ask the state to recover, in the background."""
        self._jobs.put_nowait(lambda: self._call("reboot"))

    def request(self, event: str, contents: Mapping[str, Any], refuse: Callable[[Exception], None]) -> None:
        """Hand a client's request to the state. It raises here when the state answers at once, else calls `refuse`."""
        state = self.state
        if state is not None and not state.blocking and not self._taking and not state.switching:
            answer = state.handleRequest(event, contents)
            if not inspect.isawaitable(answer):
                return
            self._jobs.put_nowait(lambda: self._guarded(answer, refuse))
            return
        self._jobs.put_nowait(lambda: self._request(event, contents, refuse))

    async def _request(self, event: str, contents: Mapping[str, Any], refuse: Callable[[Exception], None]) -> None:
        if self.state is not None:
            await self._guarded(self._invoke(self.state, "handleRequest", event, contents), refuse)

    async def _guarded(self, work: Awaitable[Any], refuse: Callable[[Exception], None]) -> None:
        try:
            await work
        except Exception as error:
            refuse(error)

    async def _call(self, name: str, *args: object) -> None:
        state = self.state
        if state is None:
            return
        try:
            await self._invoke(state, name, *args)
        except Exception as error:
            await self._failed(state, error)

    async def _invoke(self, state: AbstractState, name: str, *args: object) -> None:
        method = getattr(state, name)
        if inspect.iscoroutinefunction(method):
            await method(*args)
        elif state.blocking and getattr(method, "__func__", None) is not getattr(AbstractState, name):
            answer = await self._in_thread(method, *args)
            if inspect.isawaitable(answer):
                await answer
        else:
            answer = method(*args)
            if inspect.isawaitable(answer):
                await answer

    async def _in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        call = asyncio.wrap_future(self._thread.submit(function, *args))
        pressed = asyncio.ensure_future(self._pressed.wait())
        try:
            await asyncio.wait({call, pressed}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                await asyncio.wait({call}, timeout=self._stuck_s)
        finally:
            pressed.cancel()
        if not call.done():
            # Python cannot end a thread. It is left behind; what it still does to the device is over soon, because
            # the next flash takes the port from under it.
            self._thread = _Thread(self.device.serial)
            name = getattr(function, "__qualname__", function)
            raise TimeoutError(f"{name} did not return within {self._stuck_s:g} s")
        return call.result()

    async def _switch(self, old: AbstractState | None, factory: Factory, blocking: bool | None = None) -> None:
        if old is not None and old is not self.state:
            return  # that state was replaced before its own wish came up
        await self._leave()
        state: AbstractState | None = None
        try:
            state = await self._build(factory, blocking)
            self._install(state)
            self._changed()
            await self._invoke(state, "start")
        except Exception as error:
            await self._failed(state, error)
            return
        self._begin(state)

    async def _build(self, factory: Factory, blocking: bool | None) -> AbstractState:
        # Documented factories take the device or nothing.
        arguments = (self.device,) if inspect.signature(factory).parameters else ()
        if blocking is None:
            blocking = getattr(factory, "blocking", True)
        if blocking:
            built: AbstractState = await self._in_thread(factory, *arguments)
            return built
        return factory(*arguments)

    def _install(self, state: AbstractState) -> None:
        def switch(factory: Factory) -> None:
            if not state.switching:
                state.switching = True
                self._loop.call_soon_threadsafe(self._jobs.put_nowait, lambda: self._switch(state, factory))

        def restart() -> None:
            self._loop.call_soon_threadsafe(self._jobs.put_nowait, lambda: self._restart(state))

        state._switch, state._restart = switch, restart  # noqa: SLF001 - the machine is the state's other half
        self.state = state
        state.logger.info("state is now %s", type(state).__name__)

    def _begin(self, state: AbstractState) -> None:
        if type(state).run is not AbstractState.run and self._group is not None:
            self._task = self._group.create_task(self._run_state(state), name=f"{self.device.serial} {state.kind}")

    async def _run_state(self, state: AbstractState) -> None:
        try:
            await state.run()
        except Exception as error:  # a bug in one state must not take the worker down
            failure = error
            self._jobs.put_nowait(lambda: self._failed(state, failure))

    async def _restart(self, state: AbstractState) -> None:
        if state is self.state:
            await self._end_task()
            self._begin(state)

    async def _end_task(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            # The task's own errors are reported by itself; a cancellation of ours passes through wait.
            await asyncio.wait({task})

    async def _leave(self) -> None:
        state = self.state
        if state is None:
            return
        state.switching = True
        await self._end_task()
        try:
            await self._invoke(state, "handleExit")
        except Exception:
            state.logger.exception("failed while leaving the state")
        self.state = None

    async def _failed(self, state: AbstractState | None, error: BaseException) -> None:
        if state is not None and state is not self.state:
            return
        broken = isinstance(error, DeviceBrokenError)
        reason = str(error.fields["reason"]) if isinstance(error, DeviceBrokenError) else describe(error)
        self.device.logger.log(
            logging.WARNING if broken else logging.ERROR, "%s", reason, exc_info=None if broken else error
        )
        if broken:
            self.device.health, self.device.reason = Health.BROKEN, reason
        if state is not None:
            state.give_up(reason)
        follow = self._lost(reason, error)
        await self._switch(None, follow)


def describe(error: BaseException) -> str:
    """Return one line that says what went wrong."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Thread:
    """One daemon thread that runs calls in order; a call that never returns does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[object, ...]] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[..., Any], *args: object) -> Future[Any]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"device {self._name}", daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._calls.put((future, function, args))
        return future

    def close(self) -> None:
        if self._thread is not None:
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args = call
            with contextlib.suppress(Exception):  # a Future that was cancelled meanwhile takes no result
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)
