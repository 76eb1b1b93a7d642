"""What a chat template writes: the text of a conversation, and what stands around an answer in it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from elicitable.errors import InputError
from elicitable.models.tokens import common_beginning
from elicitable.untrusted import is_out_of_memory
from elicitable.values import TOOLS, Message

#: The day that is "today" in every text, so that rows are the same tomorrow. Llama's templates write this one where
#: nobody tells them the date.
TODAY: Final = datetime(2024, 7, 26)
CLOCK: Final = "strftime_now"  # the function by which templates ask for the date
_CODE: Final = re.compile(r"%[-_0^#]?[A-Za-z]")  # of strftime
MARKS: Final = ("answer", "Bath")  # two things to say, of which neither begins or ends as the other does
_OPENS: Final = re.compile(r"<([\w:.-]+)>|\[([\w:.-]+)\]")  # a thought, as in <think> or [THINK]


def render(tokenizer: Any, messages: Sequence[Message], answered: bool = False) -> str:
    """The text of a conversation by the chat template, up to where the assistant's next turn begins.

    A template that writes today's date writes :data:`TODAY`. The tools that may be called are given to it beside the
    turns, as it takes them; what a turn says is given as a part of a list to one that reads nothing else, as those of
    models that see pictures do.

    Raises:
        InputError: there is no template, or it does not take such a conversation; with its own words.
    """
    turns = [plain_turn(turn) for turn in messages]
    is_listed = _takes_parts(tokenizer, *written_by(tokenizer))
    for turn in turns:
        turn.pop(TOOLS, None)
        turn["content"] = _listed(turn["content"]) if is_listed else turn["content"]
    try:
        text = _rendered(tokenizer, turns, tools_of(messages), answered)
    except Exception as error:  # templates are programs: they raise whatever they like
        if is_out_of_memory(error):
            raise
        roles = ", ".join(turn.role for turn in messages)
        raise InputError(
            f"the chat template does not take a conversation of the turns {roles}: {error}; without it: --chat off"
        ) from error
    return text


def _rendered(tokenizer: Any, turns: Sequence[dict[str, Any]], tools: Any, answered: bool) -> str:
    given = {"tools": tools, "tokenize": False, "add_generation_prompt": not answered}
    text: str = tokenizer.apply_chat_template(turns, **given, **_clock(tokenizer, tools))
    return text


def _listed(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


@lru_cache(maxsize=8)
def _takes_parts(tokenizer: Any, *_: str) -> bool:
    """Say whether the chat template shows what stands in a list of parts and not what is a text."""

    def shows(content: Any) -> bool:
        try:
            return MARKS[0] in _rendered(tokenizer, [{"role": "user", "content": content}], None, False)
        except Exception as error:  # templates are programs: they raise whatever they like
            if is_out_of_memory(error):
                raise
            return False

    return not shows(MARKS[0]) and shows(_listed(MARKS[0]))


def plain_turn(turn: Message) -> dict[str, Any]:
    """A turn as chat templates take it.

    >>> plain_turn(Message("tool", "5", '{"name": "now"}'))
    {'role': 'tool', 'content': '5', 'name': 'now'}
    """
    return {"role": turn.role, "content": turn.content, **json.loads(turn.parts or "{}")}


def tools_of(messages: Sequence[Message]) -> list[Any] | None:
    """The tools that a conversation brings, a part of its first turn.

    >>> tools_of([Message("user", "Hi", '{"tools": [{"name": "add"}]}'), Message("user", "Bye")])
    [{'name': 'add'}]
    """
    found = (json.loads(turn.parts).get(TOOLS) for turn in messages if turn.parts)
    return next((tools for tools in found if tools), None)


def without_tools(turn: Message) -> Message:
    """A turn of a worked example: the tools that may be called are those of the item behind it.

    >>> without_tools(Message("user", "Hi", '{"name": "Ann", "tools": [{"name": "add"}]}')).parts
    '{"name": "Ann"}'
    """
    parts = json.loads(turn.parts or "{}")
    if TOOLS not in parts:
        return turn
    del parts[TOOLS]
    return replace(turn, parts=json.dumps(parts, ensure_ascii=False) if parts else "")


def tools_alone(turn: Message) -> str:
    """The parts of a turn of which the tools are all that is left; "" where it has none."""
    tools = tools_of([turn])
    return json.dumps({TOOLS: tools}) if tools else ""


def shows_tools(tokenizer: Any) -> bool:
    """Whether the chat template writes out the tools that it is given."""
    tools = json.dumps({TOOLS: [{"type": "function", "function": {"name": "q7", "description": "", "parameters": {}}}]})
    return "q7" in render(tokenizer, [Message("user", "a", tools)])


def shows_turn(tokenizer: Any, messages: Sequence[Message], nth: int) -> bool:
    """Whether what the turn at place ``nth`` says makes a difference to the text.

    A conversation that the template does not take is none that it leaves something out of.
    """
    try:
        one, other = (
            render(tokenizer, [*messages[:nth], replace(messages[nth], content=mark), *messages[nth + 1 :]])
            for mark in MARKS
        )
    except InputError:
        return True
    return one != other


def asks_the_date(tokenizer: Any) -> bool:
    """Whether the chat template writes today's date, so that a text would be another one tomorrow."""
    return CLOCK in str(getattr(tokenizer, "chat_template", None))


