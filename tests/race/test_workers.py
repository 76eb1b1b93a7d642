"""A race on workers: whoever computes, and in whatever order pieces end, the records and the label are the same."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.clusters import LOCAL, RAY
from tests.conftest import tiny_gpt2
from tests.reverse import Reverse, race_of_seconds

import elicitable as el
from elicitable.errors import ElicitableError, InputError
from elicitable.executors.executor import Executor
from elicitable.executors.packing import packed, unpacked
from elicitable.methods.catalog import catalog, method_named
from elicitable.models.load import load
from elicitable.models.model import Model
from elicitable.models.whereabouts import whereabouts
from elicitable.race import contest, line, pace, seeds, trial, workers
from elicitable.records.store import Store, identity
from elicitable.training.loop import train

Build = Callable[..., Model]
TIMES = {"timing", "seconds", "state_digest"}


class Scrambled(Executor):
    """Workers of this process that are sent everything as others are, and end in no order at all."""

    name = "scrambled"

    def __init__(self, at_once: int, seed: int = 0) -> None:
        self.at_once, self.started, self._random = at_once, 0, random.Random(seed)
        self._running: list[tuple[int, Any, Any]] = []

    def start(self, index: int, function: Any, item: Any) -> None:
        self.started += 1
        self._running.append((index, function, unpacked(packed(item))))
        assert len(self._running) <= self.at_once

    def finished(self) -> tuple[int, Any]:
        index, function, item = self._running.pop(self._random.randrange(len(self._running)))
        self._held = getattr(self, "_held", None) or packed(self._shared)
        return index, function(unpacked(self._held), item)

    def stop(self) -> None:
        self._running, self._held = [], b""


@contextmanager
def small() -> Iterator[None]:
    """A race of seconds: little data, few steps; the side effects on the same few items."""
    with pytest.MonkeyPatch.context() as patch:
        race_of_seconds(patch, first_steps=2, finish=2, steps=12)
        yield


@pytest.fixture
def quick() -> Iterator[None]:
    with small():
        yield


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The race in one process: its folder, and what it says."""
    out = tmp_path_factory.mktemp("inline")
    with small():
        return out, told(run(tiny_gpt2(8), out, "inline", rows_curve=True))


def run(model: Model, out: Path | None, executor: Any, **options: Any) -> el.values.Verdict:
    given = {"seeds": 2, "budget": 500, "methods": ["zero-shot", "kv-prefix", "lora", "full"]}
    return contest.verdict(model, Reverse(), out=out, executor=executor, **given | options)


def trials(out: Path) -> dict[str, Any]:
    """The records of trials by identity, without their seconds."""
    return {identity(one["spec"]): _timeless(one) for one in Store(out) if "method" in one["spec"]}


def _timeless(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: _timeless(value) for name, value in plain.items() if name not in TIMES}
    return [_timeless(value) for value in plain] if isinstance(plain, list) else plain


def tensors(out: Path) -> dict[str, bytes]:
    return {str(one.relative_to(out)): one.read_bytes() for one in out.glob("trials/*/state.safetensors")}


