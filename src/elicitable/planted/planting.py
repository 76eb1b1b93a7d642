"""Check that a case's truth holds as planted, by measurements that know nothing of a race.

*Present*: the bare model answers. *Locked* and *parts*: the bare model does not, and a context that is written down
here (the witness) makes it answer. *Absent*: no context of any kind can, by the following argument.

In the one layer of these models the content's keys get the same shares of a head's attention under every context. So
what a query sees of the content is, per head h, one mean of values oₕ and one log-sum-exp Lₕ, and the context adds to
that what depends on the query alone. Let x and x' be two inputs whose right answers differ at a step s at which oₕ and
Lₕ are the same in every head. Then every context answers step s of both alike, and one of the two wrong. An input x
that has such a partner is called *blind*. Where inputs are blind in pairs, no context is right about more than one of
each. Partners are looked for in several families of changes, and an input counts once one of them has a partner for it,
so the share of blind inputs is no bound by itself; it says how much of the task is out of sight. Equality is met up to
a tolerance: what reaches the residual stream may differ by :data:`ALIKE` of what it differs by between two random
inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import torch
from torch import Tensor

from elicitable.attention.split import attend_content
from elicitable.models.attend import Call
from elicitable.models.capture import capture_tokens
from elicitable.models.inject import installed, use
from elicitable.models.model import Model
from elicitable.models.prefixes import join
from elicitable.planted.tasks import DIGITS, LENGTH, Digits, Gather, Rule, held_out_digits, items_of
from elicitable.rng import generator
from elicitable.tasks.base import Task
from elicitable.training.batches import encode
from elicitable.training.evaluate import Reading, evaluate
from elicitable.values import PrefixKV

Context = tuple[int, ...]

ITEMS: Final = 500  # of the validation split, which no verdict rests on
DOES: Final = 0.985  # share of right answers of a task that a model does
DOES_NOT: Final = 0.05  # and of one that it does not
ALIKE: Final = 0.05  # of the root mean square difference between two random inputs, in the residual stream
ALIKE_NATS: Final = 0.05  # difference of log-sum-exps: changes a head's weight by 1.25 points at most
BLIND: Final = 0.8  # share of inputs that must be blind
BLIND_ITEMS: Final = 200
SHUT: Final = -60.0  # nats by which a gated key's logit falls
RIDGE: Final = 1e-6  # keeps the least δ of those that are as good


@dataclass(frozen=True)
class Gated:
    """Password tokens that act at some steps only: a context that gives each mark's query its own part of it."""

    context: Context
    steps: tuple[int, ...]


def score(model: Model, task: Task, prefix: PrefixKV | None = None) -> float:
    """Return the share of validation items that ``model`` answers, behind ``prefix`` or bare."""
    items = task.held_out("validation", ITEMS)
    if prefix is None:
        return evaluate(model, items, None, Reading(batch=ITEMS)).mean
    with use(model, prefix):
        return evaluate(model, items, None, Reading(batch=ITEMS)).mean


@torch.no_grad()
def password_prefix(model: Model, context: Context) -> PrefixKV:
    """Return the keys and values of password tokens right before the content."""
    return capture_tokens(model, model.ids(context))


def gated_prefix(model: Model, parts: Sequence[Gated]) -> PrefixKV:
    """Return a prefix in which every part's passwords are seen at its own steps and at no other.

    The query of step s is the same vector qₛ for every input, as it is that of a mark at a fixed place. To each key of
    a part a δ is added, of every head its own, so that with scaling c

        c·qₛ·δ = 0 at its steps,    c·qₛ·δ = SHUT at the others,    c·q·δ ≤ 0 for the queries q of all answers,

    as nearly as the least sum of squared violations has it (a convex problem). So a key keeps its logit at its own
    steps, leaves the softmax at the others, and nothing is added where marks are written. Values stay.
    """
    marks, answers = _queries(model)
    joined: PrefixKV | None = None
    for part in parts:
        prefix = password_prefix(model, part.context)
        wanted = torch.tensor([0.0 if step in part.steps else SHUT for step in range(LENGTH)], dtype=torch.float64)
        shift = torch.stack([_gate(*both, wanted) for both in zip(marks, answers, strict=True)])
        key, value = prefix.keys[0], prefix.values[0]
        assert key is not None
        joined = join(joined, PrefixKV((key + shift[None, :, None].to(key),), (value,), positions=prefix.positions))
    assert joined is not None
    return joined


