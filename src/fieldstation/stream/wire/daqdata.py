"""The DaqData service: gRPC calls to the hub and the acquisition, errors to status codes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
from google.protobuf import empty_pb2

from fieldstation.core.errors import FieldstationError
from fieldstation.stream import errors
from fieldstation.stream.acquisition import Acquisition
from fieldstation.stream.hub import Every, Newest, SharedFrame, Subscription, place_of
from fieldstation.stream.model import HpIo, Wanted
from fieldstation.stream.wire.codec import Encoder, decode_image, message_field
from fieldstation.stream.wire.pb import daq_data_pb2 as pb

log = logging.getLogger(__name__)

SERVICE = "daqdata.DaqData"
MAX_UPLOADED_PLACES = 1024

_CODES: dict[type[FieldstationError], grpc.StatusCode] = {
    errors.NoDataClassError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DataDirError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.IntervalError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestModeError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UploadError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NoRunError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ReadersActiveError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotInitialisedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SourceFailedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TooManyReadersError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UploadFloodError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StreamEndedError: grpc.StatusCode.CANCELLED,
    errors.ShutDownError: grpc.StatusCode.CANCELLED,
}


def status_of(error: Exception) -> grpc.StatusCode:
    """Return the documented status code of an error of ours."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.INTERNAL


class Context(Protocol):
    """What we use of grpc.aio.ServicerContext."""

    async def write(self, message: bytes) -> None: ...  # noqa: D102 - a protocol: the name says it
    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any = ()) -> None: ...  # noqa: D102 - a protocol: the name says it
    def invocation_metadata(self) -> Any: ...  # noqa: D102 - a protocol: the name says it
    def peer(self) -> str: ...  # noqa: D102 - a protocol: the name says it


