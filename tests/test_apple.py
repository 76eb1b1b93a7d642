"""On Apple's GPU, which has no float64, nothing makes any: a stand-in refuses it as the real one does."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from tests.apple import on_apple

import elicitable as el
from elicitable.microscope.inspect import inspect
from elicitable.microscope.prune import prune
from elicitable.models.architectures import tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.models.prefixes import prefix_length
from elicitable.models.speed import precision
from elicitable.training.evaluate import Reading, read_labels
from elicitable.values import Item

TEXTS = [[5, 6, 7, 8, 12], [9, 10, 11], [20, 21, 22, 23, 24, 25, 26], [40, 41]]


@pytest.fixture
def model() -> Iterator[Model]:
    hf = tiny_model("mistral", dtype=torch.float32)  # has a sliding window
    with on_apple(hf):
        yield Model(hf, name="tiny")


def test_the_stand_in_has_no_float64() -> None:
    with on_apple(tiny_model("llama", dtype=torch.float32)):
        x = torch.ones(2, device=torch.device("mps"))
        assert (x.device.type, (x + 1).device.type, x.cpu().device.type) == ("mps", "mps", "cpu")
        for widened in (x.double, lambda: x.sum(dtype=torch.float64), lambda: x.to("cpu", torch.float64)):
            with pytest.raises(TypeError, match="float64"):
                widened()


@torch.no_grad()
def test_a_context_is_looked_at_and_pruned(model: Model) -> None:
    prefix = capture_tokens(model, torch.tensor([[7, 9, 4]]))
    found = inspect(model, prefix, TEXTS)
    assert found.largest_residual() < 1e-4
    assert all(math.isfinite(head.drift) and head.effective_rank > 0 for head in found.heads)
    assert len(found.shared) == 2
    smaller, done = prune(model, prefix, lambda context: 1.0, [{"input_ids": model.ids(TEXTS[0])}])
    assert (prefix_length(smaller), done.pairs_after) == (1, 1)


@pytest.mark.parametrize("to", ["lora", "weights", "short-prefix"])
def test_a_context_is_compiled(model: Model, to: str) -> None:
    context = el.context("prompt", model, token_ids=[7, 9, 4, 11])
    texts = [[n, n + 3, n + 1, n + 7] for n in range(12)]
    found = el.compile_context(model, context, texts, to=to, rank=2, keys=2, steps=0)
    assert math.isfinite(found.record["compiled"]["kl_nats"])


def test_labels_are_read(letters_model, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: False)  # as it is there: both read in float32
    model = letters_model(dtype=torch.float32)
    items, labels = [Item("ab:", " yes"), Item("cd:", " no")], (" yes", " no")
    wanted = read_labels(model, items, labels, Reading()).nats
    with on_apple(model.hf):
        found = read_labels(Model(model.hf, model.tokenizer), items, labels, Reading()).nats
    assert (found.device.type, found.dtype) == ("cpu", torch.float64)
    assert torch.allclose(found, wanted, atol=1e-5)
