"""A decision that hung on the clock holds for the race that made it, and for no race that reads or asks otherwise."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.families import reader

import elicitable as el
from elicitable.models.model import Model
from elicitable.race import choice, contest
from elicitable.race.entry import Race

CHAT = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
ROWS = "text,label\n" + "".join(f"the word {i},{'yes' if i % 2 else 'no'}\n" for i in range(60))
ASKED: dict[str, Any] = {
    "methods": ["zero-shot", "prompt", "lora"],
    "time_limit": 60.0,
    "prompts": ["Decide:"],
    "max_tokens": 128,
    "stop": "!",
}
READ_OTHERWISE: dict[str, Any] = {
    "max_tokens": 96,
    "chat": "off",
    "system": "Answer at once.",
    "stop": "?",
    "truncate": "right",
}
ASKED_OTHERWISE: dict[str, Any] = {
    "time_limit": 61.0,
    "budget": 9_999,
    "seeds": 3,
    "seed": 1,
    "margin": 0.03,
    "methods": ["zero-shot", "prompt", "kv-prefix"],
    "steps": 77,
    "test_items": 3,
    "prompts": ["Say:"],
    "proposer": "another",
    "search_passes": 99,
    "score": "macro-f1",
    "rule": "sum",
}


@pytest.fixture(scope="module")
def model() -> Model:
    """A random model that has a chat template."""
    plain = reader("byte-level BPE with a start")
    tokenizer = copy.deepcopy(plain.tokenizer)
    tokenizer.chat_template = CHAT
    return Model(plain.hf, tokenizer=tokenizer, name=plain.name)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of texts and labels."""
    (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
    return tmp_path / "rows.csv"


def race_of(model: Model, rows: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Race:
    """The race that a call begins, which is not run."""
    begun: list[Race] = []
    monkeypatch.setattr(choice, "proposing", lambda name: None)
    monkeypatch.setattr(contest, "_raced", lambda race, *others: begun.append(race))
    el.verdict(model, rows, out=rows.parent / "out", **{**ASKED, **given})
    return begun[0]


def decided(race: Race, holds_for_all: bool) -> bool:
    """Whether the race decides anew."""
    anew: list[int] = []
    race.kept("rows of a step", lambda: anew.append(1) or 1, holds_for_all)
    return bool(anew)


@pytest.mark.parametrize("name", [*READ_OTHERWISE, *ASKED_OTHERWISE])
def test_a_kept_decision_hangs_on_all_that_a_race_reads_and_asks(
    name: str, model: Model, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that hold for every limit hang on what is read alone."""
    first = race_of(model, rows, monkeypatch)
    other = race_of(model, rows, monkeypatch, **{name: {**READ_OTHERWISE, **ASKED_OTHERWISE}[name]})
    assert [decided(first, holds) for holds in (True, False)] == [True, True]
    assert [decided(race_of(model, rows, monkeypatch), holds) for holds in (True, False)] == [False, False]
    assert decided(other, holds_for_all=False)
    assert decided(other, holds_for_all=True) is (name in READ_OTHERWISE)


def test_what_a_race_cuts_down_by_itself_decides_nothing_anew(
    model: Model, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = race_of(model, rows, monkeypatch)
    assert decided(race, holds_for_all=False)
    race.pace = replace(race.pace, test_items=2, validation_items=3, batch=4)
    assert not decided(race, holds_for_all=False)
