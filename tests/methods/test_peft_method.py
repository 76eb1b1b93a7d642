"""Weight methods of PEFT as arms: sized by counting, trained by the ordinary loop, written as PEFT's folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.speed.steps import batch_of, one_step
from transformers import LlamaConfig, LlamaForCausalLM

import elicitable as el
from elicitable.errors import BudgetError, InputError, UnknownNameError
from elicitable.methods import rungs
from elicitable.methods.adapter import read_adapter
from elicitable.methods.catalog import method_named
from elicitable.methods.peft_config import weight_types
from elicitable.methods.peft_method import _NO_ARM, VARIANTS
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.models.speed import precision
from elicitable.testing import check_method

from .conftest import fresh_model
from .test_peft_weights import reloaded

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
KINDS = ("ia3", "dora", "vera", "fourierft")
# what the largest size of each trains in one layer of SmolLM2's shapes, of a budget of 6,912 numbers
LARGEST = {
    "boft": 5376,
    "c3a": 6912,
    "frod": 6912,
    "oft": 6336,
    "osf": 6150,
    "randlora": 6528,
    "road": 3072,
    "supertuning": 6909,
    "tinylora": 512,
    "unilora": 6912,
    "vblora": 6808,
}


@pytest.fixture(scope="module")
def layer() -> Model:
    """One layer of SmolLM2's shapes."""
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=64,
    )
    torch.manual_seed(0)
    return Model(LlamaForCausalLM(config).eval(), name="one layer")


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", sorted({*(one.lower() for one in weight_types()), *VARIANTS} - {*_NO_ARM}))
def test_it_takes_a_step_where_frozen_parts_are_replaced_or_is_refused(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: True)
    model = Model(tiny_model(name, dtype=torch.float32), name=name)
    try:
        method_named(f"peft:{kind}").build(model, 3, seed=1)
    except InputError:
        return  # PEFT cannot put it there
    logits, *gradients = one_step(model, f"peft:{kind}", batch_of(4, 9, 2))
    assert bool(logits.isfinite().all())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


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


@pytest.mark.parametrize("kind", LARGEST)
def test_what_has_no_rank_to_count_by_is_sized_all_the_same(kind: str, layer: Model) -> None:
    method = method_named(f"peft:{kind}")
    sized = method.fitting(layer, 6912)
    assert method.has_size
    assert sized.numbers == LARGEST[kind]
    counts = [method.numbers(layer, size) for size in (1, 2, 3)]
    assert counts == sorted(set(counts))
    with pytest.raises(BudgetError, match=f"smallest size of it that is built here trains {counts[0]:,} numbers"):
        method.fitting(layer, counts[0] - 1)


def test_the_subspaces_of_adamss_get_the_rank_that_fits(layer: Model) -> None:
    sized = method_named("peft:adamss").fitting(layer, 6912)  # how many there are of it hangs on how rows cluster
    assert sized.size == 4
    assert 6000 < sized.numbers <= 6912


@pytest.mark.parametrize("kind", sorted({*LARGEST, "adamss"} - {"road"}))  # whose three sizes fit any budget
def test_every_size_that_is_solved_for_keeps_the_promises(kind: str) -> None:
    check_method(method_named(f"peft:{kind}"), fresh_model("llama"), size=2)


def test_a_size_beyond_the_last_and_a_type_without_one_are_told() -> None:
    model = fresh_model("llama")
    with pytest.raises(InputError, match=r"peft:road of size 4 into llama: these layers have 3 sizes of it"):
        method_named("peft:road").build(model, 4)
    with pytest.raises(BudgetError, match=r"too small for peft:ia3 on llama: it has no size, and trains \d+ numbers"):
        method_named("peft:ia3").fitting(model, 1)


def test_what_fails_only_when_the_model_reads_is_refused_when_it_is_built() -> None:
    model = Model(tiny_model("gpt2", dtype=torch.float32), name="gpt2")
    with pytest.raises(InputError, match=r"PEFT cannot put peft:olora of size 2 into gpt2: .*cannot be multiplied"):
        method_named("peft:olora").build(model, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("prefix_tuning", "trained here as kv-prefix"),
        ("cartridge", "trained here as kv-prefix"),
        ("prompt_tuning", "trained here as soft-prompt"),
        ("p_tuning", "trained here as soft-prompt"),
        ("cpt", "trained here as soft-prompt"),
        ("xlora", "it mixes other adapters"),
        ("poly", "every row needs a task id"),
    ],
)
def test_types_that_are_no_arms_say_what_to_do(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"peft:{name} .*{said}") as caught:
        method_named(f"peft:{name}")
    assert not isinstance(caught.value, UnknownNameError)


def test_names_are_known_or_refused_with_near_matches_and_reasons() -> None:
    assert method_named("peft:ia3").identity == "peft:ia3"
    assert method_named("peft:dora").rung is rungs.WEIGHTS
    with pytest.raises(UnknownNameError, match="peft:vera"):
        method_named("peft:vara")
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
