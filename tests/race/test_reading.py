"""What is said of how a model reads a task, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
from tests.models.test_templates import DATED, chatting

import elicitable as el
from elicitable.models.layout import layout_for
from elicitable.race.reading import reading_warnings
from elicitable.tasks.catalog import task_from


def talks(own: int) -> Any:
    """Sixty conversations, of which the first ``own`` begin with what the system says."""
    rules = {"role": "system", "content": "Be brief."}
    rows = []
    for n in range(60):
        turns = [
            {"role": "user", "content": f"a film {n}"},
            {"role": "assistant", "content": "dull" if n % 2 else "no"},
        ]
        rows.append({"messages": [rules, *turns] if n < own else turns})
    return rows


def test_a_system_message_that_does_not_stand_is_said() -> None:
    """What was given with --system was left out without a word where conversations have their own."""
    model = chatting(DATED)
    given = layout_for(model, system="Be kind.")
    task = task_from(talks(own=60))
    said = reading_warnings(model, task, given)
    assert said[1].startswith(
        f"{len(task.held_out('test'))} of {len(task.held_out('test'))} test conversations begin with"
    )
    assert len(reading_warnings(model, task_from(talks(own=0)), given)) == 1
    assert len(reading_warnings(model, task, layout_for(model))) == 1
    assert reading_warnings(model, task, layout_for(model, "off", turns=True)) == []


@pytest.mark.parametrize("chat", ["auto", "off"])
def test_a_race_says_which_day_it_is_in_its_texts(chat: str) -> None:
    answer = el.verdict(
        chatting(DATED), talks(own=0), methods=["zero-shot"], chat=chat, search_passes=6, test_items=6, seeds=1
    )
    said = [one for one in answer.provenance["warnings"] if "here it is always 26 Jul 2024" in one]
    assert len(said) == (chat == "auto")
