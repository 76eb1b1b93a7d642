"""A stopped run goes on as if nothing had happened, bit for bit; a checkpoint that is not its own is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elicitable.errors import InputError, StoreError
from elicitable.methods.catalog import method_named
from elicitable.models.model import Model
from elicitable.training import checkpoint, loop
from elicitable.training.checkpoint import Checkpoint, Frozen
from elicitable.training.loop import Fit, Plan, train
from elicitable.values import CurvePoint, Item

Build = Callable[..., Model]
PLAN = Plan(
    learning_rate=0.03,
    steps=120,
    batch=4,
    warmup=5,
    evaluate_every=20,
    validation_items=8,
    largest_offset=3,
    solved=2.0,
    perfect=2.0,
)


class Successor:
    """Answer d + 1 mod 8."""

    name = "successor"

    def labels(self) -> None:
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [Item((int(d),), ((int(d) + 1) % 8,)) for d in rng.integers(0, 8, n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return [Item((d,), ((d + 1) % 8,)) for d in range(8)][:n]

    def fingerprint(self) -> str:
        return "successor"


def run(model: Model, method: str, **given: Any) -> tuple[Fit, list[torch.Tensor]]:
    adaptation = method_named(method).build(model, 2, 0)
    fit = train(model, adaptation, Successor(), PLAN, 1, **given)
    return fit, [p.detach().clone() for p in adaptation.parameters()]


@pytest.mark.parametrize("method", ["kv-prefix", "lora", "full"])
def test_a_stopped_run_goes_on_to_the_same_bytes(digits_model: Build, method: str, tmp_path: Path) -> None:
    model = digits_model(8, torch.float32)
    path = tmp_path / "running" / "it.safetensors"

    def stop(point: CurvePoint, share: float) -> None:
        if point.step >= 80:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, method, checkpoint=Checkpoint(path, "it", every_seconds=0.0), progress=stop)
    kept = Checkpoint(path, "it").read()
    assert kept is not None
    assert kept.plain["steps"] == 64  # between two draws of data, and not at the beginning
    assert kept.plain["best"] is not None
    whole, numbers = run(model, method)
    resumed, again = run(model, method, checkpoint=Checkpoint(path, "it", every_seconds=1e9))
    assert resumed.curve == whole.curve
    assert (resumed.best, resumed.steps, resumed.stopped) == (whole.best, whole.steps, whole.stopped)
    assert all(torch.equal(a, b) for a, b in zip(numbers, again, strict=True))
    assert all(torch.equal(whole.state[name], resumed.state[name]) for name in whole.state)


def test_a_run_that_was_moved_names_both_kinds_of_processor(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = digits_model(8, torch.float32), tmp_path / "it.safetensors"

    def stop(point: CurvePoint, share: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "kind", lambda device: "avx512")
    with pytest.raises(KeyboardInterrupt):
        run(model, "kv-prefix", checkpoint=Checkpoint(path, "it", every_seconds=0.0), progress=stop)
    kept = Checkpoint(path, "it").read()
    assert kept is not None
    assert kept.plain["processors"] == ["avx512"]
    monkeypatch.setattr(loop, "kind", lambda device: "avx2")
    moved, _ = run(model, "kv-prefix", checkpoint=Checkpoint(path, "it", every_seconds=1e9))
    assert moved.processor == "avx512, avx2"
    assert run(model, "kv-prefix")[0].processor == "avx2"


def test_what_is_kept_is_what_is_read(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a" / "it", "it", every_seconds=0.0)
    assert checkpoint.read() is None
    checkpoint.write(Frozen({"best/0": torch.tensor([0.1])}, {"loss": 0.1, "phase": float("inf")}))
    kept = checkpoint.read()
    assert kept is not None
    assert torch.equal(kept.part("best")["0"], torch.tensor([0.1]))
    assert kept.plain == {"loss": 0.1, "phase": float("inf")}
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["it"]
    checkpoint.remove()
    assert checkpoint.read() is None


def test_a_checkpoint_that_is_corrupt_newer_or_of_another_trial_is_named_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "it", "it")
    checkpoint.write(Frozen({"best/0": torch.zeros(3)}, {}))
    with pytest.raises(StoreError, match="belongs to another trial"):
        Checkpoint(tmp_path / "it", "other").read()
    monkeypatch.setattr("elicitable.training.checkpoint.VERSION", 0)
    with pytest.raises(StoreError, match="checkpoint version 1, this elicitable reads 0"):
        checkpoint.read()
    before = (tmp_path / "it").read_bytes()[:20]
    (tmp_path / "it").write_bytes(before)
    with pytest.raises(StoreError, match="cannot be read"):
        checkpoint.read()
    assert (tmp_path / "it").read_bytes() == before


def test_a_checkpoint_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot write the checkpoint"):
        Checkpoint(tmp_path / "file" / "it", "it").write(Frozen({"a": torch.zeros(1)}, {}))


@pytest.mark.parametrize("legs", [(32, 64, 120), (7, 40, 41, 120), (120,)])
@pytest.mark.parametrize("method", ["kv-prefix", "full"])
def test_a_run_in_legs_takes_the_steps_of_one_run(digits_model: Build, method: str, legs: tuple[int, ...]) -> None:
    model, plan = digits_model(8, torch.float32), replace(PLAN, cooldown=0.0)
    whole = method_named(method).build(model, 2, 0)
    one = train(model, whole, Successor(), plan, 1, keeps_end=True)
    end = None
    for steps in legs:
        part = method_named(method).build(model, 2, 0)
        fit = train(model, part, Successor(), replace(plan, steps=steps), 1, start=end, keeps_end=True)
        end = fit.end
    assert end is not None
    assert one.end is not None
    assert end.plain["generators"] == one.end.plain["generators"]
    names = [name for name in one.end.tensors if not name.startswith("best/")]  # a leg looks once more, at its end
    assert all(torch.equal(one.end.tensors[name], end.tensors[name]) for name in names)


def test_a_run_that_goes_on_comes_down_from_where_it_was(digits_model: Build) -> None:
    model, kv = digits_model(8, torch.float32), method_named("kv-prefix")
    plan = replace(PLAN, steps=40, cooldown=0.25, evaluate_every=40)
    straight = kv.build(model, 2, 0)
    one = train(model, straight, Successor(), plan, 1)
    half = train(model, kv.build(model, 2, 0), Successor(), replace(plan, steps=30, cooldown=0.0), 1, keeps_end=True)
    other = kv.build(model, 2, 0)
    two = train(model, other, Successor(), plan, 1, start=half.end)
    assert (one.steps, two.steps) == (40, 40)
    assert one.best == two.latest
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), other.parameters(), strict=True))
    down = train(model, kv.build(model, 2, 0), Successor(), plan, 1, keeps_end=True)
    with pytest.raises(InputError, match="come down along the cosine cannot go on"):
        train(model, kv.build(model, 2, 0), Successor(), replace(plan, steps=60), 1, start=down.end)


def test_a_state_on_the_processor_stays_as_it_is() -> None:
    state = Frozen({"adaptation/0": torch.ones(3), "best/0": torch.ones(2, dtype=torch.float64)}, {"steps": 2})
    assert state.bytes == 3 * 4 + 2 * 8
    assert state.put_by() is state


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("free", "device"), [(8 * 12, "cuda"), (8 * 12 - 1, "cpu")])
def test_a_state_leaves_a_gpu_that_has_little_room(monkeypatch: pytest.MonkeyPatch, free: int, device: str) -> None:
    monkeypatch.setattr(checkpoint, "free_bytes", lambda device: free)
    state = Frozen({"adaptation/0": torch.ones(3, device="cuda")}, {"steps": 2})
    assert state.put_by().tensors["adaptation/0"].device.type == device
