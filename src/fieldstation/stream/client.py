"""The async client of the DaqData service, for our server and the published one."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import grpc
from google.protobuf import empty_pb2

from fieldstation.stream.config import SIMULATED_HP_IO, parse_hp_io
from fieldstation.stream.errors import ClientNotOpenError
from fieldstation.stream.frame_stream import FrameStream
from fieldstation.stream.model import Frame
from fieldstation.stream.nodes import HostSet, Node, as_hosts, nodes
from fieldstation.stream.wire.codec import decode_image
from fieldstation.stream.wire.parse import Clock, parse_pano_image
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.stream.wire.reflect import describe_services
from fieldstation.stream.wire.security import channel_credentials

log = logging.getLogger("fieldstation.stream.client")

T = TypeVar("T")
Hosts = str | list[str] | set[str] | None
Config = str | Path | Mapping[str, Any] | None
Unparsed = Literal["image", "response"]

PING_S = 0.3
# How many received messages wait for a slow caller: few when only the newest count, many when all do.
_NEWEST_AHEAD = 8
_EVERY_AHEAD = 1024
_OPTIONS = (("grpc.max_receive_message_length", 16 << 20),)


class _Stub:
    """The four methods on one channel; responses of StreamImages come as messages."""

    def __init__(self, channel: Any) -> None:
        empty = empty_pb2.Empty
        path = "/daqdata.DaqData/"
        self.Ping = channel.unary_unary(path + "Ping", empty.SerializeToString, empty.FromString)
        self.InitHpIo = channel.unary_unary(
            path + "InitHpIo", pb.InitHpIoRequest.SerializeToString, pb.InitHpIoResponse.FromString
        )
        self.StreamImages = channel.unary_stream(
            path + "StreamImages", pb.StreamImagesRequest.SerializeToString, pb.StreamImagesResponse.FromString
        )
        self.UploadImages = channel.stream_unary(
            path + "UploadImages", pb.UploadImageRequest.SerializeToString, empty.FromString
        )


class AioDaqDataClient:
    """Async client of all DAQ nodes of a configuration; use it with `async with`.

    Beyond the documented arguments: `token` (default: environment FIELDSTATION_STREAM_TOKEN), `tls` with `ca`,
    `certificate` and `key` (PEM files), `clock` (see parse_pano_image), and `unparsed`: what a stream yields with
    `parse_pano_images=False`, the PanoImage as documented, or "response" as the released client does.
    """

    GRPC_PORT = 50051
    _quiet_ends = True

    def __init__(
        self,
        daq_config: Config,
        network_config: Config = None,
        stop_event: asyncio.Event | None = None,
        log_level: int = logging.INFO,
        *,
        token: str | None = None,
        tls: bool = False,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        clock: Clock = "white_rabbit",
        unparsed: Unparsed = "image",
    ) -> None:
        log.setLevel(log_level)
        self._nodes: dict[str, Node] = nodes(daq_config, network_config, self.GRPC_PORT)
        self._stop_event = stop_event
        token = token if token is not None else os.environ.get("FIELDSTATION_STREAM_TOKEN", "")
        self._metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {token}"),) if token else ()
        self._credentials = channel_credentials(ca, certificate, key) if tls or ca else None
        self._clock: Clock = clock
        self._unparsed = unparsed
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.daq_nodes: dict[str, dict[str, Any]] = {
            host: {"config": dict(node.config), "channel": None, "stub": None, "connection_target": node.target}
            for host, node in self._nodes.items()
        }
        self.valid_daq_hosts: HostSet = HostSet()

    async def __aenter__(self) -> AioDaqDataClient:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        for node in self.daq_nodes.values():
            target = node["connection_target"]
            node["channel"] = channel = (
                grpc.aio.secure_channel(target, self._credentials, options=_OPTIONS)
                if self._credentials is not None
                else grpc.aio.insecure_channel(target, options=_OPTIONS)
            )
            node["stub"] = _Stub(channel)
        await self.get_valid_daq_hosts()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        for task in list(self._tasks):
            task.cancel()
        for node in self.daq_nodes.values():
            if node["channel"] is not None:
                await node["channel"].close()
            node["channel"] = node["stub"] = None
        group, self._group = self._group, None
        if group is not None:
            await group.__aexit__(None, None, None)
        if isinstance(error, ConnectionError):
            log.warning("the connection to the DAQ nodes failed: %s", error)
        # Documented: these end the block quietly. Cancellation and SystemExit pass, others rely on them.
        return isinstance(error, ConnectionError | KeyboardInterrupt)

    def _stub(self, host: str) -> Any:
        stub = self.daq_nodes[host]["stub"]
        if stub is None:
            raise ClientNotOpenError
        return stub

    async def ping(self, host: str, timeout: float = PING_S) -> bool:
        """Return whether the host's server answers within `timeout` seconds; False for unknown hosts."""
        if host not in self.daq_nodes:
            return False
        try:
            await self._stub(host).Ping(
                empty_pb2.Empty(), timeout=timeout, wait_for_ready=True, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                log.warning("%s: %s", host, error.details())
            return False
        return True

    async def is_daq_host_valid(self, host: str) -> bool:
        """Ping, and remember the answer in `valid_daq_hosts`."""
        answers = await self.ping(host)
        if answers:
            self.valid_daq_hosts.add(host)
        else:
            self.valid_daq_hosts.discard(host)
        return answers

    async def get_valid_daq_hosts(self) -> HostSet:
        """Ping all hosts at once; a set of those that answered, which can also be indexed."""
        answers = await asyncio.gather(*(self.ping(host) for host in self.daq_nodes))
        self.valid_daq_hosts = HostSet(host for host, valid in zip(self.daq_nodes, answers, strict=True) if valid)
        return self.valid_daq_hosts

    async def get_daq_host_status(self) -> dict[str, bool]:
        """Return connection target -> whether it answers."""
        valid = await self.get_valid_daq_hosts()
        return {node["connection_target"]: host in valid for host, node in self.daq_nodes.items()}

    async def validate_daq_hosts(self, hosts: Hosts = None) -> list[str]:
        """Return the hosts meant: those named, or all that answer; ConnectionError when one named does not."""
        named = as_hosts(hosts)
        if named is None:
            valid = list(await self.get_valid_daq_hosts())
            if not valid:
                raise ConnectionError("no DaqData server answers at any of " + ", ".join(self.daq_nodes))
            return valid
        answers = await asyncio.gather(*(self.is_daq_host_valid(host) for host in named))
        for host, answer in zip(named, answers, strict=True):
            if not answer:
                known = "it is not in the configuration" if host not in self.daq_nodes else "it does not answer a ping"
                raise ConnectionError(f"{host} does not have a valid DaqData server: {known}")
        return named

    async def reflect_services(self, hosts: Hosts = None) -> str:
        """Return text per host: target, services, one line per method (rich markup, as documented)."""
        texts = []
        for host in await self.validate_daq_hosts(hosts):
            node = self.daq_nodes[host]
            texts.append(await describe_services(node["channel"], node["connection_target"], self._metadata))
        return "\n".join(texts)

    async def init_hp_io(
        self, hosts: Hosts = None, hp_io_cfg: Mapping[str, Any] | None = None, timeout: float = 10.0
    ) -> bool:
        """Initialise all hosts at once; True if all succeeded. Raises grpc.aio.AioRpcError when one refuses.

        `data_dir` comes from `hp_io_cfg`; where it is absent or empty, from the node's entry in daq_config.
        """
        config = parse_hp_io(dict(hp_io_cfg or {}))
        named = await self.validate_daq_hosts(hosts)

        async def init(host: str) -> bool:
            request = pb.InitHpIoRequest(
                data_dir=config.data_dir or str(self.daq_nodes[host]["config"].get("data_dir", "")),
                update_interval_seconds=config.update_interval_seconds,
                force=config.force,
                simulate_daq=config.simulate_daq,
                module_ids=config.module_ids,
            )
            response = await self._stub(host).InitHpIo(request, timeout=timeout, metadata=self._metadata)
            if not response.success:
                log.error("%s: init failed: %s", host, response.error_message)
            return bool(response.success)

        return all(await asyncio.gather(*map(init, named)))

    async def init_sim(
        self, hosts: Hosts = None, hp_io_cfg: Mapping[str, Any] | None = None, timeout: float = 5.0
    ) -> bool:
        """Initialise with simulated frames: the packaged configuration, or one whose `simulate_daq` is True."""
        config = dict(hp_io_cfg) if hp_io_cfg is not None else SIMULATED_HP_IO.model_dump()
        if config.get("simulate_daq") is not True:
            raise AssertionError("init_sim needs a configuration whose simulate_daq is True")
        return await self.init_hp_io(hosts, config, timeout)

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
    ) -> FrameStream[Any]:
        """Stream from all named hosts, merged by arrival: documented dictionaries, or unparsed messages.

        `every` asks our server for each frame instead of the newest per interval; `history` then begins with what
        the run already holds.
        """
        convert: Callable[[pb.StreamImagesResponse], Any]
        if parse_pano_images:
            clock = self._clock

            def convert(response: pb.StreamImagesResponse) -> dict[str, Any]:
                return parse_pano_image(response.pano_image, clock)
        elif self._unparsed == "image":

            def convert(response: pb.StreamImagesResponse) -> pb.PanoImage:
                return response.pano_image
        else:

            def convert(response: pb.StreamImagesResponse) -> pb.StreamImagesResponse:
                return response

        request = pb.StreamImagesRequest(
            stream_movie_data=stream_movie_data,
            stream_pulse_height_data=stream_pulse_height_data,
            update_interval_seconds=update_interval_seconds,
            module_ids=module_ids,
        )
        return self._stream(hosts, request, convert, wait_for_ready, timeout, every, history)

    def frames(
        self,
        hosts: Hosts = None,
        *,
        movie: bool = True,
        pulse_height: bool = True,
        interval_s: float = 0.0,
        modules: Iterable[int] = (),
        every: bool = False,
        history: bool = False,
        timeout_s: float = 36000,
    ) -> FrameStream[Frame]:
        """Stream typed frames with a NumPy view instead of dictionaries."""
        request = pb.StreamImagesRequest(
            stream_movie_data=movie,
            stream_pulse_height_data=pulse_height,
            update_interval_seconds=interval_s,
            module_ids=modules,
        )
        return self._stream(hosts, request, lambda r: decode_image(r.pano_image), False, timeout_s, every, history)

    def _stream(
        self,
        hosts: Hosts,
        request: pb.StreamImagesRequest,
        convert: Callable[[pb.StreamImagesResponse], T],
        wait_for_ready: bool,
        timeout: float,
        every: bool,
        history: bool,
    ) -> FrameStream[T]:
        metadata = self._metadata
        if every or history:
            metadata += (("fieldstation-mode", "every"), ("fieldstation-history", "run" if history else "none"))

        async def start(stream: FrameStream[T]) -> None:
            if self._group is None:
                raise ClientNotOpenError
            for host in await self.validate_daq_hosts(hosts):
                call = self._stub(host).StreamImages(
                    request, timeout=timeout, wait_for_ready=wait_for_ready, metadata=metadata
                )
                task = stream.add(self._group, host, call)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        ahead = _EVERY_AHEAD if every or history else _NEWEST_AHEAD
        return FrameStream(convert, start, ahead=ahead, stop=self._stop_event, quiet=self._quiet_ends)

    async def upload_images(
        self, hosts: Hosts, image_iterator: Iterable[pb.PanoImage] | AsyncIterable[pb.PanoImage]
    ) -> None:
        """Send each image to all named hosts."""
        calls = [
            self._stub(host).UploadImages(metadata=self._metadata) for host in await self.validate_daq_hosts(hosts)
        ]
        try:
            async for image in _each(image_iterator):
                request = image if isinstance(image, pb.UploadImageRequest) else pb.UploadImageRequest(pano_image=image)
                for call in calls:
                    await call.write(request)
            for call in calls:
                await call.done_writing()
        except asyncio.InvalidStateError:
            pass  # the server ended the call; awaiting it tells why
        finally:
            for call in calls:
                await call


async def _each(images: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield image
    else:
        for image in images:
            yield image
            await asyncio.sleep(0)
