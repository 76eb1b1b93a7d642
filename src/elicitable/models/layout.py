"""How an item becomes a text: what stands before its prompt, between prompt and answer, and at the answer's end.

A row is ``start + head + examples + prompt + answer + end``. With a chat template the same parts are turns of a
conversation, and the template says what stands between them. Where the items are conversations and there is no
template, they are written as a transcript, whose template is :func:`transcript`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from elicitable.errors import InputError
from elicitable.models.templates import (
    Turn,
    answer_turn,
    render,
    shows_turn,
    tools_alone,
    tools_of,
    with_own_thought,
    without_tools,
    written_by,
)
from elicitable.models.tokens import common_beginning
from elicitable.untrusted import typed
from elicitable.values import Item, Message

if TYPE_CHECKING:
    from elicitable.models.model import Model

Side = Literal["left", "right"]
Start = Literal["own", "none", "bos"]
SYSTEM: Final = Message("system", "a")
NEXT_TURN: Final = "\nUser:"  # what ends an answer in a transcript


@dataclass(frozen=True)
class Layout:
    """How the rows of a task are laid out; frozen data, part of a trial's identity.

    ``start`` is what stands before a row: the tokenizer's "own" ids, those that it puts before a text by itself;
    "none"; or its beginning-of-sequence token ("bos") although it puts none there. ``chat`` renders items by the
    tokenizer's chat template, with ``system`` as the system message. ``head`` stands before the prompt (in a chat: at
    the beginning of the first user turn), worked ``examples`` before it, each followed by ``separator`` (in a chat:
    as turns of their own). ``end`` ends every answer: None is the tokenizer's end of text or the template's end of
    turn, a text is a stop string, and "" is nothing. ``stops`` are texts that end an answer wherever the model writes
    them; without a template and an ``end``, answers end with the first of them. ``cut`` is the side on which a text
    loses tokens that are too many. ``turns`` says that the items are conversations, which are written as a transcript
    where they are not rendered by the template.
    """

    start: Start = "own"
    chat: bool = False
    system: str | None = None
    head: str = ""
    examples: tuple[Item, ...] = ()
    separator: str = "\n\n"
    end: str | None = None
    stops: tuple[str, ...] = ()
    cut: Side = "left"
    turns: bool = False

    @property
    def is_talk(self) -> bool:
        """Whether rows are written as turns, by the chat template or as a transcript."""
        return self.chat or self.turns

    @property
    def all_stops(self) -> tuple[str, ...]:
        """The texts that end an answer wherever they stand: ``stops``, and a transcript's next turn of the user."""
        is_transcript = self.turns and not self.chat and self.end is None
        return (*self.stops, NEXT_TURN) if is_transcript else self.stops

    def setting(self) -> dict[str, Any]:
        """Return what a record keeps of it: the start, the template and the system message, where they are not plain.

        >>> Layout(start="none").setting(), Layout(chat=True, system="Be brief.").setting()
        ({'start': 'none'}, {'chat': True, 'system': 'Be brief.'})
        """
        return {name: x for name in ("start", "chat", "system") if (x := getattr(self, name)) != getattr(PLAIN, name)}


PLAIN = Layout()


@dataclass(frozen=True)
class Written:
    """An item as one text. The answer begins at character ``answer``; ``spans`` may be shortened; ``end`` ends it."""

    text: str
    answer: int
    spans: tuple[tuple[int, int], ...]
    end: str


def written(model: Model, item: Item, layout: Layout, has_end: bool = True) -> Written:
    """``item`` as its row stands in ``layout``, as one text.

    The tokenizer's own end of text is an id and no part of the text (see :func:`end_id`).

    Raises:
        InputError: a conversation in a layout that has no turns, or one that the template does not take.
    """
    end = end_of(model, layout) if has_end else ""
    if item.shown:
        layout = replace(layout, examples=(*layout.examples, *item.shown))
    if layout.is_talk:
        return _as_turns(model, item, layout, end)
    if not isinstance(item.prompt, str):
        raise InputError(
            f"an item is a conversation, and {model.name} is read in a layout without turns; give one for "
            "conversations (layout_for(model, turns=True)), or prompt and target as texts."
        )
    before = before_content(model, layout)
    answer = len(before) + len(item.prompt)
    spans = tuple((len(before) + first, len(before) + last) for first, last in item.spans or ((0, len(item.prompt)),))
    return Written(f"{before}{item.prompt}{item.target}{end}", answer, spans, end)


def with_answer(model: Model, item: Item, layout: Layout, one: Written, target: str) -> Written:
    """Return what :func:`written` gives where ``item`` has another ``target``, from ``one`` that it gave."""
    before = one.text[: one.answer]
    text = before + _answer(model, item, layout, target, before) + one.end
    return Written(text, one.answer, one.spans, one.end)


def end_of(model: Model, layout: Layout) -> str:
    """The text that ends an answer: a stop string or the template's end of turn; "" where neither does."""
    if layout.end is not None:
        return layout.end
    if layout.chat:
        return answer_turn(model.tokenizer).end
    return next(iter(layout.all_stops), "")


