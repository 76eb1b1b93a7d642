"""Look at what a context does inside the model, and at what its score loses when parts of it are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from elicitable.diagnosis.intervals import point
from elicitable.errors import InputError, StoreError
from elicitable.microscope.inspect import Inspection, inspect
from elicitable.microscope.prune import Ablation, ablate
from elicitable.models.inject import installed, prefix_of, room_in
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.prefixes import prefix_length
from elicitable.models.restoring import swapped
from elicitable.models.rows import rows_of
from elicitable.race.aside import set_aside_of
from elicitable.race.standard import Standard
from elicitable.race.trial import Trial, take_over
from elicitable.records.store import Store
from elicitable.records.trial import TrialRecord
from elicitable.training.batches import Reading
from elicitable.training.loop import reading_of
from elicitable.untrusted import in_one_line
from elicitable.values import Item, PrefixKV

if TYPE_CHECKING:
    from elicitable.deploy.record import Record
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

TEXTS, MOST_TOKENS = 8, 96  # a few seconds on a small language model
MOST_LEFT_OUT = 32  # context tokens left out one by one
RANGES, HEADS = 6, 8  # ranges of layers, and heads (those with the largest prefix mass), left out one by one


def look_inside(trial: Trial, record: TrialRecord, model: Model, task: Task, store: Store) -> Inspection:
    """Put the first test items under the microscope, with the context that ``trial`` ended with.

    ``record`` is the trial's own; a trained context is built again from the tensors kept with it.
    """
    adaptation = again(trial, record, model, task, store)
    items = task.held_out("test", min(TEXTS, trial.test_items))
    adaptation.fit(model, items)
    rows = laid_out(model, adaptation, reading_of(trial.plan, adaptation), items)
    return inspect(model, adaptation, rows, max_tokens=MOST_TOKENS)


def again(trial: Trial, record: TrialRecord, model: Model, task: Task, store: Store) -> Adaptation:
    """Build what ``trial`` ended with again, from its record and the tensors that were kept of it.

    Raises:
        StoreError: its tensors were not kept.
    """
    method, spec = trial.method, trial.spec(model, task)
    state = store.state(spec) or set_aside_of(store, spec)
    if not method.is_trained:
        try:
            found = method.from_setting(model, record.setting, trial.layouts[0] if trial.layouts else PLAIN)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{store.where(spec)} is of no candidate of {method.name} ({in_one_line(str(error))}); "
                "move it away to run the trial again."
            ) from error
        if state:
            found.load(state)
        return found
    if not state:
        raise StoreError(
            f"the weights that {method.name} was trained to were not kept; race it again in another --out."
        )
    adaptation = method.build(model, trial.size, seed=trial.seed, **trial.options)
    take_over(adaptation, state, store.where(spec))
    return adaptation


@torch.no_grad()
def score_with(
    model: Model,
    prefix: PrefixKV,
    task: Task,
    items: Sequence[Item],
    reading: Reading,
    standard: Standard,
) -> float:
    """Score by ``standard`` what the model answers to ``items`` with ``prefix`` and nothing else in use."""
    with installed(model) as slot, swapped(slot, prefix=prefix, strength=1.0):
        return point(standard.outcome(model, task, items, reading))


def reading_with(
    model: Model,
    adaptation: Adaptation,
    record: Record | None,
    max_tokens: int | None = None,
    unsaid: Layout = PLAIN,
) -> Reading:
    """Say how items are read with ``adaptation``: in its own layout, or as ``record`` keeps it of its artefact.

    Where neither says, it is ``unsaid``.
    """
    layout = adaptation.layout or (unsaid if record is None else record.layout.layout())
    most = max_tokens if max_tokens is not None or record is None else record.max_tokens
    asked = adaptation.asked if adaptation.asks_otherwise else None
    return Reading(32 if model.tokenizer else 250, most, layout, adaptation.held(), asked, adaptation.marker)


def laid_out(model: Model, adaptation: Adaptation, reading: Reading, items: Sequence[Item]) -> list[list[int]]:
    """Return the ids of every item, answer included, as they stand behind ``adaptation``."""
    room = room_in(model, reading.max_tokens, adaptation.keys_per_layer())
    rows = rows_of(model, reading.items(model, items), reading.layout, held=reading.held, limit=room)
    return [[*row.content, *row.answer] for row in rows]


def prefix_to_cut(model: Model, context: Adaptation) -> PrefixKV:
    """Return the keys and values of ``context``, of which parts can be left out.

    Raises:
        InputError: it has none.
    """
    if len(context.parts) > 1:
        raise InputError("this adapter changes weights too, and --ablate is for contexts alone.")
    prefix = prefix_of(model, [context])
    if prefix is None or prefix_length(prefix) == 0:
        raise InputError("this adapter has no keys and values that could be left out: --ablate is for contexts.")
    return prefix


def leave_out(
    model: Model,
    prefix: PrefixKV,
    task: Task,
    items: int,
    found: Inspection,
    reading: Reading,
    standard: Standard,
    told: Callable[[int, int], None] = lambda done, whole: None,
) -> tuple[Ablation, ...]:
    """Measure what the score on ``items`` validation items loses without each part of ``prefix``, one at a time.

    Parts are its tokens (neighbours together where there are more than 32), ranges of layers (a sixth of the depth
    each), and the prefix of single heads: those that attend to it the most in ``found``. ``standard`` scores; ``told``
    hears how many of how many were measured.
    """
    held = task.held_out("validation", items)
    tokens, layers = _ranges(prefix_length(prefix), MOST_LEFT_OUT), _ranges(model.anatomy.depth, RANGES)
    heads = [(head.layer, head.head) for head in sorted(found.heads, key=lambda head: -head.prefix_mass)[:HEADS]]
    done, whole = 0, 1 + len(tokens) + len(layers) + len(heads)

    def score(candidate: PrefixKV) -> float:
        nonlocal done
        value = score_with(model, candidate, task, held, reading, standard)
        done += 1
        told(done, whole)
        return value

    return ablate(model, prefix, score, tokens=tokens, layers=layers, heads=heads)


def _ranges(count: int, most: int) -> list[tuple[int, int]]:
    """Cut 0 … count − 1 into at most ``most`` ranges (first, last)."""
    width = -(-count // most)
    return [(first, min(first + width, count) - 1) for first in range(0, count, width)]
