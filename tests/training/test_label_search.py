"""A decision by branch and bound is the whole matrix's decision, item by item, ties included, for fewer nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elicitable as el
from elicitable.models.architectures import tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.training import label_scores
from elicitable.training.decision_rules import BY_LENGTH, DecisionRule, Lengths, by_length
from elicitable.training.label_scores import label_costs
from elicitable.training.label_search import Wanted
from elicitable.training.label_trie import LabelIds

NAMES = ("llama", "gpt2", "bloom", "gemma2", "gpt_oss")  # rotary, learned, ALiBi, windows and soft caps, sinks
MODELS = {name: Model(tiny_model(name, dtype=torch.float64)) for name in NAMES}
SAME = 1e-10  # one float64 sum in two orders

Label = st.lists(st.integers(3, 6), min_size=1, max_size=5).map(tuple)
Labels = st.lists(Label, min_size=1, max_size=12, unique=True)
Content = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def wanted(rules: Sequence[DecisionRule], whole: tuple[int, ...] = ()) -> Wanted:
    divisors, offsets = ([getattr(rule, name) for rule in rules] for name in ("divisors", "offsets"))
    return Wanted(np.array(divisors), np.array(offsets), whole)


def rules_of(labels: Sequence[tuple[int, ...]], offsets: Sequence[float]) -> list[DecisionRule]:
    """Every kind of rule: by the labels' lengths, and with a number per label."""
    lengths = Lengths.of(["x" * (3 * k % 5 + 1) for k in range(len(labels))], [len(label) for label in labels])
    count = len(labels)
    return [*(by_length(name, lengths) for name in BY_LENGTH), DecisionRule("fitted", (1.0,) * count, tuple(offsets))]


@contextmanager
def counted(model: Model) -> Iterator[list[int]]:
    """The tokens of every forward pass inside, padding included."""
    seen: list[int] = []
    hook = model.hf.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )
    yield seen
    hook.remove()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.tuples(Content, Labels), min_size=1, max_size=4), st.data())
def test_every_rule_decides_as_on_the_whole_matrix(
    name: str, asked: list[tuple[list[int], list[tuple[int, ...]]]], data: st.DataObject
) -> None:
    """Items with labels of their own, together; several rules at once; and the cost of one label each, exactly."""
    model = MODELS[name]
    contents = [content for content, _ in asked]
    labels = [[LabelIds(ids) for ids in own] for _, own in asked]
    near = st.floats(-30, 30)
    rules = [rules_of(own, data.draw(st.lists(near, min_size=len(own), max_size=len(own)))) for _, own in asked]
    chosen = [data.draw(st.lists(st.sampled_from(own), min_size=1, max_size=2)) for own in rules]
    whole = [data.draw(st.integers(0, len(own) - 1)) for own in labels]
    full = label_costs(model, contents, labels).numpy()
    some = label_costs(
        model, contents, labels, [wanted(own, (k,)) for own, k in zip(chosen, whole, strict=True)]
    ).numpy()
    for row, (own, k) in enumerate(zip(labels, whole, strict=True)):
        costs, found = full[row, : len(own)], some[row, : len(own)]
        known = np.isfinite(found)
        assert known[k]
        assert found[known] == pytest.approx(costs[known], abs=SAME)
        for rule in chosen[row]:
            assert rule.decide(found[None])[0] == rule.decide(costs[None])[0]
        assert np.isinf(full[row, len(own) :]).all()


@pytest.mark.parametrize("rule", range(5))
def test_equally_good_labels_are_decided_for_in_the_same_order(rule: int) -> None:
    """A model that finds every token equally likely: each label of a length ties with every other."""
    hf = tiny_model("llama", dtype=torch.float64)
    torch.nn.init.zeros_(hf.lm_head.weight)
    model = Model(hf)
    own = [(3, 4, 5), (6,), (3, 3), (4, 3, 5), (5,), (6, 6), (4, 4, 4)]
    offsets = [5 * np.log(64), 3 * np.log(64), 4 * np.log(64), 5 * np.log(64), 0.0, 4 * np.log(64), 0.0]
    asked = rules_of(own, offsets)[rule]
    labels = [[LabelIds(ids) for ids in own]] * 2
    full, some = (label_costs(model, [[1, 2], [3]], labels, some) for some in (None, [wanted([asked])] * 2))
    assert len(set(full[0].tolist())) == 3  # ties
    assert asked.decide(some).tolist() == asked.decide(full).tolist()


def test_what_cannot_win_is_not_read() -> None:
    """216 labels of three tokens: of 42 inner nodes those of the best alone, where it is far ahead."""
    model = MODELS["llama"]
    labels = [LabelIds((a, b, c)) for a in range(3, 9) for b in range(3, 9) for c in range(3, 9)]
    full = label_costs(model, [[12, 40, 5]], [labels])
    best = int(full.argmin())
    offsets = np.zeros(216)
    offsets[best] = 100.0
    asked = wanted([DecisionRule("fitted", (1.0,) * 216, tuple(offsets))])
    with counted(model) as tokens:
        found = label_costs(model, [[12, 40, 5]], [labels], [asked])
    assert tokens == [3, 2]
    assert found[0, best].item() == pytest.approx(full[0, best].item(), abs=SAME)
    assert int(found.isfinite().sum()) == 6  # all behind the same two tokens


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_context_in_use_and_bounds_on_memory_change_no_decision(
    strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS["gemma2"]
    labels = [[LabelIds(ids) for ids in ((7,), (7, 8, 9, 10), (5, 6), (5, 6, 7), (41, 40, 5, 3, 2))]] * 5
    contents = [[12, 40, 5, 6, 33, 9, 3], [8, 17, 3], [44], [20, 61, 10, 5, 7, 9, 22, 31, 2, 6, 4], [20, 61, 10]]
    rule = by_length("per token", Lengths.of("abcde", [len(label.ids) for label in labels[0]]))
    with el.use(model, capture_tokens(model, torch.tensor([[7, 9, 4]])), strength):
        full = label_costs(model, contents, labels)
        for nodes, kept, tokens in ((256, 4096, 4096), (1, 1, 1), (2, 7, 20)):
            monkeypatch.setattr(label_scores, "NODES", nodes)
            monkeypatch.setattr(label_scores, "NODE_TOKENS", kept)
            monkeypatch.setattr(label_scores, "CONTENT_TOKENS", tokens)
            some = label_costs(model, contents, labels, [wanted([rule], (1,))] * 5)
            assert rule.decide(some).tolist() == rule.decide(full).tolist()
            known = some.isfinite()
            assert (some[known] - full[known]).abs().max() < SAME


def test_not_a_number_is_not_hidden() -> None:
    hf = tiny_model("llama", dtype=torch.float64)
    torch.nn.init.constant_(hf.lm_head.weight, torch.nan)
    labels = [LabelIds((3, 4)), LabelIds((5,)), LabelIds((6, 7))]
    found = label_costs(Model(hf), [[1, 2]], [labels], [wanted([DecisionRule("sum", (1.0,) * 3, (0.0,) * 3)])])
    assert found.isnan().all()
