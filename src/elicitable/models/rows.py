"""Items to rows of token ids: what the model reads, what it should write, and how much had to be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from elicitable.errors import InputError
from elicitable.models.layout import Layout, Written, before_content, end_id, start_ids, with_answer, written
from elicitable.models.tokens import Tokens, common_beginning, tails, tokenize
from elicitable.values import Item

if TYPE_CHECKING:
    from elicitable.models.model import Model


@dataclass(frozen=True, slots=True)
class Row:
    """One item as ids: ``content`` stands before the answer, behind the ids that a context holds.

    ``answer`` is what should be written, its last ``end`` ids being nothing but its end; ``cut`` tokens of the text are
    left out. Where the answer's first token takes in the prompt's last characters, those are ``taken``.
    """

    content: list[int]
    answer: list[int]
    end: int = 0
    cut: int = 0
    taken: str = ""

    def __len__(self) -> int:
        return len(self.content) + len(self.answer)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One item before its labels: ``content`` is common to all, ``labels`` are each label's ids behind it.

    The first ``given[k]`` ids of label k belong to the prompt, in which it parts from another label already.
    """

    content: list[int]
    labels: list[list[int]]
    given: list[int]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.content) + max(map(len, self.labels))


def rows_of(
    model: Model,
    items: Sequence[Item],
    layout: Layout | None = None,
    *,
    held: Sequence[int] = (),
    limit: int | None = None,
    room: int = 0,
) -> list[Row]:
    """The row of every item: the ids of its whole text, in two parts.

    Args:
        model: whose tokenizer reads the texts; items of token ids are for models without one.
        items: what is asked.
        layout: how a text is laid out; the default puts the tokenizer's start before it and its end behind it.
        held: the ids that a context in front of the rows stands for; they are the first of every row, and left out.
        limit: a row longer than that loses tokens of its text (and of nothing else), on the side ``layout.cut``.
        room: tokens that are left for an answer within ``limit``, also where an item's own is shorter: else what is
            read of a text would hang on the length of an answer that nobody knows yet.

    Raises:
        InputError: the model cannot read the items, an answer has no tokens, a row does not begin with ``held``, or
            does not fit into ``limit`` although all of its text is left out (ids are never left out).

    Example:
        >>> import elicitable as el
        >>> rows_of(el.load("toy:ascending"), [Item((3, 1), (1, 3))])
        [Row(content=[3, 1], answer=[1, 3], end=0, cut=0)]
    """
    if items and not items[0].is_text:
        return _rows_of_ids(model, items, limit)
    layout = Layout() if layout is None else layout
    rows = []
    for one in _wholes(model, items, layout, held):
        answer = one.ids[one.at :]
        content, cut = one.content(model, layout, one.at, None if limit is None else limit - max(room, len(answer)))
        rows.append(Row(content, answer, one.end, cut, one.taken))
    return rows


def label_rows(
    model: Model,
    items: Sequence[Item],
    labels: Sequence[str],
    layout: Layout | None = None,
    *,
    held: Sequence[int] = (),
    limit: int | None = None,
) -> list[LabelRow]:
    """Every item's content, and each label's ids as they stand behind it; the other arguments are :func:`rows_of`'s.

    The content is what the rows of all labels begin with. Where one label's first token takes in the prompt's last
    characters, the content ends before them, and to the other labels their own tokens of the prompt are given. Answers
    have no end here, except where one label begins another: there each of them has. An item's own choices take the
    place of ``labels`` and are compared as they stand, as lm-evaluation-harness does.

    Raises:
        InputError: as :func:`rows_of`; or two labels are the same tokens, and are named.
    """
    layout = Layout() if layout is None else layout
    found = _compared(model, items, labels, layout, held, has_end=False)
    if any(_begins_another(one.labels) for item, (_, one) in zip(items, found, strict=True) if not item.choices):
        found = _compared(model, items, labels, layout, held, has_end=True)
    rows = []
    for whole, row in found:
        room = None if limit is None else limit - max(map(len, row.labels))
        content, cut = whole.content(model, layout, len(row.content), room)
        rows.append(LabelRow(content, row.labels, row.given, cut))
    return rows


def context_ids(model: Model, layout: Layout) -> list[int]:
    """The ids of the text before an item's own, with what the tokenizer puts in front of it."""
    tokens = tokenize(model, [before_content(model, layout)])[0]
    return [*without_double(start_ids(model, layout), tokens.ids), *tokens.ids]


