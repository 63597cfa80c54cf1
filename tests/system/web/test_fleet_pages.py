"""Overview, devices, approvals and audit in a real browser: each action does what the API says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.system.web.conftest import lab_in, tab, visit

from fieldstation.flow.client import ApprovalsClient
from fieldstation.testing import wait_for
from fieldstation.testing.processes import ServerProcess

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[3]
ACTION = {"kind": "command", "arguments": ["arm", "move", "--to", "wash\n; rm"], "shell": False, "pool": "bench",
          "timeout_s": 60.0, "repeatable": False}  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with lab_in(tmp_path_factory.mktemp("lab")) as made:
        made.start()
        made.worker()
        made.wait_free(4)
        yield made


@pytest.fixture
def page(browser, lab):
    with tab(browser, lab.url) as opened:
        yield opened


def row(page, serial):
    return page.locator(f'tr[data-key="{serial}"]')


def note(page, text):
    """Wait for a note that holds this text, and close it."""
    found = page.locator(".q-notification", has_text=text).first
    found.wait_for()
    return found.inner_text()


def confirm(page, word):
    page.locator(".q-dialog").get_by_role("button", name=word, exact=True).click()


def reserve(page, name, amount=1):
    page.get_by_role("button", name="Reserve…").click()
    dialog = page.locator(".q-dialog")
    dialog.get_by_label("Client name").fill(name)
    if amount is not None:
        dialog.get_by_label("How many").fill(str(amount))
    dialog.get_by_role("button", name="Reserve", exact=True).click()


def test_the_plain_page_stays_at_the_root_and_shows_the_way_to_the_panel(lab, page):
    page.goto(lab.url)
    page.get_by_role("link", name="Panel").click()
    page.wait_for_url(f"{lab.url}/ui/")
    page.get_by_role("heading", name="What happened last").wait_for()


def test_the_overview_tells_how_the_fleet_is(lab, page):
    visit(page)
    page.locator(".tiles").get_by_text(re.compile(r"\d of 4 free")).wait_for()
    page.locator(".tiles").get_by_text("1 of 1 online").wait_for()
    newest = lab.get("/api/fleet/events?limit=1")[0]["id"]
    page.locator(f'tr[data-key="{newest}"]').wait_for()
    for name in ("Devices", "Stations", "Streams", "Pipelines", "Approvals", "Audit"):
        assert page.get_by_role("navigation").get_by_role("link", name=name).count() == 1


def test_every_action_on_a_device_does_what_the_api_says(lab, page):
    lab.wait_free(4)
    visit(page, "devices")
    serial = sorted(d["serial"] for d in lab.get("/api/fleet/devices"))[1]
    line = row(page, serial)
    line.get_by_role("checkbox").check()
    reserve(page, "panel-test", None)
    note(page, f"Reserved {serial} for panel-test")
    assert lab.device(serial)["client"] == "panel-test"
    line.get_by_text("panel-test (local)").wait_for()

    until = lab.device(serial)["until"]
    line.get_by_role("button", name="Extend").click()
    note(page, "is extended")
    assert lab.device(serial)["until"] > until

    line.get_by_role("button", name="Reboot").click()
    confirm(page, "Reboot")
    note(page, "reboots")
    wait_for(lambda: lab.get("/api/fleet/events")[0]["action"] == "reboot", 60)

    line.get_by_role("button", name=f"End {serial}", exact=True).click()
    confirm(page, "Cancel")
    assert lab.device(serial)["client"] == "panel-test"
    line.get_by_role("button", name=f"End {serial}", exact=True).click()
    confirm(page, "End")
    note(page, "has ended")
    assert lab.device(serial)["client"] is None
    wait_for(lambda: lab.device(serial)["state"] == "available", 60)
    line.get_by_text("available").wait_for()

    line.get_by_role("button", name="Delete").click()
    confirm(page, "Delete")
    note(page, "is deleted")
    assert [e["action"] for e in lab.get("/api/fleet/events")].count("delete") == 1

    wait_for(lambda: serial in [d["serial"] for d in lab.get("/api/fleet/devices")], 60)
    line.get_by_role("button", name="History").click()
    history = page.locator(".q-dialog")
    for word in ("reserve", "extend", "reboot", "end", "delete"):
        history.get_by_role("cell", name=word, exact=True).first.wait_for()
    lab.wait_free(4)


def test_what_others_do_appears_without_a_reload(lab, page):
    lab.wait_free(4)
    visit(page, "devices")
    [taken] = lab.post("/reserve", {"amount": 1, "name": "script-7", "kind": "pulsecount", "args": {}})
    row(page, taken["serial"]).get_by_text("script-7").wait_for()
    lab.post("/endall", {"name": "script-7"})
    row(page, taken["serial"]).get_by_text("script-7").wait_for(state="detached")


def test_a_refusal_is_a_sentence_on_the_page_and_changes_nothing(lab, page):
    visit(page, "devices")
    before = lab.get("/api/fleet/reservations")
    reserve(page, "greedy", 99)
    assert "99" in note(page, "free")
    assert lab.get("/api/fleet/reservations") == before


def test_an_approval_shows_what_will_run_and_the_answer_is_the_records(lab, page):
    asked = lab.post("/api/approvals", {"title": "Wash <b>now</b>", "reason": "dirty", "by": "eve", "action": ACTION})
    visit(page, "approvals")
    card = page.locator(f'article[data-key="{asked["id"]}"]')
    card.get_by_text("Wash <b>now</b>").first.wait_for()
    assert "arm move --to 'wash\n; rm'" in card.locator("pre").inner_text()
    page.get_by_label("Your name").fill("ann")
    card.get_by_label("Reason").fill("not while the robot is open")
    card.get_by_role("button", name="Deny").click()
    note(page, "is denied")
    card.wait_for(state="detached")
    record = lab.get(f"/api/approvals/{asked['id']}")
    [answer] = record["answers"]
    assert (record["state"], answer["who"], answer["through"]) == ("denied", "ann", "panel")
    assert answer["comment"] == "not while the robot is open"
    page.get_by_role("cell", name="Wash <b>now</b>").wait_for()


def test_an_approval_clicked_in_the_page_releases_a_waiting_flow(lab, page, tmp_path):
    env = {
        "FIELDSTATION_CONTROL": lab.url,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
    }
    lab.wait_free(4)
    flow = ServerProcess(["fieldstation", "flow", "run", "examples/flow/bench.py:bench"], env=env, cwd=ROOT)
    try:
        client = ApprovalsClient(lab.url)
        wait_for(lambda: [a for a in client.listing("pending") if "moving on" in str(a.action)], 150, every_s=0.3)
        assert flow.process.poll() is None
        visit(page, "approvals")
        card = page.locator("article", has_text="moving on with")
        card.get_by_role("button", name="Approve").click()
        note(page, "is approved")
        assert flow.wait(120) == 0, flow.output
    finally:
        flow.kill()


def test_the_audit_page_shows_what_the_api_tells(lab, page):
    visit(page, "audit")
    newest = lab.get("/api/fleet/events?limit=1")[0]
    page.locator(f'tr[data-key="{newest["id"]}"]').wait_for()
    for column in ("When", "Who", "What"):
        assert page.get_by_role("button", name=column, exact=True).count() == 1
    page.get_by_role("button", name="Check the chain").click()
    note(page, "lines are as they were written")
