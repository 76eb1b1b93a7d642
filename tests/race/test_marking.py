"""Answers are marked by the score that was asked for, and labels are decided between by the rule validation chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from tests.families import reader
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import elicitable as el
from elicitable.cli.tune import _said
from elicitable.errors import InputError, UnknownNameError
from elicitable.models.model import Model
from elicitable.race.marking import Marking, text_of_target
from elicitable.report.html import report_html
from elicitable.scores.best_of import best_of
from elicitable.scores.exact_match import ExactMatch
from elicitable.scores.token_f1 import TokenF1
from elicitable.tasks.base import groups_of
from elicitable.tasks.catalog import task_from
from elicitable.training.decision_rules import DecisionRule
from elicitable.training.evaluate import Reading, evaluate, read_labels
from elicitable.values import Item

LABELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def model() -> Model:
    """A random model with a taste: whatever it reads, "blue" is likelier than it should be."""
    words = ["<unk>", "</s>", "Label:", "sees", *LABELS, *(f"n{i}" for i in range(60))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, eos_token_id=1, bos_token_id=None, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    hf = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        table = hf.model.embed_tokens.weight
        table.normal_(0, 1.0)
        hf.lm_head.weight.copy_(table)  # it writes again what it reads: the colour that it sees
        hf.lm_head.weight[words.index("blue")] *= 1.5
    return el.load(hf, tokenizer=wrapped)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "colours.csv"
    drawn = np.random.default_rng(0)
    lines = [f"n{drawn.integers(60)} n{drawn.integers(60)} sees {LABELS[i % 3]},{LABELS[i % 3]}" for i in range(240)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def raced(model: Model, rows: Path, **given: Any) -> Any:
    chosen = {"methods": ["zero-shot"], "seeds": 1, "test_items": 40} | given
    return el.verdict(model, rows, template="{text}\nLabel:", **chosen)


def test_plain_likelihood_is_what_evaluate_scores_and_a_rule_can_only_be_chosen_for_being_better_on_validation(
    model: Model, rows: Path
) -> None:
    plain, auto = (raced(model, rows, rule=rule).arms[0] for rule in ("sum", "auto"))
    task = task_from(rows, template="{text}\nLabel:")
    items = task.held_out("test", 40)
    assert plain.rule == "sum"
    assert plain.raw_mean == plain.mean == auto.raw_mean
    assert plain.correct[0] == evaluate(model, items, task.labels(), Reading()).correct
    known = task.held_out("validation", 64)
    marking = Marking.of(model, task)
    marked = marking.mark(model, task, items, known, Reading())
    nats = read_labels(model, items, task.labels(), Reading()).nats
    rule = marked.rule
    assert rule is not None
    wanted = tuple(task.labels()[place].strip() for place in rule.decide(nats))
    assert marked.written == wanted
    assert DecisionRule.of_record(rule.record()) == rule


def test_numbers_that_a_rule_takes_from_validation_count_as_trained(model: Model, rows: Path) -> None:
    fitted = raced(model, rows, rule="fitted").arms[0]
    assert fitted.rule == "fitted"
    assert fitted.budget.numbers_trained == len(LABELS) - 1
    assert raced(model, rows, rule="sum").arms[0].budget.numbers_trained == 0


def test_the_score_that_was_asked_for_decides(model: Model, rows: Path) -> None:
    answer = raced(model, rows, score="macro-f1")
    arm, items = answer.arms[0], task_from(rows, template="{text}\nLabel:").held_out("test", 40)
    targets = [text_of_target(item) for item in items]
    assert arm.mean == pytest.approx(f1_score(targets, arm.answers[0], average="macro"), abs=1e-12)
    assert arm.low <= arm.mean <= arm.high
    assert answer.provenance["score"] == "macro-f1"
    assert "macro-f1: harmonic mean" in report_html(answer)
    assert [sample["answer"] for sample in arm.samples] == list(arm.answers[0][:5])
    assert answer.classes is not None
    assert sum(map(sum, answer.classes.counts)) == 40


def test_a_function_of_ones_own_scores_too(model: Model, rows: Path) -> None:
    def first_letter(target: str, answer: str) -> float:
        return float(target[0] == answer[0])

    arm = raced(model, rows, score=first_letter).arms[0]
    items = task_from(rows, template="{text}\nLabel:").held_out("test", 40)
    wanted = np.mean([text_of_target(item)[0] == given[0] for item, given in zip(items, arm.answers[0], strict=True)])
    assert arm.mean == pytest.approx(wanted)


def test_a_score_from_a_file_is_part_of_a_trials_identity(model: Model, rows: Path, tmp_path: Path) -> None:
    scores = []
    for value in (1.0, 0.5):
        (tmp_path / "my_score.py").write_text(f"def mine(target, answer):\n    return {value}\n")
        scores.append(raced(model, rows, score=f"{tmp_path / 'my_score.py'}:mine", out=tmp_path / "out").arms[0].mean)
    assert scores == [1.0, 0.5]


def test_rows_of_one_text_are_one_item_for_the_interval(model: Model, rows: Path, tmp_path: Path) -> None:
    head, *lines = rows.read_text().splitlines()
    (tmp_path / "thrice.csv").write_text("\n".join([head, *(line for line in lines for _ in range(3))]) + "\n")
    once = raced(model, rows, rule="sum", test_items=40).arms[0]
    thrice = raced(model, tmp_path / "thrice.csv", rule="sum", test_items=120).arms[0]
    groups = groups_of(task_from(tmp_path / "thrice.csv"), "test", 120)
    assert len(set(groups)) <= 40
    assert 0 < thrice.mean < 1
    assert thrice.high - thrice.low > 0.8 * (once.high - once.low)  # not narrower by √3


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"score": "acuracy"}, UnknownNameError, "did you mean 'accuracy'"),
        ({"rule": "summ"}, UnknownNameError, "did you mean 'sum'"),
        ({"score": "regex"}, InputError, "needs its PATTERN"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    model: Model, rows: Path, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        raced(model, rows, **given)


def test_digits_have_exact_match_alone() -> None:
    with pytest.raises(InputError, match="exact match alone"):
        el.verdict("toy:ascending", "ascending", methods=["zero-shot"], score="chrf")


def test_free_answers_are_generated_for_a_score_that_reads_them(model: Model, tmp_path: Path) -> None:
    lines = "".join(f"n{i % 60} n{(7 * i) % 60} sees {LABELS[i % 3]},{LABELS[i % 3]}\n" for i in range(240))
    (tmp_path / "free.csv").write_text("prompt,target\n" + lines)
    answer = el.verdict(
        model, tmp_path / "free.csv", methods=["zero-shot"], seeds=1, test_items=16, score="chrf", stop="sees"
    )
    arm = answer.arms[0]
    assert len(arm.answers[0]) == 16
    assert 0.0 <= arm.mean <= 1.0
    assert answer.classes is None


def test_tune_scores_as_a_verdict_does(model: Model, rows: Path, tmp_path: Path) -> None:
    """The score, the rule and the intervals are a race's, and another score is not taken from the same folder."""
    given: dict[str, Any] = {
        "method": "kv-prefix", "size": 1, "learning_rate": 0.01, "steps": 2, "test_items": 40, "chat": "off",
        "template": "{text}\nLabel:", "out": tmp_path / "adapter",
    }  # fmt: skip
    tuned = el.tune(model, rows, score="macro-f1", rule="prior-corrected", **given)
    task = task_from(rows, template="{text}\nLabel:")
    marking = Marking.of(model, task, "macro-f1", "prior-corrected")
    items, known = task.held_out("test", 40), task.held_out("validation")
    with torch.no_grad(), el.use(model, tuned.adaptation):
        marked = marking.mark(model, task, items, known, Reading())
    targets = [text_of_target(item) for item in items]
    assert tuned.record["mean"] == pytest.approx(f1_score(targets, marked.written, average="macro"), abs=1e-12)
    assert tuned.record["score"] == "macro-f1"
    assert tuned.record["rule"]["name"] == "prior-corrected"
    assert tuned.record["raw_mean"] == marked.raw.share
    with pytest.raises(el.errors.StoreError, match="another marking"):
        el.tune(model, rows, score="mcc", rule="prior-corrected", **given)


