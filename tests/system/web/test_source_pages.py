"""Streams, stations and pipelines in a real browser, on a real frame server, station and NATS server."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import nats as nats_client
import pytest
from tests.system.web.conftest import PHONE, findings, lab_in, picture, tab, visit

from fieldstation.core.blocking import Portal
from fieldstation.pipeline.wire import deadletters
from fieldstation.testing import ServerProcess, wait_for
from fieldstation.testing.services import nats_server
from fieldstation.testing.station import StationProcess

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(240)]

PAGES = ("", "devices", "stations", "stations?station=roof", "streams", "pipelines", "approvals", "audit")
KRT = """version: v0.1.0
description: counts
workflows:
  - name: counts
    type: data
    processes:
      - {name: clock, type: trigger, image: local, subscriptions: [table]}
      - {name: sum, type: task, image: local, replicas: 2, subscriptions: [clock]}
      - {name: table, type: exit, image: local, subscriptions: [sum]}
"""
QUESTION = {
    "title": "Move the arm to the wash station",
    "by": "journey flow",
    "reason": "Counts of run 12 look right",
    "action": {"kind": "command", "shell": False, "arguments": ["arm", "move", "--to", "wash"], "pool": "bench"},
}
MOST_DRAWN = "Math.max(0, ...[...document.querySelectorAll('canvas')].map(c => +c.dataset.drawn || 0))"
PROCEDURES = {name: f"fieldstation.station.procedures.{name}:run" for name in ("dummy_procedure", "system_checks")}


def station_config(nats_url):
    return {
        "general": {"config_revision": 1, "software_version": "1.0.0", "system_identifier": "roof"},
        "logging_verbosity": {"file_archive": "DEBUG", "console_prints": None, "message_sending": "INFO"},
        "backend": {
            "provider": "nats",
            "nats_connection": {"servers": [nats_url], "password": "hunter22"},
            "max_drain_time": 1,
        },
        "dummy_procedure": {"seconds_between_datapoints": 1},
        "system_checks": {"seconds_between_checks": 1},
        "health": {"config_window_seconds": 30, "settle_seconds": 0.5},
    }


async def plan_pipeline(url, manifest):
    """Make what the pipeline's manager would, and two messages that a process gave up on."""
    from fieldstation.pipeline.manifest import load
    from fieldstation.pipeline.plan import make_plan
    from fieldstation.pipeline.wire.provision import provision

    plan = make_plan(load(manifest), "counts", url)
    client = await nats_client.connect(url)
    js = client.jetstream()
    await provision(js, plan)
    stream = plan.streams[0].name
    for number in range(2):
        headers = {f"Fieldstation-{key}": value for key, value in {
            "Process": "sum", "Consumer": "c", "Created": "1", "Sequence": str(number), "Subject": "s", "Replay": "0",
            "Request-Id": f"r{number}", "Error": "cannot add <b>this</b>", "Deliveries": "3", "At": "1700000000.0",
        }.items()}  # fmt: skip
        await js.publish(deadletters.names.dead_letter_subject(stream, "sum"), b"body", headers=headers)
    await client.close()
    return stream


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    (folder / "krt.yaml").write_text(KRT)
    with nats_server(folder / "nats") as nats:
        station = StationProcess(folder / "roof", station_config(nats.url), PROCEDURES)
        cameras = []

        def start_camera(port):
            cameras.append(ServerProcess(["fieldstation", "stream", "serve", "--port", str(port), "--simulate"]))
            return cameras[-1].wait_ready(60).partition("//")[2]

        try:
            address = start_camera(0)
            station.start()
            stream = Portal().call(plan_pipeline(nats.url, folder / "krt.yaml"))
            (folder / "site.toml").write_text(
                f'[web]\nnats = "{nats.url}"\n[web.streams]\ncamera = "{address}"\n'
                f'[web.pipelines.counts]\nmanifest = "{folder}/krt.yaml"\nproduct = "counts"\nnats = "{nats.url}"\n'
            )
            with lab_in(folder, "--config", folder / "site.toml") as made:
                made.nats, made.station, made.stream = nats, station, stream
                made.cameras, made.camera_address, made.start_camera = cameras, address, start_camera
                made.start()
                made.worker()
                made.wait_free(4)
                made.post("/api/approvals", QUESTION)
                made.post("/reserve", {"amount": 1, "name": "ann-notebook", "kind": "pulsecount", "args": {}})
                yield made
        finally:
            station.stop()
            for camera in cameras:
                camera.stop()


@pytest.fixture
def page(browser, lab):
    with tab(browser, lab.url) as opened:
        yield opened


def pixels(page):
    return page.evaluate("() => [...document.querySelectorAll('canvas')].map(c => c.toDataURL()).join()")


def drawn(page):
    """How often the canvas that was drawn most was drawn."""
    return page.evaluate(f"() => {MOST_DRAWN}")


def wait_drawn(page, more_than):
    page.wait_for_function(f"() => {MOST_DRAWN} > {more_than}")


def wait_changeable(page):
    page.wait_for_function(
        "() => [...document.querySelectorAll('button')].some(b => b.innerText.includes('Change') && !b.disabled)"
    )


