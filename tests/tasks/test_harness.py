"""Tasks of lm-evaluation-harness, item for item against the harness itself, which is run on the same model."""

from __future__ import annotations

import json
import sys
import warnings
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.families import reader

import elicitable as el
from elicitable.errors import InputError, MissingPackageError, UnknownNameError
from elicitable.methods.instructions import bank
from elicitable.models.layout import Layout, layout_for
from elicitable.models.model import Model
from elicitable.models.rows import rows_of
from elicitable.rng import generator
from elicitable.tasks.base import stops_of
from elicitable.tasks.catalog import task_from
from elicitable.tasks.harness import HarnessTask
from elicitable.tasks.reading import summary_of
from elicitable.training.batches import Reading, encode
from elicitable.training.decision_rules import BY_LENGTH, DecisionRule, Lengths, decide_by_length
from elicitable.training.evaluate import answer_logits, evaluate, read_labels, token_losses
from elicitable.training.generate import generate
from elicitable.values import Item

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own
TEST = 40
WORDS = ("fine", "film", "warm", "dull", "slow", "flat", "long", "lovely", "bright", "simple")
INTENTS = ("card", "card lost", "transfer of money", "balance", "exchange rate please")
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MEANS = "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]"
EXACT = "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]"
STRIPPED = "filter_list: [{name: strip, filter: [{function: remove_whitespace}, {function: take_first}]}]"
NUMBER = "filter_list: [{name: number, filter: [{function: regex, regex_pattern: '([0-9]+)'}, {function: take_first}]}]"
TASKS = {
    "two-way": f"""
output_type: multiple_choice
doc_to_text: "Review: {{{{text}}}}\\nSentiment:"
doc_to_target: label
doc_to_choice: ["negative", "positive"]
{MEANS}""",
    "many-way": f"""
output_type: multiple_choice
doc_to_text: "{{{{text}}}}\\nIntent:"
doc_to_target: intent
doc_to_choice: {json.dumps(INTENTS)}
{MEANS}""",
    "own choices": f"""
output_type: multiple_choice
doc_to_text: "Which word is in {{{{text}}}}?"
doc_to_target: right
doc_to_choice: choices
{MEANS}""",
    "blank at the end": f"""
output_type: multiple_choice
target_delimiter: ""
doc_to_text: "Review: {{{{text}}}}\\nSentiment:\\n"
doc_to_target: label
doc_to_choice: ["negative", "positive"]
{MEANS}""",
    "blanks around choices": f"""
output_type: multiple_choice
doc_to_text: "Review: {{{{text}}}}\\nSentiment:"
doc_to_target: label
doc_to_choice: ["  card lost", "balance"]
{MEANS}""",
    "few-shot": f"""
output_type: multiple_choice
num_fewshot: 3
description: "Say what it is.\\n\\n"
fewshot_split: train
doc_to_text: "Review: {{{{text}}}}\\nSentiment:"
doc_to_target: label
doc_to_choice: ["negative", "positive"]
{MEANS}""",
    "generation": f"""
output_type: generate_until
doc_to_text: "{{{{text}}}} {{{{times}}}}:"
doc_to_target: written
generation_kwargs: {{until: ["\\n", " fine"], max_gen_toks: 24}}
{STRIPPED}
{EXACT}""",
    "few-shot generation": f"""
output_type: generate_until
num_fewshot: 2
fewshot_config: {{sampler: first_n}}
target_delimiter: ""
fewshot_delimiter: "\\n"
doc_to_text: "count {{{{text}}}}:"
doc_to_target: " {{{{times}}}}"
generation_kwargs: {{until: ["\\n\\n", "\\n"], max_gen_toks: 24}}
{EXACT}""",
    "regular expression": f"""
output_type: generate_until
doc_to_text: "count {{{{text}}}}:"
doc_to_target: times
generation_kwargs: {{until: ["\\n"], max_gen_toks: 24}}
{NUMBER}
{EXACT}""",
    "continuation": """
output_type: loglikelihood
doc_to_text: "count {{text}}:"
doc_to_target: " {{times}}"
metric_list: [{metric: acc}]""",
}
CHOICES = ("two-way", "many-way", "own choices", "blank at the end", "blanks around choices", "few-shot")
FREE = ("generation", "few-shot generation", "regular expression")


