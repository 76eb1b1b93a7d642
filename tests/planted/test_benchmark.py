"""The races over the cases: counted rightly, gone on with after a stop, and the records that are in the repository."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from elicitable.errors import InputError, StoreError
from elicitable.methods import rungs
from elicitable.methods.catalog import METHODS
from elicitable.planted import benchmark, spent
from elicitable.planted.benchmark import group_of, is_of, path_of, records_in, run
from elicitable.planted.cases import cases
from elicitable.planted.counts import as_markdown, counted
from elicitable.planted.parts import AnyCase, part_named
from elicitable.race.contest import StoppedRace, verdict
from elicitable.records.digested import read_digested, write_digested
from elicitable.values import ArmResult, Budget, Verdict

Call = Callable[..., tuple[int, str, str]]
REPOSITORY = Path(__file__).parents[2]
KEPT = REPOSITORY / "records" / "planted-truth"
PART = part_named("one-layer")


def record(state: str, truth: str, group: str, name: str = "copyist/copy") -> dict[str, Any]:
    model, task = name.split("/")
    return {
        "case": name,
        "model": model,
        "task": task,
        "family": "copying",
        "state": state,
        "truth": truth,
        "group": group,
        "label": group,
        "answer": "",
        "reasons": ["because | so"],
        "arms": {"zero": {"mean": 0.5}},
        "seconds": 30.0,
        "cpu_seconds": 20.0,
        "processor": "avx2",
        "planting": {"took": True},
    }


def test_the_confusion_matrix_counts_truths_against_verdicts() -> None:
    records = [
        *[record("present", "nothing", "nothing")] * 3,
        *[record("locked", "context", "context")] * 4,
        record("parts", "context", "weights", "mirror/copy"),
        record("parts", "context", "inconclusive"),
        *[record("absent", "weights", "weights")] * 2,
        record("absent", "weights", "out-of-reach"),
    ]
    found = counted(records, PART)
    assert found["matrix"] == {
        "nothing": {"nothing": 3, "context": 0, "weights": 0, "out-of-reach": 0, "inconclusive": 0},
        "context": {"nothing": 0, "context": 4, "weights": 1, "out-of-reach": 0, "inconclusive": 1},
        "weights": {"nothing": 0, "context": 0, "weights": 2, "out-of-reach": 1, "inconclusive": 0},
    }
    assert (found["cases"], found["models"], found["tasks"]) == (12, 2, 1)
    wilson = {"count": 9, "of": 11, "share": 0.8182, "low": 0.5230, "high": 0.9486}
    assert found["right"] == pytest.approx(wilson, abs=1e-4)
    assert (found["inconclusive"]["count"], found["inconclusive"]["of"]) == (1, 12)
    assert found["by_state"]["parts"]["right"]["count"] == 0
    assert found["by_state"]["parts"]["right"]["of"] == 1
    assert [miss["case"] for miss in found["not_right"]] == ["mirror/copy", "copyist/copy", "copyist/copy"]
    assert found["cpu_seconds"] == 240.0


def test_what_is_counted_is_written_out() -> None:
    records = [record("present", "nothing", "nothing"), record("locked", "context", "inconclusive")]
    text = as_markdown(counted(records, PART))
    assert "| nothing | 1 | 0 | 0 | 0 | 0 |" in text
    assert "| context | 0 | 0 | 0 | 0 | 1 |" in text
    assert "Right among the decided: 1 of 1 (1.000 [0.207, 1.000])." in text
    assert "Inconclusive: 1 of 2 (0.500 [0.095, 0.905])." in text
    assert "because \\| so" in text


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_verdict_has_the_group_of_its_rung_and_steering_counts_as_weights(method: Any) -> None:
    arm = ArmResult(method.name, method.rung, {}, Budget(0, 0, 0), "ok")
    expected = {"nothing": "nothing", "context": "context", "other": "weights", "weights": "weights"}
    if method.rung is not rungs.CONTROL:
        answer = Verdict(method.rung.label, (), (arm,), "model", "task", 0.02)
        assert group_of(answer) == expected[method.rung.group]
    for label in ("inconclusive", "out-of-reach"):
        assert group_of(Verdict(label, (), (arm,), "model", "task", 0.02)) == label


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Races of one arm that needs no training; the names of the tasks that were raced."""
    raced: list[str] = []

    def short(model: Any, task: Any, **options: Any) -> Verdict:
        raced.append(task.name)
        return verdict(model, task, **{**options, "methods": ["zero-shot"], "test_items": 20})

    monkeypatch.setattr(benchmark, "verdict", short)
    return raced


