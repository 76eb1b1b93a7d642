"""Distillation: what is kept of the context's logits is what is computed, and looks do not change the run."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

import elicitable as el
from elicitable.compiling import distil as distilling
from elicitable.compiling import fidelity
from elicitable.compiling.distil import Distilling, distil, weighted_divergence
from elicitable.compiling.fidelity import NOTHING, Teacher, divergence
from elicitable.compiling.pairs import PairBatch, batches_of, pairs_of_texts
from elicitable.compiling.patch import Patch, fresh
from elicitable.models.architectures import tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.models.sites import sites_of
from elicitable.models.speed.checkpointing import switch_on
from elicitable.rng import torch_generator

PROMPT = torch.tensor([[3, 17, 4, 9]])
PLAN = Distilling(9, 3e-3, looks=3)


def made(name: str) -> tuple[Model, Teacher, list[PairBatch]]:
    model = el.load(name) if name.startswith("toy") else Model(tiny_model(name).float())
    prompt = PROMPT % model.anatomy.vocab
    ids = torch.randint(8, (24, 9), generator=torch_generator(0, "texts")).tolist()
    with torch.no_grad():
        prefix = capture_tokens(model, prompt)
    return model, Teacher(model, prefix), batches_of(model, pairs_of_texts(model, NOTHING, ids), 6)


def trained(name: str) -> tuple[Patch, list[tuple[int, float]]]:
    model, teacher, batches = made(name)
    patch, told = fresh(model, sites_of(model), 4), []
    assert distil(teacher, patch, batches[:-1], batches[-1:], PLAN, lambda step, nats: told.append((step, nats))) == 9
    return patch, told


@pytest.mark.parametrize("name", ["toy:ascending", "llama", "gpt2"])
def test_logits_that_are_kept_are_those_that_would_be_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, told = trained(name)
    assert [step for step, _ in told] == [3, 6, 9]
    monkeypatch.setattr(fidelity, "KEPT", 0)
    computed, again = trained(name)
    assert told == again
    assert all(torch.equal(one, computed.state()[part]) for part, one in kept.state().items())
    assert told[-1][1] < told[0][1]


@pytest.mark.parametrize("name", ["toy:ascending", "llama", "gpt2"])
def test_the_frozen_model_computes_as_plainly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, told = trained(name)
    monkeypatch.setattr(distilling, "frozen_casts", lambda model: nullcontext())
    plain, again = trained(name)
    # sums of gradients in another order differ in float32's last digits, in bfloat16 by its own; Adam takes nine steps
    # of up to 3e-3 whatever a gradient's size, so only the divergence that comes of them is compared
    assert told[-1][1] == pytest.approx(again[-1][1], rel=0.02)
    assert quick.state().keys() == plain.state().keys()


@pytest.mark.parametrize("name", ["toy:mixed", "llama", "gpt2"])
def test_layers_that_are_run_again_keep_less_for_the_way_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilling, "frozen_casts", lambda model: nullcontext())  # they put other layers together
    kept, states = [], []
    for switch in (lambda *given: None, switch_on):
        model, teacher, batches = made(name)
        switch(model.hf, model.name)
        patch, sizes = fresh(model, sites_of(model), 4), []

        def note(saved: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(saved.numel() * saved.element_size())
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            distil(teacher, patch, batches[:1], batches[-1:], Distilling(1, 3e-3, looks=1))
        kept.append(sum(sizes))
        states.append(patch.state())
    assert kept[1] < 0.8 * kept[0]  # one of two layers keeps its input alone; weights and logits are kept in any case
    assert all(torch.equal(states[0][part], one) for part, one in states[1].items())


def test_a_teacher_is_asked_once_for_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, teacher, batches = made("llama")
    runs: list[int] = []
    model.hf.register_forward_pre_hook(lambda module, args: runs.append(1))
    first = [teacher(batch) for batch in batches]
    assert all(torch.equal(teacher(batch), one) for batch, one in zip(batches, first, strict=True))
    assert len(runs) == len(batches)
    with torch.autocast("cpu", torch.bfloat16):  # what products in bfloat16 give is kept apart
        assert not torch.equal(teacher(batches[0]), first[0])
    assert len(runs) == len(batches) + 1
    room = first[0].numel() * first[0].element_size()
    monkeypatch.setattr(fidelity, "KEPT", room)
    narrow = Teacher(model, teacher.context)
    runs.clear()
    for batch in [*batches[:2], *batches[:2]]:
        narrow(batch)
    assert len(runs) == 3  # the first batch has room, the second is run both times


def test_looks_do_not_change_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for looks in (1, 9):
        monkeypatch.setitem(globals(), "PLAN", replace(PLAN, looks=looks))
        ends.append(trained("toy:ascending")[1][-1])
    assert ends[0] == ends[1]


def test_a_gradient_that_is_no_number_ends_the_run_and_changes_nothing() -> None:
    model, teacher, batches = made("llama")
    patch = fresh(model, sites_of(model), 4)
    with torch.no_grad():
        patch.parameters()[-1].fill_(3e38)  # an output above the largest number
    before = patch.state()
    assert distil(teacher, patch, batches[:-1], batches[-1:], Distilling(9, 1e-3, looks=9)) == 0
    assert all(torch.equal(before[part], one) for part, one in patch.state().items())


@pytest.mark.parametrize("rows", [1, 7])
def test_the_weighted_divergence_and_its_gradient_are_the_definitions(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilling, "CACHED", 2 * 11)  # two rows at once
    taught, read = torch.randn(2, 3, rows, 11, generator=torch_generator(0, "logits"), dtype=torch.float64)
    weights = torch.rand(3, rows, generator=torch_generator(1, "weights"), dtype=torch.float64)
    weights[0] = 0  # padding
    read.requires_grad_()
    (weights * divergence(taught, read)).sum().backward()
    wanted, read.grad = read.grad, None
    loss = weighted_divergence(taught, read, weights)
    (3 * loss).backward()
    assert wanted is not None
    assert read.grad is not None
    assert torch.allclose(loss, (weights * divergence(taught, read)).sum(), rtol=1e-12)
    assert torch.allclose(read.grad, 3 * wanted, rtol=1e-11, atol=1e-15)
    assert torch.autograd.gradcheck(lambda x: weighted_divergence(taught, x, weights), [read])
    coarse = read.detach().bfloat16().requires_grad_()
    weighted_divergence(taught.bfloat16(), coarse, weights.float()).backward()
    assert coarse.grad is not None
    assert coarse.grad.dtype == torch.bfloat16
    assert torch.allclose(coarse.grad.double(), wanted, rtol=0.05, atol=1e-2)  # 2⁻⁸ of logits of up to 3
