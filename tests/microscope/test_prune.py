"""Pruning: it drops what does nothing, keeps what matters, and never loses more than the margin."""

from __future__ import annotations

import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.microscope.prune import ablate, pair_use, prune, without_heads
from elicitable.models.architectures import tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.models.prefixes import drop_layers, keep_pairs, keep_tokens
from elicitable.values import PrefixKV

IDS = torch.tensor([[12, 40, 5, 6, 33, 9, 8, 2], [8, 17, 3, 44, 20, 61, 7, 11]])


@pytest.fixture
def model() -> Model:
    return Model(tiny_model("llama"))


def idle_prefix(model: Model, busy: tuple[int, ...], length: int) -> PrefixKV:
    """Free keys and values; tokens that are not ``busy`` have values of zero and keys that no query looks for."""
    g = torch.Generator().manual_seed(0)
    keys, values = [], []
    for facts in model.anatomy.layers:
        key = torch.zeros(1, facts.kv_heads, length, facts.d_head, dtype=torch.float64)
        value = torch.zeros(1, facts.kv_heads, length, facts.d_value, dtype=torch.float64)
        for token in busy:
            value[:, :, token] = 5 * torch.randn(1, facts.kv_heads, facts.d_value, generator=g, dtype=torch.float64)
        keys.append(key)
        values.append(value)
    return PrefixKV(tuple(keys), tuple(values), positions=torch.arange(-length, 0)[None], shift=length)


@torch.no_grad()
def test_prune_keeps_the_tokens_that_the_score_needs(model: Model) -> None:
    prefix = idle_prefix(model, busy=(3, 11), length=20)
    target = {}
    with el.use(model, prefix):
        target["answer"] = model(IDS).logits.argmax(-1)

    def agreement(context: PrefixKV) -> float:
        with el.use(model, context):
            return float((model(IDS).logits.argmax(-1) == target["answer"]).double().mean())

    smaller, done = prune(model, prefix, agreement, [{"input_ids": IDS}], margin=0.5)
    assert done.score_before == 1.0
    assert done.score_after >= 0.5
    assert done.score_after == agreement(smaller)
    assert set(done.kept) | set(done.dropped) == set(range(20))
    assert done.numbers_after == done.numbers_before * done.pairs_after // done.pairs_before
    assert done.saved == pytest.approx(1 - done.pairs_after / (2 * 2 * 20))
    assert done.tried[0] == (2 * 2 * 20, 1.0)
    assert smaller.shift == 20  # the content stays where it was
    use = pair_use(model, prefix, [{"input_ids": IDS}])
    assert use.shape == (2, 2, 20)
    assert (use > 0).any(dim=(0, 1)).nonzero()[:, 0].tolist() == [3, 11]


def test_prune_drops_all_but_one_where_nothing_matters_and_nothing_where_all_does(model: Model) -> None:
    prefix = idle_prefix(model, busy=(0,), length=6)
    _, done = prune(model, prefix, lambda context: 1.0, [{"input_ids": IDS}])
    assert done.kept == (0,)
    _, done = prune(model, prefix, lambda context: _length(context) / 6, [{"input_ids": IDS}])
    assert done.dropped == ()
    assert done.score_after == done.score_before == 1.0


def test_prune_finds_a_single_token_behind_one_that_matters(model: Model) -> None:
    """A search stops at the first token that matters; the next goes on behind it."""
    prefix = idle_prefix(model, busy=(0, 1), length=6)
    order = pair_use(model, prefix, [{"input_ids": IDS}]).sum(dim=(0, 1)).argsort().tolist()
    needed = order[2]

    def score(context: PrefixKV) -> float:
        kept = context.keys[0]
        assert kept is not None
        return float(any(torch.equal(v, prefix.values[0][0, 0, needed]) for v in context.values[0][0, 0]))  # type: ignore[index]

    marked = tuple(v + torch.arange(6)[None, None, :, None] * 1e-9 for v in prefix.values if v is not None)
    prefix = PrefixKV(prefix.keys, marked, prefix.positions, shift=6)
    _, done = prune(model, prefix, score, [{"input_ids": IDS}], margin=0.0, whole_tokens=True)
    assert done.kept == (needed,)
    assert done.silent == ()


@torch.no_grad()
def test_prune_finds_the_head_and_the_pairs_that_matter(model: Model) -> None:
    prefix = idle_prefix(model, busy=(0, 1, 2), length=4)
    needed = torch.zeros(2, 2, 4, dtype=torch.bool)
    needed[1, 0, :2] = needed[0, 1, 1] = True

    def score(context: PrefixKV) -> float:
        """The share of the needed pairs whose values are still seen by their head."""
        there = 0
        for layer, head, token in needed.nonzero().tolist():
            value, kept = context.values[layer], None if context.kept is None else context.kept[layer]
            assert value is not None
            same = (value[0, head] == prefix.values[layer][0, head, token]).all(dim=-1)  # type: ignore[index]
            there += int((same if kept is None else same & kept[head]).any())
        return there / 3

    smaller, done = prune(model, prefix, score, [{"input_ids": IDS}], margin=0.0)
    assert (done.kept, done.dropped) == ((0, 1), (2, 3))
    assert set(done.silent) == {(0, 0), (1, 1)}
    assert (done.pairs_before, done.pairs_after, done.heads) == (16, 3, 4)
    assert smaller.kept is not None
    assert torch.equal(torch.stack([mask for mask in smaller.kept if mask is not None]), needed[:, :, :2])


