"""Greedy decoding of many items at once, until each has ended its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from elicitable.models.inject import installed, room_in
from elicitable.models.layout import Layout, end_of, turn_in
from elicitable.models.rows import Row
from elicitable.models.speed.precision import autocast
from elicitable.models.templates import Turn
from elicitable.training.batches import groups

if TYPE_CHECKING:
    from elicitable.models.model import Model

CONTEXT = 8  # content tokens decoded together with an answer, so that its first space is seen as it stands


@dataclass(frozen=True)
class Stop:
    """What ends an answer: one of ``ids``, or the characters of one of ``texts`` anywhere in it.

    ``lead`` is what a chat template writes before every answer; the model writes it, and it is no part of the answer.
    Of a thought that the template has ``opened`` and that the model goes on with, that beginning is shown.
    """

    ids: frozenset[int] = frozenset()
    texts: tuple[str, ...] = ()
    lead: str = ""
    opened: str = ""

    @classmethod
    def of(cls, model: Model, layout: Layout) -> Stop:
        """The ids at which the model ends, and the end of answers in ``layout``: a stop string, the end of a turn.

        In a chat the end of a turn ends an answer also where there is a stop string: it is how the model ends.
        """
        turn = turn_in(model, layout) if layout.is_talk else Turn("", "", False)
        ids, texts = {*model.ends}, []
        for text in (end_of(model, layout), turn.end if layout.chat and layout.end != "" else ""):
            end = model.ids(text).flatten().tolist() if text else []
            if len(end) == 1 and text not in (layout.end, *layout.all_stops):
                ids.add(end[0])
            else:
                texts.append(text)
        found = dict.fromkeys(one for one in (*texts, *layout.all_stops) if one)
        return cls(frozenset(ids), tuple(found), turn.lead, turn.opened)

    def shown(self, written: str, taken: str = "") -> str:
        """What is written as an answer: without the lead, or with the beginning of its thought.

        ``taken`` are the prompt's last characters where the answer's first token takes them along; they go too.
        """
        rest = _behind(taken, written)
        written = written if rest is None else rest
        behind = _behind(self.lead, written)
        return self.opened + written if behind is None else behind

    def is_before(self, written: str, taken: str = "") -> bool:
        """Say whether what is written may still become what stands before an answer, in which nothing ends."""
        before = taken + self.lead
        pairs = ((before, written), (without_blanks(before), without_blanks(written)))
        return any(whole != begun and whole.startswith(begun) for whole, begun in pairs)

    def at(self, text: str) -> int | None:
        """Where the first of ``texts`` begins in an answer; None where it has none of them."""
        return min((place for one in self.texts if (place := text.find(one)) >= 0), default=None)


@dataclass(frozen=True)
class Answer:
    """What a model wrote: its text without the end, its ids, and whether it ended by itself."""

    text: str
    ids: tuple[int, ...]
    has_ended: bool


@torch.no_grad()
def generate(
    model: Model, rows: Sequence[Row], layout: Layout, most: int | Sequence[int], batch: int = 64
) -> list[Answer]:
    """What the model writes behind each row's content by greedy decoding, with whatever is in use.

    Args:
        model: the model.
        rows: whose contents are read; in batches of similar length, with a cache.
        layout: says what ends an answer.
        most: tokens at most, for all rows or for each; fewer where the model's positions end. An answer that
            reaches this has not ended, and says so.
        batch: as for :class:`~elicitable.training.batches.Reading`.

    Returns:
        One answer per row, in their order.
    """
    stop, limits = Stop.of(model, layout), [most] * len(rows) if isinstance(most, int) else list(most)
    found: dict[int, Answer] = {}
    asked = [Row(row.content, [0] * limit) for row, limit in zip(rows, limits, strict=True)]
    for part in groups(model, asked, batch):
        with autocast(model), installed(model):
            written = _decode(model, [rows[place] for place in part], [limits[place] for place in part], stop)
        found |= dict(zip(part, written, strict=True))
    return [found[place] for place in range(len(rows))]


def _decode(model: Model, rows: Sequence[Row], limits: Sequence[int], stop: Stop) -> list[Answer]:
    contents = [row.content for row in rows]
    width, device = max(map(len, contents)), model.device
    ids = torch.tensor([[0] * (width - len(content)) + content for content in contents], device=device)
    mask = torch.tensor([[0] * (width - len(content)) + [1] * len(content) for content in contents], device=device)
    room = room_in(model)
    rooms = [limit if room is None else room - len(content) for limit, content in zip(limits, contents, strict=True)]
    limits = [min(pair) for pair in zip(limits, rooms, strict=True)]
    written: list[list[int]] = [[] for _ in contents]
    answers: list[Answer | None] = [None] * len(contents)
    cache: Any = None
    for step in range(max(limits)):
        out = model.hf(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        for row, token in enumerate(ids[:, 0].tolist()):
            if answers[row] is None:
                written[row].append(token)
                answers[row] = ended(model, rows[row], written[row], stop, step + 1 >= limits[row])
        if all(answers):
            break
        # what stands behind an answer is hidden, so that a row that has ended takes no position more
        is_open = torch.tensor([[answer is None] for answer in answers], device=device)
        mask = torch.cat([mask, is_open.to(mask.dtype)], dim=1)
    return [answer or Answer("", (), False) for answer in answers]


def _behind(lead: str, written: str) -> str | None:
    """Return what stands behind ``lead`` in ``written``; None where it does not begin with that.

    Some tokenizers put their words together with other blanks, so blanks within a lead are not compared.

    >>> _behind("<a>b\\n", "<a> b\\n 1"), _behind("<a>", "<b>"), _behind(" ", "1")
    (' 1', None, None)
    """
    if written.startswith(lead):
        return written[len(lead) :]
    if not lead.strip():
        return None
    place = 0
    for char in without_blanks(lead):
        place += len(written[place:]) - len(written[place:].lstrip())
        if written[place : place + 1] != char:
            return None
        place += 1
    return written[place:].removeprefix(lead[len(lead.rstrip()) :])


def without_blanks(text: str) -> str:
    return "".join(text.split())


def ended(model: Model, row: Row, written: Sequence[int], stop: Stop, is_last: bool = False) -> Answer | None:
    """The answer, if the last id that was ``written`` ends it, or it is as long as it may be."""
    if written[-1] in stop.ids:
        return Answer(stop.shown(text_of(model, row.content, written[:-1]), row.taken), tuple(written), True)
    if not stop.texts and not is_last:
        return None
    whole, ids = text_of(model, row.content, written), tuple(written)
    if stop.is_before(whole, row.taken) and not is_last:
        return None
    text = stop.shown(whole, row.taken)
    if (place := stop.at(text)) is not None:
        return Answer(text[:place], ids, True)
    return Answer(text, ids, False) if is_last else None


def text_of(model: Model, content: Sequence[int], written: Sequence[int]) -> str:
    """The characters that ``written`` adds behind ``content``; ids with spaces between them without a tokenizer."""
    if model.tokenizer is None:
        return " ".join(map(str, written))
    before = list(content[-CONTEXT:])
    known, whole = _decoded(model, before), _decoded(model, [*before, *written])
    return whole[len(known) :] if whole.startswith(known) else _decoded(model, list(written))


def _decoded(model: Model, ids: list[int]) -> str:
    text: str = model.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
