"""Unmodified published clients against our server; our clients against the published server."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from fieldstation.stream.blocking import DaqDataClient
from fieldstation.stream.client import AioDaqDataClient
from fieldstation.stream.pff import parse_name
from fieldstation.testing import free_port, running
from fieldstation.testing.frame_server import RunWriter
from fieldstation.testing.frames import header, pixels, recorded

pytestmark = pytest.mark.timeout(120)

REAL = recorded()


class Feeding:
    """Writes frames all the time, so that there is something new to stream."""

    def __init__(self, *writers, products=("img16", "ph256")):
        self._writers, self._products = writers, products
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self):
        number = 0
        while not self._stop.is_set():
            for writer in self._writers:
                for product in self._products:
                    writer.write(number, product=product)
            number += 1
            time.sleep(0.01)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        for writer in self._writers:
            writer.pff.close()


def assert_exact(frames):
    """Each frame is bit for bit what was written under its number."""
    for one in frames:
        product = parse_name(one["file"]).product
        expected = header(product.name, one["frame_number"])
        assert one["header"] == expected
        assert bytes.fromhex(one["pixels"]) == pixels(product.name, one["frame_number"])
        assert one["shape"] == list(product.shape)
        assert one["dtype"] == product.dtype.name


def test_ping_hosts_and_reflection(client):
    seen = client.run("look")
    assert seen["hosts"] == ["127.0.0.1"]
    assert seen["ping"]
    assert list(seen["status"].values()) == [True]
    for method in ("StreamImages", "InitHpIo", "Ping", "UploadImages"):
        assert f"rpc {method}(" in seen["services"]


def test_init_stream_and_compare_every_pixel_and_header(client, data_dir):
    writers = [RunWriter(data_dir, module_id) for module_id in (1, 3)]
    with Feeding(*writers):
        options = {"update_interval_seconds": 0.01, "simulate_daq": False, "force": True, "module_ids": []}
        assert client.run("init", node_data_dir=str(data_dir), data_dir=str(data_dir), **options)
        for command in ("stream", "astream"):
            frames = client.run(
                command, count=60, stream_movie_data=True, stream_pulse_height_data=True, update_interval_seconds=0.02
            )
            assert_exact(frames)
            assert {(f["module_id"], f["type"]) for f in frames} == {
                (m, kind) for m in (1, 3) for kind in ("MOVIE", "PULSE_HEIGHT")
            }
            assert all("wr_unix_timestamp" in f["times"] for f in frames)


def test_filters_of_class_and_module(client, data_dir):
    with Feeding(*[RunWriter(data_dir, module_id) for module_id in (1, 2, 3)]):
        options = {"update_interval_seconds": 0.01, "simulate_daq": False, "force": True, "module_ids": []}
        assert client.run("init", node_data_dir=str(data_dir), **options)
        movies = client.run(
            "stream", count=10, stream_movie_data=True, stream_pulse_height_data=False, update_interval_seconds=0.01,
            module_ids=[2],
        )  # fmt: skip
        assert {(f["module_id"], f["type"]) for f in movies} == {(2, "MOVIE")}
        # A whitelist in the init restricts everybody.
        assert client.run("init", node_data_dir=str(data_dir), **(options | {"module_ids": [3]}))
        frames = client.run(
            "stream", count=10, stream_movie_data=True, stream_pulse_height_data=True, update_interval_seconds=0.01
        )
        assert {f["module_id"] for f in frames} == {3}


def test_an_interval_is_kept(client, data_dir):
    with Feeding(RunWriter(data_dir), products=("img16",)):
        options = {"update_interval_seconds": 0.01, "simulate_daq": False, "force": True, "module_ids": []}
        assert client.run("init", node_data_dir=str(data_dir), **options)
        began = time.monotonic()
        client.run(
            "stream", count=6, stream_movie_data=True, stream_pulse_height_data=False, update_interval_seconds=0.5
        )
        assert time.monotonic() - began >= 2.4


def test_force_and_its_absence(client, data_dir):
    with Feeding(RunWriter(data_dir)):
        options = {"update_interval_seconds": 0.01, "simulate_daq": False, "module_ids": []}
        assert client.run("init", node_data_dir=str(data_dir), force=False, **options)
        stream = client.start(
            "astream", count=10**9, stream_movie_data=True, stream_pulse_height_data=True, update_interval_seconds=0.1
        )
        assert stream.stdout.readline() == "streaming\n"
        deadline = time.monotonic() + 20
        # Refused as soon as the stream is there; the published client turns the refusal into False.
        while client.run("init", node_data_dir=str(data_dir), force=False, **options):
            assert time.monotonic() < deadline
        assert stream.poll() is None
        assert client.run("init", node_data_dir=str(data_dir), force=True, **options)
        client.end(stream)  # the async client ends quietly on CANCELLED


def test_init_refusals_are_false(client, data_dir):
    options = {"simulate_daq": False, "force": True, "module_ids": []}
    assert client.run("init", node_data_dir=str(data_dir / "none"), update_interval_seconds=0.1, **options) is False
    assert client.run("init", node_data_dir=str(data_dir), update_interval_seconds=0.00001, **options) is False


def test_the_simulation(client):
    assert client.run("init_sim")
    frames = client.run(
        "stream", count=8, stream_movie_data=True, stream_pulse_height_data=True, update_interval_seconds=0.1
    )
    assert {f["module_id"] for f in frames} == {224}
    assert {f["type"] for f in frames} == {"MOVIE", "PULSE_HEIGHT"}


def test_eight_clients_at_once(client, data_dir):
    with Feeding(*[RunWriter(data_dir, module_id) for module_id in range(4)]):
        options = {"update_interval_seconds": 0.01, "simulate_daq": False, "force": True, "module_ids": []}
        assert client.run("init", node_data_dir=str(data_dir), **options)
        started = [
            client.start(
                "stream", count=40, stream_movie_data=True, stream_pulse_height_data=True, update_interval_seconds=0.05
            )
            for _ in range(8)
        ]
        for process in started:
            frames = client.end(process)
            assert len(frames) == 40
            assert_exact(frames)


@pytest.mark.skipif(REAL is None, reason="the real observing data are not on this machine")
def test_real_observing_data(client):
    options = {"update_interval_seconds": 0.01, "simulate_daq": False, "force": True, "module_ids": []}
    assert client.run("init", node_data_dir=str(REAL), **options)
    frames = client.run(
        "stream", count=3, stream_movie_data=True, stream_pulse_height_data=True, update_interval_seconds=1
    )
    for one in frames:
        path = REAL / one["file"]
        product = parse_name(path.name).product
        size = path.stat().st_size // 600
        data = path.read_bytes()[one["frame_number"] * size : (one["frame_number"] + 1) * size]
        assert bytes.fromhex(one["pixels"]) == data[-product.image_bytes :]
        assert one["header"] == json.loads(data[: data.index(b"\n\n")])


@pytest.fixture
def published_server(published, tmp_path):
    port = free_port()
    script = Path(__file__).with_name("published_server.py")
    with running(published, script, str(port), str(tmp_path), deadline_s=60) as server:
        server.port = port
        yield server


def test_our_blocking_client_streams_from_the_published_server(published_server):
    with DaqDataClient({"daq_nodes": [{"ip_addr": f"127.0.0.1:{published_server.port}"}]}) as client:
        assert len(client.get_valid_daq_hosts()) == 1
        assert "rpc StreamImages(" in client.reflect_services()
        assert client.init_sim()
        images = client.stream_images(update_interval_seconds=0.05)
        found = [next(images) for _ in range(10)]
        images.close()
        assert {image["type"] for image in found} == {"MOVIE", "PULSE_HEIGHT"}
        assert {image["image_array"].shape for image in found} == {(32, 32), (16, 16)}
        assert found[0]["header"]["pandas_unix_timestamp"].year == 2024


async def test_our_async_client_streams_from_and_uploads_to_the_published_server(published_server):
    from fieldstation.stream.wire.codec import encode_image
    from fieldstation.stream.wire.pb import daq_data_pb2 as pb
    from fieldstation.testing.frames import frame

    original = frame("ph1024", 5, 7, "mine")
    async with AioDaqDataClient({"daq_nodes": [{"ip_addr": f"127.0.0.1:{published_server.port}"}]}) as client:
        assert await client.init_sim(timeout=15)
        async with asyncio.timeout(30):
            frames = await client.frames(modules=[7])
            uploads = asyncio.create_task(upload(client, [pb.PanoImage.FromString(encode_image(original))]))
            assert await anext(frames) == original
            uploads.cancel()
            await frames.aclose()
            # Every-frame mode is ours; the published server answers as ever.
            typed = await client.frames(every=True)
            assert (await anext(typed)).product in ("img16", "ph256")


async def upload(client, images):
    while True:
        await client.upload_images(None, images)
        await asyncio.sleep(0.1)
