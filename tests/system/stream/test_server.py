"""Our server and our clients over loopback: what is promised, and what is refused."""

import asyncio
import json
import os
import signal
import socket
import urllib.request

import grpc
import pytest
from click.testing import CliRunner

from fieldstation.cli.stream import stream as commands
from fieldstation.core.errors import FieldstationError
from fieldstation.stream.blocking import DaqDataClient
from fieldstation.stream.client import AioDaqDataClient
from fieldstation.stream.model import PRODUCTS
from fieldstation.stream.wire.codec import encode_image
from fieldstation.stream.wire.pb import daq_data_pb2 as pb
from fieldstation.testing import Authority, ServerProcess, ServerStartError, eventually, wait_for
from fieldstation.testing.frame_server import RunWriter, client_of, config_for
from fieldstation.testing.frames import frame, header, pixels, raw

pytestmark = pytest.mark.timeout(60)


async def take(frames, count, deadline_s=20):
    found = []
    async with asyncio.timeout(deadline_s):
        async for one in frames:
            found.append(one)
            if len(found) >= count:
                break
    await frames.aclose()
    return found


def seen(frames):
    return [(f.product, dict(f.header), f.pixels) for f in frames]


async def refusal(awaitable):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value.code().name, caught.value.details()


async def test_every_mode_delivers_each_frame_exactly_as_written(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir), "--metrics-port", "0") as server:
        async with client_of(server.host) as client:
            frames = await client.frames(every=True)
            await streaming(server)
            for number in range(1, 400):
                writer.write(number, product="ph256" if number % 2 else "img16")
            found = seen(await take(frames, 399))
            for product in ("ph256", "img16"):
                assert [f for f in found if f[0] == product] == [w for w in writer.written[1:] if w[0] == product]


async def streaming(server, clients=1):
    """Wait until the server streams to so many clients (it needs a metrics port): what is written now reaches them."""
    url = metrics_url(server)
    await eventually(lambda: metric(url, "stream_clients") == clients, 50)


async def test_history_then_live_without_a_gap_or_a_repetition(serve, data_dir):
    writer = RunWriter(data_dir, max_bytes=20_000)
    writer.write(*range(300))
    with serve("--data-dir", str(data_dir)) as server:
        async with client_of(server.host) as client:
            frames = await client.frames(every=True, history=True)

            async def write():
                for number in range(300, 900):
                    writer.write(number)
                    if number % 10 == 0:
                        await asyncio.sleep(0.001)

            writing = asyncio.create_task(write())
            found = await take(frames, 900)
            await writing
            assert [f.header["pkt_num"] for f in found] == list(range(900))
            assert seen(found) == writer.written


async def test_newest_wins_and_modules_do_not_starve_each_other(serve, data_dir):
    writers = [RunWriter(data_dir, module_id) for module_id in range(5)]
    for writer in writers:
        writer.write(0)
    with serve("--data-dir", str(data_dir), "--interval", "0.02") as server:
        async with client_of(server.host) as client:
            counts = dict.fromkeys(range(5), 0)
            frames = await client.frames(interval_s=0.02)
            stop = asyncio.Event()

            async def write():
                number = 0
                while not stop.is_set():
                    number += 4  # one quabo, so that one place per module is kept
                    for writer in writers:
                        writer.write(number)
                    await asyncio.sleep(0.002)

            writing = asyncio.create_task(write())
            for one in await take(frames, 300):
                counts[one.module_id] += 1
            stop.set()
            await writing
    # 60 each; a burst may find a module between two of its frames, and one that starves has a handful.
    assert min(counts.values()) >= 30, counts


async def test_an_interval_is_kept(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir), "--interval", "0.001") as server:
        async with client_of(server.host) as client:
            loop = asyncio.get_running_loop()
            times = []
            frames = await client.frames(interval_s=0.3)
            async for _ in frames:
                times.append(loop.time())
                writer.write(4 * len(times))
                if len(times) == 4:
                    break
            await frames.aclose()
    # Between the server's bursts; the receiver's clock adds its own jitter.
    assert times[-1] - times[0] >= 0.8