def document(rng: np.random.Generator) -> dict[str, Any]:
    first, second = rng.choice(WORDS, 2, replace=False).tolist()
    times, count = 1 + int((WORDS.index(first) < 5) != (rng.random() < 0.2)), int(rng.integers(2, 5))
    others = [f"{word} {first}" if rng.random() < 0.5 else word for word in rng.choice(WORDS, count).tolist()]
    at = int(rng.integers(count))
    return {
        "text": f"a {first} and {second} {rng.integers(100)}",
        "label": int(first in ("dull", "slow", "flat", "long")),
        "intent": int(WORDS.index(first) % 5),
        "choices": [*others[:at], second, *others[at + 1 :]],
        "right": [*others[:at], second, *others[at + 1 :]].index(second),
        "times": times,
        "written": " ".join([first] * times),
    }


def write(folder: Path, name: str, body: str, documents: int = TEST) -> str:
    """A task of the harness with its data beside it; returns the path of its file."""
    rng = np.random.default_rng(7)
    for split, count in (("train", 60), ("validation", 20), ("test", documents)):
        rows = [document(rng) for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = "\n".join(f"    {split}: {folder / split}.jsonl" for split in ("train", "validation", "test"))
    splits = "training_split: train\nvalidation_split: validation\ntest_split: test"
    path = folder / "task.yaml"
    path.write_text(
        f"task: {name.replace(' ', '_')}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n{files}\n{splits}{body}\n"
    )
    return str(path)


@lru_cache
def model() -> Model:
    """A tiny Llama in float64 that has begun to learn the tasks, so that its answers differ from item to item."""
    plain = reader("byte-level BPE", 768)
    tokenizer = deepcopy(plain.tokenizer)
    tokenizer.chat_template, tokenizer.pad_token = CHAT, "</s>"
    own = Model(deepcopy(plain.hf), tokenizer=tokenizer, name="tiny")
    rng, optimizer = np.random.default_rng(0), torch.optim.AdamW(own.hf.parameters(), 5e-3)
    for _ in range(60):
        shown = [f"count {doc['text']}: {doc['times']}\n" for doc in (document(rng) for _ in range(2))]
        texts = []
        for doc in (document(rng) for _ in range(6)):
            texts += [
                Item(f"Review: {doc['text']}\nSentiment:", [" negative", " positive"][doc["label"]]),
                Item(f"{doc['text']}\nIntent:", f" {INTENTS[doc['intent']]}"),
                Item(f"Which word is in {doc['text']}?", f" {doc['choices'][doc['right']]}"),
                Item(f"{doc['text']} {doc['times']}:", f" {doc['written']}"),
                Item(f"{''.join(shown)}count {doc['text']}:", f" {doc['times']}"),
                Item(f"count {doc['text']}:", f" {doc['times']}"),
            ]
        batch = encode(own, texts, layout=Layout(end="\n"))
        optimizer.zero_grad()
        token_losses(answer_logits(own, batch), batch.targets).sum().backward()
        optimizer.step()
    return Model(own.hf.double().eval(), tokenizer=tokenizer, name="tiny")


def referee(path: str, **asked: Any) -> list[dict[str, Any]]:
    """What the harness itself finds, one record per document in the order of the data."""
    (samples,) = evaluated(path, **asked)["samples"].values()
    return sorted(samples, key=lambda one: one["doc_id"])


def evaluated(path: str, **asked: Any) -> Any:
    """All that the harness itself says of the model."""
    lm = HFLM(pretrained=model().hf, tokenizer=model().tokenizer, batch_size=8, max_length=768)
    manager = TaskManager(include_defaults=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluator, "add_env_info", lambda results: None)  # a list of all installed packages: seconds
        return evaluator.simple_evaluate(lm, tasks=[path], task_manager=manager, bootstrap_iters=0, **asked)


def reading(task: HarnessTask) -> Reading:
    return Reading(layout=layout_for(model(), "on" if task.turns else "off", stops=stops_of(task)))


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_right_where_the_harness_says_so(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, TASKS[name])
    task, theirs = task_from(f"lm-eval:{path}"), referee(path)
    items = task.held_out("test", TEST)
    nats = read_labels(model(), items, task.labels(), reading(task)).nats
    for row, one in zip(nats.tolist(), theirs, strict=True):
        costs = [-float(said[0][0]) for said in one["resps"]]
        assert row[: len(costs)] == pytest.approx(costs, abs=1e-9)  # one float64 sum in two orders
    score = evaluate(model(), items, task.labels(), reading(task))
    assert list(score.correct) == [one["acc"] for one in theirs]
    assert 0 < sum(score.correct) < TEST
    truth = np.array([item.choices.index(item.target) for item in items])
    for rule, metric in (("per character", "acc_norm"), ("per byte", "acc_bytes")):
        costs = read_labels(model(), items, task.labels(), reading(task), (DecisionRule(rule, (), ()),))
        right = costs.decide(DecisionRule(rule, (), ())).numpy() == truth
        assert right.tolist() == [bool(one[metric]) for one in theirs]


def test_a_rule_per_character_is_acc_norm_where_labels_are_fixed(tmp_path: Path) -> None:
    path = write(tmp_path, "many-way", TASKS["many-way"])
    task, theirs = task_from(f"lm-eval:{path}"), referee(path)
    items, labels = task.held_out("test", TEST), task.labels()
    assert labels == tuple(f" {intent}" for intent in INTENTS)
    nats = read_labels(model(), items, labels, reading(task)).nats
    rule = DecisionRule("per character", tuple(map(float, Lengths.of(labels, [1] * 5).characters)), (0.0,) * 5)
    right = [labels[at] == item.target for at, item in zip(rule.decide(nats), items, strict=True)]
    assert right == [bool(one["acc_norm"]) for one in theirs]


@pytest.mark.parametrize("name", FREE)
def test_free_answers_are_right_where_the_harness_says_so(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, TASKS[name])
    task, theirs = task_from(f"lm-eval:{path}"), referee(path)
    items = task.held_out("test", TEST)
    rows = rows_of(model(), items, reading(task).layout)
    written = generate(model(), rows, reading(task).layout, 24)
    assert [one.text for one in written] == [one["resps"][0][0] for one in theirs]
    found = [next(iter(one.values())) for one in task.metrics("test", [one.text for one in written])]
    assert found == [one["exact_match"] for one in theirs]
    assert 0 < sum(found) < TEST
    if name != "regular expression":  # there the harness does not ask for the whole answer
        score = evaluate(model(), items, None, reading(task))
        ended = [one.has_ended for one in written]
        assert list(score.correct) == [int(right and end) for right, end in zip(found, ended, strict=True)]


def test_a_continuation_is_right_where_the_harness_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "continuation", TASKS["continuation"])
    task, theirs = task_from(f"lm-eval:{path}"), referee(path)
    score = evaluate(model(), task.held_out("test", TEST), task.labels(), reading(task))
    assert list(score.correct) == [int(one["acc"]) for one in theirs]
    assert 0 < sum(score.correct) < TEST


