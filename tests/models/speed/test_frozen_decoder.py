"""The toys' decoder around frozen blocks: looked up below, cut above, and the decoder's own wherever more is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.speed.steps import batch_of, compare, is_bound, one_step, opened, plainly
from torch import Tensor, nn

from elicitable.models.model import Model
from elicitable.models.speed import frozen_decoder, products
from elicitable.models.speed.frozen_decoder import FrozenDecoder, frozen_blocks
from elicitable.models.speed.frozen_parts import keeping_parts
from elicitable.models.speed.read import reading_last
from elicitable.training.evaluate import answer_logits, token_losses

pytestmark = pytest.mark.usefixtures("fast")
IDS = torch.tensor([[1, 2, 3, 4, 0], [7, 7, 0, 9, 5]])


def test_the_first_block_is_looked_up_and_the_others_computed(
    toy: Model, counted: dict[str, int], alone: bool, fast: bool
) -> None:
    one_step(toy, "kv-prefix", batch_of(4, 11, 5))
    looked_up = 0 if is_bound(alone, fast) else 1
    assert counted == {"blocks": 3, "before": 3 - looked_up, "looked up": looked_up}


def test_embeddings_that_were_given_are_not_looked_up(toy: Model, counted: dict[str, int]) -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    wte = toy.anatomy.decoder.wte

    def run() -> Tensor:
        wte(ids)  # somebody else's call, right before
        logits: Tensor = toy.hf(inputs_embeds=2.0 * wte(ids), use_cache=False).logits
        return logits

    compare(toy, run)
    assert counted == {"blocks": 3, "before": 3, "looked up": 0}


def test_token_types_are_not_looked_up(toy: Model, counted: dict[str, int]) -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    compare(toy, lambda: toy.hf(input_ids=ids, token_type_ids=ids.flip(1), use_cache=False).logits)
    assert counted["looked up"] == 0


def test_embeddings_or_residuals_that_a_hook_changed_are_not_looked_up(
    toy: Model, counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    hook = toy.anatomy.decoder.wte.register_forward_hook(lambda module, args, output: output + 1.0)
    compare(toy, lambda: toy.hf(input_ids=ids, use_cache=False).logits)
    hook.remove()
    block = toy.anatomy.blocks[0]
    hook = block.register_forward_pre_hook(lambda module, args: (args[0] * 2.0, *args[1:]))
    compare(toy, lambda: toy.hf(input_ids=ids, use_cache=False).logits)
    hook.remove()
    assert counted["looked up"] == 0
    compare(toy, lambda: toy.hf(input_ids=ids, use_cache=False).logits)
    monkeypatch.setattr(products, "rows_stand_alone", lambda *shape: True)
    before = counted["looked up"]
    with opened(toy):
        toy.hf(input_ids=ids, use_cache=False)
    assert counted["looked up"] == before + 1


def test_a_large_vocabulary_has_no_table(toy: Model, monkeypatch: pytest.MonkeyPatch, counted: dict[str, int]) -> None:
    monkeypatch.setattr(frozen_decoder, "LARGEST_TABLE", 10 * 83 - 1)
    one_step(toy, "kv-prefix", batch_of(4, 11, 5))
    assert counted == {"blocks": 3, "before": 3, "looked up": 0}


def test_at_an_offset_too(toy: Model) -> None:
    batch = batch_of(4, 11, 5)
    ours = one_step(toy, "kv-prefix", batch, offset=9)
    with plainly():
        plain = one_step(toy, "kv-prefix", batch, offset=9)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    assert not torch.equal(ours[0], one_step(toy, "kv-prefix", batch)[0])  # positions matter to this toy


def equal(ours: list[Tensor], plain: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@pytest.fixture
def normed(toy: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens the last norm was given."""
    norm, tokens = toy.anatomy.decoder.ln_f, list[int]()

    def noting(x: Tensor) -> Tensor:
        tokens.append(x.shape[1])
        return nn.LayerNorm.forward(norm, x)

    monkeypatch.setattr(norm, "forward", noting)
    return tokens


def test_above_the_last_block_only_what_is_read_is_computed(toy: Model, normed: list[int]) -> None:
    one_step(toy, "kv-prefix", batch_of(4, 11, 4))
    assert normed[-1] == 4
    one_step(toy, "kv-prefix", batch_of(4, 11, 11))
    assert normed[-1] == 11
    with opened(toy):
        toy.hf(input_ids=IDS, use_cache=False)  # nobody said what is read
    assert normed[-1] == 5