def test_rules_are_compared_by_all_right_answers() -> None:
    """A score that takes several right answers is given them where rules are compared, not the letters of one text."""
    marking = Marking(best_of(ExactMatch()), "sum", "")
    right, value = marking._valued([el.values.Item("a", " yes"), el.values.Item("b", " no")], (" yes", " no"))
    assert right.tolist() == [0, 1]
    assert value([0, 1], [0, 1]) == 1.0
    assert value([0, 1], [1, 1]) == 0.5


def test_a_tuning_says_by_which_rule_and_beside_what_its_score_stands(model: Model, rows: Path) -> None:
    """The rule, and what always giving one answer scores, were in no sentence: 0.62 of two labels is little."""
    tuned = el.tune(model, rows, method="kv-prefix", size=1, learning_rate=0.01, steps=2, test_items=30)
    record, lines = tuned.record, list(_said(tuned.record))
    targets = [text_of_target(item) for item in task_from(rows).held_out("test", 30)]
    share = max(targets.count(label) for label in LABELS) / 30
    assert record["floor"] == pytest.approx(share, abs=1e-4)
    assert f"on 30 test items (always giving one answer: {share:.3f}); " in lines[0]
    assert record["rule"]["name"] == "prior-corrected"
    assert lines[1].endswith(f"by the plain likelihood it has {record['raw_mean']:.3f} right.")
    plain = list(_said({**record, "rule": {"name": "sum"}}))
    assert not any("by the rule" in line for line in plain)


