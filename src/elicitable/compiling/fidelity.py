"""Say how faithfully something does what a context does: next-token distributions, scores in pairs, other texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.attention.float64 import doubled
from elicitable.compiling.pairs import PairBatch, Side, bare, batches_of, layout_with, pairs_of_texts
from elicitable.diagnosis.intervals import Arm, gap, point
from elicitable.methods.base import Adaptation
from elicitable.models.inject import installed, prefix_of
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.restoring import swapped
from elicitable.tasks.base import groups_of
from elicitable.tasks.passages import ITEMS
from elicitable.training.evaluate import Reading, evaluate
from elicitable.values import Item, PrefixKV

if TYPE_CHECKING:
    from elicitable.models.attend import Slot
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

Context = Adaptation | PrefixKV
Marks = Callable[["Model", "Task", Sequence[Item], Reading], Arm]  # the answers with whatever is in use
NOTHING = Adaptation()  # the model as it is
KEPT = 2**30  # bytes of logits that a teacher keeps


@dataclass(frozen=True)
class Likeness:
    """Compare a model's next-token distributions with those behind the context.

    ``kl_nats`` is KL(with the context ‖ compared), mean over the places where the model is asked, ``text_kl_nats`` over
    every token; ``agreement`` is the share of asked places whose most likely token is the same.
    """

    kl_nats: float
    text_kl_nats: float
    agreement: float


@contextmanager
def in_place(model: Model, what: Context) -> Iterator[Slot]:
    """Let the model run with ``what`` and nothing else; gradients flow to what ``what`` is made of."""
    with installed(model) as slot:
        if isinstance(what, PrefixKV):
            with swapped(slot, prefix=what, strength=1.0):
                yield slot
            return
        with what.weights(model), swapped(slot, prefix=None, strength=1.0):
            slot.prefix = prefix_of(model, [what])
            yield slot


def last_logits(model: Model, what: Context, side: Side, tokens: int) -> Tensor:
    """(batch, tokens, vocab) logits at the last ``tokens`` of a side's rows, with ``what`` in place."""
    return exact(logits_at(model, what, side, tokens))


def logits_at(model: Model, what: Context, side: Side, tokens: int) -> Tensor:
    """Return the same in the type that the model gives them."""
    with in_place(model, what):
        return asked(model, side, tokens)


def asked(model: Model, side: Side, tokens: int) -> Tensor:
    """Return (batch, tokens, vocab) logits at the last ``tokens`` of a side's rows, with whatever is in place."""
    logits: Tensor = model.hf(
        input_ids=side.ids, attention_mask=side.mask, use_cache=False, logits_to_keep=tokens
    ).logits
    return logits[:, -tokens:]


