import importlib
import json
import sys
import types
from importlib import metadata

import pytest

from fieldstation.core import plugins
from fieldstation.core.errors import MissingExtraError


class Entry:
    """An installed distribution's entry point, without the installing."""

    def __init__(self, name, target, error=None, distribution="lab-drivers"):
        self.name, self.value = name, "lab:driver"
        self.dist = types.SimpleNamespace(name=distribution, version="1.2")
        self._target, self._error = target, error

    def load(self):
        if self._error is not None:
            raise self._error
        return self._target


class Entries(list):
    @property
    def names(self):
        return {entry.name for entry in self}

    def select(self, name):
        return Entries(entry for entry in self if entry.name == name)


@pytest.fixture
def installed(monkeypatch):
    entries = Entries()
    groups = {"fieldstation.drivers": entries}
    monkeypatch.setattr(metadata, "entry_points", lambda group: groups.get(group, Entries()))
    return entries


def test_a_plugin_is_found_by_its_name(installed):
    installed.append(Entry("pico2_ice", target="the driver"))
    assert plugins.load("drivers", "pico2_ice") == "the driver"


def test_an_unknown_name_lists_what_is_here(installed):
    installed.append(Entry("pico2_ice", None))
    with pytest.raises(plugins.UnknownPluginError, match="no driver named 'pico3_ice' here; found: pico2_ice"):
        plugins.load("drivers", "pico3_ice")


def test_a_plugin_that_does_not_load_names_its_package_and_the_cause(installed):
    installed.append(Entry("odd", None, error=ZeroDivisionError("division by zero")))
    with pytest.raises(plugins.BrokenPluginError, match=r"'odd' from lab-drivers 1.2 .* ZeroDivisionError: division"):
        plugins.load("drivers", "odd")


def test_two_packages_with_one_name_are_refused_instead_of_guessed(installed):
    installed.extend([Entry("twin", 1), Entry("twin", 2, distribution="other-drivers")])
    with pytest.raises(plugins.AmbiguousPluginError, match=r"lab-drivers 1.2 and other-drivers 1.2"):
        plugins.load("drivers", "twin")


def test_a_missing_extra_of_a_plugin_keeps_its_own_sentence(installed):
    installed.append(Entry("usb", None, error=MissingExtraError(feature="usb", extra="usb")))
    with pytest.raises(MissingExtraError, match=r"fieldstation\[usb\]"):
        plugins.load("drivers", "usb")


def test_the_listing_tries_each_and_says_why_one_does_not_load(installed):
    installed.extend([Entry("b", None, error=ValueError("bad")), Entry("a", None)])
    found = plugins.listing()
    assert [(plugin.group, plugin.name, plugin.problem) for plugin in found] == [
        ("drivers", "a", None),
        ("drivers", "b", "ValueError: bad"),
    ]


def test_require_imports_or_says_what_to_install():
    assert plugins.require("json", extra="x", feature="f") is sys.modules["json"]
    with pytest.raises(MissingExtraError, match=r"^Frames needs packages .* pip install 'fieldstation\[stream\]'$"):
        plugins.require("no_such_module_at_all", extra="stream", feature="Frames")


@pytest.fixture
def face(tmp_path, monkeypatch):
    """A package face that offers names of modules that work, need an extra, or are broken by ourselves."""
    (tmp_path / "someface.py").write_text("")
    (tmp_path / "fine_part.py").write_text("Thing = 7\n")
    (tmp_path / "extra_part.py").write_text("import not_installed_here\nOther = 1\n")
    (tmp_path / "own_part.py").write_text("import fieldstation.core.no_such_module\nMine = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import someface

    someface.__getattr__ = plugins.lazy_names(
        "someface", "lab", {"Thing": "fine_part", "Other": "extra_part", "Mine": "own_part"}
    )
    yield someface
    for name in ("someface", "fine_part", "extra_part", "own_part"):
        sys.modules.pop(name, None)


def test_a_face_imports_a_name_when_it_is_used_and_keeps_it(face):
    assert "fine_part" not in sys.modules
    assert face.Thing == 7
    assert vars(face)["Thing"] == 7


def test_a_face_says_what_to_install_for_a_name(face):
    with pytest.raises(MissingExtraError, match=r"someface.Other needs .*fieldstation\[lab\]"):
        _ = face.Other


def test_a_broken_import_of_our_own_is_not_blamed_on_an_extra(face):
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        _ = face.Mine
    assert not isinstance(caught.value, MissingExtraError)


def test_a_face_refuses_names_it_does_not_offer(face):
    with pytest.raises(AttributeError, match="module 'someface' has no attribute 'Nothing'"):
        _ = face.Nothing


def test_a_hidden_module_looks_absent_until_the_end_and_one_that_is_there_stays(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with plugins.hidden("colorsys", "json"):
        assert importlib.import_module("json") is json
        with pytest.raises(ImportError):
            importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hls
