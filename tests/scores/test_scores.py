"""Every score against its library's own value, on random answers and on resamples of them, duplicates included."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from sklearn import metrics

from elicitable.errors import InputError, UnknownNameError
from elicitable.scores.catalog import SCORES, score_from
from elicitable.scores.confusion import class_results
from elicitable.scores.scorer import floor

LABELS = ("a", "b", "c", "d", "e")
ROUNDING = 1e-12  # sums of at most thirty numbers up to 1
Pairs = tuple[list[str], list[str]]


def labelled(rng: np.random.Generator, items: int) -> Pairs:
    """Labels, the rare ones often missing, half of them answered right, some answers no label."""
    targets = rng.choice(LABELS, items, p=[0.5, 0.3, 0.1, 0.05, 0.05]).tolist()
    return targets, [t if rng.random() < 0.5 else str(rng.choice([*LABELS, "none of them"])) for t in targets]


def written(rng: np.random.Generator, items: int) -> Pairs:
    """Texts of a few words in two scripts, some answers empty."""
    pool = ["the", "cat", "sat", "naïve", "x", "о́н", "U.S.", "2,000", "an"]

    def text() -> str:
        return "on " + " ".join(rng.choice(pool, int(rng.integers(0, 5))))

    targets = [text() for _ in range(items)]
    return targets, [t if rng.random() < 0.3 else text() if rng.random() < 0.9 else "" for t in targets]


def balanced(targets: list[str], answers: list[str]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metrics.balanced_accuracy_score(targets, answers)


def macro_f1(targets: list[str], answers: list[str]) -> float:
    return metrics.f1_score(targets, answers, labels=LABELS, average="macro", zero_division=math.nan)


def mcc(targets: list[str], answers: list[str]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metrics.matthews_corrcoef(targets, answers)


def rouge_l(targets: list[str], answers: list[str]) -> float:
    scorer = RougeScorer(["rougeL"])
    return float(np.mean([scorer.score(t, a)["rougeL"].fmeasure for t, a in zip(targets, answers, strict=True)]))


LIBRARY: dict[str, tuple[Callable[[np.random.Generator, int], Pairs], Callable[[list[str], list[str]], float]]] = {
    "accuracy": (labelled, metrics.accuracy_score),
    "balanced-accuracy": (labelled, balanced),
    "macro-f1": (labelled, macro_f1),
    "mcc": (labelled, mcc),
    "rouge-l": (written, rouge_l),
    "chrf": (written, lambda targets, answers: CHRF().corpus_score(answers, [targets]).score / 100),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_score_is_its_librarys_also_on_resamples(name: str) -> None:
    draw, library = LIBRARY[name]
    rng, scorer, seen = np.random.default_rng(0), score_from(name, LABELS), set()
    for _ in range(25):
        items = int(rng.integers(1, 30))
        targets, answers = draw(rng, items)
        assert scorer.point(targets, answers) == pytest.approx(library(targets, answers), abs=ROUNDING)
        counts = rng.multinomial(items, [1 / items] * items, size=3).astype(float)
        for row, ours in zip(counts, scorer.scored(targets, answers).under(counts), strict=True):
            drawn = np.repeat(np.arange(items), row.astype(int))
            theirs = library([targets[i] for i in drawn], [answers[i] for i in drawn])
            assert ours == pytest.approx(theirs, abs=ROUNDING)
            assert scorer.lowest <= ours <= scorer.highest + ROUNDING
            seen.add(round(float(ours), 6))
    assert len(seen) > 15


def test_rouge_l_is_its_librarys_to_the_last_bit_also_of_long_texts() -> None:
    rng, scorer, seen = np.random.default_rng(0), score_from("rouge-l"), set()
    for kinds in (1, 2, 5, 50):
        for _ in range(20):
            target, answer = (" ".join(rng.choice(list(map(str, range(kinds))), rng.integers(1, 200))) for _ in "ab")
            assert scorer.point([target], [answer]) == rouge_l([target], [answer])
            seen.add(scorer.point([target], [answer]))
    assert len(seen) > 50


def test_rouge_l_of_texts_of_thousands_of_words_takes_no_table_of_them() -> None:
    """The package's table of 36 million cells took a gigabyte and seven seconds."""
    words = [f"w{i * i % 97}" for i in range(6_000)]
    tracemalloc.start()
    assert score_from("rouge-l").point([" ".join(words)], [" ".join([*words[:3_000], *words])]) == 2 * 6 / (6 + 9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("name", ["exact-match", "token-f1", "numeric:0.5", "regex:[a-z]+", "equal-json"])
def test_a_mean_over_items_is_one_also_on_resamples(name: str) -> None:
    scorer = score_from(name)
    targets, answers = ["1", "2", "3", "40"], ["1", "2.5", "the 3", "no"]
    values = [scorer.point([t], [a]) for t, a in zip(targets, answers, strict=True)]
    counts = np.array([[1, 1, 1, 1], [4, 0, 0, 0], [0, 1, 3, 0]], dtype=float)
    assert scorer.scored(targets, answers).under(counts) == pytest.approx(counts @ values / 4)
    assert scorer.point(targets, answers) == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("name", "target", "answer", "worth"),
    [
        ("exact-match", " 1", " 10", 0),
        ("exact-match", " 1", "1\n", 1),
        ("exact-match", "Yes", "yes", 0),
        ("token-f1", "the Eiffel Tower", "eiffel tower, in Paris", 2 * 2 / (2 + 4)),
        ("token-f1", "a a b", "a b b", 2 / 3),  # "a" is an article: b beside b b
        ("token-f1", "the", "an", 1),
        ("token-f1", "the", "cat", 0),
        ("rouge-l", "the cat sat", "the sat cat", 2 / 3),
        ("numeric", "42", "It is 42.", 1),
        ("numeric", "42", "40 + 2 = 42 apples", 1),
        ("numeric", "42", "42 or 43", 0),
        ("numeric", "1,200", "$1200.00", 1),
        ("numeric", "-3", "x = −3", 1),
        ("numeric", "3", "5-3", 1),
        ("numeric", "5", "5kg of H2O", 1),
        ("numeric", "5", "five", 0),
        ("numeric:0.01", "1.00", "1.01", 1),  # in binary numbers, 1.01 − 1.00 > 0.01
        ("numeric:0.01", "1.00", "1.0101", 0),
        ("numeric:0.01", "1", "1e999999999", 0),
        ("numeric", "#### 42", "42", 1),
        ("numeric", "-$5.00", "$5.00", 0),  # the sign was lost, and so it was right
        ("numeric", "-$5.00", "it is -5 dollars", 1),
        ("numeric", "−€1,200", "-1200", 1),
        ("numeric", "\N{EN DASH}5", "5", 0),
        ("numeric", "\N{EN DASH}5", "-5", 1),
        ("numeric", "5", "3\N{EN DASH}5", 1),  # a range
        ("numeric", "2", "2½", 0),
        ("numeric", "1", "The roots are 1,2,3", 0),  # of digits that are no thousands, none is sure to be a number
        ("numeric", "3", "The roots are 1,2,3", 0),
        ("numeric", "2", "x = 2,3", 0),
        ("numeric", "3", "x = 2,3", 0),
        ("numeric", "2", "x = 2,34567", 0),
        ("numeric", "7", "x = 1,234,56 or 7", 1),
        ("numeric", "234", "1,234,56", 0),
        ("numeric", "1234", "1,234,56", 0),
        ("numeric", "3", "v1.2.3", 0),
        ("numeric", "1.2", "1.2.3", 0),
        ("numeric", "3", "1, 2, 3", 1),
        ("numeric", "500", "It costs Rs.500", 1),
        ("numeric", "Rs.500", "500", 1),
        ("numeric", "500", "No.500, then", 1),
        ("numeric", "5", "It is a,5", 1),
        ("numeric", "3", "It is 3.", 1),
        ("numeric", "1234.5", "1,234.5", 1),
        ("numeric", ".5", "It is .5", 1),
        ("numeric", "5", "5²", 0),
        (r"regex:#### (-?\d+)", "so 6 × 7, #### 42", "#### 42 and #### 43", 1),
        (r"regex:#### (-?\d+)", "42", "42", 0),  # the answer has no match
        (r"regex:#### (-?\d+)", "42", "#### 42", 1),
        ("regex:[A-D]", "B", "(B) because of A", 1),
        ("regex:[A-D]", "B", "Answer", 0),
        ("regex:x(y)?", "y", "x", 0),
        ("regex:(yes)|(no)", "no", "I say no", 1),
        ("regex:(yes)|(no)", "no", "yes", 0),
        ("regex:(?=a)", "b", "a", 0),
        ("equal-json", '{"a": 1, "b": [1.0, true]}', '{"b":[1,true],\n"a":1e0}', 1),
        ("equal-json", "[1, 2]", "[2, 1]", 0),
        ("equal-json", "true", "1", 0),
        ("equal-json", "0.1", "0.10000000000000000001", 0),
        ("equal-json", '{"a": 1}', '{"a": 2, "a": 1}', 0),
        ("equal-json", '{"a": 1}', 'Here: {"a": 1}', 0),
        ("equal-json", "null", "NaN", 0),
        ("equal-json", "[]", "[" * 100_000, 0),
        ("equal-json", "1e999999999999999999991", "10e999999999999999999990", 1),
        ("equal-json", "1", "1e999999999999999999991", 0),
        ("equal-json", "[1, -0, 1.50]", "[1e0, 0.0, 15E-1]", 1),
        ("chrf", "永字八法", "永字八法", 1),
        ("chrf", "abc", "", 0),
    ],
)
def test_what_one_answer_is_worth(name: str, target: str, answer: str, worth: float) -> None:
    assert score_from(name).point([target], [answer]) == pytest.approx(worth)


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("accuracy", "f", "'f' is not one of the 5 labels"),
        ("mcc", "", "'' is not one of the 5 labels"),
        ("numeric", "about 3 to 4", "is not one number"),
        ("numeric", "1,5", "is not one number"),
        ("numeric", "3/4", "is not one number"),
        ("numeric", "none", "is not one number"),
        *(("numeric", target, "is not one number") for target in ("- 5", "(5)", "($5)", "-US$5", "—5", "2½", "3万")),
        ("equal-json", "{'a': 1}", "is none"),
        ("equal-json", "Infinity", "is none"),
        ("rouge-l", "永字八法", "use chrf"),
        ("regex:[A-D]", " ", "empty target"),
        ("regex:x(y)?", "an x", "matches in the target 'an x', and none of its groups"),
    ],
)
def test_a_target_that_cannot_be_scored_is_refused_by_name(name: str, target: str, told: str) -> None:
    scorer = score_from(name, LABELS)
    for use in (
        lambda: scorer.check([target]),
        lambda: scorer.scored([target], ["a"]),
        lambda: floor(scorer, [target]),
    ):
        with pytest.raises(InputError, match=told):
            use()