@pytest.mark.parametrize("name", ["few-shot", "own choices", "many-way"])
def test_turns_are_the_harness_s_chat(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, TASKS[name])
    task = task_from(f"lm-eval:{path}", turns=True)
    theirs = referee(path, apply_chat_template=True, fewshot_as_multiturn=True)
    items = task.held_out("test", TEST)
    nats = read_labels(model(), items, task.labels(), reading(task)).nats
    truth = [item.choices.index(item.target) for item in items]
    for own, item, right, one in zip(nats.numpy(), items, truth, theirs, strict=True):
        costs = -np.array([float(said[0][0]) for said in one["resps"]])
        blank = costs - own[: len(costs)]  # the harness charges the template's last line break to every choice
        assert blank == pytest.approx(np.full(len(costs), blank[0]), abs=1e-9)
        assert blank[0] > 0
        best = decide_by_length([own + blank[0]], [Lengths.of(item.choices, [1] * len(costs)).characters])
        assert (best[0] == right) == one["acc_norm"]
    assert list(evaluate(model(), items, task.labels(), reading(task)).correct) == [one["acc"] for one in theirs]


def test_free_answers_in_a_chat_are_the_harness_s(tmp_path: Path) -> None:
    path = write(tmp_path, "few-shot generation", TASKS["few-shot generation"])
    task = task_from(f"lm-eval:{path}", turns=True)
    theirs = referee(path, apply_chat_template=True, fewshot_as_multiturn=True)
    rows = rows_of(model(), task.held_out("test", TEST), reading(task).layout)
    written = [one.text for one in generate(model(), rows, reading(task).layout, 24)]
    assert written == [one["resps"][0][0] for one in theirs]


