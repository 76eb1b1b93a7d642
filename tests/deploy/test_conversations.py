"""What was trained on conversations is exported as it was scored: it ends where it ended, and the card says where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.compiling.test_conversations import TEMPLATE, talks
from tests.models.test_templates import chatting
from transformers import AutoModelForCausalLM, AutoTokenizer

import elicitable as el
from elicitable.models.layout import layout_for
from elicitable.models.load import save_model
from elicitable.models.model import Model
from elicitable.models.rows import rows_of
from elicitable.tasks.catalog import task_from

ASKED = [[{"role": "user", "content": f"film {n}"}] for n in (3, 8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose own end of text is not the end of a turn in its template."""
    folder = tmp_path_factory.mktemp("chat")
    save_model(chatting(TEMPLATE), folder)
    found = el.load(str(folder))
    assert found.hf.generation_config.eos_token_id == found.tokenizer.eos_token_id
    return found


def tuned(model: Model, method: str, out: Path, **given: Any) -> Path:
    el.tune(model, talks(), method=method, test_items=4, out=out, **given)
    return out


def plainly_written(folder: Path, asked: Sequence[Any]) -> list[str]:
    """What transformers alone writes behind each conversation, in at most 24 tokens, special ones shown."""
    tokenizer, alone = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for turns in asked:
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = alone.generate(**ids, max_new_tokens=24, do_sample=False)
        found.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :]))
    return found


def test_a_merged_model_writes_what_was_scored_and_stops(model: Model, tmp_path: Path) -> None:
    """It wrote on behind the end of its turn, which was no end to its ``generate``."""
    run = tuned(model, "full", tmp_path / "run", learning_rate=0.005, steps=60)
    el.export(run, "merged", tmp_path / "merged", model=model)
    rows = [{"messages": turns} for turns in ASKED]
    answers = el.predictor(run, model=model)
    said = [answers.one(row).answer for row in rows]
    assert set(said) <= {"dull", "fine"}
    assert plainly_written(tmp_path / "merged", ASKED) == [f"{text}<|end|>" for text in said]
    assert model.hf.generation_config.eos_token_id == model.tokenizer.eos_token_id


def test_a_card_says_what_ends_an_answer(model: Model, tmp_path: Path) -> None:
    run = tuned(model, "lora", tmp_path / "run", size=1, learning_rate=0.01, steps=2)
    for form in ("merged", "peft"):
        el.export(run, form, tmp_path / form, model=model)
        card = (tmp_path / form / "README.md").read_text(encoding="utf-8")
        assert '* An answer ends where the model writes one of `["</s>", "<|end|>"]`.' in card


def test_what_stands_within_the_rows_is_paid_for_and_said(model: Model, tmp_path: Path) -> None:
    """Some rows begin with what the system says, so no keys hold the examples, and they seemed to cost nothing."""
    rows: Any = talks(rules=2)
    given: dict[str, Any] = {"methods": ["examples"], "search_passes": 24, "test_items": 6, "seeds": 1, "chat": "on"}
    answer = el.verdict(model, rows, **given, out=tmp_path / "run")
    context = el.read(tmp_path / "run").adaptation(model)
    items = task_from(rows).held_out("test", 6)
    context.fit(model, items)
    asked = [
        len(row.content) + len(context.held()) for row in rows_of(model, items, context.layout, held=context.held())
    ]
    plain = [len(row.content) for row in rows_of(model, items, layout_for(model))]
    [arm], card = answer.arms, answer.card
    assert len(context.held()) < 4 < arm.budget.keys_per_layer == card.context_tokens
    assert card.row_tokens + card.context_tokens == pytest.approx(np.mean(asked))
    assert card.row_tokens == pytest.approx(np.mean(plain), abs=4)  # but for the beginning of a turn
