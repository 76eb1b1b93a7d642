"""A person's own score: one answer at a time or all together, looked at, resampled, and refused in words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from elicitable.diagnosis.intervals import gap, interval
from elicitable.errors import InputError
from elicitable.scores.catalog import score_from
from elicitable.scores.scorer import floor

TARGETS = ["a", "b", "a", "b", "a", "a"]
ANSWERS = ["a", "b", "b", "b", "a", "b"]


def contains(target: str, answer: str) -> float:
    return float(target in answer)


def harsh(targets: list[str], answers: list[str]) -> float:
    """No mean: right answers over right answers plus twice the wrong ones."""
    right = sum(t == a for t, a in zip(targets, answers, strict=True))
    return right / (right + 2 * (len(targets) - right))


def macro(targets: list[str], answers: list[str]) -> float:
    return f1_score(targets, answers, labels=["a", "b"], average="macro", zero_division=np.nan)


def test_a_function_of_one_answer_is_a_mean_over_items() -> None:
    scorer = score_from(contains)
    assert (scorer.name, scorer.point(["a", "b"], ["ab", "c"])) == ("contains", 0.5)
    assert scorer.scored(["a", "b"], ["ab", "c"]).under(np.array([[2.0, 0.0]])).tolist() == [1.0]


def test_a_function_of_all_answers_is_resampled_as_it_is() -> None:
    own, ours = score_from(macro), score_from("macro-f1", ("a", "b"))
    assert own.point(TARGETS, ANSWERS) == pytest.approx(ours.point(TARGETS, ANSWERS))
    counts = np.random.default_rng(0).multinomial(6, [1 / 6] * 6, size=20).astype(float)
    drawn = own.scored(TARGETS, ANSWERS).under(counts)
    assert drawn == pytest.approx(ours.scored(TARGETS, ANSWERS).under(counts))
    assert floor(own, TARGETS).value == pytest.approx(floor(ours, TARGETS).value)


def test_both_kinds_have_intervals_and_gaps() -> None:
    for function in (contains, harsh):
        scorer = score_from(function)
        good, bad = [scorer.scored(TARGETS, TARGETS)], [scorer.scored(TARGETS, ANSWERS)]
        low, high = interval(bad, 0)
        assert low < scorer.point(TARGETS, ANSWERS) < high
        mean, low, high = gap(good, bad, 0)
        assert mean == pytest.approx(1 - scorer.point(TARGETS, ANSWERS))
        assert low <= mean <= high


def test_the_names_of_parameters_say_which_is_the_target() -> None:
    """A function of (prediction, target) got the target as its prediction, and every score was of the wrong one."""

    def own(prediction: str, target: str) -> float:
        return float(prediction.startswith(target))

    def gold_last(text: str, gold_answer: str) -> float:
        return float(text.startswith(gold_answer))

    def answer_is_right(prediction: str, answer: str) -> float:
        return float(prediction.startswith(answer))

    def unknown(one: str, other: str) -> float:
        return float(other.startswith(one))

    def known(answer: str, response: str) -> float:
        return float(response.startswith(answer))

    for function in (own, gold_last, answer_is_right, unknown, known):
        assert score_from(function).point(["a"], ["ab"]) == 1.0, function.__name__
    with pytest.raises(InputError, match="for the target 'a' and the answer 'b'"):
        score_from(_named(lambda prediction, target: prediction / target)).point(["a"], ["b"])


def test_all_are_given_where_the_names_are_plurals() -> None:
    def swapped(predictions: list[str], references: list[str]) -> float:
        return harsh(references, predictions) if isinstance(predictions, list) else 0.0

    assert score_from(swapped).point(TARGETS, ANSWERS) == harsh(TARGETS, ANSWERS)
    assert score_from(_named(lambda answers, targets: float(answers == ["b"]))).point(["a"], ["b"]) == 1.0


@pytest.mark.parametrize("result", [1.5, -0.1, float("nan"), None, "1", [1]])
def test_what_is_no_number_from_0_to_1_is_refused(result: object) -> None:
    with pytest.raises(InputError, match=r"the score mine has to be a number from 0 to 1, got .* target 'a'"):
        score_from(_named(lambda target, answer: result)).point(["a"], ["b"])
    with pytest.raises(InputError, match="the score mine has to be a number from 0 to 1"):
        score_from(_named(lambda targets, answers: result)).point(["a"], ["b"])


def test_an_error_of_the_function_is_told_with_what_it_was_given() -> None:
    with pytest.raises(InputError, match=r"mine raised KeyError for the target 'a' and the answer 'b': 'b'"):
        score_from(_named(lambda target, answer: {}[answer])).point(["a"], ["b"])


@pytest.mark.parametrize("function", [lambda target: 1.0, lambda: 1.0, lambda a, b, c: 1.0, lambda *, target: 1.0])
def test_what_does_not_take_two_texts_is_refused(function: object) -> None:
    with pytest.raises(InputError, match=r"no function of \(target, answer\)"):
        score_from(function)


def _named(function):
    function.__name__ = "mine"
    return function
