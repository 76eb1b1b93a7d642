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

from elicitable.errors import ElicitableError, InputError, StoreError
from elicitable.methods.base import Method
from elicitable.methods.search import Tried
from elicitable.models.inject import room_in
from elicitable.models.layout import Layout, Start
from elicitable.models.rows import rows_of
from elicitable.models.speed.processor import made_on
from elicitable.race.aside import set_aside
from elicitable.race.elsewhere import items_elsewhere as _elsewhere
from elicitable.race.marking import Marked, Marking
from elicitable.race.search import FINALISTS, Choosing, Purse, passes_for
from elicitable.records.store import Store
from elicitable.records.trial import Outcomes, Times, TrialRecord, keep_trial, kept_trial, record_of_fit
from elicitable.rng import generator
from elicitable.tasks.base import identity_of, most_of
from elicitable.tasks.passages import FINGERPRINT
from elicitable.tasks.wider import wider
from elicitable.training.batches import Reading, groups, padded
from elicitable.training.evaluate import answers, evaluate
from elicitable.training.generate import Answer
from elicitable.training.loop import Fit, Plan, Progress, prepared, reading_of, train
from elicitable.training.slopes import token_slopes
from elicitable.values import Item, Message, Messages, Score, Text

if TYPE_CHECKING:
    from torch import Tensor

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
    passes: int | None = None  # that a method which is chosen may make in its search; None: see race/search.py
    is_first: bool = False  # of its arm's tests, so that it may be deployed; no part of the identity

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
            "model": model.identity,
            "task": identity_of(task),
            "elsewhere": FINGERPRINT,  # of the texts that side effects are measured on
            "form": FORM,
            **self._search(model),
        }

    def _search(self, model: Model) -> dict[str, Any]:
        """What only a search has; the identity of a trial that trains is as it was before there were searches."""
        if self.method.is_trained:
            return {}
        return {"search": {"passes": self.passes or passes_for(model.tokenizer), "form": SEARCH_FORM}}


SEARCH_FORM = 3  # of a search; raised when the same spec comes to find something else
FORM = 5  # of a record; raised when a race comes to keep or to measure something else for the same spec
SHOWN = 20  # candidates that a record shows, the best ones
SLOPE_ITEMS = 16


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
    known = known_record(trial, model, task, store)
    if known is not None:
        return known
    started = time.monotonic()
    state: dict[str, Any] | None = None
    try:
        record, state = _execute(trial, model, task, progress, trained)
    except StoreError as error:  # the disk or a file is at fault, not the method: it is tried again
        record = TrialRecord("failed", str(error), Times(0.0))
    except ElicitableError as error:
        record = TrialRecord("skipped", str(error), Times(0.0))
    except AssertionError:  # a promise of this package's own is broken, whatever the arm
        raise
    except (Exception, SystemExit) as error:  # out of memory or disk too: the arm is lost, not the race
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        record = TrialRecord("failed", reason, Times(0.0), traceback=traceback.format_exc())
    if state and not trial.method.keeps_state:
        set_aside(store, spec, state)
        state = None
    timing = replace(record.timing, seconds=round(time.monotonic() - started, 3))
    where = made_on(model.device)
    where["processor"] = record.processor or where["processor"]  # of a training, which may have been moved
    whole = replace(record, timing=timing, threads=torch.get_num_threads(), **where)
    return keep_trial(store, spec, whole, state)


def known_record(trial: Trial, model: Model, task: Task, store: Store) -> TrialRecord | None:
    """Return the trial's record from the store; None where there is none, or only one of a failure.

    Raises:
        StoreError: it is of another task or number of items.
    """
    spec = trial.spec(model, task)
    known = kept_trial(store, spec)
    return None if known is None or known.status == "failed" else _fitting(known, trial, task, store.where(spec))


