"""Weight methods of PEFT as arms: sized by counting, trained by the ordinary loop, written as PEFT's folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import elicitable as el
from elicitable.errors import BudgetError, InputError, UnknownNameError
from elicitable.methods import rungs
from elicitable.methods.adapter import read_adapter
from elicitable.methods.catalog import method_named
from elicitable.testing import check_method

from .conftest import fresh_model
from .test_peft_weights import reloaded

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
KINDS = ("ia3", "dora", "vera", "fourierft")


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_every_promise_of_a_method(kind: str) -> None:
    ran = check_method(method_named(f"peft:{kind}"), fresh_model("llama"), size=2)
    assert "check_the_budget_is_used_up_and_never_passed" in ran


@pytest.mark.parametrize("kind", [*KINDS, "lokr", "c3a", "gralora", "adalora", "ln_tuning"])
def test_the_largest_size_that_fits_is_found_by_counting(kind: str) -> None:
    model, method = fresh_model("llama"), method_named(f"peft:{kind}")
    sized = method.fitting(model, 2000)
    assert 0 < sized.numbers <= 2000
    built = method.build(model, sized.size, 0)
    assert sum(p.numel() for p in built.parameters()) == sized.numbers
    if method.has_size:
        more = method.numbers(model, sized.size + 1)
        assert more > 2000 or more == sized.numbers  # LoKr is a whole matrix from some rank on
    with pytest.raises(BudgetError, match=f"too small for peft:{kind}"):
        method.fitting(model, method.numbers(model, 1) - 1)


def test_names_are_known_or_refused_with_near_matches_and_reasons() -> None:
    assert method_named("peft:ia3").identity == "peft:ia3"
    assert method_named("peft:dora").rung is rungs.WEIGHTS
    with pytest.raises(UnknownNameError, match="peft:vera"):
        method_named("peft:vara")
    with pytest.raises(UnknownNameError):
        method_named("peft:prefix_tuning")
    with pytest.raises(InputError, match="its router averages over all tokens"):
        method_named("peft:lily")
    with pytest.raises(InputError, match=r"peft:c3a of size 1 into gpt2: .*nothing"):
        method_named("peft:c3a").build(fresh_model("gpt2"), 1, 0, modules=["nothing"])


def test_it_is_tuned_and_read_by_peft(tmp_path: Path) -> None:
    model = el.load("toy:ascending", dtype="float32")
    tuned = el.tune(
        model, "ascending", method="peft:ia3", learning_rate=0.1, steps=5, test_items=8, out=tmp_path / "ia3"
    )
    assert tuned.record["method"] == "peft:ia3"
    ids = torch.tensor([[3, 1, 2, 5]])
    with torch.no_grad(), el.use(model, tuned.adaptation):
        wanted = model(input_ids=ids).logits
    with torch.no_grad(), el.use(model, read_adapter(model, tmp_path / "ia3")):
        assert torch.equal(model(input_ids=ids).logits, wanted)
    # another kernel of attention, which sums in another order
    assert float((reloaded(model.hf, tmp_path / "ia3", ids) - wanted).abs().max()) < 1e-3
    with torch.no_grad():
        assert not torch.equal(model(input_ids=ids).logits, wanted)


def test_it_runs_in_a_race_on_the_rung_of_weights() -> None:
    answer = el.verdict(
        "toy:ascending",
        "ascending",
        methods=["zero-shot", "peft:ia3"],
        budget=4000,
        steps=3,
        seeds=1,
        test_items=32,
    )
    assert [(arm.method, arm.status) for arm in answer.arms[1:]] == [("peft:ia3", "ok")]
    assert {arm.rung for arm in answer.arms[1:]} == {rungs.WEIGHTS}