def date_warning(tokenizer: Any) -> list[str]:
    """Say which day it is in every text, where the template writes the date."""
    if not asks_the_date(tokenizer):
        return []
    day = f"{TODAY:%d %b %Y}"
    return [f"the chat template writes today's date: here it is always {day}, so that texts are the same tomorrow"]


def _clock(tokenizer: Any, tools: Any) -> dict[str, str]:
    """The template with a clock of its own in front, where it asks for the date; transformers takes no function.

    There may be another one for conversations with ``tools``.
    Jinja drops the line break behind the macro, so the template's first line is the first line still.
    """
    if not asks_the_date(tokenizer):
        return {}
    template = tokenizer.get_chat_template(tools=tools)
    codes = "".join(f" | replace('{code}', '{TODAY.strftime(code)}')" for code in sorted({*_CODE.findall(template)}))
    clock = f"{{% macro {CLOCK}(form) %}}{{{{ form{codes} }}}}{{% endmacro %}}\n"
    return {"chat_template": clock + template}


@dataclass(frozen=True)
class Turn:
    """What stands around an answer: ``lead`` before it, ``end`` behind it; whether the template ``strips`` it.

    Where models think before they answer, the template ends with the beginning of a thought (``opened``), or writes an
    empty one into the lead; ``thought`` is what a thought begins with, such as ``<think>``.
    """

    lead: str
    end: str
    strips: bool
    opened: str = ""
    thought: str = ""

    def has_own_thought(self, answer: str) -> bool:
        """Whether an answer begins with a thought, which then takes the place of the empty one."""
        return bool(self.thought) and answer.lstrip().startswith(self.thought)


def written_by(tokenizer: Any) -> tuple[str, str]:
    """Return what a rendered text hangs on besides its turns, for whoever remembers one: a person may set another."""
    template = getattr(tokenizer, "chat_template", None)  # or several, by name
    return json.dumps(template, sort_keys=True) if isinstance(template, dict) else str(template), str(
        tokenizer.eos_token
    )


def answer_turn(tokenizer: Any) -> Turn:
    """What the chat template writes around an answer, found by rendering one.

    The lead stands behind where the model begins to write (a space, or an empty thought); the end goes up to the
    template's end-of-turn token (or its last character), and is the tokenizer's end of text where there is none. A
    thought that the template has opened before the model begins to write, and that no answered turn shows, is closed
    by the lead.
    """
    return _answer_turn(tokenizer, *written_by(tokenizer))


@lru_cache(maxsize=8)
def _answer_turn(tokenizer: Any, *_: str) -> Turn:
    (mark, other), asked = MARKS, [Message("user", "a")]
    before = render(tokenizer, asked)
    whole, another = (render(tokenizer, [*asked, Message("assistant", one)], answered=True) for one in MARKS)
    at, tail = common_beginning([whole, another]), common_beginning([whole[::-1], another[::-1]])
    if (whole[at : len(whole) - tail], another[at : len(another) - tail]) != (mark, other):
        raise InputError(
            "the chat template does not show what is said as it is said, so nobody can tell where an answer stands; "
            "without it: --chat off"
        )
    shared = common_beginning([before, whole[:at]])
    lead, behind = whole[shared:at] if shared == len(before) else "", whole[at + len(mark) :]
    if opens := _OPENS.fullmatch(before[shared:].strip()):
        lead = _closing(opens[0]) + "\n\n"
    thought = _thought_in(before, lead)
    opened = before[before.rindex(thought) :] if thought and before.rstrip().endswith(thought) else ""
    specials = {*map(str, tokenizer.all_special_tokens), *tokenizer.get_added_vocab()}
    ends = [behind.index(token) + len(token) for token in specials if token and token in behind]
    end = behind[: min(ends)] if ends else behind.rstrip() or str(tokenizer.eos_token or "") or behind
    spaced = render(tokenizer, [*asked, Message("assistant", f"\n {mark}\n ")], answered=True)
    return Turn(lead, end, f"\n {mark}\n " not in spaced, opened, thought)


def with_own_thought(tokenizer: Any, messages: Sequence[Message], answer: str, before: str) -> str:
    """Return an answer that brings a thought as the template writes it behind ``before``, without its end.

    Where the template shows no thoughts, it stands as it is, but for what ``before`` has opened already.
    """
    turn = answer_turn(tokenizer)
    whole = render(tokenizer, [*messages, Message("assistant", answer)], answered=True)
    if whole.startswith(before):
        written = whole[len(before) :]
        return written[: written.rindex(turn.end)] if turn.end in written else written.rstrip()
    return answer.lstrip().removeprefix(turn.thought).lstrip("\n") if turn.opened else answer


def _thought_in(before: str, lead: str) -> str:
    """The tag that is closed in ``lead``, where it is opened there or right before; "" where there is none."""
    return next((found[0] for found in _OPENS.finditer(before + lead) if _closing(found[0]) in lead), "")


def _closing(tag: str) -> str:
    return f"{tag[0]}/{tag[1:]}"