@pytest.mark.parametrize("part", ["block", "norm"])
def test_a_hook_above_sees_every_position(toy: Model, normed: list[int], part: str) -> None:
    batch, seen = batch_of(4, 11, 4), list[int]()
    module = toy.anatomy.blocks[-1] if part == "block" else toy.anatomy.decoder.ln_f

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(output.shape[1])
        return output + torch.arange(output.shape[1])[:, None] / 8  # by the position in the whole row

    handle = module.register_forward_hook(hook)
    ours = one_step(toy, "kv-prefix", batch)
    with plainly():
        plain = one_step(toy, "kv-prefix", batch)
    handle.remove()
    assert equal(ours, plain)
    assert seen == normed
    assert seen[1::2] == [11, 11]  # beside the three tokens that each prefix starts from


@pytest.mark.parametrize("trained", ["ln_f", "wte", "first", "last"])
def test_what_is_trained_in_or_around_the_blocks_gets_the_plain_gradient(toy: Model, trained: str) -> None:
    decoder, batch = toy.anatomy.decoder, batch_of(4, 11, 4)
    part = {"first": decoder.h[0], "last": decoder.h[-1]}.get(trained) or getattr(decoder, trained)

    def step(is_ours: bool) -> list[Tensor]:
        toy.hf.zero_grad()
        with opened(toy, part):
            assert isinstance(decoder.forward, FrozenDecoder) == is_ours
            logits = answer_logits(toy, batch)
        token_losses(logits, batch.targets).sum().backward()
        return [logits.detach(), *(weight.grad for weight in part.parameters() if weight.grad is not None)]

    ours = step(is_ours=True)
    with plainly():
        plain = step(is_ours=False)
    assert equal(ours, plain)
    assert len(ours) > 1


def test_positions_that_begin_anew_part_rows_as_they_always_do(toy: Model, counted: dict[str, int]) -> None:
    packed = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])

    def run() -> Tensor:
        logits: Tensor = toy.hf(input_ids=IDS, position_ids=packed, use_cache=False).logits
        return logits

    compare(toy, run)
    assert counted["blocks"] == 3
    with opened(toy):
        two = toy.hf(input_ids=IDS[:1, 3:], use_cache=False).logits
        torch.testing.assert_close(run()[:1, 3:], two)


def test_residuals_of_every_layer_are_the_decoders_own(toy: Model) -> None:
    def run() -> Tensor:
        return torch.stack(toy.hf(input_ids=IDS, use_cache=False, output_hidden_states=True).hidden_states)

    compare(toy, run)


@pytest.mark.parametrize("ids", [[[1, 10, 2]], [[1, -1, 2]]])
def test_a_token_outside_the_vocabulary_is_an_error_as_ever(toy: Model, ids: list[list[int]]) -> None:
    with opened(toy), pytest.raises(IndexError):
        toy.hf(input_ids=torch.tensor(ids), use_cache=False)


def test_a_position_outside_the_table_is_an_error_as_ever(toy: Model) -> None:
    with opened(toy), pytest.raises(IndexError):
        toy.hf(input_ids=IDS, position_ids=torch.arange(80, 85)[None], use_cache=False)


def test_the_decoder_is_as_it_was_afterwards(toy: Model) -> None:
    decoder = toy.anatomy.decoder
    with opened(toy):
        ours = decoder.forward
        assert isinstance(ours, FrozenDecoder)
        with frozen_blocks(toy, torch.float32):  # what is put together already is left alone
            assert decoder.forward is ours
        with reading_last(toy, 2), reading_last(toy, 3):
            assert ours.read == 3
        assert ours.read is None
        assert decoder.forward is ours
    assert "forward" not in vars(decoder)


def test_blocks_are_kept_with_what_is_laid_out_as_long_as_their_weights_stay(toy: Model) -> None:
    def put_together() -> list[Any]:
        with opened(toy):
            return [vars(block)["forward"] for block in toy.anatomy.blocks]

    assert not any(a is b for a, b in zip(put_together(), put_together(), strict=True))
    batch = batch_of(6, 11, 4)
    found = one_step(toy, "kv-prefix", batch)
    with keeping_parts(toy):
        first = put_together()
        again = one_step(toy, "kv-prefix", batch)
        assert all(a is b for a, b in zip(first, put_together(), strict=True))
        with torch.no_grad():
            toy.anatomy.blocks[1].mlp.c_fc.bias.add_(1)
        assert [a is b for a, b in zip(first, put_together(), strict=True)] == [True, False, True]
        changed = one_step(toy, "kv-prefix", batch)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    with plainly():
        plain = one_step(toy, "kv-prefix", batch)
    assert all(torch.equal(a, b) for a, b in zip(changed, plain, strict=True))
    assert not torch.equal(changed[0], found[0])