def test_a_run_writes_a_record_a_case_and_a_rerun_does_nothing(tmp_path: Path, quick: list[str]) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(case: AnyCase, record: Mapping[str, Any], done: int, of: int, left: float) -> None:
        told.append((case.name, done, of))

    first = cases()[:3]
    found = run(tmp_path, 3, tell)
    assert told == [(case.name, nth, 3) for nth, case in enumerate(first, start=1)]
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", *(path_of(tmp_path, c).name for c in first)}
    assert (
        found
        == json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        == counted(records_in(tmp_path, PART), PART)
    )
    for case, kept in zip(first, records_in(tmp_path, PART), strict=True):
        assert is_of(kept, case, case.load_model(), PART.asked)
        assert (kept["case"], kept["truth"], kept["planting"]["took"]) == (case.name, case.truth, True)
        assert list(kept["arms"]) == ["zero-shot"]
    quick.clear()
    assert run(tmp_path, 3) == found
    assert quick == []


def test_the_time_left_is_told_at_the_pace_of_what_was_raced_in_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, arm = [0.0], ArmResult("zero-shot", rungs.ALREADY_THERE, {}, Budget(0, 0, 0), "ok")
    made = {"processor": "avx2", "device": "cpu", "versions": {}}
    answer = Verdict(rungs.ALREADY_THERE.label, ("It does.",), (arm,), "model", "task", 0.02, provenance=made)

    def of_45_seconds(model: Any, task: Any, **options: Any) -> Verdict:
        now[0] += 45.0
        return answer

    monkeypatch.setattr(benchmark, "verdict", of_45_seconds)
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: now[0])
    chosen = cases()[:6]
    run(tmp_path, len(chosen))

    def told_again() -> list[tuple[int, float]]:
        told: list[tuple[int, float]] = []
        run(tmp_path, len(chosen), lambda case, record, done, of, left: told.append((done, left)))
        return told

    for nth in (2, 3, 5):
        path_of(tmp_path, chosen[nth]).unlink()
    assert told_again() == [(3, 90.0), (4, 45.0), (6, 0.0)]  # what is there costs nothing, before and ahead
    assert chosen[4].model == chosen[5].model
    for case in chosen[4:]:
        path = path_of(tmp_path, case)
        write_digested(path, read_digested(path, "") | {"model_hash": "0" * 16}, "")
    assert told_again() == [(5, 45.0), (6, 0.0)]  # the model is another one today


def test_a_record_of_another_model_or_setting_is_made_again(tmp_path: Path, quick: list[str]) -> None:
    run(tmp_path, 2)
    for case, other in zip(cases()[:2], ({"model_hash": "0" * 16}, {"test_items": 20}), strict=True):
        path = path_of(tmp_path, case)
        write_digested(path, read_digested(path, "") | other, "")
    quick.clear()
    run(tmp_path, 2)
    assert quick == [case.task_name for case in cases()[:2]]


def test_records_of_another_setting_are_not_counted_as_today_s(tmp_path: Path, quick: list[str]) -> None:
    run(tmp_path, 3)
    path = path_of(tmp_path, cases()[2])
    write_digested(path, read_digested(path, "") | {"time_limit": 60.0, "model_hash": "0" * 16}, "")
    found = run(tmp_path, 2)
    assert (found["cases"], found["left_out"]) == (2, 1)
    assert "\n1 records of another model, task or setting are there and not counted.\n" in as_markdown(found)
    together = counted(records_in(tmp_path, PART), PART)
    assert (together["cases"], together["left_out"]) == (3, 0)
    text = as_markdown(together)
    assert "2 of 2 seeds and 500 test items and no time limit, 1 of 2 seeds and 500 test items and 60 s a race." in text
    of_the_same = [one for one in cases()[:2] if one.model == cases()[2].model]
    assert ("2 models called" in text) == bool(of_the_same)


def test_models_of_one_name_that_are_not_the_same_are_told() -> None:
    records = [record("present", "nothing", "nothing") | {"model_hash": hash} for hash in "abb"]
    assert "Counted together though not the same: 2 models called copyist." in as_markdown(counted(records, PART))
    assert "Counted together" not in as_markdown(counted(records[1:], PART))


@pytest.mark.parametrize("error", [InputError("no such thing"), StoreError("the disk is full")])
def test_what_no_other_race_would_fare_better_with_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked: list[str] = []

    def refused(model: Any, task: Any, **options: Any) -> Verdict:
        asked.append(task.name)
        raise error

    monkeypatch.setattr(benchmark, "verdict", refused)
    with pytest.raises(type(error), match=str(error)):
        run(tmp_path, 3)
    assert len(asked) == 1


def test_a_time_limit_that_is_none_is_refused_before_anything_is_done(tmp_path: Path, call: Call) -> None:
    code, out, err = call("reproduce", "planted-truth", "--time-limit", "0", "--out", str(tmp_path / "new"))
    assert (code, out) == (2, "")
    assert "error: a time limit must be more than 0 seconds, got 0." in err
    assert not (tmp_path / "new").exists()


