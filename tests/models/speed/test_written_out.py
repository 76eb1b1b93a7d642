"""Attention written out for training: autograd's numbers, and its own gradients against differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from elicitable.models.speed import written_out as module
from elicitable.models.speed.written_out import additive, joined, written_out

SCALING = 0.3


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """The same sums left to autograd."""
    products = query @ key.transpose(-1, -2)
    exact = torch.promote_types(products.dtype, torch.float32)
    logits = products.to(exact) * SCALING
    if mask is not None:
        logits = torch.add(additive(mask, exact), products, alpha=SCALING)
    return torch.softmax(logits, dim=-1).to(torch.promote_types(value.dtype, products.dtype)) @ value


def ours(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    return written_out(query, key, value, mask, SCALING)


def operands(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    batch, heads, queries, keys, width = shape
    drawn = torch.Generator().manual_seed(0)
    lengths = (queries, keys, keys)
    return [torch.randn(batch, heads, n, width, generator=drawn).to(dtype).requires_grad_() for n in lengths]


SHAPES = [(16, 4, 19, 29, 64), (3, 9, 45, 55, 64), (2, 2, 255, 256, 80), (1, 2, 7, 9, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["none", "causal", "additive"])
@pytest.mark.parametrize("is_autocast", [False, True])
def test_outputs_and_gradients_are_autograds_bit_for_bit(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype, kind: str, is_autocast: bool
) -> None:
    queries, keys = shape[2:4]
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)[None, None]
    given = {"none": None, "causal": mask, "additive": additive(mask, torch.float32) - 0.5 * mask}[kind]
    found = []
    for function in (ours, plain):
        xs = operands(shape, dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            output = function(*xs, given)
        output.backward(torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output.dtype))
        found.append([output, *(x.grad for x in xs)])
    if dtype == torch.bfloat16 or (is_autocast and dtype == torch.float32):
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        return
    # the same sums; a product of other layout may add them in another order, and a mask given in float32 stays so
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=tolerance)


def test_gradients_are_those_of_the_function() -> None:
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)[None, None]
    assert torch.autograd.gradcheck(lambda *xs: ours(*xs, mask), operands((2, 3, 5, 7, 4), torch.float64))


@pytest.mark.parametrize("first", [0, 3])
def test_heads_that_share_keys_are_multiplied_together(first: int) -> None:
    """As if the keys and values stood there once for each of them, in outputs and in all gradients."""
    drawn, groups = torch.Generator().manual_seed(0), 3
    shapes = ((2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4))
    query, key, value = (torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in shapes)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)[None, None]
    found = []
    for is_shared in (True, False):
        xs = [x.clone().requires_grad_() for x in (query, key, value)]
        k, v = (x if is_shared else x.repeat_interleave(groups, dim=1) for x in xs[1:])
        before = (k[:, :, :first], v[:, :, :first]) if first else None
        output = written_out(xs[0], k[:, :, first:], v[:, :, first:], mask, SCALING, before)
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found.append([output, *torch.autograd.grad(output, xs, weights)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-13)  # sums of a few tens of float64 numbers


def test_a_query_that_needs_no_gradient_gets_none() -> None:
    query, key, value = operands((2, 3, 5, 7, 4), torch.float64)
    output = ours(query.detach(), key, value, None)
    d_key, d_value = torch.autograd.grad(output.sum(), (key, value))
    whole = torch.autograd.grad(ours(query, key, value, None).sum(), (key, value))
    assert torch.equal(d_key, whole[0])
    assert torch.equal(d_value, whole[1])


@pytest.mark.parametrize(("dtype", "is_laid_out"), [(torch.float32, True), (torch.float64, False)])
def test_a_prefix_is_joined_as_cat_joins_it(dtype: torch.dtype, is_laid_out: bool) -> None:
    prefix, content = (torch.randn(2, 3, n, 4, dtype=dtype, requires_grad=True) for n in (5, 7))
    found = joined(prefix, content)
    assert torch.equal(found, torch.cat([prefix, content], dim=2))
    assert found.transpose(2, 3).is_contiguous() == is_laid_out
    assert joined(prefix, content, is_laid_out=False).is_contiguous()
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    assert prefix.grad is not None
    assert content.grad is not None
    assert torch.equal(prefix.grad, weights[:, :, :5])
    assert torch.equal(content.grad, weights[:, :, 5:])


def test_keys_laid_out_for_the_products_change_no_number() -> None:
    query, key, value = operands((16, 4, 19, 29, 64), torch.float32)
    laid_out = [joined(x[:, :, :10], x[:, :, 10:]).detach().requires_grad_() for x in (key, value)]
    found = []
    for xs in ([query, key, value], [query, *laid_out]):
        output = ours(*xs, None)
        found.append([output, *torch.autograd.grad(output.square().sum(), xs)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-5)  # the same sums in another order


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("is_alone", [None, False])
def test_a_context_gets_the_same_gradient_where_it_alone_is_trained(
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype,
    is_alone: bool | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if is_alone is not None:
        monkeypatch.setattr(module, "keys_stand_alone", lambda *shape: is_alone)
    first, (query, key, value) = 5, operands(shape, dtype)
    mask = torch.ones(shape[2], shape[3], dtype=torch.bool).tril(shape[3] - shape[2])[None, None]
    before = [x.detach()[:, :, :first].requires_grad_() for x in (key, value)]
    content = [x.detach()[:, :, first:].requires_grad_() for x in (key, value)]
    joint = [joined(*pair).detach().requires_grad_() for pair in zip(before, content, strict=True)]

    def gradients(output: Tensor, *xs: Tensor) -> list[Tensor]:
        weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        return [output, *torch.autograd.grad(output, xs, weights)]

    whole = gradients(written_out(query, *joint, mask, SCALING), *joint)
    both = gradients(written_out(query, *content, mask, SCALING, (before[0], before[1])), *before, *content)
    frozen = [x.detach() for x in (query, *content)]
    alone = gradients(written_out(*frozen, mask, SCALING, (before[0], before[1])), *before)
    assert torch.equal(whole[0], both[0])
    assert torch.equal(whole[0], alone[0])
    for place in (1, 2):
        assert torch.equal(whole[place][:, :, :first], both[place])
        assert torch.equal(whole[place][:, :, first:], both[place + 2])
        assert torch.equal(both[place], alone[place])


def test_gradients_of_frozen_content_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "keys_stand_alone", lambda *shape: True)
    query, *both = operands((2, 3, 5, 7, 4), torch.float32)
    before, content = [x[:, :, :2] for x in both], [x[:, :, 2:].detach() for x in both]
    output = written_out(query.detach(), *content, None, SCALING, (before[0], before[1]))
    bmm, rows = torch.bmm, list[int]()

    def noting(a: Tensor, b: Tensor) -> Tensor:
        rows.append(a.shape[1])
        return bmm(a, b)

    monkeypatch.setattr(torch, "bmm", noting)
    output.sum().backward()
    assert rows == [2, 5, 2]  # keys of the context: ∂v and ∂k; in between the weights' of all 5 queries