async def test_names_times_and_counters_are_filled(serve, data_dir):
    RunWriter(data_dir).write(0)
    with serve("--data-dir", str(data_dir), name="daq-7") as server:
        async with client_of(server.host, unparsed="response") as client:
            [response] = await take(client.stream_images(parse_pano_images=False), 1)
    assert response.name == "daq-7"
    assert response.timestamp.seconds > 1_700_000_000


async def test_a_slow_every_client_is_told_what_it_lost_and_others_lose_nothing(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    total = 6000
    with serve("--data-dir", str(data_dir), "--metrics-port", "0", every_mode_buffer=20_000) as server:
        metrics = metrics_url(server)
        async with client_of(server.host) as client, grpc.aio.insecure_channel(server.host) as channel:
            slow = channel.unary_stream("/daqdata.DaqData/StreamImages")(
                pb.StreamImagesRequest(stream_movie_data=True, stream_pulse_height_data=True).SerializeToString(),
                metadata=(("fieldstation-mode", "every"), ("fieldstation-buffer", "50")),
            )
            fast = await client.frames(every=True)
            await eventually(lambda: metric(metrics, 'stream_clients{mode="every"}') == 2)
            fast_frames = asyncio.create_task(take(fast, total, 40))
            for number in range(1, total + 1):
                writer.write(number, product="img16")
                if number % 200 == 0:
                    await asyncio.sleep(0.001)
            assert len(await fast_frames) == total
            # The slow one reads only now, until the server ends its stream.
            async with client_of(server.host) as other:
                reading = asyncio.create_task(drain(slow))
                await eventually(lambda: metric(metrics, "frames_sent_total") >= total + 50)
                await eventually(lambda: reading_is_quiet(metrics))
                await other.init_sim(timeout=15)
            received, notes, trailer = await reading
    assert int(trailer["fieldstation-produced"]) == total
    assert int(trailer["fieldstation-sent"]) == received
    assert int(trailer["fieldstation-dropped"]) == total - received
    assert received < total
    assert sum(int(note.partition(" ")[0]) for note in notes) <= total - received


_last_sent = {}


def reading_is_quiet(url):
    now = metric(url, "frames_sent_total")
    quiet = _last_sent.get(url) == now
    _last_sent[url] = now
    return quiet


async def drain(call):
    received, notes = 0, []

    async def read():
        nonlocal received
        async for message in call:
            received += 1
            text = pb.StreamImagesResponse.FromString(message).message
            if text:
                notes.append(text)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()
    assert caught.value.code() == grpc.StatusCode.CANCELLED
    return received, notes, dict(caught.value.trailing_metadata())


def metrics_url(server):
    line = wait_for(lambda: next((x for x in server.output.splitlines() if "/metrics" in x), None))
    return "http://" + line.partition("http://")[2]


def metric(url, name):
    text = urllib.request.urlopen(url, timeout=5).read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if name in line and line[0] != "#")


async def test_sent_plus_dropped_is_produced_in_the_metrics(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir), "--metrics-port", "0") as server:
        url = metrics_url(server)
        async with client_of(server.host) as client:
            frames = await client.frames(every=True)
            await eventually(lambda: metric(url, "stream_clients") == 1)
            writer.write(*range(1, 501))
            await take(frames, 500)
            await eventually(lambda: metric(url, "stream_clients") == 0)
        offered, sent, dropped = (metric(url, f"frames_{what}_total") for what in ("offered", "sent", "dropped"))
        assert offered == sent + dropped == 500


async def test_a_corrupt_frame_is_set_aside_and_counted_while_the_stream_goes_on(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir), "--metrics-port", "0") as server:
        url = metrics_url(server)
        async with client_of(server.host) as client:
            frames = await client.frames(every=True)
            await eventually(lambda: metric(url, "stream_clients") == 1)
            writer.write(1)
            writer.pff.write_raw(
                PRODUCTS["ph256"],
                b"{no json}\n\n*" + bytes(512),
            )
            writer.write(2, 3)
            assert [f.header["pkt_num"] for f in await take(frames, 3)] == [1, 2, 3]
            await eventually(lambda: metric(url, "stream_damaged_total") == 1)
            assert "set aside bytes" in server.output


