"""Whether a model can read a task at all, and what is odd about how it does, said before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elicitable.diagnosis.shares import wilson
from elicitable.diagnosis.verdict import ROOM
from elicitable.errors import InputError
from elicitable.models.inject import room_in
from elicitable.models.layout import Layout, as_written, end_of, messages_of, rules_of, turns_of
from elicitable.models.rows import label_rows, rows_of
from elicitable.models.templates import date_warning, shows_tools, shows_turn, tools_of
from elicitable.own_digest import digest_of
from elicitable.rng import generator
from elicitable.tasks.base import groups_of, has_turns, in_short
from elicitable.tasks.own import check_held_out
from elicitable.training.evaluate import unwritable
from elicitable.training.generate import Stop
from elicitable.untrusted import in_one_line
from elicitable.values import CALLS

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item


LOOKED_AT = 1_000  # items of each split


def check_reading(model: Model, task: Task, layout: Layout, max_tokens: int | None = None) -> None:
    """Read an item and all labels of ``task`` as the model will, and every held-out item where one may be odd.

    That is where they are conversations, which a template may refuse one by one, token ids, or of a person's own task.

    Raises:
        InputError: held-out items are not as the contract says, the test split is empty, an item is not for this model
            (its chat template does not take a conversation, its text leaves no room for an answer), two labels are the
            same tokens to it, or free-form answers could not end, because the tokenizer has no end of text and no stop
            string is given, or one that it cannot write.
    """
    check_held_out(task, LOOKED_AT)
    if not task.held_out("test", 1):
        raise InputError(f"{task.name} has no items in its test split, which the answer rests on.")
    first, labels, limit = task.held_out("validation", 1), task.labels(), room_in(model, max_tokens)
    rows_of(model, first, layout, limit=limit)
    if labels is not None:
        label_rows(model, first, labels, layout, limit=limit)
    if has_turns(task):
        _check(model, task.sample(LOOKED_AT, generator(0, "reading")), layout, limit, "training")
    if has_turns(task) or model.tokenizer is None or digest_of(task) is not None:
        _check(model, task.held_out("validation", LOOKED_AT), layout, limit, "validation")
        _check(model, task.held_out("test", LOOKED_AT), layout, limit, "test")
    if labels is None and model.tokenizer is not None and Stop.of(model, layout) == Stop():
        raise InputError(
            f"the tokenizer of {model.name} has no end of text, so an answer of {task.name} never ends; give a stop "
            "string (stop=, --stop), for instance a line break, or a tokenizer with an eos_token."
        )

    if labels is None and layout.end and not _writes(model, layout.end.strip() or layout.end):
        raise InputError(
            f"the tokenizer of {model.name} cannot write the stop string {layout.end!r} (--stop, stop=), so no answer "
            "would end with it; name an end that it can, for instance '###'."
        )


def _writes(model: Model, text: str) -> bool:
    """Say whether the tokens of ``text`` are read back as it."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return text in str(model.tokenizer.decode(ids))


def reading_warnings(model: Model, task: Task, layout: Layout) -> list[str]:
    """Say what splits and texts do not hold, as one might think: new inputs, today, the system message, calls, ends."""
    found = _split_warnings(task)
    if model.tokenizer is None:
        return found
    found += date_warning(model.tokenizer) if layout.chat else []
    items = task.held_out("test", LOOKED_AT)
    own = sum(rules_of(turns_of(item)) > 0 for item in items)
    if layout.system is not None and own:
        found.append(
            f"{own:,} of {len(items):,} test conversations begin with a system message of their own, which stands in "
            "the place of the one that was given"
        )
    calling = sum(any(turn.shown != turn.content for turn in turns_of(item)) for item in items)
    if layout.chat and calling and not any(name in str(model.tokenizer.chat_template) for name in CALLS):
        found.append(
            f"{calling:,} of {len(items):,} test conversations call tools, which the chat template does not show; "
            "--chat off (chat='off') reads them as a transcript, which does"
        )
    for role, count in _unshown(model, items, layout).items():
        found.append(
            f"{count:,} of {len(items):,} test conversations hold turns of the role {role!r}, which the chat template "
            "does not show; --chat off (chat='off') reads them as a transcript, which does"
        )
    offered = sum(tools_of(turns_of(item)) is not None for item in items)
    if layout.chat and offered and not shows_tools(model.tokenizer):
        found.append(
            f"{offered:,} of {len(items):,} test conversations bring tools, which the chat template does not show; "
            "--chat off (chat='off') reads them as a transcript, which does"
        )
    if task.labels() is not None and layout.end is not None:
        found.append(
            f"the stop string {layout.end!r} (--stop, stop=) ends free answers, and labels are compared by their "
            "likelihood instead"
        )
    found += _ended_early(model, items, layout) if task.labels() is None else []
    found += _special(model, items)
    lost = (
        unwritable(model, items, layout) if task.labels() is None and not any(item.accepted for item in items) else []
    )
    if lost:
        found.append(
            f"the tokenizer of {model.name} cannot write {len(lost):,} of {len(items):,} test answers "
            f"({in_one_line(str(lost[0].target).strip()[:40])!r} among them), so nothing that is written can be them; "
            "give targets as it writes them, or a score that forgives it (--score token-f1)"
        )
    return found


