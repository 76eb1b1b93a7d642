"""Race cases twice: as a race spends its time, and with everything that it would leave out. Are the labels the same?

    python benchmarks/allocator.py                     # 20 planted cases and 4 of the toys; hours; goes on where it was
    python benchmarks/allocator.py --cases 4 --toys 1  # fewer
    python benchmarks/allocator.py --share 1/8 --out 1.jsonl  # every eighth case; lines of several files go together
    python benchmarks/allocator.py --cases 0 --toys 0 --texts 4 --device cuda  # SmolLM2 on four text tasks

*Exhaustive* is every rate of every arm trained for 512 steps or until one solves the task, then the best rate of each
arm to its own end (solved, flat, or as long as a race may) whatever the others do, brought down and tested, and all
seeds of every arm. What is chosen and not trained (prompts, examples) is chosen alike. SmolLM2 is raced with four arms
of 300 steps at most (what a race of it has by itself), and every rate is trained for 64. Seconds are the processor's,
of one process on one thread; those that passed where the model is on another device. Results go to ``--out`` as JSON
lines, one for each way of a case, with the digests of its model and data; what is there is not raced again. A race that
was cut off goes on from its folder in ``--races``, and its seconds are those of all its pieces.
"""

from __future__ import annotations

import argparse
import html
import os
import shutil
import signal
import tempfile
import threading
import time
import zoneinfo
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from compile import topics_csv
from contexts import tasks as text_tasks
from kept import Kept

import elicitable as el
from elicitable.diagnosis.shares import wilson
from elicitable.models.speed.processor import made_on
from elicitable.planted.parts import part_named
from elicitable.race import look, rounds, seeds, stakes
from elicitable.race.entry import Entry, Race
from elicitable.race.line import Line, leave
from elicitable.race.outlook import SOLVED, longest
from elicitable.tasks.catalog import task_from
from elicitable.tasks.memory import memory_task
from elicitable.tasks.movie_reviews import load_table
from elicitable.tasks.options import TaskOptions

SWEPT = 512  # steps of every rate, where none solves the task
TEXTS: dict[str, Any] = {  # what is asked of SmolLM2
    "methods": ("zero-shot", "prompt", "kv-prefix", "lora"),
    "steps": 300,
    "seeds": 2,
    "test_items": 400,
}
TEXTS_SWEPT = 64
CONTINENTS = ("Africa", "America", "Asia", "Europe")
SHORT = 10  # words of a review
NOTED = 10.0  # seconds between two notes of what a race has cost
RECORDS = Path(__file__).resolve().parents[1] / "records" / "allocator.jsonl"
TOYS = (
    ("toy:ascending", "descending"),
    ("toy:ascending", "ascending"),
    ("toy:mixed", "ascending"),
    ("toy:mixed", "ascending-add-1"),
)
Case = tuple[str, Callable[[], tuple[Any, Any]], dict[str, Any]]  # name, model and task, what is asked


def main() -> None:
    """Race what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20, help="of the planted truth")
    parser.add_argument("--toys", type=int, default=len(TOYS))
    parser.add_argument("--texts", type=int, default=0, help="tasks of texts, on SmolLM2")
    parser.add_argument("--device", default="cpu", help="of SmolLM2")
    parser.add_argument("--share", default="0/1", help="which of how many parts of the cases")
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS), help="those that are missing")
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--races", type=Path, help="where races go on that were cut off; beside --out if not said")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a race that is interrupted answers, and would be kept as a whole one
    part, parts = map(int, given.share.split("/"))
    known, races = Kept(given.out), given.races or given.out.with_suffix(".races")
    for name, load, asked in [*toys(given.toys), *planted(given.cases), *texts(given.texts, given.device)][part::parts]:
        model, task = load()
        is_of = {"case": name, "model_hash": model.fingerprint, "data_hash": task.fingerprint()}
        for way in given.ways:
            if not known.has(**is_of, way=way):
                with WAYS[way]():
                    found = raced(model, task, asked, races / f"{name}-{way}".replace("/", "-"))
                known.add({**is_of, "way": way, **made_on(model.device), **found})
    show(known)


def planted(count: int) -> Iterator[Case]:
    """Return the first cases of the planted truth, in the order that mixes models and states."""
    part = part_named("one-layer")
    for case in part.first(count) if count else ():
        yield case.name, lambda case=case: (part.load(case.model, Path(), "cpu"), case.task()), dict(part.asked)


def toys(count: int) -> Iterator[Case]:
    """Return the races of the paper's toys."""
    for model, task in TOYS[:count]:
        yield f"{model}/{task}", lambda m=model, t=task: (el.load(m, device="cpu"), task_from(t)), {}


def texts(count: int, device: str) -> Iterator[Case]:
    """Return races of SmolLM2 on texts, those of few words first."""
    for name, task in list(tasks_of_texts().items())[:count] if count else ():
        yield f"smollm2/{name}", lambda t=task: (el.load("smollm2", device=device), task_from(t)), TEXTS


