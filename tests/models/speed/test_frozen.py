"""Frozen toy blocks in two operations: the bits of the plain blocks, in logits and gradients, and only where they fit.

In bfloat16 under autocast and in float32 without, on every kind of processor: where a promise needs an operation that
this processor lacks, or sums in an order that it does not keep, the other path runs and is held to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import elicitable as el
from elicitable.methods.catalog import method_named
from elicitable.models.attend import NAME
from elicitable.models.model import Model
from elicitable.models.speed import frozen, precision, processor, products
from elicitable.models.speed.frozen import FrozenBlock, frozen_blocks, is_frozen_block
from elicitable.models.toys import TOYS, build_toy
from elicitable.rng import generator
from elicitable.training.batches import Batch
from elicitable.training.evaluate import answer_logits, token_losses
from elicitable.training.loop import prepared

FROZEN = ["kv-prefix", "layer-prefix", "soft-prompt", "value-bias"]  # methods that leave all blocks as they are
SPEC = replace(TOYS["mixed"], layers=3, d_model=64)


@pytest.fixture(autouse=True, params=[True, False], ids=["bfloat16", "float32"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A machine that multiplies bfloat16 fast, and one that does not, whatever this one does."""
    is_fast: bool = request.param
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda device: is_fast)
    return is_fast


@pytest.fixture(params=["alone", "together"])
def alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor on which a row has the same bits among others as by itself, and one on which it has not."""
    is_alone: bool = request.param == "alone"
    for module, question in ((products, "rows_stand_alone"), (frozen, "queries_stand_alone")):
        monkeypatch.setattr(module, question, lambda *shape: is_alone)
    return is_alone


@pytest.fixture
def toy() -> Model:
    """A 3-layer toy with weights large enough that attention is far from even."""
    model = build_toy(SPEC, seed=3)
    drawn = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.hf.named_parameters():
            if weight.ndim >= 2:
                weight.copy_(torch.randn(weight.shape, generator=drawn) * 3 / weight.shape[0] ** 0.5)
            elif "bias" in name:
                weight.copy_(torch.randn(weight.shape, generator=drawn) * 0.3)
    return model


def batch_of(rows: int, tokens: int, read: int, padded: bool = False) -> Batch:
    drawn = generator(0, "frozen", str((rows, tokens)))
    ids = torch.tensor(drawn.integers(0, 10, (rows, tokens)))
    mask = torch.ones_like(ids)
    if padded:
        for row in range(rows):
            mask[row, : row % 4] = 0
    return Batch(ids, mask if padded else None, torch.tensor(drawn.integers(0, 10, (rows, read))))


@contextmanager
def plainly() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "frozen_blocks", lambda model, dtype: nullcontext())
        yield


def one_step(model: Model, method: str, batch: Batch, offset: int = 0) -> list[Tensor]:
    """Logits and gradients of one training step."""
    adaptation = method_named(method).build(model, 3, seed=1)
    with prepared(model, adaptation) as refresh:
        refresh()
        with precision.autocast(model):
            logits = answer_logits(model, batch, offset)
        token_losses(logits, batch.targets).sum().backward()
    return [logits.detach(), *(p.grad for p in adaptation.parameters() if p.grad is not None)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each part ran."""
    counts = {"blocks": 0, "before": 0, "looked up": 0}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            counts[name] += 1
            return function(*args, **given)

        return call

    monkeypatch.setattr(frozen._After, "apply", counting("blocks", frozen._After.apply))
    monkeypatch.setattr(frozen._Before, "apply", counting("before", frozen._Before.apply))
    looked_up = frozen._KnownRows.of

    def of(self: Any, hidden: Tensor, block: FrozenBlock) -> Tensor | None:
        rows = looked_up(self, hidden, block)
        counts["looked up"] += rows is not None
        return rows

    monkeypatch.setattr(frozen._KnownRows, "of", of)
    return counts


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


def test_at_an_offset_too(toy: Model) -> None:
    batch = batch_of(4, 11, 5)
    ours = one_step(toy, "kv-prefix", batch, offset=9)
    with plainly():
        plain = one_step(toy, "kv-prefix", batch, offset=9)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))
    assert not torch.equal(ours[0], one_step(toy, "kv-prefix", batch)[0])  # positions matter to this toy


def is_bound(alone: bool, is_fast: bool) -> bool:
    """Whether bits forbid leaving rows out: for plain products where they do not stand alone."""
    return not alone and not (is_fast and processor.packs(torch.bfloat16))


def test_the_first_block_is_looked_up_and_the_others_computed(
    toy: Model, counted: dict[str, int], alone: bool, fast: bool
) -> None:
    one_step(toy, "kv-prefix", batch_of(4, 11, 5))
    looked_up = 0 if is_bound(alone, fast) else 1
    assert counted == {"blocks": 3, "before": 3 - looked_up, "looked up": looked_up}


@pytest.mark.parametrize("read", [1, 4, 5])
def test_where_rows_do_not_stand_alone_the_same_calls_are_made(
    toy: Model, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    for module, question in ((products, "rows_stand_alone"), (frozen, "queries_stand_alone")):
        monkeypatch.setattr(module, question, lambda *shape: False)
    monkeypatch.setattr(products, "packs", lambda dtype: False)
    batch = batch_of(2, 9, read)
    ours = one_step(toy, "kv-prefix", batch)
    with plainly():
        plain = one_step(toy, "kv-prefix", batch)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@contextmanager
def opened(model: Model) -> Iterator[None]:
    """The toy frozen, attention ours, under autocast: as a training step has it."""
    from elicitable.models.inject import installed

    for weight in model.hf.parameters():
        weight.requires_grad_(False)
    with ExitStack() as stack:
        stack.enter_context(installed(model))
        stack.enter_context(precision.frozen_casts(model))
        stack.enter_context(precision.autocast(model))
        yield


def compare(model: Model, run: Callable[[], Tensor]) -> None:
    with opened(model):
        ours = run()
    with plainly(), opened(model):
        plain = run()
    assert torch.equal(ours, plain)


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


def test_a_large_vocabulary_has_no_table(toy: Model, monkeypatch: pytest.MonkeyPatch, counted: dict[str, int]) -> None:
    monkeypatch.setattr(frozen, "LARGEST_TABLE", 10 * 83 - 1)
    one_step(toy, "kv-prefix", batch_of(4, 11, 5))
    assert counted == {"blocks": 3, "before": 3, "looked up": 0}


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
