"""`fieldstation pipeline` as a person uses it: up, look, send, change, break, mend, down."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from fieldstation.cli.main import cli
from fieldstation.core.errors import FieldstationError

pytestmark = pytest.mark.timeout(90)
NODE = """
from google.protobuf.wrappers_pb2 import StringValue
from fieldstation import pipeline

"""
FILES = {
    "krt.yaml": """
version: v0.1.0
description: a chain with a weak link
config: {mood: good}
workflows:
  - name: flow
    type: data
    processes:
      - {name: door, type: trigger, image: x, subscriptions: [out]}
      - {name: mix, type: task, image: x, subscriptions: [door], replicas: 2}
      - {name: out, type: exit, image: x, subscriptions: [mix]}
""",
    "door.py": NODE
    + """
import asyncio

@pipeline.trigger
async def door(requests, sdk):
    await asyncio.Event().wait()
""",
    "mix.py": NODE
    + """
@pipeline.task(attempts=1)
async def mix(sdk, message: StringValue):
    mood, _ = await sdk.centralized_config.get_config("mood")
    if mood == "bad":
        raise ValueError(f"not {message.value} today")
    return message
""",
    "out.py": NODE
    + """
@pipeline.exit
def out(sdk, message: StringValue):
    with open("results.txt", "a") as file:
        file.write(message.value + "\\n")
