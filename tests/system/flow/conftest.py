"""A real Prefect server, a control with approvals and a fake Slack, each on loopback."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fieldstation.flow.client import ApprovalsClient
from fieldstation.flow.prefect_api import PrefectApi
from fieldstation.testing import ServerProcess, free_port, program, wait_for
from fieldstation.testing.slack import FakeSlack


@dataclass
class Lab:
    """What a test of flows runs against; `env` is what its processes get."""

    folder: Path
    env: dict[str, str]
    slack: FakeSlack
    control: ServerProcess
    prefect: ServerProcess
    port: int

    @property
    def api(self) -> PrefectApi:
        return PrefectApi(self.env["PREFECT_API_URL"])

    @property
    def approvals(self) -> ApprovalsClient:
        return ApprovalsClient(self.env["FIELDSTATION_CONTROL"])

    def start_prefect(self) -> None:
        command = [program("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(self.port), "--no-ui"]
        self.prefect = ServerProcess(command, env=self.env)
        wait_for(self.healthy, 120, every_s=0.2)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    env: dict[str, str] = {}
    with FakeSlack(("#lab",)) as slack:
        slack.set_environment(
            type("Environment", (), {"setenv": lambda self, name, value: env.update({name: value})})()
        )
        port, control_port = free_port(), free_port()
        env |= {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "FIELDSTATION_CONTROL": f"http://127.0.0.1:{control_port}",
        }
        words = ["fleet", "control", "--port", str(control_port), "--database", f"sqlite:///{folder}/control.db"]
        control = ServerProcess(["fieldstation", *words], env=env)
        made = Lab(folder, env, slack, control, control, port)
        try:
            made.start_prefect()
            control.wait_ready(60)
            yield made
        finally:
            made.prefect.kill()
            control.kill()
