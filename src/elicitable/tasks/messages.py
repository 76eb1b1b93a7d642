"""Read conversations: the forms in which people keep the messages of a chat.

Read are OpenAI's and TRL's ``[{"role": "user", "content": "…"}, …]`` (a content may also be a list of texts, as they
are or as ``[{"type": "text", "text": "…"}]``, where the type may be ``input_text`` or ``output_text``) and ShareGPT's
``[{"from": "human", "value": "…"}, …]``, also as a text of JSON or as Python writes them. Calls of tools, and which
call a tool answers, go along for the chat template to show. Keys and roles may be written in capitals; the names of
the roles are one set in both forms. An answer at the end whose ``weight`` is 0 is none that is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from elicitable.tasks.doubled import doubled_in
from elicitable.tasks.written import parsed
from elicitable.values import CALLS, TOOLS, Message, Messages

ANSWERER: Final = "assistant"
_FORMS: Final = ({"role", "content"}, {"from", "value"})
_PARTS: Final = (*CALLS, "tool_call_id", "name")  # what a template is given besides a role and a text
_TEXTS: Final = ("text", "input_text", "output_text")  # what a part of a content that is a text is called
_READ: Final = frozenset((*_PARTS, "weight")).union(*_FORMS)
_OTHER_NAMES: Final = {
    "user": ("human",),
    ANSWERER: ("gpt", "chatgpt", "bot", "model", "ai", "function_call"),
    "tool": ("observation",),
}
_ROLES: Final = {
    **{role: role for role in ("system", "developer", "user", "tool", "function", ANSWERER)},
    **{name: role for role, names in _OTHER_NAMES.items() for name in names},
}


def is_said(value: Any) -> bool:
    """Say whether a value is an object of the form of a message: who speaks, and what is said.

    >>> is_said({"role": "user", "content": "Hi"}), is_said({"from": "Bath", "to": "York"})
    (True, False)
    """
    return isinstance(value, Mapping) and any(form <= _plainly(value).keys() for form in _FORMS)


def messages_from(value: Any) -> Messages | None:
    """Return the messages that a list of objects holds; None where it is anything else, or a message has no text.

    >>> messages_from([{"from": "human", "value": "Hi"}])
    (Message(role='user', content='Hi'),)
    >>> messages_from(["Hi"]) is None
    True
    """
    if not isinstance(value, list | tuple) or not value:
        return None
    found = [_message(one) for one in value]
    messages = tuple(one for one in found if one is not None)
    return _up_to_wanted(messages, value) if len(messages) == len(found) else None


def _up_to_wanted(messages: Messages, value: Sequence[Any]) -> Messages:
    """Leave out the answers at the end that have the weight 0, by which OpenAI's rows say that they are not learned."""
    answers = [place for place, one in enumerate(messages) if one.role == ANSWERER]
    unwanted = [place for place in answers if isinstance(one := value[place], Mapping) and _weight(one) == 0]
    if not unwanted or unwanted[-1] != answers[-1]:
        return messages
    wanted = [place for place in answers if place not in unwanted]
    return messages[: wanted[-1] + 1 if wanted else answers[0]]


def _weight(one: Mapping[Any, Any]) -> float | None:
    try:
        return float(_plainly(one)["weight"])
    except (KeyError, TypeError, ValueError):
        return None


def written_out(text: str) -> Messages | None:
    """Return the messages that a text holds, which is how they stand in CSV; None where it holds none.

    None either where a key stands twice in one of them, as nobody can say which value is meant.

    >>> written_out('[{"role": "user", "content": "Hi"}]')
    (Message(role='user', content='Hi'),)
    """
    found = parsed(text)
    return None if doubled_in(found) else messages_from(found)


