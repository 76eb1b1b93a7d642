"""Conversations on a model without a chat template: one transcript, whether a row is read, trained, written or sent."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import CHAT, reader

import elicitable as el
from elicitable.deploy.artefact import read
from elicitable.deploy.export import export
from elicitable.deploy.predict import Predictor
from elicitable.errors import InputError
from elicitable.models.layout import NEXT_TURN, Layout, alternatives, layout_for, written
from elicitable.models.model import Model
from elicitable.models.rows import label_rows, rows_of
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import Reading, encode
from elicitable.training.evaluate import answer_logits, answers, evaluate, token_losses
from elicitable.values import Item, Message

WORDS = ("fine", "dull", "warm", "slow")
TALK = (
    Message("system", " Be brief. "),
    Message("user", "Where is Bath?"),
    Message("assistant", "In Somerset.\nIn England."),
    Message("user", " And York? "),
)
SHOWN = "Be brief.\n\nUser: Where is Bath?\nAssistant: In Somerset.\nIn England.\nUser: And York?\nAssistant:"


def talk(number: int) -> dict[str, Any]:
    word, other = WORDS[number % 4], WORDS[number // 4 % 4]
    turns = [
        ("system", "Say it again."),
        ("user", f"{other} {number}"),
        ("assistant", other),
        ("user", f"{word} {number}"),
    ]
    return {"messages": [{"role": role, "content": said} for role, said in (*turns, ("assistant", f"{word} film"))]}


ROWS = [talk(number) for number in range(120)]


@lru_cache
def model(is_chatting: bool = False) -> Model:
    """A tiny Llama that has begun to learn to answer in a transcript; with ``is_chatting`` it has a template too."""
    plain = reader("byte-level BPE", 512)
    tokenizer = deepcopy(plain.tokenizer)
    tokenizer.chat_template, tokenizer.pad_token = CHAT if is_chatting else None, "</s>"
    own = Model(deepcopy(plain.hf), tokenizer=tokenizer, name="tiny")
    layout, optimizer = layout_for(own, "off", turns=True), torch.optim.AdamW(own.hf.parameters(), 5e-3)
    items = task_from(ROWS).held_out("validation")[:8]
    for _ in range(60):
        batch = encode(own, items, layout=layout)
        optimizer.zero_grad()
        token_losses(answer_logits(own, batch), batch.targets).sum().backward()
        optimizer.step()
    own.hf.eval()
    return Model(own.hf, tokenizer=tokenizer, name="tiny")


def test_a_transcript_is_what_the_system_says_and_who_says_what() -> None:
    layout = layout_for(model(), turns=True)
    assert layout == Layout(turns=True)
    one = written(model(), Item(TALK, "In Yorkshire."), layout)
    assert one.text == f"{SHOWN} In Yorkshire.{NEXT_TURN}"
    assert one.answer == len(SHOWN)
    assert [one.text[first:last] for first, last in one.spans] == [
        "Where is Bath?",
        "In Somerset.\nIn England.",
        "And York?",
    ]
    example = Item((Message("user", "Where is Rome?"),), "In Italy.")
    told = Layout(turns=True, head="Answer.\n", examples=(example,))
    shown = written(model(), Item((Message("user", "And Oslo?"),), "Norway."), told).text
    assert (
        shown == f"User: Answer.\nWhere is Rome?\nAssistant: In Italy.\nUser: And Oslo?\nAssistant: Norway.{NEXT_TURN}"
    )


def test_its_rows_are_its_tokens_and_only_what_is_said_is_cut() -> None:
    layout, tokenizer = layout_for(model(), turns=True), model().tokenizer
    row = rows_of(model(), [Item(TALK, "In Yorkshire.")], layout)[0]
    assert tokenizer.decode([*row.content, *row.answer]) == f"{SHOWN} In Yorkshire.{NEXT_TURN}"
    assert tokenizer.decode(row.answer[-row.end :]) == NEXT_TURN
    short = rows_of(model(), [Item(TALK, "In Yorkshire.")], layout, limit=len(row) - 12)[0]
    assert short.cut == 12
    left = tokenizer.decode(short.content)
    assert left.startswith("Be brief.\n\nUser:")
    assert left.endswith("\nUser: And York?\nAssistant:")
    choice = label_rows(model(), [Item(TALK, "yes")], ["yes", "no"], layout)[0]
    assert [tokenizer.decode([*choice.content, *one]) for one in choice.labels] == [f"{SHOWN} yes", f"{SHOWN} no"]


def test_an_answer_is_right_exactly_where_decoding_writes_it_and_ends() -> None:
    task, layout = task_from(ROWS), layout_for(model(), turns=True)
    items = [*task.held_out("validation")[:8], *task.held_out("test")]
    found = answers(model(), items, None, Reading(layout=layout))
    right = [int(one.has_ended and one.text == item.target) for one, item in zip(found, items, strict=True)]
    assert list(evaluate(model(), items, None, Reading(layout=layout)).correct) == right
    assert 0 < sum(right) < len(right)


def test_a_race_reads_trains_keeps_predicts_and_exports_transcripts(tmp_path: Path) -> None:
    task = task_from(ROWS)
    methods = ["zero-shot", "prompt", "examples", "kv-prefix"]
    given: dict[str, Any] = {"seeds": 1, "steps": 2, "test_items": 10, "system": None, "search_passes": 100}
    answer = el.verdict(model(), task, methods=methods, keep=methods, out=tmp_path / "run", **given)
    assert [arm.status for arm in answer.arms] == ["ok"] * 4, [arm.reason for arm in answer.arms]
    items = task.held_out("test", 10)
    for method in methods:
        artefact = read(tmp_path / "run", method)
        assert artefact.record is not None
        assert artefact.record.layout.turns
        own = Predictor(model(), artefact.adaptation(model()), artefact.record)
        rows = [[{"role": turn.role, "content": turn.content} for turn in item.prompt] for item in items]  # type: ignore[union-attr]
        given_back = [one.answer == item.target and one.has_ended for one, item in zip(own(rows), items, strict=True)]
        assert given_back == [bool(one) for one in next(a for a in answer.arms if a.method == method).correct[0]]


def test_an_exported_prompt_is_the_transcript(tmp_path: Path) -> None:
    el.verdict(model(), task_from(ROWS), methods=["zero-shot"], seeds=1, test_items=5, out=tmp_path / "run")
    export(tmp_path / "run", "prompt", tmp_path / "out", model=model())
    assert (tmp_path / "out" / "prompt.txt").read_text().endswith("User: {messages}\nAssistant:")
    assert json.loads((tmp_path / "out" / "messages.json").read_text())["placeholders"] == {"messages": "{messages}"}
    told = "".join(path.read_text() for path in (tmp_path / "out").glob("*.md"))
    assert f"The answer ends where the model writes {NEXT_TURN!r}" in told


def test_where_there_is_a_template_a_transcript_is_tried_too_and_chat_off_asks_for_it() -> None:
    chatting = model(is_chatting=True)
    layouts = alternatives(chatting, layout_for(chatting, turns=True))
    assert [one.chat for one in layouts[:2]] == [True, False]
    items = [Item(TALK, "In Yorkshire.")]
    assert (
        written(chatting, items[0], layouts[1]).text == written(model(), items[0], layout_for(model(), turns=True)).text
    )
    assert layout_for(chatting, "off", turns=True) == layouts[1]
    assert "<|user|>" in written(chatting, items[0], layouts[0]).text
    briefly = layout_for(model(), system="In rhyme.", turns=True)
    assert written(model(), Item((Message("user", "Hi"),), "Ho"), briefly).text.startswith("In rhyme.\n\nUser: Hi\n")


@pytest.mark.parametrize("stop", [None, "\n"])
def test_a_stop_of_a_persons_own_takes_the_place_of_the_next_turn(stop: str | None) -> None:
    layout = layout_for(model(), stop=stop, turns=True)
    assert written(model(), Item(TALK, "York."), layout).end == (stop or NEXT_TURN)


def test_a_conversation_that_the_template_refuses_is_named_before_anything_is_trained() -> None:
    """One of many was found when an arm came to it, and every arm was skipped."""
    tokenizer = deepcopy(model().tokenizer)
    refuses = "{% if messages[1:] and messages[1].role == 'user' %}{{ raise_exception('they alternate') }}{% endif %}"
    tokenizer.chat_template = refuses + CHAT
    strict = Model(model().hf, tokenizer=tokenizer, name="tiny, strict")
    said = [[("user", f"{word} {n}") for word in WORDS[: 2 if n == 80 else 1]] for n in range(120)]
    turns = [[{"role": role, "content": text} for role, text in (*one, ("assistant", "ok"))] for one in said]
    with pytest.raises(InputError, match=r"the \w+ item 'dull 80': .*turns user, user: they alternate.*--chat off"):
        el.verdict(strict, [{"messages": one} for one in turns], methods=["zero-shot"], seeds=1, test_items=4)
