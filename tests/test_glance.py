"""What an object looks like where a person types its name: a line, and a small picture in a notebook."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from tests.conftest import tiny_gpt2

import elicitable as el
from elicitable.deploy.artefact import Artefact
from elicitable.forecasting.forecast import Forecast
from elicitable.glance import bars, heat
from elicitable.microscope.inspect import inspect
from elicitable.models.load import load
from elicitable.race.checked import Checked, Finding
from elicitable.race.tuned import Tuned
from elicitable.records.trial import Outcomes, Times, TrialRecord
from elicitable.tasks.digits import DigitTask
from elicitable.values import ArmResult, Budget, Rung, Verdict

RUNG = Rung(6.0, "weights", "weights")
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "a\x1b[31m\x07\u202eb\nc<script>"


def arm(method: str, mean: float | None) -> ArmResult:
    return ArmResult(method, RUNG, {}, Budget(0, 0, 0), "ok", mean=mean, low=mean, high=mean, correct=((1,) * 10_000,))


def picture(shown: str) -> ElementTree.Element:
    """The picture of what a notebook shows, which is well-formed."""
    return ElementTree.fromstring(shown[shown.index("<svg") :])


def test_a_model_is_a_line() -> None:
    assert re.fullmatch(r"<Model tiny: GPT2LMHeadModel, [\d,]+ numbers, float64 on cpu>", repr(tiny_gpt2(10)))


def test_a_model_is_a_line_and_a_bar_for_where_its_numbers_are() -> None:
    model = tiny_gpt2(10)
    in_blocks = sum(weight.numel() for weight in model.hf.transformer.h.parameters())
    in_attention = sum(weight.numel() for block in model.hf.transformer.h for weight in block.attn.parameters())
    every = sum(weight.numel() for weight in model.hf.parameters())
    bars = list(picture(model._repr_html_()).iter(f"{SVG}rect"))
    shares = [in_attention / every, (in_blocks - in_attention) / every, 1 - in_blocks / every]
    assert [float(bar.get("width", "")) for bar in bars] == pytest.approx([300 * one for one in shares], abs=0.06)


def test_what_a_terminal_or_a_notebook_obeys_is_written_out() -> None:
    hostile = HOSTILE
    record = {"method": hostile, "task": hostile, "score": "accuracy", "mean": 0.5, "low": 0.4, "high": 0.6}
    model = tiny_gpt2(10)
    model.name = hostile
    verdict = Verdict("weights", (), (arm(hostile, 0.25),), hostile, hostile, 0.02, answer=hostile)
    tuned = Tuned(None, {**record, "numbers_trained": 1})  # type: ignore[arg-type]
    checked = Checked(hostile, hostile, (Finding("active", "fail", hostile, hostile),))
    inspection = replace(
        inspect(tiny_gpt2(10), el.context("prompt", tiny_gpt2(10), token_ids=[7]), [[3]]), model=hostile
    )
    trial = TrialRecord("ok", hostile, Times(1.0), scores={hostile: Outcomes.of_items((1, 0))})
    artefact = Artefact(Path(hostile))
    for one in (verdict, tuned, model, checked, inspection, trial, artefact):
        for shown in (repr(one), one._repr_html_()):
            assert not set(shown) & {"\x1b", "\x07", "\u202e", "\n"}
            assert "\\u202eb" in shown
        assert "<script" not in one._repr_html_()


def test_a_verdict_is_a_line_and_a_bar_for_every_arm() -> None:
    arms = (arm("zero-shot", 0.25), arm("lora", 0.875), arm("full", None))
    verdict = Verdict("weights", (), arms, "a-model", "<task>", 0.02, answer="lora")
    assert repr(verdict) == "<Verdict weights, lora 0.875: <task> on a-model, 3 arms>"
    shown = verdict._repr_html_()
    widths = [float(bar.get("width", "")) for bar in picture(shown).iter(f"{SVG}rect")]
    assert widths == pytest.approx([0.25 * 300, 0.875 * 300], abs=0.06)
    assert "&lt;task&gt;" in shown
    assert len(repr(Verdict("out-of-reach", (), (), "m", "t", 0.02))) < 80


def test_a_scope_is_a_line_and_a_map_with_layers_from_left_to_right() -> None:
    model = tiny_gpt2(10)
    with el.watch(model, el.context("prompt", model, token_ids=[7, 2])) as scope:
        model.hf(input_ids=torch.tensor([[3, 1, 2]]))
    assert repr(scope).startswith("<Scope 2 layers, 3 queries, 2 context tokens, mean prefix mass 0.")
    cells = list(picture(scope._repr_html_()).iter(f"{SVG}rect"))
    for cell in cells:
        layer, head = int(cell.get("x", "")) // 14, int(cell.get("y", "")) // 14
        assert float(cell.get("opacity", "")) == pytest.approx(float(scope.mean_mass[layer, head]), abs=6e-4)
    assert len(cells) == 4


def test_what_was_tuned_is_a_line_and_a_bar() -> None:
    record = {"method": "lora", "task": "t", "score": "accuracy", "mean": 0.5, "low": 0.4, "high": 0.6}
    tuned = Tuned(None, {**record, "numbers_trained": 1_234})  # type: ignore[arg-type]
    assert repr(tuned) == "<Tuned lora on t: accuracy 0.500 [0.400, 0.600], 1,234 numbers trained>"
    assert len(list(picture(tuned._repr_html_()).iter(f"{SVG}rect"))) == 1


def test_names_in_pictures_are_texts() -> None:
    assert "<b>" not in bars("<b>", [("<b>", 2.0, -1.0, 3.0, False)])
    assert heat("nothing", [[float("nan")]]).count("<rect") == 0


def test_what_won_what_answers_and_a_forecast_are_a_line(tmp_path: Path) -> None:
    given = {"methods": ["zero-shot"], "seeds": 1, "test_items": 20}
    el.verdict("toy:ascending", "ascending", out=tmp_path / "run", **given)
    winner = el.read(tmp_path / "run")
    told = r"zero-shot \(\w+\) for ascending on toy:ascending, exact-match \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]"
    assert winner.record is not None
    for one in (winner, el.predictor(winner)):
        [bar] = picture(one._repr_html_()).iter(f"{SVG}rect")
        assert float(bar.get("width", "")) == pytest.approx(300 * winner.record.result.mean, abs=0.06)
    assert re.fullmatch(rf"<Artefact .*run\W\w+: {told}>", repr(winner))
    assert re.fullmatch(rf"<Predictor: {told}>", repr(el.predictor(winner)))
    unknown = Forecast("m", "t\x1b[31m", 0.3, False, (), {"base_score": 0.1}, {}, prediction=None)  # type: ignore[arg-type]
    assert repr(unknown) == r"<Forecast: I do not know whether a context will do t\u001b[31m on m.>"


def cells(shown: str) -> list[list[str]]:
    """The texts of a table's rows, its head included."""
    table = ElementTree.fromstring(shown[shown.index("<table") :])
    return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]


