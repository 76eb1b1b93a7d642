"""Turn a new row into the item that the race would have made of it, or say what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from elicitable.deploy.record import Form
from elicitable.errors import InputError
from elicitable.tasks.choices import listed
from elicitable.tasks.messages import (
    ANSWERER,
    conversation,
    is_of_system,
    messages_from,
    tools_in,
    with_system,
    with_tools,
    written_out,
)
from elicitable.tasks.nested import flat, plain
from elicitable.tasks.splitting import Row
from elicitable.tasks.tables import Cell, cell_of, fault_of, is_of_tools, said_in, shown_cell, text_of_cell
from elicitable.values import Item, Messages

if TYPE_CHECKING:
    from elicitable.models.model import Model

CHOICES = "choices"  # the column of a row that brings its own


def item_of(form: Form, values: Any, model: Model) -> Item:
    """Return the item of a row: its values by column, or just what its main column would hold.

    By column are a mapping, a series of pandas (a row of a frame), and a named tuple.

    Its target is a stand-in, an answer that the race's data had: it is never read, and says only where tokens part.

    Raises:
        InputError: a column is missing or empty, or it does not hold what is read; the message is about the row.
    """
    values = plain(_by_column(form, values))
    if not {*form.columns, *form.choices} <= set(values):
        values = flat(values)
    if form.ids:
        ids = _ids(form.main, values.get(form.main), model)
        return Item(ids, (0,))
    choices = _choices(form, values) if form.labels == () else ()
    target = choices[0] if choices else form.labels[0] if form.labels else form.example
    if not form.literals:
        return Item(with_tools(with_system(_talk(form, values), _system(form, values)), _tools(values)), target)
    item = _shown(form, values)
    is_led = form.lead is not None and all(one.startswith(form.lead) for one in choices)
    return Item(item.prompt, target, item.spans, choices, form.lead if is_led else None)


def _by_column(form: Form, values: Any) -> Mapping[str, Any]:
    if hasattr(values, "_asdict"):
        values = values._asdict()
    if isinstance(values, Mapping):
        return values
    keys = getattr(values, "keys", None)
    return {form.main: values} if keys is None else {str(name): values[name] for name in keys()}


def _shown(form: Form, values: Mapping[str, Any]) -> Item:
    cells = {name: _cell(values[name], form.raw) if name in values else None for name in form.columns}
    for name, cell in cells.items():
        fault = fault_of(cell) if name == form.main or cell else None
        if fault is not None and (name == form.main or fault != "is empty"):
            raise InputError(f"column {name!r} {fault if name in values else 'is not there'}")
    if form.raw and not isinstance(cells[form.main], str):
        return Item(said_in(cells[form.main]), "")
    texts = tuple(map(shown_cell, cells.values()))
    return form.template().item(Row(texts, ""))


def _cell(value: Any, is_raw: bool) -> Cell:
    cell = cell_of(value)
    return cell.strip() if isinstance(cell, str) and not is_raw else cell


def _talk(form: Form, values: Mapping[str, Any]) -> Messages:
    """Return the messages up to the answer that is asked for: all of them where the last one is not the assistant's."""
    cell = cell_of(values.get(form.main))
    cell = (isinstance(cell, str) and written_out(cell)) or cell
    if (fault := fault_of(cell)) is not None:
        raise InputError(f"column {form.main!r} {fault}")
    is_whole = form.answer == form.main
    answer = None if is_whole else messages_from(values.get(form.answer))
    read = said_in(cell)
    if answer or (is_whole and not isinstance(read, str) and read[-1].role == ANSWERER):
        found = conversation(read, answer)
        if isinstance(found, str):
            raise InputError(f"column {form.main!r} {found}")
        return found[0]
    found = conversation(read, "")
    return () if isinstance(found, str) else found[0]


def _system(form: Form, values: Mapping[str, Any]) -> str:
    name = next((name for name in values if is_of_system(str(name)) and name not in (form.main, form.answer)), None)
    return "" if name is None else text_of_cell(cell_of(values[name]))


def _tools(values: Mapping[str, Any]) -> str:
    name = next((name for name in values if is_of_tools(str(name))), None)
    value = None if name is None else values[name]
    found = tools_in(value)
    if value and not found:
        raise InputError(f"column {name!r} holds no list of tools")
    return found


def _ids(name: str, value: Any, model: Model) -> tuple[int, ...]:
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    try:
        ids = tuple(int(part) for part in parts if not isinstance(part, bool | float))
    except (TypeError, ValueError):
        raise InputError(f"column {name!r} must hold token ids such as 3 1 2, not {value!r}") from None
    vocab = model.anatomy.vocab
    if wrong := [one for one in ids if not 0 <= one < vocab]:
        raise InputError(f"column {name!r} holds the token id {wrong[0]}, and the model's are 0 to {vocab - 1}")
    if not ids or len(ids) != len(parts):
        raise InputError(f"column {name!r} must hold at least one token id, from 0 to {vocab - 1}, not {value!r}")
    return ids


def _choices(form: Form, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the choices of a row as they stand behind the prompt."""
    if not form.choices:
        return _verbatim(values.get(CHOICES))
    found = dict.fromkeys(filter(None, listed([cell_of(values.get(name)) for name in form.choices])))
    if len(found) < 2:
        names = ", ".join(map(repr, form.choices))
        raise InputError(f"column{'s' * (len(form.choices) > 1)} {names} must hold at least two different choices")
    template = form.template()
    return tuple(template.target(one, form.ending) for one in found)


def _verbatim(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) and one for one in value):
        raise InputError(
            f"column {CHOICES!r} must hold a list of at least two texts, each as it stands behind the prompt"
        )
    return tuple(value)
