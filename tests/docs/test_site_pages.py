"""The site files and manifests that the pages show are in order, and say what the pages say they say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from fieldstation.cli.doctor import doctor
from fieldstation.cli.site import site
from fieldstation.cli.up import check
from fieldstation.pipeline.manifest import load
from fieldstation.site.errors import SiteFileError
from fieldstation.site.file import NAMED, PLAIN, SINGLE, read

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorials" / "administer-a-site.md"
BRIDGES = ROOT / "docs" / "how-to" / "bridges.md"
OPERATE = ROOT / "docs" / "how-to" / "run-a-site.md"


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_tutorials_files_are_in_order_and_its_commands_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = _blocks(TUTORIAL, "toml")
    file = tmp_path / "site.toml"
    file.write_text(one)
    said = CliRunner().invoke(check, []).output
    assert "site.toml is in order: the site hilltop" in said
    assert "fleet.worker.bench-1" in said

    assert '"site file"' in CliRunner().invoke(doctor, ["--json"]).output
    done = CliRunner().invoke(site, ["export", "systemd", "--output", "units"])
    assert done.output == "units/fieldstation-hilltop.service\n"

    file.write_text(two)
    assert read(file).machine_of("fleet.control") == "server"
    for name in ("server", "bench"):
        assert CliRunner().invoke(check, ["--machine", name]).exit_code == 0


def test_the_mistake_in_the_tutorial_is_told_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = _blocks(TUTORIAL, "toml")[0].replace("port = 8080", "prot = 8080")
    (tmp_path / "site.toml").write_text(wrong)
    with pytest.raises(SiteFileError) as caught:
        read(Path("site.toml"))
    assert f"fieldstation: {caught.value}\n" in _blocks(TUTORIAL, "text")[0]


def test_the_site_file_of_the_readme_is_in_order(tmp_path: Path) -> None:
    (text,) = _blocks(ROOT / "README.md", "toml")
    (tmp_path / "site.toml").write_text(text)
    assert len(read(tmp_path / "site.toml").roles) == 3


def test_the_manifest_of_the_bridges_is_in_order_and_the_page_names_every_bridge(tmp_path: Path) -> None:
    (text,) = _blocks(BRIDGES, "yaml")
    (tmp_path / "krt.yaml").write_text(text)
    load(tmp_path / "krt.yaml")
    images = {p["image"] for p in yaml.safe_load(text)["workflows"][0]["processes"]}
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["fieldstation.nodes"]
    ours = {f"node:{name}" for name, target in points.items() if target.startswith("fieldstation.site.bridges")}
    assert images <= ours
    assert all(f"| `{image}` |" in BRIDGES.read_text() for image in ours)


def test_every_table_of_the_site_file_is_told() -> None:
    page = OPERATE.read_text() + TUTORIAL.read_text()
    for table in [*SINGLE, *PLAIN]:
        assert f"[{'.'.join(table)}" in page
    for table in NAMED:
        assert f"`[{'.'.join(table)}.NAME]`" in OPERATE.read_text()
