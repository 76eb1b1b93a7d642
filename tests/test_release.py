"""What is released: a wheel and a source archive that hold what they must and nothing else, with one version."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tomllib
import zipfile
from importlib.metadata import metadata
from pathlib import Path

import pytest

import elicitable

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = ("py.typed", "report/templates/report.html.j2", "report/templates/report.css", "report/templates/glossary.md")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from hatchling.builders.sdist import SdistBuilder
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("dist")
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    return Path(wheel), Path(next(SdistBuilder(str(ROOT)).build(directory=str(folder))))


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
    package = ROOT / "src" / "elicitable"
    there = {
        f"elicitable/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("elicitable/")} == there
    assert all(f"elicitable/{name}" in names for name in NEEDED)
    rest = {name.split("/", 1)[1] for name in names - there}
    assert rest == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def test_the_source_archive_can_be_tested(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        tops = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    wanted = {"src", "tests", "docs", "records", "benchmarks", "Makefile", "README.md", "LICENSE", "pyproject.toml"}
    assert wanted <= tops
    assert not tops & {".venv", "elicitable-runs", "site", "build", "dist"}


def test_there_is_one_version() -> None:
    version = elicitable.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert newest is not None
    assert newest.group(1) in ("Unreleased", version)


def test_fragments_of_the_changelog_are_named_and_written_as_they_are_read() -> None:
    found = sorted((ROOT / "changelog.d").iterdir())
    assert (ROOT / "changelog.d" / "README.md") in found
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert path.name == "README.md" or re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md", path.name)
        assert text.endswith(".\n"), path.name
        assert path.name == "README.md" or not text.startswith(("*", "#", "-")), path.name
    printed = subprocess.run(["make", "-s", "-C", str(ROOT), "changelog"], capture_output=True, text=True, check=True)
    assert printed.stdout.count("* ") >= len(found) - 1


def test_the_licence_of_every_dependency_is_listed() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| ([\w.-]+) \| (.+?) \|$", page, flags=re.MULTILINE))
    asked = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    names = {re.match(r"[\w.-]+", one).group(0) for one in asked} - {"elicitable"}  # type: ignore[union-attr]
    assert names == set(listed) - {"package"}
    for name in names:
        found = metadata(name)
        said = " ".join(
            [found.get("License-Expression") or "", found.get("License") or "", *found.get_all("Classifier", [])]
        )
        assert listed[name] in said, name