async def test_roll_over_while_streaming_loses_nothing(serve, data_dir):
    writer = RunWriter(data_dir, max_bytes=5_000)
    writer.write(0)
    with serve("--data-dir", str(data_dir), "--metrics-port", "0") as server:
        url = metrics_url(server)
        async with client_of(server.host) as client:
            frames = await client.frames(every=True)
            await eventually(lambda: metric(url, "stream_clients") == 1)
            for number in range(1, 200):
                writer.write(number)
                await asyncio.sleep(0.001)
            found = await take(frames, 199)
    assert [f.header["pkt_num"] for f in found] == list(range(1, 200))
    assert len({f.file for f in found}) > 10


async def test_refusals_of_stream_images(serve, data_dir):
    with serve() as server:
        async with client_of(server.host) as client:
            for asked, code, words in [
                ({"stream_movie_data": False, "stream_pulse_height_data": False}, "INVALID_ARGUMENT", "both false"),
                ({}, "FAILED_PRECONDITION", "hp_io task is not valid"),
                ({"update_interval_seconds": float("nan")}, "INVALID_ARGUMENT", "update_interval_seconds"),
                ({"update_interval_seconds": float("inf")}, "INVALID_ARGUMENT", "update_interval_seconds"),
            ]:
                found = await refusal(take(client.stream_images(**asked), 1))
                assert found[0] == code
                assert words in found[1]
        async with grpc.aio.insecure_channel(server.host) as channel:
            for key, value in [("mode", "all"), ("history", "7"), ("buffer", "-1"), ("buffer", "x")]:
                metadata = (("fieldstation-mode", "every"),) if key != "mode" else ()
                call = channel.unary_stream("/daqdata.DaqData/StreamImages")(
                    b"\x08\x01", metadata=(*metadata, (f"fieldstation-{key}", value))
                )
                # The request is looked at before the source is asked for.
                code, details = await refusal(call.read())
                assert code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION"), details


async def test_an_unknown_module_gives_an_open_silent_stream(serve, data_dir):
    RunWriter(data_dir).write(0)
    with serve("--data-dir", str(data_dir)) as server:
        async with client_of(server.host) as client:
            with pytest.raises(TimeoutError):
                await take(client.frames(modules=[77]), 1, deadline_s=0.5)


async def test_refusals_of_init(serve, data_dir, tmp_path):
    a_file = tmp_path / "file"
    a_file.touch()
    with serve() as server:
        async with client_of(server.host) as client:
            for change, words in [
                ({"data_dir": str(tmp_path / "none")}, "does not exist"),
                ({"data_dir": ""}, "does not exist"),
                ({"data_dir": str(a_file)}, "is not a directory"),
                ({"update_interval_seconds": 0.0001}, "at least"),
                ({"update_interval_seconds": -1.0}, "at least"),
                ({"update_interval_seconds": float("nan")}, "number of seconds"),
            ]:
                config = {"data_dir": str(data_dir), "update_interval_seconds": 0.1} | change
                code, details = await refusal(client.init_hp_io(None, config))
                assert code == "INVALID_ARGUMENT"
                assert words in details
            assert await client.init_hp_io(None, {"data_dir": str(data_dir)})  # empty: the run may come later


async def test_an_init_needs_hashpipe_and_the_simulated_one_will_do(serve, data_dir):
    with serve(daq_process="hashpipe-of-nobody") as server:
        async with client_of(server.host) as client:
            code, details = await refusal(client.init_hp_io(None, {"data_dir": str(data_dir)}))
            assert code == "FAILED_PRECONDITION"
            assert "real DAQ software is not active" in details
    with serve(daq_process="hashpipe") as server:
        async with client_of(server.host) as client:
            hashpipe = ServerProcess(["fieldstation", "stream", "simulate", data_dir, "--rate", "50"])
            try:
                hashpipe.wait_ready()
                assert await client.init_hp_io(None, {"data_dir": str(data_dir), "force": True})
                assert len(await take(client.frames(), 6)) == 6
            finally:
                hashpipe.stop()


