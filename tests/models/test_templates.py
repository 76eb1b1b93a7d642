"""Templates that think before they answer, and templates that know what day it is."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from typing import Any

import pytest
from tests.families import reader
from transformers.utils import chat_template_utils

from elicitable.errors import InputError
from elicitable.models import templates
from elicitable.models.layout import layout_for, written
from elicitable.models.model import Model
from elicitable.models.rows import label_rows, rows_of
from elicitable.models.templates import TODAY, answer_turn, asks_the_date
from elicitable.race.reading import reading_warnings
from elicitable.training.generate import Stop
from elicitable.values import Item, Message

TALK = (Message("user", "a film"), Message("assistant", "dull"), Message("user", "and now?"))
SAYS = "<|{{ m.role }}|>{{ m.content }}<|end|>"
THINKING = {
    "an empty thought": (  # as Qwen 3's: the last answer has a thought, be it an empty one
        "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}<|assistant|><think>\n"
        "{% if '</think>' in m.content %}{{ m.content.split('</think>')[0].split('<think>')[-1].strip() }}{% endif %}"
        "{{ '\\n</think>\\n\\n' + m.content.split('</think>')[-1].lstrip() }}<|end|>{% else %}" + SAYS + "{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "an opened thought": (  # as R1's: a thought is opened, and no answer that was given shows one
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content.split('</think>')[-1] }}<|end|>"
        "{% else %}" + SAYS + "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
    ),
}
DATED = (
    "\n  {% set now = strftime_now('%d %b %Y, %A %H:%M:%S') %}\nIt is {{ now }}.\n{% for m in messages %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chatting(template: str) -> Model:
    plain = reader("byte-level BPE")
    own = deepcopy(plain.tokenizer)
    own.add_tokens(["<think>", "</think>"])
    own.chat_template = template
    hf = deepcopy(plain.hf)
    hf.resize_token_embeddings(len(own), mean_resizing=False)
    return Model(hf, tokenizer=own, name="tiny, thinking")


def by_template(model: Model, *turns: Message, answered: bool = True) -> str:
    said = [{"role": turn.role, "content": turn.content} for turn in turns]
    text: str = model.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=not answered)
    return text


@pytest.mark.parametrize("answer", ["dull", "<think>\nIt is slow.\n</think>\n\ndull", "\n<think>slow</think>dull"])
def test_an_answer_has_one_thought(answer: str) -> None:
    """It had an empty one and then its own, and the row was no longer the template's text."""
    model = chatting(THINKING["an empty thought"])
    found = written(model, Item(TALK, answer), layout_for(model))
    assert found.text == by_template(model, *TALK, Message("assistant", answer))
    assert found.text.count("<think>") == 1


@pytest.mark.parametrize(
    ("answer", "behind"),
    [
        ("dull", "</think>\n\ndull"),
        ("<think>\nIt is slow.\n</think>\n\ndull", "It is slow.\n</think>\n\ndull"),
    ],
)
def test_a_thought_that_the_template_opens_is_closed_before_the_answer(answer: str, behind: str) -> None:
    """The answer stood within the thought, where no answer ever stood."""
    model = chatting(THINKING["an opened thought"])
    layout, item = layout_for(model), Item(TALK, answer)
    found = written(model, item, layout)
    asked = by_template(model, *TALK, answered=False)
    assert asked.endswith("<think>\n")
    assert found.text == asked + behind + "<|end|>"
    row = rows_of(model, [item], layout)[0]
    assert row.content == model.tokenizer(asked, add_special_tokens=False)["input_ids"]
    assert model.tokenizer.decode(row.answer) == behind + "<|end|>"


@pytest.mark.parametrize("template", THINKING)
def test_what_is_shown_of_a_thought_is_what_a_data_file_would_hold(template: str) -> None:
    model = chatting(THINKING[template])
    layout = layout_for(model)
    stop = Stop.of(model, layout)
    for answer in ("dull", "<think>\nslow\n</think>\n\ndull"):
        found = written(model, Item(TALK, answer), layout, has_end=False)
        assert stop.shown(found.text[found.answer :]) == answer
    labels = label_rows(model, [Item("a film", " dull")], [" dull", " fine"], layout)[0]
    assert model.tokenizer.decode([*labels.content, *labels.labels[0]]).endswith("</think>\n\ndull")


