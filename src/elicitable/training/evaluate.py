"""Scores: whole answers right or wrong, and label likelihood; per item, so that methods compare in pairs.

Greedy decoding writes the whole answer, its end included, if and only if at every position the most likely token,
given the right tokens before it, is the right one: the first miss is the same in both. So one teacher-forced pass
scores an answer exactly as free-running greedy decoding does, without decoding. The one exception is a text that can be
written in other tokens, or with other blanks around it, or whose stop string the tokenizer cannot write: where what
comes next may still lead to it, that item is decoded. What is compared are characters: where a tokenizer cannot write a
target (it knows no capitals, say), the tokens that stand for it are another text, and nothing that is written is right.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from elicitable.models.inject import installed, room_in
from elicitable.models.layout import Layout, end_id, end_of, turn_in
from elicitable.models.rows import Row, label_rows, rows_of
from elicitable.models.speed.precision import autocast
from elicitable.models.speed.read import reading_last
from elicitable.training.batches import IGNORED, Batch, Reading, groups, padded
from elicitable.training.decision_rules import SUM, DecisionRule, Lengths, decide_by_length
from elicitable.training.generate import Answer, Stop, ended, generate, text_of, without_blanks
from elicitable.training.label_scores import label_costs
from elicitable.training.label_search import Wanted
from elicitable.training.label_trie import LabelIds
from elicitable.values import Item, Score

if TYPE_CHECKING:
    from elicitable.models.model import Model

LEAST = 32  # tokens that an answer may have at least before it is said not to end

__all__ = ["Reading", "answer_logits", "answers", "evaluate", "read_labels", "token_losses"]


def answer_logits(model: Model, batch: Batch, offset: int = 0) -> Tensor:
    """(batch, answer, vocab) float32 logits for the answer's tokens only."""
    answer = batch.targets.shape[1]
    given = {"attention_mask": batch.attention_mask} if batch.attention_mask is not None else {}
    if offset:
        given["position_ids"] = torch.arange(offset, offset + batch.input_ids.shape[1], device=model.device)[None]
    with installed(model), reading_last(model, answer):  # also a bare model's positions start after its padding
        logits = model.hf(input_ids=batch.input_ids, use_cache=False, logits_to_keep=answer, **given).logits
    kept: Tensor = logits[:, -answer:]
    return kept.float() if kept.dtype in (torch.bfloat16, torch.float16) else kept


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """(batch, answer) negative log-likelihood in nats; 0 where the target is ignored."""
    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(targets.shape)


@torch.no_grad()
def evaluate(model: Model, items: Sequence[Item], labels: tuple[str, ...] | None, reading: Reading) -> Score:
    """Score ``items`` with whatever is installed in ``model`` right now.

    Exact match of the whole answer without ``labels``: whether free-running greedy decoding writes it and ends there.
    With them, whether the right label has the highest log-likelihood Σ_t log p(label_t | prompt, label_<t) of all.

    Raises:
        InputError: the model cannot read the items, or two labels are the same tokens.
    """
    with autocast(model):
        return _exact(model, items, reading) if labels is None else _by_label(model, items, labels, reading)


def _exact(model: Model, items: Sequence[Item], reading: Reading) -> Score:
    if reading.marker:
        return _extracted(model, items, reading)
    rows = _rows(model, items, reading)
    correct, nats, tokens = [0] * len(rows), 0.0, 0
    sought = None if model.tokenizer is None else _Sought(model, items, rows, reading)
    open_: list[int] = []
    for part in groups(model, rows, reading.batch):
        batch = padded(model, [rows[place] for place in part])
        logits = answer_logits(model, batch)
        counted = batch.targets != IGNORED
        best = logits.argmax(-1)
        hits = (best == batch.targets) | ~counted
        for place, is_hit, row_hits, row_best in zip(part, hits.all(-1).tolist(), hits, best, strict=True):
            is_right = (sought is None or sought.is_right(place)) if is_hit else None
            if is_right is not None:
                correct[place] = int(is_right)
            elif sought is not None and sought.may_come(place, row_hits, row_best):
                open_.append(place)
        nats, tokens = nats + float(token_losses(logits, batch.targets).sum()), tokens + int(counted.sum())
    if sought is not None and open_:
        for place, is_right in zip(open_, sought.decoded(open_), strict=True):
            correct[place] = int(is_right)
    cut = [row.cut for row in rows if row.cut]
    return Score(tuple(correct), nats / max(tokens, 1), len(cut), sum(cut))


