"""The twin as a worker's boards use it: real bitstreams, garbage, limits."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fieldstation.fleet.twin.cache import AnswerCache
from fieldstation.fleet.twin.model import BITSTREAM_BYTES, Conditions
from fieldstation.fleet.twin.service import Limits, Twin
from fieldstation.testing import wait_for

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[4]
DATA = ROOT / "tests/data/twin"
PUBLISHED = ROOT.parent / "shared/data/icefarm"
EXPECTED = json.loads((DATA / "expected.json").read_text())


def design(name: str) -> bytes:
    return gzip.decompress((DATA / f"{name}.bin.gz").read_bytes())


def circuits() -> dict[str, tuple[bytes, int]]:
    """The published circuits where they are at hand; the shipped divider otherwise (48 MHz / 10,000)."""
    published = {
        f"{khz} kHz": ((PUBLISHED / f"circuit_generated_{khz}Khz.bin").read_bytes(), khz * 1000)
        for khz in (2, 8, 32)
        if (PUBLISHED / f"circuit_generated_{khz}Khz.bin").is_file()
    }
    return published or {"divider": (design("divider"), 4800)}


async def test_circuits_count_to_their_frequency_within_one_pulse(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path)) as twin:
        for name, (bitstream, hertz) in circuits().items():
            answer = await twin.answer(bitstream)
            assert answer.pulses is not None, (name, answer)
            assert abs(answer.pulses - hertz) <= 1, name


async def test_shipped_designs_count_as_their_sources_do(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path), Conditions(clock_hz=200_000)) as twin:
        counted = {name: (await twin.answer(design(name))).pulses for name in EXPECTED}
    assert counted == EXPECTED


async def test_ring_oscillator_is_not_guessed(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path)) as twin:
        answer = await twin.answer(design("ring"))
    assert (answer.pulses, answer.reason) == (None, "combinational_loop")


async def test_samples_are_the_same_every_time_and_within_the_converter(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path / "a")) as one, Twin(AnswerCache(tmp_path / "b")) as other:
        first, second = (await one.answer(design("divider"), True)), (await other.answer(design("divider"), True))
    assert first.samples == second.samples
    assert len(first.samples) == 500
    assert 0 < min(first.samples) <= max(first.samples) < 4096


async def test_answer_is_computed_once_however_many_boards_ask(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path)) as twin:
        answers = await asyncio.gather(*(twin.answer(design("divider")) for _ in range(20)))
        assert len(set(answers)) == 1
    assert len(list(tmp_path.iterdir())) == 1


async def test_one_board_that_goes_away_does_not_take_the_answer_from_another(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path)) as twin:
        leaving = asyncio.create_task(twin.answer(design("divider")))
        staying = asyncio.create_task(twin.answer(design("divider")))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).pulses == 4800


async def test_cache_outlives_the_twin_and_heals_from_a_torn_file(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    async with Twin(cache) as twin:
        await twin.answer(design("divider"))
    (kept,) = tmp_path.iterdir()
    assert cache.get(kept.stem) is not None
    kept.write_text('{"pulses": 48')
    async with Twin(cache) as twin:
        assert (await twin.answer(design("divider"))).pulses == 4800


def garbage() -> dict[str, bytes]:
    good = design("divider")
    rng = random.Random(1)
    found = {"empty": b"", "zeros": bytes(BITSTREAM_BYTES), "random": rng.randbytes(BITSTREAM_BYTES)}
    found |= {f"cut at {n}": good[:n] for n in (1, 100, 5000, len(good) // 2)}
    for n in range(20):
        flipped = bytearray(good)
        for _ in range(rng.choice((1, 5, 100))):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        found[f"flipped {n}"] = bytes(flipped)
    return found


async def test_garbage_gets_a_reason_and_leaves_nothing_outside_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    async with Twin(AnswerCache(tmp_path / "cache")) as twin:
        for name, data in garbage().items():
            answer = await twin.answer(data)
            assert answer.pulses is not None or answer.reason, name
            if not name.startswith("flipped"):
                assert answer.reason == "undecodable", name
        assert (await twin.answer(design("divider"))).pulses == 4800
    assert list(scratch.iterdir()) == []


async def test_design_that_takes_too_long_is_stopped_and_the_next_one_answered(tmp_path: Path) -> None:
    endless = Conditions(clock_hz=10**15)
    async with Twin(AnswerCache(tmp_path), endless, Limits(timeout_s=3, processes=1)) as twin:
        assert (await twin.answer(design("ram4"))).reason == "too_long"
        assert (await twin.answer(design("divider"))).pulses == 10**11


async def test_memory_ceiling_ends_the_design_not_the_worker(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path), limits=Limits(memory_bytes=36 << 20, processes=1)) as twin:
        assert (await twin.answer(design("divider"))).reason == "too_large"


async def test_child_that_was_killed_is_replaced(tmp_path: Path) -> None:
    async with Twin(AnswerCache(tmp_path), limits=Limits(processes=1)) as twin:
        await twin.answer(design("divider"))
        (child,) = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _is_child(path.name)]
        os.kill(child, 9)
        assert (await twin.answer(design("lfsr16"))).pulses is not None


def _is_child(pid: str) -> bool:
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        return parent == os.getpid() and b"twin.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, IndexError):
        return False


def test_cache_drops_the_least_recently_used_above_its_limit(tmp_path: Path) -> None:
    from fieldstation.fleet.twin.model import Answer

    cache = AnswerCache(tmp_path, limit_bytes=1000)
    for n in range(50):
        cache.put(f"{n:064}", Answer(n))
        os.utime(tmp_path / f"{n:064}.json", (n, n))
    assert cache.get(f"{49:064}") == Answer(49)
    assert cache.get(f"{0:064}") is None
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 1000


ENDLESS = """
import asyncio, gzip, pathlib, sys
from fieldstation.fleet.twin.cache import AnswerCache
from fieldstation.fleet.twin.model import Conditions
from fieldstation.fleet.twin.service import Limits, Twin
async def main():
    cache, limits = AnswerCache(pathlib.Path(sys.argv[1])), Limits(100, processes=1)
    async with Twin(cache, Conditions(clock_hz=10**15), limits) as twin:
        await twin.answer(gzip.decompress(pathlib.Path(sys.argv[2]).read_bytes()))