async def test_force_ends_streams_with_cancelled_and_a_queued_reader_is_served(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir)) as server:
        async with client_of(server.host) as client, grpc.aio.insecure_channel(server.host) as channel:
            call = channel.unary_stream("/daqdata.DaqData/StreamImages")(b"\x10\x01")
            await call.read()
            code, details = await refusal(client.init_hp_io(None, {"data_dir": str(data_dir), "force": False}))
            assert code == "FAILED_PRECONDITION"
            assert "1 StreamImages clients are active" in details
            assert "ipv4:127.0.0.1" in details
            assert await client.init_hp_io(None, {"data_dir": str(data_dir), "force": True})
            code, details = await refusal(drain_to_end(call))
            assert code == "CANCELLED"
            assert "forced reconfiguration of hp_io" in details
            assert len(await take(client.frames(), 1)) == 1


async def drain_to_end(call):
    while await call.read() is not grpc.aio.EOF:
        pass
    assert await call.code() != grpc.StatusCode.OK
    raise grpc.aio.AioRpcError(await call.code(), (), (), await call.details())


async def test_a_stalled_client_holds_neither_the_others_nor_a_forced_init(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir), "--interval", "0.001", "--metrics-port", "0") as server:
        async with client_of(server.host) as client, grpc.aio.insecure_channel(server.host) as channel:
            stalled = channel.unary_stream("/daqdata.DaqData/StreamImages")(
                b"\x08\x01\x10\x01", metadata=(("fieldstation-mode", "every"),)
            )
            frames = await client.frames(every=True)
            await streaming(server, 2)
            for number in range(1, 1501):
                writer.write(number, product="img16")
            assert len(await take(frames, 1500)) == 1500
            await eventually(lambda: client.ping(server.host))
            assert await client.init_hp_io(None, {"data_dir": str(data_dir), "force": True}, timeout=8)
            stalled.cancel()


async def test_a_hundred_clients_and_not_one_more(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir), "--interval", "0.01", "--metrics-port", "0") as server:
        url = metrics_url(server)
        async with client_of(server.host) as client:
            streams = [await client.frames(every=True) for _ in range(100)]
            await eventually(lambda: metric(url, "stream_clients") == 100)
            assert (await refusal(take(client.frames(), 1)))[0] == "RESOURCE_EXHAUSTED"
            writer.write(*range(1, 21))
            for found in await asyncio.gather(*(take(stream, 20, 40) for stream in streams)):
                assert [f.header["pkt_num"] for f in found] == list(range(1, 21))
            await eventually(lambda: metric(url, "stream_clients") == 0)


async def test_a_client_that_is_killed_frees_its_slot(serve, data_dir):
    RunWriter(data_dir).write(0)
    with serve("--data-dir", str(data_dir), "--metrics-port", "0") as server:
        url = metrics_url(server)
        victim = ServerProcess(["fieldstation", "stream", "record", data_dir.parent / "rec", "--host", server.host])
        await eventually(lambda: metric(url, "stream_clients") == 1)
        victim.kill()
        await eventually(lambda: metric(url, "stream_clients") == 0)


async def test_uploads_reach_whoever_asked_for_them(serve):
    images = [pb.PanoImage.FromString(encode_image(frame("ph1024", n, 999, "mine"))) for n in range(3)]
    with serve("--simulate", "--metrics-port", "0") as server:
        async with client_of(server.host) as client:
            frames = await client.frames(every=True, modules=[999])
            await streaming(server)
            await client.upload_images(None, images)
            found = await take(frames, 3)
            assert [(f.module_id, f.file, f.number) for f in found] == [(999, "mine", n) for n in range(3)]
            assert seen(found) == [("ph1024", header("ph1024", n), pixels("ph1024", n)) for n in range(3)]