def _extracted(model: Model, items: Sequence[Item], reading: Reading) -> Score:
    """What stands behind the marker of what the model writes, compared with the target without white space around it.

    Thinking has no right wording, so there is no loss: it is infinite.
    """
    found = answers(model, items, None, reading)
    cut = [row.cut for row in _rows(model, items, reading) if row.cut]
    right = tuple(int(one.text == str(item.target).strip()) for one, item in zip(found, items, strict=True))
    return Score(right, math.inf, len(cut), sum(cut))


def _behind(answer: Answer, marker: str) -> Answer:
    """The first line behind the last marker; nothing, and not ended, where there is none."""
    _, found, last = answer.text.rpartition(marker)
    lines = last.strip().splitlines() if found else []
    return Answer(lines[0].strip() if lines else "", answer.ids, answer.has_ended and bool(lines))


class _Sought:
    """The characters that are right for each row, but for blanks around them, and whether they can still come.

    They are those of the item's target. Where that brings a thought, a template writes it in its own way, and where a
    tokenizer's words are put together with other blanks, it writes those: then they are what the row holds.
    """

    def __init__(self, model: Model, items: Sequence[Item], rows: Sequence[Row], reading: Reading) -> None:
        self.model, self.items, self.rows, self.reading = model, items, rows, reading
        self.stop = Stop.of(model, reading.layout)
        self.turn = turn_in(model, reading.layout) if reading.layout.is_talk else None
        self.end, self.has_end = end_of(model, reading.layout), reading.layout.end != ""
        is_ended = self.end != "" or end_id(model, reading.layout) is not None  # which a mere continuation is not
        self.can_end = self.has_end and is_ended and bool(self.stop.ids or self.stop.texts)

    def text(self, place: int) -> str:
        target = str(self.items[place].target)
        has_thought = self.turn is not None and self.turn.has_own_thought(target)
        held = self._held(place)
        return held if has_thought or without_blanks(held) == without_blanks(target) else target.strip()

    def is_right(self, place: int) -> bool | None:
        """Say whether decoding that writes the row's own tokens writes what is right; None where it then goes on.

        It does where a tokenizer cannot write the stop string, and where something has to stand behind one to be seen.
        """
        if not self.can_end:
            return self.is_writable(place)
        row = self.rows[place]
        answer = self._ended(row, row.answer)
        return None if answer is None else answer.text.strip() == self.text(place)

    def is_writable(self, place: int) -> bool:
        """Say whether the row's own tokens are the characters that are right, and end an answer."""
        if not self.has_end:
            return True
        row = self.rows[place]
        has_ended = not self.can_end or self._ended(row, 2 * row.answer) is not None
        return has_ended and self._held(place) == self.text(place)

    def may_come(self, place: int, hits: Tensor, best: Tensor) -> bool:
        """Say whether what is written up to the first miss, and there, is or begins what is right.

        ``hits`` and ``best`` (answer) are those of the teacher-forced pass, which are what decoding does up to the
        first miss, if there is one; most often that miss is already another text.
        """
        if not self.has_end:
            return False
        row = self.rows[place]
        missed = len(hits) - 1 if bool(hits.all()) else int((~hits).long().argmax())
        first = missed - (len(hits) - len(row.answer))
        written = [*row.answer[:first], int(best[first - len(row.answer)])]
        wanted, is_end = self.text(place), written[-1] in self.stop.ids
        raw = text_of(self.model, row.content, written[:-1] if is_end else written)
        if not is_end and self.stop.is_before(raw, row.taken):
            return True
        begun = self.stop.shown(raw, row.taken).lstrip()
        if is_end or len(begun) > len(wanted):
            return begun.rstrip() == wanted or any(self._ends(begun, wanted, end) for end in self.stop.texts)
        return wanted.startswith(begun.rstrip("\N{REPLACEMENT CHARACTER}"))  # of a character's first bytes

    def decoded(self, places: Sequence[int]) -> list[bool]:
        """Say for each row whether free-running decoding writes what is right, and ends there."""
        rows = [self.rows[place] for place in places]
        most = [2 * len(row.answer) + 8 for row in rows]
        found = generate(self.model, rows, self.reading.layout, most, self.reading.batch)
        return [
            one.has_ended and one.text.strip() == self.text(place) for place, one in zip(places, found, strict=True)
        ]

    def _ended(self, row: Row, ids: Sequence[int]) -> Answer | None:
        """Return what decoding that writes ``ids`` has written when it ends; None where it goes on behind them."""
        first = next((size for size, one in enumerate(ids, start=1) if one in self.stop.ids), len(ids))
        sizes = range(1, first + 1)
        # what holds a stop string holds it with more behind it
        place = bisect_left(sizes, True, key=lambda size: ended(self.model, row, ids[:size], self.stop) is not None)
        return ended(self.model, row, ids[: sizes[place]], self.stop) if place < first else None

    def _held(self, place: int) -> str:
        """Return the characters of the row's own answer, up to its end: a token may hold both."""
        row = self.rows[place]
        known = len(row.answer) - row.end
        ended = next((i for i in range(known, len(row.answer)) if row.answer[i] in self.stop.ids), len(row.answer))
        text = self.stop.shown(text_of(self.model, row.content, row.answer[:ended]), row.taken)
        if ended == len(row.answer) and self.end:
            before, found, behind = text.rpartition(self.end)
            alone = text_of(self.model, row.content, row.answer[:known])
            text = before if found and not behind.strip() else self.stop.shown(alone, row.taken)
        return text.strip()

    def _ends(self, begun: str, wanted: str, end: str) -> bool:
        """Say whether ``begun`` is what is ``wanted`` and then blanks, or the beginning of an end."""
        behind = begun[len(wanted) :]
        return begun.startswith(wanted) and (behind.startswith(end) or end.startswith(behind.lstrip()))


