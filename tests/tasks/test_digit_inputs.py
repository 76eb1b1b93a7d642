"""Which digit inputs there are, how they are split and how they are drawn."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitable.errors import InputError
from elicitable.tasks.digit_inputs import (
    DIGITS,
    FEW,
    LENGTH,
    decode,
    distinct,
    draw_codes,
    encode,
    held_out_codes,
    is_in_split,
    mix64,
)
from elicitable.tasks.splitting import SPLITS

digit_lists = st.lists(st.integers(0, DIGITS - 1), min_size=LENGTH, max_size=LENGTH)


def surjections(length: int, digits: int) -> int:
    """Sequences of ``length`` that use all of ``digits`` digits, by inclusion and exclusion."""
    return sum((-1) ** k * math.comb(digits, k) * (digits - k) ** length for k in range(digits + 1))


def exact_share_of_few() -> float:
    """P(at most 5 distinct) of a draw: ½ + ½·P(uniform has at most 5, given that it is not all equal)."""
    counts = {k: math.comb(DIGITS, k) * surjections(LENGTH, k) for k in range(2, DIGITS + 1)}
    return 0.5 + 0.5 * sum(counts[k] for k in range(2, FEW + 1)) / sum(counts.values())


@given(digit_lists)
def test_codes_are_reversible_and_count_distinct_digits(digits: list[int]) -> None:
    code = encode(np.array(digits))
    assert decode(code).tolist() == digits
    assert distinct(code[None])[0] == len(set(digits))


def test_mix64_is_splitmix64_in_plain_integers() -> None:
    def plain(x: int) -> int:
        z = (x + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    codes = [0, 1, 17, 2**29, DIGITS**LENGTH - 1]
    assert mix64(np.array(codes)).tolist() == [plain(code) for code in codes]


def test_every_input_is_in_exactly_one_split_and_a_quarter_is_held_out() -> None:
    codes = np.arange(1 << 22)
    counts = {split: is_in_split(codes, split) for split in SPLITS}
    assert (sum(mask.astype(int) for mask in counts.values()) == 1).all()
    shares = {split: mask.mean() for split, mask in counts.items()}
    # 4 standard deviations of a share of 4 million fair draws are below 0.001
    assert shares == pytest.approx({"train": 0.75, "validation": 0.125, "test": 0.125}, abs=1e-3)


@pytest.mark.parametrize("split", SPLITS)
def test_draws_are_of_their_split_and_never_all_equal(split: str) -> None:
    codes = draw_codes(50_000, split, np.random.default_rng(3))
    assert is_in_split(codes, split).all()
    assert distinct(codes).min() >= 2
    assert 0 <= codes.min() <= codes.max() < DIGITS**LENGTH


def test_all_equal_inputs_are_passed_over_even_when_only_they_are_drawn_first() -> None:
    """A draw hits one once in 50 million, so a generator is made up that gives them first."""
    all_equal = encode(np.repeat(np.arange(DIGITS), LENGTH).reshape(DIGITS, LENGTH))
    bait = all_equal[is_in_split(all_equal, "train")]
    assert len(bait) > 0

    class Baited:
        rounds = 0

        def integers(self, low: int, high: int, size: int | tuple[int, int]) -> np.ndarray:
            if isinstance(size, int):
                return np.ones(size, dtype=np.int64)  # the coins: few distinct digits only
            self.rounds += 1
            return np.resize(bait if self.rounds == 1 else good, size)

    good = draw_codes(1, "train", np.random.default_rng(0))
    while distinct(good)[0] > FEW:
        good = draw_codes(1, "train", np.random.default_rng(int(good[0])))
    rng = Baited()
    assert draw_codes(3, "train", rng).tolist() == good.tolist() * 3  # type: ignore[arg-type]
    assert rng.rounds == 2


@pytest.mark.parametrize("split", SPLITS)
def test_half_of_the_draws_have_at_most_five_distinct_digits_by_design(split: str) -> None:
    n = 100_000
    share = (distinct(draw_codes(n, split, np.random.default_rng(5))) <= FEW).mean()
    expected = exact_share_of_few()
    assert expected == pytest.approx(0.6612, abs=1e-4)
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))


def test_held_out_inputs_are_distributed_like_training_inputs() -> None:
    n = 20_000
    expected = exact_share_of_few()
    for split in ("validation", "test"):
        codes, _ = held_out_codes(split, n)
        share = (distinct(codes) <= FEW).mean()
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / n))
        means = decode(codes).mean(axis=0)
        assert means == pytest.approx(np.full(LENGTH, 3.5), abs=4 * math.sqrt(63 / 12 / n))


def test_held_out_inputs_differ_from_each_other_and_the_first_n_do_not_depend_on_n() -> None:
    all_codes = {}
    for split in ("validation", "test"):
        codes, lots = held_out_codes(split, 20_000)
        assert len(np.unique(codes)) == 20_000
        assert is_in_split(codes, split).all()
        for n in (1, 999, 1_000, 1_001, 7_500):
            assert (held_out_codes(split, n)[0] == codes[:n]).all()
            assert (held_out_codes(split, n)[1] == lots[:n]).all()
        all_codes[split] = set(codes.tolist())
    assert not all_codes["validation"] & all_codes["test"]
    with pytest.raises(InputError, match="at most 20,000 items per split, not 20,001"):
        held_out_codes("test", 20_001)


DIGEST = "import hashlib; from elicitable.tasks.digit_inputs import held_out_codes as held\n"
DIGEST += "codes = {s: held(s, 1500)[0].astype('<i8').tobytes() for s in ORDER}\n"
DIGEST += "print(hashlib.sha256(codes['validation'] + codes['test']).hexdigest())"
GOLDEN = "513edde4c4732128881cf0c2bfcfd8c5ecac7954ae5ada97a10c0be7488ee802"


@pytest.mark.parametrize("order", ["('validation', 'test')", "('test', 'validation')"])
def test_held_out_bytes_are_the_same_in_every_process_and_order(order: str) -> None:
    """The value itself is pinned too: a numpy whose streams changed would silently change every test set."""
    done = subprocess.run(
        [sys.executable, "-c", DIGEST.replace("ORDER", order)], capture_output=True, text=True, check=True
    )
    here = [held_out_codes(split, 1500)[0].astype("<i8").tobytes() for split in ("validation", "test")]
    assert done.stdout.strip() == hashlib.sha256(b"".join(here)).hexdigest() == GOLDEN
