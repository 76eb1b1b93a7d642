"""Is the task read wrongly? Other templates, layouts and rules, tried with what needs no training.

A template that misleads, a chat template left out, a rule between labels that was fixed: each hides what the model can
do from every context that is put in front of it. So the arms that are chosen on validation are asked again in other
ways. The rows, the answers and the order of both stay, so the results can be compared in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from elicitable.diagnosis.causes import Experiment
from elicitable.errors import InputError
from elicitable.models.layout import Layout, alternatives, layout_for
from elicitable.race.causes.study import Study
from elicitable.race.entry import Entry, Race
from elicitable.race.marking import AUTO, text_of_target
from elicitable.race.results import arm_result
from elicitable.race.trial import Trial, run
from elicitable.tasks.base import stops_of
from elicitable.tasks.text import TextTask
from elicitable.training.loop import Plan

if TYPE_CHECKING:
    from elicitable.tasks.base import Task

PASSES = 512  # of a search in another reading


@dataclass(frozen=True)
class OtherReading:
    """Hold a way to read a task: the task in another template, other layouts, another rule; and how to type it."""

    said: str
    task: Task
    layouts: tuple[Layout, ...]
    rule: str
    setting: dict[str, str]


def other_readings(race: Race) -> Iterator[OtherReading]:
    """Yield the other ways in which the task of ``race`` can be read; nothing where items are token ids."""
    if race.model.tokenizer is None:
        return
    task, rule = race.task, race.marking.rule
    if task.labels() is not None and rule != AUTO:
        yield OtherReading("the rule between labels chosen on validation", task, race.layouts, AUTO, {"--rule": AUTO})
    known = {replace(layout, examples=()) for layout in race.layouts}
    for chat in ("on", "off"):
        try:
            layout = layout_for(race.model, chat, None, race.layouts[0].end, race.layouts[0].cut, stops_of(task))
        except InputError:
            continue
        further = tuple(
            one for one in alternatives(race.model, layout, "on" if chat == "on" else "off") if one not in known
        )
        if further:
            said = "asked by the chat template" if chat == "on" else "asked without the chat template"
            yield OtherReading(said, task, further, rule, {"--chat": chat})
    for said, template, other in _other_templates(task):
        yield OtherReading(said, other, race.layouts, rule, {"--template": template})


def _other_templates(task: Task) -> Iterator[tuple[str, str, Task]]:
    """Yield plain templates in the place of the task's own, where rows have one."""
    if not isinstance(task, TextTask) or not task.template.literals:
        return
    cells = "\n".join("{" + name + "}" for name in task.template.names)
    labels = task.labels()
    plain = [f"{cells}\nLabel:", f"Text: {cells}\nAnswer:"] if labels else [cells, f"{cells}\nAnswer:"]
    if labels and len(labels) <= 20:
        named = ", ".join(label.strip() for label in labels)
        plain.append(f"Text: {cells}\nWhich of these fits: {named}?\nAnswer:")
    shown = task.template.shown(tuple("\x01" for _ in task.template.names))
    for template in plain:
        other = task.with_template(template)
        if other.template.shown(tuple("\x01" for _ in task.template.names)) != shown:
            yield f"the template {template!r}".replace("\\n", "\\n"), template, other


def read_otherwise(study: Study, chosen: Sequence[Entry], gap: float) -> list[Experiment]:
    """Ask the arms that are chosen on validation in every other reading; the best of each reading is its experiment.

    ``gap`` is that of the context that falls short; ``chosen`` are the race's arms without training, cheapest first.
    """
    return [
        study.ask("", "reading", reading.said, partial(_asked_so, study, reading, chosen, gap))
        for reading in other_readings(study.race)
    ]


def _asked_so(study: Study, reading: OtherReading, chosen: Sequence[Entry], gap: float) -> Experiment:
    race = study.race
    targets = [text_of_target(item) for item in race.test()]
    if [text_of_target(item) for item in reading.task.held_out("test", race.pace.test_items)] != targets:
        return Experiment("", "reading", reading.said, reason="the rows would be other ones")
    marking = replace(race.marking, rule=reading.rule)
    other = replace(race, task=reading.task, layouts=reading.layouts, marking=marking)
    other.shelf = race.shelf
    best: tuple[float, Entry] | None = None
    for entry in chosen:
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


def _chosen_in(race: Race, entry: Entry) -> Entry:
    """Choose among the candidates of an arm as the race does, with fewer passes, and test the best."""
    pace = race.pace
    plan = Plan(
        learning_rate=0.0,
        steps=0,
        batch=pace.batch,
        validation_items=pace.validation_items,
        max_tokens=pace.max_tokens,
        layout=race.layouts[0],
    )
    options: dict[str, Any] = race.options_of(entry.method)
    trial = Trial(
        entry.method, 2, plan, race.seed, pace.test_items, options, None, race.layouts, race.marking, passes=PASSES
    )
    record = run(trial, race.model, race.task, race.store, race.reporter.point)
    return Entry(entry.sized, records=[record], trial=trial, seconds=record.timing.seconds)
