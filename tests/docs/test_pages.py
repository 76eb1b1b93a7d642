"""Every page of the site is executed: its files are written, its commands typed, its snippets run, in one folder.

A fenced block says by its language what becomes of it. A block with a ``title`` is written as that file. ``python`` is
run, ``bash`` is typed, and ``output`` is what the block above it printed. ``console`` is for what needs a network, an
accelerator or hours; ``tests/test_readme.py`` holds the commands and options of every page to those that there are.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.families import reader

from elicitable.cli import main

DOCS = Path(__file__).parent.parent.parent / "docs"
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "bash", "output", "console", "csv", "jsonl", "json", "text", "sh"}
TESTED_APART = {
    "constructions.md",
    "architecture.md",
}  # the one by tests/constructions; the other shows code in passing
PAGES = sorted(page.name for page in DOCS.glob("*.md") if page.name not in TESTED_APART)
# What stands for what a reader has and a test has not: a model of 135 million numbers, and eight minutes.
IN_PLACE_OF = (("--model smollm2", "--model {model}"), ("--time-limit 8m", "--steps 2 --seeds 1"))


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with a tokenizer in a folder, as a person brings one."""
    folder = tmp_path_factory.mktemp("model") / "small"
    model = reader("byte-level BPE")
    model.hf.float().save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks_of(page: str) -> list[Block]:
    found = FENCE.findall((DOCS / page).read_text(encoding="utf-8"))
    return [Block(language, "".join(re.findall(r'title="([^"]+)"', rest)), text) for language, rest, text in found]


def typed(line: str, model: Path) -> str:
    """Type one command of a page in this process; return what it printed."""
    for shown, done in IN_PLACE_OF:
        line = line.replace(shown, done.format(model=model))
    words = shlex.split(line, comments=True)
    assert words[0] == "elicitable", line
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0, f"{line} ended with {ended.value.code}: {printed.getvalue()}"
    return printed.getvalue()


def run_page(page: str, model: Path, folder: Path) -> int:
    """Do what a page says; return how many of its blocks said something that could have been wrong."""
    names: dict[str, Any] = {}
    printed, checked = "", 0
    for block in blocks_of(page):
        assert block.language in LANGUAGES, f"{page}: nobody knows what becomes of a {block.language!r} block"
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(block.text, page, "exec"), names)
            printed = out.getvalue()
        elif block.language == "bash":
            lines = block.text.replace("\\\n", " ").splitlines()
            printed = "".join(typed(line, model) for line in lines if line.strip())
        elif block.language == "output":
            assert printed == block.text, f"{page} shows {block.text!r}, this was printed: {printed!r}"
        checked += block.language in ("python", "bash", "output") or bool(block.title)
    return checked


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(
    page: str, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page, small_model, tmp_path)


def test_a_page_that_shows_something_else_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "DOCS", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.md").write_text("```python\nprint(1 + 1)\n```\n\n```output\n3\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="this was printed"):
        run_page("wrong.md", tmp_path, tmp_path)
    (tmp_path / "typed.md").write_text("```bash\nelicitable tasks --no-such-option\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="ended with 2"):
        run_page("typed.md", tmp_path, tmp_path)


def test_the_main_road_is_executed(small_model: Path) -> None:
    languages = [block.language for block in blocks_of("csv-and-model.md")]
    assert languages.count("bash") >= 3
    assert "console" not in languages