def common_context(model: Model, items: Sequence[Item], layout: Layout, ids: Sequence[int]) -> list[int]:
    """The longest beginning of ``ids`` that every row begins with and that leaves it a token before its answer."""
    rows = [one.ids[: one.at - 1] for one in _wholes(model, items, layout, ())]
    return list(ids[: common_beginning([ids, *rows])])


@dataclass(frozen=True, slots=True)
class _Whole:
    """A whole row without what a context holds. The answer begins at id ``at``; ``text`` are places of the item's text
    alone, which may be left out; the last ``end`` ids are the answer's end."""

    ids: list[int]
    at: int
    text: list[int]
    end: int
    taken: str = ""

    def content(self, model: Model, layout: Layout, at: int, room: int | None) -> tuple[list[int], int]:
        """The ids before ``at``, as many as there is ``room`` for, and how many of the text were left out."""
        excess = 0 if room is None else max(0, at - room)
        if excess == 0:
            return self.ids[:at], 0
        text = [place for place in self.text if place < at]
        if excess >= len(text):
            raise InputError(
                f"{model.name} has room for {max(0, room or 0)} tokens before an answer here, and {at} stand there, "
                f"{len(text)} of them text that can be cut; raise max_tokens (--max-tokens) where it is set, or "
                "shorten the template, the worked examples or the answers."
            )
        lost = set(text[:excess] if layout.cut == "left" else text[-excess:])
        return [id_ for place, id_ in enumerate(self.ids[:at]) if place not in lost], excess


def _wholes(
    model: Model, items: Sequence[Item], layout: Layout, held: Sequence[int], has_end: bool = True
) -> list[_Whole]:
    texts = [written(model, item, layout, has_end) for item in items]
    start = start_ids(model, layout)
    end = end_id(model, layout) if has_end else None
    _check_written(model, start, end)
    read = tokenize(model, [text.text for text in texts])
    return [_whole(text, tokens, start, end, held) for text, tokens in zip(texts, read, strict=True)]


def _whole(text: Written, tokens: Tokens, start: list[int], end: int | None, held: Sequence[int]) -> _Whole:
    begin = without_double(start, tokens.ids)
    moved = len(begin) - len(held)
    border = len(text.text) - len(text.end)
    at, behind = tokens.before(text.answer), tokens.covering(border)
    if at == behind or text.answer >= border:
        raise InputError(f"the answer {text.text[text.answer :]!r} has no tokens; every item needs an answer.")
    ids = [*begin, *tokens.ids, *([] if end is None else [end])]
    if ids[: len(held)] != list(held) or at + moved < 0:
        raise _not_behind(text.text)
    if at + moved == 0:
        raise InputError(
            f"nothing stands before the answer {text.text[text.answer :]!r} that the model could read: the prompt is "
            "empty, or one token with the answer's beginning; give a template with some text around it."
        )
    places = [place + moved for first, last in text.spans for place in tokens.inside(first, last)]
    whole = ids[len(held) :]
    places = [place for place in places if place >= 0]
    return _Whole(whole, at + moved, places, len(whole) - behind - moved, tokens.taken(text.answer))


def _not_behind(text: str) -> InputError:
    return InputError(
        f"{text[:40]!r} does not begin with the tokens of the context before it, because the tokenizer joins "
        "characters across the border; shorten the context to what all texts begin with (its method fit)."
    )


def _check_written(model: Model, start: Sequence[int], end: int | None) -> None:
    model.check_written([*start, *([] if end is None else [end])])


def without_double(start: list[int], ids: Sequence[int]) -> list[int]:
    """What of ``start`` still has to be put before ``ids``, which may begin with it, or with a part of it, already.

    >>> without_double([1, 2], [5, 6]), without_double([1, 2], [1, 2, 5]), without_double([1, 2], [2, 5])
    ([1, 2], [], [1])
    """
    return start[: start.index(ids[0])] if ids and ids[0] in start else start


