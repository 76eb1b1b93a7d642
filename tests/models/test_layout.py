"""Rows of a chat against the template's own text and ids; what ends an answer; which layouts are tried."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.families import CHAT, FAMILIES, reader

from elicitable.errors import InputError
from elicitable.models.layout import (
    Layout,
    alternatives,
    has_template,
    layout_for,
    transcript,
    written,
)
from elicitable.models.model import Model
from elicitable.models.rows import common_context, context_ids, label_rows, rows_of
from elicitable.models.templates import answer_turn
from elicitable.values import Item, Message

TEMPLATES = {
    "trims": CHAT,
    "system first": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[SYS]{{ m.content }}[/SYS]"
        "{% elif m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}"
        "{% endif %}{% endfor %}"
    ),
    "says who it is": (
        "{% if messages[0].role != 'system' %}<|user|>You help.<|end|>\n{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
}
WORDS = st.text("abfilmне漢 \n.:", min_size=1, max_size=12).filter(lambda text: text.strip())


def chatting(template: str, family: str = "byte-level BPE") -> Model:
    """A model whose tokenizer has one of the templates."""
    plain = reader(family)
    own = deepcopy(plain.tokenizer)
    own.chat_template = TEMPLATES[template]
    own.bos_token = "<s>"
    return Model(plain.hf, tokenizer=own, name="tiny, chatting")


def as_turns(*messages: Message) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "family", ["byte-level BPE with a start", "Metaspace with a start", "double start", "in Python"]
)
@settings(max_examples=15)
@given(texts=st.lists(WORDS, min_size=2, max_size=6), system=st.none() | WORDS)
def test_rows_are_what_the_template_writes(template: str, family: str, texts: list[str], system: str | None) -> None:
    """Up to the end of the last turn: ids as ``apply_chat_template`` gives them, its text, no start token twice."""
    model = chatting(template, family)
    texts = [text.strip() for text in texts[: len(texts) // 2 * 2]]
    turns = [Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
    layout = layout_for(model, "on", system=system)
    item = Item(tuple(turns[:-1]), turns[-1].content)
    whole = [*([Message("system", system)] if system else []), *turns]
    text: str = model.tokenizer.apply_chat_template(as_turns(*whole), tokenize=False)
    ids: Any = model.tokenizer.apply_chat_template(as_turns(*whole), tokenize=True, return_dict=False)
    row, found = rows_of(model, [item], layout)[0], written(model, item, layout)
    assert text.startswith(found.text)
    assert text[len(found.text) :].strip() == ""
    assert row.content + row.answer == ids[: len(row.content) + len(row.answer)]
    asked = model.tokenizer.apply_chat_template(as_turns(*whole[:-1]), tokenize=False, add_generation_prompt=True)
    assert found.text[: found.answer] == asked
    own = answer_turn(model.tokenizer)
    assert found.text[found.answer :] == own.lead + turns[-1].content + own.end
    if len(turns) == 2:  # a plain text is the user's only turn, and the space before its answer is the template's
        assert rows_of(model, [Item(turns[0].content, f" {turns[1].content}")], layout) == [row]


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=15)
@given(head=WORDS, shown=st.lists(st.tuples(WORDS, WORDS), max_size=2), prompt=WORDS)
def test_a_context_in_a_chat_is_the_beginning_of_its_text(
    template: str, head: str, shown: list[tuple[str, str]], prompt: str
) -> None:
    """An instruction stands in the first turn of the user, worked examples are turns of their own."""
    model = chatting(template)
    examples = tuple(Item(a, b) for a, b in shown)
    layout = Layout(chat=True, head=head, examples=examples)
    turns = [turn for a, b in shown for turn in (Message("user", a), Message("assistant", b.strip()))]
    turns += [Message("user", prompt), Message("assistant", "film")]
    turns[0] = Message("user", head + turns[0].content)
    ids: Any = model.tokenizer.apply_chat_template(as_turns(*turns), tokenize=True, return_dict=False)
    items = [Item(prompt, " film"), Item(f"b{prompt}", " film")]
    held = common_context(model, items, layout, context_ids(model, layout))
    row = rows_of(model, items, layout, held=held)[0]
    assert [*held, *row.content, *row.answer] == ids[: len(held) + len(row)]
    assert held
    labels = label_rows(model, items, ["film", " no"], layout, held=held)[0]
    assert labels.content + labels.labels[0] == row.content + row.answer[: len(row.answer) - row.end]


@pytest.mark.parametrize(
    ("template", "end"), [("trims", "<|end|>"), ("system first", "</s>"), ("says who it is", "<|end|>")]
)
def test_the_end_of_a_turn_is_the_templates(template: str, end: str) -> None:
    model = chatting(template)
    assert answer_turn(model.tokenizer).end == end
    row = rows_of(model, [Item("a film", " b")], layout_for(model))[0]
    assert model.tokenizer.convert_ids_to_tokens(row.answer[-row.end :]) == [end]
    for stop in ("\n", "\\n"):  # as it is typed on the command line
        stopped = rows_of(model, [Item("a film", " b")], layout_for(model, stop=stop))[0]
        assert model.tokenizer.decode(stopped.answer).lstrip() == "b\n"


def test_long_turns_are_shortened_and_the_template_is_not() -> None:
    model = chatting("trims")
    layout = layout_for(model)
    talk = (
        Message("user", "a fine film " * 20),
        Message("assistant", "dull " * 20),
        Message("user", "too long! " * 20),
    )
    for item in (
        Item(talk, "yes"),
        Item("a fine film " * 20, " yes"),
        Item(" Film: " + "a b " * 60, " yes", ((7, 247),)),
    ):
        for side in ("left", "right"):
            row = rows_of(model, [item], Layout(chat=True, cut=side))[0]  # type: ignore[arg-type]
            cut = rows_of(model, [item], Layout(chat=True, cut=side), limit=len(row) - 25)[0]  # type: ignore[arg-type]
            assert (cut.cut, len(cut)) == (25, len(row) - 25)
            special = [i for i in row.content if i in model.tokenizer.all_special_ids or i > 400]
            assert [i for i in cut.content if i in model.tokenizer.all_special_ids or i > 400][:2] == special[:2]
            text = model.tokenizer.decode(cut.content)
            assert text.startswith("[gMASK]<sop><|user|>\n")
            assert text.endswith("<|assistant|>\n")
            assert ("Film: " in text) == isinstance(item.prompt, str) * ("Film" in str(item.prompt))
    assert layout.chat


@pytest.mark.parametrize("template", ["trims", "says who it is"])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_what_the_system_says_between_the_turns_stays_there(template: str, system: str | None) -> None:
    """It went to the front, and the row was no longer the template's text."""
    model = chatting(template)
    said = [("user", "a"), ("assistant", "b"), ("system", "film now."), ("user", "fine"), ("assistant", "bad")]
    for begin in ([], [("system", "Be brief.")]):
        turns = [Message(*turn) for turn in (*begin, *said)]
        layout = layout_for(model, "on", system=system)
        asked = [*([Message("system", system)] if system and not begin else []), *turns[:-1]]
        text = model.tokenizer.apply_chat_template(as_turns(*asked), tokenize=False, add_generation_prompt=True)
        found = written(model, Item(tuple(turns[:-1]), "bad"), layout)
        assert found.text[: found.answer] == text
        own = [turn.content for turn in turns[len(begin) : -1]]
        assert [found.text[first:last] for first, last in found.spans] == own
    talk = transcript([Message(*turn) for turn in said[:-1]])
    assert talk == "User: a\nAssistant: b\nSystem: film now.\nUser: fine\nAssistant:"


