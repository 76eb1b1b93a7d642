"""Train what the closed form left: a few hundred steps down the divergence from the run with the context."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elicitable.compiling.fidelity import Teacher, asked, exact, in_place, likeness
from elicitable.compiling.pairs import PairBatch
from elicitable.models.restoring import evaluating, without_gradients
from elicitable.models.speed.checkpointing import checkpointed
from elicitable.models.speed.precision import autocast, frozen_casts
from elicitable.rng import generator
from elicitable.training.batches import LOGITS

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation

CACHED: Final = 2**16  # numbers of a few rows of logits that stay in a processor's cache

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
    teacher: Teacher,
    adaptation: Adaptation,
    batches: Sequence[PairBatch],
    held: Sequence[PairBatch],
    plan: Distilling,
    told: Told = lambda step, nats: None,
) -> int:
    """Train ``adaptation`` towards the distributions of ``teacher``; return how many steps were taken.

    The loss of a batch is the mean of KL(with the context ‖ with the adaptation) over the places where the model is
    asked, and over all of the text, half each. Its best state on ``held`` is loaded at the end.
    """
    run, started = _Run(teacher, adaptation, batches, plan), time.monotonic()
    best, state = likeness(teacher, adaptation, held).kl_nats, adaptation.state()
    with evaluating(teacher.model.hf), without_gradients(teacher.model.hf, but=adaptation.parameters()):
        while run.go_on(started):
            nats = likeness(teacher, adaptation, held).kl_nats
            told(run.step, nats)
            if nats < best:
                best, state = nats, adaptation.state()
    adaptation.load(state)
    return run.step


class _Run:
    """Hold a distillation between two looks at the texts that are held out."""

    def __init__(
        self, teacher: Teacher, adaptation: Adaptation, batches: Sequence[PairBatch], plan: Distilling
    ) -> None:
        self.teacher, self.adaptation, self.batches, self.plan = teacher, adaptation, batches, plan
        self.order, self.step = generator(plan.seed, "distil"), 0
        self.optimizer = torch.optim.AdamW(adaptation.parameters(), lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.0)

    def go_on(self, started: float) -> bool:
        """Take the steps up to the next look; False where there are none, or where the gradient is no number."""
        plan, every = self.plan, max(1, self.plan.steps // self.plan.looks)
        if self.step >= plan.steps or _is_late(plan, started):
            return False
        with frozen_casts(self.teacher.model):
            while True:
                if not self._take(time.monotonic() - started):
                    return False
                self.step += 1
                if self.step % every == 0 or self.step == plan.steps or _is_late(plan, started):
                    return True

    def _take(self, seconds: float) -> bool:
        """Take one step; False where the gradient is no number, and then nothing has changed."""
        batch, parameters = self.batches[int(self.order.integers(len(self.batches)))], self.adaptation.parameters()
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * _pace(self.plan, self.step, seconds)
        self.optimizer.zero_grad(set_to_none=True)
        with ExitStack() as in_force:  # layers may run again on the way back
            _loss(self.teacher, self.adaptation, batch, in_force).backward()
        if not bool(torch.isfinite(nn.utils.clip_grad_norm_(parameters, 1.0))):
            return False
        self.optimizer.step()
        return True


def _is_late(plan: Distilling, started: float) -> bool:
    return plan.seconds is not None and time.monotonic() - started >= plan.seconds


def _pace(plan: Distilling, step: int, seconds: float) -> float:
    """Return the share of the rate at this step: up over ten steps, then a cosine down over the steps or the time."""
    done = max(step / plan.steps, seconds / plan.seconds if plan.seconds else 0.0)
    return min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _loss(teacher: Teacher, adaptation: Adaptation, batch: PairBatch, in_force: ExitStack) -> Tensor:
    """Return the loss of a batch; ``adaptation`` is in place until ``in_force`` is left."""
    model = teacher.model
    with autocast(model):
        taught = teacher(batch)
        slot = in_force.enter_context(in_place(model, adaptation))
        in_force.enter_context(checkpointed(model, slot))
        read = asked(model, batch.read, batch.shared.shape[1])
    weights = (batch.asked / batch.asked.sum() + batch.shared / batch.shared.sum()) / 2
    return weighted_divergence(taught, read, weights)


def weighted_divergence(taught: Tensor, read: Tensor, weights: Tensor) -> Tensor:
    """Return Σ w KL(softmax(taught) ‖ softmax(read)) in nats, to which gradients flow through ``read`` only.

    Args:
        taught: logits (…, vocab).
        read: logits (…, vocab).
        weights: w (…).

    >>> weighted_divergence(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0.5, 0.5])).item()
    0.0
    """
    vocab = read.shape[-1]
    loss: Tensor = _Divergence.apply(taught.reshape(-1, vocab), read.reshape(-1, vocab), weights.reshape(-1))
    return loss


class _Divergence(torch.autograd.Function):
    """A few rows at a time, with their gradient w (softmax(read) − softmax(taught)), while they are in a cache."""

    @staticmethod
    def forward(ctx: Any, taught: Tensor, read: Tensor, weights: Tensor) -> Tensor:
        """Return the sum, and keep the gradient."""
        gradient, whole = torch.empty_like(read), exact(read.new_zeros(()))
        at_once = max(1, (CACHED if read.device.type == "cpu" else LOGITS) // read.shape[-1])
        parts = zip(*(x.split(at_once) for x in (taught, read, weights, gradient)), strict=True)
        for given, found, weight, into in parts:
            log_p, log_q = (exact(x).log_softmax(dim=-1) for x in (given, found))
            p = log_p.exp()
            off = (p * log_p.sub_(log_q)).sum(dim=-1)
            whole += (off * weight).sum()
            into.copy_(log_q.exp_().sub_(p).mul_(weight[:, None]))
        ctx.save_for_backward(gradient)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, None]:
        """Return the gradient by ``read``."""
        (gradient,) = ctx.saved_tensors
        return None, gradient * upstream.to(gradient.dtype), None