def _plainly(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Return an object by its keys in small letters."""
    return {str(key).casefold(): inner for key, inner in value.items()}


def _message(value: Any) -> Message | None:
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping):
        return None
    value = _plainly(value)
    role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
    if isinstance(content, list) and None not in (texts := [_text_in(part) for part in content]):
        content = "".join(filter(None, texts))
    parts = {name: _with_arguments(_said(value[name])) for name in _PARTS if value.get(name)}
    if content is None and any(name in parts for name in CALLS):
        content = ""  # who calls a tool need not say anything
    if not isinstance(role, str) or not isinstance(content, str):
        return None
    try:
        return message_of({"role": _ROLES.get(role.strip().casefold(), role), "content": content, **parts})
    except (TypeError, ValueError):  # no JSON
        return None


def _text_in(part: Any) -> str | None:
    """Return the text of a part of a content; None where it is none, as a picture.

    >>> _text_in({"type": "input_text", "text": "Hi"}), _text_in({"type": "image_url", "image_url": "a.png"})
    ('Hi', None)
    """
    if isinstance(part, Mapping):
        return str(part.get("text", "")) if part.get("type") in _TEXTS else None
    return part if isinstance(part, str) else None


def message_of(turn: Mapping[str, Any]) -> Message:
    """Return a turn from what a chat template takes (:func:`elicitable.models.templates.plain_turn`).

    >>> message_of({"role": "tool", "content": "5", "name": "now"}).parts
    '{"name": "now"}'
    """
    parts = {name: part for name, part in turn.items() if name not in ("role", "content")}
    return Message(turn["role"], turn["content"], json.dumps(parts, ensure_ascii=False) if parts else "")


def tools_in(value: Any) -> str:
    """Return the tools that a row brings as JSON; "" where the value is no list of objects that name or hold one.

    Taken is what OpenAI's and TRL's rows hold beside their messages, also as a text of JSON or of Python.

    >>> tools_in('[{"type": "function", "function": {"name": "add"}, "strict": null}]')
    '[{"type": "function", "function": {"name": "add"}}]'
    >>> tools_in(["hammer", "saw"])
    ''
    """
    value = parsed(value) if isinstance(value, str) else value
    if not isinstance(value, list | tuple) or not value or not all(map(_is_tool, value)) or doubled_in(value):
        return ""
    try:
        return json.dumps(_said(value), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # no JSON
        return ""


def with_system(messages: Messages, system: str) -> Messages:
    """Return ``messages`` behind a system message; as they are where ``system`` is empty or they begin with their own.

    >>> with_system((Message("user", "Hi"),), "Be brief.")[0]
    Message(role='system', content='Be brief.')
    """
    has_own = bool(messages) and messages[0].role in ("system", "developer")
    return messages if has_own or not system else (Message("system", system), *messages)


def is_of_system(name: str) -> bool:
    """Say whether a column has the name of the system message that stands beside conversations."""
    return name.casefold() in ("system", "system_prompt")


def with_tools(messages: Messages, tools: str) -> Messages:
    """Return ``messages`` with what :func:`tools_in` gave as a part of the first one; nothing changes without any.

    >>> with_tools((Message("user", "Hi"),), '[{"name": "add"}]')[0].parts
    '{"tools": [{"name": "add"}]}'
    """
    if not tools or not messages:
        return messages
    parts = {**json.loads(messages[0].parts or "{}"), TOOLS: json.loads(tools)}
    return (replace(messages[0], parts=json.dumps(parts, ensure_ascii=False)), *messages[1:])


def _is_tool(value: Any) -> bool:
    return isinstance(value, Mapping) and (isinstance(value.get("function"), Mapping) or "name" in value)


def _said(value: Any) -> Any:
    """Return a value without the keys that hold nothing, which is how Arrow writes keys that others have."""
    if isinstance(value, Mapping):
        return {str(key): _said(inner) for key, inner in value.items() if inner is not None}
    return [_said(inner) for inner in value] if isinstance(value, list | tuple) else value


def _with_arguments(part: Any) -> Any:
    """Return a part of a message in which the arguments of calls are objects, as templates take them, and no text.

    >>> _with_arguments([{"function": {"name": "add", "arguments": '{"to": 1}'}}])
    [{'function': {'name': 'add', 'arguments': {'to': 1}}}]
    """
    if isinstance(part, list | tuple):
        return [_with_arguments(one) for one in part]
    if not isinstance(part, Mapping):
        return part
    found = {str(name): _with_arguments(inner) for name, inner in part.items()}
    if isinstance(written := found.get("arguments"), str):
        try:
            read = json.loads(written)
        except (ValueError, RecursionError):
            read = None
        found["arguments"] = read if isinstance(read, dict) else written
    return found


def parts_left_out(name: str, values: Iterable[Any]) -> list[tuple[str, str]]:
    """Return what messages in the column ``name`` hold besides a role and a text, each part with the reason.

    >>> parts_left_out("m", [[{"role": "user", "content": "Hi", "mood": "good"}]])
    [('m.mood', 'a part of its messages that is not read')]
    """
    said = (one for value in values if isinstance(value, list | tuple) for one in value if is_said(one))
    keys = dict.fromkeys(key for one in said for key, part in _plainly(one).items() if key not in _READ and part)
    return [(f"{name}.{key}", "a part of its messages that is not read") for key in keys]


def last_answer(messages: Messages) -> tuple[Messages, str] | str:
    """Return the messages before the assistant's last one, and its text; or what is wrong, in words.

    >>> last_answer((Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye")))
    ((Message(role='user', content='Hi'),), 'Hello')
    >>> last_answer((Message("user", "Hi"),))
    'has no message of the assistant'
    """
    places = [index for index, message in enumerate(messages) if message.role == ANSWERER]
    if not places:
        return "has no message of the assistant"
    if not places[-1]:
        return "begins with the assistant's only message: there is nothing to answer"
    if any(f'"{name}":' in messages[places[-1]].parts for name in CALLS):
        return "ends with a call of a tool, and what is asked for is a text"
    if not any(one.shown.strip() for one in messages[: places[-1]]):
        return "says nothing before the assistant's last message: there is nothing to answer"
    answer = messages[places[-1]].content.strip()
    return (messages[: places[-1]], answer) if answer else "ends with an empty message of the assistant"


def conversation(read: str | Messages, answer: str | Messages | None) -> tuple[Messages, str] | str:
    """Return the messages to read and the text to write, or what is wrong, in words.

    ``read`` is what comes first, a text being a message of the user; ``answer`` is the text of the next message, or
    messages of which the assistant's last one is asked for, or None where ``read`` holds that one too.

    >>> conversation("Hi", (Message("assistant", "Hello"),))
    ((Message(role='user', content='Hi'),), 'Hello')
    """
    first = (Message("user", read),) if isinstance(read, str) else read
    if isinstance(answer, str):
        return first, answer
    return last_answer((*first, *(answer or ())))


def text_of(messages: Messages) -> str:
    """Return one text that is the same exactly where the messages are the same: what a conversation is known by."""
    parts = (f"{one.role}\x1f{one.content}{one.parts and chr(0x1F)}{one.parts}" for one in messages)
    return "\x1e".join(parts)
