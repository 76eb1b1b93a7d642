"""Train many single virtual tokens at once, each to make the frozen model write its own target.

A virtual token v ∈ R^d_model is the whole input, after the token that starts every text if there is one. The model
reads v and writes all that follows. For a target y_1 … y_L the loss is teacher-forced,
−Σ_t log p(y_t | v, y_1 … y_{t−1}) / L. The rows of a batch do not see each other, so one batch trains as many tokens as
it has rows. A row that writes its target leaves the batch.

Source: Petrov, Torr, Bibi, ICLR 2024 (arXiv 2310.19698), section 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from elicitable.models.restoring import evaluating, without_gradients
from elicitable.models.speed.precision import autocast, frozen_casts

if TYPE_CHECKING:
    from elicitable.models.model import Model

BETAS = (0.9, 0.99)
EPSILON = 1e-8
ROUND = 20  # steps between two looks at what the tokens write; entering frozen_casts costs about one step

FitProgress = Callable[[int, int], None]  # steps taken, rows that write their target


@dataclass(frozen=True)
class FittedTokens:
    """Hold ``vectors`` (row, d_model), what each makes the model write greedily in its own precision, and how it went.

    ``written`` (row, length) are token ids. ``steps`` (row,) is the step after which a row wrote its target, 0 where
    it never did. ``losses`` (row,) are the lowest teacher-forced losses, in nats per token.
    """

    vectors: Tensor
    written: Tensor
    steps: Tensor
    losses: Tensor

    @property
    def reached(self) -> Tensor:
        """Return (row,) whether the target was written exactly, free-running."""
        return self.steps > 0


@torch.no_grad()
def continue_greedily(model: Model, first: Tensor, length: int, after: Sequence[int] = ()) -> Tensor:
    """Let the model write (row, length) ids greedily after ``after`` and one token, which are its whole input.

    End-of-text is a token like any other: nothing stops before ``length``. Computed in the model's own precision.

    Args:
        model: the model, as it is.
        first: (row,) token ids, or (row, d_model) virtual tokens.
        length: how many tokens are written.
        after: ids that stand first in every row, such as the model's beginning-of-sequence token.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> tuple(continue_greedily(model, torch.arange(10), length=4).shape)
        (10, 4)
    """
    if first.is_floating_point():
        given = {"inputs_embeds": _after(model, after, first[:, None].to(model.dtype))}
    else:
        given = {"input_ids": torch.cat([_rows(after, first), first[:, None]], dim=1)}
    written, cache = [], None
    with evaluating(model.hf):
        for _ in range(length):
            out = model.hf(**given, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            written.append(out.logits[:, -1].argmax(dim=-1))
            given = {"input_ids": written[-1][:, None]}
    return torch.stack(written, dim=1)


def fit_virtual_tokens(
    model: Model,
    targets: Tensor,
    start: Tensor,
    rates: Tensor,
    steps: int,
    *,
    after: Sequence[int] = (),
    seconds: float | None = None,
    progress: FitProgress | None = None,
) -> FittedTokens:
    """Train every row by Adam at its own learning rate, until it writes its target, or steps or time run out.

    Trained under bfloat16 autocast where that is fast; a row counts as reached only when the model, in its own
    precision and free-running, writes the target. The base weights are untouched.

    Args:
        model: a model, frozen here.
        targets: (row, length) token ids.
        start: (row, d_model) where the tokens start.
        rates: (row,) learning rates.
        steps: the most steps a row gets.
        after: ids that stand first in every row.
        seconds: the most time in all, when given.
        progress: told after every round of :data:`ROUND` steps.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> targets = torch.tensor([[3, 1], [0, 7]])
        >>> fitted = fit_virtual_tokens(model, targets, torch.zeros(2, 96), torch.full((2,), 0.1), steps=100)
        >>> tuple(fitted.vectors.shape)
        (2, 96)
    """
    batch = _Batch(targets, start.to(model.trainable_dtype), rates, after)
    began, taken = time.monotonic(), 0

    def is_late() -> bool:
        return seconds is not None and time.monotonic() - began >= seconds

    with without_gradients(model.hf), evaluating(model.hf):
        while taken < steps and len(batch.live) and not is_late():
            with frozen_casts(model), sdpa_kernel(SDPBackend.MATH):  # flash backward is slow on so few keys
                for _ in range(min(ROUND, steps - taken)):
                    batch.step(model)
                    taken += 1
                    if is_late():
                        break
            batch.look(model, taken)
            if progress:
                progress(taken, int((batch.solved > 0).sum()))
        batch.write(model)
    return FittedTokens(batch.best, batch.written, batch.solved, batch.losses)


class _Batch:
    """Hold the state of all rows; ``live`` (row left,) are the indices of those that still train."""

    def __init__(self, targets: Tensor, start: Tensor, rates: Tensor, after: Sequence[int] = ()) -> None:
        rows = len(targets)
        self.after = after
        self.targets, self.now, self.rates = targets, start.clone(), rates.to(start)[:, None]
        self.mean, self.square = torch.zeros_like(start), torch.zeros_like(start)
        self.best, self.losses = start.clone(), start.new_full((rows,), torch.inf)
        self.written = torch.full_like(targets, -1)
        self.solved = torch.zeros(rows, dtype=torch.long, device=targets.device)
        self.live = torch.arange(rows, device=targets.device)
        self.is_right = torch.zeros(rows, dtype=torch.bool, device=targets.device)  # of the best, while training
        self.taken = 0

    def step(self, model: Model) -> None:
        """Take one step of Adam on the live rows. A row whose gradient is not finite stays where it is."""
        live = self.live
        tokens = self.now[live].requires_grad_()
        losses, is_right = _losses(model, tokens, self.targets[live], self.after)
        (gradient,) = torch.autograd.grad(losses.sum(), tokens)
        losses, gradient = losses.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        is_better = losses < self.losses[live]
        self.losses[live[is_better]] = losses[is_better]
        self.best[live[is_better]] = tokens.detach()[is_better]
        self.is_right[live[is_better]] = is_right[is_better]
        self.taken += 1
        self.mean[live] = BETAS[0] * self.mean[live] + (1 - BETAS[0]) * gradient
        self.square[live] = BETAS[1] * self.square[live] + (1 - BETAS[1]) * gradient.square()
        scale = (self.square[live] / (1 - BETAS[1] ** self.taken)).sqrt() + EPSILON
        self.now[live] -= self.rates[live] * self.mean[live] / (1 - BETAS[0] ** self.taken) / scale

    def look(self, model: Model, step: int) -> None:
        """Let rows that were right while training write on their own; those that write their target leave."""
        hopeful = self.live[self.is_right[self.live]]
        if not len(hopeful):
            return
        self.written[hopeful] = continue_greedily(model, self.best[hopeful], self.targets.shape[1], self.after)
        is_reached = (self.written[hopeful] == self.targets[hopeful]).all(dim=1)
        self.solved[hopeful[is_reached]] = step
        self.live = self.live[self.solved[self.live] == 0]

    def write(self, model: Model) -> None:
        """Let the rows that are left write in the end; one that writes its target then has reached it too."""
        self.is_right[self.live] = True
        self.look(model, self.taken)


def _losses(model: Model, tokens: Tensor, targets: Tensor, after: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return (row,) −Σ_t log p(y_t | v, y_<t) / L, and (row,) whether every y_t is the likeliest token.

    ``tokens`` are (row, d_model), ``targets`` (row, length).
    """
    with autocast(model):
        read = model.hf.get_input_embeddings()(targets[:, :-1])
        embeddings = _after(model, after, torch.cat([tokens[:, None].to(read.dtype), read], dim=1))
        logits = model.hf(inputs_embeds=embeddings, use_cache=False).logits[:, len(after) :]
    token_losses = torch.nn.functional.cross_entropy(
        logits.to(tokens.dtype).flatten(0, 1), targets.flatten(), reduction="none"
    )
    is_right = (logits.detach().argmax(dim=-1) == targets).all(dim=1)
    return token_losses.view(targets.shape).mean(dim=1), is_right


def _after(model: Model, after: Sequence[int], embeddings: Tensor) -> Tensor:
    """Put the embeddings of ``after`` before ``embeddings`` (row, token, d_model)."""
    first = model.hf.get_input_embeddings()(_rows(after, embeddings))
    return torch.cat([first.to(embeddings.dtype), embeddings], dim=1)


def _rows(ids: Sequence[int], rows: Tensor) -> Tensor:
    """Return (row, token) ids, the same for every row of ``rows``."""
    return torch.tensor(list(ids), dtype=torch.long, device=rows.device).expand(len(rows), -1)
