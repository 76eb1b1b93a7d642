"""What a person is told of a task's texts: how they were read, where they were cut, and what was really written."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
from rich.console import Console
from tests.families import reader
from tests.training.test_generate import learn

import elicitable as el
from elicitable.models.layout import Layout
from elicitable.models.model import Model
from elicitable.models.rows import rows_of
from elicitable.report.html import report_html
from elicitable.report.table import print_verdict
from elicitable.report.verdict_json import verdict_to_json
from elicitable.values import Item


class Counting:
    """Asks for the first digit of the number that is next, again and again."""

    name = "counting"

    def labels(self) -> None:
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [Item("7, 8, 9,", " 1")] * n

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return [Item("7, 8, 9,", " 1")] * (n or 8)

    def fingerprint(self) -> str:
        return "counting"


def test_an_answer_is_shown_as_it_was_written_however_short_the_target_is() -> None:
    """It was cut to the target's length: a model that wrote " 10" seemed to have written " 1", and to be wrong."""
    plain = reader("byte-level BPE")
    model = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="ten")
    learn(model, rows_of(model, [Item("7, 8, 9,", " 10")], Layout()), 30)
    answer = el.verdict(model, Counting(), methods=["zero-shot"], seeds=1, test_items=4, search_passes=8)
    [arm] = answer.arms
    assert arm.mean == 0
    assert [sample["answer"].strip() for sample in arm.samples] == ["10"] * 4
    assert '<span class="answer-text mono">10</span>' in report_html(answer).replace("> 10<", ">10<")


def test_texts_that_were_cut_are_counted_in_terminal_json_and_report(letters_model: Callable[..., Model]) -> None:
    """Rows of 12,000 words ran on a model of 128 positions without a word."""
    rows = [{"text": f"{'ab'[n % 2]} {n}{' x' * 60}", "label": "yn"[n % 2]} for n in range(60)]
    answer = el.verdict(letters_model(), rows, methods=["zero-shot"], seeds=1, test_items=8, search_passes=8)
    [arm] = answer.arms
    assert arm.cut_items == 8
    told = f"8 of 8 test texts are longer than is read and were cut by {arm.cut_tokens:,} tokens in all"
    shown = io.StringIO()
    print_verdict(answer, Console(file=shown, width=400))
    assert told in shown.getvalue()
    assert told in report_html(answer)
    kept = verdict_to_json(answer)
    assert (kept["arms"][0]["cut_items"], kept["arms"][0]["cut_tokens"]) == (8, arm.cut_tokens)
    assert any(told in warning for warning in kept["provenance"]["warnings"])


def test_how_a_file_was_read_is_said_before_a_model_is_loaded(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """A title that nobody reads shows before minutes are spent, and so before the model turns out to be missing."""
    lines = [f"film {n},a text {n},{'yn'[n % 2]}" for n in range(60)]
    (tmp_path / "films.csv").write_text("\n".join(["name,text,label", *lines]), encoding="utf-8")
    for command in (("verdict",), ("tune", "--method", "lora")):
        code, _, told = call(*command, "--model", "./nowhere", "--task", "films.csv")
        assert code == 2
        read, missing = told.index("not used  name"), told.index("error: ")
        assert told.index("films.csv: classification, 2 labels") < read < told.index("example") < missing
        assert "nowhere" in told[missing:]