def unwritable(model: Model, items: Sequence[Item], layout: Layout) -> list[Item]:
    """Return the items whose target the tokenizer cannot write.

    The tokens that stand for it are another text, or those that stand for its end do not end an answer.
    """
    sought = _Sought(model, items, rows_of(model, items, layout), Reading(layout=layout))
    return [item for place, item in enumerate(items) if not sought.is_writable(place)]


def _by_label(model: Model, items: Sequence[Item], labels: tuple[str, ...], reading: Reading) -> Score:
    found = read_labels(model, items, labels, reading, (SUM,))
    return found.score(items, labels, found.decide(SUM))


@dataclass(frozen=True, eq=False)
class LabelCosts:
    """What every label costs behind every item.

    ``nats`` (item, label) are −log p(label | prompt) in float64, ``lengths`` how long each item's labels are, and
    ``cut_of_each`` the tokens that each text has lost: 0 where it was not too long.
    """

    nats: Tensor
    lengths: tuple[Lengths, ...]
    cut_of_each: tuple[int, ...]

    def under(self, rule: DecisionRule) -> Any:
        """Return (item, label) what every label costs under ``rule``, as an array."""
        if rule.divisors:
            return rule.costs(self.nats)
        table = self.nats.numpy().copy()
        for row, own in zip(table, self.lengths, strict=True):
            divisors = rule.of_lengths(own).divisors
            row[: len(divisors)] /= divisors
        return table

    def decide(self, rule: DecisionRule) -> Tensor:
        """Return (item,) the place of the label that ``rule`` answers with, the first of those that are equal."""
        if rule.divisors:
            return torch.from_numpy(rule.decide(self.nats))
        divisors = [rule.of_lengths(own).divisors for own in self.lengths]
        return torch.from_numpy(decide_by_length(self.nats, divisors))

    def score(self, items: Sequence[Item], labels: tuple[str, ...], answered: Tensor) -> Score:
        """Score the places of the labels that were ``answered``, (item,); the loss is that of the right labels."""
        truth = torch.tensor(truth_of(items, labels))
        nats = self.nats.gather(1, truth[:, None])
        tokens = sum(own.tokens[place] for own, place in zip(self.lengths, truth.tolist(), strict=True))
        correct = tuple((answered == truth).long().tolist())
        cut = [lost for lost in self.cut_of_each if lost]
        return Score(correct, float(nats.sum()) / max(1, tokens), len(cut), sum(cut))


def truth_of(items: Sequence[Item], labels: tuple[str, ...]) -> list[int]:
    """Return the place of each item's target among its choices, or among ``labels``."""
    return [(item.choices or labels).index(str(item.target)) for item in items]


