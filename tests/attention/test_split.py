"""The split against the oracle, for every kind of call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from elicitable.attention.crossing import cross, drift
from elicitable.attention.operands import Operands, valid_queries
from elicitable.attention.patterns import content_pattern, joint_pattern
from elicitable.attention.reference import attention_reference
from elicitable.attention.residuals import residuals
from elicitable.attention.split import attend_content, recombine, split


def _mask(queries: int, keys: int, window: int | None = None, padding: int = 0) -> Tensor:
    """(2, 1, query, key) bool, causal; the first row of the batch starts with ``padding`` hidden places."""
    i, j = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)[None]
    mask = j <= i if window is None else (j <= i) & (j > i - window)
    mask = mask[None, None].repeat(2, 1, 1, 1)
    mask[0, :, :, :padding] = False
    return mask


def case(name: str, seed: int = 0) -> Operands:
    """One attention call of the named kind, in float64: batch 2, 4 heads, 5 queries, 3 context keys."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    kv_heads = {"grouped": 2, "multi-query": 1}.get(name, 4)
    keys, d_value = (8 if name in ("cached", "one query") else 5), (6 if name == "narrow values" else 4)
    queries = 1 if name == "one query" else 5
    given = {
        "window": {"content_mask": _mask(5, 5, window=2), "prefix_visible": torch.tensor([[[[False, True, True]]]])},
        "padded": {"content_mask": _mask(5, 5, padding=2)},
        "additive mask": {
            "content_mask": torch.zeros(2, 1, 5, 5, dtype=torch.float64).masked_fill(
                ~_mask(5, 5, padding=1), torch.finfo(torch.float64).min
            )
        },
        "softcap": {"softcap": 1.5},
        "sink": {"sink": randn(4)},
        "alibi": {"content_bias": randn(1, 4, 1, 5), "prefix_bias": randn(1, 4, 1, 3)},
        "strength": {"log_strength": -0.7},
        "softcap, sink and padding": {"softcap": 1.5, "sink": randn(4), "content_mask": _mask(5, 5, padding=2)},
        "rows": {"prefix_visible": torch.tensor([[[[False, True, True]]], [[[True, True, True]]]])},
        "hidden context": {"prefix_visible": torch.zeros(1, 1, 5, 3, dtype=torch.bool)},
    }.get(name, {})
    scale = 40.0 if name == "far apart" else 1.0
    return Operands(
        query=scale * randn(2, 4, queries, 4),
        key=randn(2, kv_heads, keys, 4),
        value=randn(2, kv_heads, keys, d_value),
        prefix_key=randn(2, kv_heads, 3, 4),
        prefix_value=randn(2, kv_heads, 3, d_value),
        scaling=0.5,
        **given,
    )


CASES = (
    "plain",
    "grouped",
    "multi-query",
    "narrow values",
    "cached",
    "one query",
    "window",
    "padded",
    "additive mask",
    "softcap",
    "sink",
    "alibi",
    "strength",
    "softcap, sink and padding",
    "rows",
    "hidden context",
    "far apart",
)


# float64 with values of size 1 and sums of about ten terms: 1e-13 leaves room for a hundred roundings
CLOSE = 1e-13


def far(ours: torch.Tensor, oracle: np.ndarray, operands: Operands) -> float:
    """Largest distance over queries that are no padding."""
    valid = valid_queries(operands)[:, None, :, None].expand(ours.shape)
    return float((ours - torch.from_numpy(oracle)).abs()[valid].max())


@pytest.mark.parametrize("name", CASES)
def test_the_split_recombines_to_the_oracles_output_and_mass(name: str) -> None:
    operands = case(name)
    oracle, parts = attention_reference(operands), split(operands)
    assert far(recombine(parts), oracle.output, operands) < CLOSE
    assert far(parts.mass[..., None], oracle.prefix_weights.sum(-1, keepdims=True), operands) < CLOSE
    assert far(parts.content, attention_reference(operands.without_context()).output, operands) < CLOSE
    assert far(parts.mass[..., None] * parts.share, oracle.prefix_weights, operands) < CLOSE
    assert ((parts.mass + parts.content_mass - 1).abs() < CLOSE).all()


@pytest.mark.parametrize("name", CASES)
def test_the_flash_kernel_and_the_blocks_of_queries_agree(name: str) -> None:
    operands = case(name)
    for block in (1, 2, 128):
        # an additive bias of zero rules the kernel out
        blocked = replace(operands, content_bias=operands.content_bias if operands.content_bias is not None else
                          torch.zeros(1, 1, 1, 1, dtype=torch.float64))  # fmt: skip
        for ours, theirs in zip(attend_content(blocked, block), attend_content(operands), strict=True):
            assert torch.allclose(ours, theirs, atol=CLOSE, rtol=CLOSE, equal_nan=True)