def test_the_number_of_worked_examples_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, "two-way", TASKS["two-way"])
    task, theirs = task_from(f"lm-eval:{path}", fewshot=2), referee(path, num_fewshot=2)
    assert [item.prompt for item in task.held_out("test", TEST)] == [one["arguments"][0][0] for one in theirs]
    assert [item.prompt for item in task.held_out("test", 7)] == [one["arguments"][0][0] for one in theirs[:7]]


def test_choices_that_stand_twice_are_said(tmp_path: Path) -> None:
    """The harness takes the first of them for its answer and the second for the right one; by its text it is right."""
    body = TASKS["own choices"].replace("choice: choices", 'choice: "{{ [choices[right]] + choices }}"')
    path = write(tmp_path, "twice", body.replace("target: right", 'target: "{{ right + 1 }}"'))
    told = "documents with the same choice twice, of which the harness takes one for wrong: 40"
    task = task_from(f"lm-eval:{path}")
    assert told in task.warnings
    assert not any("twice" in one for one in task_from(f"lm-eval:{write(tmp_path, 'two', TASKS['two-way'])}").warnings)


def test_no_worked_example_is_the_training_document_itself(tmp_path: Path) -> None:
    task = task_from(f"lm-eval:{write(tmp_path, 'few-shot', TASKS['few-shot'])}")
    items = task.sample(60, generator(0, "test"))
    for item in items:
        *examples, asked = str(item.prompt).split("Review: ")[1:]
        assert asked.split("\n")[0] not in [example.split("\n")[0] for example in examples]
    assert items == task.sample(60, generator(0, "test"))


def test_the_splits_are_the_harness_s_and_share_no_text(tmp_path: Path) -> None:
    task = task_from(f"lm-eval:{write(tmp_path, 'two-way', TASKS['two-way'])}")
    assert task.places("test") == list(range(TEST))
    test = {item.prompt for item in task.held_out("test")}
    rest = {item.prompt for item in (*task.sample(200, generator(0, "test")), *task.held_out("validation"))}
    assert test.isdisjoint(rest)
    assert len(task.groups("test")) == TEST


def test_where_there_is_one_split_it_is_cut_and_said(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "two-way", TASKS["two-way"], documents=100))
    path.write_text(path.read_text().replace("training_split: train\nvalidation_split: validation\n", ""))
    task = task_from(f"lm-eval:{path}")
    places = task.places("test")
    assert places == sorted(places)
    assert 10 <= len(places) <= 30
    assert any("one split only" in warning for warning in task.warnings)
    theirs = referee(str(path))
    correct = evaluate(model(), task.held_out("test"), task.labels(), reading(task)).correct
    assert list(correct) == [theirs[place]["acc"] for place in places]


def test_what_was_read_is_said_back(tmp_path: Path) -> None:
    summary = summary_of(task_from(f"lm-eval:{write(tmp_path, 'few-shot', TASKS['few-shot'])}"))
    assert summary.reading is not None
    assert summary.reading.source == "json"
    assert summary.reading.template == "Review: {{text}}\nSentiment:, after 3 worked examples"
    assert summary.kind == "classification"
    assert list(summary.labels) == ["negative", "positive"]


def test_the_fingerprint_tells_what_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "two-way", TASKS["two-way"])
    prints = [task_from(f"lm-eval:{path}", **o).fingerprint() for o in ({}, {}, {"fewshot": 1}, {"turns": True})]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    Path(path).write_text(Path(path).read_text().replace("Sentiment:", "It is:"))
    assert task_from(f"lm-eval:{path}").fingerprint() not in prints


