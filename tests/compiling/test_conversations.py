"""Compile and inspect what stands in a chat: items are read as the record says, else by the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.models.test_templates import SAYS, chatting

import elicitable as el
from elicitable.cli.compile import _layout
from elicitable.cli.inspect import context_of
from elicitable.compiling import fidelity
from elicitable.compiling.pairs import pairs_of_items
from elicitable.errors import InputError
from elicitable.models.layout import Layout, layout_for, layout_unsaid
from elicitable.models.model import Model
from elicitable.models.rows import rows_of
from elicitable.race.inside import laid_out, reading_with
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import Reading

TEMPLATE = "{% for m in messages %}" + SAYS + "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
QUICK: dict[str, Any] = {
    "rank": 1,
    "steps": 0,
    "ridges": (1e-2,),
    "control": False,
    "texts_of_task": 8,
    "test_items": 4,
}


@pytest.fixture(scope="module")
def model() -> Model:
    return chatting(TEMPLATE)


def talks(rules: int = 0) -> list[dict[str, Any]]:
    """Sixty conversations, every second of which begins with what the system says where ``rules`` is 2."""
    rows = []
    for n in range(60):
        turns = [
            {"role": "user", "content": f"film {n}"},
            {"role": "assistant", "content": "dull" if n % 2 else "fine"},
        ]
        rows.append(
            {"messages": [{"role": "system", "content": "Be brief."}, *turns] if rules and n % rules else turns}
        )
    return rows


def texts() -> list[dict[str, str]]:
    return [{"prompt": f"film {n}", "target": "dull" if n % 2 else "fine"} for n in range(60)]


@pytest.fixture
def read_in(monkeypatch: pytest.MonkeyPatch) -> list[Layout]:
    """The layouts in which compiling scores items, in order."""
    found: list[Layout] = []
    evaluate = fidelity.evaluate

    def seen(model: Any, items: Any, labels: Any, reading: Reading) -> Any:
        found.append(reading.layout)
        return evaluate(model, items, labels, reading)

    monkeypatch.setattr(fidelity, "evaluate", seen)
    return found


def test_what_was_trained_in_a_template_is_compiled_in_it(model: Model, read_in: list[Layout]) -> None:
    """It was fitted to, and scored on, texts without the template, as if it had been trained on those."""
    layout, task = layout_for(model, system="Be kind."), task_from(texts())
    context = el.context("kv-prefix", model, length=2, init="random")
    items = task.held_out("test", 3)
    for pair, row in zip(
        pairs_of_items(model, context, items, layout=layout), rows_of(model, items, layout), strict=True
    ):
        assert pair.read == pair.taught
        assert pair.read[: len(row.content)] == row.content
    el.compile_context(model, context, task=task, other_tasks=[task_from(talks())], layout=layout, **QUICK)
    assert [(one.chat, one.system) for one in read_in] == [(True, "Be kind.")] * 5


def test_conversations_are_compiled_by_the_template_and_texts_without_it(model: Model, read_in: list[Layout]) -> None:
    """A conversation in no layout of turns was an error that named a function."""
    for rows, chat in ((talks(), True), (texts(), False)):
        read_in.clear()
        context = el.context("kv-prefix", model, length=2, init="random")
        el.compile_context(model, context, task=task_from(rows), **QUICK)
        assert [one.chat for one in read_in] == [chat] * 3


def test_the_record_of_an_artefact_says_how_it_is_read(model: Model, tmp_path: Path) -> None:
    given: dict[str, Any] = {"size": 1, "learning_rate": 0.01, "steps": 2, "test_items": 4, "system": "Be kind."}
    el.tune(model, texts(), method="kv-prefix", out=tmp_path / "tuned", **given)
    assert _layout(model, el.read(tmp_path / "tuned"), None) == layout_for(model, system="Be kind.")
    assert _layout(model, None, task_from(talks())) == layout_for(model, turns=True)
    assert _layout(model, None, task_from(texts())) == layout_for(model, "off")


def test_a_text_that_stands_at_no_one_place_is_said_to_be_no_keys(model: Model) -> None:
    """Worked examples were said to be no context."""
    task, layout = task_from(talks(rules=2)), layout_for(model, "off", turns=True)
    context = el.context("examples", model, task=task, k=2, layout=layout)
    with pytest.raises(InputError, match="within the rows, which do not begin alike"):
        el.compile_context(model, context, task=task, **QUICK)


def test_a_prompt_is_inspected_on_conversations(model: Model) -> None:
    """No layout had turns, so there was only an error."""
    task = task_from(talks())
    unsaid = layout_unsaid(model, turns=True)
    prompt = context_of(model, None, "Judge it.\n\n", unsaid)
    prompt.fit(model, task.held_out("test", 1))
    [ids] = laid_out(model, prompt, reading_with(model, prompt, None, 200, unsaid), task.held_out("test", 1))
    [row] = rows_of(model, task.held_out("test", 1), prompt.layout)
    assert [*prompt.held(), *ids] == [*row.content, *row.answer]
    assert "Judge it." in model.tokenizer.decode(row.content)