@torch.no_grad()
def test_steps_that_fit_the_search_alone_are_taken_back(model: Model) -> None:
    prefix = idle_prefix(model, busy=(0,), length=6)
    batches = [{"input_ids": IDS}]
    _, done = prune(model, prefix, lambda context: 1.0, batches, confirm=lambda context: float(_length(context) > 3))
    assert len(done.kept) > 3
    assert done.score_after == 1.0
    _, done = prune(model, prefix, lambda context: 1.0, batches, confirm=lambda context: _length(context) / 6)
    assert (done.dropped, done.pairs_after, done.score_after) == ((), done.pairs_before, 1.0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "mpt", "gpt2", "deepseek_v3"])
@torch.no_grad()
def test_a_head_that_lost_a_token_attends_as_if_it_had_never_been(name: str) -> None:
    """Both identities hold, and one head's mask is the same as that head's own shorter context."""
    model = Model(tiny_model(name))
    context = capture_tokens(model, torch.tensor([[7, 9, 4]]))
    heads = max(at.kv_heads for at in model.anatomy.layers)
    kept = torch.ones(2, heads, 3, dtype=torch.bool)
    kept[0, 0, 1] = kept[1, -1, :2] = False
    with el.watch(model, keep_pairs(context, kept)) as scope:
        model(IDS)
    assert scope.attention_residual.max() < 1e-12
    assert scope.output_residual.max() < 1e-12
    group = model.anatomy.layers[0].heads // heads
    assert scope.position_mass[0, :group, 1].max() == 0
    assert scope.position_mass[1, -group:, :2].max() == 0
    assert (scope.position_mass[0, group:] > 0).all()
    with el.watch(model, keep_tokens(context, [0, 2])) as shorter:
        model(IDS)
    assert torch.allclose(scope.prefix_mass[0, :group], shorter.prefix_mass[0, :group], atol=1e-12)


def _length(context: PrefixKV) -> int:
    assert context.keys[0] is not None
    return context.keys[0].shape[2]


@torch.no_grad()
def test_kept_tokens_stay_or_move_together_with_the_content(model: Model) -> None:
    prefix = idle_prefix(model, busy=(0, 1), length=6)
    smaller = keep_tokens(prefix, [1, 4])
    assert smaller.shift == 6
    assert smaller.positions is not None
    assert smaller.positions.tolist() == [[-5, -2]]
    smaller = keep_tokens(prefix, [1, 4], moves=True)
    assert smaller.shift == 2
    assert smaller.positions is not None
    assert smaller.positions.tolist() == [[-2, -1]]
    assert torch.equal(smaller.values[1], prefix.values[1][:, :, [1, 4]])  # type: ignore[index, arg-type]


@torch.no_grad()
def test_a_left_out_head_has_no_prefix_mass_and_the_others_all_of_theirs(model: Model) -> None:
    context = capture_tokens(model, torch.tensor([[7, 9, 4]]))
    with el.use(model, context):
        joint = model(IDS).logits
        with without_heads(model, [(1, h) for h in range(4)]):
            layer_gone = model(IDS).logits
        with without_heads(model, [(layer, h) for layer in range(2) for h in range(4)]):
            all_gone = model(IDS).logits
        assert torch.equal(model(IDS).logits, joint)
    with el.use(model, drop_layers(context, [1])):
        # the same attention by two ways: one softmax without the keys, or the content's own
        assert (model(IDS).logits - layer_gone).abs().max() < 1e-9
    assert (model(IDS).logits - all_gone).abs().max() < 1e-9
    assert (joint - layer_gone).abs().max() > 1e-3


@torch.no_grad()
def test_ablations_are_measured(model: Model) -> None:
    context = capture_tokens(model, torch.tensor([[7, 9, 4]]))

    def score(prefix: PrefixKV) -> float:
        with el.use(model, prefix):
            return float(model(IDS, labels=IDS).loss)

    found = ablate(model, context, score, tokens=[(0, 0), (2, 2)], layers=[(0, 0), (0, 1)], heads=[(1, 3)])
    assert [row.what for row in found] == ["token 0", "token 2", "layer 0", "layers 0–1", "layer 1 head 3"]
    assert found[3].score == pytest.approx(float(model(IDS, labels=IDS).loss))
    assert all(row.lost == pytest.approx(score(context) - row.score) for row in found)


def test_prune_says_what_it_needs(model: Model) -> None:
    prefix = idle_prefix(model, busy=(0,), length=2)
    batch = [{"input_ids": IDS}]
    for given, batches, margin, words in (
        (prefix, [], 0.0, "at least one batch"),
        (prefix, batch, -1.0, "a margin of 0 or more, got -1.0"),
        (keep_tokens(prefix, [0]), batch, 0.0, "at least two tokens, got 1"),
    ):
        with pytest.raises(InputError, match=f"prune needs .*{words}"):
            prune(model, given, lambda context: 1.0, batches, margin=margin)
