"""As many frames as a day gives at ten a second, as fast as they go: memory stays flat, nothing is lost."""

import asyncio
import os
from pathlib import Path

import pytest

from fieldstation.stream.model import PRODUCTS
from fieldstation.testing.frame_server import RunWriter, client_of
from fieldstation.testing.frames import dim

A_DAY = 24 * 3600 * 10

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def resident_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def number_of(frame):
    return frame.header.get("quabo_0", frame.header)["pkt_num"]


@pytest.mark.parametrize("product", ["ph256", "img16"])  # read one by one, and a turn at once
async def test_a_day_of_frames_leaves_memory_flat(serve, data_dir, product):
    total = int(os.environ.get("FIELDSTATION_SOAK_FRAMES", A_DAY))
    block, ahead = 500, 8000
    writer = RunWriter(data_dir, max_bytes=5_000_000)
    writer.write(0, product=product)
    data = b"".join(dim(product, number) for number in range(block))
    with serve("--data-dir", str(data_dir), every_mode_buffer=20_000) as server:
        async with client_of(server.host) as client, client_of(server.host) as idle:
            stream = await client.frames(every=True)
            newest = await idle.frames(interval_s=0.5)
            await asyncio.sleep(1)
            received, written, after_warm_up = 0, 0, None
            while received < total:
                while written < min(total, received + ahead):
                    writer.pff.write_raw(PRODUCTS[product], data)
                    written += block
                    for old in writer.pff.opened[4:-12]:  # the first four are where unused products stay empty
                        old.unlink(missing_ok=True)
                for _ in range(min(block, written - received)):
                    one = await anext(stream)
                    assert number_of(one) == received % block
                    received += 1
                if after_warm_up is None and received >= total // 10:
                    after_warm_up = resident_mb(server.pid)
            at_the_end = resident_mb(server.pid)
            assert (await anext(newest)).product == product
            await stream.aclose()
            await newest.aclose()
    assert at_the_end < after_warm_up + 8, f"{after_warm_up:.0f} MB, then {at_the_end:.0f} MB"
