"""A worker under an ASGI server that is not ours, set up as the document says: its INI file and its variables."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from fieldstation.fleet.sim import answer
from fieldstation.testing import eventually, free_port

pytestmark = pytest.mark.timeout(90)

A = "1111111111111111"


async def test_a_worker_lives_under_uvicorn_and_a_graceful_shutdown_ends_the_process(tmp_path, fleet_parts):
    fake_control, _ = fleet_parts
    async with fake_control() as control:
        port = free_port()
        (tmp_path / "config.ini").write_text(
            f"[Connection]\nICEFARM_WORKER_NAME = bench\nICEFARM_CONTROL_SERVER = {control.url}\n"
            f"ICEFARM_WORKER_URL = http://127.0.0.1:{port}\n[Firmware]\nICEFARM_DEFAULT = /fw/default.uf2\n"
        )
        env = {
            "ICEFARM_WORKER_CONFIG": str(tmp_path / "config.ini"),
            "USBIPICE_WORKER_LOGS": str(tmp_path / "worker.log"),
            "FIELDSTATION_FLEET_WORKER_DRIVER": "simulated",
            "FIELDSTATION_FLEET_WORKER_DIR": str(tmp_path / "state"),
        }
        command = [sys.executable, "-m", "uvicorn", "--factory", "fieldstation.fleet.compose_worker:worker_asgi"]
        with subprocess.Popen(
            [*command, "--port", str(port)], env={**os.environ, **env}, stderr=subprocess.PIPE, text=True
        ) as server:
            try:
                await control.available(A)
                assert control.said("hello")[0]["url"] == f"http://127.0.0.1:{port}"
                async with aiohttp.ClientSession() as session:
                    assert (await session.get(f"http://127.0.0.1:{port}/heartbeat")).status == 200
                lease, token = await control.assign(A)
                async with control.holder(f"http://127.0.0.1:{port}", token) as holder:
                    await holder.evaluate(A, 1)
                    assert await holder.until_results(A, 1) == {"1": str(answer(holder.bitstream(1), A))}
                    await holder.sio.emit("graceful_shutdown", "")
                    await control.release(lease)
                await eventually(lambda: server.poll() is not None, 60, what="the end of the server")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    server.kill()
            _, errors = await asyncio.to_thread(server.communicate)
        assert "Traceback" not in errors
        assert "state is now" in Path(env["USBIPICE_WORKER_LOGS"]).read_text()
