"""Run one job, a trial of an experiment at one seed, learning rate and restart, and keep its record in the store.

A job runs on one thread, so that its record does not depend on how many cores a machine has or on who runs it.
"""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import ElicitableError, InputError, StoreError
from elicitable.experiments.experiment import Adapt, Measure, Planned, Pretrain
from elicitable.lab.heartbeat import Heartbeat, heartbeat_path
from elicitable.lab.sources import (
    UntestableError,
    check_texts,
    fingerprint_of_base,
    fingerprints,
    model_named,
    task_named,
)
from elicitable.records.store import Store, identity
from elicitable.records.trial import Outcomes, Times, TrialRecord, keep_trial, kept_trial, record_of_fit
from elicitable.rng import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from elicitable.lab.measures import Found
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.training.checkpoint import Checkpoint
    from elicitable.training.loop import Plan

    State = dict[str, Tensor] | None  # weights that are kept beside a record

PROTOCOL = 2  # raised when the code comes to train or measure differently from the same spec
CHECKPOINT_SECONDS = 60.0
PRETRAINED_TEST_ITEMS = 1_000
# Of a planned trial: they say which runs there are; the texts are among the data, with their fingerprints.
_NOT_OF_ONE_RUN = ("name", "rates", "later_rates", "restarts", "texts")


@dataclass(frozen=True)
class Job:
    """Say what to run. ``base`` is the job whose weights it adapts; None where the base is a model by name."""

    trial: Planned
    seed: int
    rate: float | None = None
    restart: int = 0
    base: Job | None = None

    def spec(self) -> dict[str, Any]:
        """Return the identity: everything that can change the record, and nothing else. Names of trials do not count.

        ``data`` holds the fingerprint of every task, text and model that is read. In the first form of a spec it held
        those of digit tasks alone; the store still finds such records (:mod:`elicitable.records.form_1`).
        """
        given = {name: value for name, value in asdict(self.trial).items() if name not in _NOT_OF_ONE_RUN}
        if self.base is not None:
            given["base"] = self.base.spec()
        data = fingerprints(self.trial)
        if self.base is None and not isinstance(self.trial, Pretrain):
            data[self.trial.base] = fingerprint_of_base(self.trial.base)
        return {
            "protocol": PROTOCOL,
            "kind": type(self.trial).__name__.lower(),
            "trial": given,
            "seed": self.seed,
            "rate": self.rate,
            "restart": self.restart,
            "data": data,
        }

    @property
    def identity(self) -> str:
        """Return the name of its folder in the store."""
        return identity(self.spec())

    @property
    def work(self) -> float | None:
        """Estimate the work as rows times the weights that each passes, for a whole training; None without a toy."""
        trial, base = self.trial, self.base.trial if self.base is not None else self.trial
        if not isinstance(base, Pretrain):
            return None
        how = trial.training if isinstance(trial, Adapt) else base.toy
        return float(how.steps * how.batch * base.toy.layers * base.toy.d_model**2)

    def describe(self) -> str:
        """Describe the job in one line for a person."""
        rate = "" if self.rate is None else f", rate {self.rate:g}"
        restart = f", restart {self.restart}" if self.restart else ""
        return f"{self.trial.name}, seed {self.seed}{rate}{restart}"


@dataclass(frozen=True)
class Order:
    """Hold a job and where its record goes, as plain data that any process can take.

    ``needs_weights`` says that other jobs build on it: a record without its weights is not enough.
    """

    job: Job
    folder: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    retry: bool = False
    needs_weights: bool = False


def is_final(record: TrialRecord | None, retry: bool = False) -> bool:
    """Say whether nothing is left to do: what could not be tested is tried again, a failure only when asked."""
    if record is None or record.status == "untestable":
        return False
    return not (retry and record.status == "failed")


