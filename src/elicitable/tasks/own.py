"""Ask a task of a person's own for a little of everything, before a model is loaded and minutes are spent on it."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from numbers import Integral
from typing import Any, Final

from elicitable.errors import InputError
from elicitable.own_digest import digest_of
from elicitable.rng import generator
from elicitable.tasks.base import HeldOut, Task, groups_of
from elicitable.values import Item, Message

ASKED: Final = 8  # items that are looked at
HELD_OUT: Final[tuple[HeldOut, ...]] = ("validation", "test")
NO_LABELS: Final = "return None from labels() where the whole answer must match, or the possible targets."


def check_own(name: str, task: Task, asking: Callable[[str], AbstractContextManager[None]]) -> None:
    """Ask ``task`` for its name, labels, fingerprint, and a few training and validation items; never for a test item.

    Args:
        name: What the messages call the task.
        task: The task.
        asking: Given what is asked for, a context manager in which it is asked.

    Raises:
        InputError: something that it gives is not what the contract says; the message says what, and what is expected.
    """

    def asked(what: str, ask: Callable[[], Any], is_so: Callable[[Any], bool], wanted: str) -> Any:
        with asking(what):
            given = ask()
        if not is_so(given):
            raise InputError(f"{name}: {what} has to be {wanted}, and is {reprlib.repr(given)}.")
        return given

    asked("name", lambda: task.name, _is_text, "a text")
    labels = asked("labels()", task.labels, lambda given: given is None or _is_list(given, str), "None or texts")
    if labels is not None and len(labels) and (len(labels) == 1 or len(set(labels)) < len(labels)):
        raise InputError(
            f"{name}: labels() has to give at least two labels, each once, and gives {reprlib.repr(labels)}."
        )
    check_apart(name, "labels()", labels or ())
    for optional in ("warnings", "stops"):
        asked(optional, lambda name=optional: getattr(task, name, ()), _is_texts, "a tuple of texts")  # type: ignore[misc]
    fingerprint = asked("fingerprint()", task.fingerprint, _is_text, "a text")
    if (again := asked("fingerprint()", task.fingerprint, _is_text, "a text")) != fingerprint:
        raise InputError(
            f"{name}: fingerprint() gives another text at each call ({reprlib.repr(fingerprint)}, then "
            f"{reprlib.repr(again)}), and has to be the same as long as data and template are."
        )
    what = f"held_out('validation', {ASKED})"
    held = asked(what, lambda: task.held_out("validation", ASKED), _is_items, "a list of items")
    if not 1 <= len(held) <= ASKED:
        raise InputError(f"{name}: {what} has to give 1 to {ASKED} items, and gives {len(held):,}.")
    _check_items(name, what, held, labels)
    held_again = asked(what, lambda: task.held_out("validation", ASKED), _is_items, "a list of items")
    _check_items(name, what, held_again, labels)
    _check_parts(name, what, held)
    if list(held_again) != list(held):
        raise InputError(f"{name}: {what} gives other items at each call, and has to give the same in one order.")
    what = f"sample({ASKED}, …)"

    def draw() -> Any:
        return asked(what, lambda: task.sample(ASKED, generator(0, "a look at a task")), _is_items, "a list of items")

    drawn = draw()
    if len(drawn) != ASKED:
        raise InputError(f"{name}: {what} has to give {ASKED} items, and gives {len(drawn):,}.")
    _check_items(name, what, drawn, labels)
    _check_parts(name, what, drawn)
    if list(draw()) != list(drawn):
        raise InputError(
            f"{name}: {what} gives other items at each call with generators of one seed, so that no run can be done "
            "again: draw with the generator that it is given (its second argument), and with nothing else."
        )


def check_held_out(task: Task, most: int) -> None:
    """Look at the form of the first ``most`` items of both held-out splits, before minutes are spent on training.

    Raises:
        InputError: something is no item, or odd; there are more than were asked for, or other ones at the next call;
            or not every item has a group.
    """
    labels = task.labels()
    check_apart(task.name, "labels()", labels or ())
    for split in HELD_OUT:
        what = f"held_out({split!r}, {most})"
        held = task.held_out(split, most)
        if not _is_items(held):
            raise InputError(f"{task.name}: {what} has to be a list of items, and is {reprlib.repr(held)}.")
        if len(held) > most:
            raise InputError(f"{task.name}: {what} has to give at most {most:,} items, and gives {len(held):,}.")
        if list(task.held_out(split, most)) != list(held):
            raise InputError(f"{task.name}: {what} gives other items at each call, and has to give the same in order.")
        if list(task.held_out(split, 1)) != list(held[:1]):
            raise InputError(f"{task.name}: held_out({split!r}, 1) has to give the first of the items of {what} alone.")
        _check_items(task.name, what, held, labels)
        if digest_of(task) is not None:  # documents of a benchmark are as they are
            _check_parts(task.name, what, held)
        if (groups := len(groups_of(task, split, most))) != len(held):
            raise InputError(
                f"{task.name}: groups({split!r}, {most}) has to give a group for each of the {len(held):,} items of "
                f"{what}, and gives {groups:,}."
            )


def check_apart(name: str, what: str, labels: Sequence[str]) -> None:
    """Raise InputError where two of ``labels`` differ in white space at their ends alone, which no score sees.

    >>> check_apart("mine", "labels()", ("yes", " yes"))
    Traceback (most recent call last):
    elicitable.errors.InputError: mine: labels() gives 'yes' and ' yes', which are one answer: white space around ...
    """
    known: dict[str, str] = {}
    for label in labels:
        other = known.setdefault(label.strip(), label)
        if other != label:
            raise InputError(
                f"{name}: {what} gives {other!r} and {label!r}, which are one answer: white space around answers does "
                "not count; give labels that differ in their letters."
            )


def _is_text(given: object) -> bool:
    return isinstance(given, str)


def _is_texts(given: object) -> bool:
    return _is_text(given) or _is_list(given, str)


def _is_list(given: object, kind: type) -> bool:
    return isinstance(given, tuple | list) and all(isinstance(one, kind) for one in given)


def _both(item: Item) -> str:
    return f"{reprlib.repr(item.prompt)} and {reprlib.repr(item.target)}"


def _is_items(given: object) -> bool:
    return _is_list(given, Item)


def _check_parts(name: str, what: str, items: Sequence[Item]) -> None:
    """Raise InputError where choices are none, the target is not among the accepted, or spans leave the prompt."""
    for item in items:
        told, choices = f"{name}: an item of {what}", item.choices
        if choices and len(set(choices)) < max(2, len(choices)):
            raise InputError(
                f"{told} has to have at least two choices of its own, each once, and has {reprlib.repr(choices)}."
            )
        check_apart(name, f"an item of {what} with choices of its own", choices)
        if item.accepted and str(item.target).strip() not in map(str.strip, item.accepted):
            raise InputError(
                f"{told} accepts {reprlib.repr(item.accepted)}, and its target {reprlib.repr(item.target)}, which is "
                "trained, is none of them; the target is the first of all right answers."
            )
        size = len(item.prompt)
        if _is_text(item.prompt) and not all(0 <= first <= last <= size for first, last in item.spans):
            raise InputError(
                f"{told} has the spans {reprlib.repr(item.spans)}, and they have to be characters of its prompt, from "
                f"0 to {size:,}: what may be left out where a text is too long."
            )


def _check_items(name: str, what: str, items: Sequence[Item], labels: Sequence[str] | None) -> None:
    """Raise InputError where a prompt or target cannot be read, or a target is none of those that it is chosen from."""
    for item in items:
        told = f"{name}: {what} has an item whose"
        if not (_is_text(item.target) or _is_list(item.target, Integral)):
            raise InputError(f"{told} target has to be a text or token ids, and is {reprlib.repr(item.target)}.")
        if not (_is_text(item.prompt) or _is_list(item.prompt, Integral) or _is_list(item.prompt, Message)):
            wanted = "a text, token ids or messages"
            raise InputError(f"{told} prompt has to be {wanted}, and is {reprlib.repr(item.prompt)}.")
        if item.is_text == _is_list(item.prompt, Integral):
            raise InputError(f"{told} prompt and target are not both read as texts or both token ids: {_both(item)}.")
        if item.is_text != items[0].is_text:
            raise InputError(f"{name}: {what} has items of texts and items of token ids, such as {_both(item)}.")
        for part, texts in (("choices", item.choices), ("accepted", item.accepted)):
            if not _is_list(texts, str):
                raise InputError(f"{told} {part} have to be texts, and are {reprlib.repr(texts)}.")
        if labels is None:
            continue
        known = item.choices or labels
        if not known:
            raise InputError(f"{name}: labels() is empty, which is for items with choices of their own; {NO_LABELS}")
        if item.target not in known:
            raise InputError(
                f"{told} target {reprlib.repr(item.target)} is none of the labels {reprlib.repr(tuple(known))}, which "
                "are compared letter for letter, blanks included."
            )
