"""One job: a trial of an experiment at one seed, learning rate and restart. Its record goes to the store.

A job runs on one thread, so that its record does not depend on how many cores a machine has or on who runs it.
"""

from __future__ import annotations

import statistics
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
from elicitable.rng import derive_seed
from elicitable.runs.store import Record, Store, identity

if TYPE_CHECKING:
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.training.checkpoint import Checkpoint
    from elicitable.training.loop import Fit, Plan

PROTOCOL = 1  # raised when the code comes to train or measure differently from the same spec
CHECKPOINT_SECONDS = 60.0


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
        given = {name: value for name, value in asdict(self.trial).items() if name not in ("name", "rates", "restarts")}
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
    """A job and where its record goes; plain data, so that any process can take it."""

    job: Job
    folder: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    retry: bool = False


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
    if known is not None and is_final(known, order.retry):
        return known
    started = time.monotonic()
    checkpoint = checkpoint_of(store, job, order.checkpoint_seconds)
    state: dict[str, Any] | None = None
    try:
        with _one_thread():
            record, state = _execute(job, store, checkpoint)
    except (StoreError, KeyboardInterrupt):
        raise
    except _UntestableError as error:
        record = {"status": "untestable", "stopped": str(error)}
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        record = {"status": "failed", "stopped": reason, "traceback": traceback.format_exc()}
    timing = {"seconds": round(time.monotonic() - started, 3), **record.pop("timing", {})}
    kept = store.put(spec, {**record, "timing": timing}, state)
    checkpoint.remove()
    return kept


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


def _execute(job: Job, store: Store, checkpoint: Checkpoint) -> tuple[Record, dict[str, Any] | None]:
    from elicitable.runs.provenance import versions

    if isinstance(job.trial, Pretrain):
        record, state = _pretrain(job, job.trial, checkpoint)
    elif isinstance(job.trial, Adapt):
        record, state = _adapt(job, job.trial, store, checkpoint), None
    else:
        record, state = _measure(job, job.trial), None
    return {**record, "versions": versions()}, state


def _pretrain(job: Job, trial: Pretrain, checkpoint: Checkpoint) -> tuple[Record, dict[str, Any] | None]:
    from elicitable.methods.full import FullWeights
    from elicitable.models.toys import ToySpec, build_toy
    from elicitable.runs.pretrain import plan_of
    from elicitable.tasks.catalog import task_from
    from elicitable.training.loop import train

    spec = ToySpec(**asdict(trial.toy))
    model = build_toy(spec, job.seed)
    weights = FullWeights(model)
    plan = plan_of(spec)
    plan = replace(plan, evaluate_every=min(plan.evaluate_every, spec.steps), warmup=min(plan.warmup, spec.steps))
    fit = train(model, weights, task_from(spec.task), plan, job.seed, checkpoint=checkpoint)
    record = _of_fit(fit)
    if record["status"] != "ok":
        return record, None
    record |= _assess(model, weights, trial.scored, 1_000, plan)
    if "attention" in trial.measures:
        record["picture"] = _attention(model, weights, trial.scored[0], plan)
    return record, weights.state()


def _adapt(job: Job, trial: Adapt, store: Store, checkpoint: Checkpoint) -> Record:
    from elicitable.methods.catalog import method_named
    from elicitable.training.loop import Plan, train

    model, task = _base(job, trial, store), _task(trial.task)
    seed = derive_seed(job.seed, "restart", job.restart) if job.restart else job.seed
    adaptation = method_named(trial.method).build(model, trial.size, seed=seed, **dict(trial.options))
    plan = Plan(learning_rate=job.rate or 0.0, **asdict(trial.training))
    fit = train(model, adaptation, task, plan, seed, checkpoint=checkpoint)
    record = _of_fit(fit)
    budget = adaptation.budget()
    record["measurements"] = {"numbers trained": budget.numbers_trained}
    if record["status"] != "ok":
        return record
    record |= _assess(model, adaptation, trial.scored, trial.test_items, plan)
    if "attention" in trial.measures:
        record["picture"] = _attention(model, adaptation, trial.task, plan)
    if "prefix use" in trial.measures:
        found = _prefix_use(model, adaptation, trial)
        record["measurements"] |= found["measurements"]
        record["picture"] = found["picture"]
    return record


def _measure(job: Job, trial: Measure) -> Record:
    if trial.what == "identity":
        found = _identity(job, trial)
    elif trial.what == "token reach":
        found = _token_reach(job, trial)
    else:
        raise InputError(f"no measurement is named {trial.what!r}.")
    return {"status": "ok", "stopped": "measured", "steps": 0, "curve": [], "scores": {}, **found}


