"""Where what was built apart meets: rules and tunes, thinking prompts, races that go on, methods that probe."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.deploy.conftest import save_letters, text_of, write_rows

import elicitable as el
from elicitable.deploy.artefact import KEPT, WINNER, folder_name
from elicitable.deploy.export import FORMS
from elicitable.deploy.forms.form import Winner
from elicitable.deploy.predict import Predictor
from elicitable.errors import InputError
from elicitable.methods.prompt import Prompt, TokenContext
from elicitable.training import evaluate

TAIL, MARKER = "\nthink first.", "so:"


@pytest.mark.parametrize("rule", ["prior-corrected", "sum"])
def test_what_was_tuned_answers_by_the_rule_that_it_was_scored_by(rule: str, tmp_path: Path) -> None:
    names = ("yes", "no way", "maybe")
    rows = [{"text": text_of(n), "label": names[(n * n + n // 3) % 3]} for n in range(140)]
    model = el.load(str(save_letters(tmp_path / "model")))
    train, test = write_rows(tmp_path / "train.csv", rows[:-40]), write_rows(tmp_path / "test.csv", rows[-40:])
    given: dict[str, Any] = {"method": "value-bias", "learning_rate": 0.1, "steps": 3, "out": tmp_path / "tuned"}
    tuned = el.tune(model, train, test=test, rule=rule, score="macro-f1", **given)
    artefact = el.read(tmp_path / "tuned")
    assert artefact.record is not None
    assert artefact.record.rule is not None
    assert artefact.record.rule.name == tuned.record["rule"]["name"] == rule
    assert (artefact.record.result.score, artefact.record.result.mean) == ("macro-f1", tuned.record["mean"])
    assert artefact.record.budget.numbers_trained == tuned.record["numbers_trained"]
    with test.open(encoding="utf-8") as file:
        wanted = [row["label"] for row in csv.DictReader(file)]
    found = [one.answer for one in el.predictor(tmp_path / "tuned")([{"text": row["text"]} for row in rows[-40:]])]
    from sklearn.metrics import f1_score

    assert f1_score(wanted, found, labels=list(names), average="macro", zero_division=0) == pytest.approx(
        tuned.record["mean"], abs=1e-12
    )


@pytest.fixture
def thinking(written_run: Any) -> Winner:
    """A prompt that has the model think first, in the place of the one that the race chose."""
    model, artefact = el.load(str(written_run.model)), el.read(written_run.folder, "prompt")
    assert artefact.record is not None
    layout = artefact.record.layout.layout()
    context = Prompt().build(model, text="Say.", layout=layout, tail=TAIL, marker=MARKER)
    return Winner(model, context, artefact.record)


def test_a_prompt_that_thinks_first_is_exported_with_what_stands_behind_every_row(
    thinking: Winner, tmp_path: Path
) -> None:
    [form] = [form for form in FORMS if form.name == "prompt"]
    form.write(thinking, tmp_path)
    assert TAIL in (tmp_path / "prompt.txt").read_text(encoding="utf-8")
    assert f"behind the last `{MARKER}`" in form.usage(thinking)


def test_how_long_an_answer_may_be_holds_where_the_model_thinks_first(
    thinking: Winner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    generate = evaluate.generate

    def seen(model: Any, rows: Any, layout: Any, most: Any, *more: Any) -> Any:
        asked.append(most)
        return generate(model, rows, layout, most, *more)

    monkeypatch.setattr(evaluate, "generate", seen)
    Predictor(thinking.model, thinking.adaptation, thinking.record, max_answer=3).one("say it now")
    assert asked == [3]


def test_a_prompt_that_thinks_first_is_not_compiled(thinking: Winner) -> None:
    assert isinstance(thinking.adaptation, TokenContext)
    with pytest.raises(InputError, match="no context to compile"):
        el.compile_context(thinking.model, thinking.adaptation, ["say it now"] * 20)


def test_the_winner_comes_before_what_an_earlier_race_kept_of_its_method(written_run: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(written_run.folder / WINNER, run / WINNER)
    winner = el.read(run)
    assert winner.record is not None
    shutil.copytree(run / WINNER, run / KEPT / folder_name(winner.record.method))
    assert el.read(run).folder == el.read(run, winner.record.method).folder == run / WINNER


def test_a_method_that_probes_is_read_again_like_any_other(tmp_path: Path) -> None:
    model = el.load("toy:ascending")
    methods = ["values-and-output"]
    el.verdict(model, "ascending", methods=methods, budget=10**6, steps=2, seeds=1, test_items=64, out=tmp_path)
    artefact = el.read(tmp_path)
    ids = model.ids([3, 1, 2, 0, 5])
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with el.use(model, artefact):
            assert not torch.equal(model(input_ids=ids).logits, plain)
