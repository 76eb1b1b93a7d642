"""A prompt as text, and as the messages of a chat: for any server, any client, and a person to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elicitable.deploy.forms.form import Form, Winner, dumped
from elicitable.errors import InputError
from elicitable.models.inject import differs_by_item
from elicitable.models.layout import Layout, before_content, has_template, messages_of, said, start_ids, written
from elicitable.models.rows import rows_of
from elicitable.models.templates import plain_turn
from elicitable.tasks.messages import message_of
from elicitable.tasks.splitting import Row
from elicitable.values import Item, Message

TEXT, MESSAGES, IDS = "prompt.txt", "messages.json", "token_ids.json"
TALK = "the conversation"


def _refusal(winner: Winner) -> str | None:
    if differs_by_item(winner.adaptation):
        return "it is another text for each item, which elicitable predict writes"
    return "its numbers are trained and are no text" if winner.adaptation.parameters() else None


def _write(winner: Winner, folder: Path) -> list[str]:
    (folder / IDS).write_text(dumped({"token_ids": _ids(winner)}), encoding="utf-8")
    if json.loads((folder / IDS).read_text(encoding="utf-8"))["token_ids"] != _ids(winner):
        raise InputError("the self-test failed: the token ids are not read back. Nothing was written.")
    if winner.model.tokenizer is None:
        return ["the token ids are read back as they were"]
    layout = winner.record.layout.layout()
    marks = _marks(winner, layout)
    item = _marked(winner, marks)
    messages = messages_of(item, layout)
    plain = {
        "messages": [plain_turn(turn) for turn in messages],
        "placeholders": marks,
        "labels": [label.strip() for label in winner.record.form.labels or ()],
    }
    (folder / MESSAGES).write_text(dumped(plain), encoding="utf-8")
    found = [_checked_messages(winner, folder, layout, marks)]
    if not layout.chat or isinstance(item.prompt, str):
        (folder / TEXT).write_text(_text(winner, item, layout), encoding="utf-8", newline="")
        found.append(_checked_text(winner, folder, layout, marks))
    return found


def write_beside(winner: Winner, folder: Path) -> list[str]:
    """Write the text that the winner's weights are used behind, where there is one; return what its self-test found."""
    return [] if winner.text is None else _write(winner.text, folder)


def usage_beside(winner: Winner) -> str:
    """Return what a model card says of that text; empty where there is none."""
    if winner.text is None:
        return ""
    return f"\n\nThe weights were trained behind a text and are used behind it. {_usage(winner.text)}"


def _ids(winner: Winner) -> list[int]:
    state = winner.adaptation.state().get("token_ids")
    if state is None:
        return [] if winner.model.tokenizer is None else start_ids(winner.model, winner.record.layout.layout())
    return [int(one) for one in state.flatten().tolist()]


def _of_start(winner: Winner) -> str:
    """Say what a tokenizer does otherwise than the race did before a row, where it does."""
    model, layout = winner.model, winner.record.layout.layout()
    if model.tokenizer is None or layout.chat or start_ids(model, layout) == model.start_ids():
        return ""
    if layout.start == "none":
        return " This tokenizer puts a start before a text, which the race left out (`add_special_tokens=False`)."
    first = f"`{model.tokenizer.bos_token}` (id {model.tokenizer.bos_token_id})"
    return f" The race put {first} before every row, which this tokenizer does not do by itself: put it first."


def _marks(winner: Winner, layout: Layout) -> dict[str, str]:
    """Return what stands in a row's place, by column: ``{text}``, or another name where a text holds that already."""
    taken = before_content(winner.model, layout) + "".join(winner.record.form.literals)
    found = {}
    for name in winner.record.form.columns:
        mark = f"{{{name}}}"
        while mark in taken:
            mark = f"{{{mark[1:-1]}_}}"
        found[name] = mark
    return found


def _marked(winner: Winner, cells: dict[str, str]) -> Item:
    """Return a row with ``cells`` in it, as it is asked: what a prompt puts behind every row too."""
    return winner.adaptation.asked(winner.model, [_plain(winner, cells)])[0]