def _fitting(known: TrialRecord, trial: Trial, task: Task, where: str) -> TrialRecord:
    """Return a kept record whose outcomes are those of the trial's test split, one per item.

    Raises:
        StoreError: they are of another task or number.
    """
    if not known.is_ok or not trial.test_items:
        return known
    items = len(task.held_out("test", trial.test_items))
    lengths = [outcomes.of for outcomes in (*known.scores.values(), known.raw) if outcomes is not None]
    lengths += [len(known.answers)] if known.answers else []
    if list(known.scores) != [task.name] or set(lengths) != {items}:
        raise StoreError(
            f"{where} is no record of a trial (it must have the outcomes of {items} items of {task.name}); move it "
            "away to run the trial again."
        )
    return known


def take_over(adaptation: Adaptation, state: dict[str, Any], where: object) -> None:
    """Load the tensors ``state`` that are kept with the record at ``where``.

    Raises:
        StoreError: they are gone, not what was written, or those of another adaptation.
    """
    wanted, found = ({name: tuple(x.shape) for name, x in one.items()} for one in (adaptation.state(), state))
    if wanted != found:
        raise StoreError(
            f"{where}: its tensors are gone or are those of another adaptation; move its folder away to "
            "run the trial again."
        )
    adaptation.load(state)


def _execute(
    trial: Trial, model: Model, task: Task, progress: Progress | None, trained: Trained | None
) -> tuple[TrialRecord, dict[str, Any] | None]:
    method = trial.method
    if not method.is_trained:
        adaptation, record = _choose(trial, model, task)
    else:
        adaptation = method.made(model, trial.size, seed=trial.seed, **trial.options)
        if trained is None:
            fit = train(model, adaptation, task, trial.plan, trial.seed, progress=progress)
        else:
            fit = trained(adaptation, progress)
        record = record_of_fit(fit)
    laid_out = trial.plan.layout.setting() if method.is_trained and adaptation.layout is None else {}
    record = replace(record, setting=adaptation.setting | laid_out, budget=adaptation.budget())
    if record.is_ok and trial.test_items:
        started = time.monotonic()
        record = assess(record, trial, model, adaptation, task)
        timing = replace(record.timing, test_seconds=round(time.monotonic() - started, 3))
        return replace(record, timing=timing), adaptation.state() if method.keeps_state or trial.is_first else None
    return record, None


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _choose(trial: Trial, model: Model, task: Task) -> tuple[Adaptation, TrialRecord]:
    """The best candidate that the passes and seconds allotted lead to: on validation, and rows that none shows."""
    least = len(task.held_out("validation", trial.plan.validation_items))
    task = wider(task, trial.plan.validation_items)
    items = task.held_out("validation", trial.plan.validation_items)
    deadline = time.monotonic() + trial.plan.seconds if trial.plan.seconds else math.inf
    passes = trial.passes or passes_for(model.tokenizer)
    is_ruled = trial.marking is not None and bool(task.labels()) and passes >= 4 * FINALISTS * least
    last = min(FINALISTS * len(items), passes // 4) if is_ruled else 0
    purse = Purse(passes - last, deadline)
    choosing = Choosing(
        lambda candidate, some: _scored(trial, model, task, candidate, some),
        items,
        purse,
        lambda candidate: _slopes(trial, model, task, candidate),
        least,
    )
    search = trial.method.search(model, task, trial.seed, layouts=trial.layouts, **trial.options)
    stopped = choosing.run(search)
    if not choosing.best:
        raise ElicitableError(f"{trial.method.name} has no candidates for {task.name} on {model.name}")
    purse.passes = passes
    best = _best_by_rule(trial, model, task, choosing) if is_ruled else choosing.best[0]
    effort = choosing.effort()
    return best.adaptation, TrialRecord(
        "ok",
        stopped,
        Times(0.0),
        validation=best.score,
        validation_loss_nats=_finite(best.nats),
        tried=tuple(_told(one) for one in choosing.best[:SHOWN]),
        tried_count=effort.candidates,
        effort=effort,
    )


def _best_by_rule(trial: Trial, model: Model, task: Task, choosing: Choosing) -> Tried:
    """Compare the finalists by the rule that each of them would get; the one with the best plain score on a tie.

    Where time has run out the best plain score decides.
    """
    assert trial.marking is not None
    items = choosing.items
    finalists = [one for one in choosing.best if one.items == len(items)][:FINALISTS]
    found: list[float] = []
    for one in finalists if len(finalists) > 1 else ():
        if choosing.left < len(items):
            return choosing.best[0]
        since = time.monotonic()
        one.adaptation.fit(model, items)
        with torch.no_grad(), prepared(model, one.adaptation) as refresh:
            refresh()
            found.append(trial.marking.estimate(model, task, items, reading_of(trial.plan, one.adaptation)))
        choosing.purse.pay(len(items), since)
    return finalists[found.index(max(found))] if found else choosing.best[0]


def _told(one: Tried) -> dict[str, Any]:
    """A candidate in short."""
    return {"setting": dict(one.adaptation.told), "from": one.origin, "validation": one.score, "items": one.items}


def _scored(trial: Trial, model: Model, task: Task, candidate: Adaptation, items: Sequence[Item]) -> Score:
    candidate.fit(model, items)
    with torch.no_grad(), prepared(model, candidate) as refresh:
        refresh()
        return evaluate(model, items, task.labels(), reading_of(trial.plan, candidate))


def _slopes(trial: Trial, model: Model, task: Task, candidate: Adaptation) -> tuple[Tensor, int]:
    """The slopes of a candidate's tokens on a few training items, others for every candidate."""
    ids = candidate.state()["token_ids"]
    drawn = generator(trial.seed, "slopes", *ids.flatten().tolist())
    items = task.sample(SLOPE_ITEMS, drawn)
    candidate.fit(model, items)
    ids = candidate.state()["token_ids"]
    return token_slopes(model, ids, items, reading_of(trial.plan, candidate)), len(items)


def assess(record: TrialRecord, trial: Trial, model: Model, adaptation: Adaptation, task: Task) -> TrialRecord:
    """Add to ``record`` what is measured once, at the end: the test split, side effects, prefix mass, a few answers."""
    assert trial.marking is not None
    items = task.held_out("test", trial.test_items)
    known = task.held_out("validation", trial.plan.validation_items) if task.labels() is not None else []
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
        budget=marked.counted(record.budget) if record.budget else None,
        test_loss_nats=_finite(score.loss_nats),
        cut_items=score.cut_items,
        cut_tokens=score.cut_tokens,
        elsewhere_nats=_finite(elsewhere.loss_nats),
        prefix_mass=prefix_mass(model, adaptation, items[:16], reading),
        samples=tuple(
            {"prompt": as_shown(item.prompt), "target": as_shown(item.target), "answer": answer}
            for item, answer in zip(items, shown, strict=False)
        ),
    )