@torch.no_grad()
def read_labels(
    model: Model,
    items: Sequence[Item],
    labels: tuple[str, ...],
    reading: Reading,
    rules: Sequence[DecisionRule] | None = None,
) -> LabelCosts:
    """Read every content once, and behind it every label, or with ``rules`` those that their answers hang on.

    A content that is too long is cut as its longest label needs it, and is the same for all labels. Items that bring
    their own choices are asked for those; where they have fewer than others, the rest of their row costs infinitely
    much. With ``rules`` so does a label that neither is the target nor can be the answer of any of them.
    """
    limit, items = room_in(model, reading.max_tokens), reading.items(model, items)
    rows = label_rows(model, items, labels, reading.layout, held=reading.held, limit=limit)
    behind = [[LabelIds(tuple(ids), given) for ids, given in zip(row.labels, row.given, strict=True)] for row in rows]
    lengths = tuple(_lengths(item, labels, own) for item, own in zip(items, behind, strict=True))
    wanted = None if rules is None else _wanted(rules, lengths, truth_of(items, labels))
    with autocast(model):
        nats = label_costs(model, [row.content for row in rows], behind, wanted)
    return LabelCosts(nats, lengths, tuple(row.cut for row in rows))


def _lengths(item: Item, labels: Sequence[str], behind: Sequence[LabelIds]) -> Lengths:
    return Lengths.of(item.choices or labels, [len(one.ids) - one.given for one in behind], item.lead)


def _wanted(rules: Sequence[DecisionRule], lengths: Sequence[Lengths], truth: Sequence[int]) -> list[Wanted]:
    found = []
    for own, place in zip(lengths, truth, strict=True):
        terms = [rule.of_lengths(own) for rule in rules]
        divisors, offsets = ([getattr(rule, name) for rule in terms] for name in ("divisors", "offsets"))
        found.append(Wanted(np.array(divisors), np.array(offsets), (place,)))
    return found


def _rows(model: Model, items: Sequence[Item], reading: Reading) -> list[Row]:
    """Return the rows of ``items``, each with room for the longest answer of all, and for thinking before it.

    For thinking it is half of what may be read at most.
    """
    limit, items = room_in(model, reading.max_tokens), reading.items(model, items)
    rows = rows_of(model, items, reading.layout, held=reading.held, limit=limit)
    longest = max((len(row.answer) for row in rows), default=0)
    if reading.marker and limit is not None:
        longest = max(longest, min(reading.longest, limit // 2))
    if limit is None or all(len(row.content) + longest <= limit for row in rows) or not items[0].is_text:
        return rows
    return rows_of(model, items, reading.layout, held=reading.held, limit=limit, room=longest)


def answers(model: Model, items: Sequence[Item], labels: tuple[str, ...] | None, reading: Reading) -> list[Answer]:
    """What the model answers to each item: the best label, or what it writes until it ends its answer.

    Free-running answers stop at ``reading.most`` tokens, by default at twice the length of the longest of the items'
    own, and 32 tokens at least (:func:`answer_limit`); then ``has_ended`` is False. Without a tokenizer nothing ends
    an answer, and it is as long as the item's own.
    """
    if labels is not None:
        best = read_labels(model, items, labels, reading, (SUM,)).decide(SUM).tolist()
        return [Answer((item.choices or labels)[place], (), True) for item, place in zip(items, best, strict=True)]
    rows = _rows(model, items, reading)
    if reading.marker:
        written = generate(model, rows, reading.layout, reading.longest, reading.batch)
        return [_behind(answer, reading.marker) for answer in written]
    if model.tokenizer is None:
        return generate(model, rows, reading.layout, [len(row.answer) for row in rows], reading.batch)
    longest = max(len(row.answer) for row in rows)
    return generate(model, rows, reading.layout, reading.most or answer_limit(model, longest), reading.batch)


def longest_answer(model: Model, items: Sequence[Item], reading: Reading) -> int:
    """Return the tokens of the longest of the right answers to ``items``, its end included."""
    return max(len(row.answer) for row in _rows(model, items, reading))


def answer_limit(model: Model, longest: int) -> int:
    """Return how many tokens an answer may have before it is said not to end; the ``longest`` right one has so many.

    The limit is the same for all items: how long an answer may be must not depend on how long the right one is.
    """
    return longest if model.tokenizer is None else max(LEAST, 2 * longest)