async def test_wrong_uploads_are_refused_and_the_server_goes_on(serve):
    def image(**change):
        base = {"type": 2, "shape": [16, 16], "bytes_per_pixel": 1, "image_array": [1] * 256, "module_id": 5}
        return pb.PanoImage(**(base | change))

    with serve() as server:
        async with client_of(server.host) as client:
            assert (await refusal(client.upload_images(None, [image()])))[0] == "FAILED_PRECONDITION"
            await client.init_sim(timeout=15)
            for change, words in [
                ({"image_array": [1] * 255}, "image 0"),
                ({"shape": [4, 64]}, "shape"),
                ({"shape": [256]}, "shape"),
                ({"bytes_per_pixel": 3}, "bytes_per_pixel"),
                ({"bytes_per_pixel": 0}, "bytes_per_pixel"),
                ({"image_array": [300] * 256}, "255"),
                ({"image_array": [70000] * 256, "bytes_per_pixel": 2}, "65535"),
                ({"type": 9}, "9"),
            ]:
                code, details = await refusal(client.upload_images(None, [image(**change)]))
                assert code == "INVALID_ARGUMENT", change
                assert words in details
            flood = [image(module_id=n) for n in range(1100)]
            assert (await refusal(client.upload_images(None, flood)))[0] == "RESOURCE_EXHAUSTED"
            assert await client.ping(server.host)


async def test_the_ingest_socket_streams_what_hashpipe_sends(serve, tmp_path):
    template = str(tmp_path / "dp_{dp_name}.sock")
    methods = {"filesystem_poll": {"enabled": False}, "uds": {"enabled": True, "socket_path_template": template}}
    with serve("--metrics-port", "0", acquisition_methods=methods) as server:
        async with client_of(server.host) as client:
            assert await client.init_hp_io(None, {"data_dir": str(tmp_path)})
            frames = await client.frames(every=True)
            await streaming(server)
            with socket.socket(socket.AF_UNIX) as hashpipe:
                hashpipe.connect(template.format(dp_name="ph256"))
                hashpipe.sendall(b"".join(b"\x01\x02" + raw("ph256", n) for n in range(50)))
                found = await take(frames, 50)
    assert [(f.module_id, f.file, f.number, f.header["pkt_num"]) for f in found] == [
        (258, "uds_ph256", n, n) for n in range(50)
    ]


async def test_ten_modules_with_empty_files_start_at_once(serve, data_dir):
    for module_id in range(10):
        RunWriter(data_dir, module_id)
    with serve() as server:
        async with client_of(server.host) as client:
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await client.init_hp_io(None, {"data_dir": str(data_dir)})
            assert loop.time() - began < 5  # it took two seconds for each module


@pytest.mark.needs("mount")
async def test_a_disk_that_is_unmounted_and_comes_back(serve, tmp_path):
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=False).returncode != 0:
        pytest.fail("this test mounts a disk: run it as root with CAP_SYS_ADMIN")
    try:
        writer = RunWriter(disk)
        writer.write(0, 1)
        with serve("--data-dir", str(disk), "--metrics-port", "0") as server:
            url = metrics_url(server)
            async with client_of(server.host) as client:
                frames = await client.frames(every=True)
                await eventually(lambda: metric(url, "stream_clients") == 1)
                writer.write(2)
                assert len(await take_from(frames, 1)) == 1
                subprocess.run(["umount", "-l", disk], check=True)  # files are open, so it goes lazily
                await eventually(lambda: metric(url, "stream_ok") == 0)
                assert await client.ping(server.host)
                subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
                again = RunWriter(disk, run="obs_T.start_2026-01-02T00:00:00Z.runtype_sci-data.pffd")
                again.write(7, 8, 9)
                found = await take_from(frames, 3)
                assert [f.header["pkt_num"] for f in found] == [7, 8, 9]
    finally:
        for _ in range(3):
            subprocess.run(["umount", "-l", disk], check=False, capture_output=True)


