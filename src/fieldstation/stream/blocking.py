"""The blocking client: every call goes to the async one, on a loop in a background thread."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import grpc

from fieldstation.core.blocking import portal
from fieldstation.stream.client import AioDaqDataClient, Config, Hosts
from fieldstation.stream.frame_stream import FrameStream
from fieldstation.stream.model import Frame
from fieldstation.stream.nodes import HostSet
from fieldstation.stream.wire.pb import daq_data_pb2 as pb

log = logging.getLogger("fieldstation.stream.client")

T = TypeVar("T")
_BATCH = 64


class _Core(AioDaqDataClient):
    _quiet_ends = False  # documented: here a forced init shows as an RpcError with CANCELLED


class DaqDataClient:
    """Blocking client of all DAQ nodes of a configuration; use it with `with`. Arguments as AioDaqDataClient's."""

    GRPC_PORT = 50051

    def __init__(
        self, daq_config: Config, network_config: Config = None, log_level: int = logging.INFO, **options: Any
    ) -> None:
        core = type("_PortCore", (_Core,), {"GRPC_PORT": self.GRPC_PORT})
        self._client: AioDaqDataClient = core(daq_config, network_config, None, log_level, **options)

    def __enter__(self) -> DaqDataClient:
        portal.call(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return portal.call(self._client.__aexit__(kind, error, trace))

    @property
    def daq_nodes(self) -> dict[str, dict[str, Any]]:
        """Host -> its `config`, `connection_target`, and the channel and stub of the async client."""
        return self._client.daq_nodes

    @property
    def valid_daq_hosts(self) -> HostSet:
        """The hosts that answered the last ping."""
        return self._client.valid_daq_hosts

    def ping(self, host: str, timeout: float = 0.3) -> bool:
        """Return whether the host's server answers within `timeout` seconds; False for unknown hosts."""
        return portal.call(self._client.ping(host, timeout))

    def is_daq_host_valid(self, host: str) -> bool:
        """Ping, and remember the answer in `valid_daq_hosts`."""
        return portal.call(self._client.is_daq_host_valid(host))

    def get_valid_daq_hosts(self) -> HostSet:
        """Ping all hosts at once; a set of those that answered, which can also be indexed."""
        return portal.call(self._client.get_valid_daq_hosts())

    def get_daq_host_status(self) -> dict[str, bool]:
        """Return connection target -> whether it answers."""
        return portal.call(self._client.get_daq_host_status())

    def validate_daq_hosts(self, hosts: Hosts = None) -> list[str]:
        """Return the hosts meant: those named, or all that answer; ConnectionError when one named does not."""
        return portal.call(self._client.validate_daq_hosts(hosts))

    def reflect_services(self, hosts: Hosts = None) -> str:
        """Return text per host: target, services, one line per method."""
        return portal.call(self._client.reflect_services(hosts))

    def init_hp_io(
        self, hosts: Hosts = None, hp_io_cfg: Mapping[str, Any] | None = None, timeout: float = 10.0
    ) -> bool:
        """Initialise the hosts; False when one fails or refuses (documented; the reason is logged)."""
        try:
            return portal.call(self._client.init_hp_io(hosts, hp_io_cfg, timeout))
        except grpc.RpcError as error:
            log.error("init_hp_io failed: %s", _details(error))
            return False

    def init_sim(self, hosts: Hosts = None, hp_io_cfg: Mapping[str, Any] | None = None, timeout: float = 10.0) -> bool:
        """Initialise with simulated frames; False when a host fails or refuses."""
        try:
            return portal.call(self._client.init_sim(hosts, hp_io_cfg, timeout))
        except grpc.RpcError as error:
            log.error("init_sim failed: %s", _details(error))
            return False

    def stream_images(
        self,
        hosts: Hosts = None,
        stream_movie_data: bool = True,
        stream_pulse_height_data: bool = True,
        update_interval_seconds: float = 1.0,
        module_ids: Iterable[int] = (),
        wait_for_ready: bool = False,
        parse_pano_images: bool = True,
        timeout: float = 36000,
        *,
        every: bool = False,
        history: bool = False,
    ) -> Iterator[Any]:
        """Stream from all named hosts, merged by arrival. The call starts now, not at the first `next`."""
        stream = self._client.stream_images(
            hosts,
            stream_movie_data,
            stream_pulse_height_data,
            update_interval_seconds,
            module_ids,
            wait_for_ready,
            parse_pano_images,
            timeout,
            every=every,
            history=history,
        )
        return self._iterate(stream)

    def frames(self, hosts: Hosts = None, **what: Any) -> Iterator[Frame]:
        """Stream typed frames; arguments as AioDaqDataClient.frames."""
        return self._iterate(self._client.frames(hosts, **what))

    def _iterate(self, stream: FrameStream[T]) -> Iterator[T]:
        portal.call(_start(stream))
        return _walk(stream)

    def upload_images(self, hosts: Hosts, image_iterator: Iterable[pb.PanoImage]) -> None:
        """Send each image to all named hosts; the iterator runs in the background thread."""
        portal.call(self._client.upload_images(hosts, image_iterator))


async def _start(stream: FrameStream[T]) -> None:
    await stream


def _walk(stream: FrameStream[T]) -> Iterator[T]:
    # Whole batches cross the threads, and parsing happens here, so that the loop's thread only receives.
    try:
        while True:
            try:
                responses = portal.call(stream.next_responses(_BATCH))
            except StopAsyncIteration:
                return
            for response in responses:
                yield stream.convert(response)
    finally:
        with contextlib.suppress(RuntimeError):
            portal.call(stream.aclose())


def _details(error: grpc.RpcError) -> str:
    details = getattr(error, "details", None)
    return str(details() if callable(details) else error)