asyncio.run(main())
"""


def test_nothing_goes_on_computing_for_a_process_that_was_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, tmp_path, DATA / "ram4.bin.gz"])
    try:
        wait_for(lambda: "design" in _below(process.pid).values(), 40, what="the design's program runs")
        family = _below(process.pid)
    finally:
        process.kill()
        process.wait()
    assert len(family) >= 2
    wait_for(lambda: not any(_alive(pid) for pid in family), 10, what="its processes are gone")


def _stat(pid: int) -> tuple[str, str, int]:
    """Return name, state and parent of a process."""
    head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    state, parent = tail.split()[:2]
    return head.partition("(")[2], state, int(parent)


def _alive(pid: int) -> bool:
    try:
        return _stat(pid)[1] != "Z"
    except OSError:
        return False


def _below(root: int) -> dict[int, str]:
    """Return the descendants of a process by id, with their names."""
    found: dict[int, tuple[str, str, int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(path.name)] = _stat(int(path.name))
    family = {root}
    while more := {pid for pid, (_, _, parent) in found.items() if parent in family} - family:
        family |= more
    return {pid: found[pid][0] for pid in family - {root}}


async def test_full_disk_costs_the_cache_not_the_answer(tmp_path: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be")
    async with Twin(AnswerCache(blocked)) as twin:
        assert (await twin.answer(design("divider"))).pulses == 4800


async def test_stopped_design_leaves_no_scratch_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    endless = Conditions(clock_hz=10**15)
    async with Twin(AnswerCache(tmp_path / "cache"), endless, Limits(timeout_s=3, processes=1)) as twin:
        assert (await twin.answer(design("ram4"))).reason == "too_long"
    assert list(scratch.iterdir()) == []