@pytest.mark.parametrize(
    ("choice", "labels", "told"),
    [
        ("macro_f1", LABELS, "did you mean 'macro-f1'"),
        ("bleu", None, "FILE.py:FUNCTION"),
        ("macro-f1", None, "for tasks with labels"),
        ("accuracy:1", LABELS, "nothing behind a colon"),
        ("numeric:", None, "needs its TOLERANCE"),
        ("numeric:-1", None, "at least 0"),
        ("numeric:nan", None, "at least 0"),
        ("numeric:inf", None, "at least 0"),
        ("numeric:near", None, "at least 0"),
        ("regex", None, "needs its PATTERN"),
        ("regex:(", None, "no regular expression"),
        ("regex:[0-9]*", None, "matches the empty text"),
        ("regex:a|", None, "matches the empty text"),
    ],
)
def test_a_choice_that_is_none_is_refused(choice: str, labels: tuple[str, ...] | None, told: str) -> None:
    with pytest.raises(InputError) as caught:
        score_from(choice, labels)
    assert told in str(caught.value)
    assert isinstance(caught.value, UnknownNameError) == (choice in ("macro_f1", "bleu"))


def test_every_score_says_what_it_is() -> None:
    arguments = {"regex": "regex:[a-z]+", "numeric": "numeric:0.01"}
    for listed in SCORES:
        scorer = score_from(arguments.get(listed.name, listed.name), LABELS)
        assert scorer.name == arguments.get(listed.name, listed.name)
        assert (scorer.kind, scorer.summary) == (listed.kind, listed.summary)
        assert scorer.lowest < scorer.highest == 1.0
    assert score_from(None, LABELS).name == "accuracy"
    assert score_from(None).name == "exact-match"


