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
from rows import Row, alternate, main

from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.pff import format_frame
from fieldstation.stream.sim.cameras import Sky
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.stream.writer import PffWriter, run_folder
from fieldstation.testing import ServerProcess, free_port, running

READY_FRAMES = str(Path(__file__).with_name("limits") / "ready_frames.py")
METHOD = "/daqdata.DaqData/StreamImages"
FRAMES = 4000
PACED_RATE = 400
ROUNDS = 7
ENDLESS = 10**9  # frames, of a client that is told when to end
PACED_SECONDS = 4
FLOOD_RATE = 800  # more than the published server delivers to eight clients, and less than makes it stall
IMG16 = PRODUCTS["img16"]


# A child: `python bench/stream.py client ...`


async def client(port: int, frames: int, every: bool) -> None:
    """Count messages without looking into them; print a report as JSON after each `frames`, and at the end."""
    request = pb.StreamImagesRequest(stream_movie_data=True, stream_pulse_height_data=True).SerializeToString()
    metadata: tuple[tuple[str, str], ...] = (("fieldstation-mode", "every"),) if every else ()
    times: list[float] = []

    def report() -> None:
        print(json.dumps({"count": len(times), "first": times[0], "last": times[-1]}), flush=True)
        times.clear()

    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with channel:
        call = channel.unary_stream(METHOD)(request, metadata=metadata)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, call.cancel)
        print("ready", flush=True)
        try:
            async for _ in call:
                times.append(time.monotonic())
                if len(times) == frames:
                    report()
        except asyncio.CancelledError:
            pass  # told to end
    if times:
        report()


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