def test_a_planting_that_was_measured_of_another_task_is_measured_again(tmp_path: Path) -> None:
    case = cases()[0]
    model = case.load_model()
    first = benchmark._planting(tmp_path, PART, case, model)
    [path] = tmp_path.glob("races/*/planting.json")
    for held in ({"planting": {"took": False}}, {"planting": {"took": False}, "data_hash": "other"}):
        write_digested(path, read_digested(path, "") | held, "")
        again = benchmark._planting(tmp_path, PART, case, model)
        assert (again == first) == ("data_hash" in held)


def test_a_record_that_was_altered_or_is_of_another_case_is_refused_by_name(tmp_path: Path, quick: list[str]) -> None:
    run(tmp_path, 2)
    first, second = (path_of(tmp_path, case) for case in cases()[:2])
    whole = first.read_text(encoding="utf-8")
    altered = whole.replace('"mean": 0', '"mean": 1')
    assert altered != whole
    for held in (altered, second.read_text(encoding="utf-8"), "{}"):
        first.write_text(held, encoding="utf-8")
        for ask in (lambda: records_in(tmp_path, PART), lambda: run(tmp_path, 2)):
            with pytest.raises(StoreError, match=r"altered, or is damaged|is no record of") as refusal:
                ask()
            assert str(first) in str(refusal.value)
            assert first.read_text(encoding="utf-8") == held


@pytest.mark.parametrize("name", ["answer", "arms", "processor", "seconds"])
def test_a_record_of_a_race_without_what_it_came_to_is_refused_by_name(
    tmp_path: Path, quick: list[str], name: str
) -> None:
    run(tmp_path, 1)
    path = path_of(tmp_path, cases()[0])
    kept = read_digested(path, "")
    for held in ({**kept, name: None} if name != "answer" else {}, {key: kept[key] for key in kept if key != name}):
        write_digested(path, held, "")
        with pytest.raises(StoreError, match="is no record of"):
            records_in(tmp_path, PART)


def test_after_an_interrupt_the_same_call_goes_on(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    race = benchmark.verdict

    def stopped(model: Any, task: Any, **options: Any) -> Verdict:
        answer = race(model, task, **options)
        if len(quick) == 2:
            raise StoppedRace(answer)
        return answer

    monkeypatch.setattr(benchmark, "verdict", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 3)
    assert path_of(tmp_path, cases()[0]).is_file()
    assert not path_of(tmp_path, cases()[1]).exists()
    [begun] = (tmp_path / "races").iterdir()  # the race goes on from its own folder
    assert read_digested(begun / "spent.json", "")["seconds"] >= 0
    write_digested(begun / "spent.json", {"seconds": 1_000.0, "cpu_seconds": 500.0}, "")
    monkeypatch.setattr(benchmark, "verdict", race)
    quick.clear()
    assert run(tmp_path, 3)["cases"] == 3
    assert quick == [case.task_name for case in cases()[1:3]]
    assert not (tmp_path / "races").exists()
    kept = read_digested(path_of(tmp_path, cases()[1]), "")
    assert (kept["seconds"] >= 1_000, kept["cpu_seconds"] >= 500) == (True, True)  # of both sittings


def test_the_seconds_of_a_killed_sitting_are_kept_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spent, "EVERY", 0.01)
    path = tmp_path / "spent.json"
    with spent.adding_up(path) as so_far:
        while not path.exists():
            time.sleep(0.01)
    assert read_digested(path, "")["seconds"] <= so_far()["seconds"]