def test_the_fingerprint_tells_what_a_metric_alone_reads(tmp_path: Path) -> None:
    """Columns that no prompt and no answer shows, what a function calls, and whence worked examples are drawn."""
    (tmp_path / "own.py").write_text(
        "def credit(doc, words):\n    return float(doc['times'] in words)\n\n"
        "def process_results(doc, results):\n    return {'share': credit(doc, results[0].split())}\n"
    )
    body = TASKS["generation"].replace("{{{{times}}}}", "").partition("metric_list")[0] + (
        "metric_list: [{metric: share, aggregation: mean, higher_is_better: true}]\n"
        "process_results: !function own.process_results\nnum_fewshot: 1\nfewshot_split: shown\n"
    )
    path = Path(write(tmp_path, "own", body.replace("{{times}}", "")))
    path.write_text(path.read_text().replace("  data_files:\n", f"  data_files:\n    shown: {tmp_path}/shown.jsonl\n"))
    shown = tmp_path / "shown.jsonl"
    shown.write_text((tmp_path / "train.jsonl").read_text())
    prints = [task_from(f"lm-eval:{path}").fingerprint() for _ in range(2)]
    assert prints[0] == prints[1]
    for changed, old, new in (
        (tmp_path / "test.jsonl", '"times": 1', '"times": 3'),
        (tmp_path / "own.py", "float(", "0.5 * float("),
        (shown, '"written": "', '"written": "most '),
    ):
        assert old in changed.read_text()
        changed.write_text(changed.read_text().replace(old, new))
        prints.append(task_from(f"lm-eval:{path}").fingerprint())
    assert len(set(prints)) == 4


@pytest.mark.parametrize("rule", ["sum", "per character", "auto"])
def test_items_with_choices_of_their_own_are_raced(rule: str, tmp_path: Path) -> None:
    """By their likelihood as it is, by lm-evaluation-harness's acc_norm, or by what does best on validation."""
    path = write(tmp_path, "own choices", TASKS["own choices"])
    task, theirs = task_from(f"lm-eval:{path}"), referee(path)[:20]
    assert task.labels() == ()
    assert next(bank(task))
    methods = ["zero-shot", "kv-prefix"] if rule == "sum" else ["zero-shot"]
    given: dict[str, Any] = {"methods": methods, "seeds": 1, "steps": 2, "test_items": 20, "chat": "off"}
    answer = el.verdict(model(), task, rule=rule, score="exact-match", **given)
    assert all(arm.status == "ok" for arm in answer.arms), [arm.reason for arm in answer.arms]
    plain = next(arm for arm in answer.arms if arm.method == "zero-shot")
    score = evaluate(model(), task.held_out("test", 20), (), Reading(layout=layout_for(model(), "off")))
    assert plain.raw_mean == score.mean
    if rule == "auto":
        assert plain.rule in BY_LENGTH
        return
    metric = "acc" if rule == "sum" else "acc_norm"
    assert list(plain.correct[0]) == [int(one[metric]) for one in theirs]
    assert plain.rule == rule
    with pytest.raises(InputError, match="give one of sum, per token, per character, per byte"):
        el.verdict(model(), task, rule="fitted", score="exact-match", **given)


def test_a_free_task_is_raced_with_its_own_stop_strings(tmp_path: Path) -> None:
    task = task_from(f"lm-eval:{write(tmp_path, 'generation', TASKS['generation'])}")
    assert stops_of(task) == ("\n", " fine")
    answer = el.verdict(model(), task, methods=["zero-shot"], seeds=1, chat="off")
    score = evaluate(model(), task.held_out("test"), None, reading(task))
    assert answer.arms[0].correct[0] == score.correct


