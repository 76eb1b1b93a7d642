"""What one change of weights can do: the two identities in float64, and shareability where its value is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import elicitable as el
from elicitable.attention.odds import log_odds, odds_residual, part_of
from elicitable.attention.operands import Operands
from elicitable.attention.split import split
from elicitable.microscope.shareability import shareability, token_residual
from elicitable.models import replay
from elicitable.models.architectures import tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.models.replay import replaying
from elicitable.models.sites import sites_of
from elicitable.rng import torch_generator
from elicitable.values import PrefixKV

PROMPT = torch.tensor([[7, 9, 4, 11, 30]])
IDS, MASK = torch.tensor([[12, 40, 5, 6], [0, 8, 17, 3]]), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_generator(seed, "shareability"), dtype=torch.float64)


def operands() -> Operands:
    return Operands(
        drawn(2, 4, 3, 8), drawn(2, 2, 3, 8, seed=1), drawn(2, 2, 3, 8, seed=2),
        prefix_key=drawn(2, 2, 7, 8, seed=3), prefix_value=drawn(2, 2, 7, 8, seed=4),
    )  # fmt: skip


def test_odds_of_attention_add_over_contexts() -> None:
    call = operands()
    assert odds_residual(call).max() < 1e-13
    mass, rest = split(call).mass, split(call).content_mass
    assert (log_odds(call) - (mass.log() - rest.log())).abs().max() < 1e-13
    parts = [log_odds(part_of(call, first, end)).exp() for first, end in ((0, 2), (2, 5), (5, 7))]
    whole = log_odds(call).exp()
    assert ((sum(parts) - whole) / whole).abs().max() < 1e-13
    masses = [split(part_of(call, first, end)).mass for first, end in ((0, 3), (3, 7))]
    assert (sum(masses) - mass).abs().max() > 1e-2  # attention itself does not add


def test_odds_that_do_not_add_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from elicitable.attention import odds

    own = odds.part_of
    monkeypatch.setattr(odds, "part_of", lambda call, first, end: own(call, max(first - 1, 0), end))  # one key twice
    assert odds_residual(operands()).max() > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma", "phi", "opt", "granite", "phi3"])
def test_for_one_token_a_context_is_a_change_of_rank_one_in_every_matrix(name: str) -> None:
    model = Model(tiny_model(name))
    for one in shareability(model, capture_tokens(model, PROMPT), [(IDS, MASK)]):
        assert one.token_residual is not None
        # norms are computed in float32 by all but GPT-2, Phi and OPT; the same norm of the same input, so it cancels
        assert one.token_residual < 1e-12
        assert max(one.odds_residual) < 1e-12


def test_a_rank_one_change_along_another_direction_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from elicitable.microscope import shareability as room

    model = Model(tiny_model("llama"))
    own = room._rank_one
    monkeypatch.setattr(room, "_rank_one", lambda moved, read: own(moved, read + 0.1))
    with torch.no_grad(), replaying(model) as player:
        tapes = player.record(IDS, MASK, capture_tokens(model, PROMPT)), player.record(IDS, MASK)
        found = token_residual(model, player, *tapes, 0, tapes[0].first, sites_of(model)[0])
    assert found is not None
    assert found > 1e-3


def test_behind_a_norm_there_is_no_such_change_and_none_is_claimed() -> None:
    model = Model(tiny_model("gemma2"))
    found = shareability(model, capture_tokens(model, PROMPT), [(IDS, MASK)])
    assert all(one.token_residual is None and one.shareability is None for one in found)
    assert all(max(one.odds_residual) < 1e-12 for one in found)


def test_a_context_that_adds_the_same_to_every_token_is_shared_by_all_and_one_that_differs_is_not() -> None:
    """Keys of zero and one value: every head's change is α(v − t), with α the same wherever as many keys are seen."""
    model = el.load("toy:mixed", dtype="float64")
    ids = torch.randint(8, (24, 1), generator=torch_generator(0, "ids"))  # one token a text: its own key has logit q·k
    layers = model.anatomy.layers
    heavy = [torch.zeros(1, at.kv_heads, 400, at.d_head, dtype=torch.float64) for at in layers]
    value = [drawn(1, at.kv_heads, 1, at.d_value, seed=i).expand(-1, -1, 400, -1) for i, at in enumerate(layers)]
    same = PrefixKV(tuple(heavy), tuple(value))
    alike = shareability(model, same, [(ids, torch.ones_like(ids))])
    texts = torch.randint(8, (24, 10), generator=torch_generator(1, "ids"))
    other = shareability(model, capture_tokens(model, torch.tensor([[3, 1, 2, 7]])), [(texts, torch.ones_like(texts))])
    shares = [[one.shareability for one in found] for found in (alike, other)]
    assert min(shares[0]) > 0.95
    assert max(shares[1]) < min(shares[0])
    assert all(-5 < share <= 1 for one in other for share in (*one.heads, one.shareability))


def test_no_row_is_measured_on_that_was_fitted_to_whatever_the_batches() -> None:
    """A batch of one row was halved by its tokens: the same text was fitted to and measured on."""
    model = el.load("toy:mixed", dtype="float64")
    prefix = capture_tokens(model, torch.tensor([[3, 1, 2, 7]]))
    ids = torch.randint(8, (5, 10), generator=torch_generator(1, "ids"))
    whole, single, ragged = (
        shareability(model, prefix, [(part, torch.ones_like(part)) for part in ids.split(size)]) for size in (5, 1, 2)
    )
    for one, *others in zip(whole, single, ragged, strict=True):
        for other in others:
            assert one.shareability == pytest.approx(other.shareability, abs=1e-6)
            assert one.heads == pytest.approx(other.heads, abs=1e-6)
        assert not one.by_token
    assert all(one.by_token for one in shareability(model, prefix, [(ids[:1], torch.ones_like(ids[:1]))]))


def test_a_stream_that_is_changed_between_blocks_is_refused_by_name() -> None:
    from elicitable.errors import UnsupportedModelError

    model = Model(tiny_model("llama"))
    _ = model.anatomy
    handle = model.anatomy.blocks[1].register_forward_pre_hook(lambda module, args: (args[0] + 1, *args[1:]))
    try:
        with (
            torch.no_grad(),
            replaying(model) as player,
            pytest.raises(UnsupportedModelError, match="between its blocks"),
        ):
            player.record(IDS, MASK)
    finally:
        handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3_text", "bloom", "mpt", "falcon"])
def test_replayed_blocks_give_what_the_whole_model_gives(name: str) -> None:
    model = Model(tiny_model(name))
    prefix = capture_tokens(model, PROMPT)
    seen: list[torch.Tensor] = []
    with replaying(model) as player, replay.seeing(model.anatomy.blocks[-1]) as last:
        tape = player.record(IDS, MASK, prefix)
        whole = last.output[0] if isinstance(last.output, tuple) else last.output
        hidden = tape.first
        for layer in range(model.anatomy.depth):
            seen.append(hidden)
            hidden = player.run(tape, layer, hidden)
        assert (hidden - whole)[MASK.bool()].abs().max() < 1e-12
        plain = replace(tape, prefix=None)
        assert (player.run(plain, 0, tape.first) - seen[1])[MASK.bool()].abs().max() > 1e-3
