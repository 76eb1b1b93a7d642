"""Decision rules against enumeration, numpy, scikit-learn and what must not change them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicitable.errors import InputError
from elicitable.training.decision_rules import (
    FOLDS,
    RULES,
    DecisionRule,
    Lengths,
    by_length,
    candidates,
    choose,
    fitted,
    prior_corrected,
)

LABELS = (" no", " certainly yes", " naïve")
LENGTHS = Lengths.of(LABELS, (1, 3, 2))


def costs(seed: int = 0, items: int = 200, shift: tuple[float, ...] = (0.0, 4.0, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """A model that knows the label up to noise, and likes the first one too much."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, items, p=[0.5, 0.3, 0.2])
    nats = 6 + rng.normal(size=(items, 3)) + np.array(shift)
    nats[np.arange(items), truth] -= 2.5
    return nats, truth


def test_the_lengths_are_lm_evaluation_harness_s() -> None:
    """lm_eval 0.4.13, ConfigurableTask.process_results: lls / len(choice), and / len(choice.encode("utf-8"))."""
    nats, truth = costs()
    choices = [label.strip() for label in LABELS]
    rules = {rule.name: rule for rule in candidates(nats, truth, LENGTHS)}
    norm = np.argmax(-nats / np.array([float(len(i)) for i in choices]), axis=1)
    bytes_ = np.argmax(-nats / np.array([float(len(i.encode("utf-8"))) for i in choices]), axis=1)
    assert rules["per character"].decide(nats).tolist() == norm.tolist()
    assert rules["per byte"].decide(nats).tolist() == bytes_.tolist()
    assert rules["sum"].decide(nats).tolist() == np.argmax(-nats, axis=1).tolist()
    assert rules["per token"].decide(nats).tolist() == np.argmax(-nats / np.array([1.0, 3.0, 2.0]), axis=1).tolist()
    assert len({tuple(rule.decide(nats).tolist()) for rule in rules.values()}) >= 5  # the rules are not one rule