def test_what_is_compared_is_a_line_and_a_table_or_bars() -> None:
    """Every object that a function of `el` returns has a line that fits a screen, and a picture."""
    model = load("toy:ascending")
    context = el.context("prompt", model, token_ids=[7, 2])
    assert ["keys per layer", "2"] in cells(context._repr_html_())

    checked = el.check(model, context, quick=True)
    assert re.fullmatch(r"<Checked prompt\(.*\) on toy:ascending: \d passed, nothing failed>", repr(checked))
    assert [row[:2] for row in cells(checked._repr_html_())[1:]] == [[one.name, one.status] for one in checked.findings]

    built = el.construct("theorem-1", vocab=4, length=3)
    assert repr(built) == "<Construction theorem-1: V = 4, n_X = 0, n_Y = 3, n_virtual = 1, T = 128>"
    assert ["numbers", f"{built.model.shape().parameters:,}"] in cells(built._repr_html_())

    found = el.inspect(model, context, [[3, 1, 2]])
    assert repr(found).startswith("<Inspection of prompt(token_ids=[7, 2]) in toy:ascending: 1 texts, 3 queries, 2 ")
    [cell] = picture(found._repr_html_()).iter(f"{SVG}rect")
    assert float(cell.get("opacity", "")) == pytest.approx(found.heads[0].prefix_mass, abs=6e-4)

    texts = [[3, 1, 2, 5], [5, 6, 0, 1], [1, 1, 4, 2], [2, 7, 6, 3]]
    compiled = el.compile_context(model, context, texts, rank=4, steps=0)
    assert re.match(
        r"<Compiled lora: [\d,]+ numbers, \d+\.\d{4} nats from the context, same first choice ", repr(compiled)
    )
    assert len(list(picture(compiled._repr_html_()).iter(f"{SVG}rect"))) == 3  # compiled, neither, control


def test_a_forecast_shows_what_pushes_most() -> None:
    found = el.forecast("toy:ascending", "ascending")
    head, *rows = cells(found._repr_html_())
    assert head[1:] == ["here", "pushes towards a context"]
    pushes = [abs(float(row[2])) for row in rows[not found.is_known :]]  # on unknown ground the bare score comes first
    assert pushes == sorted(pushes, reverse=True)
    assert found.reasons[0] in found._repr_html_()


def test_a_task_shows_items_of_its_validation_split() -> None:
    task = DigitTask("ascending")
    item = task.held_out("validation", 1)[0]
    assert [" ".join(map(str, item.prompt)), " ".join(map(str, item.target))] in cells(task._repr_html_())


def test_an_arm_and_what_is_listed_are_short() -> None:
    assert repr(arm("lora", 0.875)) == "<ArmResult lora: ok 0.875, 0 items, 0 seeds, 0 numbers trained>"
    assert repr(arm("full", None)) == "<ArmResult full: ok, 0 numbers trained>"
    assert all("0x" not in repr(one) for one in (*el.list_scores(), *el.list_methods(), *el.list_models()))
