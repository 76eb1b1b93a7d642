"""A forecast as a person asks for it: one sentence, what pushes, what it does not know, and what to type next."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import elicitable as el
from elicitable.errors import InputError, StoreError
from elicitable.forecasting import forecast as asked
from elicitable.forecasting.forecast import Forecast, in_words
from elicitable.forecasting.model import read_forecaster, shipped
from elicitable.forecasting.names import SIGNALS
from elicitable.forecasting.pace import Pace
from elicitable.models.model import Model
from elicitable.report.forecast import print_forecast, pushed

QUICK = Pace(16, 6, 40, 3, 8, (1,), 4, 1, (1, 2, 3))
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elicitable.forecasting.signals.pace_for", lambda model: QUICK)


def made(**changed: float) -> Forecast:
    """A forecast from the means of the training, with some signals changed."""
    forecaster = shipped()
    values = dict(zip(forecaster.signals, forecaster.means, strict=True)) | dict(forecaster.border.constant) | changed
    found = forecaster.predict(values)
    reasons = tuple(in_words(forecaster.border.constant, name, values[name]) for name in found.reasons)
    return Forecast("toy", "task", found.probability, found.is_known, reasons, values, {"all": 8.0}, found)


def printed(found: Forecast, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    words = {name: plain for name, (_, plain) in SIGNALS.items()}
    print_forecast(found, words, found.command(["--model", "toy", "--task", "task"]), console)
    return console.export_text()


def test_the_command_says_that_it_does_not_know_a_text_model(call: Call, small: Path, tmp_path: Path) -> None:
    rows = "text,label\n" + "".join(
        f"thing {'a' * (n % 9)}{'bc'[n % 2]}{'d' * (n // 18)},{'yes' if n % 2 else 'no'}\n" for n in range(60)
    )
    (tmp_path / "rows.csv").write_text(rows, encoding="utf-8")
    out = tmp_path / "out"
    given = ("--model", str(small), "--task", str(tmp_path / "rows.csv"), "--seed", "3", "--out", str(out), "--quiet")
    asked_for = ("forecast", *given)
    code, text, error = call(*asked_for)
    assert (code, error) == (0, "")
    assert text.startswith("I do not know whether a context will do rows")
    assert "trained on synthetic tasks" in " ".join(text.split())
    assert max(map(len, text.split("Next")[0].splitlines())) <= 80
    assert f"elicitable verdict --model {small} --task" in text
    kept = json.loads((out / "forecast.json").read_text(encoding="utf-8"))
    assert (kept["is_known"], set(kept["signals"])) == (False, {*shipped().signals, *shipped().border.constant})
    code, text, _ = call(*asked_for, "--json")
    again = json.loads(text)
    assert re.fullmatch(r"elicitable verdict .* --seed 3", again.pop("next"))
    assert {**again, "seconds": 0} == {**kept, "seconds": 0}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.families import reader

    folder = tmp_path_factory.mktemp("model") / "small"
    model = reader("byte-level BPE")
    model.hf.float().save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def test_what_is_printed_fits_80_columns_and_says_what_follows() -> None:
    text = printed(made())
    assert max(map(len, text.splitlines())) <= 80
    assert re.match(r"A context will do task on toy with probability 0\.\d\d\.\n", text)
    assert len(re.findall(r"(a context|weights|neither) +[+-]\d\.\d\d", text)) == 8
    assert re.search(r"16  [01]\.\d\d \([01]\.\d\d to [01]\.\d\d\)", text)
    assert "without the test split" in text
    assert re.search(r"rows  kv-prefix +lora", text)  # the arms by name
    assert "Expected after 60 steps of each at one learning rate" in text
    assert "not what a finished race comes to" in " ".join(text.split())
    lines = text.splitlines()
    assert lines[next(nth for nth, line in enumerate(lines) if line.startswith("Expected")) + 1].startswith(
        "fast it goes"
    )
    far = printed(made(is_text=1.0))
    assert far.startswith("I do not know whether a context will do task on toy.\n")
    assert "So no score is foretold." in far
    assert re.search(r"signal +here\nscore as it is +[01]\.\d\d\n", far)  # what a person can use
    done = printed(made(is_text=1.0, base_score=0.98))
    said = "toy does task as it is (0.98 on validation); I do not know whether a context will do better."
    assert " ".join(done.split()).startswith(said)
    assert "rows" not in far
    assert "pushes" not in far
    assert max(map(len, far.split("Next")[0].splitlines())) <= 80
    reason = "its signals lie far from those of the training, most of all: answer tokens that stand in the prompt"
    told = printed(replace(made(is_text=1.0), reasons=(reason,)))
    assert "answer tokens\n    that stand in the prompt\n" in told  # broken behind its indent


@pytest.mark.parametrize(
    ("probability", "base", "is_known", "wanted"),
    [
        (0.95, 0.0, True, "elicitable tune --model toy --task task --method kv-prefix"),
        (0.05, 0.0, True, "elicitable tune --model toy --task task --method lora"),
        (0.5, 0.0, True, "elicitable verdict --model toy --task task"),
        (0.95, 0.95, True, "elicitable verdict --model toy --task task"),
        (0.95, 0.0, False, "elicitable verdict --model toy --task task"),
    ],
)
def test_the_next_command_is_for_what_is_known(probability: float, base: float, is_known: bool, wanted: str) -> None:
    found = replace(made(base_score=base), probability=probability, is_known=is_known)
    assert found.command(["--model", "toy", "--task", "task"]) == wanted


def test_what_the_probability_is_of_is_said_of_a_model_that_does_it_as_it_is() -> None:
    sure = replace(made(base_score=0.95), probability=0.8, is_known=True).answer
    assert sure == "toy does task as it is (0.95 on validation); that no weights are needed has probability 0.80."


def test_the_record_says_what_was_scored() -> None:
    record = made().record()
    assert record["scored"] == {"arms": {"context": "kv-prefix", "weights": "lora"}, "steps": 60, "rates": 1}


def test_a_finite_set_of_rows_puts_no_task_outside() -> None:
    """All rows of the training are drawn without end: 40 rows of a file were 700 standard deviations away."""
    assert "rows" not in {*shipped().signals, *shipped().border.constant}
    assert shipped().provenance["kind"].endswith("in models of 1, 2 and 4 layers")


def test_a_push_says_where_it_goes() -> None:
    assert pushed(1.0).startswith("a context")
    assert pushed(-1.0).startswith("weights")


def test_bad_input_is_refused_before_anything_is_measured(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, digits_model: Callable[..., Model]
) -> None:
    with pytest.raises(InputError, match="max tokens"):
        el.forecast(digits_model(10), "add-1", max_tokens=0)
    code, _, error = call("forecast", "--model", "toy:ascending", "--task", "ascnding", "--out", str(tmp_path / "out"))
    assert (code, "did you mean 'ascending'" in error) == (2, True)
    altered = tmp_path / "shipped.json"
    altered.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(asked, "shipped", lambda: read_forecaster(altered))
    with pytest.raises(StoreError, match="altered"):
        el.forecast(digits_model(10), "add-1")


def test_the_planted_cases_are_known_to_the_collector_alone() -> None:
    room = Path(asked.__file__).parent
    knowing = {path.name for path in room.glob("*.py") if "elicitable.planted" in path.read_text(encoding="utf-8")}
    assert knowing == {"collect.py"}
