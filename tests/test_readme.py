"""What the README shows is run, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAIRS = re.findall(r"```python\n(.*?)```\n\n```output\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_there_are_snippets() -> None:
    assert PAIRS


@pytest.mark.parametrize(("code", "output"), PAIRS)
def test_a_snippet_prints_what_the_readme_says(code: str, output: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == output


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_records_are_what_the_readme_and_the_page_on_reproduction_say() -> None:
    results = (ROOT / "records" / "paper" / "results.md").read_text()
    seeds, hours, reproduced, differs = re.search(
        r"Preset paper, (\d+) seeds, ([\d.]+) h of trials on one core each: (\d+) reproduced, (\d+) differs", results
    ).groups()
    companion = re.search(r"\| together \|.*\| ([\d.]+) h \|\n", results).group(1)
    readme, page = ((ROOT / name).read_text() for name in ("README.md", "docs/reproduction.md"))
    assert f"all {seeds} seeds" in readme
    assert f"{reproduced} of {int(reproduced) + int(differs)} claims" in readme
    assert {"10": "all ten seeds"}[seeds] in page
    assert f"{hours} hours of one core, beside {round(float(companion))} that" in page.replace("\n", " ")


def test_the_labels_that_the_readme_lists_are_those_there_are() -> None:
    from elicitable.diagnosis.verdict import OPEN_LABELS
    from elicitable.methods.catalog import METHODS

    listed = re.search(r"The answer is one of (.*?);", (ROOT / "README.md").read_text(), flags=re.DOTALL).group(1)
    labels = dict.fromkeys(method.rung.label for method in METHODS if not method.is_control)
    assert re.findall(r"`([\w-]+)`", listed) == [*labels, *OPEN_LABELS]


def test_the_python_version_of_the_readme_is_that_of_the_package() -> None:
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()
    assert "Python 3.11 or newer" in (ROOT / "README.md").read_text()
