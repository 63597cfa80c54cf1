"""The plain page, its forms, and the description of the API."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import unquote

import pytest

from fieldstation.testing import chromium

pytestmark = pytest.mark.timeout(90)

DOCUMENTED = [
    *("/available", "/devices", "/reserve", "/reserveserials", "/extend", "/extendall"),
    *("/end", "/endall", "/reboot", "/delete", "/clear-workers", "/log"),
]


@pytest.fixture(params=["sqlite"])
def database(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'fleet.db'}"


async def press(api, action: str, serial: str) -> str:
    async with api.session.post(
        f"{api.url}/panel/{action}", data={"serial": serial}, allow_redirects=False
    ) as response:
        assert response.status == 303
        return unquote(response.headers["location"].partition("note=")[2])


async def test_the_page_shows_workers_devices_and_holders(api, worker):
    [row] = await api.reserve(1, name="bob")
    await worker.report("A4", state="broken", reason="no answer")
    _, page = await api.ask("GET", "/")
    assert "Workers <small>1</small>" in page
    assert "4 in all, 2 available, 1 reserved, 1 broken" in page
    assert f'aria-label="End {row["serial"]}"' in page
    for text in ("bench", "http://127.0.0.1:9/heartbeat", "pulsecount, variance", "bob", "no answer"):
        assert text in page


async def test_the_forms_end_reboot_and_delete(api, worker):
    [row] = await api.reserve(1, name="bob")
    serial = row["serial"]
    assert "reserved" in await press(api, "delete", serial)
    assert await press(api, "reboot", serial) == f"{serial} reboots."
    assert await press(api, "end", serial) == f"The reservation of {serial} has ended."
    assert await press(api, "end", serial) == f"{serial} was not reserved."
    assert await press(api, "delete", "A4") == "A4 is deleted."
    assert "no device Z9" in await press(api, "reboot", "Z9")
    assert "The field action is wrong" in await press(api, "explode", "A4")
    async with api.session.post(f"{api.url}/panel/end", data=b"x" * 20_000, allow_redirects=False) as response:
        assert "too long" in unquote(response.headers["location"])
    async with api.session.get(f"{api.url}/panel/end?serial=A4") as response:
        assert response.status == 405  # a link that is followed in advance must not act


async def test_names_cannot_write_into_the_page(api, worker):
    evil = "<script>alert(1)</script>"
    await api.reserve(1, name=evil)
    await worker.report("A4", state="broken", reason=evil)
    _, page = await api.ask("GET", "/?note=" + evil)
    assert evil not in page
    assert "&lt;script&gt;" in page


async def test_pages_load_nothing_from_elsewhere(api):
    for path in ("/", "/docs", "/style.css"):
        _, page = await api.ask("GET", path)
        assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page), path


async def test_the_description_names_every_endpoint_with_both_verbs(api):
    _, document = await api.ask("GET", "/openapi.json")
    _, page = await api.ask("GET", "/docs")
    for path in DOCUMENTED:
        operations = document["paths"][path]
        assert set(operations) == {"get", "post"}
        assert f"<code>{path}</code>" in page
        for method, operation in operations.items():
            assert operation["summary"]
            assert "200" in operation["responses"]
            assert ("500" in operation["responses"]) == (method == "get")
    body = document["paths"]["/reserve"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["name", "kind", "args", "amount"]
    [parameter] = document["paths"]["/reserve"]["get"]["parameters"]
    assert (parameter["name"], parameter["in"]) == ("json", "query")
    for path in ("workers", "devices", "reservations", "events"):
        assert set(document["paths"][f"/api/fleet/{path}"]) == {"get"}
    ids = [op["operationId"] for operations in document["paths"].values() for op in operations.values()]
    assert len(ids) == len(set(ids))


async def test_answers_are_as_described(api, worker):
    """Every key of an answer is described, and the other way round."""
    _, document = await api.ask("GET", "/openapi.json")
    shapes = {name: set(schema["properties"]) for name, schema in document["components"]["schemas"].items()}
    [row] = await api.reserve(1)
    assert set(row) == shapes["ReservationRow"]
    for path, shape in (
        ("workers", "WorkerRow"),
        ("devices", "DeviceRow"),
        ("reservations", "Reservation"),
        ("events", "AuditRow"),
    ):
        assert set((await api.get(f"/api/fleet/{path}"))[1][0]) == shapes[shape]
    status, place = await api.post("/reserve", amount=4, name="x", kind="pulsecount", args={}, wait_s=0)
    assert (status, set(place)) == (202, shapes["PlaceInQueue"])


@pytest.mark.needs("chromium")
@pytest.mark.timeout(90)
async def test_a_browser_can_press_the_buttons_and_asks_nobody_else(api, control, worker):
    [row] = await api.reserve(1, name="bob")

    def browse() -> tuple[str, list[str]]:
        asked: list[str] = []
        with chromium() as browser:
            page = browser.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.goto(control.url + "/")
            page.click(f'button[aria-label="End {row["serial"]}"]')
            note = page.inner_text(".note")
            page.goto(control.url + "/docs")
            page.click("summary")
        return note, asked

    note, asked = await asyncio.to_thread(browse)
    assert note == f"The reservation of {row['serial']} has ended."
    assert [url for url in asked if not url.startswith((control.url, "data:"))] == []