def end_id(model: Model, layout: Layout) -> int | None:
    """The id that ends an answer: the end of text (the first of the model's), where no template or stop string does."""
    if layout.chat or layout.end is not None or layout.all_stops:
        return None
    return next(iter(model.ends), None)


def has_template(model: Model) -> bool:
    """Whether the tokenizer brings a chat template."""
    return bool(getattr(model.tokenizer, "chat_template", None))


def start_ids(model: Model, layout: Layout) -> list[int]:
    """Return the ids that stand before a row; a chat template writes its own into the text."""
    if layout.chat or layout.start == "none":
        return []
    bos = getattr(model.tokenizer, "bos_token_id", None)
    return model.start_ids() or ([int(bos)] if layout.start == "bos" and bos is not None else [])


def alternatives(model: Model, layout: Layout, chat: str = "auto") -> tuple[Layout, ...]:
    """Return ``layout`` and what else is worth trying: without the template, with or without a start token.

    What a person has asked for (``chat`` other than "auto", a system message) is not undone.
    """
    plain = replace(layout, chat=False)
    found = [layout, *([] if layout.chat and (chat != "auto" or layout.system is not None) else [plain])]
    if plain in found and model.start_ids():
        found.append(replace(plain, start="none"))
    elif plain in found and getattr(model.tokenizer, "bos_token_id", None) is not None:
        found.append(replace(plain, start="bos"))
    return tuple(dict.fromkeys(found))


def layout_for(
    model: Model,
    chat: str = "auto",
    system: str | None = None,
    stop: str | None = None,
    cut: str = "left",
    stops: tuple[str, ...] = (),
    turns: bool = False,
) -> Layout:
    """Return the layout that a person asks for: ``chat`` is "auto" (where there is a template), "on" or "off".

    ``stops`` are the task's, which a person's ``stop`` replaces; in it a line break may be typed as two characters.
    ``turns`` says that its items are conversations.

    Raises:
        InputError: a setting is unknown, or a template is asked for (or a system message given) and there is none.
    """
    if chat not in ("auto", "on", "off"):
        raise InputError(f"chat must be 'auto', 'on' or 'off', got {chat!r}.")
    if cut not in ("left", "right"):
        raise InputError(f"the side on which long texts are cut must be 'left' or 'right', got {cut!r}.")
    if stop == "":
        raise InputError("a stop string needs at least one character.")
    if stop is not None and model.tokenizer is None:
        raise InputError(f"{model.name} reads and writes token ids, and a stop string is a text; leave it out.")
    if chat == "on" and not has_template(model):
        raise InputError(f"{model.name} has no chat template; leave chat at 'auto', or give a tokenizer that has one.")
    is_chat = chat == "on" or (chat == "auto" and has_template(model))
    if system is not None and not is_chat and not turns:
        raise InputError(f"a system message needs the chat template, and {model.name} is read without one.")
    if system is not None and is_chat and not shows_turn(model.tokenizer, (SYSTEM, Message("user", "a")), 0):
        raise InputError(
            f"the chat template of {model.name} does not show a system message; put it into the prompt, or leave the "
            "template out (--chat off)."
        )
    stop = stop and typed(stop)
    ends: tuple[str, ...] = stops if stop is None else ()
    side: Side = "left" if cut == "left" else "right"
    return Layout(chat=is_chat, system=system, end=stop, stops=ends, cut=side, turns=turns)


def layout_unsaid(model: Model, stops: tuple[str, ...] = (), turns: bool = False) -> Layout:
    """Return how items are read where no record says: conversations by a chat template, all else without one.

    ``stops`` are the task's; ``turns`` says that its items are conversations.
    """
    return layout_for(model, "auto" if turns else "off", stops=stops, turns=turns)


def _as_turns(model: Model, item: Item, layout: Layout, end: str) -> Written:
    before = said(model, messages_of(item, layout), layout)
    answer = _answer(model, item, layout, str(item.target), before)
    return Written(before + answer + end, len(before), _own_spans(model, item, layout, before), end)


def _answer(model: Model, item: Item, layout: Layout, target: str, before: str) -> str:
    """Return an answer as it stands in the row behind ``before``, without its end."""
    if not layout.is_talk:
        return target
    turn = turn_in(model, layout)
    if turn.has_own_thought(target):
        return with_own_thought(model.tokenizer, messages_of(item, layout), target, before)
    return turn.lead + as_written(model, item, layout, target)


def as_written(model: Model, item: Item, layout: Layout, target: str) -> str:
    """Return the ``target`` of ``item`` as an answer has it: in a turn without the blanks that stand around it.

    Those of a conversation's turn stay where its template leaves them.
    """
    is_bare = layout.is_talk and (isinstance(item.prompt, str) or turn_in(model, layout).strips)
    return target.strip() if is_bare else target