def _base(job: Job, trial: Adapt, store: Store) -> Model:
    """The model to adapt: a toy with the weights of the base's record, or a model by name."""
    if job.base is None:
        return _named(trial.base)
    import torch

    from elicitable.models.toys import ToySpec, build_toy

    assert isinstance(job.base.trial, Pretrain)
    spec = job.base.spec()
    record = store.get(spec)
    if record is None or record["status"] != "ok":
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
        "curve": [[point.step, _finite(point.loss_nats), point.validation] for point in fit.curve],
        "validation": fit.best.mean if fit.best else None,
        "validation_loss_nats": _finite(fit.best.loss_nats) if fit.best else None,
        "timing": {"train_seconds": round(fit.seconds, 3)},
    }


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


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


def _attention(model: Model, adaptation: Adaptation, task_name: str, plan: Plan) -> dict[str, Any]:
    """Attention of the first head of the first layer on the first test item: prefix columns first, then content."""
    import torch

    from elicitable.attention.patterns import joint_pattern
    from elicitable.models.attend import Call
    from elicitable.models.inject import installed
    from elicitable.models.watch import operands_of
    from elicitable.training.batches import encode
    from elicitable.training.evaluate import answer_logits
    from elicitable.training.loop import prepared
    from elicitable.training.precision import autocast

    batch = encode(model, _task(task_name).held_out("test", 1), plan.max_tokens)
    seen: list[list[list[float]]] = []

    def look(call: Call, mask: torch.Tensor | None) -> None:
        if call.layer == 0 and not seen:
            pattern = joint_pattern(operands_of(call))
            weights = torch.cat([pattern.prefix, pattern.content], dim=-1)[0, 0].float()
            seen.append([[round(w, 4) for w in row] for row in weights.tolist()])

    with torch.no_grad(), prepared(model, adaptation) as refresh, installed(model) as slot:
        refresh()
        slot.watchers.append(look)
        try:
            with autocast(model):
                answer_logits(model, batch)
        finally:
            slot.watchers.remove(look)
    return {"kind": "attention", "tokens": batch.input_ids[0].tolist(), "weights": seen[0]}


def _prefix_use(model: Model, adaptation: Adaptation, trial: Adapt) -> dict[str, Any]:
    """Appendix B: how the prefix's mass is shared among its positions, layer by layer."""
    from elicitable.diagnosis.inspect import inspect

    seen = inspect(model, adaptation, _task(trial.task).held_out("test", 64), max_tokens=96, drift=False)
    shares = [[mass / max(sum(layer.position_mass), 1e-12) for mass in layer.position_mass] for layer in seen.layers]
    spreads = [layer.share_spread for layer in seen.layers]
    return {
        "measurements": {
            "share of the two largest": 100 * statistics.fmean(sum(sorted(layer)[-2:]) for layer in shares),
            "spread in layer 0": spreads[0],
            "spread": statistics.fmean(spreads),
        },
        "picture": {
            "kind": "position shares",
            "shares": [[round(share, 4) for share in layer] for layer in shares],
            "spreads": [round(spread, 4) for spread in spreads],
        },
    }


def _identity(job: Job, trial: Measure) -> dict[str, Any]:
    """Both equations of section 4 in every layer and head, under a random prefix."""
    from elicitable.diagnosis.inspect import inspect
    from elicitable.methods.catalog import method_named
    from elicitable.runs.passages import ITEMS

    given = dict(trial.settings)
    model = _named(trial.base)
    prefix = method_named(given["method"]).build(model, given["size"], seed=job.seed, init="random")
    seen = inspect(model, prefix, ITEMS[: given["texts"]])
    layers = range(len(seen.layers))
    by_layer = {
        name: [statistics.fmean(getattr(head, field) for head in seen.heads if head.layer == layer) for layer in layers]
        for name, field in (("residual", "attention_residual"), ("drift", "drift"))
    }
    return {
        "measurements": {
            "attention residual": max(head.attention_residual for head in seen.heads),
            "output residual": max(head.output_residual for head in seen.heads),
            "drift of deeper layers": statistics.fmean(by_layer["drift"][1:]),
        },
        "picture": {"kind": "residuals", **by_layer},
    }


def _token_reach(job: Job, trial: Measure) -> dict[str, Any]:
    """Section 3: distinct greedy completions of single hard tokens, and of single trained virtual tokens."""
    import importlib.util

    if importlib.util.find_spec("elicitable.runs.reach") is None:
        raise _UntestableError("this build has no elicitable.runs.reach")
    token_reach = importlib.import_module("elicitable.runs.reach").token_reach
    found = token_reach(_named(trial.base), seed=job.seed, **dict(trial.settings))
    return {
        "measurements": {
            "distinct per hard token": 100 * found.hard.distinct.share,
            "distinct per virtual token": 100 * found.virtual.distinct / found.virtual.tried,
            "targets reached": 100 * found.virtual.share,
        },
        "picture": None,
    }
