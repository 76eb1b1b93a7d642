"""What trains nothing is chosen on training rows too where validation rows are few, and on none that it shows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from elicitable.methods.catalog import method_named
from elicitable.models.layout import PLAIN
from elicitable.models.model import Model
from elicitable.race import trial as trials
from elicitable.race.trial import Trial, run
from elicitable.records.store import Store
from elicitable.tasks.catalog import task_from
from elicitable.tasks.wider import wider
from elicitable.training.loop import Plan

ASKED = 64  # validation items; the file has 12


@pytest.fixture
def task(tmp_path: Path) -> Any:
    lines = [f"{''.join(text)},{'ab'[text.count('c') % 2]}" for text in product("abcde", repeat=3)]
    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return task_from(path)


@pytest.mark.parametrize("name", ["prompt", "examples", "nearest-examples", "zero-shot"])
def test_candidates_are_scored_on_as_many_items_as_are_asked_for_and_show_none_of_them(
    letters_model: Callable[..., Model], task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    scored = []
    original = trials._scored

    def seen(trial: Trial, model: Model, own: Any, candidate: Any, items: Any) -> Any:
        scored.append((candidate, [item.prompt for item in items]))
        return original(trial, model, own, candidate, items)

    monkeypatch.setattr(trials, "_scored", seen)
    plan = Plan(0.0, 0, batch=16, validation_items=ASKED, layout=PLAIN)
    options = {"prompts": ["a or b", "say b", "c is a"]} if name == "prompt" else {}
    trial = Trial(method_named(name), 2, plan, 0, options=options, layouts=(PLAIN,), passes=1_000)
    record = run(trial, letters_model(), task, Store(tmp_path / "store"))
    own, found = len(task.held_out("validation", ASKED)), len(wider(task, ASKED).held_out("validation", ASKED))
    assert own < found
    assert record.status == "ok", record.stopped
    assert record.effort is not None
    assert record.effort.items == found
    shown_once = 0
    for candidate, prompts in scored:
        shown = {item.prompt for item in getattr(candidate, "items", ())}
        shown_once += len(shown)
        assert not shown & set(prompts)
    assert (shown_once > 0) == (name == "examples")
