"""Frames to clients: ours, the published server where it is installed, and raw grpc.aio with pre-encoded bytes.

FIELDSTATION_PUBLISHED_STREAM names the Python of an environment with panoseti-grpc (`make interop` makes one).
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from limits.frame_codec import codec_rows
from rows import Row, main

from fieldstation.stream.model import PRODUCTS, Frame
from fieldstation.stream.pff import format_frame
from fieldstation.stream.sim.cameras import Sky
from fieldstation.stream.wire.codec import Encoder
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.stream.writer import PffWriter, run_folder
from fieldstation.testing import ServerProcess, free_port, running

METHOD = "/daqdata.DaqData/StreamImages"
FRAMES = 4000
PACED_RATE = 400
ROUNDS = 3
ENDLESS = 10**9  # frames, of a client that is told when to end
PACED_SECONDS = 4
IMG16 = PRODUCTS["img16"]


# Children: `python bench/stream.py raw-server ...` and `... client ...`


async def raw_server(port: int, frames: int, rate: float, clients: int) -> None:
    """The limit: the same bytes for everyone, encoded before the clock starts; it starts when all clients are there."""
    missing = clients
    everybody = asyncio.Event()
    header, pixels = Sky(1).frame(IMG16, time.time_ns())
    payload = Encoder("raw").response(Frame(IMG16.type, 1, "img16", (32, 32), 2, header, pixels, "f", 1), 1)

    async def stream(request: bytes, context) -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            everybody.set()
        await everybody.wait()
        due = time.monotonic()
        for _ in range(frames):
            await context.write(payload)
            if rate:
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("daqdata.DaqData", {"StreamImages": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print(f"ready 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def client(port: int, frames: int, seconds: float, every: bool) -> None:
    """Count messages without looking into them; print what was seen as JSON."""
    request = pb.StreamImagesRequest(stream_movie_data=True, stream_pulse_height_data=True).SerializeToString()
    metadata: tuple[tuple[str, str], ...] = (("fieldstation-mode", "every"),) if every else ()
    times: list[float] = []
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with channel:
        call = channel.unary_stream(METHOD)(request, metadata=metadata, timeout=seconds)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, call.cancel)
        print("ready", flush=True)
        try:
            async for _ in call:
                times.append(time.monotonic())
                if len(times) >= frames:
                    break
        except asyncio.CancelledError:
            pass  # told to end
        call.cancel()
    usage = os.times()
    print(json.dumps({"count": len(times), "first": times[0], "last": times[-1], "cpu": usage.user + usage.system}))


# Parent


@functools.cache
def frames_of(count: int, module: int = 1) -> list[bytes]:
    """PFF frames, formatted before the clock starts; the header tells when the bytes were made."""
    sky = Sky(module)
    return [format_frame(*sky.frame(IMG16, time.time_ns()), one_header=False) for _ in range(count)]


@contextmanager
def our_server(folder: Path, *options: str) -> Iterator[tuple[ServerProcess, int]]:
    port = free_port()
    config = folder / "stream.toml"
    config.write_text("[stream]\nevery_mode_buffer = 1000000\n")
    command = ["fieldstation", "stream", "serve", "--port", str(port), "--data-dir", str(folder), "--interval", "0.001"]
    with running(*command, "--config", config, *options) as server:
        yield server, port


@contextmanager
def clients(port: int, count: int, frames: int, seconds: float, every: bool) -> Iterator[list[dict[str, float]]]:
    """Start clients, yield the list that holds their reports afterwards."""
    command = [sys.executable, __file__, "client", str(port), str(frames), str(seconds), str(int(every))]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(0.5)  # the calls are on their way; nothing can be asked about that from here
    reports: list[dict[str, float]] = []
    yield reports
    for process in started:
        if frames == ENDLESS:
            process.terminate()
        assert process.stdout is not None
        reports.append(json.loads(process.stdout.readline()))
        process.wait(seconds)
        process.stdout.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def rate(reports: list[dict[str, float]]) -> float:
    """Messages per second, all clients together."""
    begin, end = min(r["first"] for r in reports), max(r["last"] for r in reports)
    return sum(r["count"] for r in reports) / (end - begin)


def our_rate(count: int) -> float:
    data = b"".join(frames_of(FRAMES))
    with tempfile.TemporaryDirectory() as name, our_server(Path(name)) as (_, port):
        writer = PffWriter(run_folder(Path(name), 1, "2026-01-01T00:00:00Z"), 1)
        writer.write_raw(IMG16, frames_of(1)[0])
        with clients(port, count, FRAMES, 100, every=True) as reports:
            writer.write_raw(IMG16, data)
    return rate(reports)


def raw_rate(count: int) -> float:
    port = free_port()
    with (
        running(sys.executable, __file__, "raw-server", str(port), str(FRAMES), "0", str(count)),
        clients(port, count, FRAMES, 100, every=False) as reports,
    ):
        pass
    return rate(reports)


def append_paced(writers: list[PffWriter], seconds: float, per_second: float) -> int:
    data = [frames_of(200, writer.module_id) for writer in writers]
    began = time.monotonic()
    steps = 0
    while time.monotonic() - began < seconds:
        for writer, frames in zip(writers, data, strict=True):
            writer.write_raw(IMG16, frames[steps % 200])
        steps += 1
        time.sleep(max(0.0, began + steps / per_second - time.monotonic()))
    return steps


def our_paced(count: int, per_second: float = PACED_RATE) -> tuple[float, float]:
    """Server CPU in µs per delivered frame, and the share of frames that were delivered, at a fixed rate."""
    with tempfile.TemporaryDirectory() as name, our_server(Path(name)) as (server, port):
        writer = PffWriter(run_folder(Path(name), 1, "2026-01-01T00:00:00Z"), 1)
        time.sleep(1)
        with clients(port, count, ENDLESS, 100, every=True) as reports:
            before = cpu_seconds(server.pid)
            written = append_paced([writer], PACED_SECONDS, per_second)
            time.sleep(0.3)
            used = cpu_seconds(server.pid) - before
    delivered = sum(r["count"] for r in reports)
    return used / delivered * 1e6, delivered / (written * count)


def raw_paced(count: int) -> float:
    port = free_port()
    frames = PACED_RATE * PACED_SECONDS
    with (
        running(sys.executable, __file__, "raw-server", str(port), str(frames), str(PACED_RATE), str(count)) as server,
        clients(port, count, frames, 100, every=False),
    ):
        before = cpu_seconds(server.pid)
        time.sleep(PACED_SECONDS - 1)
        used = cpu_seconds(server.pid) - before
    # While we watched, this many were sent to each client.
    return used / ((PACED_SECONDS - 1) * PACED_RATE * count) * 1e6


def published_paced(python: str, count: int) -> float:
    """Server CPU in µs per delivered frame of the published server, fed through its ingest socket at the same rate."""
    script = Path(__file__).parents[1] / "tests/interop/stream/published_server.py"
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as name,
        # It refuses to initialise unless a process has this name.
        running("fieldstation", "stream", "simulate", f"{name}/run", "--rate", "1"),
        running(python, script, str(port), name, deadline_s=60) as server,
    ):
        request = pb.InitHpIoRequest(data_dir=name, update_interval_seconds=0.001, force=True)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/daqdata.DaqData/InitHpIo")
            done = pb.InitHpIoResponse.FromString(call(request.SerializeToString(), timeout=20))
        assert done.success
        line = socket.socket(socket.AF_UNIX)
        line.connect(f"{name}/dp_img16.sock")
        with line, clients(port, count, ENDLESS, 100, every=False) as reports:
            before = cpu_seconds(server.pid)
            began = time.monotonic()
            for step in range(PACED_RATE * PACED_SECONDS):
                line.sendall(b"\0\1" + frames_of(200)[step % 200])
                time.sleep(max(0.0, began + step / PACED_RATE - time.monotonic()))
            used = cpu_seconds(server.pid) - before
    return used / sum(r["count"] for r in reports) * 1e6


def published_python() -> str | None:
    """The environment that `make interop` built, or the one that is named."""
    named = os.environ.get("FIELDSTATION_PUBLISHED_STREAM")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldstation/interop"
    return named or next((f"{p}/bin/python" for p in cache.glob("panoseti-grpc-*") if (p / "complete").exists()), None)


def latency() -> tuple[float, float]:
    """Milliseconds from append to client, median and 99th of a hundred, at 50 frames/s."""
    port_times: dict[int, int] = {}
    seen: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as name, our_server(Path(name)) as (_, port):
        writer = PffWriter(run_folder(Path(name), 1, "2026-01-01T00:00:00Z"), 1)
        frames = frames_of(600)
        time.sleep(1)

        def write() -> None:
            for number, frame in enumerate(frames):
                port_times[number] = time.monotonic_ns()
                writer.write_raw(IMG16, frame)
                time.sleep(0.01)

        async def receive() -> None:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            request = pb.StreamImagesRequest(stream_movie_data=True).SerializeToString()
            async with channel:
                call = channel.unary_stream(METHOD)(request, timeout=30)
                await asyncio.sleep(0.5)
                thread = threading.Thread(target=write)
                thread.start()
                async for message in call:
                    now = time.monotonic_ns()
                    number = pb.StreamImagesResponse.FromString(message).pano_image.frame_number
                    seen.setdefault(number, now)
                    if number >= len(frames) - 1:
                        break
                call.cancel()
                thread.join()

        asyncio.run(receive())
    delays = sorted((seen[number] - port_times[number]) / 1e6 for number in seen if number > 20)
    return statistics.median(delays), delays[int(len(delays) * 0.99)]


def memory() -> float:
    """RSS in MB of a server with eight modules and eight clients."""
    with tempfile.TemporaryDirectory() as name, our_server(Path(name)) as (server, port):
        writers = [PffWriter(run_folder(Path(name), m, "2026-01-01T00:00:00Z"), m) for m in range(8)]
        time.sleep(1.2)
        with clients(port, 8, ENDLESS, 100, every=False):
            append_paced(writers, 4, 50)
            found = rss_mb(server.pid)
    return found


def measure() -> list[Row]:
    rows = codec_rows(frames_of(1)[0], IMG16)
    for count in (1, 8):
        pairs = [(our_rate(count), raw_rate(count)) for _ in range(ROUNDS)]
        ours, limit = statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
        ratio = statistics.median(mine / raw for mine, raw in pairs)
        rows.append(
            Row(
                f"messages/s, files to {count} client(s), every frame",
                f"{ours:.0f}/s",
                f"{limit:.0f}/s, raw grpc.aio",
                ratio,
                ">= 0.7",
            )
        )
    fast = our_paced(1, 1000)[1]
    rows.append(Row("share of 1,000 frames/s delivered to one client", f"{fast:.4f}", "1", fast, "1"))
    pairs = [(our_paced(8), raw_paced(8)) for _ in range(ROUNDS)]
    ours = statistics.median(p[0][0] for p in pairs)
    limit = statistics.median(p[1] for p in pairs)
    ratio = statistics.median(p[0][0] / p[1] for p in pairs)
    rows.append(
        Row(
            f"server CPU per delivered frame, 8 clients at {PACED_RATE}/s",
            f"{ours:.0f} µs",
            f"{limit:.0f} µs, raw grpc.aio",
            ratio,
            "<= 1.3",
        )
    )
    if (python := published_python()) is not None:
        today = published_paced(python, 8)
        rows.append(
            Row(
                "the same, against the published server",
                f"{ours:.0f} µs",
                f"{today:.0f} µs, panoseti-grpc",
                ours / today,
                "<= 0.5",
            )
        )
    share = min(p[0][1] for p in pairs)
    rows.append(Row(f"share of frames delivered, 8 clients at {PACED_RATE}/s", f"{share:.4f}", "1", share, "1"))
    half, most = latency()
    rows.append(
        Row("append to client, median and p99", f"{half:.2f} ms, {most:.2f} ms", "", None, "<= 1.5 ms, <= 6 ms idle")
    )
    rows.append(Row("RSS, 8 modules to 8 clients", f"{memory():.0f} MB", "", None, "< 80 MB"))
    return rows


if __name__ == "__main__":
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role == "raw-server":
        asyncio.run(raw_server(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])))
    elif role == "client":
        asyncio.run(client(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "1"))
    else:
        main("stream", measure)
