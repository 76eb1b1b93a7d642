"""Run one trial: one method at one setting, learning rate and seed, on one model and task. Its record is plain data."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from elicitable.errors import ElicitableError, InputError
from elicitable.methods.base import Method
from elicitable.models.inject import room_in
from elicitable.models.layout import Layout, Start
from elicitable.models.speed.processor import kind
from elicitable.race.marking import Marked, Marking
from elicitable.records.store import Store
from elicitable.records.trial import Outcomes, Times, TrialRecord, keep_trial, kept_trial, record_of_fit
from elicitable.tasks.base import identity_of
from elicitable.tasks.passages import FINGERPRINT, ITEMS
from elicitable.training.batches import Reading, encode
from elicitable.training.evaluate import answers, evaluate
from elicitable.training.generate import Answer, text_of
from elicitable.training.loop import Fit, Plan, Progress, prepared, reading_of, train
from elicitable.values import Budget, Item, Message, Messages, Text

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


Trained = Callable[["Adaptation", Progress | None], Fit]


@dataclass(frozen=True)
class Trial:
    """What to run. Everything that can change the result is in :meth:`spec`, and nothing else is."""

    method: Method
    size: int
    plan: Plan
    seed: int
    test_items: int = 0  # 0: a sweep; the test split is not touched
    options: dict[str, Any] = field(default_factory=dict)
    time_limit: float | None = None
    layouts: tuple[Layout, ...] = ()  # what a method that is chosen tries items in
    marking: Marking | None = None  # how the test is scored; None scores nothing

    def spec(self, model: Model, task: Task) -> dict[str, Any]:
        """Identity of the trial. The seconds of a search are left out: the time limit stands for them, so that an
        interrupted race finds it again."""
        plan = replace(self.plan, seconds=None)
        return {
            "method": self.method.identity,
            "size": self.size,
            "plan": asdict(plan),
            "seed": self.seed,
            "test_items": self.test_items,
            "options": self.options,
            "layouts": [asdict(layout) for layout in self.layouts],
            "marking": self.marking.setting() if self.marking else None,
            "time_limit": self.time_limit,
            "model": model.fingerprint,
            "task": identity_of(task),
            "elsewhere": FINGERPRINT,  # of the texts that side effects are measured on
            "form": FORM,
        }


FORM = 3  # of a record; raised when a race comes to keep or to measure something else for the same spec
_FINALISTS = 8


def run(
    trial: Trial,
    model: Model,
    task: Task,
    store: Store,
    progress: Progress | None = None,
    trained: Trained | None = None,
) -> TrialRecord:
    """The trial's record: from the store if it is there, else by running it.

    ``trained`` trains in the place of :func:`elicitable.training.loop.train`, for a run that goes on from another.

    What cannot be done with this model and task is recorded as ``skipped``. A failure (out of memory, a bug) is
    recorded with its traceback, does not stop the race, and is tried again the next time. An interrupt leaves none.
    """
    spec = trial.spec(model, task)
    known = kept_trial(store, spec)
    if known is not None and known.status != "failed":
        return known
    started = time.monotonic()
    state: dict[str, Any] | None = None
    try:
        record, state = _execute(trial, model, task, progress, trained)
    except ElicitableError as error:
        record = TrialRecord("skipped", str(error), Times(0.0))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        record = TrialRecord("failed", reason, Times(0.0), traceback=traceback.format_exc())
    timing = replace(record.timing, seconds=round(time.monotonic() - started, 3))
    whole = replace(record, timing=timing, processor=record.processor or kind(), threads=torch.get_num_threads())
    return keep_trial(store, spec, whole, state)


def _execute(
    trial: Trial, model: Model, task: Task, progress: Progress | None, trained: Trained | None
) -> tuple[TrialRecord, dict[str, Any] | None]:
    method = trial.method
    if not method.is_trained:
        adaptation, record = _choose(trial, model, task)
    else:
        adaptation = method.build(model, trial.size, seed=trial.seed, **trial.options)
        if trained is None:
            fit = train(model, adaptation, task, trial.plan, trial.seed, progress=progress)
        else:
            fit = trained(adaptation, progress)
        record = record_of_fit(fit)
    record = replace(record, setting=adaptation.setting, budget=adaptation.budget())
    if record.is_ok and trial.test_items:
        started = time.monotonic()
        record = assess(record, trial, model, adaptation, task)
        timing = replace(record.timing, test_seconds=round(time.monotonic() - started, 3))
        return replace(record, timing=timing), adaptation.state() if method.keeps_state else None
    return record, None


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _choose(trial: Trial, model: Model, task: Task) -> tuple[Adaptation, TrialRecord]:
    """The best candidate on validation, as far as the time allotted reaches; the first is always tried."""
    items = task.held_out("validation", trial.plan.validation_items)
    deadline = time.monotonic() + trial.plan.seconds if trial.plan.seconds else math.inf
    candidates = list(trial.method.candidates(model, task, trial.seed, layouts=trial.layouts, **trial.options))
    if not candidates:
        raise ElicitableError(f"{trial.method.name} has no candidates for {task.name} on {model.name}")
    if len(candidates) > 2 * _FINALISTS:  # a search: a quick look at each, a long one at the best
        screened = _scored(trial, model, task, candidates, items[:32], deadline)
        finalists = [candidate for _, _, candidate in screened[:_FINALISTS]]
    else:
        finalists = candidates
    tried = _scored(trial, model, task, finalists, items, deadline)
    mean, loss, best = tried[0]
    return best, TrialRecord(
        "ok",
        "all candidates tried" if len(tried) == len(finalists) else "stopped early",
        Times(0.0),
        validation=mean,
        validation_loss_nats=_finite(-loss),
        tried=tuple({"setting": c.setting, "validation": m} for m, _, c in tried[:20]),
        tried_count=len(candidates),
    )


def _scored(
    trial: Trial, model: Model, task: Task, candidates: Sequence[Adaptation], items: Sequence[Item], deadline: float
) -> list[tuple[float, float, Adaptation]]:
    """(score, −loss, candidate), best first; the first is always scored, the others as far as the time reaches."""
    tried: list[tuple[float, float, Adaptation]] = []
    started = now = time.monotonic()
    for candidate in candidates:
        if tried and now + (now - started) / len(tried) > deadline:  # the next one would end too late
            break
        candidate.fit(model, items)
        with torch.no_grad(), prepared(model, candidate) as refresh:
            refresh()
            score = evaluate(model, items, task.labels(), reading_of(trial.plan, candidate))
        tried.append((score.mean, -score.loss_nats, candidate))
        now = time.monotonic()
    return sorted(tried, key=lambda one: one[:2], reverse=True)


def assess(record: TrialRecord, trial: Trial, model: Model, adaptation: Adaptation, task: Task) -> TrialRecord:
    """Add to ``record`` what is measured once, at the end: the test split, side effects, prefix mass, a few answers."""
    assert trial.marking is not None
    items = task.held_out("test", trial.test_items)
    known = task.held_out("validation", trial.plan.validation_items) if task.labels() else []
    adaptation.fit(model, [*items, *known])
    reading = reading_of(trial.plan, adaptation)
    with torch.no_grad(), prepared(model, adaptation) as refresh:
        refresh()
        marked = trial.marking.mark(model, task, items, known, reading)
        score = marked.score
        elsewhere = evaluate(model, _elsewhere(model), None, _passages(model, reading))
        shown = _shown(model, items[:5], task, reading, marked)
    if math.isnan(score.loss_nats):
        raise InputError(f"what {model.name} answers to {task.name} is not a number (NaN), so there is no score.")
    return replace(
        record,
        scores={task.name: marked.outcomes},
        answers=marked.written,
        rule=marked.rule.record() if marked.rule else {},
        raw=marked.raw,
        budget=_with_rule(record.budget, marked),
        test_loss_nats=_finite(score.loss_nats),
        cut_items=score.cut_items,
        cut_tokens=score.cut_tokens,
        elsewhere_nats=_finite(elsewhere.loss_nats),
        prefix_mass=prefix_mass(model, adaptation, items[:16], reading),
        samples=tuple(
            {"prompt": _text(item.prompt), "target": _text(item.target), "answer": answer}
            for item, answer in zip(items, shown, strict=False)
        ),
    )


def _shown(model: Model, items: Sequence[Item], task: Task, reading: Reading, marked: Marked) -> list[str]:
    """What a person sees of the answers: the label that was decided for, or what was really written."""
    if task.labels() is not None:
        return list(marked.written[: len(items)])
    return [_said(model, answer) for answer in answers(model, items, None, reading)]


def _with_rule(budget: Budget | None, marked: Marked) -> Budget | None:
    """The numbers that a decision rule took from validation are trained numbers like any others."""
    if budget is None or marked.rule is None:
        return budget
    return replace(budget, numbers_trained=budget.numbers_trained + marked.rule.numbers)


def elsewhere_nats(model: Model) -> float:
    """Nats a token that the model as it is right now needs for the text that side effects are measured on."""
    return _elsewhere_nats(model, model.fingerprint)


@lru_cache(maxsize=8)
def _elsewhere_nats(model: Model, fingerprint: str) -> float:
    return evaluate(model, _elsewhere(model), None, _passages(model, Reading())).loss_nats


def _passages(model: Model, reading: Reading) -> Reading:
    """How texts that are no answers are read: without an end, and behind a context without a start of their own."""
    start: Start = "none" if reading.held else "own"
    return Reading(batch=64 if model.tokenizer is None else 4, layout=Layout(start=start, end=""))


def _elsewhere(model: Model) -> Sequence[Item]:
    """Items of another kind than the task: plain English, or the toys' pretraining mix."""
    if model.tokenizer is not None:
        limit = model.anatomy.position_limit
        return ITEMS if limit is None or limit >= 512 else [_opening(model, item, limit // 2) for item in ITEMS]
    from elicitable.tasks.catalog import task_from

    return task_from("mixed" if model.name != "toy:ascending" else "ascending").held_out("validation", 128)


def _opening(model: Model, item: Item, tokens: int) -> Item:
    """The first ``tokens`` of a passage, for a model of few positions: the first half is read, the second predicted."""
    ids = model.ids(f"{item.prompt}{item.target}")[0, :tokens].tolist()
    first, second = ids[: len(ids) // 2], ids[len(ids) // 2 :]
    return Item(text_of(model, (), first), text_of(model, first, second))


def prefix_mass(
    model: Model, adaptation: Adaptation, items: Sequence[Item], reading: Reading
) -> tuple[tuple[float, ...], ...]:
    """(layer, head) share of attention on the context, mean over items and content positions; empty without one."""
    if adaptation.keys_per_layer() == 0:
        return ()
    from elicitable.microscope.watch import watch

    room = room_in(model, reading.max_tokens, adaptation.keys_per_layer())
    batch = encode(model, items, room, reading.layout, reading.held)
    given = {"attention_mask": batch.attention_mask} if batch.attention_mask is not None else {}
    with torch.no_grad(), watch(model, adaptation) as scope:
        model.hf(input_ids=batch.input_ids, use_cache=False, logits_to_keep=1, **given)
    mass = scope.prefix_mass
    kept = torch.ones(batch.input_ids.shape, dtype=torch.bool)
    if batch.attention_mask is not None:
        kept = batch.attention_mask.bool().cpu()
    return tuple(tuple(round(float(head[kept].mean()), 6) for head in layer) for layer in mass.float().cpu())


def _text(text: Text | Messages) -> str:
    if isinstance(text, str):
        return text
    if text and isinstance(text[0], Message):
        return "\n".join(f"{turn.role}: {turn.content}" for turn in text if isinstance(turn, Message))
    return " ".join(map(str, text))


def _said(model: Model, answer: Answer) -> str:
    """What was written; where it did not end, that is said too."""
    if answer.has_ended or model.tokenizer is None:
        return answer.text
    return f"{answer.text} … (not ended after {len(answer.ids)} tokens)"


def outcomes_of(record: TrialRecord) -> Outcomes:
    """The outcomes on the race's one task, item by item."""
    [found] = record.scores.values()
    return found
