"""Train any adaptation in one loop, which never asks which method it holds.

It uses AdamW, gradient clipping, a linear warm-up, a constant phase, and a cosine down to zero. The constant phase ends
when the task is solved, when nothing improves any more, or when steps or time run out. So nobody has to plan the cosine
for a length that nobody knows.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from elicitable.errors import InputError
from elicitable.models.inject import installed, prefix_of, weights_in
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.restoring import evaluating, swapped, without_gradients
from elicitable.models.speed.checkpointing import checkpointed
from elicitable.models.speed.precision import autocast, frozen_casts
from elicitable.models.speed.processor import kind
from elicitable.rng import generator
from elicitable.training.batches import CHUNK, Batch, Reading, stream
from elicitable.training.checkpoint import Checkpoint, Frozen
from elicitable.training.evaluate import answer_logits, evaluate, token_losses
from elicitable.training.phase import Phase
from elicitable.untrusted import is_out_of_memory
from elicitable.values import CurvePoint, Item, PrefixKV, Score

if TYPE_CHECKING:
    import numpy as np

    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task


@dataclass(frozen=True)
class Plan:
    """Say how one adaptation is trained; frozen data, part of a trial's identity.

    ``steps`` bounds the constant phase and the cosine together, ``seconds`` too when given. ``patience`` is the share
    of the steps so far (at least ``patience_steps``) without improvement of the validation score or loss after which
    the constant phase ends. Once ``solved``, the cosine takes ``finish`` steps or half as many again; a ``perfect``
    score ends it.
    """

    learning_rate: float
    steps: int
    batch: int = 64
    warmup: int = 50
    cooldown: float = 0.2
    evaluate_every: int = 100
    validation_items: int = 256
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    solved: float = 0.98
    perfect: float = 0.999
    finish: int = 100
    patience: float = 0.3
    patience_steps: int = 500
    max_tokens: int | None = None
    layout: Layout = PLAIN
    largest_offset: int = 0
    select_by: Literal["score", "loss"] = "score"
    seconds: float | None = None


@dataclass
class Fit:
    """Hold what training gave: the best state by validation, the curve, and why it stopped."""

    curve: list[CurvePoint] = field(default_factory=list)
    best: Score | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    processors: list[str] = field(default_factory=list)  # kinds, one where the run was never moved
    stopped: str = ""  # solved, plateau, steps, time, diverged, interrupted
    latest: Score | None = None  # of the last look at the validation split
    end: Frozen | None = None  # the state after the last step, where it was asked for

    @property
    def processor(self) -> str:
        """Return the kind of processor it ran on; all of them, if it was taken up again on another."""
        return ", ".join(self.processors)

    @property
    def is_usable(self) -> bool:
        """Say whether there is a state to evaluate."""
        return self.best is not None and bool(self.state)


Progress = Callable[[CurvePoint, float], None]  # the newest point, and the share of the work that is done


def train(
    model: Model,
    adaptation: Adaptation,
    task: Task,
    plan: Plan,
    seed: int,
    *,
    inside: Sequence[Adaptation] = (),
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    start: Frozen | None = None,
    keeps_end: bool = False,
) -> Fit:
    """Train ``adaptation`` on ``task``; its best state by validation is loaded at the end.

    The base weights get no gradient and are untouched. ``inside`` are adaptations that stand before it and are not
    trained (contexts compose). Not-a-number in the loss stops the run as ``diverged``. With a ``checkpoint`` the run
    goes on from what is kept there, and keeps itself there from time to time.

    ``start`` is the end of a run of fewer steps, from which this one goes on by its own plan: the steps are those of
    one run, bit for bit. With ``keeps_end`` the fit holds its own end for a run that goes on from there.
    """
    parameters = adaptation.parameters()
    optimizer = torch.optim.AdamW(_groups(parameters, plan.weight_decay), lr=plan.learning_rate, betas=plan.betas)
    drawn, offsets = generator(seed, "data", task.name), generator(seed, "offset")
    validation = task.held_out("validation", plan.validation_items)
    fit, phase, started = Fit(), Phase(plan), time.monotonic()
    run = _Run(adaptation, optimizer, {"data": drawn, "offset": offsets}, fit, phase)
    if checkpoint is not None and run.take_up(checkpoint):
        pass
    elif start is not None:
        run.thaw(start)
        phase.go_on(fit.steps)
    started -= fit.seconds
    reading = reading_of(plan, adaptation)
    if (here := kind(model.device)) not in fit.processors:
        fit.processors.append(here)
    told = time.monotonic()
    with prepared(model, adaptation, inside) as refresh:
        with torch.no_grad():
            refresh()  # so that the context in use takes its positions
        batches = stream(model, task, plan.batch, drawn, reading)
        for _ in range(fit.steps % CHUNK):  # drawn together with those that are still to come
            next(batches)
        while not phase.is_over:
            if fit.steps % CHUNK == 0:  # no drawn batch is waiting here
                run.drawn_from = copy.deepcopy(dict(drawn.bit_generator.state))
                if checkpoint and checkpoint.is_due():
                    fit.seconds = time.monotonic() - started
                    checkpoint.write(run.freeze())
            rate = phase.rate()
            for group in optimizer.param_groups:
                group["lr"] = rate
            offset = int(offsets.integers(plan.largest_offset + 1)) if plan.largest_offset else 0
            loss = _step(model, refresh, next(batches), optimizer, parameters, plan.clip, offset)
            fit.steps += 1
            if not math.isfinite(loss):
                fit.stopped = "diverged"
                break
            phase.advance(time.monotonic() - started)
            if fit.steps % plan.evaluate_every == 0 or phase.is_over:
                point = _validate(model, adaptation, refresh, task, validation, plan, fit, loss, reading)
                phase.observe(point)
                if progress:
                    progress(point, phase.share())
            elif progress and time.monotonic() - told > 0.5:
                told = time.monotonic()
                progress(CurvePoint(fit.steps, loss), phase.share())
    fit.seconds = time.monotonic() - started
    fit.stopped = fit.stopped or phase.reason
    if keeps_end and fit.stopped != "diverged":
        fit.end = run.freeze()
    if fit.state:
        adaptation.load(fit.state)
    return fit


def taken_up(adaptation: Adaptation, end: Frozen) -> Fit:
    """Return the fit of a run that has ended, from its end; ``adaptation`` takes over the best state of it."""
    fit = Fit(state=end.part("best"))
    _restored(fit, end.plain)
    fit.stopped = end.plain["phase"]["reason"]
    adaptation.load(fit.state)
    return fit


def _restored(fit: Fit, plain: dict[str, Any]) -> None:
    fit.steps, fit.seconds = plain["steps"], plain["seconds"]
    fit.processors[:] = plain.get("processors", ["unknown"])  # a checkpoint made before they were kept
    fit.curve[:] = [CurvePoint(*point) for point in plain["curve"]]
    fit.best = Score(tuple(plain["best"][0]), plain["best"][1]) if plain["best"] else None


@dataclass(eq=False)
class _Run:
    """Hold all that changes from step to step, so that it can be kept and taken up again.

    ``drawn_from`` is the state of the data's generator before the batches were drawn of which some may still wait.
    """

    adaptation: Adaptation
    optimizer: torch.optim.Optimizer
    generators: dict[str, np.random.Generator]
    fit: Fit
    phase: Phase
    drawn_from: dict[str, Any] = field(default_factory=dict)

    def freeze(self) -> Frozen:
        """Return the state between two steps."""
        tensors = {f"adaptation/{name}": tensor for name, tensor in self.adaptation.state().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.fit.state.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in slots.items()}
        return Frozen(tensors, self._plain())

    def _plain(self) -> dict[str, Any]:
        best = self.fit.best
        return {
            "steps": self.fit.steps,
            "seconds": self.fit.seconds,
            "processors": list(self.fit.processors),
            "curve": [[point.step, point.loss_nats, point.validation] for point in self.fit.curve],
            "best": None if best is None else [list(best.correct), best.loss_nats],
            "phase": {name: value for name, value in vars(self.phase).items() if name != "plan"},
            "generators": {name: rng.bit_generator.state for name, rng in self.generators.items()}
            | ({"data": self.drawn_from} if self.fit.steps % CHUNK else {}),
        }

    def take_up(self, checkpoint: Checkpoint) -> bool:
        """Take up what ``checkpoint`` keeps; False where it keeps nothing.

        Raises:
            StoreError: it cannot be read, or is not of this run.
        """
        kept = checkpoint.read()
        if kept is None:
            return False
        try:
            self.thaw(kept)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            raise checkpoint.refused(f"it is not of this run: {error!r}") from error
        return True

    def thaw(self, kept: Frozen) -> None:
        """Take up the state that was kept."""
        self.adaptation.load(kept.part("adaptation"))
        whole = self.optimizer.state_dict()
        whole["state"] = {}
        for name, tensor in kept.part("optimizer").items():
            index, slot = name.split("/")
            whole["state"].setdefault(int(index), {})[slot] = tensor
        self.optimizer.load_state_dict(whole)
        plain = kept.plain
        self.fit.state = kept.part("best")
        _restored(self.fit, plain)
        vars(self.phase).update(plain["phase"])
        for name, state in plain["generators"].items():
            self.generators[name].bit_generator.state = state
        self.drawn_from = plain["generators"]["data"]


@contextmanager
def prepared(model: Model, adaptation: Adaptation, inside: Sequence[Adaptation] = ()) -> Iterator[Callable[[], None]]:
    """Freeze the base, install ``adaptation``, and yield the function that recomputes its keys and values.

    A context that is in use around this (:func:`elicitable.use`) stands before it, and is frozen too. The model is run
    under :func:`~elicitable.models.speed.precision.autocast` inside: its frozen matrices may be bfloat16 there. Where
    gradient checkpointing is on, layers are computed again on the way back.

    Raises:
        InputError: the context in use has a strength other than 1, which the adaptation inside it would share.
    """
    trained = adaptation.parameters()
    with ExitStack() as stack:
        for part in (*inside, adaptation):
            stack.enter_context(weights_in(model, part))
        slot = stack.enter_context(installed(model))
        around = slot.parts
        if around and slot.strength != 1.0:
            raise InputError(f"a context of strength {slot.strength:g} is in use; training inside it needs strength 1.")
        others = [p for part in (*around, *inside) if not isinstance(part, PrefixKV) for p in part.parameters()]
        for frozen in (model.hf, nn.ParameterList(others)):
            stack.enter_context(without_gradients(frozen, but=trained))
        stack.enter_context(frozen_casts(model))
        stack.enter_context(swapped(slot, prefix=slot.prefix, strength=1.0))
        # no dropout: the data are new at every step or few, and the frozen model is what is asked
        stack.enter_context(evaluating(model.hf))
        stack.enter_context(checkpointed(model, slot))

        def refresh() -> None:
            with autocast(model):
                slot.prefix = prefix_of(model, [*around, *inside, adaptation])

        yield refresh


def _groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups: list[dict[str, object]] = [{"params": matrices, "weight_decay": weight_decay}]
    return [*groups, {"params": vectors, "weight_decay": 0.0}] if vectors else groups


def _step(
    model: Model,
    refresh: Callable[[], None],
    parts: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    clip: float,
    offset: int,
) -> float:
    """One step on a batch in ``parts``: the gradient of the mean loss over all of their target tokens."""
    counts = [(part.targets >= 0).sum() for part in parts]
    whole, value = sum(counts[1:], counts[0]), 0.0
    for nth, part in enumerate(parts):
        refresh()
        with autocast(model):
            logits = answer_logits(model, part, offset)
        loss = token_losses(logits, part.targets).sum() / whole
        value += float(loss.detach())
        if not math.isfinite(value):
            return value
        if nth == 0:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not bool(torch.isfinite(norm)):
        return math.nan
    optimizer.step()
    return value


def reading_of(plan: Plan, adaptation: Adaptation) -> Reading:
    """How items are read with ``adaptation`` in place: in its own layout, where it has one, else in the plan's."""
    layout = adaptation.layout or plan.layout
    asked = adaptation.asked if adaptation.asks_otherwise else None
    shown, marker = adaptation.shown, adaptation.marker
    return Reading(max(16, plan.batch), plan.max_tokens, layout, adaptation.held(), asked, marker, shown=shown)


