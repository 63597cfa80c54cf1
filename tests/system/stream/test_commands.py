"""The command line as people use it: simulate, serve, record, replay, check, convert, view, and the documented one."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fieldstation.cli.stream import stream as commands
from fieldstation.core.errors import FieldstationError
from fieldstation.stream.convert import load
from fieldstation.stream.files import PffFile, pff_files
from fieldstation.testing import ServerProcess, eventually, running
from fieldstation.testing.frame_server import RunWriter, client_of

pytestmark = pytest.mark.timeout(180)


def fieldstation(*words, module="fieldstation", cwd=None):
    command = [sys.executable, "-m", module, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=80, cwd=cwd)


def stream(*words):
    return fieldstation("stream", *words)


def frames_in(folder):
    found = {}
    for path, name in pff_files(Path(folder)):
        with PffFile(path) as file:
            found.setdefault((name.module_id, name.product.name), []).extend((f.header, f.pixels) for f in file)
    return {key: frames for key, frames in found.items() if frames}


def test_a_simulated_run_has_modules_products_roll_over_and_damage(tmp_path):
    with running(
        "fieldstation", "stream", "simulate", tmp_path / "d", "--module", "1", "--module", "2", "--product", "img8",
        "--product", "ph1024", "--rate", "1000", "--frames", "400", "--max-file-size-mb", "0.2", "--damage", "0.05",
    ) as hashpipe:  # fmt: skip
        assert hashpipe.wait(60) == 0
    assert {key: len(frames) for key, frames in frames_in(tmp_path / "d").items()} == {
        (module, product): 400 for module in (1, 2) for product in ("img8", "ph1024")
    }
    done = stream("check", tmp_path / "d", "--json")
    assert done.returncode == 1  # because of the damage
    reports = json.loads(done.stdout)
    assert sum(report["frames"] for report in reports) == 1600
    assert sum(len(report["damaged"]) for report in reports) > 5
    assert len(reports) > 8


def test_what_was_recorded_from_a_live_run_is_what_was_written_and_replays_as_such(tmp_path):
    data = tmp_path / "data"
    with running("fieldstation", "stream", "simulate", data, "--rate", "200", "--frames", "500") as hashpipe:
        with running("fieldstation", "stream", "serve", "--port", "0", "--data-dir", data) as server:
            host = server.url.removeprefix("http://")
            done = stream("record", tmp_path / "rec", "--host", host, "--history", "--frames", "1000")
            assert done.stdout == f"1000 frames in {tmp_path / 'rec'}\n", done.stderr
        hashpipe.wait(60)
    written = frames_in(data)
    assert frames_in(tmp_path / "rec") == written
    with running("fieldstation", "stream", "replay", tmp_path / "rec", "--speed", "50", "--port", "0") as server:
        host = server.url.removeprefix("http://")
        done = stream("record", tmp_path / "again.zarr", "--format", "zarr", "--host", host, "--frames", "1000")
        assert done.returncode == 0, done.stderr
    again = {}
    for frame in load(tmp_path / "again.zarr"):
        again.setdefault((frame.module_id, frame.product), []).append((frame.header, frame.pixels))
    assert again == written


async def test_a_replay_keeps_the_pace_of_the_record(tmp_path):
    # Two seconds of camera time at double speed.
    data = tmp_path / "data"
    hashpipe = ServerProcess(["fieldstation", "stream", "simulate", data, "--rate", "50", "--frames", "100"])
    hashpipe.wait_ready()
    assert await asyncio.to_thread(hashpipe.wait, 60) == 0
    with running("fieldstation", "stream", "replay", data, "--speed", "2", "--port", "0") as server:
        async with client_of(server.url.removeprefix("http://")) as client:
            loop = asyncio.get_running_loop()
            times = []
            frames = await client.frames(every=True, pulse_height=False)
            async for _ in frames:
                times.append(loop.time())
                if len(times) == 100:
                    break
            await frames.aclose()
    assert times[-1] - times[0] >= 0.8  # it cannot be faster than its pace; how much slower is the machine's affair


def test_nothing_is_overwritten_and_wrong_words_are_one_sentence(tmp_path):
    RunWriter(tmp_path / "d").write(1)
    (tmp_path / "x.npz").touch()
    for words, sentence in [
        (("record", tmp_path / "new", "--host", "127.0.0.1:1"), "does not answer a ping"),
        (("convert", tmp_path / "d", tmp_path / "x.npz"), "exists already"),
        (("convert", tmp_path / "none", tmp_path / "y.npz"), "does not exist"),
        (("check", tmp_path / "none"), "does not exist"),
        (("init", tmp_path / "none.json"), "cannot be read"),
        (("replay", tmp_path, "--port", "0"), "no frame to replay"),
        (("view", "--host", "127.0.0.1:1", "--out", tmp_path / "x.png"), "does not answer a ping"),
    ]:
        # In this process, which is quicker; what the command makes of the error is the same for all.
        done = CliRunner().invoke(commands, [str(word) for word in words])
        assert isinstance(done.exception, FieldstationError), (words, done.output)
        assert sentence in str(done.exception)
    done = stream("record", tmp_path / "d", "--host", "127.0.0.1:1")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("fieldstation: ")
    assert "not an empty folder" in last or "does not answer a ping" in last
    assert "Traceback" not in done.stderr


async def test_pictures_without_a_screen(tmp_path):
    with running("fieldstation", "stream", "serve", "--port", "0", "--simulate") as server:
        host = server.url.removeprefix("http://")
        # Few drawings, each takes tenths of a second; and in this process, which loads matplotlib once.
        for command, out, *options in (
            ("view", "view.png", "--frames", "4", "--refresh-period", "0.2"),
            ("phdist", "heights.gif", "--frames", "10", "--refresh-period", "30", "--duration", "10"),
        ):
            words = [command, "--host", host, "--out", str(tmp_path / out), *options]
            done = await asyncio.to_thread(CliRunner().invoke, commands, words)
            assert done.exit_code == 0, done.output
            assert (tmp_path / out).stat().st_size > 5000


def test_the_documented_command_line(tmp_path):
    with running("fieldstation", "stream", "serve", "--port", "0") as server:
        host = server.url.removeprefix("http://")
        daq, network = tmp_path / "daq_config.json", tmp_path / "network_config.json"
        daq.write_text(json.dumps({"daq_nodes": [{"ip_addr": host, "data_dir": str(tmp_path)}]}))
        network.write_text(json.dumps({"daq_nodes": [{"ip_addr": host, "port_forwarding": {"status": False}}]}))
        hp_io = tmp_path / "hp_io_config.json"
        hp_io.write_text(json.dumps({"data_dir": "x", "update_interval_seconds": 0.1, "simulate_daq": True}))

        def cli(*flags):
            return fieldstation(daq, network, *flags, module="fieldstation.stream.cli", cwd=tmp_path)

        done = cli("--host", host, "--ping", "--list-hosts", "--reflect-services", "--init", hp_io, "--init-sim")
        assert done.returncode == 0, done.stderr
        words = [f"PING host='{host}': success", "True", "rpc StreamImages", "init: success", "init_sim: success"]
        places = [done.stdout.index(word) for word in words]
        assert places == sorted(places)  # the documented order
        assert "--ping needs --host" in cli("--ping").stderr
        assert "not a valid host" in cli("--host", "nobody", "--plot-view").stderr
        assert "--plot-phdist" in cli("-h").stdout
        daq.write_text(json.dumps({"daq_nodes": [{"ip_addr": "127.0.0.1:1"}]}))
        done = cli("--plot-speed")
        assert done.returncode == 1
        assert done.stderr == "no DaqData server answers at any of 127.0.0.1:1\n"
        assert not (tmp_path / "daq_data").exists()  # no logs in the current directory


async def test_the_documented_server_module(tmp_path):
    with running(sys.executable, "-m", "fieldstation.stream.server", "--port", "0") as server:
        async with client_of(server.url.removeprefix("http://")) as client:
            await eventually(lambda: client.ping(server.url.removeprefix("http://")))
    done = fieldstation("--host", "0.0.0.0", module="fieldstation.stream.server")
    assert done.returncode == 1
    assert "--insecure" in done.stderr
