"""Train what the closed form left: a few hundred steps down the divergence from the run with the context."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from elicitable.compiling.fidelity import divergence, last_logits, likeness
from elicitable.compiling.pairs import PairBatch
from elicitable.models.restoring import evaluating, without_gradients
from elicitable.models.speed.precision import autocast
from elicitable.rng import generator

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.values import PrefixKV

Told = Callable[[int, float], None]  # the step, and the divergence on held-out texts


@dataclass(frozen=True)
class Distilling:
    """Say how long is trained and how fast: AdamW, ten steps of warm-up, a cosine down to zero.

    ``seconds`` bounds the time as well, where it is given. The best of ``looks`` states by divergence on held-out texts
    is kept, that before the first step among them.
    """

    steps: int
    rate: float
    seconds: float | None = None
    looks: int = 8
    seed: int = 0


def distil(
    model: Model,
    context: PrefixKV,
    adaptation: Adaptation,
    batches: Sequence[PairBatch],
    held: Sequence[PairBatch],
    plan: Distilling,
    told: Told = lambda step, nats: None,
) -> int:
    """Train ``adaptation`` towards the distributions behind ``context``; return how many steps were taken.

    The loss of a batch is the mean of KL(with the context ‖ with the adaptation) over the places where the model is
    asked, and over all of the text, half each. Its best state on ``held`` is loaded at the end.
    """
    parameters = adaptation.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.0)
    order, started, step = generator(plan.seed, "distil"), time.monotonic(), 0
    best, state = likeness(model, context, adaptation, held).kl_nats, adaptation.state()
    with evaluating(model.hf), without_gradients(model.hf, but=parameters):
        while step < plan.steps and not _is_late(plan, started):
            batch = batches[int(order.integers(len(batches)))]
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * _pace(plan, step, time.monotonic() - started)
            loss = _loss(model, context, adaptation, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if not bool(torch.isfinite(nn.utils.clip_grad_norm_(parameters, 1.0))):
                break
            optimizer.step()
            step += 1
            if step % max(1, plan.steps // plan.looks) == 0 or step == plan.steps or _is_late(plan, started):
                nats = likeness(model, context, adaptation, held).kl_nats
                told(step, nats)
                if nats < best:
                    best, state = nats, adaptation.state()
    adaptation.load(state)
    return step


def _is_late(plan: Distilling, started: float) -> bool:
    return plan.seconds is not None and time.monotonic() - started >= plan.seconds


def _pace(plan: Distilling, step: int, seconds: float) -> float:
    """Return the share of the rate at this step: up over ten steps, then a cosine down over the steps or the time."""
    done = max(step / plan.steps, seconds / plan.seconds if plan.seconds else 0.0)
    return min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _loss(model: Model, context: PrefixKV, adaptation: Adaptation, batch: PairBatch) -> torch.Tensor:
    tokens = batch.shared.shape[1]
    with autocast(model):
        with torch.no_grad():
            taught = last_logits(model, context, batch.taught, tokens)
        read = last_logits(model, adaptation, batch.read, tokens)
    off = divergence(taught, read)
    return (off[batch.asked].mean() + off[batch.shared].mean()) / 2