def test_rows_are_the_same_tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that writes the date gave other rows every day, and a prompt kept yesterday fitted none of them."""
    model = chatting(DATED)
    days = []
    for day in (TODAY, datetime(2031, 12, 5, 13, 14, 15)):

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None, day: datetime = day) -> datetime:  # type: ignore[override]
                return day

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)
        templates._answer_turn.cache_clear()
        days.append((by_template(model, *TALK, answered=False), written(model, Item(TALK, "dull"), layout_for(model))))
    (text, first), (later, second) = days
    assert text != later
    assert first == second
    assert first.text[: first.answer] == text
    assert "26 Jul 2024, Friday 00:00:00" in text
    assert asks_the_date(model.tokenizer)
    assert not asks_the_date(chatting(THINKING["an opened thought"]).tokenizer)


TAGGED = (
    "{% for m in messages %}{% if m.role == 'user' %}<question>{{ m.content }}</question>{% else %}"
    "<answer>{{ m.content }}</answer>{% endif %}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
)
NAMED_END = (
    "{% for m in messages %}" + SAYS + "{% if m.role == 'assistant' %}<|end_of_answer|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PART = "{% for p in m.content if p.type == 'text' %}"
LINES_OF_PARTS = (  # as SmolVLM's
    "{% for m in messages %}{{ m.role | capitalize }}{{ ':' if m.content[0].type == 'image' else ': ' }}"
    + PART
    + "{{ p.text }}{% endfor %}<|end|>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
TEXTS_AMONG_PICTURES = (  # as LLaVA's
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role.upper() + ': ' }}{% endif %}"
    "{% if m.role != 'assistant' %}"
    + PART
    + "{{ p.text + ' ' }}{% endfor %}{% else %}"
    + PART
    + "{% generation %}{{ p.text + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
OF_TWO = (  # of what a conversation holds it shows what the user and the assistant say
    "{% for m in messages if m.role in ('user', 'assistant') %}" + SAYS + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("template", [TAGGED, NAMED_END])
def test_a_template_may_hold_any_word_around_an_answer(template: str) -> None:
    """Behind an answer stood the word by which it was looked for, and rows read `<answer>answer</dull>`."""
    model = chatting(template)
    found = written(model, Item("a film", " dull"), layout_for(model))
    assert found.text == by_template(model, Message("user", "a film"), Message("assistant", "dull"))[: len(found.text)]
    assert found.text[found.answer :] == "dull" + answer_turn(model.tokenizer).end


@pytest.mark.parametrize("template", [LINES_OF_PARTS, TEXTS_AMONG_PICTURES])
def test_a_template_that_reads_parts_is_given_parts(template: str) -> None:
    """Those of models that see pictures showed nothing of what is said, and such models were refused."""
    model = chatting(template)
    layout = layout_for(model, system="Be brief.")
    found = written(model, Item(TALK, "dull"), layout)
    turns = [Message("system", "Be brief."), *TALK, Message("assistant", "dull")]
    said = [{"role": turn.role, "content": [{"type": "text", "text": turn.content}]} for turn in turns]
    whole = model.tokenizer.apply_chat_template(said, tokenize=False)
    assert whole.startswith(found.text.removesuffix("</s>"))
    assert found.text[found.answer :].strip().startswith("dull")
    assert [found.text[slice(*span)] for span in found.spans] == [turn.content for turn in TALK]


def test_a_template_that_is_set_anew_is_read_anew() -> None:
    """Rows came in the new template, with the end of the old one."""
    model = chatting(NAMED_END)
    item, before = Item(TALK, "dull"), answer_turn(model.tokenizer)
    written(model, item, layout_for(model))
    model.tokenizer.chat_template = TAGGED
    found = written(model, item, layout_for(model))
    assert answer_turn(model.tokenizer) != before
    assert found.text == by_template(model, *TALK, Message("assistant", "dull"))
    assert found.text[slice(*found.spans[0])] == "a film"


def test_a_stop_string_takes_no_end_of_turn_away() -> None:
    """With a stop string of one's own nothing that a chat model ends by itself was right any more."""
    model = chatting(NAMED_END)
    plain, stopped = (Stop.of(model, layout_for(model, stop=stop)) for stop in (None, "###"))
    assert len(plain.ids) == 2  # of the text, and of the turn
    assert (stopped.ids, set(stopped.texts)) == (plain.ids, {"###"})


def test_what_a_template_does_not_show_is_said() -> None:
    model = chatting(OF_TWO)
    with pytest.raises(InputError, match="does not show a system message"):
        layout_for(model, system="Be brief.")
    hidden = (Message("system", "Be brief."), *TALK, Message("assistant", "now?"), Message("tool", "21"))
    items = [Item(TALK, "a"), Item(hidden, "b")]
    own = {"held_out": lambda *_: items, "sample": lambda *_: [], "labels": lambda _: None}
    task: Any = type("", (), own)()
    said = [one for one in reading_warnings(model, task, layout_for(model)) if "does not show" in one]
    assert [one.partition(", which")[0] for one in said] == [
        f"1 of 2 test conversations hold turns of the role {role!r}" for role in ("system", "tool")
    ]
    assert not [one for one in reading_warnings(model, task, layout_for(model, "off", turns=True)) if "role" in one]


def test_a_thought_may_be_named_in_other_ways() -> None:
    opened = THINKING["an opened thought"].replace("<think>\n{% endif %}", "<seed:think>\n{% endif %}")
    model = chatting(opened)
    found = written(model, Item(TALK, "dull"), layout_for(model))
    assert found.text[found.answer :].startswith("</seed:think>")


def test_every_code_of_a_date_is_written() -> None:
    """Codes with a flag (%-d), and some of the others, stood in every prompt as they are."""
    codes = "%F | %-d %B %Y | %e %b | %D | %H:%M | %T | %j | %A | %I %p | %u %V %G"
    model = chatting(DATED.replace("%d %b %Y, %A %H:%M:%S", codes))
    assert TODAY.strftime(codes) in written(model, Item(TALK, "dull"), layout_for(model)).text


def test_templates_by_name_are_the_same_in_any_order() -> None:
    one, other = (chatting(DATED) for _ in range(2))
    named = {"default": DATED, "tool_use": f"{{# tools #}}{DATED}"}
    one.tokenizer.chat_template = named
    other.tokenizer.chat_template = dict(reversed(named.items()))
    assert one.written == other.written
    other.tokenizer.chat_template = {**named, "tool_use": DATED}
    assert one.written != other.written


def test_tools_are_shown_by_their_own_template_where_it_writes_the_date() -> None:
    model = chatting(DATED)
    model.tokenizer.chat_template = {"default": DATED, "tool_use": f"{{{{ tools[0]['name'] }}}}{DATED}"}
    told = templates.render(model.tokenizer, [Message("user", "Hi", '{"tools": [{"name": "add"}]}')])
    assert told.startswith("add")
    assert f"{TODAY:%d %b %Y}" in told
