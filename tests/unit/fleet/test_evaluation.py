from __future__ import annotations

import shutil
from pathlib import Path

import msgpack
import pytest

from fieldstation.fleet.client import packing
from fieldstation.fleet.client.evaluation import (
    BITSTREAM_BYTES,
    BitstreamResult,
    Evaluation,
    EvaluationFailed,
    PulseCountEvaluation,
    Result,
    VarMaxEvaluation,
)


def test_one_serial_is_one_serial_and_not_its_letters() -> None:
    assert PulseCountEvaluation("DE62A8", "x").serials == {"DE62A8"}
    assert PulseCountEvaluation(["A", "B", "A"], "x").serials == {"A", "B"}
    with pytest.raises(ValueError, match="at least one serial"):
        PulseCountEvaluation([], "x")


def test_evaluations_are_equal_by_id() -> None:
    one, two = PulseCountEvaluation("A", "x"), PulseCountEvaluation("A", "x")
    assert one == one
    assert one != two
    assert len({one, two, one}) == 2


def test_an_evaluation_that_runs_again_has_a_new_id_on_the_wire() -> None:
    evaluation = PulseCountEvaluation("A", "x")
    assert evaluation.wire_id() == evaluation.id
    assert evaluation.wire_id() != evaluation.id


def test_values_are_what_the_document_says() -> None:
    assert PulseCountEvaluation.value_of("31995") == 31995
    assert VarMaxEvaluation.value_of(0) == 0.0
    assert VarMaxEvaluation.value_of([0.5, [1, 2]]) == (0.5, [1, 2])
    with pytest.raises(ValueError, match="invalid literal"):
        PulseCountEvaluation.value_of("x")


def test_results_unpack_as_documented() -> None:
    evaluation = PulseCountEvaluation("A", "file.bin")
    serial, found, value = Result("A", evaluation, 7)
    assert (serial, found, value) == ("A", evaluation, 7)
    serial, path, value = BitstreamResult("A", evaluation, 7)
    assert (serial, path, value) == ("A", "file.bin", 7)
    assert Result("A", evaluation, EvaluationFailed, "why").failed


async def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"1" * BITSTREAM_BYTES)
    files = packing.Bitstreams()
    first = await files.read(file)
    assert await files.read(file) is first
    file.write_bytes(b"2" * BITSTREAM_BYTES)
    import os

    os.utime(file, ns=(1, 1))
    assert (await files.read(file))[:1] == b"2"


@pytest.mark.parametrize(("size", "problem"), [(0, "0 bytes"), (BITSTREAM_BYTES + 1, "104091 bytes")])
async def test_a_file_of_the_wrong_size_is_named(tmp_path: Path, size: int, problem: str) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(size))
    with pytest.raises(packing.BitstreamError, match=problem):
        await packing.Bitstreams().read(file)


async def test_a_circuit_without_icepack_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.asc"
    file.write_text(".comment")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(packing.NoIcepackError, match="apt-get install fpga-icestorm"):
        await packing.Bitstreams().read(file)


async def test_the_request_is_the_documented_msgpack(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"1" * BITSTREAM_BYTES)
    evaluation = PulseCountEvaluation(["A", "B"], file)
    contents = await packing.contents_of(evaluation, "u-1", "b-9", packing.Bitstreams())
    message = msgpack.unpackb(packing.request(["A"], "evaluate", contents))
    assert message == {
        "serial": ["A"],
        "event": "evaluate",
        "contents": {"files": {"u-1": b"1" * BITSTREAM_BYTES}, "batch_id": "b-9"},
    }


async def test_own_evaluations_bring_their_contents() -> None:
    class Own(Evaluation):
        def _toJson(self) -> dict[str, object]:
            return {"files": {self.id: b"x"}, "speed": 3}

    own = Own("A")
    again = [own.wire_id(), own.wire_id()][1]
    found = msgpack.unpackb(await packing.contents_of(own, again, "b", packing.Bitstreams()))
    assert found == {"files": {again: b"x"}, "speed": 3, "batch_id": "b"}