async def take_from(frames, count):
    found = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found.append(await anext(frames))
    return found


async def test_reflection_names_all_methods(serve):
    with serve() as server:
        async with client_of(server.host) as client:
            text = await client.reflect_services()
            assert "found services: ['daqdata.DaqData', 'grpc.reflection.v1alpha.ServerReflection']" in text
            for line in (
                "rpc StreamImages(StreamImagesRequest) returns ([magenta]stream[/magenta] StreamImagesResponse)",
                "rpc InitHpIo(InitHpIoRequest) returns (InitHpIoResponse)",
                "rpc Ping(Empty) returns (Empty)",
                "rpc UploadImages([magenta]stream[/magenta] UploadImageRequest) returns (Empty)",
            ):
                assert line in text
        async with grpc.aio.insecure_channel(server.host) as channel:
            from grpc_reflection.v1alpha import reflection_pb2 as r

            call = channel.stream_stream(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                r.ServerReflectionRequest.SerializeToString,
                r.ServerReflectionResponse.FromString,
            )()
            await call.write(r.ServerReflectionRequest(list_services=""))
            assert (await call.read()).list_services_response.service[0].name == "daqdata.DaqData"
            call.cancel()


def test_the_blocking_client(serve, data_dir):
    writer = RunWriter(data_dir)
    writer.write(0)
    with serve("--data-dir", str(data_dir)) as server, DaqDataClient(config_for(server.host)) as client:
        assert client.get_valid_daq_hosts() == {server.host}
        assert client.ping(server.host)
        assert not client.ping("nobody")
        assert client.get_daq_host_status() == {server.host: True}
        images = client.stream_images(update_interval_seconds=0.01)
        assert next(images)["header"]["pkt_num"] == 0
        writer.write(4)
        assert next(images)["header"]["pkt_num"] == 4
        assert client.init_hp_io(None, {"data_dir": "/nowhere"}) is False
        assert client.init_hp_io(hp_io_cfg={"data_dir": str(data_dir), "force": True})
        with pytest.raises(grpc.RpcError) as caught:
            next(images)
        assert caught.value.code() == grpc.StatusCode.CANCELLED
        assert next(client.frames(every=True, history=True)).number == 0
        with pytest.raises(ConnectionError):
            client.stream_images("nobody")


async def test_one_silent_host_does_not_hold_the_others(serve, data_dir):
    silent, busy = data_dir / "silent", data_dir / "busy"
    silent.mkdir()
    busy.mkdir()
    writer = RunWriter(busy)
    writer.write(0)
    with serve("--data-dir", str(silent)) as first, serve("--data-dir", str(busy)) as second:
        async with client_of(first.host, second.host) as client:
            assert len(await take(client.frames(), 1)) == 1


async def test_a_stop_event_ends_the_stream_within_a_second(serve, data_dir):
    stop = asyncio.Event()
    with serve("--data-dir", str(data_dir)) as server:
        async with AioDaqDataClient(config_for(server.host), None, stop) as client:
            stream = client.stream_images()
            asyncio.get_running_loop().call_later(0.2, stop.set)
            async with asyncio.timeout(5):
                assert [image async for image in stream] == []


async def test_a_server_that_stops_ends_streams_and_removes_its_socket(serve, data_dir, tmp_path):
    RunWriter(data_dir).write(0)
    path = tmp_path / "daq.sock"
    with serve("--data-dir", str(data_dir), "--unix-socket", f"unix://{path}") as server:
        assert path.stat().st_mode & 0o777 == 0o660
        async with AioDaqDataClient({"daq_nodes": [{"ip_addr": f"unix://{path}"}]}) as client:
            frames = await client.frames()
            assert len(await take_from(frames, 1)) == 1
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait, 10) == 0
            assert [one async for one in frames] == []
    assert not path.exists()


