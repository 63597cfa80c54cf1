"""The limit of a gRPC server for frames: raw grpc.aio that sends everyone frames that were encoded beforehand.

`python ready_frames.py PORT FRAMES RATE`
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import grpc

from fieldstation.stream.model import PRODUCTS, Frame
from fieldstation.stream.sim.cameras import Sky
from fieldstation.stream.wire.codec import Encoder

IMG16 = PRODUCTS["img16"]
PAYLOADS = 4000  # one for each frame: the same one over and over would never leave the processor's cache


async def serve(port: int, frames: int, rate: float) -> None:
    """Serve until killed; each SIGUSR1 asks for so many frames, at a rate or (0) as fast as they go."""
    loop = asyncio.get_running_loop()
    sky, encoder = Sky(1), Encoder("raw")
    payloads = []
    for number in range(PAYLOADS):
        header, pixels = sky.frame(IMG16, time.time_ns())
        payloads.append(encoder.response(Frame(IMG16.type, 1, "img16", (32, 32), 2, header, pixels, "f", number), 1))
    produced, news = 0, asyncio.Event()  # one wake-up for all clients, whatever the number of frames
    tasks: set[asyncio.Task[None]] = set()

    def produce(count: int) -> None:
        nonlocal produced, news
        produced += count
        news.set()
        news = asyncio.Event()

    async def pace() -> None:
        due = time.monotonic()
        for _ in range(frames):
            produce(1)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def begin() -> None:
        if rate:
            tasks.add(loop.create_task(pace()))
        else:
            produce(frames)

    async def stream(request: bytes, context) -> None:
        sent = 0  # also to a client that was slow to come: each waits for its number
        while True:
            while sent < produced:
                await context.write(payloads[sent % PAYLOADS])
                sent += 1
            await news.wait()

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("daqdata.DaqData", {"StreamImages": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    loop.add_signal_handler(signal.SIGUSR1, begin)
    print(f"ready 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