def _plain(winner: Winner, cells: dict[str, str]) -> Item:
    form = winner.record.form
    target = form.labels[0] if form.labels else form.example
    if not form.literals:
        return Item((Message("user", next(iter(cells.values()))),), target)
    item = form.template().item(Row(tuple(cells[name] for name in form.columns), ""))
    return Item(item.prompt, target, item.spans)


def _text(winner: Winner, item: Item, layout: Layout) -> str:
    whole = written(winner.model, item, layout)
    return whole.text[: whole.answer]


def _checked_text(winner: Winner, folder: Path, layout: Layout, marks: dict[str, str]) -> str:
    """Fill in a row and compare with what the race reads, character by character and at the beginning id by id."""
    text, cells = (folder / TEXT).read_bytes().decode("utf-8"), _cells(marks)
    for name, mark in marks.items():
        text = text.replace(mark, cells[name])
    item = _marked(winner, cells)
    begins = rows_of(winner.model, [item], layout)[0].content[: len(start_ids(winner.model, layout))]
    if text != _text(winner, item, layout) or _ids(winner)[: len(begins)] != begins:
        raise InputError(f"the self-test failed: {TEXT} with a row filled in is not what the race reads.")
    return f"{TEXT} with a row filled in is the text that the race reads, character by character"


def _checked_messages(winner: Winner, folder: Path, layout: Layout, marks: dict[str, str]) -> str:
    kept: dict[str, Any] = json.loads((folder / MESSAGES).read_text(encoding="utf-8"))
    cells = _cells(marks)
    turns = []
    for turn in kept["messages"]:
        content = turn["content"]
        for name, mark in kept["placeholders"].items():
            content = content.replace(mark, cells[name])
        turns.append(message_of({**turn, "content": content}))
    wanted = messages_of(_marked(winner, cells), layout)
    if tuple(turns) != wanted:
        raise InputError(f"the self-test failed: {MESSAGES} with a row filled in is not what the race reads.")
    if layout.is_talk and (has_template(winner.model) or not layout.chat):
        how = "in the chat template" if layout.chat else "as a transcript"
        if said(winner.model, turns, layout) != _text(winner, _marked(winner, cells), layout):
            raise InputError(f"the self-test failed: {MESSAGES} {how} is not what the race reads.")
        return f"{MESSAGES} {how} is the text that the race reads, character by character"
    return f"{MESSAGES} with a row filled in has the turns of the race"


def _cells(marks: dict[str, str]) -> dict[str, str]:
    """Return a row for the self-test, in which letters, braces and a line break stand."""
    return {name: f"a row of {name}\nwith {{braces}}" for name in marks}


def _usage(winner: Winner) -> str:
    labels = winner.record.form.labels
    marker = winner.adaptation.marker
    free = "The answer is what the model writes until its end."
    if marker:
        free = f"The model thinks first: the answer is the first line behind the last `{marker}` that it writes."
    chosen = (
        "The race compared the labels by their likelihood, which a server gives as log-probabilities. A client that "
        "lets the model write gets its first words instead, which may be no label at all."
    )
    return (
        f"`{TEXT}` is the whole text before the answer, and `{MESSAGES}` the same as turns for a chat client. Put a "
        f"row's cells in the place of the `placeholders`. `{IDS}` are the ids that stand before every row. "
        f"{free if labels is None else chosen}{_of_start(winner)}{_of_turns(winner)}"
    )


def _of_turns(winner: Winner) -> str:
    """Say how a conversation of several turns is put into the text, where that is a transcript."""
    layout = winner.record.layout.layout()
    if not layout.turns or layout.chat:
        return ""
    return (
        f" A conversation of several turns stands in `{TEXT}` from its first user turn to its last, each turn on a "
        f"line of its own behind `User: ` or `Assistant: `, and what its system message says in front of all. The "
        f"answer ends where the model writes {layout.end if layout.end is not None else layout.all_stops[0]!r}."
    )


FORM = Form("prompt", "the text and the messages, for any server and chat client", _refusal, _write, _usage)
