"""A toy, machines that multiply bfloat16 fast or not, and what ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from elicitable.models.model import Model
from elicitable.models.speed import frozen, precision, processor, products, written_out
from elicitable.models.speed.frozen import FrozenBlock
from elicitable.models.toys import TOYS, build_toy

STAND_ALONE = (
    (products, "rows_stand_alone"),
    (products, "columns_stand_alone"),
    (frozen, "queries_stand_alone"),
    (written_out, "keys_stand_alone"),
)
SPEC = replace(TOYS["mixed"], layers=3, d_model=64)


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A machine that multiplies bfloat16 fast, and one that does not; in float32 plainly, whatever this one does."""
    is_fast: bool = request.param
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: is_fast)
    monkeypatch.setattr(products, "lays_out", lambda dtype: dtype == torch.bfloat16 and processor.packs(dtype))
    return is_fast


@pytest.fixture(params=["alone", "together"])
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor on which a row has the same bits among others as by itself, and one on which it has not."""
    is_alone: bool = request.param == "alone"
    for module, question in STAND_ALONE:
        monkeypatch.setattr(module, question, lambda *shape: is_alone)
    return is_alone


@pytest.fixture
def toy() -> Model:
    """A 3-layer toy with weights large enough that attention is far from even."""
    model = build_toy(SPEC, seed=3)
    drawn = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.hf.named_parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=drawn) * 3 / weight.shape[0] ** 0.5)
            elif "bias" in name:
                weight.copy_(torch.randn(weight.shape, generator=drawn) * 0.3)
    return model


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each part ran."""
    counts = {"blocks": 0, "before": 0, "looked up": 0}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            counts[name] += 1
            return function(*args, **given)

        return call

    monkeypatch.setattr(frozen._After, "apply", counting("blocks", frozen._After.apply))
    monkeypatch.setattr(frozen._Before, "apply", counting("before", frozen._Before.apply))
    by_head = FrozenBlock._by_head

    def noting(self: FrozenBlock, hidden: Tensor, left: int) -> tuple[Tensor, Tensor, Tensor]:
        counts["looked up"] += self.known is not None and self.known[0] is hidden
        return by_head(self, hidden, left)

    monkeypatch.setattr(FrozenBlock, "_by_head", noting)
    return counts
