"""Live frames of one frame server: received once, shown to every viewer, and a slow viewer holds nobody.

Only while somebody looks is there a line to the server. Each frame is counted; of each place (module, kind, quabo) the
newest is kept for every viewer until that viewer says that it has drawn the last ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import struct
import sys
import time
from array import array
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from fieldstation.core.retry import Backoff
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.web.histogram import Heights

log = logging.getLogger(__name__)

_MAX_MESSAGE = 16 << 20
_METHOD = "/daqdata.DaqData/StreamImages"

Key = tuple[int, int, str, int]  # module, type, shape and depth, quabo


class Picture:
    """A received frame; its message for viewers is made at the first use and is the same bytes for everyone."""

    __slots__ = ("_image", "_message", "count", "key")

    def __init__(self, image: pb.PanoImage, count: int) -> None:
        self.key = key_of(image)
        self.count = count
        self._image = image
        self._message = b""

    @property
    def message(self) -> bytes:
        """Length of the head (uint32, little-endian), the head as JSON, the pixels (little-endian)."""
        if not self._message:
            head = json.dumps(head_of(self._image) | {"count": self.count}).encode()
            self._message = struct.pack("<I", len(head)) + head + pixels_of(self._image).tobytes()
        return self._message


def key_of(image: pb.PanoImage) -> Key:
    """Return the place whose newest frame this is."""
    quabo = image.header.fields["quabo_num"].number_value if "quabo_num" in image.header.fields else -1
    return image.module_id, image.type, f"{tuple(image.shape)}{image.bytes_per_pixel}", int(quabo)


def head_of(image: pb.PanoImage) -> dict[str, Any]:
    """Return what stands beside the pixels."""
    module, kind, _, quabo = key_of(image)
    return {
        "module": module,
        "kind": {1: "pulse height", 2: "movie"}.get(kind, "image"),
        "quabo": quabo if quabo >= 0 else None,
        "shape": list(image.shape),
        "type": "u1" if image.bytes_per_pixel == 1 else "i2" if kind == 1 else "u2",
        "number": image.frame_number,
        "file": image.file,
        "header": MessageToDict(image.header),
    }


def pixels_of(image: pb.PanoImage) -> array[int]:
    """Return the pixels: pulse heights are signed, although the wire carries them unsigned."""
    if image.bytes_per_pixel == 1:
        return array("B", image.image_array)
    pixels = array("H", image.image_array)
    if sys.byteorder == "big":
        pixels.byteswap()
    return array("h", pixels.tobytes()) if image.type == 1 else pixels


class Viewer:
    """One open tab. It is given what is newest when it asks for more; what it missed is counted."""

    def __init__(self) -> None:
        self.sent = 0
        self.dropped = 0
        self._newest: dict[Key, Picture] = {}
        self._news = asyncio.Event()

    def offer(self, picture: Picture) -> None:
        """Take note of a new picture; never waits."""
        if picture.key in self._newest:
            self.dropped += 1
        self._newest[picture.key] = picture
        self._news.set()

    async def take(self) -> list[bytes]:
        """Wait for pictures, and return the newest of each place."""
        await self._news.wait()
        self._news.clear()
        pictures, self._newest = self._newest, {}
        self.sent += len(pictures)
        return [picture.message for picture in pictures.values()]

    @property
    def waiting(self) -> int:
        """How many pictures are kept for it."""
        return len(self._newest)


class FrameSource:
    """One frame server and its viewers; a service of its own (`core.service.Service`)."""

    def __init__(self, name: str, target: str, *, ca: Path | None = None) -> None:
        self.name = name
        self.target = target
        self.produced = 0  # frames received since the line was opened for the first time
        self.lost = 0  # frames of which the server told that they did not reach us
        self.problem = ""
        self.heights: dict[int, Heights] = {}
        self._ca = ca
        self._viewers: set[Viewer] = set()
        self._looked_at = asyncio.Event()
        self._unseen = asyncio.Event()
        self._arrivals: deque[float] = deque(maxlen=200)

    async def start(self) -> None:
        """Nothing to get ready: the line is opened when somebody looks."""

    async def run(self) -> None:
        """Receive while there are viewers, until cancelled."""
        backoff = iter(Backoff(initial_s=0.3, ceiling_s=5.0))
        while True:
            await self._looked_at.wait()
            before = self.produced
            try:
                await self._receive()
            except* grpc.aio.AioRpcError as group:
                error: Any = group.exceptions[0]
                self.problem = f"{self.target} does not stream: {error.details() or error.code().name}."
                log.info("%s", self.problem)
            except* OSError as group:
                self.problem = f"{self.target} cannot be asked: {group.exceptions[0]}."
            else:
                self.problem = "" if not self._viewers else f"{self.target} has ended the stream."
            if self.produced > before:
                backoff = iter(Backoff(initial_s=0.3, ceiling_s=5.0))
            await asyncio.sleep(next(backoff))

    async def stop(self) -> None:
        """Nothing is left to let go of."""

    def health(self) -> dict[str, object]:
        """Say how it is."""
        return {"ok": not self.problem, "viewers": len(self._viewers), "produced": self.produced}

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks; only then is anything received."""
        return bool(self._viewers)

    @property
    def rate(self) -> float:
        """Frames a second in the last five seconds."""
        recent = [at for at in self._arrivals if at > time.monotonic() - 5]
        span = recent[-1] - recent[0] if len(recent) > 1 else 0.0
        return round((len(recent) - 1) / span, 1) if span else 0.0

    def add(self, viewer: Viewer) -> None:
        """Somebody looks."""
        self._viewers.add(viewer)
        self._looked_at.set()
        self._unseen.clear()

    def remove(self, viewer: Viewer) -> None:
        """Somebody has gone; after the last one the line is closed."""
        self._viewers.discard(viewer)
        if not self._viewers:
            self._looked_at.clear()
            self._unseen.set()

    def counters(self, viewer: Viewer) -> Mapping[str, Any]:
        """What a viewer is told once a second. Produced while it looked = sent + dropped + waiting."""
        return {
            "rate": self.rate,
            "produced": self.produced,
            "lost": self.lost,
            "sent": viewer.sent,
            "dropped": viewer.dropped,
            "waiting": viewer.waiting,
            "problem": self.problem,
            "heights": {str(module): heights.histogram() for module, heights in sorted(self.heights.items())},
        }

    async def _receive(self) -> None:
        token = os.environ.get("FIELDSTATION_STREAM_TOKEN", "")
        metadata = [("fieldstation-mode", "every")]
        if token:
            metadata.append(("authorization", f"Bearer {token}"))
        options = (("grpc.max_receive_message_length", _MAX_MESSAGE),)
        async with self._channel(options) as channel:
            call = channel.unary_stream(
                _METHOD, pb.StreamImagesRequest.SerializeToString, pb.StreamImagesResponse.FromString
            )(pb.StreamImagesRequest(stream_movie_data=True, stream_pulse_height_data=True), metadata=metadata)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._end_unseen(call))
                try:
                    async for response in call:
                        self.problem = ""
                        self._take(response)
                except asyncio.CancelledError:
                    # So the library tells that the call was ended here because nobody looks any more.
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                finally:
                    watch.cancel()

    def _channel(self, options: Any) -> Any:
        if self._ca is None:
            return grpc.aio.insecure_channel(self.target, options=options)
        return grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(self._ca.read_bytes()), options)

    async def _end_unseen(self, call: Any) -> None:
        await self._unseen.wait()
        call.cancel()

    def _take(self, response: pb.StreamImagesResponse) -> None:
        image = response.pano_image
        self.produced += 1
        if response.message.partition(" ")[0].isdigit():
            self.lost += int(response.message.partition(" ")[0])
        self._arrivals.append(time.monotonic())
        if image.type == 1 and image.image_array:
            self.heights.setdefault(image.module_id, Heights()).add(max(pixels_of(image)))
        picture = Picture(image, self.produced)
        for viewer in self._viewers:
            viewer.offer(picture)