def _own_spans(model: Model, item: Item, layout: Layout, before: str) -> tuple[tuple[int, int], ...]:
    """Where the contents of the item's own turns stand in ``before``; templates may strip the space around them."""
    messages = messages_of(item, layout)
    own = len(turns_of(item)) - rules_of(turns_of(item))
    others, own_turns = messages[: len(messages) - own], messages[len(messages) - own :]
    template = model.tokenizer if layout.chat else None
    at = _place(template, others, own_turns[0], own_turns[1:]) if own_turns else 0
    spans = []
    for nth, turn in enumerate(own_turns):
        content = turn.content.strip()
        if nth and own_turns[nth - 1].parts:  # in which the same words may stand
            at = _place(template, (*others, *own_turns[:nth]), turn, own_turns[nth + 1 :])
        at = before.find(content, at)
        if at < 0:  # the template writes it otherwise, so nothing of it can be shortened
            break
        skipped = len(layout.head) if nth == 0 and not layout.examples else 0  # the head stands in this turn
        moved = at + skipped - (len(turn.content) - len(turn.content.lstrip()))
        for span in item.spans or ((0, len(turn.content) - skipped),):
            first, last = (min(max(at, moved + place), at + len(content)) for place in span)
            spans.append((first, last))
        at += len(content)
    return tuple(spans)


def before_content(model: Model, layout: Layout) -> str:
    """The text that stands before an item's own, whatever the item: up to there a context can hold it."""
    if not layout.is_talk:
        return layout.head + "".join(f"{e.prompt}{e.target}{layout.separator}" for e in layout.examples)
    one, other = (said(model, messages_of(Item(mark, ""), layout), layout) for mark in ("a", "b"))
    return one[: common_beginning([one, other])]


def _place(tokenizer: Any, others: tuple[Message, ...], turn: Message, later: tuple[Message, ...]) -> int:
    return _placed(tokenizer, others, turn, later, () if tokenizer is None else written_by(tokenizer))


@lru_cache(maxsize=256)
def _placed(
    tokenizer: Any, others: tuple[Message, ...], turn: Message, later: tuple[Message, ...], _: tuple[str, ...]
) -> int:
    """Where a turn's content begins in the rendered text: up to there it is the same whatever the content.

    Without a ``tokenizer`` the text is a transcript.
    """
    every = [(*others, Message(turn.role, mark, tools_alone(turn)), *later) for mark in ("a", "b")]
    texts = [transcript(turns) if tokenizer is None else render(tokenizer, turns) for turns in every]
    return common_beginning(texts)


def turns_of(item: Item) -> tuple[Message, ...]:
    """The turns of an item's prompt; a text is one turn of the user."""
    if isinstance(item.prompt, str):
        return (Message("user", item.prompt),)
    return tuple(turn for turn in item.prompt if isinstance(turn, Message))


def rules_of(turns: Sequence[Message]) -> int:
    """Count the system messages that a conversation begins with; one between the turns stays where it is."""
    return next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))


def messages_of(item: Item, layout: Layout) -> tuple[Message, ...]:
    """All turns before the answer: the system message, the worked examples, the item's own; ``head`` in the first."""
    turns = turns_of(item)
    system, own = turns[: rules_of(turns)], turns[rules_of(turns) :]
    if not system and layout.system is not None:
        system = (Message("system", layout.system),)
    shown: list[Message] = []
    for example in layout.examples:
        shown += map(without_tools, turns_of(example)[rules_of(turns_of(example)) :])
        target = str(example.target)
        shown.append(Message("assistant", target.strip() if isinstance(example.prompt, str) else target))
    shown += own
    first = next((n for n, turn in enumerate(shown) if turn.role == "user"), None)
    if first is not None and layout.head:
        shown[first] = replace(shown[first], content=layout.head + shown[first].content)
    return (*system, *shown)


def said(model: Model, messages: Sequence[Message], layout: Layout) -> str:
    """The text of a conversation up to where the assistant's next turn begins: by the template, or as a transcript."""
    return render(model.tokenizer, messages) if layout.chat else transcript(messages)


def transcript(messages: Sequence[Message]) -> str:
    """The text of a conversation in plain words: what the system says in front, the tools if any, then who says what.

    >>> transcript([Message("system", "Be brief."), Message("user", "Where is Bath?")])
    'Be brief.\\n\\nUser: Where is Bath?\\nAssistant:'
    """
    first = rules_of(messages)
    rules = "".join(f"{turn.content.strip()}\n\n" for turn in messages[:first])
    if tools := tools_of(messages):
        rules += f"Tools: {json.dumps(tools, ensure_ascii=False)}\n\n"
    turns = (f"{turn.role.capitalize()}: {turn.shown.strip()}\n" for turn in messages[first:])
    return rules + "".join(turns) + "Assistant:"


def turn_in(model: Model, layout: Layout) -> Turn:
    """What stands around an answer in a conversation: by the template, or in a transcript."""
    return answer_turn(model.tokenizer) if layout.chat else Turn(" ", NEXT_TURN, True)
