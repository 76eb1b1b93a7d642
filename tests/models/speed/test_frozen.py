"""Frozen toy blocks in two operations: the bits of the plain blocks, in logits and gradients, and only where they fit.

In bfloat16 under autocast and in float32 without, on every kind of processor: where a promise needs an operation that
this processor lacks, or sums in an order that it does not keep, the other path runs and is held to the same bits. Where
float32 matrices are laid out, whichever processor does that by itself, the numbers are held to exact ones.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.models.speed.conftest import STAND_ALONE
from tests.models.speed.steps import batch_of, compare, is_bound, one_step, opened, plainly
from torch import Tensor, nn

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.attend import NAME
from elicitable.models.model import Model
from elicitable.models.speed import frozen, precision, processor, products
from elicitable.models.speed.frozen import FrozenBlock, is_frozen_block
from elicitable.models.speed.frozen_decoder import frozen_blocks

FROZEN = ["kv-prefix", "layer-prefix", "soft-prompt", "value-bias"]  # methods that leave all blocks as they are

pytestmark = pytest.mark.usefixtures("fast")


@pytest.mark.parametrize("method", FROZEN)
@pytest.mark.parametrize(("rows", "tokens", "read"), [(16, 19, 10), (5, 12, 3), (3, 7, 6), (2, 6, 6), (1, 9, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_logits_and_gradients_are_those_of_the_plain_blocks_bit_for_bit(
    toy: Model, counted: dict[str, int], method: str, rows: int, tokens: int, read: int, padded: bool
) -> None:
    batch = batch_of(rows, tokens, read, padded)
    ours = one_step(toy, method, batch)
    assert counted["blocks"] >= 3  # it was on
    with plainly():
        plain = one_step(toy, method, batch)
    assert len(ours) == len(plain) > 1
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    assert any(bool(gradient.abs().max() > 0) for gradient in ours[1:])


@pytest.mark.parametrize(("name", "layers"), [("toy:mixed", 4), ("toy:ascending", 1)])
def test_the_shipped_toys_too(counted: dict[str, int], name: str, layers: int) -> None:
    """The largest matrices that are put together: 1,024 inputs or outputs; and a block that is first and last."""
    toy, batch = el.load(name, device="cpu", dtype="float32"), batch_of(16, 19, 10)
    ours = one_step(toy, "kv-prefix", batch)
    assert counted["blocks"] == layers
    with plainly():
        plain = one_step(toy, "kv-prefix", batch)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize("fast", [False], indirect=True)
@pytest.mark.parametrize("method", FROZEN)
def test_float32_laid_out_is_as_near_to_the_exact_numbers_as_a_plain_block(
    toy: Model, monkeypatch: pytest.MonkeyPatch, counted: dict[str, int], method: str
) -> None:
    batch = batch_of(16, 19, 10)
    with plainly():
        plain = one_step(toy, method, batch)
    monkeypatch.setattr(products, "lays_out", processor.packs)
    ours = one_step(toy, method, batch)
    assert counted["blocks"] >= 3
    toy.hf.double()
    with plainly():
        exact = one_step(toy, method, batch)
    if not processor.packs(torch.float32):
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    for a, b, true in zip(ours, plain, exact, strict=True):
        # both add the same products in float32; in another order the sum's error is another one of the same size
        assert error(a, true) <= 2 * error(b, true)


def error(found: Tensor, exact: Tensor) -> float:
    """Root mean square of the differences."""
    return float((found.double() - exact).pow(2).mean().sqrt())


@pytest.mark.parametrize("is_last", [True, False])
def test_a_bias_is_added_last_only_where_the_bits_allow(
    toy: Model, monkeypatch: pytest.MonkeyPatch, fast: bool, is_last: bool
) -> None:
    batch, adds_last = batch_of(16, 19, 10), products.bias_adds_last
    asked: list[int] = []

    def answer(rows: int, *shape: Any) -> bool:
        if shape[-1] == "relu":
            asked.append(rows)
        return is_last and adds_last(rows, *shape)

    monkeypatch.setattr(products, "bias_adds_last", answer)
    ours = one_step(toy, "kv-prefix", batch)
    assert asked == ([] if fast and processor.packs(torch.bfloat16) else [16 * 19, 16 * 19, 16 * 10])
    with plainly():
        plain = one_step(toy, "kv-prefix", batch)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize("read", [1, 4, 5])
def test_where_rows_do_not_stand_alone_the_same_calls_are_made(
    toy: Model, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    for module, question in STAND_ALONE:
        monkeypatch.setattr(module, question, lambda *shape: False)
    monkeypatch.setattr(products, "lays_out", lambda dtype: False)
    batch = batch_of(2, 9, read)
    ours = one_step(toy, "kv-prefix", batch)
    with plainly():
        plain = one_step(toy, "kv-prefix", batch)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_a_cache_goes_through_the_blocks_own_forward(toy: Model, counted: dict[str, int]) -> None:
    ids = torch.tensor([[1, 2, 3, 4], [7, 7, 0, 9]])

    def run() -> Tensor:
        cache = toy.hf(input_ids=ids, use_cache=True).past_key_values
        logits: Tensor = toy.hf(input_ids=ids[:, :1], past_key_values=cache, use_cache=True).logits
        return logits

    compare(toy, run)
    assert counted["blocks"] == 0


def test_hooks_inside_a_block_see_what_they_would_see(toy: Model, counted: dict[str, int]) -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    seen: list[Tensor] = []
    hook = toy.anatomy.blocks[1].mlp.register_forward_hook(lambda module, args, output: seen.append(output))
    compare(toy, lambda: toy.hf(input_ids=ids, use_cache=False).logits)
    hook.remove()
    assert torch.equal(*seen)
    assert counted["blocks"] == 2  # of the two others


def test_attention_that_is_not_ours_and_dropout_stay_plain(toy: Model, counted: dict[str, int]) -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    for weight in toy.hf.parameters():
        weight.requires_grad_(False)
    assert toy.hf.config._attn_implementation != NAME
    with precision.frozen_casts(toy), precision.autocast(toy):
        logits = toy.hf(input_ids=ids, use_cache=False).logits
    with plainly(), precision.frozen_casts(toy), precision.autocast(toy):
        assert torch.equal(toy.hf(input_ids=ids, use_cache=False).logits, logits)
    with opened(toy):
        toy.hf.train()
        toy.hf(input_ids=ids, use_cache=False)
        toy.hf.eval()
    assert counted["blocks"] == 0


def test_only_wholly_frozen_relu_blocks_with_both_norms_are_put_together(toy: Model) -> None:
    block: Any = toy.anatomy.blocks[0]
    assert not is_frozen_block(block)  # trainable as it is
    for weight in toy.hf.parameters():
        weight.requires_grad_(False)
    assert is_frozen_block(block)
    block.ln_2.bias.requires_grad_(True)
    assert not is_frozen_block(block)
    block.ln_2.bias.requires_grad_(False)
    block.mlp.act, relu = nn.GELU(), block.mlp.act
    assert not is_frozen_block(block)
    block.mlp.act = relu
    block.ln_1, norm = nn.Identity(), block.ln_1
    assert not is_frozen_block(block)
    block.ln_1 = norm
    with method_named("lora").build(toy, 1, seed=0).weights(toy):
        assert not is_frozen_block(block)
    assert is_frozen_block(block)


def test_blocks_are_as_they_were_afterwards(toy: Model) -> None:
    for weight in toy.hf.parameters():
        weight.requires_grad_(False)
    hooks = len(toy.anatomy.decoder._forward_pre_hooks), len(toy.anatomy.decoder.drop._forward_hooks)
    with frozen_blocks(toy, torch.float32):
        assert all(isinstance(block.forward, FrozenBlock) for block in toy.anatomy.blocks)
        with frozen_blocks(toy, torch.float32):  # what is put together already is left alone
            pass
        assert all(isinstance(block.forward, FrozenBlock) for block in toy.anatomy.blocks)
    assert not any("forward" in vars(block) for block in toy.anatomy.blocks)
    assert hooks == (len(toy.anatomy.decoder._forward_pre_hooks), len(toy.anatomy.decoder.drop._forward_hooks))


def test_queries_that_nobody_reads_are_left_out(
    toy: Model, monkeypatch: pytest.MonkeyPatch, alone: bool, fast: bool
) -> None:
    queries: list[int] = []
    attend = frozen.attend

    def noting(module: Any, query: Tensor, *others: Any) -> Any:
        queries.append(query.shape[2])
        return attend(module, query, *others)

    monkeypatch.setattr(frozen, "attend", noting)
    one_step(toy, "kv-prefix", batch_of(4, 11, 4))
    is_packed = fast and processor.packs(torch.bfloat16)
    last = 11 if is_bound(alone, fast) else 5 if is_packed else 4
    assert queries == [11, 11, last]  # packed products leave out an even number: 6 of the 7 that are not read


def test_queries_that_nobody_reads_are_not_multiplied(
    toy: Model, monkeypatch: pytest.MonkeyPatch, alone: bool, fast: bool
) -> None:
    taken: list[tuple[int, int]] = []  # tokens, and outputs of the matrix

    def noting(call: Any) -> Any:
        return lambda self, x, *act: taken.append((x.shape[1], self.shape[1])) or call(self, x, *act)

    for kind in (products.Product, products.PackedProduct):
        monkeypatch.setattr(kind, "__call__", noting(kind.__call__))
    one_step(toy, "kv-prefix", batch_of(4, 11, 4))
    apart = [one for one in taken if one[1] != toy.vocabulary][-5:]  # of the last block, with its other three
    is_packed = fast and processor.packs(torch.bfloat16)
    queries = 11 if is_bound(alone, fast) else 5 if is_packed else 4
    if is_bound(alone, fast):
        assert apart[1:] == [(11, 192), (11, 64), (4, 256), (4, 64)]
    else:
        assert apart == [(queries, 64), (11, 128), (4, 64), (4, 256), (4, 64)]