def exact(logits: Tensor) -> Tensor:
    """Return ``logits`` in float32, or in float64 where they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def divergence(taught: Tensor, read: Tensor) -> Tensor:
    """KL(softmax(taught) ‖ softmax(read)) in nats, over the last axis.

    >>> divergence(torch.zeros(3), torch.tensor([1.0, 1.0, 1.0])).item()
    0.0
    """
    taught = taught.log_softmax(dim=-1)
    return (taught.exp() * (taught - read.log_softmax(dim=-1))).sum(dim=-1)


class Teacher:
    """Answer with the logits behind ``context``, and keep those of the first batches, which are asked for again.

    Those of :data:`KEPT` bytes are kept, apart for the type of the products that made them; the others are computed at
    every call. What is kept is what would be computed: neither the model nor the context may change meanwhile.
    """

    def __init__(self, model: Model, context: PrefixKV) -> None:
        self.model, self.context = model, context
        self._kept: dict[tuple[PairBatch, bool], Tensor] = {}
        self._room = KEPT

    @torch.no_grad()
    def __call__(self, batch: PairBatch) -> Tensor:
        """(batch, shared, vocab) logits at the tokens of ``batch`` that are compared, in the type that made them."""
        is_lowered = torch.is_autocast_enabled(self.model.device.type)
        logits = self._kept.get((batch, is_lowered))
        if logits is None:
            logits = logits_at(self.model, self.context, batch.taught, batch.shared.shape[1])
            self._keep((batch, is_lowered), logits)
        return logits

    def _keep(self, key: tuple[PairBatch, bool], logits: Tensor) -> None:
        size = logits.numel() * logits.element_size()
        if size <= self._room:
            self._kept[key] = logits.clone()  # alone, not with the logits of padding that it may be a view of
            self._room -= size


@torch.no_grad()
def likeness(teacher: Teacher, what: Context, batches: Sequence[PairBatch]) -> Likeness:
    """Compare ``what`` with the context of ``teacher`` on ``batches``."""
    sums, counts, agreed = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0
    for batch in batches:
        taught = exact(teacher(batch))
        read = last_logits(teacher.model, what, batch.read, batch.shared.shape[1])
        off = divergence(taught, read)
        for nth, where in enumerate((batch.asked, batch.shared)):
            sums[nth] += float(doubled(off[where]).sum())
            counts[nth] += int(where.sum())
        agreed += int((taught.argmax(-1) == read.argmax(-1))[batch.asked].sum())
    means = (sums / counts.clamp(min=1)).tolist()
    return Likeness(means[0], means[1], agreed / max(int(counts[0]), 1))


@torch.no_grad()
def scores(
    model: Model,
    task: Task,
    context: Any,
    what: Adaptation,
    items: int,
    seed: int,
    max_tokens: int | None = None,
    layout: Layout = PLAIN,
    marks: Marks | None = None,
) -> dict[str, Any]:
    """Score the test split with the context, with ``what``, and with neither, and compare in pairs over items.

    Items are read as the context lays them out, or in ``layout``, and scored by ``marks``, or plainly.

    Returns:
        Scores, and (difference, low, high) of the context's score less each of the others' at 95 %.
    """
    held = task.held_out("test", items)
    groups = groups_of(task, "test", items)
    own = layout_with(context, layout)
    reading = Reading(32 if model.tokenizer else 250, max_tokens, bare(own))
    behind = replace(reading, layout=own, held=_held(context))
    found = {
        "context": _outcomes(model, task, context, held, behind, marks),
        "compiled": _outcomes(model, task, what, held, reading, marks),
        "neither": _outcomes(model, task, NOTHING, held, reading, marks),
    }
    lost = {name: gap(found["context"], found[name], seed, groups) for name in ("compiled", "neither")}
    means = {name: point(outcome) for name, outcome in found.items()}
    return {"items": len(held), **means, "lost": list(lost["compiled"]), "lost_without": list(lost["neither"])}


@torch.no_grad()
def elsewhere_scores(
    model: Model, task: Task, what: Adaptation, items: int, seed: int, layout: Layout = PLAIN
) -> dict[str, Any]:
    """Score another task with ``what`` and without it, in pairs: what a patch does where nobody asked for it."""
    held = task.held_out("test", items)
    reading = Reading(32 if model.tokenizer else 250, layout=layout)
    base, own = (_outcomes(model, task, one, held, reading) for one in (NOTHING, what))
    lost = gap(base, own, seed, groups_of(task, "test", items))
    return {"task": task.name, "items": len(held), "base": point(base), "compiled": point(own), "lost": list(lost)}


def _held(context: Any) -> tuple[int, ...]:
    return tuple(context.held()) if hasattr(context, "held") else ()


def _outcomes(
    model: Model, task: Task, what: Context, items: Sequence[Item], reading: Reading, marks: Marks | None = None
) -> Arm:
    with in_place(model, what):
        return (marks or _plainly)(model, task, items, reading)


def _plainly(model: Model, task: Task, items: Sequence[Item], reading: Reading) -> Arm:
    """Which labels are likeliest, or which whole answers are right."""
    return (evaluate(model, items, task.labels(), reading).correct,)


@dataclass(frozen=True)
class Forgetting:
    """Compare with the model as it is on texts of another kind: nats a token lost, and KL(as it is ‖ changed)."""

    lost_nats: float
    kl_nats: float


@torch.no_grad()
def forgetting(model: Model, what: Context, size: int) -> Forgetting | None:
    """Measure what ``what`` costs on plain English, or on the toys' pretraining mix; None where neither can be read."""
    others = _other_pairs(model)
    if not others:
        return None
    lost = off = count = 0.0
    for batch in batches_of(model, others, size):
        side, where = batch.read, batch.shared[:, :-1]
        tokens = batch.shared.shape[1]
        base, own = (last_logits(model, one, side, tokens)[:, :-1] for one in (NOTHING, what))
        target = side.ids[:, -tokens + 1 :, None]
        right = [logits.log_softmax(-1).gather(-1, target)[..., 0][where] for logits in (base, own)]
        losses = [-doubled(nats).sum() for nats in right]
        lost += float(losses[1] - losses[0])
        off += float(doubled(divergence(base, own)[where]).sum())
        count += int(where.sum())
    return Forgetting(lost / count, off / count)


def _other_pairs(model: Model) -> list[Any]:
    if model.tokenizer is not None:
        most = model.anatomy.trained_positions
        texts: list[Any] = [f"{item.prompt}{item.target}" for item in ITEMS]
        return pairs_of_texts(model, NOTHING, texts, None if most is None else most // 2)
    from elicitable.tasks.catalog import task_from

    name = "mixed" if model.name != "toy:ascending" else "ascending"
    ids = [(*item.prompt, *item.target) for item in task_from(name).held_out("validation", 128)]
    is_read = max(map(max, ids)) < model.anatomy.vocab
    return pairs_of_texts(model, NOTHING, ids) if is_read else []