def _shown(model: Model, items: Sequence[Item], task: Task, reading: Reading, marked: Marked) -> list[str]:
    """What a person sees of the answers: the label that was decided for, or what was really written."""
    if task.labels() is not None:
        return list(marked.written[: len(items)])
    return [_said(model, answer) for answer in answers(model, items, None, replace(reading, most=most_of(task)))]


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


def prefix_mass(
    model: Model, adaptation: Adaptation, items: Sequence[Item], reading: Reading
) -> tuple[tuple[float, ...], ...]:
    """(layer, head) share of attention on the context, mean over items and content positions; empty without one."""
    if adaptation.keys_per_layer() == 0:
        return ()
    from elicitable.microscope.watch import watch

    room = room_in(model, reading.max_tokens, adaptation.keys_per_layer())
    rows = rows_of(model, items, reading.layout, held=reading.held, limit=room)
    with torch.no_grad(), watch(model, adaptation, residuals=False, drift=False, spectra=False) as scope:
        for part in groups(model, rows, reading.batch):
            batch = padded(model, [rows[place] for place in part])
            given = {"attention_mask": batch.attention_mask} if batch.attention_mask is not None else {}
            model.hf(input_ids=batch.input_ids, use_cache=False, logits_to_keep=1, **given)
    return tuple(tuple(round(mass, 6) for mass in layer) for layer in scope.mean_mass.tolist())


def as_shown(text: Text | Messages) -> str:
    """Return what a person sees of a prompt or target: the text, the turns line by line, or the ids."""
    if isinstance(text, str):
        return text
    if text and isinstance(text[0], Message):
        return "\n".join(f"{turn.role}: {turn.shown}" for turn in text if isinstance(turn, Message))
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
