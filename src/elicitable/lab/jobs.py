"""One job: a trial of an experiment at one seed, learning rate and restart. Its record goes to the store.

A job runs on one thread, so that its record does not depend on how many cores a machine has or on who runs it.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.errors import ElicitableError, InputError, StoreError
from elicitable.experiments.experiment import DIGIT_TASKS, Adapt, Measure, Pretrain, Trial
from elicitable.lab.heartbeat import Heartbeat, heartbeat_path
from elicitable.records.store import Record, Store, identity
from elicitable.rng import derive_seed

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.training.checkpoint import Checkpoint
    from elicitable.training.loop import Fit, Plan

PROTOCOL = 2  # raised when the code comes to train or measure differently from the same spec
CHECKPOINT_SECONDS = 60.0
ACTIVATIONS = 10  # inputs, as in the source's figure
_NOT_OF_ONE_RUN = ("name", "rates", "later_rates", "restarts")  # of a trial: they say which runs there are


@dataclass(frozen=True)
class Job:
    """What to run. ``base`` is the job whose weights it adapts; None where the base is a model by name."""

    trial: Trial
    seed: int
    rate: float | None = None
    restart: int = 0
    base: Job | None = None

    def spec(self) -> dict[str, Any]:
        """Identity: everything that can change the record, and nothing else; names of trials do not."""
        given = {name: value for name, value in asdict(self.trial).items() if name not in _NOT_OF_ONE_RUN}
        if self.base is not None:
            given["base"] = self.base.spec()
        tasks = sorted({name for name in DIGIT_TASKS if name in (given.get("task"), *given.get("scored", ()))})
        return {
            "protocol": PROTOCOL,
            "kind": type(self.trial).__name__.lower(),
            "trial": given,
            "seed": self.seed,
            "rate": self.rate,
            "restart": self.restart,
            "data": {name: _data(name) for name in tasks},
        }

    @property
    def identity(self) -> str:
        """The name of its folder in the store."""
        return identity(self.spec())

    @property
    def work(self) -> float | None:
        """Rows times numbers of a toy that they pass, at most (training may end sooner); None where it is no toy."""
        trial, base = self.trial, self.base.trial if self.base is not None else self.trial
        if not isinstance(base, Pretrain):
            return None
        how = trial.training if isinstance(trial, Adapt) else base.toy
        return float(how.steps * how.batch * base.toy.layers * base.toy.d_model**2)

    def describe(self) -> str:
        """One line for a person."""
        rate = "" if self.rate is None else f", rate {self.rate:g}"
        restart = f", restart {self.restart}" if self.restart else ""
        return f"{self.trial.name}, seed {self.seed}{rate}{restart}"


@lru_cache(maxsize=32)
def _data(task: str) -> str:
    from elicitable.tasks.digits import DigitTask

    return DigitTask(task).fingerprint()[:16]


@dataclass(frozen=True)
class Order:
    """A job and where its record goes; plain data, so that any process can take it.

    ``needs_weights`` says that other jobs build on it: a record without its weights is not enough.
    """

    job: Job
    folder: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    retry: bool = False
    needs_weights: bool = False


class _UntestableError(Exception):
    """A model or a task that cannot be had on this machine."""


def is_final(record: Record | None, retry: bool = False) -> bool:
    """Whether nothing is left to do: what could not be tested is tried again, a failure only when asked."""
    if record is None or record["status"] == "untestable":
        return False
    return not (retry and record["status"] == "failed")


def run_job(order: Order) -> Record:
    """The job's record: from the store if it is there, else by running it, from its checkpoint if it has one.

    A failure is recorded with its traceback. What goes wrong with the store itself is raised.

    Raises:
        StoreError: the folder is not there, or a record or checkpoint in it cannot be read or written.
    """
    if not Path(order.folder).is_dir():
        raise StoreError(f"this worker does not see {order.folder}; give --out a folder that all workers share.")
    store, job = Store(order.folder), order.job
    spec = job.spec()
    known = store.get(spec)
    if known is not None and is_final(known, order.retry) and not (order.needs_weights and lacks_weights(store, spec)):
        return known
    checkpoint = checkpoint_of(store, job, order.checkpoint_seconds)
    kept = checkpoint.read()
    started = time.monotonic() - (kept.plain["seconds"] if kept else 0.0)
    beat = Heartbeat(heartbeat_path(Path(order.folder), job.identity), started)
    state: dict[str, Any] | None = None
    try:
        with _one_thread():
            record, state = _execute(job, store, checkpoint, beat)
    except (StoreError, KeyboardInterrupt):
        raise
    except _UntestableError as error:
        record = {"status": "untestable", "stopped": str(error)}
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        record = {"status": "failed", "stopped": reason, "traceback": traceback.format_exc()}
    timing = {"seconds": round(time.monotonic() - started, 3), **record.pop("timing", {})}
    whole = store.put(spec, {**record, "timing": timing}, state)
    checkpoint.remove()
    beat.stop()
    shutil.rmtree(_beside(checkpoint), ignore_errors=True)
    return whole


def lacks_weights(store: Store, spec: dict[str, Any]) -> bool:
    """Whether the weights that a record speaks of are not there: records are kept without them in an archive."""
    record = store.get(spec)
    return record is not None and record["status"] == "ok" and not store.has_state(spec)


def _beside(checkpoint: Checkpoint) -> Path:
    """A folder for the parts of a trial that keeps its own."""
    return checkpoint.path.with_suffix("")


def checkpoint_of(store: Store, job: Job, every_seconds: float = CHECKPOINT_SECONDS) -> Checkpoint:
    """Where a running job keeps itself."""
    from elicitable.training.checkpoint import Checkpoint

    assert store.folder is not None
    return Checkpoint(store.folder / "running" / f"{job.identity}.safetensors", job.identity, every_seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _execute(job: Job, store: Store, checkpoint: Checkpoint, beat: Heartbeat) -> tuple[Record, dict[str, Any] | None]:
    from elicitable.models.speed.processor import kind
    from elicitable.records.provenance import versions

    if isinstance(job.trial, Pretrain):
        record, state = _pretrain(job, job.trial, checkpoint, beat)
    elif isinstance(job.trial, Adapt):
        record, state = _adapt(job, job.trial, store, checkpoint, beat), None
    else:
        record, state = _measure(job, job.trial, checkpoint, beat), None
    return {"processor": kind(), **record, "versions": versions()}, state


def _pretrain(
    job: Job, trial: Pretrain, checkpoint: Checkpoint, beat: Heartbeat
) -> tuple[Record, dict[str, Any] | None]:
    from elicitable.lab.pretrain import plan_of
    from elicitable.methods.full import FullWeights
    from elicitable.models.toys import ToySpec, build_toy
    from elicitable.tasks.catalog import task_from
    from elicitable.training.loop import train

    spec = ToySpec(**asdict(trial.toy))
    model = build_toy(spec, job.seed)
    weights = FullWeights(model)
    plan = plan_of(spec)
    plan = replace(plan, evaluate_every=min(plan.evaluate_every, spec.steps), warmup=min(plan.warmup, spec.steps))
    fit = train(model, weights, task_from(spec.task), plan, job.seed, progress=beat.point, checkpoint=checkpoint)
    record = _of_fit(fit)
    if record["status"] != "ok":
        return record, None
    record |= _assess(model, weights, trial.scored, 1_000, plan)
    record |= _look(model, weights, trial.measures, _task(trial.scored[0]))
    return record, weights.state()


def _adapt(job: Job, trial: Adapt, store: Store, checkpoint: Checkpoint, beat: Heartbeat) -> Record:
    from elicitable.methods.catalog import method_named
    from elicitable.training.loop import Plan, train

    model, task = _base(job, trial, store), _task(trial.task)
    seed = derive_seed(job.seed, "restart", job.restart) if job.restart else job.seed
    adaptation = method_named(trial.method).build(model, trial.size, seed=seed, **dict(trial.options))
    plan = Plan(learning_rate=job.rate or 0.0, **asdict(trial.training))
    fit = train(model, adaptation, task, plan, seed, progress=beat.point, checkpoint=checkpoint)
    record = _of_fit(fit)
    if job.base is None:
        record["fingerprint"] = model.fingerprint
    if record["status"] == "ok":
        record |= _assess(model, adaptation, trial.scored, trial.test_items, plan)
        record |= _look(model, adaptation, trial.measures, task)
    record.setdefault("measurements", {})["numbers trained"] = adaptation.budget().numbers_trained
    return record


def _look(model: Model, adaptation: Adaptation, measures: tuple[str, ...], task: Task) -> Record:
    """The measurements and pictures that a trial asks for."""
    from elicitable.lab import measures as room

    found: Record = {"measurements": {}, "pictures": {}}
    for name in measures:
        if name == "attention":
            part = room.attention(model, adaptation, task.held_out("test", 1))
        elif name == "activations":
            part = room.activations(model, adaptation, task.held_out("test", ACTIVATIONS))
        elif name == "prefix use":
            part = room.prefix_use(model, adaptation, task.held_out("test", room.INSPECTED_ITEMS))
        else:
            raise InputError(f"no measure is named {name!r}.")
        found["measurements"] |= part.get("measurements", {})
        found["pictures"] |= part["pictures"]
    return found


def _measure(job: Job, trial: Measure, checkpoint: Checkpoint, beat: Heartbeat) -> Record:
    from elicitable.lab import measures as room

    model, settings = _named(trial.base), dict(trial.settings)
    if trial.what == "identity":
        found = room.identity(model, settings, job.seed)
    elif trial.what == "token reach":
        found = room.reach(model, settings, job.seed, _beside(checkpoint), beat.say)
    else:
        raise InputError(f"no measurement is named {trial.what!r}.")
    whole = {"status": "ok", "stopped": "measured", "steps": 0, "curve": [], "scores": {}}
    return {**whole, "fingerprint": model.fingerprint, **found}


def _base(job: Job, trial: Adapt, store: Store) -> Model:
    """The model to adapt: a toy with the weights of the base's record, or a model by name."""
    if job.base is None:
        return _named(trial.base)
    import torch

    from elicitable.models.toys import ToySpec, build_toy

    assert isinstance(job.base.trial, Pretrain)
    spec = job.base.spec()
    record = store.get(spec)
    if record is None or record["status"] != "ok" or not store.has_state(spec):
        raise ElicitableError(f"its base, {job.base.describe()}, has no weights.")
    state = store.state(spec)
    model = build_toy(ToySpec(**asdict(job.base.trial.toy)), job.base.seed)
    with torch.no_grad():
        for name, parameter in model.hf.named_parameters():
            parameter.copy_(state[name])
    return model