def test_what_a_server_refuses_to_start_with(serve, data_dir, tmp_path):
    with serve() as server:
        for options, words in [
            (["--port", str(server.port)], "it is in use"),
            (["--port", "0", "--host", "0.0.0.0"], "--insecure"),
            (["--port", "0", "--data-dir", str(tmp_path / "none")], "does not exist"),
            (["--port", "0", "--config", str(tmp_path / "none.toml")], "cannot be read"),
            (["--port", "0", "--unix-socket", f"unix://{data_dir}"], "no socket"),
            (["--port", "0", "--tls-certificate", "/none", "--tls-key", "/none"], "PEM file"),
        ]:
            # In this process, which is quicker.
            done = CliRunner().invoke(commands, ["serve", *options])
            assert isinstance(done.exception, FieldstationError), done.output
            assert words in str(done.exception)
        with pytest.raises(ServerStartError, match="it is in use") as caught:
            ServerProcess(["fieldstation", "stream", "serve", "--port", str(server.port)]).wait_ready()
        assert "Traceback" not in str(caught.value)


async def test_tokens_roles_and_the_local_socket(serve, data_dir, tmp_path):
    from fieldstation.core.security import Role, TokenFile

    tokens = TokenFile(tmp_path / "tokens.json")
    viewer, operator = tokens.add("vera", Role.VIEWER), tokens.add("oscar", Role.OPERATOR)
    RunWriter(data_dir).write(0)
    path = tmp_path / "local.sock"
    options = ["--token-file", str(tokens.path), "--unix-socket", f"unix://{path}"]
    with serve("--data-dir", str(data_dir), "--host", "127.0.0.1", *options) as server:
        async with client_of(server.host) as stranger:
            assert not await stranger.ping(server.host)
        async with client_of(server.host, token="fst_wrong") as wrong:
            assert not await wrong.ping(server.host)
        async with client_of(server.host, token=viewer) as client:
            assert len(await take(client.frames(), 1)) == 1
            assert "daqdata.DaqData" in await client.reflect_services()
            code, details = await refusal(client.init_sim())
            assert code == "PERMISSION_DENIED"
            assert "vera has the role viewer" in details
        async with client_of(server.host, token=operator) as client:
            assert await client.init_sim(timeout=15)
        async with AioDaqDataClient({"daq_nodes": [{"ip_addr": f"unix://{path}"}]}) as local:
            assert await local.init_sim(timeout=15)
        tokens.revoke("vera")
        async with client_of(server.host, token=viewer) as client:
            assert not await client.ping(server.host)
        assert viewer not in server.output


@pytest.mark.needs("openssl")
async def test_tls(serve, data_dir, tmp_path):
    ca = Authority(tmp_path / "ca")
    certificate, key = ca.issue("server")
    RunWriter(data_dir).write(0)
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    with serve("--data-dir", str(data_dir), *options) as server:
        assert server.url.startswith("https://")
        async with client_of(server.host, ca=ca.certificate) as client:
            assert len(await take(client.frames(), 1)) == 1
        async with client_of(server.host) as plain:
            assert list(plain.valid_daq_hosts) == []


def test_malformed_bytes_and_unknown_methods_are_errors_and_the_server_goes_on(serve):
    with serve() as server, grpc.insecure_channel(server.host) as channel:
        with pytest.raises(grpc.RpcError):
            list(channel.unary_stream("/daqdata.DaqData/StreamImages")(b"\xff\xff\xff"))
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/daqdata.DaqData/Nothing")(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        channel.unary_unary("/daqdata.DaqData/Ping")(b"")
    with socket.socket() as line, serve() as server:
        line.connect(("127.0.0.1", server.port))
        line.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 10_000)
        with grpc.insecure_channel(server.host) as channel:
            channel.unary_unary("/daqdata.DaqData/Ping")(b"")


def test_json_listing(serve):
    import subprocess
    import sys

    with serve() as server:
        done = subprocess.run(
            [sys.executable, "-m", "fieldstation", "stream", "hosts", "--json", "--host", server.host],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout) == {server.host: True}