def _split_warnings(task: Task) -> list[str]:
    """Say where a test split is too small to tell much, and where an own task trains on what it is tested by."""
    found, items = [], task.held_out("test", LOOKED_AT)
    independent = len(set(groups_of(task, "test", LOOKED_AT)))
    low, _ = wilson(1.0, independent)
    if 1 - low > ROOM:
        different = f"{independent} different item{'s' * (independent > 1)}"
        found.append(
            f"the test split has {different}: were all right, the score could still be {low:.2f}; more of them would "
            "tell more"
        )
    if digest_of(task) is None:  # the package's own keep them apart
        return found
    drawn = {item.prompt for item in task.sample(LOOKED_AT, generator(0, "reading"))}
    known = sum(item.prompt in drawn for item in items)
    if known:
        found.append(
            f"{known:,} of {len(items):,} test items are also drawn for training, so that their score tells what was "
            "learned by heart as well; let sample() draw what held_out() does not give"
        )
    return found


def _ended_early(model: Model, items: Sequence[Item], layout: Layout) -> list[str]:
    """Say how many items have no right answer without something in it that ends an answer."""
    ends, met = _ends(model, layout), []
    for item in items:
        held = [[end for end in ends if end in text.rstrip()] for text in _right(model, item, layout)]
        met += [[end for some in held for end in some]] if all(held) else []
    if not met:
        return []
    named = ", ".join(repr(end) for end in ends if any(end in held for held in met))
    return [
        f"{len(met):,} of {len(items):,} test answers contain what ends an answer ({named}), so nothing that is "
        "written can be them; leave it out of the targets, or name another end: --stop (stop=)"
    ]


def _ends(model: Model, layout: Layout) -> list[str]:
    """Return the texts that end an answer: the layout's own, and the special tokens at which a model stops."""
    ids = sorted(Stop.of(model, layout).ids & set(model.tokenizer.all_special_ids))
    texts = (end_of(model, layout), *layout.all_stops, *map(model.tokenizer.decode, ids))
    return [end for end in dict.fromkeys(texts) if end]


def _special(model: Model, items: Sequence[Item]) -> list[str]:
    """Say how many texts of the data hold what the tokenizer takes for a special token; a template's own are meant."""
    known = [one.content for one in model.tokenizer.added_tokens_decoder.values() if one.special and one.content]
    if not known or getattr(model.tokenizer, "split_special_tokens", False):
        return []
    pattern = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))))
    held = [one for item in items if (one := next(filter(None, map(pattern.search, _texts(item))), None))]
    if not held:
        return []
    return [
        f"{len(held):,} of {len(items):,} test texts hold special tokens ({in_one_line(held[0][0])!r} among them), "
        "which the model reads as such, as an end or a turn, and not as characters; take them out where that is not "
        "meant"
    ]


def _texts(item: Item) -> list[str]:
    """Return what of an item's prompt came from the data."""
    if isinstance(item.prompt, str):
        return [item.prompt[first:last] for first, last in item.spans]
    return [turn.content for turn in turns_of(item)]


def _right(model: Model, item: Item, layout: Layout) -> list[str]:
    """Return all right answers to ``item`` as they are written in ``layout``."""
    return [as_written(model, item, layout, text) for text in item.accepted or (str(item.target),)]


def _unshown(model: Model, items: Sequence[Item], layout: Layout) -> dict[str, int]:
    """Count the conversations that hold a role of which the template shows nothing, by role."""
    having: dict[str, list[Item]] = {}
    for item in items if layout.chat else ():
        for role in {turn.role for turn in turns_of(item)}:
            having.setdefault(role, []).append(item)
    found = {}
    for role, those in sorted(having.items()):
        turns = messages_of(those[0], layout)
        place = next(nth for nth, turn in enumerate(turns) if turn.role == role)
        if not shows_turn(model.tokenizer, turns, place):
            found[role] = len(those)
    return found


def said_of_cuts(items: int, tokens: int, of: int, method: str) -> list[str]:
    """Say that texts were longer than ``method`` reads: so many ``items``, by ``tokens`` in all; nothing for none."""
    if not tokens:
        return []
    return [
        f"{items} of {of} test texts are longer than is read and were cut by {tokens:,} tokens in all ({method}); more "
        "max_tokens (--max-tokens) or a model with more positions reads them whole"
    ]


def _check(model: Model, items: Sequence[Item], layout: Layout, limit: int | None, split: str) -> None:
    """Read ``items``; where that fails, find one of them that cannot be read, and name it."""
    try:
        rows_of(model, items, layout, limit=limit)
    except InputError as error:
        if len(items) > 1:
            half = len(items) // 2
            _check(model, items[:half], layout, limit, split)
            _check(model, items[half:], layout, limit, split)
        asked, _ = in_short(items[0], 40)
        raise InputError(f"the {split} item {asked!r}: {error}") from error