def counted(page):
    """(received, shown, skipped) as the page tells once a second, None before anything was shown."""
    text = page.locator(".livebar .dim").inner_text()
    found = re.search(r"received (\d+) · shown (\d+) ·\s+skipped here (\d+)", text)
    numbers = tuple(int(number) for number in found.groups())
    return numbers if numbers[1] > 0 else None


def test_live_frames_change_pixels_on_the_canvas(lab, page):
    visit(page, "streams")
    wait_drawn(page, 1)
    before = pixels(page)
    wait_for(lambda: pixels(page) != before, 60, every_s=0.1)
    page.get_by_text(re.compile(r"frame \d+")).first.wait_for()
    page.get_by_text("Header").first.click()
    page.locator("figure pre").first.get_by_text("tv_sec").wait_for()
    page.get_by_role("img", name=re.compile("Pulse heights of module")).wait_for()
    received, shown, skipped = wait_for(lambda: counted(page), 60, every_s=0.2)
    assert shown + skipped <= received


def test_a_stalled_tab_hurts_nobody(browser, lab, page):
    with tab(browser, lab.url) as stalled:
        visit(stalled, "streams")
        wait_drawn(stalled, 1)
        # Its script stands still: it reads nothing more and asks for nothing more.
        stalled.evaluate("() => setTimeout(() => { const end = Date.now() + 6000; while (Date.now() < end); }, 50)")
        visit(page, "streams")
        wait_drawn(page, 1)
        before = drawn(page)
        wait_drawn(page, before + 5)
        lab.get("/available")  # it still answers
        # When it goes on it is shown what is new, not what it missed.
        then = drawn(stalled)
        wait_drawn(stalled, then)


def test_a_frame_server_that_goes_is_said_and_one_that_comes_back_is_shown(lab, page):
    visit(page, "streams")
    wait_drawn(page, 1)
    lab.cameras[-1].send(19)  # SIGSTOP: half open, nobody is told
    before = drawn(page)
    lab.cameras[-1].send(18)
    wait_drawn(page, before + 2)

    lab.cameras[-1].kill()
    told = page.locator(".live .problem")
    told.get_by_text(f"{lab.camera_address} does not stream").wait_for()
    assert page.locator("canvas").count() > 0  # the last frames stay
    before = drawn(page)
    lab.start_camera(lab.camera_address.rpartition(":")[2])
    wait_drawn(page, before + 2)
    told.wait_for(state="detached")


def test_a_station_shows_its_readings_its_log_and_how_it_is(lab, page):
    visit(page, "stations")
    line = page.locator('tr[data-key="roof"]')
    line.get_by_text("ok", exact=True).wait_for()
    line.get_by_role("button", name="Open").click()
    page.wait_for_url("**/stations?station=roof")
    page.get_by_text("memory usage percent").wait_for()
    page.locator(".readings polyline").first.wait_for()
    page.get_by_text("station roof starts").first.wait_for()
    queue = page.locator('td[data-label="Queue"]').first
    wait_for(lambda: queue.inner_text().strip().isdigit(), 60)
    page.get_by_role("cell", name="startup").first.wait_for()


def test_stations_go_on_being_shown_when_their_server_is_killed_and_started_again(lab, page):
    visit(page, "stations?station=roof")
    page.get_by_text("memory usage percent").wait_for()
    lab.nats.kill()
    problem = page.locator(".problem", has_text="The stations' server")
    problem.wait_for()
    lines = page.locator('[aria-label="Log"] tbody tr').count()
    lab.nats.start(60)
    problem.wait_for(state="detached")
    again = datetime.now(UTC)
    heard = page.locator('td[data-label="Heard"] time')
    wait_for(lambda: datetime.fromisoformat(heard.get_attribute("datetime")) > again, 60, every_s=0.2)
    told = page.locator('[aria-label="Log"] tbody tr').all_inner_texts()
    assert len(told) >= lines
    assert len(told) == len(set(told))  # what was read before is not read twice


def running_revision(page):
    """The newest revision of which the page has said that the station runs with it."""
    told = page.locator(".q-notification", has_text="roof runs with revision")
    told.first.wait_for()
    return max(int(n) for text in told.all_inner_texts() for n in re.findall(r"revision (\d+)", text))