def _compared(
    model: Model, items: Sequence[Item], labels: Sequence[str], layout: Layout, held: Sequence[int], has_end: bool
) -> list[tuple[_Whole, LabelRow]]:
    """Each item's row with its first label, and what is common to its rows with all labels."""
    asked = [replace(item, target=(item.choices or labels)[0], choices=()) for item in items]
    texts = [written(model, item, layout, has_end) for item in asked]
    firsts = tokenize(model, [text.text for text in texts])
    start = start_ids(model, layout)
    _check_written(model, start, end_id(model, layout) if has_end else None)
    found = []
    for item, text, first in zip(items, texts, firsts, strict=True):
        whole = _whole(text, first, start, end_id(model, layout) if has_end else None, held)
        others = [with_answer(model, item, layout, text, label) for label in (item.choices or labels)[1:]]
        row = _behind(model, layout, [text, *others], first, whole, has_end)
        if not item.choices:
            _refuse_alike(model, labels, row.labels)
        found.append((whole, row))
    return found


def _behind(
    model: Model, layout: Layout, texts: Sequence[Written], first: Tokens, whole: _Whole, has_end: bool
) -> LabelRow:
    """What is common to the rows of one item with all labels, of which ``first`` and ``whole`` are the first one's."""
    place, ends = tails(model, first, [text.text for text in texts], texts[0].answer)
    cut = len(first.text) - len(ends[0].text)
    begin = whole.at - first.before(texts[0].answer)  # of a row's ids, those that are not the text's
    end = end_id(model, layout) if has_end else None
    rows = [[*one.ids, *([] if end is None else [end])] for one in ends]
    at = [one.before(text.answer - cut) for text, one in zip(texts, ends, strict=True)]
    for text, one, border in zip(texts, ends, at, strict=True):
        behind = len(text.text) - len(text.end)
        if border == one.covering(behind - cut) or text.answer >= behind:
            raise InputError(f"the answer {text.text[text.answer :]!r} has no tokens; every item needs an answer.")
    common = min(common_beginning(rows), *at)
    if begin + place + common < 0:
        raise _not_behind(first.text)
    given = [border - common for border in at]
    return LabelRow(whole.ids[: begin + place + common], [row[common:] for row in rows], given)


def _refuse_alike(model: Model, labels: Sequence[str], ids: Sequence[list[int]]) -> None:
    known: dict[tuple[int, ...], str] = {}
    for label, own in zip(labels, map(tuple, ids), strict=True):
        if own in known:
            raise InputError(
                f"the labels {known[own]!r} and {label!r} are the same tokens to {model.name}, so it cannot tell them "
                "apart; give labels that its tokenizer writes differently."
            )
        known[own] = label


def _begins_another(rows: Sequence[list[int]]) -> bool:
    """Whether one of ``rows`` is the beginning of another; sorted, it stands right before one that it begins."""
    return any(later[: len(one)] == one for one, later in pairwise(sorted(rows)))


def _rows_of_ids(model: Model, items: Sequence[Item], limit: int | None) -> list[Row]:
    if model.tokenizer is not None:
        raise InputError(
            f"the task gives token ids and {model.name} reads texts: the digit tasks are for the toy models, use a "
            "text task with this model."
        )
    rows = [Row([*_shown_ids(item), *_ids_in(item.prompt)], _ids_in(item.target)) for item in items]
    for item, row in zip(items, rows, strict=True):
        if not row.answer:
            raise InputError(f"the answer {item.target!r} has no tokens; every item needs an answer.")
        if not row.content:
            raise InputError(f"nothing stands before the answer {item.target!r}: the prompt is empty; give it a token.")
        if limit is not None and len(row) - 1 > limit:  # the last token of an answer is written and not read
            raise InputError(
                f"{model.name} has room for {limit} tokens here, and an item has {len(row) - 1:,} to be read, "
                "and ids are not cut; raise max_tokens (--max-tokens) where it is set, or shorten the items."
            )
    used = [id_ for row in rows for id_ in row.content + row.answer]
    if min(used) < 0 or max(used) >= model.anatomy.vocab:
        wrong = min(used) if min(used) < 0 else max(used)
        raise InputError(
            f"the task uses token id {wrong}, {model.name} has a vocabulary of {model.anatomy.vocab}: give ids from 0 "
            f"to {model.anatomy.vocab - 1}, or the model that the task was made for."
        )
    return rows


def _shown_ids(item: Item) -> list[int]:
    return [id_ for example in item.shown for part in (example.prompt, example.target) for id_ in _ids_in(part)]


def _ids_in(part: object) -> list[int]:
    if not isinstance(part, tuple | list):
        raise InputError(f"an item's prompt and target are both texts or both token ids, got {part!r}.")
    return [int(id_) for id_ in part]
