"""Batches by tokens: little padding, bounded, and the same results in the items' order whatever the batching."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from tests.families import reader

from elicitable.models.architectures import tiny_model
from elicitable.models.layout import Layout
from elicitable.models.model import Model
from elicitable.models.rows import Row, rows_of
from elicitable.training import batches
from elicitable.training.batches import CHUNK, TOKENS_A_ROW, Reading, groups, padded, stream
from elicitable.training.evaluate import evaluate, read_labels
from elicitable.training.loop import Plan, train
from elicitable.values import Item

REORDERED = 2e-6  # float32 sums of 32 terms in another order, through two layers; nats of size 5
WORDS = ("fine", "dull", "film", "warm", "slow")


def of_lengths(lengths: list[int]) -> list[Row]:
    return [Row([5] * (length - 2), [6, 2], 1) for length in lengths]


def like_reviews(count: int, seed: int = 0) -> list[int]:
    """Lengths as those of film reviews in tokens: median 200, a long tail to 1,400 (log-normal)."""
    drawn = np.exp(np.random.default_rng(seed).normal(np.log(200), 0.6, count))
    return [int(length) for length in np.clip(drawn, 20, 1400)]


def padding(rows: list[Row], parts: list[list[int]]) -> float:
    held = sum(len(part) * max(len(rows[place]) for place in part) for part in parts)
    return 1 - sum(map(len, rows)) / held


class Texts:
    """Texts of the lengths of reviews, cut down to a hundredth of their number of words."""

    name = "texts"

    def labels(self) -> None:
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        lengths = [length // 8 for length in like_reviews(n, int(rng.integers(1000)))]
        return [
            Item(" ".join(WORDS[(n + i) % 5] for i in range(length)), f" {WORDS[n % 5]}")
            for n, length in enumerate(lengths)
        ]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self.sample(n or 40, np.random.default_rng(1))

    def fingerprint(self) -> str:
        return "texts"


def in_float64(model: Model) -> Model:
    """The same numbers: what is left of a difference is the order of sums, on any processor."""
    return Model(deepcopy(model.hf).double(), tokenizer=model.tokenizer)


def test_texts_of_similar_length_share_a_batch() -> None:
    """Padding is under a tenth of all tokens at evaluation and in training; 16 as they come make it 40 percent."""
    model, rows = reader("byte-level BPE"), of_lengths(like_reviews(1000))
    parts = groups(model, rows, 16)
    assert sorted(place for part in parts for place in part) == list(range(1000))
    assert padding(rows, parts) < 0.05
    assert padding(rows, [list(range(i, i + 16)) for i in range(0, 992, 16)]) > 0.35
    seen = stream(model, Texts(), 16, np.random.default_rng(0), Reading())  # type: ignore[arg-type]
    drawn = [batch for _ in range(2 * CHUNK) for batch in next(seen)]
    tokens = sum(batch.input_ids.numel() for batch in drawn)
    read = sum(
        int(batch.attention_mask.sum()) if batch.attention_mask is not None else batch.input_ids.numel()
        for batch in drawn
    )
    assert 1 - read / tokens < 0.1
    assert sum(map(len, drawn)) == 2 * CHUNK * 16


def test_one_long_text_does_not_widen_fifteen_others() -> None:
    """The longest of 300 short texts made sixteen of 54 tokens and less as wide as itself, 124."""
    model, lengths = reader("byte-level BPE"), [*range(40, 55), 124]
    rows = of_lengths(lengths)
    assert [len(part) for part in groups(model, rows, 16)] == [15, 1]
    assert padding(rows, groups(model, rows, 16)) < 0.15 < 0.5 < padding(rows, [list(range(16))])
    close = of_lengths([*range(40, 55), 60])
    assert [len(part) for part in groups(model, close, 16)] == [16]


def test_a_few_long_texts_among_many_short_ones_stay_within_bounds() -> None:
    """20 of 3,000 tokens among 2,000 of 20: no batch holds more than a batch's tokens, or than one long text has."""
    rows = of_lengths([3000 if n % 101 == 0 else 20 for n in range(2020)])
    parts = groups(reader("byte-level BPE"), rows, 16)
    sizes = [len(part) * max(len(rows[place]) for place in part) for part in parts]
    assert max(sizes) <= 16 * TOKENS_A_ROW
    assert len(parts) <= 20 + 2000 * 20 // (16 * TOKENS_A_ROW) + 2
    assert padding(rows, parts) < 0.02