""",
}


class Shell:
    def __init__(self, folder):
        self.folder = folder
        self.state = folder / "state"

    def run(self, *arguments, code=0):
        """Run a short command in this process, as `fieldstation` would; returns what it printed."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            done = CliRunner(env={"XDG_STATE_HOME": str(self.state)}).invoke(cli, ["pipeline", *arguments])
        finally:
            os.chdir(before)
        told = str(done.exception) if isinstance(done.exception, FieldstationError) else done.output
        assert done.exit_code == code, told
        assert code or done.exception is None, done.exception
        return told

    def process(self, *arguments, code=0):
        """Run a command as a process of its own; returns what it told."""
        done = subprocess.run(
            [sys.executable, "-m", "fieldstation", "pipeline", *arguments],
            cwd=self.folder,
            env={**os.environ, "XDG_STATE_HOME": str(self.state)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def json(self, *arguments):
        return json.loads(self.run(*arguments, "--json"))

    @contextlib.contextmanager
    def up(self, *arguments):
        with (self.folder / "up.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fieldstation", "pipeline", "up", "--sync", "10s", *arguments],
                cwd=self.folder,
                env={**os.environ, "XDG_STATE_HOME": str(self.state)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            line = process.stdout.readline()
            assert line.startswith("ready nats://127.0.0.1:"), (self.folder / "up.log").read_text()
            yield process
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


def eventually(check, deadline_s=60.0):
    deadline = time.monotonic() + deadline_s
    while not (result := check()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return result


@pytest.fixture
def shell(tmp_path):
    folder = tmp_path / "weak-link"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return Shell(folder)


def listens(host, port):
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex((host, port)) == 0


def results(shell):
    with contextlib.suppress(FileNotFoundError):
        return (shell.folder / "results.txt").read_text().split()
    return []


def test_a_life_of_a_pipeline(shell):
    assert "krt.yaml is in order" in shell.run("check")
    with shell.up() as process:
        [request] = shell.run("send", "krt.yaml", "door", "hello").split()
        eventually(lambda: results(shell) == ["hello"])

        rows = {row["process"]: row for row in shell.json("status", "--interval", "0.2")}
        assert {name: row["replicas"] for name, row in rows.items()} == {"door": "1/1", "mix": "2/2", "out": "1/1"}
        assert rows["mix"]["lag"] == rows["mix"]["dead_letters"] == 0
        drawn = shell.run("status", "--graph", "--interval", "0.1")
        assert "└─▶ mix (task 2/2)" in drawn

        assert shell.json("config", "show") == {"mood": "good"}
        shell.run("config", "set", "mood", "bad")
        shell.run("send", "krt.yaml", "door", "unlucky", "--request-id", "r-9")
        [letter] = eventually(lambda: shell.json("dead-letters", "list"))
        assert (letter["process"], letter["request_id"]) == ("mix", "r-9")
        assert "not unlucky today" in letter["error"]
        assert "not unlucky today" in shell.run("dead-letters", "list")
        shown = shell.run("dead-letters", "show", str(letter["number"]))
        assert '"unlucky"' in shown
        assert [row["dead_letters"] for row in shell.json("status", "--interval", "0.1")] == [0, 1, 0]

        shell.run("config", "delete", "mood")
        shell.run("dead-letters", "replay", str(letter["number"]))
        eventually(lambda: results(shell) == ["hello", "unlucky"])
        assert shell.json("dead-letters", "list") == []
        assert "no dead letter 99" in shell.run("dead-letters", "show", "99", code=1)
        assert "runs already" in shell.process("up", code=1)

        assert request
        shell.run("down", "--delete")
        assert process.wait(20) == 0
    assert "does not run" in shell.run("status", code=1)


def test_messages_survive_down_and_up(shell):
    (shell.folder / "mix.py").write_text(
        NODE + "@pipeline.task\ndef mix(sdk, payload):\n    import time; time.sleep(60)\n"
    )
    with shell.up() as process:
        shell.run("send", "krt.yaml", "door", "kept")
        eventually(lambda: shell.json("status", "--interval", "0.1")[1]["in_work"] == 1)
        assert "not processed yet" in shell.run("down", "--delete", code=1)
        shell.run("down")
        assert process.wait(20) == 0
    (shell.folder / "mix.py").write_text(FILES["mix.py"])
    with shell.up():  # the handler was cut off: its message comes again when the server's 30 s ack wait is over
        eventually(lambda: results(shell) == ["kept"], 60)


def test_a_replica_that_is_killed_is_started_again_and_a_killed_manager_leaves_no_orphans(shell):
    with shell.up() as process:
        state = json.loads((shell.state / "fieldstation/pipeline/weak-link/state.json").read_text())
        victim = next(replica for replica in state["replicas"] if replica["process"] == "out")
        os.kill(victim["pid"], signal.SIGKILL)
        eventually(lambda: shell.json("status", "--interval", "0.1")[2]["restarts"] == 1)
        eventually(lambda: shell.json("status", "--interval", "0.1")[2]["replicas"] == "1/1")
        shell.run("send", "krt.yaml", "door", "after")
        eventually(lambda: results(shell) == ["after"])

        state = json.loads((shell.state / "fieldstation/pipeline/weak-link/state.json").read_text())
        process.kill()
        process.wait()
        eventually(lambda: not any(Path(f"/proc/{replica['pid']}").exists() for replica in state["replicas"]))
        host, _, port = state["nats_url"].removeprefix("nats://").rpartition(":")
        eventually(lambda: not listens(host, int(port)))
    with shell.up():  # what the dead one left behind does not stop the next
        shell.run("send", "krt.yaml", "door", "again")
        eventually(lambda: results(shell) == ["after", "again"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "mix.py").unlink(), "nothing to run for process mix"),
        (lambda folder: (folder / "krt.yaml").write_text("version: 1"), "krt.yaml has"),
        (lambda folder: (folder / "krt.yaml").unlink(), "cannot be read"),
    ],
)
def test_up_says_in_one_sentence_why_it_cannot(shell, change, said):
    change(shell.folder)
    assert said in shell.process("up", code=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from fieldstation import pipeline\n1/0\n", "line 2: ZeroDivisionError"),
        ("x = 1\n", "use @task, @exit or @trigger"),
        (None, "No such file"),
    ],
)
def test_a_node_file_that_is_none_says_so(tmp_path, text, said):
    shell = Shell(tmp_path)
    if text is not None:
        (tmp_path / "n.py").write_text(text)
    assert said in shell.process("node", "n.py", code=1)


def test_a_node_without_configuration_names_the_variable(tmp_path):
    (tmp_path / "n.py").write_text(NODE + "@pipeline.task\ndef n(sdk, payload): ...\n")
    assert "KAI_METADATA_PRODUCT_ID" in Shell(tmp_path).process("node", "n.py", code=1)


def test_a_documented_script_that_keeps_its_own_loop_alive_runs_and_ends(shell):
    (shell.folder / "out.py").write_text(
        """
import asyncio
from google.protobuf.wrappers_pb2 import StringValue
from fieldstation.pipeline import Runner

def initializer(sdk):
    sdk.logger.info(f"starting {sdk.metadata.get_process()}")

async def handler(sdk, payload):
    value = StringValue()
    payload.Unpack(value)
    with open("results.txt", "a") as file:
        file.write(value.value + "\\n")

async def init():
    runner = await Runner().initialize()
    await runner.exit_runner().with_initializer(initializer).with_handler(handler).run()

if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(init())
    loop.run_forever()
"""
    )
    with shell.up() as process:
        shell.run("send", "krt.yaml", "door", "documented")
        eventually(lambda: results(shell) == ["documented"])
        process.terminate()
        assert process.wait(20) == 0
    log = (shell.state / "fieldstation/pipeline/weak-link/logs/flow-out-1.log").read_text()
    assert '"msg": "starting out"' in log
    assert "killed" not in (shell.folder / "up.log").read_text()


def test_registered_nodes_run_by_name(shell):
    text = FILES["krt.yaml"].replace("name: mix, type: task, image: x", 'name: mix, type: task, image: "node:echo"')
    (shell.folder / "krt.yaml").write_text(text)
    (shell.folder / "mix.py").unlink()
    with shell.up():
        shell.run("send", "krt.yaml", "door", "by-name")
        eventually(lambda: results(shell) == ["by-name"])


async def test_provisioning_alone_makes_everything_and_ends(shell, rig):
    flow = await rig()
    done = await asyncio.to_thread(shell.process, "up", "--nats", flow.url, "--provision")
    assert "weak-link is provisioned" in done
    names = {info.config.name for info in await flow.js.streams_info()}
    assert {"weak-link_v0_1_0_flow", "weak-link_v0_1_0_flow_dead-letters", "KV_key-store_weak-link_v0_1_0"} <= names
    assert "needs --nats" in shell.run("up", "--provision", code=2)
    text = shell.run("export", "--kubernetes")
    assert text.count("\nkind: Deployment\n") == 3
