"""Every name and every signature of the document is there. `document.md` is the document itself."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).with_name("document.md").read_text()

# Where the document's modules are now. What it calls `src.types`, `src.utils` is the package's face.
MODULES = {
    "src.constants.py": "constants",
    "src.main.py": "main",
    "src.backend.tenta_backend.py": "backend.tenta_backend",
    "src.backend.thingsboard_backend.py": "backend.thingsboard_backend",
    "src.procedures.dummy_procedure.py": "procedures.dummy_procedure",
    "src.procedures.system_checks.py": "procedures.system_checks",
    "src.types.config.py": "config",
    "src.types.messages.py": "messages",
    "src.types.state.py": "state",
    "src.utils.functions.py": "functions",
    "src.utils.lifecycle_manager.py": "lifecycle",
    "src.utils.logger.py": "logger",
    "src.utils.mainloop_toggle.py": "toggle",
    "src.utils.messaging_agent.py": "agent",
    "src.utils.state_interface.py": "state",
    "src.utils.updater.py": "updater",
}
# Names that live elsewhere than their neighbours in the document.
ELSEWHERE = {
    "get_time_to_next_datapoint": "grid",
    "log_level_is_visible": "constants",
    "with_automation_lock": "lock",
    "SCRIPT_PATH": "constants",
    "ACTIVE_QUEUE_FILE": "constants",
    "MESSAGE_ARCHIVE_DIR": "constants",
    "MESSAGE_ARCHIVE_DIR_LOCK": "constants",
    "STATE_FILE": "constants",
    "STATE_FILE_LOCK": "constants",
}


def find(module: str, name: str):
    return getattr(importlib.import_module(f"fieldstation.station.{ELSEWHERE.get(name, MODULES[module])}"), name)


def documented():
    """Yield (module, class or None, name, parameters or None for a variable or class, whether static)."""
    module = owner = None
    lines = DOCUMENT.splitlines()
    for number, line in enumerate(lines):
        if found := re.match(r"#{2,4} `(src\.[\w.]+)`", line):
            module, owner = found[1], None
        elif found := re.match(r"#{3,4} Class `(\w+)`", line):
            owner = found[1]
            yield module, None, owner, None, False
        elif re.match(r"#{3,5} (Functions|Variables)", line):
            owner = None
        elif found := re.fullmatch(r"([A-Z_]+): .+", line):
            yield module, None, found[1], None, False
        elif (found := re.match(r"def (\w+)\(", line)) and module in MODULES:
            text = ""
            for following in lines[number:]:
                text += following.strip() + " "
                if "->" in following:
                    break
            names = re.findall(r"(\w+): ", text.partition("->")[0])
            names = ["self", *names] if "self," in text else names
            static = any("@staticmethod" in before for before in lines[number - 4 : number])
            yield module, owner, found[1], names, static


ALL = list(documented())


def test_the_document_was_read():
    assert len([entry for entry in ALL if entry[3] is not None]) == 47
    assert {"Config", "MessagingAgent", "State", "Updater", "Logger"} <= {entry[2] for entry in ALL}


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: ".".join(filter(None, (entry[0], entry[1], entry[2]))))
def test_every_documented_name_has_the_documented_signature(entry, home):
    module, owner, name, parameters, static = entry
    if parameters is None:
        assert find(module, name) is not None
        return
    target = inspect.getattr_static(find(module, owner), name) if owner else find(module, name)
    if static:
        assert isinstance(target, (staticmethod, classmethod)), f"{owner}.{name} is called on the class"
    function = inspect.unwrap(getattr(target, "__func__", target))
    ours = list(inspect.signature(function).parameters.values())
    if isinstance(target, classmethod):
        ours = ours[1:]
    assert [p.name for p in ours[: len(parameters)]] == parameters
    # What we add may be left out.
    assert all(p.default is not p.empty or p.kind is p.KEYWORD_ONLY for p in ours[len(parameters) :])


@pytest.mark.parametrize("name", ["Config", "ForeignConfig", "State", "StateInterface", "MessagingAgent", "Logger",
                                  "LifecycleManager", "MainloopToggle", "Updater", "get_time_to_next_datapoint",
                                  "DataMessageBody", "LogMessageBody", "ConfigMessageBody", "MessageArchiveItem",
                                  "MessageQueueItem", "with_automation_lock", "log_level_is_visible"])  # fmt: skip
def test_the_face_offers_every_name_a_station_imports(name):
    assert getattr(importlib.import_module("fieldstation.station"), name) is not None


def test_the_constants_have_their_documented_values(home):
    from fieldstation.station import constants

    assert constants.LOGGING_LEVEL_PRIORITIES == {"DEBUG": 0, "INFO": 1, "WARNING": 2, "ERROR": 3, "EXCEPTION": 4}
    assert constants.SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN == 30
    assert constants.SECONDS_BEYOND_DRAIN == 120
    assert constants.NAME == "ivy"
    assert constants.VERSION.as_identifier() == "1.2.3"
    assert constants.VERSION.as_tag() == "v1.2.3"
    assert str(home) == constants.PROJECT_DIR
    assert str(home / "data" / "active-message-queue.sqlite3") == constants.ACTIVE_QUEUE_FILE
    assert str(home / "data" / "messages") == constants.MESSAGE_ARCHIVE_DIR
    assert str(home / "data" / "state.json") == constants.STATE_FILE


def test_a_development_copy_belongs_to_the_documented_root(home, monkeypatch, tmp_path):
    from fieldstation.station import constants

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FIELDSTATION_STATION_DIR", str(tmp_path))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "roof"\nversion = "0.1.0"\n')
    assert str(tmp_path / "Documents" / "roof") == constants.IVY_ROOT_DIR
    monkeypatch.setenv("IVY_ROOT_DIR", "/srv/roof")
    assert constants.IVY_ROOT_DIR == "/srv/roof"


@pytest.mark.parametrize(
    ("minimum", "level", "visible"),
    [(None, "EXCEPTION", False), ("DEBUG", "DEBUG", True), ("WARNING", "INFO", False), ("ERROR", "EXCEPTION", True)],
)
def test_a_level_is_visible_from_its_minimum_on(minimum, level, visible):
    from fieldstation.station import log_level_is_visible

    assert log_level_is_visible(minimum, level) is visible