class Clients:
    """Client processes of one server. `reports` waits until each has got its `frames` once more; `end` ends them."""

    def __init__(self, port: int, count: int, frames: int, every: bool) -> None:
        command = [sys.executable, __file__, "client", str(port), str(frames), str(int(every))]
        self._started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        for process in self._started:
            self._line(process)
        time.sleep(0.5)  # the calls are on their way; nothing can be asked about that from here

    @staticmethod
    def _line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    def reports(self) -> list[dict[str, float]]:
        return [json.loads(self._line(process)) for process in self._started]

    def end(self) -> list[dict[str, float]]:
        for process in self._started:
            process.terminate()
        return [json.loads(line) for process in self._started if (line := process.communicate(timeout=20)[0])]

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def cpu_seconds(pid: int) -> float:
    """Of all threads, to the nanosecond; the times in /proc/PID/stat are counted in ticks of 10 ms."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def rate(reports: list[dict[str, float]]) -> float:
    """Messages per second, all clients together."""
    begin, end = min(r["first"] for r in reports), max(r["last"] for r in reports)
    return sum(r["count"] for r in reports) / (end - begin)


def rates(count: int) -> tuple[tuple[float, float, float], float, float]:
    """Messages a second of ours and of the raw server and their ratio; server CPU in µs per delivered frame of both.

    Bursts in turn, both servers there all along.
    """
    used = [0.0, 0.0]
    data = b"".join(frames_of(FRAMES))
    raw_port = free_port()
    with (
        tempfile.TemporaryDirectory() as name,
        our_server(Path(name)) as (our, port),
        running(sys.executable, READY_FRAMES, str(raw_port), str(FRAMES), "0") as raw_server,
    ):
        writer = PffWriter(run_folder(Path(name), 1, "2026-01-01T00:00:00Z"), 1)
        writer.write_raw(IMG16, frames_of(1)[0])
        with Clients(port, count, FRAMES, True) as ours, Clients(raw_port, count, FRAMES, False) as raw:

            def burst() -> float:
                before = cpu_seconds(our.pid)
                writer.write_raw(IMG16, data)
                reports = ours.reports()
                used[0] += cpu_seconds(our.pid) - before
                return rate(reports)

            def raw_burst() -> float:
                before = cpu_seconds(raw_server.pid)
                raw_server.process.send_signal(signal.SIGUSR1)
                reports = raw.reports()
                used[1] += cpu_seconds(raw_server.pid) - before
                return rate(reports)

            burst(), raw_burst()  # the first ones warm up
            used[:] = 0.0, 0.0
            found = alternate(burst, raw_burst, ROUNDS)
    mine, theirs = (seconds / (ROUNDS * FRAMES * count) * 1e6 for seconds in used)
    return found, mine, theirs


def append_paced(writers: list[PffWriter], steps: int, per_second: float) -> None:
    data = [frames_of(200, writer.module_id) for writer in writers]
    began = time.monotonic()
    for step in range(steps):
        for writer, frames in zip(writers, data, strict=True):
            writer.write_raw(IMG16, frames[step % 200])
        time.sleep(max(0.0, began + (step + 1) / per_second - time.monotonic()))


def our_paced(count: int, per_second: int = PACED_RATE) -> tuple[float, float]:
    """Server CPU in µs per delivered frame, and the share of frames that were delivered, at a fixed rate."""
    steps = PACED_SECONDS * per_second
    with tempfile.TemporaryDirectory() as name, our_server(Path(name)) as (server, port):
        writer = PffWriter(run_folder(Path(name), 1, "2026-01-01T00:00:00Z"), 1)
        writer.write_raw(IMG16, frames_of(1)[0])
        with Clients(port, count, steps, True) as receiving:
            before = cpu_seconds(server.pid)
            append_paced([writer], steps, per_second)
            delivered = sum(r["count"] for r in receiving.reports())
            used = cpu_seconds(server.pid) - before
    return used / delivered * 1e6, delivered / (steps * count)


def raw_paced(count: int) -> float:
    port = free_port()
    frames = PACED_RATE * PACED_SECONDS
    with (
        running(sys.executable, READY_FRAMES, str(port), str(frames), str(PACED_RATE)) as server,
        Clients(port, count, frames, False) as receiving,
    ):
        before = cpu_seconds(server.pid)
        server.process.send_signal(signal.SIGUSR1)
        delivered = sum(r["count"] for r in receiving.reports())
        used = cpu_seconds(server.pid) - before
    return used / delivered * 1e6


def published_paced(python: str, count: int, per_second: int) -> tuple[float, float]:
    """What `our_paced` tells, of the published server, fed through its ingest socket."""
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
        with line, Clients(port, count, ENDLESS, False) as receiving:
            before = cpu_seconds(server.pid)
            began = time.monotonic()
            steps = per_second * PACED_SECONDS
            for step in range(steps):
                line.sendall(b"\0\1" + frames_of(200)[step % 200])
                time.sleep(max(0.0, began + step / per_second - time.monotonic()))
            used = cpu_seconds(server.pid) - before
            delivered = sum(r["count"] for r in receiving.end())
    return used / delivered * 1e6, delivered / (steps * count)


def published_python() -> str | None:
    """The environment that `make interop` built, or the one that is named."""
    named = os.environ.get("FIELDSTATION_PUBLISHED_STREAM")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldstation/interop"
    return named or next((f"{p}/bin/python" for p in cache.glob("panoseti-grpc-*") if (p / "complete").exists()), None)


def published_row(python: str, what: str, ours: float, per_second: int, raw: float | None = None) -> Row:
    theirs, share = published_paced(python, 8, per_second)
    limit = f"{theirs:.0f} µs, panoseti-grpc, {share:.0%} of {per_second}/s delivered"
    promise = f"<= 0.5; raw grpc.aio has {raw / theirs:.2f}" if raw is not None else "<= 0.5"
    return Row(what, f"{ours:.0f} µs", limit, ours / theirs, promise)


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
        with Clients(port, 8, ENDLESS, False):
            append_paced(writers, 200, 50)
            found = rss_mb(server.pid)
    return found


def full_speed() -> list[Row]:
    rows = []
    for count in (1, 8):
        (ours, limit, ratio), cpu, raw_cpu = rates(count)
        rows.append(
            Row(
                f"messages/s, files to {count} client(s), every frame",
                f"{ours:.0f}/s",
                f"{limit:.0f}/s, raw grpc.aio",
                ratio,
                ">= 0.7",
            )
        )
        what = f"server CPU per delivered frame, {count} client(s), as fast as it goes"
        promise = "<= 1.3" if count == 8 else ""
        rows.append(Row(what, f"{cpu:.0f} µs", f"{raw_cpu:.0f} µs, raw grpc.aio", cpu / raw_cpu, promise))
    if (python := published_python()) is not None:
        rows.append(published_row(python, "the same, against the published server as fast as it goes", cpu, FLOOD_RATE))
    return rows


def paced() -> list[Row]:
    fast = our_paced(1, 1000)[1]
    rows = [Row("share of 1,000 frames/s delivered to one client", f"{fast:.4f}", "1", fast, "1")]
    pairs = [(our_paced(8), raw_paced(8)) for _ in range(2)]
    ours = statistics.median(p[0][0] for p in pairs)
    limit = statistics.median(p[1] for p in pairs)
    ratio = statistics.median(p[0][0] / p[1] for p in pairs)
    what = f"server CPU per delivered frame, 8 clients at {PACED_RATE}/s"
    rows.append(Row(what, f"{ours:.0f} µs", f"{limit:.0f} µs, raw grpc.aio", ratio, "<= 1.3"))
    if (python := published_python()) is not None:
        rows.append(published_row(python, "the same, against the published server", ours, PACED_RATE, limit))
    share = min(p[0][1] for p in pairs)
    rows.append(Row(f"share of frames delivered, 8 clients at {PACED_RATE}/s", f"{share:.4f}", "1", share, "1"))
    return rows


def measure() -> list[Row]:
    rows = codec_rows(frames_of(1)[0], IMG16) + full_speed() + paced()
    # In a process of its own: one that has spoken gRPC itself should start no others.
    told = subprocess.run([sys.executable, __file__, "latency"], stdout=subprocess.PIPE, check=True).stdout
    half, most = json.loads(told)
    rows.append(
        Row("append to client, median and p99", f"{half:.2f} ms, {most:.2f} ms", "", None, "<= 1.5 ms, <= 6 ms idle")
    )
    rows.append(Row("RSS, 8 modules to 8 clients", f"{memory():.0f} MB", "", None, "< 80 MB"))
    return rows


if __name__ == "__main__":
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role == "client":
        asyncio.run(client(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"))
    elif role == "latency":
        print(json.dumps(latency()))
    else:
        main("stream", measure)