def told(answer: el.values.Verdict) -> Any:
    """What an answer says, without how long it took."""
    arms = [replace(arm, seconds=0.0, effort=None) for arm in answer.arms]
    return answer.label, answer.answer, arms, answer.rows, answer.provenance["looks"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("at_once", [3, 1_000])
def test_in_whatever_order_workers_end_the_records_are_those_of_one_process(
    digits_model: Build, tmp_path: Path, inline: tuple[Path, Any], at_once: int
) -> None:
    executor = Scrambled(at_once, at_once)
    answer = run(digits_model(8), tmp_path, executor, rows_curve=True)
    assert told(answer) == inline[1]
    here, there = trials(inline[0]), trials(tmp_path)
    assert set(here) <= set(there)  # what was begun and not asked for is a record more
    assert {name: there[name] for name in here} == here
    assert executor.started <= len(there) <= 1.5 * len(here)
    wanted = tensors(inline[0])
    assert wanted
    assert {name: data for name, data in tensors(tmp_path).items() if name in wanted} == wanted
    assert not list(tmp_path.glob(".model.*"))


@pytest.mark.parametrize("name", [*(method.name for method in catalog()), "peft:ia3"])
def test_every_method_goes_to_a_worker_once_it_has_been_sized(name: str, digits_model: Build) -> None:
    """Counting what PEFT trains left something in its methods that no worker can be sent."""
    sized = method_named(name).fitting(digits_model(8, torch.float32), 4_000, 8)
    again = unpacked(packed(sized))
    assert (again.method.identity, again.size, again.numbers) == (name, sized.size, sized.numbers)


def test_arms_that_choose_a_layout_are_heard_in_their_order_before_those_that_are_trained(
    letters_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "TEXT", replace(pace.TEXT, batch=4, steps=4, validation_items=8, first_steps=2, finish=2))
    monkeypatch.setattr(trial, "_elsewhere", lambda model: [el.values.Item("abc ", "def")])
    model = letters_model(has_start=True)
    rows = [{"text": f"{a}{b}", "label": "yes" if a < b else "no"} for a in "abcdefgh" for b in "ijklabcd"]
    given: dict[str, Any] = {"methods": ["zero-shot", "prompt", "value-bias"], "search_passes": 24, "seeds": 1}
    found = []
    for name, executor in (("inline", "inline"), ("workers", Scrambled(3))):
        answer = contest.verdict(model, rows, out=tmp_path / name, executor=executor, test_items=8, **given)
        found.append((told(answer), trials(tmp_path / name)))
    (inline, here), (workers, there) = found
    layouts = [str(one["spec"]["layouts"]) for one in here.values() if one["spec"]["layouts"]]
    assert layouts
    assert layouts[0].count("start") > 1  # there is a layout to choose
    assert inline == workers
    assert {one: there[one] for one in here} == here


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("after", [9, 14, 20])
def test_what_workers_had_begun_ahead_of_a_race_that_was_killed_is_not_trained_again(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    trained: list[tuple[Any, ...]] = []

    class Killed(Scrambled):
        def finished(self) -> tuple[int, Any]:
            found = super().finished()
            if self.started > after:
                raise KeyboardInterrupt
            return found

    def watched(model: Any, adaptation: Any, task: Any, plan: Any, seed: int, **more: Any) -> Any:
        fit = train(model, adaptation, task, plan, seed, **more)
        first = more["start"].plain["steps"] if more.get("start") else 0
        trained.append((str(adaptation.setting), plan.learning_rate, plan.cooldown, seed, first, fit.steps))
        return fit

    monkeypatch.setattr(line, "train", watched)
    model = digits_model(8)
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path, Killed(4, after))
    run(model, tmp_path, Scrambled(4))
    assert len(trained) == len(set(trained))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("at_once", [3, 1_000])
def test_what_a_longer_race_goes_on_from_is_kept_as_by_one_process(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """What was begun ahead and then asked for is kept, and what nobody asked for is not, be it large or small."""
    given: dict[str, Any] = {"seeds": 3, "methods": ["zero-shot", "kv-prefix", "lora", "full"]}
    monkeypatch.setattr(
        seeds, "_rivals", lambda race, decision, arms: [one for one in arms if one.method.name == "lora"]
    )
    run(digits_model(8), tmp_path / "inline", "inline", **given)
    run(digits_model(8), tmp_path / "workers", Scrambled(at_once), **given)
    begun = set(trials(tmp_path / "workers")) - set(trials(tmp_path / "inline"))
    assert begun, "seeds of full fine-tuning, which nobody asked for"
    here, there = ({one.name for one in (tmp_path / name).glob("running/*")} for name in ("inline", "workers"))
    assert here
    assert there == here


@pytest.mark.usefixtures("quick")
def test_a_race_that_is_complete_starts_no_worker(digits_model: Build, inline: tuple[Path, Any]) -> None:
    executor = Scrambled(4)
    assert told(run(digits_model(8), inline[0], executor, rows_curve=True)) == inline[1]
    assert executor.started == 0


@pytest.mark.usefixtures("quick")
def test_a_race_on_workers_that_is_killed_goes_on_to_the_same_records(
    digits_model: Build, tmp_path: Path, inline: tuple[Path, Any]
) -> None:
    class Killed(Scrambled):
        def finished(self) -> tuple[int, Any]:
            if self.started > 5:
                raise OSError("the machine is gone")
            return super().finished()

    model = digits_model(8)
    with pytest.raises(OSError, match="gone"):
        run(model, tmp_path, Killed(3))
    kept = len(trials(tmp_path))
    assert kept
    executor = Scrambled(3)
    assert told(run(model, tmp_path, executor, rows_curve=True)) == inline[1]
    assert executor.started <= len(trials(tmp_path)) - kept


@pytest.mark.usefixtures("quick")
def test_against_the_clock_workers_answer_within_the_limit(digits_model: Build, tmp_path: Path) -> None:
    started = time.monotonic()
    answer = run(digits_model(8), tmp_path, Scrambled(4), time_limit=60.0, seeds=1)
    assert time.monotonic() - started < 60.0
    assert {arm.method for arm in answer.arms if arm.status == "ok"} >= {"zero-shot", "kv-prefix", "lora"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("pays_for", [0, 1])
def test_against_the_clock_workers_begin_no_seed_that_the_limit_does_not_pay_for(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays_for: int
) -> None:
    """What a worker has begun it ends, and a test that is owed would wait for it."""
    monkeypatch.setattr(seeds, "affords_seed", lambda *given, **more: given[4] <= pays_for)
    answer = run(digits_model(8), tmp_path, Scrambled(4), time_limit=60.0, seeds=3)
    assert {arm.seeds for arm in answer.arms} == {1, 1 + pays_for}
    assert {one["spec"]["seed"] for one in trials(tmp_path).values()} == set(range(1 + pays_for))


@pytest.mark.usefixtures("quick")
def test_a_trial_that_fails_on_a_worker_is_a_lost_arm_and_is_not_run_again(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(*given: Any, **more: Any) -> Any:
        tried.append(given)
        raise MemoryError("no memory")

    monkeypatch.setattr(trial, "assess", full)
    answer = run(digits_model(8), tmp_path, Scrambled(2), methods=["zero-shot", "kv-prefix"], seeds=1)
    assert {arm.status for arm in answer.arms} == {"failed"}
    assert len(tried) == 2


def test_a_worker_that_finds_another_model_says_so(digits_model: Build, tmp_path: Path) -> None:
    model = digits_model(8)
    with whereabouts(model, tmp_path) as there:
        assert there.load().fingerprint == model.fingerprint
        with pytest.raises(InputError, match="is another model here"):
            replace(there, identity="0" * 16).load()
    toy = load("toy:ascending")
    with torch.no_grad():
        toy.hf.lm_head.weight.mul_(2.0)
    with whereabouts(toy, tmp_path) as there, pytest.raises(InputError, match="save it in a folder and name that"):
        there.load()


@pytest.mark.usefixtures("quick")
def test_a_worker_with_another_task_or_package_says_so(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elicitable.race import work

    def other(briefing: Any, piece: Any) -> Any:
        return work.do(briefing, replace(piece, names=tuple("0" * 20 for _ in piece.names)))

    monkeypatch.setattr("elicitable.race.workers.do", other)
    with pytest.raises(ElicitableError, match="install the same version"):
        run(digits_model(8), tmp_path, Scrambled(2), methods=["zero-shot", "kv-prefix"])


def test_what_means_nothing_is_refused(digits_model: Build, tmp_path: Path) -> None:
    model = digits_model(8)
    for given in ({"workers": 2}, {"address": "auto"}, {"gpus": 0.5}):
        with pytest.raises(InputError, match="are for an executor"):
            run(model, None, None, **given)
    with pytest.raises(InputError, match="needs out"):
        run(model, None, Scrambled(2))
    with pytest.raises(InputError, match="--gpus is for --executor ray, not for local"):
        run(model, tmp_path, "local", gpus=1.0)
    elsewhere: Any = type("OnAGPU", (), {"device": torch.device("cuda")})
    with pytest.raises(InputError, match="for GPUs give 'ray'"):
        workers.executor_of("local", None, None, None, elsewhere)


# --- processes and clusters -----------------------------------------------------------------------------------

MINE = '''
from elicitable.methods.kv_prefix import KVPrefix

class MyMethod(KVPrefix):
    """A prefix under another name."""

    name = "mine"
'''


def race_on(name: str | None, out: Path, mine: Path, workers: int = 2, **more: Any) -> el.values.Verdict:
    given: dict[str, Any] = {"steps": 24, "test_items": 16, "seeds": 2, "budget": 200, **more}
    methods = ["zero-shot", "kv-prefix", f"{mine}:MyMethod"]
    workers_given = {} if name == "inline" else {"workers": workers}
    return contest.verdict(
        "toy:ascending", "descending", methods=methods, out=out, executor=name, **workers_given, **given
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    folder = tmp_path_factory.mktemp("whole")
    mine = folder / "my_method.py"
    mine.write_text(MINE)
    return folder / "out", mine, told(race_on("inline", folder / "out", mine))


@contextmanager
def killing(times: int, draw: random.Random) -> Iterator[list[int]]:
    """Kill so many workers, each a random while after the one before."""
    import psutil

    over, killed = threading.Event(), list[int]()

    def workers() -> Sequence[Any]:
        children = psutil.Process().children(recursive=True)
        names = [(one, " ".join(one.cmdline())) for one in children]
        return [one for one, name in names if "ray::do" in name or "spawn_main" in name]

    def kill() -> None:
        while not over.wait(draw.uniform(0.5, 2.0)) and len(killed) < times:
            try:
                if found := [one for one in workers() if one.cpu_times().user > 1.0]:  # past their imports
                    draw.choice(found).kill()
                    killed.append(1)
            except psutil.Error:
                continue

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("name", [LOCAL, RAY])
def test_two_workers_that_are_killed_three_times_give_the_records_of_one_process(
    whole: tuple[Path, Path, Any], tmp_path: Path, name: str
) -> None:
    out, mine, wanted = whole
    with killing(3, random.Random(time.time_ns())) as killed:
        answer = race_on(name, tmp_path, mine)
    assert killed
    assert told(answer) == wanted
    here, there = trials(out), trials(tmp_path)
    assert {one: there[one] for one in here} == here
    assert {one: data for one, data in tensors(tmp_path).items() if one in tensors(out)} == tensors(out)


@pytest.mark.slow
def test_the_command_line_races_on_processes(whole: tuple[Path, Path, Any], call: Any, tmp_path: Path) -> None:
    given = ["--model", "toy:ascending", "--task", "descending", "--method", "zero-shot", "--test-items", "16"]
    code, _, err = call("verdict", *given, "--out", str(tmp_path / "out"), "--executor", "local", "--workers", "1")
    assert code == 0, err
    assert "Workers: local, one thread each." in err
    code, _, err = call("verdict", *given, "--workers", "1")
    assert (code, "are for an executor" in err) == (2, True)
