"""How long a reservation may last: per role, asked for with `for_s`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fieldstation.core.errors import ConfigError
from fieldstation.core.security import Role
from fieldstation.fleet.compose import control_config
from fieldstation.fleet.store import Store

pytestmark = pytest.mark.timeout(90)

WANT = {"kind": "pulsecount", "args": {}}


def left_s(row: dict) -> float:
    return (datetime.fromisoformat(row["until"]) - datetime.now(UTC)).total_seconds()


async def test_each_role_has_its_longest_reservation_and_more_is_refused_in_one_sentence(
    database, start, workers, apis
):
    store = Store(database)
    store.open()
    tokens = {role: store.add_token(role.name.lower(), role) for role in Role}
    store.close()
    control = await start(require_tokens=True, max_lease_s={"user": 600, "operator": 7200})
    await workers(control.url, token=tokens[Role.OPERATOR])
    api = apis(control.url)

    async def ask(role: Role, path: str, **arguments):
        headers = {"Authorization": f"Bearer {tokens[role]}"}
        return await api.ask("POST", path, {"name": "x", **arguments}, headers=headers)

    status, body = await ask(Role.USER, "/reserve", amount=1, for_s=601, **WANT)
    assert (status, body["error"]["code"], body["error"]["field"]) == (403, "lease_too_long", "for_s")
    assert body["error"]["message"] == (
        "Reservations of user, who has the role user, last at most 600 s at a time; ask for less and extend."
    )
    assert (await ask(Role.USER, "/reserve", amount=1, for_s=601, wait_s=1, **WANT))[0] == 403
    assert await ask(Role.VIEWER, "/reserve", amount=1, **WANT) != 200
    _, [usual] = await ask(Role.USER, "/reserve", amount=1, **WANT)
    assert 590 < left_s(usual) <= 600  # the usual hour is more than this role may have
    _, [short] = await ask(Role.USER, "/reserve", amount=1, for_s=30, wait_s=1, **WANT)
    assert 20 < left_s(short) <= 30
    _, [long] = await ask(Role.OPERATOR, "/reserve", amount=1, for_s=7200, **WANT)
    assert 7190 < left_s(long) <= 7200
    _, [default] = await ask(Role.OPERATOR, "/reserve", amount=1, **WANT)
    assert 3590 < left_s(default) <= 3600
    # An extension is measured by the same rule, and shortens nothing.
    assert (await ask(Role.USER, "/extend", serials=[short["serial"]], for_s=601))[0] == 403
    assert (await ask(Role.USER, "/extendall"))[0] == 200
    assert (await ask(Role.OPERATOR, "/extendall"))[1] == [long["serial"], default["serial"]]
    headers = {"Authorization": f"Bearer {tokens[Role.VIEWER]}"}
    rows = (await api.ask("GET", "/api/fleet/reservations", headers=headers))[1]
    ends = {row["serial"]: left_s(row) for row in rows}
    assert 590 < ends[short["serial"]] <= 600
    assert 7100 < ends[long["serial"]] <= 7200


@pytest.mark.parametrize("value", [0, -1, "long", True, None, 1e999])
async def test_a_length_that_is_none_is_refused(api, worker, value):
    if value is None or value == 1e999:
        value = "null"
    status, body = await api.post("/reserve", amount=1, name="bob", for_s=value, **WANT)
    assert (status, body["error"]["field"]) == (400, "for_s")


def test_the_setting_names_roles_and_lengths():
    config = control_config(environ={"FIELDSTATION_FLEET_CONTROL_MAX_LEASE_S": '{"user": 60}'})
    assert config.max_lease(Role.USER) == 60
    assert config.max_lease(Role.ADMIN) == 86_400
    for wrong in ({"king": 5}, {"user": 0}, {"user": "x"}):
        with pytest.raises(ConfigError, match="max_lease_s"):
            control_config(environ={}, values={"max_lease_s": wrong})
