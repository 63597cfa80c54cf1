"""The `sdk` object a node's callables are handed: everything a process may use, and the message in work."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fieldstation.pipeline.ephemeral import EphemeralStorage
from fieldstation.pipeline.messaging import Messaging
from fieldstation.pipeline.metadata import Metadata, PathUtils
from fieldstation.pipeline.settings import CentralizedConfiguration
from fieldstation.pipeline.work import current

if TYPE_CHECKING:
    from fieldstation.pipeline.measurements import Measurements
    from fieldstation.pipeline.persistent import PersistentStorage
    from fieldstation.pipeline.predictions import Predictions
    from fieldstation.pipeline.registry import ModelRegistry
    from fieldstation.pipeline.traces import Traces

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """How the optional services are made; each is built on first use, so that a node starts without any of them."""

    persistent: Callable[[], PersistentStorage]
    model_registry: Callable[[], ModelRegistry]
    predictions: Callable[[], Predictions]
    measurements: Callable[[], Measurements]
    traces: Callable[[], Traces]


@dataclass(frozen=True)
class Storage:
    """`sdk.storage`: what is kept outside of messages."""

    ephemeral: EphemeralStorage
    _services: Services

    @functools.cached_property
    def persistent(self) -> PersistentStorage:
        """Objects with versions and expiry: S3 when configured, a local folder otherwise."""
        return self._services.persistent()


class ProcessContext:
    """One object per node, shared by all its calls. What depends on the message in work (`get_request_id`, sending,
    the log's request id) follows the call that asks, also in threads and in tasks a handler starts."""

    def __init__(
        self,
        metadata: Metadata,
        path_utils: PathUtils,
        messaging: Messaging,
        ephemeral: EphemeralStorage,
        centralized_config: CentralizedConfiguration,
        services: Services,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.metadata = metadata
        self.path_utils = path_utils
        self.messaging = messaging
        self.storage = Storage(ephemeral, services)
        self.centralized_config = centralized_config
        self._services = services
        self._loop = loop

    def get_request_id(self) -> str | None:
        """Return the id of the request whose message is in work; None outside of one."""
        work = current.get()
        return work.message.request_id if work is not None and work.message is not None else None

    @functools.cached_property
    def model_registry(self) -> ModelRegistry:
        """Models with versions, on the persistent storage."""
        return self._services.model_registry()

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Stored predictions: Redis when configured, SQLite otherwise."""
        return self._services.predictions()

    @functools.cached_property
    def measurements(self) -> Measurements:
        """OpenTelemetry metrics; without an endpoint they go nowhere."""
        return self._services.measurements()

    @functools.cached_property
    def traces(self) -> Traces:
        """OpenTelemetry traces; without an endpoint they go nowhere."""
        return self._services.traces()

    @functools.cached_property
    def logger(self) -> Any:
        """A Loguru logger whose lines go through the node's own logging, with the request id."""
        from loguru import logger

        def forward(message: Any) -> None:
            record = message.record
            target = logging.getLogger("node")
            entry = target.makeRecord(
                "node", record["level"].no, record["file"].path, record["line"], record["message"], (), None
            )
            if record["exception"] is not None:
                entry.exc_info = tuple(record["exception"])
            if target.isEnabledFor(entry.levelno):
                target.handle(entry)

        logger.remove()
        logger.add(forward, format="{message}", level=0, catch=True)
        return logger

    def wait(self, call: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine of this sdk from a sync handler and return its result:
        `value, found = sdk.wait(sdk.centralized_config.get_config("gain"))`."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(timeout_s)
