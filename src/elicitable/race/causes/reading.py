"""Is the task read wrongly? Other templates, layouts and rules, tried with what needs no training.

A template that misleads, a chat template left out, a rule between labels that was fixed: each hides what the model can
do from every context that is put in front of it. So the arms that are chosen on validation are asked again in other
ways. The rows, the answers and the order of both stay, so the results can be compared in pairs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from elicitable.diagnosis.causes import Experiment
from elicitable.diagnosis.intervals import interval
from elicitable.errors import InputError
from elicitable.models.layout import Layout, alternatives, layout_for
from elicitable.race.causes.study import Study
from elicitable.race.choice import chosen_trial
from elicitable.race.entry import Entry, Race
from elicitable.race.inside import again
from elicitable.race.marking import AUTO, text_of_target
from elicitable.race.results import arm_result
from elicitable.race.timing import is_there, test_seconds
from elicitable.race.trial import run
from elicitable.tasks.base import most_of, stops_of
from elicitable.tasks.text import TextTask
from elicitable.training.batches import Reading
from elicitable.training.decision_rules import prior_corrected
from elicitable.training.evaluate import answers, read_labels, truth_of
from elicitable.training.loop import prepared, reading_of

if TYPE_CHECKING:
    from elicitable.tasks.base import Task

BESIDE = 32  # targets of other items that an answer is held against
PASSES = 512  # of a search in another reading, at most
ASKED = ("Label", "Category", "Topic", "Sentiment", "Answer")  # what a plain template asks for
SCREENED, KEPT = 64, 3  # validation items that all plain templates are read on, and the best, which are asked further


@dataclass(frozen=True)
class OtherReading:
    """Hold a way to read a task: the task in another template, other layouts, another rule; and how to type it."""

    said: str
    task: Task
    layouts: tuple[Layout, ...]
    rule: str
    setting: dict[str, str]


def other_readings(study: Study) -> Iterator[OtherReading]:
    """Yield the other ways in which the task of a race can be read; nothing where items are token ids."""
    race = study.race
    if race.model.tokenizer is None:
        return
    task, rule = race.task, race.marking.rule
    if task.labels() is not None and rule != AUTO:
        freed = {"--score": "accuracy" if task.labels() else "exact-match"} if race.marking.metric else {"--rule": AUTO}
        yield OtherReading("the rule between labels chosen on validation", task, race.layouts, AUTO, freed)
    first = race.layouts[0]
    for chat in ("on", "off"):
        try:
            system = first.system if chat == "on" or first.turns else None
            layout = layout_for(race.model, chat, system, first.end, first.cut, stops_of(task), first.turns)
        except InputError:
            continue
        further = tuple(one for one in alternatives(race.model, layout, chat) if one not in race.layouts)
        if further:
            said = "asked by the chat template" if chat == "on" else "asked without the chat template"
            yield OtherReading(said, task, further, rule, {"--chat": chat})
    for template, other in _promising(study, list(_other_templates(task))):
        yield OtherReading(f"the template {template!r}", other, race.layouts, rule, {"--template": template})


def _other_templates(task: Task) -> Iterator[tuple[str, TextTask]]:
    """Yield plain templates in the place of the task's own, where rows have one, as they are typed.

    Answers stand behind the separator that the task has, which a typed template ends with.
    """
    if not isinstance(task, TextTask) or not task.template.literals:
        return
    cells = "\n".join("{" + name + "}" for name in task.template.names)
    labels = task.labels()
    plain = [cells, f"{cells}\nAnswer:"]
    if labels:
        plain = [f"{before}{cells}\n{asked}:" for asked in ASKED for before in ("", "Text: ")]
        plain.append(f"{cells}\nThis text is")
    if labels and len(labels) <= 20:
        named = ", ".join(label.strip() for label in labels)
        plain.append(f"Text: {cells}\nWhich of these fits: {named}?\nAnswer:")
    separator = task.template.separator
    tail = separator if separator.isspace() and separator != " " else ""
    shown = task.template.shown(tuple("\x01" for _ in task.template.names))
    for template in plain:
        other = task.with_template(template)
        if other.template.shown(tuple("\x01" for _ in task.template.names)) != shown:
            yield template + tail, other


def _promising(study: Study, templates: list[tuple[str, TextTask]]) -> list[tuple[str, TextTask]]:
    """Return the templates by which the model alone does best on a few validation items, the best first.

    Which one suits a model cannot be known beforehand. Each label's mean cost is taken off, since a template that
    favours one label may tell them apart all the same. What there is no time to read on comes last.
    """
    race, labels = study.race, study.race.task.labels()
    if not labels or len(templates) <= KEPT:
        return templates

    def share_right(template: tuple[str, TextTask]) -> float:
        if not study.begins("", f"the template {template[0]!r}, in short", SCREENED * race.item_seconds):
            return 0.0
        items = template[1].held_out("validation", SCREENED)
        nats = read_labels(race.model, items, labels, Reading(layout=race.layouts[0])).nats.numpy()
        return float((prior_corrected(nats).decide(nats) == truth_of(items, labels)).mean())

    return sorted(templates, key=share_right, reverse=True)[:KEPT]


def read_otherwise(study: Study, chosen: Sequence[Entry], gap: float) -> list[Experiment]:
    """Ask the arms that are chosen on validation in every other reading; the best of each reading is its experiment.

    ``gap`` is that of the context that falls short; ``chosen`` are the race's arms without training, cheapest first.
    """
    return [
        study.ask("", "reading", reading.said, partial(_asked_so, study, reading, chosen, gap))
        for reading in other_readings(study)
    ]


def _asked_so(study: Study, reading: OtherReading, chosen: Sequence[Entry], gap: float) -> Experiment:
    race = study.race
    targets = [text_of_target(item) for item in race.test()]
    if [text_of_target(item) for item in reading.task.held_out("test", race.pace.test_items)] != targets:
        return Experiment("", "reading", reading.said, reason="the rows would be other ones")
    marking = replace(race.marking, rule=reading.rule)
    passes = min(PASSES, race.search_passes or PASSES)
    other = replace(race, task=reading.task, layouts=reading.layouts, marking=marking, search_passes=passes)
    other.shelf = race.shelf
    best: tuple[float, Entry] | None = None
    for entry in chosen:
        study.needs(_seconds_of_choice(other, entry))
        tried = _chosen_in(other, entry)
        record = tried.records[0]
        if record.is_ok and record.validation is not None and (best is None or record.validation > best[0]):
            best = record.validation, tried
    if best is None:
        return Experiment("", "reading", reading.said, reason="no arm ran through")
    name = best[1].method.name
    return study.compared(
        "", "reading", f"{name} with {reading.said}", arm_result(other, best[1]), gap, reading.setting
    )


def _seconds_of_choice(race: Race, entry: Entry) -> float:
    """Return the seconds, about, that choosing an arm and its test take, as in the race; 0 where that is kept."""
    if is_there(race, chosen_trial(race, entry.method)):
        return 0.0
    return max((record.timing.seconds for record in entry.records), default=0.0)


def _chosen_in(race: Race, entry: Entry) -> Entry:
    """Choose among the candidates of an arm as the race does, and test the best."""
    trial = chosen_trial(race, entry.method)
    record = run(trial, race.model, race.task, race.store, race.reporter.point)
    return Entry(entry.sized, records=[record], trial=trial, seconds=record.timing.seconds)


def judged_kindly(study: Study, chosen: Sequence[Entry], gap: float) -> list[Experiment]:
    """Compare what the best arm without training writes with the targets more kindly than letter by letter.

    Where answers are free and must match exactly, a right answer that goes on, or is written otherwise, counts as
    wrong. Its first line alone, and whether it holds the target but for case and punctuation, tell. As many answers as
    would be right beside the target of another item are not counted: those that hold the most of these.
    """
    race = study.race
    tested = [entry for entry in chosen if entry.records and entry.records[0].is_ok and entry.trial is not None]
    is_free = race.model.tokenizer is not None and race.task.labels() is None and race.marking.scorer.is_exact
    if not tested or not is_free:
        return []
    best = max(tested, key=lambda entry: arm_result(race, entry).mean or 0.0)
    written: list[str] = []

    def run(said: str, is_right: Callable[[str, str], bool], setting: dict[str, str]) -> Experiment:
        if not written:
            study.needs(test_seconds(race, best))
            written.extend(_written(race, best))
        right = above_chance([text_of_target(item) for item in race.test()], written, is_right)
        share, low, high = sum(right) / len(right), *interval((right,), race.seed, race.groups())
        arm = replace(arm_result(race, best), correct=(right,), answers=(), mean=share, low=low, high=high)
        return study.compared("", "reading", f"{best.method.name} with {said}", arm, gap, setting)

    return [
        study.ask("", "reading", said, partial(run, said, is_right, setting)) for said, is_right, setting in KIND_WAYS
    ]


def _written(race: Race, entry: Entry) -> list[str]:
    """Return what the model writes to each test item with the arm in place."""
    assert entry.trial is not None
    adaptation = again(entry.trial, entry.records[0], race.model, race.task, race.store)
    adaptation.fit(race.model, race.test())
    with torch.no_grad(), prepared(race.model, adaptation) as refresh:
        refresh()
        reading = replace(reading_of(entry.trial.plan, adaptation), most=most_of(race.task))
        found = answers(race.model, race.test(), None, reading)
    return [answer.text for answer in found]


def above_chance(
    targets: Sequence[str], written: Sequence[str], is_right: Callable[[str, str], bool]
) -> tuple[int, ...]:
    """Return (item,) which answers are right by a rule, without as many as are right beside another item's target.

    An answer that goes on long enough holds whatever may be asked for. So each one is also held against other targets
    than its own, those of the next :data:`BESIDE` items; as many answers as that makes right on average are taken off,
    the most talkative first.

    >>> above_chance(["1", "2", "3"], ["one: 1", "1 or 2 or 3", "3"], _holds)
    (1, 0, 1)
    """
    right, chances = [], []
    for nth, (target, answer) in enumerate(zip(targets, written, strict=True)):
        beside = [targets[(nth + step) % len(targets)] for step in range(1, min(BESIDE + 1, len(targets)))]
        held = [is_right(other, answer) for other in beside if _plain(other) != _plain(target)]
        right.append(is_right(target, answer))
        chances.append(sum(held) / max(1, len(held)))
    talkative = sorted((nth for nth, is_so in enumerate(right) if is_so), key=lambda nth: -chances[nth])
    lucky = set(talkative[: round(sum(chances))])
    return tuple(int(is_so and nth not in lucky) for nth, is_so in enumerate(right))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split())


def _in_first_line(target: str, answer: str) -> bool:
    return answer.strip().split("\n")[0].strip() == target


def _holds(target: str, answer: str) -> bool:
    return f" {_plain(target)} " in f" {_plain(answer)} "


KIND_WAYS: tuple[tuple[str, Callable[[str, str], bool], dict[str, str]], ...] = (
    ("answers that end with their first line", _in_first_line, {"--stop": "\\n"}),
    ("answers that need only hold the target", _holds, {"--score": "token-f1"}),
)