def test_a_race_that_fails_stops_no_other_and_is_said(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    short = benchmark.verdict

    def failing(model: Any, task: Any, **options: Any) -> Verdict:
        if not quick:
            quick.append(task.name)
            raise RuntimeError("out of memory")
        return short(model, task, **options)

    monkeypatch.setattr(benchmark, "verdict", failing)
    code, out, err = call("reproduce", "planted-truth", "--cases", "2", "--out", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"1 races failed, the first of them {cases()[0].name}: RuntimeError: out of memory" in " ".join(err.split())
    assert not path_of(tmp_path, cases()[0]).exists()
    assert path_of(tmp_path, cases()[1]).is_file()
    assert run(tmp_path, 2)["cases"] == 2


@pytest.mark.parametrize("count", [0, -1, 10_000])
def test_a_number_of_cases_that_there_are_not_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="cases must be a whole number"):
        run(tmp_path, count)


def test_the_records_in_the_repository_are_of_the_cases_as_they_are() -> None:
    models = {case.model: case.load_model() for case in cases()}
    by_path = {path_of(KEPT, case): case for case in cases()}
    there = {path for path in KEPT.glob("*.json") if path.name != "results.json"}
    assert there
    assert there <= set(by_path)
    rung_of = {method.rung.label: method.rung.group for method in METHODS} | {"context": "context"}
    for path in there:
        kept, case = json.loads(path.read_text(encoding="utf-8")), by_path[path]
        assert is_of(kept, case, models[case.model], PART.asked), path.name
        group = rung_of.get(kept["label"], kept["label"])
        assert kept["group"] == ("weights" if group == "other" else group)
        assert set(kept["arms"]) == {method.name for method in METHODS}
        assert not kept["answer"] or rung_of[kept["label"]] != "control"
        assert (kept["state"], kept["family"], kept["truth"]) == (case.state, case.family, case.truth)


def test_the_page_says_what_weights_learn_of_absent_rules() -> None:
    page = " ".join((REPOSITORY / "docs" / "planted-truth.md").read_text(encoding="utf-8").split())
    absent = [one for one in records_in(KEPT, PART) if one["state"] == "absent"]
    weights = {one["case"]: max(one["arms"][name]["mean"] or 0.0 for name in ("lora", "full")) for one in absent}
    short = {case: share for case, share in weights.items() if share < 0.98}
    assert f"in {len(absent) - len(short)} of the {len(absent)}, LoRA or full" in page
    assert all(f"{share:.2f} ({case})" in page for case, share in short.items())
    group_of = {method.name: method.rung.group for method in METHODS}
    contexts = [
        arm["mean"] or 0.0 for one in absent for name, arm in one["arms"].items() if group_of[name] == "context"
    ]
    assert f"no context has more than {max(contexts):g}" in page


def test_no_record_has_fewer_seconds_than_its_arms() -> None:
    """Of a race that was killed, the seconds of the sittings before would be missing."""
    few = [
        one["case"]
        for one in records_in(KEPT, PART)
        if one["seconds"] < 0.8 * sum(a["seconds"] for a in one["arms"].values())
    ]
    assert not few


def test_the_counts_on_the_page_are_those_of_the_records() -> None:
    found = counted(records_in(KEPT, PART), PART)
    assert as_markdown(found).strip() in (REPOSITORY / "docs" / "planted-truth.md").read_text(encoding="utf-8")


def test_the_command_counts_what_is_there(call: Call) -> None:
    code, out, _ = call("reproduce", "planted-truth", "--tables", "--out", str(KEPT))
    assert (code, out) == (0, as_markdown(counted(records_in(KEPT, PART), PART)))
    code, out, _ = call("reproduce", "planted-truth", "--tables", "--out", str(KEPT), "--json")
    assert (code, json.loads(out)["cases"]) == (0, len(records_in(KEPT, PART)))


def test_the_command_runs_cases_and_tells_of_each(call: Call, tmp_path: Path, quick: list[str]) -> None:
    code, out, err = call("reproduce", "planted-truth", "--cases", "1", "--out", str(tmp_path))
    assert code == 0, err
    assert cases()[0].name in err
    assert out == as_markdown(counted(records_in(tmp_path, PART), PART))


@pytest.mark.parametrize(
    "arguments",
    [
        ["planted-truth", "--cases", "0"],
        ["planted-truth", "--status"],
        ["planted-truth", "section-5-1"],
        ["planted-truth", "--seeds", "3"],
        ["planted-truth", "--part", "two-layer"],
        ["planted-truth", "--cases", "1", "--device", "cuda"],
        ["planted-truth", "--time-limit", "soon"],
        ["planted-truth", "--tables", "--cases", "3"],
        ["planted-truth", "--tables", "--device", "cpu"],
        ["planted-truth", "--tables", "--time-limit", "3m"],
        ["planted-truth", "--tables", "--workers", "2"],
        ["--cases", "3"],
        ["--part", "smollm2"],
        ["--time-limit", "3m"],
    ],
)
def test_what_the_benchmark_does_not_take_is_refused(call: Call, tmp_path: Path, arguments: list[str]) -> None:
    code, out, err = call("reproduce", *arguments, "--out", str(tmp_path))
    assert (code, out) == (2, "")
    assert any(
        word in err
        for word in ("planted-truth", "cases must be", "part of planted truth", "processor", "limit", "--tables")
    )
    assert "Traceback" not in err


def test_workers_find_what_is_done(tmp_path: Path) -> None:
    for case in cases()[:2]:
        path_of(tmp_path, case).write_bytes(path_of(KEPT, case).read_bytes())
    told: list[str] = []
    found = run(tmp_path, 2, lambda case, *_: told.append(case.name), workers=1)
    assert (found["cases"], told) == (2, [])
    assert not (tmp_path / "races").exists()
