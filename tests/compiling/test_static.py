"""A compiled context against what it must be: exact for one token, ridge and reduced rank against references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import elicitable as el
from elicitable.compiling.fidelity import NOTHING, Teacher, divergence, last_logits, likeness
from elicitable.compiling.pairs import batches_of, pairs_of_texts
from elicitable.compiling.static import Fitting, fit_patch
from elicitable.microscope.ridge import Change, Moments
from elicitable.models.architectures import ARCHITECTURES, architecture, tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.models.sites import sites_of
from elicitable.rng import torch_generator

PROMPT = torch.tensor([[7, 9, 4, 11, 30]])
# One row per kind of block: sequential, parallel, norms behind, scaled residuals, other names, ALiBi, Conv1D, capped.
BLOCKS = (
    "llama",
    "gpt2",
    "gemma",
    "gemma2",
    "qwen2",
    "qwen3",
    "phi",
    "olmo2",
    "minicpm3",
    "opt",
    "bloom",
    "mpt",
    "gpt_neox",
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "compiling"), dtype=torch.float64)


def moments_of(inputs: torch.Tensor, targets: torch.Tensor) -> Moments:
    moments = Moments(inputs.shape[1], targets.shape[1], inputs.device)
    half = len(inputs) // 2
    moments.add(inputs[:half], targets[:half])
    moments.add(inputs[half:], targets[half:])
    return moments


def test_the_ridge_is_the_least_squares_solution_of_the_widened_system() -> None:
    inputs, targets = drawn(40, 6), drawn(40, 3, seed=1)
    penalty = 0.3 * float(inputs.square().sum(0).mean())
    tall = np.vstack([inputs.numpy(), np.sqrt(penalty) * np.eye(6)])
    wanted = np.linalg.lstsq(tall, np.vstack([targets.numpy(), np.zeros((6, 3))]), rcond=None)[0].T
    found = moments_of(inputs, targets).ridge(0.3)
    assert np.abs(found.matrix.numpy() - wanted).max() < 1e-12  # sums of 40 products of size 1
    plain = np.linalg.lstsq(inputs.numpy(), targets.numpy(), rcond=None)[0].T
    assert np.abs(moments_of(inputs, targets).ridge(0.0).matrix.numpy() - plain).max() < 1e-12
    assert np.abs(found.matrix.numpy() - plain).max() > 1e-3


def test_products_of_float32_are_summed_in_float64() -> None:
    inputs, targets = drawn(400, 6).float(), drawn(400, 3, seed=1).float()
    narrow, wide = moments_of(inputs, targets), moments_of(inputs.double(), targets.double())
    assert torch.equal(narrow.gram, wide.gram)
    assert torch.equal(narrow.cross, wide.cross)
    assert torch.equal(narrow.square, wide.square)


def test_a_bias_is_that_of_the_regression_with_an_intercept() -> None:
    inputs, targets = drawn(40, 6) + 2, drawn(40, 3, seed=1) - 1
    found = moments_of(inputs, targets).ridge(0.0, has_bias=True)
    with_one = np.hstack([inputs.numpy(), np.ones((40, 1))])
    wanted = np.linalg.lstsq(with_one, targets.numpy(), rcond=None)[0].T
    assert found.bias is not None
    assert np.abs(found.matrix.numpy() - wanted[:, :6]).max() < 1e-11
    assert np.abs(found.bias.numpy() - wanted[:, 6]).max() < 1e-11
    left = targets - inputs @ found.matrix.T - found.bias
    assert moments_of(inputs, targets).unexplained(found) == pytest.approx(
        float(left.square().sum() / targets.square().sum())
    )


def test_a_token_that_counts_three_times_is_a_token_that_is_there_three_times() -> None:
    inputs, targets = drawn(10, 4), drawn(10, 3, seed=1)
    counts = torch.tensor([3.0, 1, 1, 2, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    weighed = Moments(4, 3, inputs.device)
    weighed.add(inputs, targets, counts)
    times = counts.long()
    repeated = moments_of(inputs.repeat_interleave(times, 0), targets.repeat_interleave(times, 0))
    one, other = (moments.ridge(0.1, has_bias=True) for moments in (weighed, repeated))
    assert one.bias is not None
    assert other.bias is not None
    assert torch.allclose(one.matrix, other.matrix, atol=1e-13)
    assert torch.allclose(one.bias, other.bias, atol=1e-13)
    assert weighed.unexplained(one) == pytest.approx(repeated.unexplained(other))


def objective(change: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, penalty: float) -> torch.Tensor:
    return (targets - inputs @ change.T).square().sum() + penalty * change.square().sum()


def test_of_all_changes_of_a_rank_the_one_in_the_metric_of_the_inputs_is_best() -> None:
    scales = torch.tensor([5.0, 2.0, 1.0, 0.5, 0.1, 0.02], dtype=torch.float64)
    inputs, targets = drawn(50, 6) * scales, drawn(50, 4, seed=1)
    strength, rank = 0.01, 2
    penalty = strength * float(inputs.square().sum(0).mean())
    moments = moments_of(inputs, targets)
    found = moments.ridge(strength, rank)
    assert found.up is not None
    assert found.up.shape == (4, rank)
    best = float(objective(found.matrix, inputs, targets, penalty))
    whole = moments.ridge(strength).matrix
    u, s, v = torch.linalg.svd(whole)
    plain = (u[:, :rank] * s[:rank]) @ v[:rank]
    assert best < float(objective(plain, inputs, targets, penalty)) - 1e-3  # truncating the matrix itself is worse
    for seed in range(3):  # descent over factors from anywhere finds nothing better
        up, down = drawn(4, rank, seed=seed + 2).requires_grad_(), drawn(rank, 6, seed=seed + 9).requires_grad_()
        search = torch.optim.LBFGS([up, down], max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-14)

        def closure() -> torch.Tensor:
            search.zero_grad()  # noqa: B023
            loss = objective(up @ down, inputs, targets, penalty)  # noqa: B023
            loss.backward()
            return loss

        search.step(closure)
        assert float(objective(up @ down, inputs, targets, penalty).detach()) > best - 1e-9
    assert float(objective(up @ down, inputs, targets, penalty).detach()) == pytest.approx(best, rel=1e-4)


def one_text(model: Model, ids: list[int]) -> list:
    return batches_of(model, pairs_of_texts(model, NOTHING, [ids]), 4)


@torch.no_grad()
@pytest.mark.parametrize("name", BLOCKS)
def test_for_one_token_a_context_is_a_change_of_rank_one(name: str) -> None:
    model = Model(tiny_model(name))
    prefix, batches = capture_tokens(model, PROMPT), one_text(model, [12])
    patch = fit_patch(model, prefix, batches, Fitting(0.0, rank=1))
    side = batches[0].read
    wanted = last_logits(model, prefix, side, 1)
    off = (last_logits(model, patch, side, 1) - wanted).abs().max()
    before = (last_logits(model, NOTHING, side, 1) - wanted).abs().max()
    # float64 throughout in GPT-2, OPT, BLOOM and MPT; norms and angles in float32 in the others
    exact = 1e-12 if name in ("gpt2", "opt", "bloom", "mpt", "gpt_neox") else 2e-6
    assert off < exact * wanted.abs().max()
    assert before > 1e-2 * wanted.abs().max()


@torch.no_grad()
def test_a_patch_leaves_the_model_as_it_was_and_its_merged_weights_do_the_same() -> None:
    for name in ("gpt2", "llama"):
        model = Model(tiny_model(name))
        prefix, batches = capture_tokens(model, PROMPT), one_text(model, [12, 40, 5, 6, 33, 9])
        weights = {key: value.clone() for key, value in model.hf.state_dict().items()}
        patch = fit_patch(model, prefix, batches, Fitting(1e-3, has_biases=True))
        assert ("bias" in next(iter(patch.numbers.values()))) == (name == "gpt2")
        side = batches[0].read
        added = last_logits(model, patch, side, 6)
        with patch.merged(model):
            merged = last_logits(model, NOTHING, side, 6)
        assert (added - merged).abs().max() < 1e-6 * added.abs().max()
        assert all(torch.equal(weights[key], value) for key, value in model.hf.state_dict().items())
        assert (last_logits(model, NOTHING, side, 6) - added).abs().max() > 1e-2


@torch.no_grad()
def test_many_texts_share_one_patch_and_dealt_targets_do_not() -> None:
    model = el.load("toy:ascending", dtype="float64")
    prefix = capture_tokens(model, torch.tensor([[7, 0, 3, 5, 1, 2]]))
    ids = torch.randint(8, (60, 9), generator=torch_generator(0, "texts")).tolist()
    told, unseen = (batches_of(model, pairs_of_texts(model, NOTHING, part), 16) for part in (ids[:48], ids[48:]))
    patch = fit_patch(model, prefix, told, Fitting(1e-2))
    low = fit_patch(model, prefix, told, Fitting(1e-2, rank=4))
    control = fit_patch(model, prefix, told, Fitting(1e-2, shuffle=0))
    teacher = Teacher(model, prefix)
    kl = [likeness(teacher, one, unseen).kl_nats for one in (patch, low, control, NOTHING)]
    assert kl[0] < kl[1] < min(kl[2], kl[3])
    assert kl[0] < 0.2 * min(kl[2], kl[3])


def test_rows_of_different_length_are_compared_at_their_own_tokens() -> None:
    model = Model(tiny_model("llama"))
    prefix = capture_tokens(model, PROMPT)
    texts = [[12, 40, 5], [8, 17, 3, 44, 20, 61]]
    teacher = Teacher(model, prefix)
    alone = [likeness(teacher, NOTHING, one_text(model, ids)) for ids in texts]
    together = likeness(teacher, NOTHING, batches_of(model, pairs_of_texts(model, NOTHING, texts), 4))
    assert together.kl_nats == pytest.approx((3 * alone[0].kl_nats + 6 * alone[1].kl_nats) / 9, rel=1e-5)


@pytest.mark.parametrize("name", [row.name for row in ARCHITECTURES if row.state == "exact"][::4])
def test_every_architecture_is_patched_where_it_writes_to_its_stream(name: str) -> None:
    """Sites are found by a run; what a mixture of experts lacks is left alone, never guessed."""
    model = Model(tiny_model(name))
    for block in sites_of(model):
        for site in block.all():
            assert model.hf.get_submodule(site.name) is site.module
            assert site.shape[0] == model.anatomy.d_model
    has_down = all(block.down is not None for block in sites_of(model))
    assert has_down or "MoE" in architecture(name).traits


def test_the_divergence_is_that_of_the_distributions() -> None:
    taught, read = drawn(3, 5), drawn(3, 5, seed=1)
    p, q = taught.softmax(-1), read.softmax(-1)
    assert torch.allclose(divergence(taught, read), (p * (p / q).log()).sum(-1))


def test_a_change_of_full_rank_written_as_factors_is_itself() -> None:
    for outputs, inputs in ((3, 6), (6, 3)):
        moments = moments_of(drawn(30, inputs), drawn(30, outputs, seed=1))
        whole, padded = moments.ridge(0.1), moments.ridge(0.1, rank=8)
        assert isinstance(padded, Change)
        assert padded.down.shape == (8, inputs)
        assert torch.allclose(padded.matrix, whole.matrix)
