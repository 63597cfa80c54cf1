"""The UbloxControl service: configure one receiver, stream its messages."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from typing import Any

import grpc
from google.protobuf import struct_pb2, timestamp_pb2

from fieldstation.core.errors import FieldstationError
from fieldstation.stream.errors import ReceiverConfigError
from fieldstation.stream.sources.ublox import Receiver, UbxMessage
from fieldstation.stream.ublox_config import parse_receiver_config
from fieldstation.stream.wire.codec import struct_to_dict
from fieldstation.stream.wire.pb import ublox_control_pb2 as pb

log = logging.getLogger(__name__)

SERVICE = "ubloxcontrol.UbloxControl"
_QUEUE = 200


class _Capture:
    """One client: the newest 200 messages that it has not been sent; `dropped` counts the others."""

    def __init__(self, patterns: list[re.Pattern[str]]) -> None:
        self._patterns = patterns
        self._queue: deque[UbxMessage] = deque(maxlen=_QUEUE)
        self._arrived = asyncio.Event()
        self.dropped = 0
        self.ended = ""

    def offer(self, message: UbxMessage) -> None:
        if self._patterns and not any(pattern.match(message.identity) for pattern in self._patterns):
            return
        if len(self._queue) == _QUEUE:
            self.dropped += 1
        self._queue.append(message)
        self._arrived.set()

    def end(self, reason: str) -> None:
        self.ended = reason
        self._arrived.set()

    async def next(self) -> UbxMessage | None:
        while not self._queue:
            if self.ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()


class UbloxControl:
    """The methods of `ubloxcontrol.UbloxControl`."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._receiver: Receiver | None = None
        self._latest: dict[str, UbxMessage] = {}
        self._captures: list[_Capture] = []

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server adds. PollMessage is declared but answers UNIMPLEMENTED, as documented."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "InitF9t": grpc.unary_unary_rpc_method_handler(
                    self.init_f9t,
                    request_deserializer=pb.InitF9tRequest.FromString,
                    response_serializer=pb.InitF9tResponse.SerializeToString,
                ),
                "CaptureUblox": grpc.unary_stream_rpc_method_handler(
                    self.capture_ublox,
                    request_deserializer=pb.CaptureUbloxRequest.FromString,
                    response_serializer=pb.CaptureUbloxResponse.SerializeToString,
                ),
            },
        )

    async def init_f9t(self, request: pb.InitF9tRequest, context: Any) -> pb.InitF9tResponse:
        """Configure and verify the receiver, then read it; clients that stream are ended when forced."""
        async with self._lock:
            if self._captures and not request.force_init:
                count = len(self._captures)
                details = f"{count} CaptureUblox clients are active; set force_init to end their streams"
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, details)
            try:
                config = await asyncio.to_thread(parse_receiver_config, struct_to_dict(request.f9t_config))
                await self._replace(config)
            except ReceiverConfigError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except FieldstationError as error:
                await context.abort(grpc.StatusCode.INTERNAL, str(error))
        return pb.InitF9tResponse(
            init_status=pb.InitF9tResponse.SUCCESS,
            message=f"{config.device}: {len(config.settings)} settings written and read back",
            f9t_config=request.f9t_config,
        )

    async def _replace(self, config: Any) -> None:
        await self.close("the receiver is being initialised again")
        receiver = Receiver(config, self._publish)
        try:
            await receiver.open()
        except BaseException:
            await receiver.close()
            raise
        self._receiver = receiver
        receiver.lost.add_done_callback(lambda lost: self._lost(receiver, lost.result()))

    def _lost(self, receiver: Receiver, problem: str) -> None:
        if receiver is self._receiver:
            log.error("the receiver is gone: %s", problem)
            self._receiver = None
            for capture in self._captures:
                capture.end(problem)

    def _publish(self, message: UbxMessage) -> None:
        self._latest[message.identity] = message
        for capture in self._captures:
            capture.offer(message)

    async def capture_ublox(self, request: pb.CaptureUbloxRequest, context: Any) -> None:
        """Send the latest message of every matching identity, then live ones."""
        if self._receiver is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no receiver is initialised; call InitF9t first")
        try:
            patterns = [re.compile(pattern) for pattern in request.patterns]
        except re.error as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a pattern is no regular expression: {error}")
        capture = _Capture(patterns)
        for message in self._latest.values():
            capture.offer(message)
        self._captures.append(capture)
        try:
            while (found := await capture.next()) is not None:
                await context.write(to_response(found))
            await context.write(pb.CaptureUbloxResponse(type=pb.CaptureUbloxResponse.ERROR, message=capture.ended))
            await context.abort(grpc.StatusCode.CANCELLED, capture.ended)
        finally:
            self._captures.remove(capture)

    async def close(self, reason: str = "the server is shutting down") -> None:
        """End all streams and let go of the receiver."""
        for capture in self._captures:
            capture.end(reason)
        receiver, self._receiver = self._receiver, None
        self._latest.clear()
        if receiver is not None:
            await receiver.close()


def to_response(message: UbxMessage) -> pb.CaptureUbloxResponse:
    """Return the wire form; bytes become text or hexadecimal digits."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    response = pb.CaptureUbloxResponse(
        type=pb.CaptureUbloxResponse.DATA,
        name=message.identity,
        pkt_unix_timestamp=timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos),
        payload=message.payload,
    )
    parsed = struct_pb2.Struct()
    parsed.update({key: _plain(value) for key, value in message.fields.items()})
    response.parsed_data.CopyFrom(parsed)
    return response


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        return text.decode() if text.isascii() and text.decode().isprintable() else value.hex()
    return value if isinstance(value, bool | int | float | str) else str(value)