def _named(name: str) -> Model:
    from elicitable.models.load import load

    try:
        return load(name, device="cpu", dtype="float32")
    except ElicitableError as error:
        raise _UntestableError(str(error)) from error


def _task(name: str) -> Any:
    from elicitable.tasks.catalog import task_from

    try:
        task = task_from(name)
        task.held_out("validation", 1)  # fetches the data where they have to be fetched
    except ElicitableError as error:
        raise _UntestableError(str(error)) from error
    return task


def _of_fit(fit: Fit) -> Record:
    is_ok = fit.is_usable and fit.stopped != "diverged"
    return {
        "status": "ok" if is_ok else "diverged",
        "stopped": fit.stopped,
        "steps": fit.steps,
        "processor": fit.processor,
        "curve": [[point.step, _short(point.loss_nats), _short(point.validation)] for point in fit.curve],
        "validation": fit.best.mean if fit.best else None,
        "validation_loss_nats": _short(fit.best.loss_nats) if fit.best else None,
        "timing": {"train_seconds": round(fit.seconds, 3)},
    }


def _short(value: float | None) -> float | None:
    """Six digits are enough for a curve; a record holds no infinity."""
    return float(f"{value:.6g}") if value is not None and abs(value) < float("inf") else None


def _assess(model: Model, adaptation: Adaptation, tasks: tuple[str, ...], items: int, plan: Plan) -> Record:
    """Scores on the test split of every named task, item by item."""
    import torch

    from elicitable.training.evaluate import Reading, evaluate
    from elicitable.training.loop import prepared

    reading = Reading(batch=250 if model.tokenizer is None else 16, max_tokens=plan.max_tokens)
    scores = {}
    with torch.no_grad(), prepared(model, adaptation) as refresh:
        refresh()
        for name in tasks:
            task = _task(name)
            scores[name] = pack(evaluate(model, task.held_out("test", items), task.labels(), reading).correct)
    return {"scores": scores}


def pack(correct: tuple[int, ...]) -> dict[str, Any]:
    """Outcomes as a small record: how many, of how many, and one bit an item (the first is the highest).

    >>> pack((1, 0, 1, 1))
    {'right': 3, 'of': 4, 'bits': 'b'}
    """
    bits = int("".join(map(str, correct)), 2)
    return {"right": sum(correct), "of": len(correct), "bits": f"{bits:x}"}


def unpack(score: dict[str, Any]) -> tuple[int, ...]:
    """What :func:`pack` was given.

    >>> unpack(pack((0, 0, 1)))
    (0, 0, 1)
    """
    return tuple(int(bit) for bit in f"{int(score['bits'], 16):0{score['of']}b}")
