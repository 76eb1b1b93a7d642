"""Ask what can be read off the frozen model: the right answer, by ridge regression, where the model has to know it.

Two places are read. What the output layer reads says whether a linear map of the finished model's state would do, a
cheap stand-in for training it. What the heads give says what any context leaves of the content: a context cannot
change how a head's attention is shared among the content's keys (in the first layer exactly so, deeper as far as the
layers below stay as they are), only weigh their mean and add to it. What is not in those means no context brings to
the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elicitable.forecasting.answers import batch_of
from elicitable.methods.base import Adaptation
from elicitable.microscope.ridge import Moments
from elicitable.models.attend import Call, combine
from elicitable.models.inject import installed
from elicitable.models.replay import seeing
from elicitable.rng import torch_generator
from elicitable.training.batches import IGNORED, Reading
from elicitable.training.evaluate import answer_logits
from elicitable.training.loop import reading_of

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.training.loop import Plan
    from elicitable.values import Item

STRENGTH = 1e-2  # λ over the mean diagonal of HᵀH
PART = 32  # items at once
FEATURES = 256  # random ones, relu(Rx), beside x itself


@dataclass(frozen=True, eq=False)
class States:
    """Hold what stands at the answers' tokens: ``places[name]`` (token, width), the tokens that come next, whose, and
    which of the answer's, from its beginning."""

    places: dict[str, Tensor]
    targets: Tensor
    owners: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Read:
    """Hold how well answers are read: the share of whole answers, of tokens, and of those at the worst step."""

    answers: float
    tokens: float
    worst: float


@torch.no_grad()
def read_signals(model: Model, train: Sequence[Item], items: Sequence[Item], plan: Plan) -> dict[str, float]:
    """Fit on ``train`` and read ``items``; of the heads those of the layer that reads the most tokens."""
    reading = reading_of(plan, Adaptation())
    fitted, asked = (states_of(model, part, reading) for part in (train, items))
    found = {name: read(fitted, asked, name) for name in fitted.places}
    output = found.pop(OUTPUT)
    plain = read_plainly(fitted, asked)
    heads = max(found.values(), key=lambda one: (one.tokens, one.worst))
    return {
        "linear_score": output.answers,
        "linear_token_score": output.tokens,
        "linear_worst_score": output.worst,
        "plain_score": plain.answers,
        "plain_token_score": plain.tokens,
        "heads_score": heads.answers,
        "heads_token_score": heads.tokens,
        "heads_worst_score": heads.worst,
    }


OUTPUT = "output"


def states_of(model: Model, items: Sequence[Item], reading: Reading) -> States:
    """Run ``items`` and keep what the output layer reads (``output``) and each layer's heads give, float64."""
    head = model.hf.get_output_embeddings()
    places: dict[str, list[Tensor]] = {}
    rest: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, len(items), PART):
        batch = batch_of(model, items[first : first + PART], reading)
        answer = batch.targets.shape[1]
        counted = (batch.targets != IGNORED).cpu()
        at: dict[str, Tensor] = {}
        with ExitStack() as stack:
            slot = stack.enter_context(installed(model))

            def see(call: Call, at: dict[str, Tensor] = at, slot: object = slot, answer: int = answer) -> Tensor:
                output = combine(call, slot)  # type: ignore[arg-type]
                at[f"layer {call.layer}"] = output[:, :, -answer:].transpose(1, 2).flatten(2)
                return output

            stack.enter_context(slot.watched_by(see, first=True))
            seen = stack.enter_context(seeing(head))
            answer_logits(model, batch)
        at[OUTPUT] = seen.input[:, -answer:]
        for name, x in at.items():
            places.setdefault(name, []).append(x.cpu().double()[counted])
        steps = counted.long().cumsum(dim=1) - 1
        rest.append((batch.targets.cpu()[counted], first + counted.nonzero()[:, 0], steps[counted]))
    targets, owners, steps = (torch.cat(part) for part in zip(*rest, strict=True))
    return States({name: torch.cat(parts) for name, parts in places.items()}, targets, owners, steps)


def read(fitted: States, asked: States, place: str) -> Read:
    """Fit one ridge regression a step of the answer to ``fitted`` and read ``asked`` by it.

    It maps x and relu(Rx), R random, to the token that comes next, among those that occur in the answers to ``fitted``.
    Where answers are of different lengths, one regression stands for all steps.
    """
    is_even = len(set(torch.bincount(fitted.owners).tolist())) == 1
    hits = torch.zeros(len(asked.targets), dtype=torch.bool)
    shares = []
    for step in sorted(set(asked.steps.tolist())) if is_even else [None]:
        known = torch.ones_like(fitted.steps, dtype=torch.bool) if step is None else fitted.steps == step
        wanted = torch.ones_like(asked.steps, dtype=torch.bool) if step is None else asked.steps == step
        if not bool(known.any()):
            continue
        inputs = fitted.places[place][known], asked.places[place][wanted]
        answered = _classified(*_with_features(*inputs), fitted.targets[known])
        hits[wanted] = answered == asked.targets[wanted]
        shares.append(float(hits[wanted].double().mean()))
    return _read_of(hits, asked, min(shares, default=0.0))


def read_plainly(fitted: States, asked: States) -> Read:
    """Read what the output layer reads by one linear map for all steps, as a probe on frozen embeddings does."""
    inputs = _standardised(fitted.places[OUTPUT], asked.places[OUTPUT])
    hits = _classified(*inputs, fitted.targets) == asked.targets
    return _read_of(hits, asked, float(hits.double().mean()))


def _read_of(hits: Tensor, asked: States, worst: float) -> Read:
    items = set(asked.owners.tolist())
    wrong = set(asked.owners[~hits].tolist())
    return Read(1 - len(wrong) / len(items), float(hits.double().mean()), worst)


def _standardised(known: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    mean, scale = known.mean(dim=0), known.std(dim=0, correction=0).clamp(min=1e-12)
    return (known - mean) / scale, (asked - mean) / scale


def _with_features(known: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Put relu(Rx) beside x, both standardised, with the same random R."""
    width = known.shape[1]
    drawn = torch.randn(width, FEATURES, generator=torch_generator(0, "features"), dtype=torch.float64) / width**0.5
    one, other = (torch.cat([x, torch.relu(x @ drawn)], dim=1) for x in _standardised(known, asked))
    return one, other


def _classified(known: Tensor, asked: Tensor, targets: Tensor) -> Tensor:
    """Return the token (row,) that ridge regression from ``known`` to one-hot ``targets`` gives ``asked``."""
    classes, places = targets.unique(return_inverse=True)
    moments = Moments(known.shape[1], len(classes), known.device)
    moments.add(known, torch.nn.functional.one_hot(places, len(classes)).double())
    change = moments.ridge(STRENGTH, has_bias=True)
    assert change.bias is not None
    best: Tensor = classes[(asked @ change.matrix.T + change.bias).argmax(dim=1)]
    return best