@pytest.mark.parametrize("name", CASES)
def test_patterns_are_the_oracles(name: str) -> None:
    operands = case(name)
    oracle, joint = attention_reference(operands), joint_pattern(operands)
    keys = operands.key.shape[2]
    assert far(joint.prefix, oracle.prefix_weights, operands) < CLOSE
    assert far(joint.content[..., :keys], oracle.content_weights, operands) < CLOSE
    plain = attention_reference(operands.without_context())
    assert far(content_pattern(operands)[..., :keys], plain.content_weights, operands) < CLOSE


@pytest.mark.parametrize("name", CASES)
def test_both_identities_hold_for_the_oracles_output(name: str) -> None:
    operands = case(name)
    reference = operands.without_context()
    output, t = (torch.from_numpy(attention_reference(x).output) for x in (operands, reference))
    found = residuals(operands, output, reference, t, block=2)
    assert found.attention.max() < CLOSE
    assert found.output.max() < CLOSE


@pytest.mark.parametrize("change", ["query", "key", "value", "content_mask", "scaling"])
def test_the_residual_shows_whatever_else_was_changed(change: str) -> None:
    operands = case("plain")
    given = operands.without_context()
    changed = {
        "query": given.query + 0.01,
        "key": given.key.flip(2),
        "value": given.value + 0.01,
        "content_mask": case("window").content_mask,
        "scaling": 0.51,
    }[change]
    reference = replace(given, **{change: changed})
    output, t = (torch.from_numpy(attention_reference(x).output) for x in (operands, reference))
    found = residuals(operands, output, reference, t)
    assert found.output.min() > 1e-4
    assert (found.attention.max() > 1e-4) == (change != "value")  # values are in the second identity alone


def test_the_residual_shows_an_output_that_is_not_the_splits() -> None:
    operands = case("plain")
    t = torch.from_numpy(attention_reference(operands.without_context()).output)
    output = torch.from_numpy(attention_reference(operands).output)
    output[:, 2] += 1e-6
    found = residuals(operands, output, operands.without_context(), t)
    assert found.output[2] == pytest.approx(1e-6, rel=1e-6)
    assert found.output[[0, 1, 3]].max() < CLOSE


def test_padding_is_no_query() -> None:
    assert valid_queries(case("padded")).tolist() == [[False, False, True, True, True], [True] * 5]
    assert valid_queries(case("additive mask")).tolist() == [[False, True, True, True, True], [True] * 5]
    assert valid_queries(case("cached")).all()


def test_a_value_bias_adds_itself_to_the_output() -> None:
    operands = case("plain")
    bias = torch.arange(16, dtype=torch.float64).reshape(4, 4)
    with_bias = replace(operands, value=operands.value + bias[None, :, None], value_bias=bias).without_context()
    plain = operands.without_context()
    output, t = (torch.from_numpy(attention_reference(x).output) for x in (with_bias, plain))
    assert residuals(with_bias, output, plain, t).output.max() < CLOSE * 16  # values of size 16
    assert ((output - t) - bias[None, :, None]).abs().max() < CLOSE * 16


@pytest.mark.parametrize("name", ["plain", "grouped", "window", "sink", "softcap, sink and padding", "far apart"])
def test_crossing_recombines_to_the_measured_change(name: str) -> None:
    one, other = case(name), case(name, seed=1)
    zero = replace(one.without_context(), query=other.query, key=other.key)
    crossed = cross(one, zero)
    valid = valid_queries(one)[:, None, :, None]
    change = crossed.by_queries + crossed.by_keys + crossed.interaction
    measured = content_pattern(one) - content_pattern(zero)
    assert torch.where(valid, change - measured, 0.0).abs().max() < CLOSE
    found = drift(one, zero, block=2)
    assert found.residual.max() < CLOSE
    assert found.variation.min() > 0
    assert found.variation.max() / found.queries <= 1
    assert (found.variation <= found.by_queries + found.by_keys + found.interaction + CLOSE).all()
    assert found.divergence.max() / found.queries <= np.log(2)


def test_drift_is_local_rescaling_alone_where_nothing_changed_below() -> None:
    operands = case("plain")
    found = drift(operands, operands.without_context())
    assert found.variation.max() == 0
    mass = split(operands).mass.sum(dim=(0, 2))
    assert torch.allclose(found.local, mass / 2, atol=CLOSE)


def test_changed_queries_alone_are_named_so() -> None:
    one, other = case("plain"), case("plain", seed=1)
    found = drift(replace(one, query=other.query), one.without_context())
    assert found.by_keys.max() == 0
    assert found.interaction.max() < CLOSE
    assert torch.equal(found.by_queries, found.variation)


def test_drift_finds_the_contents_first_token() -> None:
    operands = case("padded")
    found = drift(operands, operands.without_context())
    weights = attention_reference(operands).content_weights
    first = weights[0, :, 3:, 2].sum(-1) + weights[1, :, 1:, 0].sum(-1)  # the first token itself is left out
    assert np.abs(found.first_with.numpy() - first).max() < CLOSE
    assert (found.queries, found.later) == (8, 6)
