"""Unmodified published clients do on our servers what their README says, with the results our own client gets."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fieldstation.fleet import PulseCountClient, VarMaxClient

pytestmark = pytest.mark.timeout(120)


def our_results(url: str, kind: str, circuits: list[Path]) -> dict[tuple[str, str], Any]:
    cls = PulseCountClient if kind == "pulsecount" else VarMaxClient
    with cls(url, "ours", logging.getLogger("ours")) as client:
        client.reserve(3, wait_for_available=True)
        return {(serial, str(path)): value for serial, path, value in client.evaluateBitstreams(circuits)}


@pytest.mark.parametrize("kind", ["pulsecount", "variance"])
def test_values_are_those_of_our_own_client(published: Any, all_free: Any, circuits: list[Path], kind: str) -> None:
    expected = our_results(all_free.url, kind, circuits)
    report = published.run(all_free.url, "published", kind, "evaluate", *circuits)
    number = int if kind == "pulsecount" else float
    found = {(serial, path): number(value) for serial, path, value in report["results"]}
    assert found == {key: expected[key] for key in found}
    assert len(found) == 2 * len(circuits)
    # The boards tell files and each other apart, so equal values mean that the right file reached the right board.
    assert len(set(expected.values())) == len(expected)
    assert report["available"] == 3
    assert len(report["reserved"]) == 2
    assert report["extended"] == report["reserved"]
    assert len(report["ended"]) == len(report["second"]) == 1
    assert len(report["again"]) == 2
    assert len(report["ended_all"]) == 2
    assert report["serials"] == []


def test_a_hundred_and_twenty_evaluations_all_come_back(published: Any, all_free: Any, circuits: list[Path]) -> None:
    report = published.run(all_free.url, "published", "pulsecount", "many", *circuits)
    assert len(report["results"]) == 2 * 20 * len(circuits)
    values: dict[tuple[str, str], set[str]] = {}
    for serial, path, value in report["results"]:
        values.setdefault((serial, path), set()).add(value)
    assert all(len(found) == 1 for found in values.values())


def test_rebooted_devices_work_again(published: Any, all_free: Any, circuits: list[Path]) -> None:
    report = published.run(all_free.url, "published", "pulsecount", "reboot", *circuits)
    assert report["not_back"] == []
    assert len(report["results"]) == 2 * len(circuits)


def test_control_killed_and_restarted_is_not_noticed(published: Any, all_free: Any, circuits: list[Path]) -> None:
    process = published.start(all_free.url, "published", "pulsecount", "hold", *circuits * 10)
    assert process.stdout.readline() == "held\n"
    all_free.control.kill()
    all_free.start_control()
    out, errors = process.communicate("go on\n", timeout=40)
    assert process.returncode == 0, errors
    report = json.loads(out)
    assert len(report["results"]) == 2 * 10 * len(circuits)
    assert report["ended_all"] == report["reserved"]


def test_a_killed_published_client_loses_its_devices_to_the_next(published: Any, all_free: Any) -> None:
    process = published.start(all_free.url, "published", "pulsecount", "hold")
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    with PulseCountClient(all_free.url, "published", logging.getLogger("ours")) as client:
        # The same client name may end what the killed program held; others wait for the grace time.
        assert len(client.endAll() or []) == 2
