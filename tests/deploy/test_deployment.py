"""The card says what deploying takes, in numbers that add up, and the commands that it names can be typed."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import elicitable as el
from elicitable.deploy.artefact import WINNER
from elicitable.errors import InputError
from elicitable.report.deployment import Prices, against, break_even, commands, facts
from elicitable.report.verdict_json import verdict_from_json, verdict_to_json
from elicitable.tasks.catalog import task_from
from elicitable.values import DeploymentCard

CARD = DeploymentCard(
    "lora", "runs/a b", ("peft", "merged"), 90.0, 2.5, 0, 0, 1800.0, rival="examples", rival_tokens=400
)


def test_what_a_thousand_requests_cost_adds_up() -> None:
    prices = Prices(read=2.0, written=8.0, hour=3.0)
    assert prices.of(90.0, 2.5, 0, 1000) == pytest.approx((90_000 * 2 + 2_500 * 8) / 1e6)
    assert break_even(CARD, prices) == 1875  # half an hour at 3, over 400 tokens at 2 a million
    assert prices.of(0, 0, 400, 1875) == pytest.approx(1.5)
    assert break_even(CARD, replace(prices, hour=None)) is None
    assert break_even(replace(CARD, context_tokens=400), prices) is None
    assert break_even(replace(CARD, context_tokens=900), prices) is None
    assert "500 tokens fewer" in against(replace(CARD, context_tokens=900), prices)
    for price in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="must be a number of 0 or more"):
            Prices(read=price)


def test_a_race_keeps_its_card_and_says_the_same_again(written_run: Any) -> None:
    card = written_run.answer.card
    arm = next(arm for arm in written_run.answer.arms if arm.method == card.method)
    assert card.run == str(written_run.folder)
    assert card.keys_per_layer == arm.budget.keys_per_layer
    rows = task_from(written_run.test.with_name("train.csv"), test=written_run.test).held_out("test")[:32]
    lengths = [len(str(item.target)) + 1 for item in rows]  # a letter a token, and the line break that ends it
    assert card.answer_tokens == pytest.approx(sum(lengths) / len(lengths))
    assert len(card.overhead) == 3
    assert card.plain_seconds > 0
    assert card.requests_timed == 16
    assert verdict_from_json(json.loads(json.dumps(verdict_to_json(written_run.answer)))).card == card


def test_the_card_stays_where_the_tensors_are_the_winner_s_alone(tmp_path: Path) -> None:
    given: dict[str, Any] = {"methods": ["full"], "seeds": 1, "steps": 3, "test_items": 40, "out": tmp_path}
    first = el.verdict("toy:ascending", "descending", **given)
    assert first.card is not None
    assert first.card.forms == ("merged",)
    again = el.verdict("toy:ascending", "descending", **given)
    assert again.card == first.card
    assert (tmp_path / WINNER / "model.safetensors").exists()


def test_the_commands_of_the_report_can_be_typed(call: Callable[..., Any], tmp_path: Path) -> None:
    race = ["verdict", "--model", "toy:ascending", "--task", "ascending", "--seeds", "1", "--steps", "3", "-q"]
    race += ["--method", "prompt", "--method", "kv-prefix", "--test-items", "30", "--out", "my run"]
    code, out, err = call(*race, "--price-in", "0.5", "--price-out", "2", "--price-hour", "3")
    assert code == 0, err
    typed = [line.strip() for line in out.partition("\nNext\n")[2].splitlines()]
    report = (tmp_path / "my run" / "report.html").read_text()
    record = json.loads((tmp_path / "my run" / "verdict.json").read_text())
    assert record["card"]["run"] == "my run"
    assert "at your prices" in report
    (tmp_path / "rows.csv").write_text("prompt\n3 1 4 1 5 7 2 6 5 3\n0 1 2 3 4 5 6 7 0 1\n")
    assert len(typed) == 1 + len(record["card"]["forms"])
    for line in typed:
        code, _, err = call(*shlex.split(line)[1:])
        assert code == 0, (line, err)
        assert line.replace("'", "&#x27;") in report
    assert {path.name for path in (tmp_path / "my run").iterdir()} >= set(record["card"]["forms"])


def test_the_command_that_trains_alone_trains_what_was_raced(call: Callable[..., Any], tmp_path: Path) -> None:
    race = ["verdict", "--model", "toy:ascending", "--task", "ascending", "--seeds", "1", "--steps", "9", "-q"]
    race += ["--method", "kv-prefix", "--test-items", "30", "--seed", "3", "--budget", "800", "--out", "one"]
    code, _, err = call(*race, "--dtype", "float64", "--score", "exact-match")
    assert code == 0, err
    (line,) = [one for one in (tmp_path / "one" / "report.html").read_text().split("<") if "elicitable tune" in one]
    typed = shlex.split(html.unescape(next(one for one in line.splitlines() if one.startswith("elicitable tune"))))
    arm = json.loads((tmp_path / "one" / "verdict.json").read_text())["arms"][0]
    assert arm["setting"]["length"] == 4
    for name, value in (("--dtype", "float64"), ("--score", "exact-match"), ("--seed", "3"), ("--size", "4")):
        assert typed[typed.index(name) + 1] == value
    code, _, err = call(*typed[1:], "--out", "alone", "-q")
    assert code == 0, err
    alone = json.loads((tmp_path / "alone" / "elicitable.json").read_text())
    assert alone["numbers_trained"] == arm["numbers_trained"]
    assert alone["learning_rate"] == arm["learning_rate"]


def test_the_command_that_trains_alone_has_the_options_that_were_typed() -> None:
    from elicitable.cli.options import TaskOptions

    typed = TaskOptions(task="mail.csv", label_names=["0=no", "1=a yes"], skip_bad_rows=True, template="{text}:")
    assert TaskOptions(task="mail.csv").typed() == ["--task", "mail.csv"]
    assert typed.typed() == [
        "--task",
        "mail.csv",
        "--template",
        "{text}:",
        "--label-names",
        "0=no",
        "--label-names",
        "1=a yes",
        "--skip-bad-rows",
    ]


def test_what_is_said_of_a_card_is_all_of_it() -> None:
    said = dict(facts(replace(CARD, overhead=(0.01, 0.02, 0.03), requests_timed=16, device="cpu"), Prices(read=2.0)))
    assert list(said) == [
        "what serves it",
        "a thousand requests",
        "at your prices",
        "against examples",
        "time to read a request",
    ]
    assert said["at your prices"] == "0.18 per thousand requests"
    assert "90,000 tokens (90 of a row and 0 of the context in each), write 2,500" in said["a thousand requests"]
    assert "+2% (quartiles +1% to +3%), in 16 pairs" in said["time to read a request"]
    assert "400 tokens more in every request: 0.8 more per thousand requests" in said["against examples"]
    alone = dict(facts(replace(CARD, forms=(), rival=""), Prices()))
    assert alone["what serves it"] == "this package alone: elicitable predict 'runs/a b'"
    assert len(commands(replace(CARD, forms=()))) == 1
    dashed = replace(CARD, run="-lead")
    assert commands(dashed)[:2] == (
        "elicitable predict ./-lead --input rows.csv",
        "elicitable export ./-lead --to peft --out ./-lead/peft",
    )
    assert not any("predict -lead" in text for _, text in facts(dashed, Prices()))
