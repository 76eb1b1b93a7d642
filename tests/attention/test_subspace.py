"""The bias subspace and the use of positions, against direct computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elicitable.attention.drift import jensen_shannon, total_variation
from elicitable.attention.positions import BINS, percentile, share_histogram, spread
from elicitable.attention.subspace import second_moment, subspace


@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_n_tokens_span_at_most_n_directions(prefix: int) -> None:
    g = torch.Generator().manual_seed(0)
    share = torch.softmax(torch.randn(3, 4, 50, prefix, generator=g, dtype=torch.float64), dim=-1)
    values = torch.randn(1, 4, prefix, 8, generator=g, dtype=torch.float64)
    found = subspace(second_moment(share @ values, torch.ones(3, 50, dtype=torch.bool)))
    assert found.rank().tolist() == [prefix] * 4
    assert (found.effective_rank <= prefix + 1e-9).all()
    if prefix == 1:
        assert found.first_share.tolist() == pytest.approx([1.0] * 4)


def test_energies_are_squared_singular_values_and_add_up_over_batches() -> None:
    g = torch.Generator().manual_seed(0)
    bias = torch.randn(2, 3, 20, 6, generator=g, dtype=torch.float64)
    valid = torch.rand(2, 20, generator=g) > 0.3
    whole = second_moment(bias, valid)
    halves = second_moment(bias[:1], valid[:1]) + second_moment(bias[1:], valid[1:])
    assert torch.allclose(whole, halves, atol=1e-12)
    for head in range(3):
        rows = bias[:, head][valid]
        singular = torch.linalg.svdvals(rows) ** 2
        assert torch.allclose(subspace(whole).energies[head], singular, atol=1e-10)
        shares = (singular / singular.sum()).numpy()
        rank = np.exp(-(shares * np.log(shares)).sum())
        assert float(subspace(whole).effective_rank[head]) == pytest.approx(rank)


def test_products_of_float32_are_summed_in_float64() -> None:
    """Rounded products gave one direction eight."""
    g = torch.Generator().manual_seed(0)
    bias = torch.randn(1, 1, 900, 1, generator=g) * torch.randn(1, 1, 1, 64, generator=g)
    found = second_moment(bias, torch.ones(1, 900, dtype=torch.bool))
    assert torch.equal(found[0], bias[0, 0].double().T @ bias[0, 0].double())
    assert subspace(found).rank().tolist() == [1]


def test_no_bias_has_no_direction() -> None:
    found = subspace(torch.zeros(1, 4, 4))
    assert (found.effective_rank.item(), found.first_share.item(), found.rank().item()) == (0.0, 0.0, 0)


def test_shares_are_counted_without_padding() -> None:
    share = torch.tensor([[[[0.25, 0.75], [1.0, 0.0]]]])
    counts = share_histogram(share, torch.tensor([[True, False]]))
    assert counts.shape == (1, 2, BINS)
    assert counts.sum().item() == 2
    assert counts[0, 0, BINS // 4] == 1
    assert counts[0, 1, 3 * BINS // 4] == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.99]))
def test_percentiles_are_numpys_to_a_bin(shares: list[float], q: float) -> None:
    share = torch.tensor(shares, dtype=torch.float64).reshape(1, 1, -1, 1)
    counts = share_histogram(share, torch.ones(1, len(shares), dtype=torch.bool))
    exact = np.quantile(np.array(shares), q, method="inverted_cdf")
    assert abs(percentile(counts, q).item() - exact) <= 1 / BINS


def test_a_constant_share_has_no_spread() -> None:
    counts = share_histogram(torch.full((1, 1, 9, 2), 0.5), torch.ones(1, 9, dtype=torch.bool))
    assert spread(counts).tolist() == [[0.0, 0.0]]
    assert percentile(torch.zeros(BINS, dtype=torch.int32), 0.5).isnan()


@given(st.integers(0, 1000))
def test_divergences_keep_their_bounds(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    p, q = (torch.softmax(5 * torch.randn(7, generator=g, dtype=torch.float64), dim=-1) for _ in range(2))
    assert 0 <= total_variation(p, q) <= 1
    assert 0 <= jensen_shannon(p, q) <= np.log(2) + 1e-15
    assert total_variation(p, p) == 0
    assert jensen_shannon(p, p) < 1e-15
    assert total_variation(p, q) ** 2 <= 2 * jensen_shannon(p, q)  # Pinsker, each half
