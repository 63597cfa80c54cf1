"""`sdk.centralized_config`: values shared between processes, from the narrowest scope that has them."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fieldstation.pipeline.bus import Bucket
from fieldstation.pipeline.errors import BadKeyError
from fieldstation.pipeline.names import KEY

log = logging.getLogger(__name__)

_STARTED_WITH = "fieldstation/started-with/"  # what the file said at the last start, beside the value itself


class Scope(enum.StrEnum):
    """Who shares a value. Looked through from `process` to `global` when no scope is given."""

    ProcessScope = "process"
    WorkflowScope = "workflow"
    ProductScope = "product"
    GlobalScope = "global"


ORDER = (Scope.ProcessScope, Scope.WorkflowScope, Scope.ProductScope, Scope.GlobalScope)


class CentralizedConfiguration:
    """Reads are answered from a copy that follows the buckets; writes go to the server first.

    Values are text; keys may hold letters, digits and `-/_=.`.
    """

    def __init__(self, buckets: Mapping[Scope, Bucket]) -> None:
        self._buckets = dict(buckets)
        self._copies: dict[Scope, dict[str, str]] = {}
        self._followers: dict[Scope, asyncio.Task[None]] = {}
        self._ready: dict[Scope, asyncio.Future[None]] = {}
        self._listeners: list[Callable[[Scope, str, str | None], Any]] = []

    async def get_config(self, key: str, scope: Scope | str | None = None) -> tuple[str | None, bool]:
        """Return (value, True), or (None, False) when the key is absent or deleted in every scope looked at."""
        check_key(key)
        for candidate in ORDER if scope is None else (Scope(scope),):
            if candidate not in self._buckets:
                continue
            value = (await self._copy(candidate)).get(key)
            if value is not None:
                return value, True
        return None, False

    async def get(self, key: str, kind: Callable[[str], Any] = str, default: Any = None) -> Any:
        """Return the value converted by `kind` (`int`, `float`, `json.loads`, ...), or `default` when absent.

        Raises BadKeyError naming the key when the text cannot be converted.
        """
        text, found = await self.get_config(key)
        if not found or text is None:
            return default
        try:
            return kind(text)
        except (ValueError, TypeError) as error:
            raise BadKeyError(f"The configuration value {key} = {text!r} is not a {kind.__name__}: {error}") from error

    async def set_config(self, key: str, value: str, scope: Scope | str | None = None) -> None:
        """Set the value in `scope` (default: process); readers in all processes see it within moments."""
        check_key(key)
        target = Scope(scope or Scope.ProcessScope)
        await self._buckets[target].put(key, str(value))
        if target in self._copies:
            self._copies[target][key] = str(value)

    async def delete_config(self, key: str, scope: Scope | str | None = None) -> bool:
        """Delete the key in `scope` (default: process); False when it had no value there."""
        check_key(key)
        target = Scope(scope or Scope.ProcessScope)
        existed = await self._buckets[target].get(key) is not None
        await self._buckets[target].delete(key)
        self._copies.get(target, {}).pop(key, None)
        return existed

    async def keys(self, scope: Scope | str) -> list[str]:
        """Return the keys that have a value in `scope`."""
        return sorted(key for key in await self._buckets[Scope(scope)].keys() if not key.startswith(_STARTED_WITH))

    async def watch(self, key: str) -> AsyncIterator[str | None]:
        """Yield the value in force for `key` now and after every change in any scope; None while it has none."""
        changed = asyncio.Event()

        def note(_: Scope, name: str, __: str | None) -> None:
            if name == key:
                changed.set()

        last, _ = await self.get_config(key)
        for scope in self._buckets:
            await self._copy(scope)
        self._listeners.append(note)
        try:
            yield last
            while True:
                await changed.wait()
                changed.clear()
                value, _ = await self.get_config(key)
                if value != last:
                    last = value
                    yield value
        finally:
            self._listeners.remove(note)

    async def start_with(self, values: Mapping[str, str]) -> None:
        """Write the process' own start values, but leave alone what was changed at run time since.

        A value is written when the key is absent, or when the file says something else than at the last start.
        """
        bucket = self._buckets[Scope.ProcessScope]
        for key, value in values.items():
            try:
                check_key(key)
                if await bucket.get(key) is None or await bucket.get(_STARTED_WITH + key) != value:
                    await bucket.put(key, value)
                    await bucket.put(_STARTED_WITH + key, value)
            except BadKeyError as error:
                log.error("the start value %s is not set: %s", key, error)

    async def refresh(self) -> None:
        """Read again what is followed: after the connection was gone, changes may have been missed."""
        for scope in list(self._followers):
            follower = self._followers.pop(scope)
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)
            await self._copy(scope)

    async def close(self) -> None:
        """Stop following the buckets."""
        for task in self._followers.values():
            task.cancel()
        await asyncio.gather(*self._followers.values(), return_exceptions=True)

    async def _copy(self, scope: Scope) -> dict[str, str]:
        follower = self._followers.get(scope)
        if follower is None or follower.done():
            ready = self._ready[scope] = asyncio.get_running_loop().create_future()
            # Held in _followers and ended in close(): the life of the copy is the life of this object.
            self._followers[scope] = asyncio.create_task(self._follow(scope, ready))
        await asyncio.shield(self._ready[scope])
        return self._copies.get(scope, {})

    async def _follow(self, scope: Scope, ready: asyncio.Future[None]) -> None:
        copy: dict[str, str] = {}
        try:
            async for change in self._buckets[scope].watch():
                if change is None:
                    self._copies[scope] = copy
                    if not ready.done():
                        ready.set_result(None)
                    continue
                key, value = change
                if value is None:
                    copy.pop(key, None)
                else:
                    copy[key] = value
                for listener in list(self._listeners):
                    listener(scope, key, value)
        except Exception as error:
            self._copies.pop(scope, None)
            if ready.done():
                log.warning("the copy of scope %s is out of date and read anew: %s", scope, error)
            else:
                ready.set_exception(error)
        finally:
            if not ready.done():
                ready.cancel()


def check_key(key: str) -> None:
    """Raise BadKeyError unless NATS takes `key`."""
    if not key or not KEY.fullmatch(key) or key.startswith(".") or key.endswith("."):
        raise BadKeyError(key=repr(key), problem="use letters, digits and -/_=. (no dot at either end)")