def test_a_target_is_written_as_the_harness_s_metric_takes_it(tmp_path: Path) -> None:
    path = Path(write(tmp_path, "generation", TASKS["generation"]))
    task = task_from(f"lm-eval:{path}")
    item = task.held_out("test", 1)[0]
    assert item.target == f" {str(item.target).strip()}"
    assert task.metrics("test", [str(item.target)]) == [{"exact_match,strip": 1.0}]
    path.write_text(path.read_text().replace(STRIPPED, ""))
    bare = task_from(f"lm-eval:{path}").held_out("test", 1)[0]
    assert bare.target == str(item.target).strip()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("output_type: multiple_choice", "output_type: loglikelihood_rolling"), "output type loglikelihood_rolling"),
        (("doc_to_target: label", 'doc_to_target: "{{ 7 if times == 1 else 0 }}"'), "split has 2 choices and 7 as the"),
        (("doc_to_target: label", "doc_to_target: -1"), "2 choices and -1 as the right one"),
        (("test.jsonl", "nowhere.jsonl"), "its data are not on disk"),
        (("dataset_path: json", "dataset_path: nobody/nothing"), "its data are not on disk"),
        (("doc_to_text: ", 'doc_to_text: "{{ 1 / 0 }}" #'), "lm-eval cannot read it: ZeroDivisionError"),
        (("doc_to_target: label", "doc_to_target: label\nunsafe_code: true"), "running code"),
        (("doc_to_text: ", 'doc_to_text: "{{label}}" #'), "choices that stand inside the prompt"),
        (("doc_to_choice: ", "doc_to_choice: null #"), "doc_to_choice is missing"),
    ],
)
def test_what_cannot_be_a_task_is_refused_by_name(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = Path(write(tmp_path, "two-way", TASKS["two-way"]))
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(InputError, match=message):
        task_from(f"lm-eval:{path}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_gen_toks: 24", 'max_gen_toks: "many"'), "max_gen_toks is a whole number from 1, got 'many'"),
        (("max_gen_toks: 24", "max_gen_toks: [24]"), "max_gen_toks is a whole number"),
        (("max_gen_toks: 24", "max_gen_toks: 0"), "max_gen_toks is a whole number"),
        (('["\\n", " fine"]', "[1]"), "until is a text or a list of texts"),
        (('["\\n", " fine"]', "3"), "until is a text or a list of texts"),
        (("metric: exact_match", "metric: 0"), "a metric is named by a text, got 0"),
    ],
)
def test_settings_of_free_answers_that_cannot_be_are_named(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    path = Path(write(tmp_path, "generation", TASKS["generation"]))
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(InputError, match=message):
        el.verdict(model(), task_from(f"lm-eval:{path}"), methods=["zero-shot"], seeds=1, chat="off")


def test_files_and_options_that_there_are_not_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        task_from("lm-eval:nowhere.yaml")
    path = write(tmp_path, "two-way", TASKS["two-way"])
    with pytest.raises(UnknownNameError, match="text_column"):
        task_from(f"lm-eval:{path}", text_column="text")
    for wrong in (-1, 2.5, "3"):
        with pytest.raises(InputError, match="whole number from 0"):
            task_from(f"lm-eval:{path}", fewshot=wrong)
    with pytest.raises(InputError, match="99 worked examples cannot be shown"):
        task_from(f"lm-eval:{path}", fewshot=99).held_out("test", 1)


def test_without_the_harness_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MissingPackageError, match=r"not installed; run: pip install 'elicitable\[lm-eval\]'"):
        task_from("lm-eval:hellaswag")


def test_a_file_s_functions_are_said_to_run_before_they_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(
        "import sys\nprint('it runs', file=sys.stderr)\n\n\ndef text(doc):\n    return doc['text']\n", encoding="utf-8"
    )
    body = "\ndoc_to_text: !function own.text\ndoc_to_target: written\noutput_type: generate_until"
    path = write(tmp_path, "functions", body)
    task_from(f"lm-eval:{path}")
    said = capsys.readouterr().err
    assert f"{path} is code and is run.\n" in said
    assert said.index("is code and is run.") < said.index("it runs")


@pytest.mark.slow
def test_names_of_the_harness_are_known() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'hellaswag'"):
        task_from("lm-eval:hellaswagg")
    with pytest.raises(InputError, match="its data are not on disk"):
        task_from("lm-eval:hellaswag")
    with pytest.raises(InputError, match="is a group of tasks"):
        task_from("lm-eval:mmlu")