def test_equally_good_labels_are_decided_for_the_first() -> None:
    tied = np.array([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    assert DecisionRule("sum", (1.0,) * 3, (0.0,) * 3).decide(tied).tolist() == [1, 0]


def test_prior_correction_takes_off_each_labels_mean_and_needs_no_labels() -> None:
    nats, truth = costs()
    rule = prior_corrected(nats)
    assert rule.offsets == pytest.approx(nats.mean(0), abs=1e-12)
    assert rule.costs(nats).mean(0) == pytest.approx(np.zeros(3), abs=1e-12)
    raw = np.mean(nats.argmin(1) == truth)
    assert np.mean(rule.decide(nats) == truth) > raw + 0.1


@given(st.lists(st.integers(-64, 64), min_size=3, max_size=3))
def test_what_a_label_always_costs_more_changes_no_corrected_or_fitted_decision(eighths: list[int]) -> None:
    nats, truth = costs()
    moved = nats + np.array(eighths) / 8
    others, _ = costs(1)
    for make in (prior_corrected, lambda n: fitted(n, truth)):
        before, after = make(nats), make(moved)
        assert after.costs(others + np.array(eighths) / 8) == pytest.approx(before.costs(others), abs=1e-6)
        assert (after.decide(others + np.array(eighths) / 8) == before.decide(others)).all()


def test_what_an_item_costs_more_for_all_labels_changes_no_fitted_rule() -> None:
    nats, truth = costs()
    lifted = fitted(nats + np.linspace(0, 9, len(nats))[:, None], truth)
    ours = fitted(nats, truth)
    assert np.diff(lifted.offsets) == pytest.approx(np.diff(ours.offsets), abs=1e-6)


def test_the_fitted_offsets_are_scikit_learns_logistic_regression() -> None:
    """Two labels: the log-odds are s·(c_1 − c_2) + δ; without a penalty both are the plain maximum likelihood."""
    from sklearn.linear_model import LogisticRegression

    nats, truth = costs()
    two, right = nats[truth < 2][:, :2], truth[truth < 2]
    model = LogisticRegression(C=1e8, tol=1e-10, max_iter=10_000).fit((two[:, 0] - two[:, 1])[:, None], right)
    boundary = -model.intercept_[0] / model.coef_[0, 0]
    rule = fitted(two, right, penalty=1e-8)
    assert rule.offsets[0] - rule.offsets[1] == pytest.approx(boundary, abs=1e-4)


def test_the_fitted_rule_is_a_minimum_and_the_same_every_time() -> None:
    nats, truth = costs()
    rule = fitted(nats, truth)
    assert fitted(nats.copy(), truth.copy()) == rule
    strict = fitted(nats, truth, penalty=1e6)
    prior = prior_corrected(nats)
    assert np.diff(strict.offsets) == pytest.approx(np.diff(prior.offsets), abs=1e-3)  # no evidence: prior-corrected
    assert abs(np.diff(rule.offsets) - np.diff(prior.offsets)).max() > 0.05


def test_a_rule_is_plain_json_and_counts_its_numbers() -> None:
    nats, truth = costs()
    rules = candidates(nats, truth, LENGTHS)
    assert tuple(rule.name for rule in rules) == RULES
    assert [rule.numbers for rule in rules] == [0, 0, 0, 0, 2, 2]
    for rule in rules:
        assert DecisionRule.of_record(json.loads(json.dumps(rule.record()))) == rule


def test_the_choice_is_the_best_on_validation_and_of_equals_the_simplest() -> None:
    nats, truth = costs()
    chosen = choose(nats, truth, LENGTHS)
    assert chosen.estimates[chosen.rule.name] == max(chosen.estimates.values())
    assert chosen.rule.name in ("prior-corrected", "fitted")
    assert chosen.rule in candidates(nats, truth, LENGTHS)  # numbers from all of validation
    perfect = np.where(np.eye(3)[truth] == 1, 0.0, 100.0)
    assert choose(perfect, truth, LENGTHS).estimates == dict.fromkeys(RULES, 1.0)
    assert choose(perfect, truth, LENGTHS).rule.name == "sum"


def test_an_estimate_is_made_on_items_that_the_numbers_do_not_come_from() -> None:
    """Labels are drawn by chance: fitted to them offsets look better than chance, cross-validated they do not."""
    gains, honest = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        nats, truth = rng.normal(size=(40, 8)), rng.integers(8, size=40)
        lengths = Lengths.of([f" {k}" for k in "abcdefgh"], (1,) * 8)
        gains.append(np.mean(fitted(nats, truth).decide(nats) == truth))
        honest.append(choose(nats, truth, lengths).estimates["fitted"])
    assert np.mean(gains) > 0.16
    assert np.mean(honest) < 0.15  # 1/8, and two of 800 items' chance errors of 0.012


def test_folds_keep_groups_together_and_are_the_same_for_every_arm() -> None:
    """Each text is there five times and each copy in a fold of its own would give its label away."""
    rng = np.random.default_rng(0)
    nats, truth = rng.normal(size=(8, 8)) * 0.01, np.arange(8)
    lengths = Lengths.of([f" {k}" for k in "abcdefgh"], (1,) * 8)
    groups = np.repeat(np.arange(8), FOLDS).tolist()
    many, right = np.repeat(nats, FOLDS, axis=0), np.repeat(truth, FOLDS)
    apart = choose(many, right, lengths, groups=groups).estimates["fitted"]
    assert apart != choose(many, right, lengths).estimates["fitted"]
    assert choose(many, right, lengths, groups=groups) == choose(many, right, lengths, groups=[str(g) for g in groups])


def test_another_score_may_choose() -> None:
    nats, truth = costs()

    def only_the_rare_label(right: np.ndarray, given: np.ndarray) -> float:
        return float((given == 2)[right == 2].mean())

    chosen = choose(nats, truth, LENGTHS, value=only_the_rare_label)
    assert chosen.estimates[chosen.rule.name] == max(chosen.estimates.values())
    assert chosen.estimates != choose(nats, truth, LENGTHS).estimates


def test_few_items_and_absent_labels_can_be_chosen_from() -> None:
    assert choose([[1.0, 2.0, 3.0]], [0], LENGTHS).rule.name == "sum"
    assert choose([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], [0, 0], LENGTHS).rule.name in RULES


@pytest.mark.parametrize(
    ("nats", "truth", "message"),
    [
        ([1.0, 2.0], [0], "costs are"),
        (np.zeros((0, 3)), [], "costs are"),
        ([[1.0, 2.0, 3.0]], [0, 1], "1 items have 2"),
        ([[1.0, 2.0, 3.0]], [3], "place 3"),
        ([[1.0, 2.0, 3.0]], [-1], "place -1"),
        ([[1.0, float("nan"), 3.0]], [0], "NaN"),
    ],
)
def test_costs_that_no_rule_can_be_made_from_are_refused(nats: object, truth: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(nats, truth, LENGTHS)


def test_a_label_of_no_characters_costs_more_than_any_other() -> None:
    """As where lm-evaluation-harness divides by 0."""
    lengths = Lengths.of((" ", " long", " no"), (1, 1, 1), lead=" ")
    assert lengths.characters == (0, 4, 2)
    for name in ("per character", "per byte"):
        rule = by_length(name, lengths)
        assert rule.decide([[0.1, 900.0, 800.0], [0.1, 900.0, 300.0]]).tolist() == [1, 2]
    assert by_length("sum", lengths).decide([[0.1, 900.0, 800.0]]).tolist() == [0]


def test_a_rule_for_other_labels_and_labels_without_a_length_are_refused() -> None:
    with pytest.raises(InputError, match="for 2 labels, the costs are of 3"):
        DecisionRule("sum", (1.0, 1.0), (0.0, 0.0)).decide([[1.0, 2.0, 3.0]])
    with pytest.raises(InputError, match="has no length"):
        Lengths.of(("",), (1,))
    with pytest.raises(InputError, match="2 groups were given for 1 items"):
        choose([[1.0, 2.0, 3.0]], [0], LENGTHS, groups=[1, 2])
