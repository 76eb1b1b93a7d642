"""A race on a task of lm-evaluation-harness is scored as the harness scores, which is run on the same model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.registry import get_aggregation
from tests.tasks.test_harness import CHOICES, EXACT, FREE, MEANS, NUMBER, TASKS, TEST, evaluated, model, write

import elicitable as el
from elicitable.deploy.artefact import read
from elicitable.deploy.predict import Predictor
from elicitable.errors import InputError
from elicitable.race.marking import Marking
from elicitable.scores.of_task import TaskScore
from elicitable.tasks.catalog import task_from

pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own
ONE = {"methods": ["zero-shot"], "seeds": 1, "test_items": TEST, "chat": "off"}
FUNCTION = """
def process_results(doc, results):
    import numpy
    words = results[0].split()
    return {"share": 100 * float(numpy.mean([word in doc["written"].split() for word in words] or [0]))}
"""
SHARE = """metric_list: [{metric: share, aggregation: mean, higher_is_better: true}]
process_results: !function own.process_results"""
CORPUS = (
    "metric_list: [{metric: bleu, aggregation: bleu, higher_is_better: true}, "
    "{metric: chrf, aggregation: chrf, higher_is_better: true}, "
    "{metric: chrf++, aggregation: chrf++, higher_is_better: true}]"
)


def raced(path: str, **given: Any) -> Any:
    return el.verdict(model(), task_from(f"lm-eval:{path}"), **{**ONE, **given}).arms[0]


def theirs(path: str, key: str) -> float:
    (found,) = evaluated(path)["results"].values()
    return float(found[key])


@pytest.mark.parametrize("name", CHOICES)
def test_the_score_of_choices_is_the_harness_s(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, TASKS[name])
    (found,) = evaluated(path)["results"].values()
    for metric in ("acc", "acc_norm", "acc_bytes"):
        assert raced(path, score=metric).mean == pytest.approx(found[f"{metric},none"], abs=1e-12)


@pytest.mark.parametrize("metric", ["f1", "mcc"])
def test_a_score_over_classes_is_the_harness_s(metric: str, tmp_path: Path) -> None:
    body = (
        TASKS["many-way"]
        .replace(MEANS, f"metric_list: [{{metric: {metric}}}]")
        .replace("target: intent", "target: label")
    )
    path = write(tmp_path, "two", re.sub("choice: .*", 'choice: ["long", "slow"]', body))
    arm, wanted = raced(path), theirs(path, f"{metric},none")
    assert arm.mean == pytest.approx(wanted, abs=1e-12)
    assert 0 < wanted < 1
    assert arm.low < arm.mean < arm.high


@pytest.mark.parametrize("name", FREE)
def test_the_score_of_free_answers_is_the_harness_s(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, TASKS[name])
    key = {"generation": "exact_match,strip", "regular expression": "exact_match,number"}.get(name, "exact_match,none")
    arm, wanted = raced(path), theirs(path, key)
    assert arm.mean == pytest.approx(wanted, abs=1e-12)
    assert 0 < wanted < 1
    assert raced(path, score=key).correct == arm.correct


def test_the_score_of_a_continuation_is_the_harness_s(tmp_path: Path) -> None:
    path = write(tmp_path, "continuation", TASKS["continuation"])
    assert raced(path).mean == theirs(path, "acc,none")


def test_the_first_metric_is_the_score_and_every_filter_has_its_name(tmp_path: Path) -> None:
    last = (
        "{name: last, filter: [{function: regex, regex_pattern: '(\\S+)', group_select: -1}, {function: take_first}]}"
    )
    two = f"{NUMBER[:-1]}, {last}]"
    path = write(tmp_path, "two filters", TASKS["regular expression"].replace(NUMBER, two))
    for asked, key in ((None, "number"), ("exact_match", "number"), ("exact_match,last", "last")):
        assert raced(path, score=asked).mean == theirs(path, f"exact_match,{key}")
    path = write(
        tmp_path, "many-way", TASKS["many-way"].replace("{metric: acc}, {metric: acc_norm}", "{metric: acc_norm}")
    )
    answer = el.verdict(model(), task_from(f"lm-eval:{path}"), **ONE)
    assert answer.provenance["score"] == "acc_norm"
    assert answer.provenance["score_says"].endswith("likeliest per character is right, as lm-eval counts it")
    assert answer.arms[0].rule == "per character"


@pytest.mark.parametrize("metric", ["bleu", "chrf", "chrf++"])
def test_a_score_of_a_corpus_is_the_harness_s_on_every_resample(metric: str, tmp_path: Path) -> None:
    path = write(tmp_path, "generation", TASKS["generation"].replace(EXACT, CORPUS))
    arm = raced(path, score=metric)
    assert arm.mean == pytest.approx(theirs(path, f"{metric},strip") / 100, abs=1e-12)
    assert arm.low <= arm.mean <= arm.high
    body = TASKS["generation"].replace(EXACT, CORPUS).replace("target: written", "target: text")
    task = task_from(f"lm-eval:{write(tmp_path, 'longer', body)}")
    scorer, items = Marking.of(model(), task, metric).scorer, task.held_out("test", TEST)
    targets = [str(item.target).strip() for item in items]
    written = [one.replace("fine", "dull") + " indeed" * (place % 2) for place, one in enumerate(targets)]
    counts = np.random.default_rng(0).multinomial(TEST, [1 / TEST] * TEST, size=5)
    for drawn, own in zip(counts, scorer.scored([one.reference for one in items], written).under(counts), strict=True):
        places = np.repeat(np.arange(TEST), drawn).tolist()
        pairs = [(targets[at], written[at]) for at in places]
        assert own == pytest.approx(get_aggregation(metric)(pairs) / 100, abs=1e-12)
        assert 0.3 < own < 1


def test_a_function_of_the_task_s_own_that_counts_to_a_hundred_is_scored_as_a_share(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FUNCTION)
    path = write(tmp_path, "generation", TASKS["generation"].replace(EXACT, SHARE))
    arm, wanted = raced(path), theirs(path, "share,strip")
    assert arm.mean == pytest.approx(wanted / 100, abs=1e-12)
    assert 1 < wanted < 100
    assert arm.low < arm.mean < arm.high


@pytest.mark.parametrize(("full", "declared"), [(5, None), (10, None), (5, "5"), (20, "{share: 20}"), (0.5, "0.5")])
def test_a_function_that_counts_to_another_number_is_scored_as_a_share_of_it(
    full: float, declared: str | None, tmp_path: Path
) -> None:
    """A rating from 0 to 5 was taken for a percentage, and was worth a twentieth at most."""
    (tmp_path / "own.py").write_text(FUNCTION.replace("100 *", f"{full} *"))
    told = f"\nmetadata: {{scale: {declared}}}" if declared else ""
    path = write(tmp_path, "generation", TASKS["generation"].replace(EXACT, SHARE + told))
    arm, wanted = raced(path), theirs(path, "share,strip")
    assert arm.mean == pytest.approx(wanted / full, abs=1e-12)
    assert 0.01 < arm.mean < 1


def test_a_scale_is_looked_at_before_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FUNCTION)
    for declared, why in (("-1", "above 0, got -1"), ("yes", "above 0, got True"), ("50", "between 0 and 50")):
        told = f"\nmetadata: {{scale: {declared}}}"
        path = write(tmp_path, "generation", TASKS["generation"].replace(EXACT, SHARE + told))
        with pytest.raises(InputError, match=why):
            raced(path)


def test_several_right_answers_are_judged_by_the_harness(tmp_path: Path) -> None:
    several = TASKS["regular expression"].replace(
        "doc_to_target: times", "doc_to_target: \"{{ [times|string, '1'] }}\""
    )
    path = write(tmp_path, "several", several)
    arm, wanted = raced(path), theirs(path, "exact_match,number")
    assert arm.mean == wanted
    assert wanted > theirs(write(tmp_path, "one", TASKS["regular expression"]), "exact_match,number")


def test_as_many_tokens_are_written_as_the_harness_reads(tmp_path: Path) -> None:
    """The longest right answer is one word, and twice that would not do for the number that the filter looks for."""
    for most in (24, 2):
        body = TASKS["regular expression"].replace("max_gen_toks: 24", f"max_gen_toks: {most}")
        path = write(tmp_path, "regular expression", body.replace('until: ["\\n"]', 'until: ["never"]'))
        arm = raced(path)
        assert arm.mean == theirs(path, "exact_match,number")
        assert (max(map(len, arm.answers[0])) > 20) == (most == 24)


def test_what_predicts_afterwards_writes_what_the_race_scored(tmp_path: Path) -> None:
    path = write(tmp_path, "regular expression", TASKS["regular expression"].replace('until: ["\\n"]', "until: []"))
    task = task_from(f"lm-eval:{path}")
    answer = el.verdict(model(), task, **{**ONE, "test_items": 8}, out=tmp_path / "run")
    artefact = read(tmp_path / "run")
    assert artefact.record is not None
    assert artefact.record.most_answer == 24
    own = Predictor(model(), artefact.adaptation(model()), artefact.record)
    given = [one.answer for one in own([str(item.prompt) for item in task.held_out("test", 8)])]
    assert given == [one.strip() for one in answer.arms[0].answers[0]]


def test_what_predicts_afterwards_measures_choices_as_the_race_did(tmp_path: Path) -> None:
    """Blanks within a choice are part of its length, and the delimiter before it is not."""
    body = TASKS["own choices"].replace("choice: choices", "choice: \"{{ [choices[0] + '      '] + choices[1:] }}\"")
    task = task_from(f"lm-eval:{write(tmp_path, 'own choices', body)}")
    answer = el.verdict(model(), task, **{**ONE, "test_items": 16}, score="acc_norm", out=tmp_path / "run")
    artefact = read(tmp_path / "run")
    assert artefact.record is not None
    form = artefact.record.form
    rows = [{form.main: str(one.prompt), "choices": list(one.choices)} for one in task.held_out("test", 16)]
    found = []
    for lead in (form.lead, None):
        record = replace(artefact.record, form=replace(form, lead=lead))
        found.append(list(Predictor(model(), artefact.adaptation(model()), record)(rows)))
    assert form.lead == " "
    assert [one.answer for one in found[0]] == list(answer.arms[0].answers[0])
    assert [one.probability for one in found[0]] != [one.probability for one in found[1]]


@pytest.mark.parametrize(
    ("name", "metrics", "asked", "told"),
    [
        ("generation", "ter, aggregation: ter", "ter", "ter cannot be the score of a race: lower is better"),
        (
            "generation",
            "exact_match, aggregation: median",
            "exact_match",
            "aggregated by median, which is no function of",
        ),
        ("two-way", "brier_score", "brier_score", "lower is better. Of this task's metrics these can: acc;"),
        ("two-way", "likelihood", "likelihood", "it is not a function of which choice"),
        ("many-way", "f1", "f1", "it is for two choices that are the same for all documents"),
        ("own choices", "mcc", "mcc", "it is for choices that are the same"),
        ("continuation", "perplexity", "perplexity", "lower is better. Of this task's metrics these can: acc;"),
    ],
)
def test_what_cannot_be_a_race_s_score_is_refused_by_name(
    name: str, metrics: str, asked: str, told: str, tmp_path: Path
) -> None:
    body, _, _ = TASKS[name].partition("metric_list:")
    second = "chrf, aggregation: chrf" if name == "generation" else "acc"
    path = write(tmp_path, name, f"{body}metric_list: [{{metric: {metrics}}}, {{metric: {second}}}]")
    with pytest.raises(InputError, match=told):
        raced(path, score=asked)
    answer = el.verdict(model(), task_from(f"lm-eval:{path}"), **{**ONE, "test_items": 5})
    assert answer.provenance["score"] == second.partition(",")[0]
    assert any(f"lm-eval's metric {asked} cannot be the score" in one for one in answer.provenance["warnings"])


def test_the_metric_s_rule_is_not_to_be_had_with_another(tmp_path: Path) -> None:
    path = write(tmp_path, "two-way", TASKS["two-way"])
    with pytest.raises(InputError, match=r"by the rule 'sum', and not by 'fitted'.*elicitable's: accuracy"):
        raced(path, rule="fitted")
    assert raced(path, rule="fitted", score="accuracy").rule == "fitted"


def test_values_that_no_score_can_be_are_refused_before_the_race(tmp_path: Path) -> None:
    for value, told in (
        ("-1.0", "lies between 0 and 1"),
        ("'much'", "gave an answer 'much'"),
        ("1 / 0", "ZeroDivisionError"),
    ):
        (tmp_path / "own.py").write_text(f"def process_results(doc, results):\n    return {{'share': {value}}}\n")
        path = write(tmp_path, "generation", TASKS["generation"].replace(EXACT, SHARE))
        with pytest.raises(InputError, match=told):
            raced(path)


def test_the_constant_answer_of_the_floor_is_scored_as_the_harness_scores(tmp_path: Path) -> None:
    path = write(tmp_path, "generation", TASKS["generation"])
    task = task_from(f"lm-eval:{path}")
    marking, items = Marking.of(model(), task), task.held_out("test", TEST)
    assert isinstance(marking.scorer, TaskScore)
    targets = [str(item.target).strip() for item in items]
    assert marking.floor(items) == max(map(targets.count, targets)) / TEST