@pytest.mark.parametrize("name", ["accuracy", "chrf", "mcc", "exact-match"])
def test_nothing_and_uneven_lists_are_refused(name: str) -> None:
    scorer = score_from(name, LABELS)
    for targets, answers in (([], []), (["a"], []), (["a"], ["a", "b"])):
        for use in (scorer.point, scorer.scored):
            with pytest.raises(InputError, match="one answer for each target"):
                use(targets, answers)


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("accuracy", 0.6, "a"),
        ("balanced-accuracy", 1 / 3, "a"),
        ("macro-f1", 2 * 3 / (3 + 5) / 3, "a"),  # b and c have an F1 of 0
        ("mcc", 0.0, "a"),
        ("exact-match", 0.6, "a"),
    ],
)
def test_the_floor_is_what_always_one_answer_scores(name: str, value: float, answer: str) -> None:
    found = floor(score_from(name, LABELS), ["a", "a", "b", "a", "c"])
    assert (found.value, found.answer) == (pytest.approx(value), answer)


def test_the_floors_answer_is_the_best_of_what_is_offered() -> None:
    assert floor(score_from("exact-match"), ["x", "y", "y"], offered=["x", "z"]).value == pytest.approx(1 / 3)
    # The commonest target shares nothing with the others, a rarer one does:
    found = floor(score_from("token-f1"), ["u v", "u w", "u x", "z", "z"])
    assert found.answer == "z"
    found = floor(score_from("token-f1"), ["u v", "u w", "u x", "u y", "z", "z"])
    assert found.answer == "u v"