def _validate(
    model: Model,
    adaptation: Adaptation,
    refresh: Callable[[], None],
    task: Task,
    items: Sequence[Item],
    plan: Plan,
    fit: Fit,
    loss: float,
    reading: Reading,
) -> CurvePoint:
    with torch.no_grad():
        refresh()
    fit.latest = score = evaluate(model, items, task.labels(), reading)
    if fit.best is None or _is_better(score, fit.best, plan):
        fit.best, fit.state = score, adaptation.state()
    point = CurvePoint(step=fit.steps, loss_nats=loss, validation=score.mean)
    fit.curve.append(point)
    return replace(point, loss_nats=score.loss_nats)


def _is_better(score: Score, best: Score, plan: Plan) -> bool:
    """Say whether a state is better than the best so far, on the items that both were looked at with.

    A run that goes on may be looked at with more items, of which the first are those of before. What is common to both
    then decides, and of equals the newer state is the better one, as their losses are not over the same items.
    """
    shared = min(len(score.correct), len(best.correct))
    if len(score.correct) == len(best.correct):
        return _worth(score, plan) > _worth(best, plan)
    return plan.select_by == "loss" or sum(score.correct[:shared]) >= sum(best.correct[:shared])


def _worth(score: Score, plan: Plan) -> tuple[float, float]:
    return (score.mean, -score.loss_nats) if plan.select_by == "score" else (-score.loss_nats, score.mean)