class DaqData:
    """The four methods of `daqdata.DaqData`. Responses leave as bytes that were encoded once."""

    def __init__(self, acquisition: Acquisition, encoder: Encoder, every_mode_buffer: int) -> None:
        self._acquisition = acquisition
        self._hub = acquisition.hub
        self._encoder = encoder
        self._every_mode_buffer = every_mode_buffer
        self._uploaded_places: set[object] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server adds. No response serializer: StreamImages writes bytes."""
        empty = empty_pb2.Empty
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamImages": grpc.unary_stream_rpc_method_handler(
                    self.stream_images, request_deserializer=pb.StreamImagesRequest.FromString
                ),
                "InitHpIo": grpc.unary_unary_rpc_method_handler(
                    self.init_hp_io,
                    request_deserializer=pb.InitHpIoRequest.FromString,
                    response_serializer=pb.InitHpIoResponse.SerializeToString,
                ),
                "Ping": grpc.unary_unary_rpc_method_handler(
                    self.ping, request_deserializer=empty.FromString, response_serializer=empty.SerializeToString
                ),
                "UploadImages": grpc.stream_unary_rpc_method_handler(
                    self.upload_images,
                    request_deserializer=pb.UploadImageRequest.FromString,
                    response_serializer=empty.SerializeToString,
                ),
            },
        )

    async def ping(self, request: empty_pb2.Empty, context: Context) -> empty_pb2.Empty:
        """Answer at once."""
        return empty_pb2.Empty()

    async def init_hp_io(self, request: pb.InitHpIoRequest, context: Context) -> pb.InitHpIoResponse:
        """Reconfigure; a failed start is `success=false` with the reason, a refusal is a status."""
        wanted = HpIo(
            data_dir=request.data_dir,
            update_interval_s=request.update_interval_seconds,
            force=request.force,
            simulate=request.simulate_daq,
            modules=frozenset(request.module_ids),
        )
        log.info("init_hp_io from %s: %s", context.peer(), wanted)
        try:
            problem = await self._acquisition.init(wanted)
        except FieldstationError as error:
            await context.abort(status_of(error), str(error))
            raise
        self._uploaded_places.clear()
        return pb.InitHpIoResponse(success=problem is None, error_message=problem or "")

    async def stream_images(self, request: pb.StreamImagesRequest, context: Context) -> None:
        """Stream until the client leaves, a forced init or the shutdown ends it."""
        subscription: Subscription | None = None
        try:
            # The wait for a reconfiguration comes first: its interval is the floor of ours.
            subscription = await self._subscribe(request, context)
            async with self._acquisition.reader(subscription):
                await self._serve(subscription, context)
        except FieldstationError as error:
            await context.abort(status_of(error), str(error), _trailer(subscription))

    async def _subscribe(self, request: pb.StreamImagesRequest, context: Context) -> Subscription:
        if not (request.stream_movie_data or request.stream_pulse_height_data):
            raise errors.NoDataClassError
        asked = request.update_interval_seconds
        if math.isnan(asked) or asked == math.inf:
            raise errors.IntervalError(value=asked, minimum="0 (as often as hp_io allows)")
        await self._acquisition.check_ready()
        wanted = Wanted(
            movie=request.stream_movie_data,
            pulse_height=request.stream_pulse_height_data,
            modules=frozenset(request.module_ids),
            interval_s=max(asked, self._acquisition.interval_s),
        )
        metadata = dict(context.invocation_metadata() or ())
        mode = metadata.get("fieldstation-mode", "newest")
        if mode == "newest":
            return Newest(wanted, context.peer())
        if mode != "every":
            raise errors.RequestModeError(key="fieldstation-mode", value=mode, known="newest, every")
        history = metadata.get("fieldstation-history", "none")
        if history not in ("none", "run"):
            raise errors.RequestModeError(key="fieldstation-history", value=history, known="none, run")
        subscription = Every(wanted, context.peer(), self._buffer(metadata))
        subscription.live = history == "none"
        return subscription

    def _buffer(self, metadata: dict[str, str]) -> int:
        asked = metadata.get("fieldstation-buffer", str(self._every_mode_buffer))
        if not asked.isdecimal() or int(asked) < 1:
            raise errors.RequestModeError(key="fieldstation-buffer", value=asked, known="a number of frames from 1")
        return min(int(asked), self._every_mode_buffer)

    async def _serve(self, subscription: Subscription, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        # A client that does not read blocks our write for ever; ending the stream must not wait for it.
        subscription.on_end = task.cancel
        try:
            if isinstance(subscription, Every):
                await self._send_every(subscription, context)
            while True:
                await subscription.ready()
                for shared in subscription.take():
                    await context.write(shared.payload)
        except asyncio.CancelledError:
            if subscription.ended_by is None:
                raise
            task.uncancel()
            raise subscription.ended_by from None

    async def _send_every(self, subscription: Every, context: Context) -> None:
        history = None if subscription.live else self._acquisition.history()
        if history is not None:
            async for frames in history.catch_up(subscription.wanted, subscription.limit // 2, subscription.go_live):
                for frame in frames:
                    subscription.counters.offered += 1
                    subscription.counters.sent += 1
                    await context.write(self._hub.share(frame).payload)
        subscription.go_live()
        write, soon = context.write, asyncio.get_running_loop().call_soon
        while True:
            await subscription.ready()
            for shared in subscription.take():
                gap = subscription.gap_before(shared)
                payload = shared.payload
                following = subscription.following()
                if following is not None and not following.encoded:
                    soon(following.encode)  # while this one is on its way through gRPC's own threads
                await write(payload + _gap_note(gap, subscription) if gap else payload)

    async def upload_images(self, requests: AsyncIterator[pb.UploadImageRequest], context: Context) -> empty_pb2.Empty:
        """Publish each uploaded image unchanged to whoever asked for its module and class."""
        try:
            await self._acquisition.check_ready()
            index = 0
            async for request in requests:
                if request.HasField("pano_image"):
                    self._publish_upload(request.pano_image, index)
                index += 1
        except FieldstationError as error:
            await context.abort(status_of(error), str(error))
        return empty_pb2.Empty()

    def _publish_upload(self, image: pb.PanoImage, index: int) -> None:
        try:
            if tuple(image.shape) not in ((16, 16), (32, 32)):
                raise ValueError(f"shape is {list(image.shape)}; known are [16, 16] and [32, 32]")
            frame = decode_image(image)
            limit = 256**image.bytes_per_pixel - 1
            if max(image.image_array) > limit:
                raise ValueError(f"image_array holds values above {limit}, for bytes_per_pixel {image.bytes_per_pixel}")
        except (ValueError, OverflowError) as error:
            raise errors.UploadError(index=index, problem=error) from error
        encoded = image.SerializeToString()
        shared = SharedFrame(frame.type, place_of(frame), self._encoder.wrap(encoded, time.time_ns()))
        if shared.key not in self._hub.newest:
            self._uploaded_places.add(shared.key)
            if len(self._uploaded_places) > MAX_UPLOADED_PLACES:
                raise errors.UploadFloodError(limit=MAX_UPLOADED_PLACES)
        self._hub.publish_shared(shared)


def _trailer(subscription: Subscription | None) -> tuple[tuple[str, str], ...]:
    if subscription is None:
        return ()
    counters = subscription.counters
    return (
        ("fieldstation-produced", str(counters.offered)),
        ("fieldstation-sent", str(counters.sent)),
        ("fieldstation-dropped", str(counters.offered - counters.sent)),
    )


def _gap_note(gap: int, subscription: Subscription) -> bytes:
    return message_field(f"{gap} frames dropped before this one, {subscription.counters.dropped} in all")
