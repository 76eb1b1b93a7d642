"""Trained arms read items in the layout that did best, on validation, for the arms that are chosen among layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from tests.families import reader

import elicitable as el
from elicitable.models.layout import Layout, alternatives, layout_for
from elicitable.race import line
from elicitable.race.entry import Race
from elicitable.records.store import Store
from elicitable.records.trial import Times, TrialRecord

CHAT, PLAIN, BARE = Layout(chat=True), Layout(), Layout(start="none")


def race_of(*layouts: Layout) -> Race:
    nothing: Any = cast(Any, None)
    return Race(
        nothing, nothing, Store(None), nothing, 0, 1, 0, 0.02, None, 0.0, nothing, marking=nothing, layouts=layouts
    )


def chosen(validation: float | None, loss: float | None, setting: dict[str, Any], status: str = "ok") -> TrialRecord:
    return TrialRecord(status, "", Times(0.0), setting=setting, validation=validation, validation_loss_nats=loss)


def test_the_best_on_validation_decides_and_of_equals_the_first() -> None:
    race = race_of(CHAT, PLAIN, BARE)
    assert race.layout == CHAT
    for record, layout in (
        (chosen(0.6, 1.0, {"chat": True}), CHAT),
        (chosen(0.6, 1.0, {}), CHAT),
        (chosen(0.6, 0.9, {"text": "Decide."}), PLAIN),
        (chosen(0.9, 0.1, {"start": "none"}, "failed"), PLAIN),
        (chosen(None, None, {"start": "none"}), PLAIN),
        (chosen(0.7, None, {"start": "none"}), BARE),
        (chosen(0.9, 0.1, {"system": "Be brief.", "chat": True}), BARE),  # not a layout of this race
    ):
        race.learn(record)
        assert race.layout == layout


@pytest.mark.parametrize("best", [0, 1])
def test_a_race_trains_in_the_layout_that_won_without_training(
    best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever wins; and the record says which it was."""
    model = reader("byte-level BPE with a start")
    layouts = alternatives(model, layout_for(model))
    learn = Race.learn
    setting = layouts[best].setting()
    monkeypatch.setattr(Race, "learn", lambda race, record: learn(race, chosen(0.5, 1.0, setting)))
    plans = []
    train = line.train
    monkeypatch.setattr(line, "train", lambda *given, **named: plans.append(given[3]) or train(*given, **named))
    rows = "".join(f"{'a fine film' if i % 2 else 'a dull film'} {i},{'good' if i % 2 else 'bad'}\n" for i in range(80))
    (tmp_path / "films.csv").write_text("text,label\n" + rows)
    answer = el.verdict(
        model, tmp_path / "films.csv", methods=["zero-shot", "kv-prefix"], seeds=1, steps=2, test_items=4, rule="sum"
    )
    trained = next(arm for arm in answer.arms if arm.method == "kv-prefix")
    assert len(layouts) == 2
    assert {plan.layout for plan in plans if plan.learning_rate > 0} == {layouts[best]}
    assert {name: trained.setting.get(name) for name in setting} == setting