def run_job(order: Order) -> TrialRecord:
    """Return the job's record: from the store if it is there, else by running it, from its checkpoint if it has one.

    A failure is recorded with its traceback. What goes wrong with the store itself is raised.

    Raises:
        StoreError: the folder is not there, or a record or checkpoint in it cannot be read or written.
    """
    if not Path(order.folder).is_dir():
        raise StoreError(f"this worker does not see {order.folder}; give --out a folder that all workers share.")
    store, job = Store(order.folder), order.job
    spec = job.spec()
    known = kept_trial(store, spec)
    if known is not None and is_final(known, order.retry) and not (order.needs_weights and lacks_weights(store, spec)):
        return known
    checkpoint = checkpoint_of(store, job, order.checkpoint_seconds)
    kept = checkpoint.read()
    from elicitable.models.speed.processor import one_thread

    started = time.monotonic() - (kept.plain["seconds"] if kept else 0.0)
    beat = Heartbeat(heartbeat_path(Path(order.folder), job.identity), started)
    state: State = None
    try:
        with one_thread():
            record, state = _execute(job, store, checkpoint, beat)
    except (StoreError, KeyboardInterrupt):
        raise
    except UntestableError as error:
        record = TrialRecord("untestable", str(error), Times(0.0))
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        record = TrialRecord("failed", reason, Times(0.0), traceback=traceback.format_exc())
    seconds = max(time.monotonic() - started, record.timing.seconds)  # what keeps its own parts adds them up
    timing = replace(record.timing, seconds=round(seconds, 3))
    whole = keep_trial(store, spec, replace(record, timing=timing), state)
    checkpoint.remove()
    beat.stop()
    shutil.rmtree(_beside(checkpoint), ignore_errors=True)
    return whole


def lacks_weights(store: Store, spec: dict[str, Any]) -> bool:
    """Say whether the weights that a record speaks of are not there: records are kept without them in an archive."""
    record = kept_trial(store, spec)
    return record is not None and record.is_ok and not store.has_state(spec)


def _beside(checkpoint: Checkpoint) -> Path:
    """Return a folder for the parts of a trial that keeps its own."""
    return checkpoint.path.with_suffix("")


def checkpoint_of(store: Store, job: Job, every_seconds: float = CHECKPOINT_SECONDS) -> Checkpoint:
    """Return the checkpoint in which a running job keeps itself."""
    from elicitable.training.checkpoint import Checkpoint

    assert store.folder is not None
    return Checkpoint(store.folder / "running" / f"{job.identity}.safetensors", job.identity, every_seconds)


def _execute(job: Job, store: Store, checkpoint: Checkpoint, beat: Heartbeat) -> tuple[TrialRecord, State]:
    from elicitable.models.speed.precision import undisturbed
    from elicitable.models.speed.processor import made_on
    from elicitable.records.provenance import versions

    with undisturbed():
        if isinstance(job.trial, Pretrain):
            record, state = _pretrain(job, job.trial, checkpoint, beat)
        elif isinstance(job.trial, Adapt):
            record, state = _adapt(job, job.trial, store, checkpoint, beat), None
        else:
            record, state = _measure(job, job.trial, checkpoint, beat), None
    here = made_on()
    processor, device = record.processor or here["processor"], record.device or here["device"]
    return replace(record, versions=versions(), processor=processor, device=device), state


def _pretrain(job: Job, trial: Pretrain, checkpoint: Checkpoint, beat: Heartbeat) -> tuple[TrialRecord, State]:
    from elicitable.lab.pretrain import plan_of
    from elicitable.methods.full import FullWeights
    from elicitable.models.toys import build_toy
    from elicitable.training.loop import train

    toy, task = trial.toy, task_named(trial.toy.task)
    model = build_toy(toy, job.seed)
    weights = FullWeights(model)
    plan = plan_of(toy)
    plan = replace(plan, evaluate_every=min(plan.evaluate_every, toy.steps), warmup=min(plan.warmup, toy.steps))
    record = record_of_fit(train(model, weights, task, plan, job.seed, progress=beat.point, checkpoint=checkpoint))
    if not record.is_ok:
        return record, None
    scores = _scores(model, weights, trial.scored, PRETRAINED_TEST_ITEMS, plan)
    seen = _look(model, weights, trial.measures, task_named(trial.scored[0]))
    return replace(record, scores=scores, **seen), weights.state()