@pytest.mark.parametrize(
    "shown", ["{{ m.content | upper }}", "{% for part in m.content %}{{ part.words }}{% endfor %}"]
)
def test_a_template_that_does_not_show_what_is_said_is_refused(shown: str) -> None:
    """Some take something else, and show nothing of a text; then rows held neither question nor answer."""
    model = chatting("trims")
    model.tokenizer.chat_template = f"{{% for m in messages %}}<|{{{{ m.role }}}}|>{shown}<|end|>{{% endfor %}}"
    with pytest.raises(InputError, match=r"does not show what is said as it is said.*--chat off"):
        rows_of(model, [Item("a", " b")], layout_for(model))


def test_what_a_person_may_ask_for() -> None:
    model, bare = chatting("trims"), reader("byte-level BPE")
    assert has_template(model)
    assert not has_template(bare)
    assert [layout_for(model, chat).chat for chat in ("auto", "on", "off")] == [True, True, False]
    assert layout_for(bare).chat is False
    for asked, said in (
        ({"chat": "yes"}, "chat must be 'auto', 'on' or 'off', got 'yes'"),
        ({"chat": "on"}, "has no chat template"),
        ({"system": "Be brief."}, "a system message needs the chat template"),
        ({"cut": "middle"}, "must be 'left' or 'right', got 'middle'"),
        ({"stop": ""}, "at least one character"),
    ):
        with pytest.raises(InputError, match=said):
            layout_for(bare, **asked)  # type: ignore[arg-type]


def test_a_template_and_a_start_are_tried_where_nobody_asked() -> None:
    model = chatting("trims")
    told = [layout.setting() for layout in alternatives(model, layout_for(model))]
    assert told == [{"chat": True}, {}, {"start": "bos"}]
    assert [one.setting() for one in alternatives(model, layout_for(model, "on"), "on")] == [{"chat": True}]
    assert [one.setting() for one in alternatives(model, layout_for(model, "off"), "off")] == [{}, {"start": "bos"}]
    started = reader("double start")
    assert [one.setting() for one in alternatives(started, layout_for(started))] == [{}, {"start": "none"}]
    briefly = layout_for(model, system="Be brief.")
    assert alternatives(model, briefly) == (briefly,)


def test_a_conversation_needs_a_layout_with_turns_and_a_template_that_takes_it() -> None:
    talk = Item((Message("user", "a"),), "b")
    with pytest.raises(InputError, match=r"an item is a conversation, and .* in a layout without turns"):
        rows_of(reader("byte-level BPE"), [talk])
    model = chatting("trims")
    model.tokenizer.chat_template = "{{ raise_exception('Conversation roles must alternate') }}"
    with pytest.raises(InputError, match=r"turns user.*: Conversation roles must alternate"):
        rows_of(model, [talk], Layout(chat=True, end="\n"))
    assert FAMILIES