def test_a_config_is_compared_pushed_judged_and_gone_back_from(lab, page):
    visit(page, "stations?station=roof")
    change = page.get_by_role("button", name="Change…")
    wait_changeable(page)
    change.click()
    dialog = page.locator(".q-dialog")
    box = dialog.get_by_label("New config (JSON)")
    text = box.input_value()
    assert "hunter22" not in text
    assert '"password": "***"' in text
    push = dialog.get_by_role("button", name="Push", exact=True)
    box.fill("{")
    dialog.get_by_text("This is no JSON").wait_for()
    assert push.is_disabled()
    box.fill(text.replace('"seconds_between_checks": 1', '"seconds_between_checks": 2'))
    dialog.locator(".diff .added", has_text='"seconds_between_checks": 2').wait_for()
    push.click()
    first = running_revision(page)
    config = json.loads((lab.station.folder / "config/config.json").read_text())
    assert config["general"]["config_revision"] == first > 1
    assert config["system_checks"]["seconds_between_checks"] == 2
    assert config["backend"]["nats_connection"]["password"] == "hunter22"
    assert ["config push", "roof"] in [[e["action"], e["target"]] for e in lab.get("/api/fleet/events?limit=5")]

    page.get_by_role("button", name=re.compile("Go back to it")).first.click()
    dialog.locator(".diff .added", has_text='"seconds_between_checks": 1').wait_for()
    push.click()
    wait_for(lambda: running_revision(page) > first, 60)
    config = json.loads((lab.station.folder / "config/config.json").read_text())
    assert config["system_checks"]["seconds_between_checks"] == 1


def test_a_rejected_config_says_why(lab, page):
    visit(page, "stations?station=roof")
    wait_changeable(page)
    page.get_by_role("button", name="Change…").click()
    dialog = page.locator(".q-dialog")
    box = dialog.get_by_label("New config (JSON)")
    box.fill(box.input_value().replace('"seconds_between_datapoints": 1', '"seconds_between_datapoints": -1'))
    dialog.get_by_role("button", name="Push", exact=True).click()
    page.locator(".q-notification", has_text="rejected revision").wait_for()


def test_a_pipeline_is_drawn_and_its_dead_letters_are_replayed_and_deleted(lab, page):
    visit(page, "pipelines")
    graph = page.get_by_role("img", name="Graph of counts, counts")
    for name in ("clock", "sum", "table"):
        graph.get_by_text(name, exact=True).wait_for()
    assert page.locator(".graph path.arrow").count() == 3
    letters = page.locator("tr", has_text="cannot add <b>this</b>")
    letters.nth(1).wait_for()
    letters.first.get_by_role("button", name=re.compile("Look")).click()
    page.locator(".q-dialog .payload").wait_for()
    page.locator(".q-dialog").get_by_role("button", name="Close").click()
    letters.first.get_by_role("button", name=re.compile("Replay")).click()
    page.locator(".q-notification", has_text="sum gets message").wait_for()
    letters.first.get_by_role("button", name=re.compile("Delete")).click()
    page.locator(".q-notification", has_text="is deleted").wait_for()
    letters.first.wait_for(state="detached")
    actions = [e["action"] for e in lab.get("/api/fleet/events?limit=5")]
    assert {"dead letter replay", "dead letter delete"} <= set(actions)


# The phone below is dark; dark and large is looked at in the long run.
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.soak)])
def test_no_page_has_a_serious_barrier(browser, lab, scheme):
    with tab(browser, lab.url, scheme=scheme) as page:
        for name in PAGES:
            visit(page, name)
            page.wait_for_timeout(300)  # what is live has been filled in
            assert findings(page) == [], f"on {name or 'the overview'}"
            picture(page, name, scheme, "desk")


def test_a_phone_scrolls_no_page_sideways(browser, lab):
    with tab(browser, lab.url, size=PHONE, scheme="dark") as page:
        for name in PAGES:
            visit(page, name)
            page.wait_for_timeout(300)
            wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{name or 'the overview'} is {wide} pixels too wide"
            assert findings(page) == [], f"on {name or 'the overview'}"
            picture(page, name, "dark", "phone")


def test_everything_can_be_reached_by_keyboard(lab, page):
    visit(page, "devices")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("() => document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )
    for word in ("Skip to the page", "Devices", "Reserve…"):
        assert word in seen
    assert any(label and label.startswith("Reboot ") for label in seen)
    page.get_by_role("button", name="Reserve…").focus()
    page.keyboard.press("Enter")
    page.locator(".q-dialog").wait_for()
    page.keyboard.press("Escape")
    page.locator(".q-dialog").wait_for(state="detached")


def test_an_open_tab_recovers_when_control_is_killed_and_started_again(lab, page):
    visit(page, "devices")
    page.locator("tr[data-key]").first.wait_for()
    lab.control.kill()
    lab.start()
    lab.post("/api/approvals", {"title": "After the restart", "by": "x", "action": {"kind": "other"}})
    wait_for(lambda: lab.get("/api/fleet/workers")[0]["state"] == "online", 60)
    [taken] = wait_for(lambda: reserved(lab), 60, every_s=0.5)
    page.locator(f'tr[data-key="{taken["serial"]}"]').get_by_text("after-restart").wait_for()


def reserved(lab):
    try:
        return lab.post("/reserve", {"amount": 1, "name": "after-restart", "kind": "pulsecount", "args": {}})
    except OSError:  # 409 until the worker has told of its boards
        return None


def test_nothing_secret_is_on_any_page_or_in_any_log(lab, page):
    for name in PAGES:
        visit(page, name)
        text = page.content()
        for secret in ("hunter22", "fst_", "fsl_", "fss_"):
            assert secret not in text
    for process in (lab.control, *lab.cameras):
        for secret in ("hunter22", "fst_", "fsl_", "fss_"):
            assert secret not in process.output