def _gate(marks: Tensor, answers: Tensor, wanted: Tensor) -> Tensor:
    """Return δ (d_head,) of one head from the scaled queries of its marks and of its answers."""
    shift = torch.zeros(marks.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([shift], max_iter=2_000, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def violation() -> Tensor:
        solver.zero_grad()
        missed = (marks @ shift - wanted).square().sum() + (answers @ shift).relu().square().sum()
        loss = missed + RIDGE * shift.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(violation)  # type: ignore[no-untyped-call]
    return shift.detach()


def _queries(model: Model) -> tuple[Tensor, Tensor]:
    """Return the scaled queries after the rotary angles: of marks (head, step, d_head), and of all possible answers."""
    digits = np.arange(DIGITS)[:, None].repeat(LENGTH, axis=1)  # every digit in every place of the answer
    call = _call(model, items_of(Gather(), digits))
    at = _places(call)
    queries = (call.query * call.scaling).double()
    assert torch.allclose(queries[0, :, at], queries[1, :, at], atol=1e-5)  # the marks' are those of every input
    return queries[0, :, at], queries[:, :, [place + 1 for place in at[:-1]]].transpose(0, 1).flatten(1, 2)


def _call(model: Model, items: Sequence[object]) -> Call:
    seen: list[Call] = []
    batch = encode(model, items)  # type: ignore[arg-type]
    with torch.no_grad(), installed(model) as slot, slot.watched_by(lambda call: seen.append(call)):
        model.hf(input_ids=batch.input_ids, use_cache=False, logits_to_keep=1)
    return seen[0]


def _places(call: Call) -> list[int]:
    """Return where the marks stand in rows without a cue."""
    last = call.query.shape[2] - 1
    return [last - 2 * (LENGTH - 1 - step) for step in range(LENGTH)]


def blind_share(model: Model, rule: Rule) -> float:
    """Return the share of validation inputs that are blind under ``rule``."""
    digits = held_out_digits("validation", BLIND_ITEMS)
    partners = _partners(digits)  # (partner, item, place)
    seen, sums = _seen(model, rule, digits)
    answers, scale = rule.answers(digits), _scale(seen)
    is_blind = np.zeros(len(digits), dtype=bool)
    for others in partners:
        other_seen, other_sums = _seen(model, rule, others)
        apart = (seen - other_seen).norm(dim=-1).amax(dim=1) / scale  # (item, step)
        nats = (sums - other_sums).abs().amax(dim=1)
        alike = ((apart <= ALIKE) & (nats <= ALIKE_NATS)).numpy()
        is_blind |= (alike & (answers != rule.answers(others))).any(axis=1)
    return float(is_blind.mean())


def _partners(digits: Digits) -> list[Digits]:
    """Return inputs that differ in one digit, or by an exchange of two places."""
    rng, found = generator(0, "blind partners"), []
    for place in range(LENGTH):
        for _ in range(2):
            other = digits.copy()
            other[:, place] = (other[:, place] + rng.integers(1, DIGITS, size=len(digits))) % DIGITS
            found.append(other)
    for one, two in combinations(range(LENGTH), 2):
        other = digits.copy()
        other[:, [one, two]] = other[:, [two, one]]
        found.append(other)
    return found


def _seen(model: Model, rule: Rule, digits: Digits) -> tuple[Tensor, Tensor]:
    """Return what each step's query sees of the content: (item, head, step, d_model) and (item, head, step)."""
    call = _call(model, items_of(rule, digits))
    at = _places(call)
    mean, sums = attend_content(call.without_context())
    output = model.hf.model.layers[0].self_attn.o_proj.weight.detach()
    per_head = output.reshape(output.shape[0], mean.shape[1], mean.shape[3])  # (d_model, head, d_head)
    return torch.einsum("bhsd,mhd->bhsm", mean[:, :, at], per_head), sums[:, :, at]


def _scale(seen: Tensor) -> float:
    """Return the root mean square, over steps and pairs of inputs, of the difference in the head that differs most."""
    apart = (seen - seen.roll(1, dims=0)).norm(dim=-1).amax(dim=1)
    return float(apart.square().mean().sqrt())


__all__ = [
    "ALIKE",
    "BLIND",
    "DOES",
    "DOES_NOT",
    "Gated",
    "blind_share",
    "gated_prefix",
    "password_prefix",
    "score",
]