def test_a_rule_between_labels_is_refused_where_there_are_none(model: Model) -> None:
    """It was left out without a word."""
    pairs = [{"prompt": f"n{n} sees", "target": f"n{n % 7}"} for n in range(60)]
    with pytest.raises(InputError, match="decides between labels, and data has free answers"):
        Marking.of(model, task_from(pairs), None, "fitted")


def test_guessing_among_an_item_s_own_choices_is_the_floor() -> None:
    """Four choices were guessed right a quarter of the time, which beat "one answer" of 0.005 and was already there."""
    items = [Item(f"q{n}", f" a{n} {n % 4}", choices=tuple(f" a{n} {k}" for k in range(4))) for n in range(200)]
    assert Marking(ExactMatch()).floor(items) == 0.25
    first = [replace(item, target=item.choices[0 if n % 5 else 1]) for n, item in enumerate(items)]
    assert Marking(ExactMatch()).floor(first) == 0.8  # always the first one
    two = [replace(item, choices=(item.target, " other")) for item in items]
    assert Marking(ExactMatch()).floor(two) == 1.0
    mixed = [replace(item, choices=item.choices if n % 2 else (item.target, " b")) for n, item in enumerate(items)]
    assert Marking(TokenF1()).floor(mixed) > 0.5


def squad_like(number: int, several: bool) -> dict[str, Any]:
    answers = [f"the year {number}", f"{number}"][: 1 + several]
    return {"prompt": f"Text {number} is of the year {number}. When?", "target": answers}


def test_right_answers_that_the_test_file_alone_has_several_of_all_count() -> None:
    train = [squad_like(n, False) for n in range(60)]
    task = task_from(train, test=[squad_like(n, True) for n in range(100, 140)], prompt_column="prompt")
    marking = Marking.of(reader("byte-level BPE"), task)
    assert marking.scorer == best_of(ExactMatch())
    items = task.held_out("test", 8)
    given = [item.accepted[-1].strip() for item in items]
    assert marking.scorer.point(marking.targets(items), given) == 1.0
    assert "2 at most" in task.reading.several


def test_a_target_of_the_test_split_that_cannot_be_scored_is_said_before_anything_is_trained() -> None:
    train = [{"prompt": f"How many are {n}?", "target": f"{n}"} for n in range(60)]
    test = [{"prompt": f"How many are {n}?", "target": "n/a" if n == 70 else f"{n}"} for n in range(61, 80)]
    task = task_from(train, test=test, prompt_column="prompt", target_column="target")
    with pytest.raises(InputError, match="n/a"):
        Marking.of(reader("byte-level BPE"), task, "numeric")
