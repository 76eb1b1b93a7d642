"""What the README and the pages of the documentation say is so: snippets run, and names and numbers are looked up."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

import elicitable

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
    seeds, hours, *outcomes = re.search(
        r"Preset paper, (\d+) seeds, ([\d.]+) h of trials on one core each: "
        r"(\d+) reproduced, (\d+) differs, (\d+) not settled",
        results,
    ).groups()
    reproduced, differs, open_ = map(int, outcomes)
    companion = re.search(r"\| together \|.*\| ([\d.]+) h \|\n", results).group(1)
    readme, page = ((ROOT / name).read_text() for name in ("README.md", "docs/reproduction.md"))
    assert f"all {seeds} seeds" in readme
    told = f"{reproduced} of {reproduced + differs + open_} claims are reproduced, {differs} differ and {open_} are not"
    assert told in readme
    assert {"10": "all ten seeds"}[seeds] in page
    assert f"{hours} hours of one core, beside {round(float(companion))} that" in page.replace("\n", " ")


def test_the_labels_that_the_readme_lists_are_those_there_are() -> None:
    from elicitable.diagnosis.verdict import CONTEXT, OPEN_LABELS
    from elicitable.methods.catalog import EXTRAS, METHODS

    listed = re.search(r"The answer is one of (.*?);", (ROOT / "README.md").read_text(), flags=re.DOTALL).group(1)
    labels = dict.fromkeys(one.rung.label for one in (*METHODS, *EXTRAS) if not one.is_control)
    found = re.findall(r"`([\w-]+)`", listed)
    assert found.index(CONTEXT) == found.index("prefix") + 1  # which it may stand for
    assert [label for label in found if label != CONTEXT] == [*labels, *OPEN_LABELS]


def test_the_words_for_why_an_arm_stopped_are_those_of_the_page_on_verdicts() -> None:
    from elicitable.diagnosis.tried import LEFT

    listed = [
        word for row in table_of("docs/reading-a-verdict.md", "stopped") for word in re.findall(r"`([^`]+)`", row[0])
    ]
    assert listed == ["solved", "plateau", LEFT, "steps", "time", "passes", "all candidates tried"]
    code = (ROOT / "src/elicitable/values.py").read_text(encoding="utf-8")
    told = re.search(r'stopped: str = ""  # (.*)', code).group(1)
    assert re.findall(r'"([^"]+)"', told) == listed


def test_the_python_version_of_the_readme_is_that_of_the_package() -> None:
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()
    assert "Python 3.11 or newer" in (ROOT / "README.md").read_text()


WRITTEN = ("figures/", "results.md", "aside/", "winner/", "kept/")  # by `elicitable reproduce`, into its folder
ROOMS = "|".join(["elicitable", *(path.name for path in Path(elicitable.__file__).parent.iterdir() if path.is_dir())])
PAST_OR_MADE = {ROOT / "docs" / "log.md", ROOT / "docs" / "command-line.md"}  # what was, and what the help says
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*(ROOT / "docs").glob("*.md")} - PAST_OR_MADE)]


def text_of(name: str) -> str:
    """A page in one line, so that a fact may stand on either side of a line break."""
    return re.sub(r"\s+", " ", (ROOT / name).read_text(encoding="utf-8"))


def table_of(page: str, head: str) -> list[list[str]]:
    """The rows of the table whose first head is ``head``, cell by cell."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def commands_of(page: Path) -> list[str]:
    """Every command that a page shows: in its blocks, in indented lines, and in the middle of a sentence."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:console|bash)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    typed = re.findall(r"^(elicitable (?!--)[^\n#]+)", "\n".join(blocks), flags=re.MULTILINE)
    return [*typed, *re.findall(r"(?:^ {4}|\.venv/bin/|`)(elicitable (?!--)[^`\n#]+)", text, flags=re.MULTILINE)]


def test_commands_are_found() -> None:
    found = {page.name: commands_of(page) for page in PAGES}
    assert all(found[name] for name in ("README.md", "csv-and-model.md", "gallery.md", "machines.md", "tasks.md"))
    assert any("\\" not in line and line.count("--") > 5 for line in found["gallery.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_is_one_that_there_is(page: Path) -> None:
    from elicitable.cli.docs import helps

    shown = dict(helps())
    for line in commands_of(page):
        words = line.split()
        command = " ".join(words[:3]) if " ".join(words[:3]) in shown else " ".join(words[:2])
        assert command in shown, line
        for option in re.findall(r"--[a-z-]+", line):
            assert re.search(rf"{option}\b", shown[command]), f"{line}: {command} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_every_name_of_the_package_that_a_page_mentions_is_there(page: Path) -> None:
    package = ROOT / "src" / "elicitable"
    for name in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        if re.fullmatch(r"(?!my_|tasks/my_)[\w/]+(\.py|\.md|/)", name) and name not in WRITTEN:
            assert any((root / name).exists() for root in (ROOT, package)) or list(package.rglob(name)), name
        elif re.fullmatch(rf"({ROOMS})(\.\w+)+", name):
            found: Any = elicitable
            for part in name.removeprefix("elicitable.").split("."):
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(f"{getattr(found, '__name__', '')}.{part}")
                found = getattr(found, part)


def test_the_models_and_formats_of_the_readme_are_those_there_are() -> None:
    from elicitable.models.load import catalog as models
    from elicitable.tasks.base import Task
    from elicitable.tasks.catalog import catalog as tasks
    from elicitable.tasks.files import suffix_of

    readme = text_of("README.md")
    for card in models():
        assert f"`{card.name}`" in readme
    assert set(re.findall(r"--task ([\w-]+) ", readme)) | {"movie-reviews"} <= set(tasks())
    assert re.search(r"a CSV, TSV, JSON, Parquet or Arrow file", readme)
    assert all(suffix_of(Path(f"rows.{kind}")) for kind in ("csv", "tsv", "json", "parquet", "arrow"))
    methods = [name for name in vars(Task) if not name.startswith("_") and callable(getattr(Task, name))]
    assert f"an object with four methods ({', '.join(f'`{name}`' for name in methods)})" in readme


def test_the_rooms_that_the_page_on_architecture_lists_are_the_folders_there_are() -> None:
    package = ROOT / "src" / "elicitable"
    listed = {name.strip("/") for row in table_of("docs/architecture.md", "room") for name in row[0].split("`")[1::2]}
    there = {path.stem for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert listed == there - {"__init__", "__main__", "__pycache__"}


def test_the_rules_of_a_race_are_those_of_the_page_on_architecture() -> None:
    from elicitable.diagnosis.looks import ALPHA, level_after
    from elicitable.diagnosis.tried import FEWEST_STEPS
    from elicitable.diagnosis.verdict import OWED, SHARE
    from elicitable.race import seeds

    page = text_of("docs/architecture.md")
    assert f"every other arm is owed {['', 'once', 'twice'][SHARE]} as many steps, and at least {OWED}" in page
    assert f"up to {['no', 'one', 'two', 'three'][seeds.EXTRA]} more where the interval" in page
    assert (
        f"share the {100 * ALPHA:.0f} % (`diagnosis/looks.py`): the first gets {100 * (1 - level_after(0)):.0f}" in page
    )
    assert f"An arm cut off within the {FEWEST_STEPS} steps of the warm-up is not judged" in page


def test_the_processors_of_the_page_on_architecture_are_those_that_are_told_apart() -> None:
    from elicitable.models.speed import processor

    page, code = text_of("docs/architecture.md"), Path(processor.__file__).read_text(encoding="utf-8")
    kinds = re.search(r"names its kind: (.*?), elsewhere", page).group(1)
    assert all(f'"{kind}"' in code for kind in re.findall(r"`([\w-]+)`", kinds))


def test_the_experiments_that_the_page_on_reproduction_lists_are_those_there_are() -> None:
    from elicitable.executors.executor import EXECUTORS
    from elicitable.experiments.catalog import EXPERIMENTS
    from elicitable.experiments.experiment import PRESETS
    from elicitable.lab.jobs import CHECKPOINT_SECONDS

    rows = table_of("docs/reproduction.md", "experiment")
    sections = [experiment.source.removeprefix("section ") for experiment in EXPERIMENTS]
    assert [(row[0].strip("`"), row[1]) for row in rows] == [
        (one.name, section) for one, section in zip(EXPERIMENTS, sections, strict=True)
    ]
    page, number = text_of("docs/reproduction.md"), ["no", "one", "two", "three", "four", "five", "six", "seven"]
    assert f"all {number[len(EXPERIMENTS)]} experiments" in page
    assert {preset.name: preset.seeds for preset in PRESETS} == {"quick": 1, "paper": 10}
    assert "The preset `quick` runs one seed, and `paper` runs ten." in page
    assert [row[0].strip("`") for row in table_of("docs/reproduction.md", "executor")] == list(EXECUTORS)
    assert ("keeps a checkpoint every minute" in page, CHECKPOINT_SECONDS) == (True, 60.0)


def test_the_figures_that_the_page_on_reproduction_lists_are_those_that_are_drawn() -> None:
    from elicitable.report.experiment_figures import FIGURES

    listed = {kind.strip() for row in table_of("docs/reproduction.md", "figure") for kind in row[0].split(",")}
    assert listed == set(FIGURES) - {"bars"}


def test_the_quick_preset_takes_as_long_as_the_page_on_reproduction_says() -> None:
    from elicitable.lab.reproduce import tables
    from elicitable.report.reproduction import summary

    said = re.search(r"over a copy of `records/paper` prints ([\d.]+ h)", text_of("docs/reproduction.md")).group(1)
    assert f" {said} of trials" in summary(tables(preset="quick", out=ROOT / "records" / "paper"))


def test_the_budget_that_the_page_on_reproduction_names_is_that_of_the_experiment() -> None:
    from elicitable.experiments.catalog import experiments_named
    from elicitable.experiments.experiment import Adapt, Pretrain

    [experiment] = experiments_named(["same-budget"])
    toys = {trial.name: trial.toy for trial in experiment.trials if isinstance(trial, Pretrain)}
    prefixes = [one for one in experiment.trials if isinstance(one, Adapt) and one.method == "kv-prefix"]
    numbers = {2 * toys[one.base].layers * toys[one.base].d_model * one.size for one in prefixes}
    assert {f"{number:,}" for number in numbers} == set(
        re.findall(r"([\d,]{6,}) numbers", text_of("docs/reproduction.md"))
    )


def test_what_the_page_on_the_microscope_leaves_out_is_what_is_left_out() -> None:
    from elicitable.race.inside import HEADS, RANGES

    page = text_of("docs/microscope.md")
    assert f"each {['', '', 'half', 'third', 'quarter', 'fifth', 'sixth'][RANGES]} of the depth" in page
    assert (
        f"each of the {['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'][HEADS]} heads" in page
    )


def test_the_places_that_contributing_names_hold_what_it_names() -> None:
    page = text_of("CONTRIBUTING.md")
    for name, place in re.findall(r"`([A-Z_]+)` in `([\w/]+\.py)`", page):
        assert hasattr(importlib.import_module(f"elicitable.{place[:-3].replace('/', '.')}"), name), name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([\w-]+)`", page):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