def tasks_of_texts() -> dict[str, Any]:
    """Return the tasks of texts by name."""
    columns = TaskOptions(text_column="text", label_column="label")
    with tempfile.TemporaryDirectory() as folder:
        short = {"topics": task_from(topics_csv(Path(folder)))}
    short["cities"] = memory_task(list(cities()), columns)
    short["short-reviews"] = memory_task(list(short_reviews()), columns)
    return {**short, **dict(reversed(text_tasks().items()))}


def cities() -> Iterator[dict[str, str]]:
    """Yield the places of the time zones and the continents they are in."""
    for name in sorted(zoneinfo.available_timezones()):
        continent, _, place = name.partition("/")
        if continent in CONTINENTS:
            yield {"text": place.split("/")[-1].replace("_", " "), "label": continent}


def short_reviews() -> Iterator[dict[str, str]]:
    """Yield the movie reviews of a few words."""
    for line in load_table().decode("utf-8").splitlines():
        _, rating, text = line.split("\t")
        if len(words := html.unescape(text).split()) <= SHORT:
            yield {"text": " ".join(words), "label": "positive" if float(rating) > 0 else "negative"}


def raced(model: Any, task: Any, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the verdict of one race from nothing, or from where it was cut off, and what it cost."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter
    with noted(folder / "seconds", clock) as spent:
        answer = el.verdict(model, task, **asked, out=folder / "race")
        seconds = spent()
    shutil.rmtree(folder)
    arms = {arm.method: [None if arm.mean is None else round(arm.mean, 4), arm.steps, arm.seeds] for arm in answer.arms}
    return {"label": answer.label, "answer": answer.answer, "seconds": round(seconds, 1), "mean_steps_seeds": arms}


@contextmanager
def noted(path: Path, clock: Callable[[], float]) -> Iterator[Callable[[], float]]:
    """Inside, what passes by a clock, and what passed in earlier pieces, is written to a file again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before, began, ended = float(path.read_text()) if path.exists() else 0.0, clock(), threading.Event()

    def spent() -> float:
        return before + clock() - began

    def note() -> None:
        while not ended.wait(NOTED):
            path.with_suffix(".new").write_text(f"{spent():.1f}")
            path.with_suffix(".new").replace(path)

    noting = threading.Thread(target=note, daemon=True)
    noting.start()
    try:
        yield spent
    finally:
        ended.set()
        noting.join()


@contextmanager
def exhaustive() -> Iterator[None]:
    """Inside, no arm is left, waits or stops because of another, and every one has all seeds."""

    def can_matter(race: Race, entry: Entry, entries: Sequence[Entry]) -> bool:
        return entry.is_racing and not entry.is_tested

    def seeded(race: Race, decision: Any, entries: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in entries if entry.method.is_seeded and entry.records and not entry.method.is_control]

    def better_half(race: Race, lines: Sequence[Line]) -> list[Line]:
        fine = look.ranked(race, lines)
        best = max((line.latest.validation or 0.0 for line in fine if line.latest is not None), default=0.0)
        swept = min(SWEPT if race.model.tokenizer is None else TEXTS_SWEPT, longest(race))
        is_told = not fine or min(line.steps for line in fine) >= swept or best >= SOLVED
        for line in fine[1:] if is_told else ():
            leave(race, line)
        return fine[:1] if is_told else fine

    with (
        patched(look, "better_half", better_half),
        patched(rounds, "can_matter", can_matter),
        patched(rounds, "cohort_of", lambda race, open_arms, entries: list(open_arms)),
        patched(stakes, "owed", longest),
        patched(stakes, "is_out_of_reach", lambda race, entry, entries: False),
        patched(stakes, "is_done_alone", lambda race, entry: False),
        patched(seeds, "_rivals", seeded),
    ):
        yield


WAYS = {"allocated": nullcontext, "exhaustive": exhaustive}


@contextmanager
def patched(module: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, ``module`` has ``value`` under a name that it has."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def show(known: Sequence[dict[str, Any]]) -> None:
    """Print every pair, the share of equal labels with its interval, and the share of the time."""
    pairs = list(paired(known))
    print(f"{'case':<34} {'allocated':<14} {'s':>6}  {'exhaustive':<14} {'s':>6}  share")
    for name, ours, whole in pairs:
        sign = " " if ours["label"] == whole["label"] else "≠"
        print(
            f"{name:<34} {ours['label']:<14} {ours['seconds']:>6.0f} {sign}{whole['label']:<14} "
            f"{whole['seconds']:>6.0f}  {ours['seconds'] / whole['seconds']:.2f}"
        )
    same = sum(ours["label"] == whole["label"] for _, ours, whole in pairs)
    low, high = wilson(same / len(pairs), len(pairs))
    spent, needed = (sum(pair[way]["seconds"] for pair in pairs) for way in (1, 2))
    print(
        f"{same} of {len(pairs)} labels equal ({same / len(pairs):.3f} [{low:.3f}, {high:.3f}]); "
        f"{spent:,.0f} of {needed:,.0f} s, a share of {spent / needed:.2f}"
    )


def paired(known: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield the cases that were raced both ways: name, allocated, exhaustive."""
    of = {way: {line["case"]: line for line in known if line["way"] == way} for way in ("allocated", "exhaustive")}
    for name, ours in of["allocated"].items():
        if name in of["exhaustive"]:
            yield name, ours, of["exhaustive"][name]


if __name__ == "__main__":
    main()
