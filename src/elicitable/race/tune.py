"""Train one method on a task and write an adapter folder that PEFT loads.

    out/
      adapter_config.json, adapter_model.safetensors   the adapter; elicitable.json what was measured on it, and
                                                       whether it is sound (the quick half of ``elicitable check``)
      trials/                                          the runs of the sweep and the long run, as in a race
      running/                                         the checkpoint of the long run while it lasts

Whatever is finished there is not run again. An adapter that other arguments made is never written over.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from elicitable.cache import check_seal
from elicitable.deploy.artefact import write_artefact
from elicitable.errors import InputError, StoreError, TrainingDivergedError
from elicitable.methods.base import Method
from elicitable.methods.budget import default_budget
from elicitable.methods.catalog import METHODS, TUNED, check_options, method_named, with_start
from elicitable.models.layout import Layout, layout_for
from elicitable.models.load import home_of, load
from elicitable.models.speed.frozen_parts import keeping_parts
from elicitable.models.speed.precision import undisturbed
from elicitable.models.speed.processor import made_on
from elicitable.race.choice import chosen_alone
from elicitable.race.in_the_way import other_than, record_in
from elicitable.race.keeping import artefact_alone
from elicitable.race.marking import AUTO, Marking
from elicitable.race.measuring import measured
from elicitable.race.pace import Pace, check_count, pace_for
from elicitable.race.ranking import best_first, look_at
from elicitable.race.reading import check_reading, reading_warnings, said_of_cuts
from elicitable.race.reporter import Reporter, Silent
from elicitable.race.trial import take_over
from elicitable.race.tuned import Tuned
from elicitable.records.folder import CONFIGURATIONS, RECORD, written_whole
from elicitable.records.lock import alone_in_out
from elicitable.records.provenance import versions
from elicitable.records.store import Record, Store, identity
from elicitable.records.trial import TrialRecord, keep_trial, kept_trial, record_of_fit
from elicitable.tasks.base import has_turns, identity_of, stops_of, warnings_of
from elicitable.tasks.catalog import task_from
from elicitable.training.checkpoint import Checkpoint
from elicitable.training.loop import Plan, train

if TYPE_CHECKING:
    from elicitable.deploy.record import Record as Artefact
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

CHECKPOINT_SECONDS = 60.0


@alone_in_out
@undisturbed()
def tune(
    model: Any,
    task: Any,
    *,
    method: str | Method = TUNED,
    budget: int | None = None,
    size: int | None = None,
    learning_rate: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    init: str | Adaptation | None = None,
    text: str | Sequence[int] | None = None,
    layer: int | None = None,
    test_items: int | None = None,
    chat: str = "auto",
    system: str | None = None,
    stop: str | None = None,
    max_tokens: int | None = None,
    truncate: str = "left",
    score: Any = None,
    rule: str = AUTO,
    out: str | os.PathLike[str] | None = None,
    reporter: Reporter | None = None,
    **task_options: Any,
) -> Tuned:
    """Train ``method`` on ``task``, sweeping its learning rate unless one is given; write an adapter to ``out``.

    Args:
        model, task, task_options: as for :func:`elicitable.verdict`.
        method: one of the trained methods.
        budget: numbers trained at most (default 12·layers·d_model, 2· on toy:ascending); or ``size``: virtual tokens,
            or the rank.
        learning_rate: of the run; default the best of the method's own range after a short run each.
        chat, system, stop, max_tokens, truncate: how items are read, as for :func:`elicitable.verdict`.
        score, rule: what the test split is scored by, and how labels are decided between, as for
            :func:`elicitable.verdict`; the record has the plain likelihood's accuracy beside it.
        init, text: where a context starts (see :mod:`elicitable.methods.initial`), or a prompt or worked examples
            (:func:`elicitable.context`) at whose last tokens it does; training leaves the examples out.
        layer: behind which a vector is added to the residual stream, from 0; default the middle one.
        out: the adapter folder; nothing is written when None. The same arguments resume there: runs of the sweep that
            are finished are not run again, the long run goes on from its checkpoint, and once the adapter is there
            its record is returned. The result is the same, bit for bit, as without an interruption.

    Raises:
        InputError: an argument is not as expected, the method is not trained, or the score does not fit the task.
        StoreError: ``out`` cannot be written to, or holds an adapter that other arguments made.
        TrainingDivergedError: the loss became not-a-number at every learning rate.

    Example:
        >>> import elicitable as el
        >>> tuned = el.tune("toy:ascending", "ascending", method="kv-prefix", size=1, learning_rate=0.01, steps=5)
        >>> tuned.record["numbers_trained"]
        192
    """
    recipe = _trained(method)
    _check(size, steps, test_items, budget, learning_rate)
    check_count("max tokens", max_tokens)
    store = Store(out)  # an unwritable folder is said before minutes are spent
    model, task = load(model), task_from(task, **task_options)
    layout = layout_for(model, chat, system, stop, truncate, stops_of(task), has_turns(task))
    check_reading(model, task, layout, max_tokens)
    if store.folder is not None:
        home_of(model)  # as in a race
    affordable = budget if budget is not None else max(default_budget(model), recipe.numbers(model, 1))
    given = {"init": init, "text": text, "layer": layer}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    check_options(recipe, options)
    options = recipe.start(model) | options
    pace, marking = pace_for(model, steps, test_items, max_tokens), Marking.of(model, task, score, rule)
    told, odd = reporter or Silent(), reading_warnings(model, task, layout)
    for one in odd:
        told.say(f"warning: {one}")
    if recipe.stands_on is not None:
        base = chosen_alone(recipe.stands_on, model, task, pace, layout, marking, seed, store, told)
        options |= recipe.standing_on(base)
    size = size if size is not None else recipe.fitting(model, affordable).size
    tuning = Tuning(
        model=model,
        task=task,
        recipe=recipe,
        size=size,
        rates=recipe.schedule.learning_rates if learning_rate is None else (learning_rate,),  # type: ignore[union-attr]
        pace=pace,
        layout=layout,
        marking=marking,
        seed=seed,
        options=with_start(recipe, model, size, options),
        store=store,
        reporter=told,
        warnings=(*warnings_of(task), *odd),
    )
    with keeping_parts(model):
        return tuning.run()


def _trained(method: str | Method) -> Method:
    recipe = method_named(method)
    if not recipe.is_trained:
        trained = ", ".join(one.name for one in METHODS if one.is_trained)
        raise InputError(
            f"{recipe.name} is not trained, so there is nothing to tune; the trained methods are {trained}."
        )
    return recipe


def _check(
    size: int | None, steps: int | None, test_items: int | None, budget: int | None, learning_rate: float | None
) -> None:
    for name, number in (("size", size), ("steps", steps), ("test items", test_items)):
        check_count(name, number)
    if learning_rate is not None and not 0.0 < learning_rate < math.inf:
        raise InputError(f"a learning rate must be more than 0 and finite, got {learning_rate!r}.")
    if budget is not None and size is not None:
        raise InputError("give either budget= or size=, not both.")


@dataclass(frozen=True, eq=False)
class Tuning:
    """What is tuned, and the store that keeps its runs. One rate is taken as it is; of several the best is found."""

    model: Model
    task: Task
    recipe: Method
    size: int
    rates: Sequence[float]
    pace: Pace
    layout: Layout
    marking: Marking
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    store: Store = field(default_factory=lambda: Store(None))
    reporter: Reporter = field(default_factory=Silent)
    warnings: tuple[str, ...] = ()

    def run(self) -> Tuned:
        """The adaptation and its record: from the folder where they are there, else by running what is missing."""
        known = self._finished()
        swept = self._swept()
        rate = self._best(swept) if swept else self.rates[0]
        adaptation, fit = self._fitted(rate)
        if known is not None:
            return Tuned(adaptation, known)
        record = measured(
            self.model, self.task, self.marking, self._plan(rate), adaptation, self.pace.test_items, self.seed
        ) | self._told(swept, rate, fit)
        cut = said_of_cuts(record["cut_items"], record["cut_tokens"], record["items"], self.recipe.name)
        record["warnings"] = [*self.warnings, *cut]
        if self.store.folder is not None:
            with written_whole(self.store.folder) as folder:
                write_artefact(self.model, adaptation, self._artefact(rate, adaptation, record), folder)
                (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return Tuned(adaptation, record)

    def spec(self) -> dict[str, Any]:
        """Identity of the whole: every argument that can change the result."""
        return {
            "method": self.recipe.identity,
            "size": self.size,
            "learning_rates": list(self.rates),
            "pace": asdict(self.pace),
            "layout": {**self.layout.setting(), "end": self.layout.end, "cut": self.layout.cut},
            "seed": self.seed,
            "options": self.options,
            "model": self.model.identity,
            "task": identity_of(self.task),
            **self._scored(),
        }

    def _scored(self) -> Record:
        """What the identity holds of the scoring: nothing where answers are free and matched exactly."""
        is_plain = self.task.labels() is None and self.marking.scorer.name == "exact-match"
        return {} if is_plain else {"marking": self.marking.setting()}

    def _finished(self) -> Record | None:
        """The record of the adapter in the folder; None where there is none.

        Raises:
            StoreError: an adapter or a model is there that other arguments made.
        """
        folder = self.store.folder
        if folder is None or not any((folder / name).exists() for name in CONFIGURATIONS):
            return None
        record = record_in(folder)
        if record.get("identity") == identity(self.spec()):
            # without a seal, whoever wrote it was stopped in between: it is written again
            return record if check_seal(folder, "Move its files away to write them again.") else None
        raise StoreError(
            f"{folder} holds {other_than(record, self.spec())}; choose another --out. Nothing was changed."
        )

    def _swept(self) -> dict[float, tuple[float, float]]:
        """What a short run at every rate scored on validation, and its loss; nothing where there is one rate.

        Raises:
            TrainingDivergedError: every one of them diverged.
        """
        if len(self.rates) == 1:
            return {}
        short = {rate: self._short(rate) for rate in self.rates}
        found = {rate: look_at(record) for rate, record in short.items() if record.is_ok}
        schedule = self.recipe.schedule
        while found and schedule is not None:
            further = schedule.wider(short, self._best(found))
            if further is None:
                break
            short[further] = self._short(further)
            found |= {rate: look_at(record) for rate, record in short.items() if record.is_ok}
        if not found:
            raise TrainingDivergedError(f"{self.recipe.name} diverged at every learning rate of {self.rates}.")
        return found

    def _best(self, swept: Mapping[float, tuple[float, float]]) -> float:
        return best_first(swept, len(self.task.held_out("validation", self.pace.validation_items)))[0]

    def _short(self, rate: float) -> TrialRecord:
        """The record of a short run, from the store if it is there."""
        steps = self.pace.sweep_steps
        plan = replace(self._plan(rate), steps=steps, evaluate_every=steps, cooldown=0.0, warmup=10)
        spec = self._spec_of(plan)
        known = kept_trial(self.store, spec)
        if known is not None:
            return known
        self.reporter.begin(self.recipe.name, f"rate {rate:g}", 0, 1)
        fit = train(self.model, self._built(), self.task, plan, self.seed, progress=self.reporter.point)
        return keep_trial(self.store, spec, record_of_fit(fit))

    def _fitted(self, rate: float) -> tuple[Adaptation, TrialRecord]:
        """The adaptation after the long run, and the run's record: from the store, or from its checkpoint on.

        Raises:
            TrainingDivergedError: it diverged before there was anything to keep.
        """
        plan = self._plan(rate)
        spec, adaptation = self._spec_of(plan), self._built()
        known = kept_trial(self.store, spec)
        if known is not None:
            take_over(adaptation, self.store.state(spec), self.store.where(spec))
            return adaptation, known
        self.reporter.begin(self.recipe.name, f"at {rate:g}", 0, 1)
        checkpoint = self._checkpoint(spec)
        told = self.reporter.point
        fit = train(self.model, adaptation, self.task, plan, self.seed, progress=told, checkpoint=checkpoint)
        if checkpoint is not None and not fit.is_usable:
            _remove(checkpoint)
        if not fit.is_usable:
            raise TrainingDivergedError(f"{self.recipe.name} diverged at learning rate {rate:g}; give a lower one.")
        record = keep_trial(self.store, spec, record_of_fit(fit), adaptation.state())
        if checkpoint is not None:
            _remove(checkpoint)
        return adaptation, record

    def _built(self) -> Adaptation:
        return self.recipe.made(self.model, self.size, seed=self.seed, **self.options)

    def _checkpoint(self, spec: dict[str, Any]) -> Checkpoint | None:
        if self.store.folder is None:
            return None
        name = identity(spec)
        return Checkpoint(self.store.folder / "running" / f"{name}.safetensors", name, CHECKPOINT_SECONDS)

    def _spec_of(self, plan: Plan) -> dict[str, Any]:
        """Identity of one run: what can change it, which the rates of the other runs cannot."""
        whole = self.spec()
        return {name: whole[name] for name in whole if name not in ("learning_rates", "pace", "marking")} | {
            "tune": asdict(plan)
        }

    def _plan(self, rate: float) -> Plan:
        pace, schedule = self.pace, self.recipe.schedule
        return Plan(
            learning_rate=rate,
            steps=pace.steps,
            batch=pace.batch,
            warmup=min(50, max(1, pace.steps // 10)),
            evaluate_every=min(pace.evaluate_every, pace.steps),
            validation_items=pace.validation_items,
            weight_decay=schedule.weight_decay if schedule else 0.0,
            max_tokens=pace.max_tokens,
            layout=self.layout,
        )

    def _artefact(self, rate: float, adaptation: Adaptation, measured: Record) -> Artefact:
        """What is kept beside the tensors, so that new rows are answered as the test was."""
        return artefact_alone(
            self.model,
            self.task,
            self._plan(rate),
            adaptation,
            measured,
            method=self.recipe.name,
            role="tuned",
            rung=self.recipe.rung.label,
            deployment=self.recipe.deployment,
            identity=identity(self.spec()),
            size=self.size,
            seed=self.seed,
            setting={**self.options, **adaptation.setting},
        )

    def _told(self, swept: dict[float, tuple[float, float]], rate: float, fit: TrialRecord) -> Record:
        """What was run, and on what."""
        return {
            "method": self.recipe.name,
            "size": self.size,
            "learning_rate": rate,
            "steps": fit.steps,
            "stopped": fit.stopped,
            "seconds": fit.timing.train_seconds,
            "validation": fit.validation,
            "curve": [[point.step, _finite(point.loss_nats), point.validation] for point in fit.curve],
            "seed": self.seed,
            "sweep": [{"learning_rate": one, "validation": score} for one, (score, _) in swept.items()],
            "layout": self.layout.setting(),
            "model": self.model.name,
            "model_hash": self.model.fingerprint,
            "task": self.task.name,
            "data_hash": self.task.fingerprint(),
            "versions": versions(),
            **made_on(self.model.device),
            "processor": fit.processor,
            "out": None if self.store.folder is None else str(self.store.folder),
            "spec": self.spec(),
            "identity": identity(self.spec()),
        }


def _remove(checkpoint: Checkpoint) -> None:
    checkpoint.remove()
    with suppress(OSError):  # there is no folder, or another run keeps itself there
        checkpoint.path.parent.rmdir()


def _finite(value: float) -> float | None:
    """Return ``value`` where JSON can hold it, else None."""
    return value if math.isfinite(value) else None
