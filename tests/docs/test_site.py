"""The site builds without a network and without a warning, asks for nothing when it is read, and its notebooks run."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"the build asks the network for {args}")

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.chdir(ROOT)
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
        config.plugins.on_startup(command="build", dirty=False)
        assert config.strict  # any warning (a dead link, a page that is in no list) ends the build
        build(config)
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in site.glob("*.html")}
    assert "verdict" in (site / "reference.html").read_text(encoding="utf-8")


def test_reading_it_asks_nobody_for_anything(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", text)
        fetched += [link for link in re.findall(r"<link[^>]+>", text) if "http" in link and "canonical" not in link]
        assert not fetched, f"{page.name} asks for {fetched}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    made = nbformat.read(notebook, as_version=4)
    assert not any(cell.get("outputs") for cell in made.cells), "outputs are made by whoever runs it"
    NotebookClient(made, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_both_notebooks_are_listed() -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 2
    assert all(f"notebooks/{notebook.name}" in page for notebook in NOTEBOOKS)


def test_the_gallery_shows_six_small_pictures_each_above_its_command() -> None:
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]{20,}\]\((pictures/[\w.-]+)\)", page)
    assert len(shown) == len(set(shown)) == 6
    assert {f"pictures/{path.name}" for path in (ROOT / "docs" / "pictures").iterdir()} == set(shown)
    assert all((ROOT / "docs" / name).stat().st_size < 60_000 for name in shown)
    for part in page.split("\n## ")[1:-1]:
        assert re.search(r"```console\nelicitable \w+", part), part.splitlines()[0]
