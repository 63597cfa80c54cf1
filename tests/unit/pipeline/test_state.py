import subprocess
import sys

import pytest

from fieldstation.pipeline import state
from fieldstation.pipeline.errors import PipelineNotRunningError


def test_a_state_is_read_as_it_was_written(tmp_path):
    written = state.PipelineState("demo", "/x/krt.yaml", "nats://h:1", 7, [state.ReplicaState("w", "mix", 1)])
    state.write(tmp_path, written)
    assert state.read(tmp_path, "demo") == written
    state.remove(tmp_path)
    with pytest.raises(PipelineNotRunningError, match="demo does not run"):
        state.read(tmp_path, "demo")


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 1}', '{"replicas": 3}', "\\xff"])
def test_a_spoilt_state_counts_as_none(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(PipelineNotRunningError):
        state.read(tmp_path, "demo")


def test_a_number_that_another_program_has_now_is_not_ours():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert not state.is_alive(other.pid)
        other.communicate(b"\n")
    assert not state.is_alive(other.pid)
