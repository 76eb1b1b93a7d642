"""New rows are answered as the race answered its test items; what is broken is named, and the rest is answered."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elicitable as el
from elicitable.deploy.artefact import kept_in
from elicitable.deploy.predict import Predictor, predictor
from elicitable.errors import InputError
from elicitable.tasks.catalog import task_from
from elicitable.training.calibration import probabilities, slope_of
from elicitable.values import Item

Call = Callable[..., tuple[int, str, str]]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def raced(run: Any, method: str) -> dict[str, str]:
    """What the race answered to each test text."""
    task = task_from(run.test.with_name("train.csv"), test=run.test, template=run.template)
    items = task.held_out("test")
    arm = next(arm for arm in run.answer.arms if arm.method == method)
    return dict(zip([str(item.prompt) for item in items], arm.answers[0], strict=True))


@pytest.mark.parametrize("which", ["labels_run", "written_run"])
def test_every_arm_answers_its_test_file_as_the_race_did(which: str, request: Any) -> None:
    run = request.getfixturevalue(which)
    model = el.load(str(run.model))
    rows = rows_of(run.test)
    answered = set()
    for artefact in kept_in(run.folder):
        assert artefact.record is not None
        expected = raced(run, artefact.record.method)
        found = list(predictor(artefact, model=model)(rows))
        form = artefact.record.form
        shown = [form.template().shown([row[name] for name in form.columns]) for row in rows]
        assert [one.answer for one in found] == [expected[text] for text in shown], artefact.record.method
        answered.update(expected.values())
    assert len(expected) == len(rows) == 60
    assert len(answered) > 2


def test_every_arm_answers_digits_as_the_race_did(digits_run: Callable[..., Any]) -> None:
    methods = ["zero-shot", "prompt", "examples", "nearest-examples", "kv-prefix", "steering", "lora", "full"]
    answer, run = digits_run(methods=methods, keep=methods, budget=1200)
    items = task_from("ascending").held_out("test", 40)
    for artefact in kept_in(run):
        assert artefact.record is not None
        arm = next(arm for arm in answer.arms if arm.method == artefact.record.method)
        found = list(predictor(artefact)([list(item.prompt) for item in items]))
        right = tuple(
            int(one.answer == " ".join(map(str, item.target))) for one, item in zip(found, items, strict=True)
        )
        assert right == arm.correct[0], arm.method
        assert [one.answer for one in found[:5]] == [sample["answer"] for sample in arm.samples]


def test_probabilities_are_those_of_the_rule_and_calibrated_on_validation(labels_run: Any) -> None:
    from elicitable.training.batches import Reading
    from elicitable.training.evaluate import read_labels
    from elicitable.training.loop import prepared

    artefact = el.read(labels_run.folder, "kv-prefix")
    record = artefact.record
    assert record is not None
    assert record.slope is not None
    assert record.form.labels is not None
    model = el.load(str(labels_run.model))
    found = list(predictor(artefact, model=model)(rows_of(labels_run.test)))
    for one in found:
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert one.probability == max(one.probabilities.values())
        assert one.probabilities[str(one.answer)] == one.probability
    task = task_from(labels_run.test.with_name("train.csv"), test=labels_run.test, template=labels_run.template)
    known = task.held_out("validation")
    adaptation = artefact.adaptation(model)
    with prepared(model, adaptation) as refresh:
        refresh()
        nats = read_labels(model, known, record.form.labels, Reading(record.batch, layout=record.layout.layout())).nats
    costs = nats.numpy() if record.rule is None else record.rule.costs(nats)
    truth = [record.form.labels.index(str(item.target)) for item in known]
    assert record.slope == pytest.approx(slope_of(costs, truth), rel=1e-6)


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_the_slope_is_where_the_loss_is_least(scale: float) -> None:
    rng = np.random.default_rng(0)
    costs = scale * rng.normal(size=(60, 3))
    truth = (costs + scale * rng.normal(size=costs.shape)).argmin(axis=1)

    def loss(s: float) -> float:
        shares = probabilities(costs, s)
        return float(-np.log(shares[np.arange(60), truth]).sum() + 0.5 * np.log(s) ** 2)

    found = slope_of(costs, truth)
    grid = found * np.exp(np.linspace(-3, 3, 2001))
    assert loss(found) <= min(map(loss, grid)) + 1e-9
    assert loss(found) < loss(1.0) or scale == 1.0


def test_a_label_that_an_item_does_not_have_gets_no_share() -> None:
    costs = [[0.2, 0.1, np.inf], [0.3, 0.5, 0.1]]
    assert slope_of(costs, [1, 2]) > 1
    assert probabilities(costs, 2.0)[0, 2] == 0
    with pytest.raises(InputError, match="not a number"):
        slope_of([[np.nan, 1.0]], [1])


def test_rows_of_every_kind_of_input_get_the_same_answers(labels_run: Any, call: Call, tmp_path: Path) -> None:
    rows = rows_of(labels_run.test)[:7]
    for row in rows:
        del row["label"]
    texts = [row["text"] for row in rows]
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows))
    (tmp_path / "a.tsv").write_text("id\ttext\n" + "".join(f"{row['id']}\t{row['text']}\n" for row in rows))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    (tmp_path / "columns.json").write_text(json.dumps({"text": texts}))
    (tmp_path / "a.txt").write_text("\n".join(texts))
    expected = [one.answer for one in el.predictor(labels_run.folder)(rows)]
    for path in sorted(tmp_path.glob("*.*")):
        code, out, err = call("predict", str(labels_run.folder), "--input", str(path))
        assert (code, err) == (0, "7 of 7 rows answered.\n"), path
        if path.suffix in (".csv", ".tsv"):
            found = list(csv.DictReader(io.StringIO(out), delimiter="\t" if path.suffix == ".tsv" else ","))
            assert list(found[0]) == ["id", "text", "prediction", "probability", "error"]
        else:
            found = [json.loads(line) for line in out.splitlines()]
        assert [row["prediction"] for row in found] == expected, path
        assert [row["text"] for row in found] == texts
        assert all(0 < float(row["probability"]) <= 1 for row in found)
    code, out, _ = call("predict", str(labels_run.folder), "--text", texts[0], "--format", "lines", "-q")
    assert (code, out) == (0, f"{expected[0]}\n")


def test_a_text_that_is_longer_than_the_model_reads_is_answered_and_that_is_said(labels_run: Any, call: Call) -> None:
    code, out, err = call("predict", str(labels_run.folder), "--text", "say " + "a" * 600, "--format", "lines")
    assert (code, out.strip() in ("yes", "no way", "maybe")) == (0, True)
    assert err.startswith("1 of 1 rows answered.\n1 of them are longer than the model reads")


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("id,text\n1,say a now\n2,say b now\n", "csv"),
        ('{"text": "say a now"}\n\n{"text": "say b now"}\n', "jsonl"),
        ('["say a now",\n "say b now"]', "json"),
        ("say a now\nsay b now\n", "lines"),
        ("text\nsay a now\nsay b now", "csv"),
    ],
)
def test_standard_input_is_taken_for_what_it_is(
    given: str, kind: str, labels_run: Any, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    code, out, err = call("predict", str(labels_run.folder), "-i", "-")
    assert (code, err) == (0, "2 of 2 rows answered.\n")
    expected = [one.answer for one in el.predictor(labels_run.folder)(["say a now", "say b now"])]
    if kind == "csv":
        assert [row["prediction"] for row in csv.DictReader(io.StringIO(out))] == expected
    else:
        assert [json.loads(line)["prediction"] for line in out.splitlines()] == expected


def test_broken_rows_are_named_and_the_rest_is_answered(labels_run: Any, call: Call, tmp_path: Path) -> None:
    good = ['{"id": 1, "text": "say a now"}', '{"id": 6, "text": "say b now", "prediction": "own"}']
    bad = ['{"id": 2}', '{"id": 3, "text": " "}', "{nonsense", "[1]", '{"text": "\\ud800"}', '{"text": {"a": 1}}']
    (tmp_path / "rows.jsonl").write_text("\n".join([good[0], *bad, good[1]]))
    code, out, err = call("predict", str(labels_run.folder), "--input", str(tmp_path / "rows.jsonl"))
    assert code == 1
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 8
    assert [row["id"] for row in found if "id" in row] == [1, 2, 3, 6]
    expected = [one.answer for one in el.predictor(labels_run.folder)(["say a now", "say b now"])]
    assert [found[0]["prediction"], found[-1]["prediction_"]] == expected
    assert found[-1]["prediction"] == "own"
    assert all(row["prediction"] is None and row["error"] for row in found[1:-1])
    for line, said in (
        (2, "column 'text' is not there"),
        (3, "column 'text' is empty"),
        (4, "not valid JSON"),
        (5, "expected a JSON object"),
        (6, "column 'text' holds half a surrogate pair"),
        (7, "column 'text' is missing, null or not a single value"),
    ):
        assert f"rows.jsonl, line {line}: {said}" in err
    assert err.endswith("2 of 8 rows answered; 6 cannot be answered.\n")


def test_a_broken_row_of_a_table_keeps_its_place(labels_run: Any, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'id,text\n1,say a now\n2,say, too many\n3,"say "b" now"\n4,say \xff now\n\n5,say b now\n6\n')
    given = ("predict", str(labels_run.folder), "--input", str(path), "--out", str(tmp_path / "out.csv"))
    code, _, err = call(*given)
    assert code == 1
    assert b"4,say \xff now,," in (tmp_path / "out.csv").read_bytes()
    found = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(errors="replace"))))
    assert [row["id"] for row in found] == ["1", "2", "", "4", "5", "6"]
    assert [bool(row["prediction"]) for row in found] == [True, False, False, False, True, False]
    assert "line 3: 3 fields, but the first row names 2 columns" in err
    assert "line 5: it holds bytes that are not text" in err
    call(*given, "--encoding", "latin-1")
    found = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [bool(row["prediction"]) for row in found] == [True, False, False, True, True, False]


def test_a_row_that_the_model_refuses_does_not_take_others_with_it(labels_run: Any) -> None:
    answer = predictor(labels_run.folder, "prompt")
    plain = [one.answer for one in answer([f"say {letter} now" for letter in "abcdefg"])]
    refuse = answer._together

    def together(items: Any) -> Any:
        if any("ddd" in str(item.prompt) for item in items):
            raise InputError("this row is refused.")
        return refuse(items)

    answer._together = together  # type: ignore[method-assign]
    found = list(answer(["say a now", "say b now", "ddd", *(f"say {letter} now" for letter in "cdefg")]))
    assert found[2].fault == "this row is refused"
    assert [one.answer for one in found if not one.fault] == plain


def test_a_text_that_is_too_long_is_cut_and_said_to_be(written_run: Any) -> None:
    found = list(predictor(written_run.folder, "lora")(["say a now", "x" * 2000]))
    assert (found[0].cut, found[1].fault) == (0, "")
    assert found[1].cut > 1400
    assert found[1].answer is not None


def test_memory_does_not_grow_with_the_number_of_rows(
    labels_run: Any, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is left out: what is measured is that no row is held once it is written."""
    from elicitable.deploy.predict import Prediction

    monkeypatch.setattr(Predictor, "_answered", lambda self, items: [Prediction("yes", 0.5) for _ in items])
    peaks = []
    for rows in (2_500, 10_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as file:
            file.write("id,text\n")
            file.writelines(f"{n},{'say it ' * 30}{n}\n" for n in range(rows))
        tracemalloc.start()
        code, _, err = call("predict", str(labels_run.folder), "--input", str(path), "--out", str(tmp_path / "out.csv"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (code, err) == (0, f"{rows:,} of {rows:,} rows answered.\n")
        with (tmp_path / "out.csv").open() as file:
            assert sum(1 for _ in file) == rows + 1
    assert peaks[1] < 1.2 * peaks[0]


def test_arguments_that_make_no_sense_are_named(labels_run: Any, written_run: Any, call: Call, tmp_path: Path) -> None:
    run = str(labels_run.folder)
    (tmp_path / "other.csv").write_text("id,body\n1,say a now\n")
    (tmp_path / "rows.jsonl").write_text('{"text": "say a now"}\n')
    for given, said in (
        ((run, "--input", "nowhere.csv"), "nowhere.csv: there is no such file"),
        ((run, "--input", str(tmp_path)), "is a folder"),
        ((run, "--input", "other.csv"), "no column has the name 'text'; it has id, body"),
        ((run, "--input", "rows.jsonl", "--format", "csv"), "use jsonl"),
        ((run, "--input", "rows.jsonl", "--format", "xml"), "unknown format 'xml'"),
        ((run, "--input", "rows.jsonl", "--input-format", "yaml"), "unknown kind of input 'yaml'"),
        ((run, "--input", "rows.jsonl", "--encoding", "utf-9"), "no encoding of texts"),
        ((run, "--input", "rows.jsonl", "--text", "say"), "either a file"),
        ((run, "--text", "say", "--encoding", "latin-1"), "--encoding is of a file"),
        ((run, "--text", "say", "--input-format", "csv"), "--input-format is of a file"),
        ((run, "--text", "say", "--max-answer", "3"), "limits free answers, and labels are compared"),
        ((run, "--input", "rows.jsonl", "--method", "lore"), "did you mean 'lora'"),
        ((run, "--input", "rows.jsonl", "--model", str(written_run.model)), "was made for model"),
        ((f"{run}s", "--text", "say", "--out", str(tmp_path)), "is a folder; name a file for the answers"),
        ((f"{run}s", "--text", "say"), f"there is no such folder; did you mean {run}"),
    ):
        code, _, err = call("predict", *given)
        assert (code, said in err) == (2, True), (given, err)
    code, out, _ = call("predict", run, "--input", "other.csv", "--column", "body")
    assert code == 0
    assert out.startswith("id,body,prediction,probability,error\n1,say a now,")


def test_what_an_input_holds_does_not_act_on_the_terminal(labels_run: Any, call: Call, tmp_path: Path) -> None:
    """A row of an object by keys is named by its key, which may hold what a terminal obeys."""
    rows = {f"k{i}\x1b[31m\x1b]0;pwn\x07\n": {"text": "say a now" if i else None, "id": i} for i in range(4)}
    (tmp_path / "ansi.json").write_text(json.dumps(rows))
    code, _, err = call("predict", str(labels_run.folder), "--input", "ansi.json")
    assert code == 1
    assert "ansi.json, row k0\\u001b[31m" in err
    assert not any(sign in err for sign in "\x1b\x07")


class OwnChoices:
    """Items that bring their own choices, two or three of them."""

    name = "own choices"

    def labels(self) -> tuple[str, ...]:
        return ()

    def item(self, n: int) -> Item:
        choices = (" yes", " no way") if n % 3 else (" red", " blue", " say no")
        return Item(f"is it say {n} now?", choices[n % 2], choices=choices)

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return [self.item(int(number)) for number in rng.integers(0, 1000, n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        first = {"validation": 2000, "test": 3000}[split]
        return [self.item(first + number) for number in range(min(n or 40, 40))]

    def fingerprint(self) -> str:
        return "own choices"


def test_rows_with_choices_of_their_own(written_run: Any, tmp_path: Path) -> None:
    answer = el.verdict(str(written_run.model), OwnChoices(), methods=["zero-shot"], seeds=1, out=tmp_path)
    items = OwnChoices().held_out("test")
    found = list(el.predictor(tmp_path)([{"prompt": item.prompt, "choices": list(item.choices)} for item in items]))
    right = tuple(int(one.answer == str(item.target).strip()) for one, item in zip(found, items, strict=True))
    assert right == answer.arms[0].correct[0]
    assert 0 < sum(right) < len(right)
    for one, item in zip(found, items, strict=True):
        assert set(one.probabilities) == {choice.strip() for choice in item.choices}
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-12)
    [broken] = el.predictor(tmp_path)([{"prompt": "is it?", "choices": "yes"}])
    assert "column 'choices' must hold a list" in broken.fault


def test_a_chat_is_laid_out_as_it_was_raced(labels_run: Any, tmp_path: Path) -> None:
    """The template, a system message, worked examples as turns, and labels of two words."""
    model = el.load(str(labels_run.model))
    model.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}.\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    train, methods = labels_run.test.with_name("train.csv"), ["zero-shot", "prompt", "examples"]
    given: dict[str, Any] = {"test": labels_run.test, "chat": "on", "system": "be brief", "template": "{text}?"}
    answer = el.verdict(model, train, methods=methods, keep=methods, seeds=1, out=tmp_path / "run", **given)
    items = task_from(train, test=labels_run.test, template="{text}?").held_out("test")
    for artefact in kept_in(tmp_path / "run"):
        assert artefact.record is not None
        arm = next(arm for arm in answer.arms if arm.method == artefact.record.method)
        expected = dict(zip([item.prompt for item in items], arm.answers[0], strict=True))
        rows = rows_of(labels_run.test)
        found = predictor(artefact, model=model)(rows)
        assert [one.answer for one in found] == [expected[f"{row['text']}?"] for row in rows]
        assert (artefact.record.layout.chat, artefact.record.layout.system) == (True, "be brief")
        el.export(artefact, "prompt", tmp_path / artefact.record.method, model=model)
        text = (tmp_path / artefact.record.method / "prompt.txt").read_text()
        assert text.startswith("system: be brief.\nuser: ")
        assert text.endswith("{text}?.\nassistant:")


def test_conversations_are_answered_as_they_were_raced(tmp_path: Path, written_run: Any) -> None:
    from elicitable.deploy.asked import item_of
    from elicitable.deploy.record import Form
    from elicitable.values import Message

    def talk(n: int, *more: str) -> list[dict[str, str]]:
        turns = (f"say {n}", f"it is {n}", *more)
        return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]

    rows = [{"messages": talk(n)} for n in range(60)]
    (tmp_path / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task, model = task_from(tmp_path / "talk.jsonl"), el.load(str(written_run.model))
    form = Form.of(task, True)
    items = {item.prompt for split in ("validation", "test") for item in task.held_out(split)}  # type: ignore[arg-type]
    assert items <= {item_of(form, row, model).prompt for row in rows}
    asked = item_of(form, {"messages": talk(1, "and now?")}, model)
    assert asked.prompt == (Message("user", "say 1"), Message("assistant", "it is 1"), Message("user", "and now?"))
    with pytest.raises(InputError, match="column 'messages' is missing"):
        item_of(form, {}, model)