def _adapt(job: Job, trial: Adapt, store: Store, checkpoint: Checkpoint, beat: Heartbeat) -> TrialRecord:
    from elicitable.methods.catalog import method_named
    from elicitable.training.loop import Plan, train

    model, task = _base(job, trial, store), task_named(trial.task)
    seed = derive_seed(job.seed, "restart", job.restart) if job.restart else job.seed
    adaptation = method_named(trial.method).build(model, trial.size, seed=seed, **dict(trial.options))
    plan = Plan(learning_rate=job.rate or 0.0, **asdict(trial.training))
    record = record_of_fit(train(model, adaptation, task, plan, seed, progress=beat.point, checkpoint=checkpoint))
    if job.base is None:
        record = replace(record, fingerprint=model.fingerprint)
    record = replace(record, device=str(model.device))
    if record.is_ok:
        scores = _scores(model, adaptation, trial.scored, trial.test_items, plan)
        record = replace(record, scores=scores, **_look(model, adaptation, trial.measures, task))
    trained = {"numbers trained": adaptation.budget().numbers_trained}
    return replace(record, measurements={**record.measurements, **trained})


def _look(model: Model, adaptation: Adaptation, measures: tuple[str, ...], task: Task) -> Found:
    """Return the measurements and pictures that a trial asks for."""
    from elicitable.lab.measures import LOOKS

    found: Found = {"measurements": {}, "pictures": {}}
    for name in measures:
        if name not in LOOKS:
            raise InputError(f"no measure is named {name!r}; known: {', '.join(LOOKS)}.")
        part = LOOKS[name].take(model, adaptation, task.held_out("test", LOOKS[name].items))
        found["measurements"] |= part["measurements"]
        found["pictures"] |= part["pictures"]
    return found


def _measure(job: Job, trial: Measure, checkpoint: Checkpoint, beat: Heartbeat) -> TrialRecord:
    from elicitable.lab.measures import QUESTIONS

    if trial.what not in QUESTIONS:
        raise InputError(f"no measurement is named {trial.what!r}; known: {', '.join(QUESTIONS)}.")
    from elicitable.models.speed.processor import made_on

    check_texts(trial.texts)
    model, asked = model_named(trial.base), QUESTIONS[trial.what]
    more: dict[str, Any] = {"out": _beside(checkpoint), "progress": beat.say} if asked.keeps_parts else {}
    found = asked.ask(model, dict(trial.settings), job.seed, **more)
    return TrialRecord(
        "ok",
        "measured",
        Times(found.get("seconds", 0.0)),
        fingerprint=model.fingerprint,
        measurements=found["measurements"],
        pictures=found["pictures"],
        **made_on(model.device),
    )


def _base(job: Job, trial: Adapt, store: Store) -> Model:
    """Return the model to adapt: a toy with the weights of the base's record, or a model by name."""
    if job.base is None:
        return model_named(trial.base)
    import torch

    from elicitable.models.toys import build_toy

    assert isinstance(job.base.trial, Pretrain)
    spec = job.base.spec()
    record = kept_trial(store, spec)
    if record is None or not record.is_ok or not store.has_state(spec):
        raise ElicitableError(f"its base, {job.base.describe()}, has no weights.")
    state = store.state(spec)
    model = build_toy(job.base.trial.toy, job.base.seed)
    with torch.no_grad():
        for name, parameter in model.hf.named_parameters():
            parameter.copy_(state[name])
    return model


def _scores(
    model: Model, adaptation: Adaptation, tasks: tuple[str, ...], items: int, plan: Plan
) -> dict[str, Outcomes]:
    """Score every named task on its test split, item by item."""
    import torch

    from elicitable.training.evaluate import Reading, evaluate
    from elicitable.training.loop import prepared

    reading = Reading(batch=250 if model.tokenizer is None else 16, max_tokens=plan.max_tokens)
    scores = {}
    with torch.no_grad(), prepared(model, adaptation) as refresh:
        refresh()
        for task in map(task_named, tasks):
            correct = evaluate(model, task.held_out("test", items), task.labels(), reading).correct
            scores[task.name] = Outcomes.of_items(correct)
    return scores
