"""Clients of the UbloxControl service: `AioUbloxControlClient`, and its blocking face `UbloxControlClient`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc
from google.protobuf import struct_pb2

from fieldstation.core.blocking import portal
from fieldstation.stream.errors import ClientNotOpenError
from fieldstation.stream.wire.codec import struct_to_dict
from fieldstation.stream.wire.pb import ublox_control_pb2 as pb
from fieldstation.stream.wire.reflect import describe_services
from fieldstation.stream.wire.ubloxcontrol import SERVICE

PING_S = 1.0


class AioUbloxControlClient:
    """Async client of receivers' servers, each named `host:port`; use it with `async with`."""

    def __init__(self, hosts: str | Sequence[str], stop_event: asyncio.Event | None = None, token: str = "") -> None:
        self.hosts = [hosts] if isinstance(hosts, str) else list(hosts)
        self._stop_event = stop_event
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channels: dict[str, Any] = {}

    async def __aenter__(self) -> AioUbloxControlClient:
        self._channels = {host: grpc.aio.insecure_channel(host) for host in self.hosts}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels = {}

    def _channel(self, host: str) -> Any:
        if host not in self._channels:
            if self._channels:
                raise ValueError(f"{host} is none of this client's hosts: {', '.join(self.hosts)}")
            raise ClientNotOpenError
        return self._channels[host]

    async def ping(self, host: str) -> bool:
        """Return whether the host offers UbloxControl: the service has no ping, so it is asked by reflection."""
        with contextlib.suppress(TimeoutError, grpc.aio.AioRpcError):
            async with asyncio.timeout(PING_S):
                return SERVICE in await describe_services(self._channel(host), host, self._metadata)
        return False

    async def init_f9t(
        self, hosts: str | Sequence[str] | None, cfg: Mapping[str, Any], timeout: float = 10, force: bool = False
    ) -> bool:
        """Configure the receivers of all hosts with the same settings; raises grpc.aio.AioRpcError on refusal."""
        config = struct_pb2.Struct()
        config.update(cfg)
        request = pb.InitF9tRequest(f9t_config=config, force_init=force)

        async def init(host: str) -> bool:
            call = self._channel(host).unary_unary(
                f"/{SERVICE}/InitF9t", pb.InitF9tRequest.SerializeToString, pb.InitF9tResponse.FromString
            )
            response = await call(request, timeout=timeout, metadata=self._metadata)
            return bool(response.init_status == pb.InitF9tResponse.SUCCESS)

        return all(await asyncio.gather(*(init(host) for host in self._named(hosts))))

    def _named(self, hosts: str | Sequence[str] | None) -> list[str]:
        return self.hosts if not hosts else [hosts] if isinstance(hosts, str) else list(hosts)

    async def capture_ublox(
        self, hosts: str | Sequence[str] | None = None, patterns: Sequence[str] = (), timeout: float = 36000
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield messages of all hosts by arrival: `host`, `type`, `name`, `parsed_data`, `payload`, and the times.

        `patterns` are regular expressions for the start of an identity such as TIM-TP; none: all.
        """
        arrived: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue(200)
        request = pb.CaptureUbloxRequest(patterns=patterns)

        async def receive(host: str) -> None:
            call = self._channel(host).unary_stream(
                f"/{SERVICE}/CaptureUblox", pb.CaptureUbloxRequest.SerializeToString, pb.CaptureUbloxResponse.FromString
            )(request, timeout=timeout, metadata=self._metadata)
            try:
                async for response in call:
                    await arrived.put(to_dict(response, host))
                await arrived.put(None)
            except grpc.aio.AioRpcError as error:
                await arrived.put(error)
            finally:
                call.cancel()

        named = self._named(hosts)
        tasks = [asyncio.ensure_future(receive(host)) for host in named]
        try:
            left = len(named)
            while left:
                found = await self._next(arrived)
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    left -= 1
                elif self._stop_event is not None and self._stop_event.is_set():
                    return
                elif found:
                    yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _next(self, arrived: asyncio.Queue[Any]) -> Any:
        if self._stop_event is None:
            return await arrived.get()
        try:
            async with asyncio.timeout(0.5):
                return await arrived.get()
        except TimeoutError:
            return {}


def to_dict(response: pb.CaptureUbloxResponse, host: str) -> dict[str, Any]:
    """Return a captured message as plain Python; `pkt_unix_timestamp` is a datetime in UTC without zone."""
    return {
        "host": host,
        "type": pb.CaptureUbloxResponse.Type.Name(response.type),
        "name": response.name,
        "parsed_data": struct_to_dict(response.parsed_data),
        "pkt_unix_timestamp": response.pkt_unix_timestamp.ToDatetime(),
        "message": response.message,
        "payload": response.payload,
    }


class UbloxControlClient:
    """The blocking face; use it with `with`. Arguments as AioUbloxControlClient's."""

    def __init__(self, hosts: str | Sequence[str], token: str = "") -> None:
        self._client = AioUbloxControlClient(hosts, token=token)

    def __enter__(self) -> UbloxControlClient:
        portal.call(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        portal.call(self._client.__aexit__(kind, error, trace))

    def ping(self, host: str) -> bool:
        """Return whether the host offers UbloxControl."""
        return portal.call(self._client.ping(host))

    def init_f9t(
        self, hosts: str | Sequence[str] | None, cfg: Mapping[str, Any], timeout: float = 10, force: bool = False
    ) -> bool:
        """Configure the receivers of all hosts with the same settings; raises grpc.RpcError on refusal."""
        return portal.call(self._client.init_f9t(hosts, cfg, timeout, force))

    def capture_ublox(
        self, hosts: str | Sequence[str] | None = None, patterns: Sequence[str] = (), timeout: float = 36000
    ) -> Iterator[dict[str, Any]]:
        """Yield messages as they arrive."""
        return portal.iterate(self._client.capture_ublox(hosts, patterns, timeout))
