"""What an unmodified published client can carry a token in: its server address."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from fieldstation.core.security import Role
from fieldstation.fleet.store import Store
from fieldstation.testing import ServerProcess, running, wait_for

pytestmark = pytest.mark.timeout(120)


class Locked:
    """A control that asks everybody for a token, and a worker that has one."""

    def __init__(self, control: ServerProcess, tokens: dict[str, str]) -> None:
        self.control = control
        self.address = control.url.partition("//")[2]
        self.tokens = tokens

    def available(self) -> int:
        request = Request(self.control.url + "/available")
        request.add_header("Authorization", f"Bearer {self.tokens['ann']}")
        with urlopen(request, timeout=5) as answer:
            return int(json.load(answer)["amount"])


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    database = f"sqlite:///{folder / 'fleet.db'}"
    store = Store(database)
    store.open()
    roles = {"ann": Role.USER, "vic": Role.VIEWER, "bench": Role.OPERATOR}
    tokens = {user: store.add_token(user, role) for user, role in roles.items()}
    store.close()
    control = ("fieldstation", "fleet", "control", "--port", "0", "--database", database, "--require-tokens")
    with running(*control, deadline_s=60) as server:
        worker = ("fieldstation", "fleet", "worker", "--control", server.url, "--name", "bench", "--port", "0")
        env = {"FIELDSTATION_TOKEN": tokens["bench"]}
        with running(*worker, "--simulate", "3", "--dir", folder / "worker", env=env, deadline_s=60):
            made = Locked(server, tokens)
            wait_for(lambda: made.available() == 3, 60, every_s=0.2)
            yield made


def test_a_token_as_password_in_the_address_does_for_everything(
    published: Any, locked: Locked, circuits: list[Path]
) -> None:
    url = f"http://ann:{locked.tokens['ann']}@{locked.address}"
    report = published.run(url, "published", "pulsecount", "evaluate", *circuits)
    assert report["available"] == 3
    assert len(report["results"]) == 2 * len(circuits)
    assert len(report["ended_all"]) == 2
    assert locked.tokens["ann"] not in locked.control.output


@pytest.mark.parametrize("form", ["{address}", "{token}@{address}", "ann:wrong@{address}", "vic:{viewer}@{address}"])
def test_no_other_form_gets_a_device(published: Any, locked: Locked, form: str) -> None:
    """Without a token, with the token where the name belongs, with a wrong one, and with a role that may only look."""
    address = form.format(address=locked.address, token=locked.tokens["ann"], viewer=locked.tokens["vic"])
    process = published.start(f"http://{address}", "published", "pulsecount", "hold")
    try:
        out, _ = process.communicate("", timeout=30)
    except subprocess.TimeoutExpired:  # some releases wait for ever for a connection that was refused
        process.kill()
        out, _ = process.communicate()
    assert "held" not in out or '"reserved": [' not in out
    assert locked.available() == 3