def test_short_rows_of_ids_are_read_by_64_and_long_ones_by_the_batch() -> None:
    model = Model(tiny_model("gpt2"))
    for length, sizes in [(19, [64, 36]), (100, [40, 40, 20]), (1000, [16] * 6 + [4])]:
        parts = groups(model, of_lengths([length] * 100), 16)
        assert [len(part) for part in parts] == sizes
        assert [place for part in parts for place in part] == list(range(100))
    assert groups(model, [], 16) == []


def test_logits_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reader("byte-level BPE")
    vocab = len(model.tokenizer)
    monkeypatch.setattr(batches, "LOGITS", 10 * 7 * vocab)
    parts = groups(model, [Row([5] * 10, [6] * 7)] * 35, 64)
    assert [len(part) for part in parts] == [10, 10, 10, 5]


@pytest.mark.parametrize("labels", [None, (" fine", " dull", " slow film")])
def test_the_batching_changes_no_result(labels: Any) -> None:
    model, items = in_float64(reader("Metaspace with a start")), Texts().held_out("test", 60)
    items = [Item(item.prompt, (labels or (item.target,))[n % len(labels or (0,))]) for n, item in enumerate(items)]
    found = [evaluate(model, items, labels, Reading(batch=batch)) for batch in (1, 4, 64)]
    assert found[0].correct == found[1].correct == found[2].correct
    assert [one.loss_nats for one in found] == pytest.approx([found[0].loss_nats] * 3, abs=REORDERED)
    turned = evaluate(model, items[::-1], labels, Reading(batch=4))
    assert turned.correct == found[0].correct[::-1]
    if labels:
        with torch.no_grad():
            nats = [read_labels(model, items, labels, Reading(batch=batch)).nats.numpy() for batch in (1, 64)]
            backwards = read_labels(model, items[::-1], labels, Reading()).nats.numpy()[::-1]
        assert nats[0] == pytest.approx(nats[1], abs=20 * REORDERED)
        assert backwards == pytest.approx(nats[1], abs=20 * REORDERED)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step on long texts, at once and in parts of few tokens: the same numbers, up to float32 sums."""
    from elicitable.methods.catalog import method_named

    ended = []
    for bound in (10_000, 12):
        monkeypatch.setattr(batches, "TOKENS_A_ROW", bound)
        model = Model(deepcopy(reader("byte-level BPE").hf), tokenizer=reader("byte-level BPE").tokenizer)
        prefix = method_named("kv-prefix").build(model, 2, seed=0)
        parts = len(next(stream(model, Texts(), 16, np.random.default_rng(0), Reading())))  # type: ignore[arg-type]
        assert (parts > 1) == (bound == 12)
        train(
            model,
            prefix,
            Texts(),
            Plan(1e-3, 3, batch=16, warmup=1, cooldown=0.0, evaluate_every=3, validation_items=4),
            0,
        )  # type: ignore[arg-type]
        ended.append(torch.cat([p.detach().flatten() for p in prefix.parameters()]))
    assert torch.allclose(*ended, atol=1e-4)  # Adam's first steps are signs of the gradient, times the rate of 1e-3
    assert not torch.equal(ended[0], torch.zeros_like(ended[0]))


def test_the_same_seed_draws_the_same_batches() -> None:
    model = reader("byte-level BPE")
    first, again = (stream(model, Texts(), 4, np.random.default_rng(3), Reading()) for _ in range(2))  # type: ignore[arg-type]
    for _ in range(CHUNK + 2):
        for one, other in zip(next(first), next(again), strict=True):
            assert torch.equal(one.input_ids, other.input_ids)
            assert torch.equal(one.targets, other.targets)


def test_ends_are_trained() -> None:
    """Every row's last target is its end: the tokenizer's, or the first token of a stop string's."""
    model, items = reader("byte-level BPE"), [Item("a film:", " fine"), Item("a film:", " dull and slow")]
    batch = padded(model, rows_of(model, items))
    assert batch.targets[:, -1].tolist() == [model.tokenizer.eos_token_id] * 2
    stopped = padded(model, rows_of(model, items, Layout(end="\n")))
    assert model.tokenizer.convert_ids_to_tokens(stopped.targets[:, -1].tolist()) == ["Ċ", "Ċ"]
