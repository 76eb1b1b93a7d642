"""One training step of a toy, by our blocks or by the plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from elicitable.methods.catalog import method_named
from elicitable.models.inject import installed
from elicitable.models.model import Model
from elicitable.models.speed import precision, processor
from elicitable.rng import generator
from elicitable.training.batches import Batch
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared


def batch_of(rows: int, tokens: int, read: int, padded: bool = False) -> Batch:
    drawn = generator(0, "frozen", str((rows, tokens)))
    ids = torch.tensor(drawn.integers(0, 10, (rows, tokens)))
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            mask[row, : row % 4] = 0
    return Batch(ids, mask if padded else None, torch.tensor(drawn.integers(0, 10, (rows, read))))


@contextmanager
def plainly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "frozen_blocks", lambda model, dtype: nullcontext())
        yield


def one_step(model: Model, method: str, batch: Batch, offset: int = 0) -> list[Tensor]:
    """Logits and gradients of one training step."""
    adaptation = method_named(method).build(model, 3, seed=1)
    with prepared(model, adaptation) as refresh:
        refresh()
        with precision.autocast(model):
            logits = answer_logits(model, batch, offset)
        token_losses(logits, batch.targets).sum().backward()
    return [logits.detach(), *(p.grad for p in adaptation.parameters() if p.grad is not None)]


@contextmanager
def opened(model: Model, *trained: nn.Module) -> Iterator[None]:
    """The toy frozen but for what is trained, attention ours, under autocast: as a training step has it."""
    model.hf.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    with ExitStack() as stack:
        stack.enter_context(installed(model))
        stack.enter_context(precision.frozen_casts(model))
        stack.enter_context(precision.autocast(model))
        yield


def compare(model: Model, run: Callable[[], Tensor]) -> None:
    with opened(model):
        ours = run()
    with plainly(), opened(model):
        plain = run()
    assert torch.equal(ours, plain)


def is_bound(alone: bool, is_fast: bool) -> bool:
    """Whether bits forbid leaving rows out: for plain products where they do not stand alone."""
    return not alone and not (is_fast and processor.packs(torch.bfloat16))
