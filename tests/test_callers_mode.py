"""What a person asks for does not hang on the mode that their own code is in: no_grad, inference mode, an autocast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.deploy import predict
from elicitable.lab.reach import token_reach

MODES: list[Callable[[], Any]] = [
    torch.no_grad,
    torch.inference_mode,
    lambda: torch.autocast("cpu", torch.bfloat16),
]
Asked = Callable[[Path], Any]


def tuned(out: Path) -> Any:
    given: dict[str, Any] = {"method": "kv-prefix", "size": 1, "learning_rate": 0.01, "steps": 4, "test_items": 8}
    found = el.tune("toy:ascending", "ascending", **given, out=out).record
    return [found[name] for name in ("mean", "loss_nats", "validation", "curve", "base_elsewhere_nats")]


def compiled(out: Path) -> Any:
    model = el.load("toy:ascending", device="cpu")
    texts = [[n % 8, (3 * n) % 8, 5, n % 3] for n in range(12)]
    made = el.compile_context(model, el.context("prompt", model, token_ids=[7, 0]), texts, rank=2, steps=2)
    return [part.tolist() for _, part in sorted(made.adaptation.state().items())]


def inspected(out: Path) -> Any:
    model = el.load("toy:ascending", device="cpu")
    found = el.inspect(model, el.context("prompt", model, token_ids=[7, 0]), [[1, 2, 3, 4], [4, 3, 2, 1]])
    return found.largest_residual(), [head.output_residual for head in found.heads]


def reached(out: Path) -> Any:
    found = token_reach(el.load("toy:ascending", device="cpu"), virtual_tokens=1, length=2, steps=5)
    return found.hard.distinct, found.virtual.tried


def checked(out: Path) -> Any:
    tuned(out)
    return [(one.name, one.status) for one in el.check("toy:ascending", out, quick=True).findings]


@pytest.mark.parametrize("mode", MODES, ids=["no_grad", "inference_mode", "autocast"])
@pytest.mark.parametrize("asked", [tuned, compiled, inspected, reached, checked])
def test_it_is_the_same_in_every_mode(asked: Asked, mode: Callable[[], Any], tmp_path: Path) -> None:
    plainly = asked(tmp_path / "plainly")
    with mode():
        found = asked(tmp_path / "there")
    assert found == plainly


def test_rows_are_answered_in_the_precision_of_the_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned(tmp_path)
    answers, modes = el.predictor(tmp_path), []
    real = predict.generate

    def watched(*given: Any, **named: Any) -> Any:
        modes.append((torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))
        return real(*given, **named)

    monkeypatch.setattr(predict, "generate", watched)
    for mode in MODES:
        with mode():
            answers.one([3, 1, 2, 4, 5, 6, 7, 0, 1, 1])
    assert modes == [(False, False)] * len(MODES)
