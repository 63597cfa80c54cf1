"""Simulated frames by each documented way, and the status FIFO that a real Hashpipe writes to."""

import asyncio
import os

import pytest

from fieldstation.stream.compose import StreamServer
from fieldstation.stream.config import ServerConfig
from fieldstation.stream.errors import SocketTakenError, StreamError
from fieldstation.stream.model import HpIo
from fieldstation.stream.sources.ingest import free_socket
from fieldstation.stream.sources.inotify import Inotify
from fieldstation.stream.sources.pff import PffSource
from fieldstation.testing import eventually
from fieldstation.testing.frame_server import RUN, RunWriter, client_of

pytestmark = pytest.mark.timeout(60)


def simulation(folder, mode, **strategy):
    """A server that simulates modules 3 and 7, with everything it makes below `folder`."""
    return StreamServer(
        ServerConfig.model_validate(
            {
                "port": 0,
                "simulate": True,
                "unix_domain_socket": f"unix://{folder}/daq.sock",
                "acquisition_methods": {"uds": {"socket_path_template": f"{folder}/{{dp_name}}.sock"}},
                "shutdown_grace_period": 0,
                "simulate_daq_cfg": {
                    "simulation_mode": mode,
                    "sim_module_ids": [3, 7],
                    "update_interval_seconds": 0.01,
                    "filesystem_cfg": {"sim_data_dir": f"{folder}/data"},
                    "strategies": {mode: strategy},
                },
            }
        )
    )


@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ("filesystem_poll", ".dp_{}."),
        ("filesystem_pipe", ".dp_{}."),
        ("uds", "uds_{}"),
        ("rpc", "rpc_sim_{}.pff"),
    ],
)
async def test_simulated_frames_come_by_the_way_that_the_mode_names(tmp_path, mode, files):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    server = simulation(tmp_path, mode)
    await server.start()
    try:
        if mode.startswith("filesystem"):
            assert (tmp_path / "data/module_3.daq-active").exists()
        numbers = {}
        async with client_of(f"unix://{tmp_path}/daq.sock") as client:
            frames = await client.frames(every=True)
            async for frame in frames:
                assert files.format(frame.product) in frame.file
                numbers.setdefault((frame.module_id, frame.product), []).append(frame.number)
                if len(numbers) == 4 and min(map(len, numbers.values())) == 3:
                    break
            await frames.aclose()
    finally:
        await server.stop()
    assert set(numbers) == {(module, product) for module in (3, 7) for product in ("img16", "ph256")}
    if mode != "uds":  # there a number counts the frames of a connection, whatever their module
        assert all(found == list(range(found[0], found[0] + len(found))) for found in numbers.values())
    # What it wrote is gone, what others wrote is not.
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [tmp_path / "data/mine"]


async def test_a_simulation_rolls_over_and_ends_after_its_limit(tmp_path):
    server = simulation(tmp_path, "filesystem_poll", frames_per_pff=5, frame_limit=12)
    await server.start()
    try:
        folder = tmp_path / "data/module_3/obs_SIMULATE"

        def movies():
            return sorted(path.stat().st_size for path in folder.glob("*.dp_img16.*.pff"))

        await eventually(lambda: sum(movies()) == 13 * 2540)  # one is written before the server says that it is ready
        await eventually(lambda: server.hub.newest)
        assert len(movies()) == 3
    finally:
        await server.stop()


async def test_uploads_need_a_socket_and_two_servers_do_not_share_one(tmp_path):
    server = StreamServer(ServerConfig(port=0, simulate=True, simulate_daq_cfg={"simulation_mode": "rpc"}))
    with pytest.raises(StreamError, match="Set unix_domain_socket"):
        await server.start()
    await server.stop()
    listening = await asyncio.start_unix_server(lambda reader, writer: writer.close(), tmp_path / "s")
    with pytest.raises(SocketTakenError, match="another server listens there"):
        free_socket(tmp_path / "s")
    listening.close()
    free_socket(tmp_path / "s")  # stale now
    assert not (tmp_path / "s").exists()


async def test_the_status_fifo_alone_brings_new_frames(data_dir, monkeypatch):
    # Blind to everything else: no notice of the kernel, no sweep, no second scan.
    monkeypatch.setattr(Inotify, "watch", lambda self, folder: False)
    monkeypatch.setattr("fieldstation.stream.sources.pff.SWEEP_S", 3600)
    monkeypatch.setattr("fieldstation.stream.sources.pff.RESCAN_S", 3600)
    writer = RunWriter(data_dir)
    writer.write(0)
    fifo = data_dir / "module_1" / RUN / "read_status_2"
    os.mkfifo(fifo)
    got = []
    source = PffSource(HpIo(str(data_dir), 0.01), status_pipe="read_status_2")
    await source.start(got.extend)
    try:
        hashpipe = await eventually(lambda: opened(fifo))
        for number in (1, 2):
            writer.write(number)
            os.write(hashpipe, b"ph256     ")
            await eventually(lambda number=number: got[-1].number == number)
        os.close(hashpipe)  # a writer that goes away and comes back
        hashpipe = await eventually(lambda: opened(fifo))
        writer.write(3)
        os.write(hashpipe, b"ph256     ")
        await eventually(lambda: got[-1].number == 3)
        os.close(hashpipe)
    finally:
        await source.stop()


def opened(fifo):
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None  # nobody reads it yet