def test_class_results_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    targets, answers = labelled(rng, 200)
    found = class_results(targets, answers, LABELS)
    known = [answer if answer in LABELS else "no label" for answer in answers]
    table = metrics.confusion_matrix(targets, known, labels=[*LABELS, "no label"])
    assert found.counts == tuple(map(tuple, table[:-1].tolist()))
    report = metrics.classification_report(targets, known, labels=LABELS, output_dict=True, zero_division=0)
    for one in found.classes:
        theirs = report[one.label]
        assert (one.precision, one.recall, one.f1, one.support) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )


def test_what_cannot_be_said_of_a_class_is_none() -> None:
    a, b, c = class_results(["a", "b"], ["a", "a"], ("a", "b", "c")).classes
    assert (a.precision, a.recall) == (0.5, 1.0)
    assert (b.precision, b.recall, b.f1) == (None, 0.0, 0.0)
    assert (c.precision, c.recall, c.f1, c.support) == (None, None, None, 0)


def test_a_thousand_labels_cost_three_thousand_sums() -> None:
    labels = tuple(map(str, range(1000)))
    scored = score_from("macro-f1", labels).scored(labels, labels[1:] + labels[:1])
    assert scored.under(np.ones((1, 1000))) == 0.0
    assert score_from("macro-f1", labels).statistics(labels[:5], labels[:5]).shape == (5, 3003)


def test_scores_of_words_are_refused_where_the_script_has_none_that_they_read() -> None:
    """One digit in a target of another script was enough, and the digit was all that was scored."""
    russian = [f"Ответ на вопрос номер {n}" for n in range(30)]
    chinese = [f"这个问题的答案是第{n}号" for n in range(30)]
    english = [f"the answer is {n}" for n in range(30)]
    for name, targets in (("rouge-l", russian), ("rouge-l", chinese), ("token-f1", chinese)):
        with pytest.raises(InputError, match="use chrf"):
            score_from(name).check(targets)
    for name, targets in (("rouge-l", english), ("token-f1", english), ("token-f1", russian), ("chrf", chinese)):
        score_from(name).check([*targets, *chinese[:5]] if name == "token-f1" else targets)
