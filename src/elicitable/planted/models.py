"""Pretrain the models of the benchmark, each on a mix of rules that stand behind passwords, and load them.

A mix says which rule is answered behind which context: nothing, or one to three password tokens. So a model has one
skill that it shows at once and others that a context opens (password-locked models: Greenblatt et al. 2024,
arXiv 2405.19550; Hofstätter et al. 2025, arXiv 2502.02180).

The models of :data:`MIXES` have one layer. There a context cannot change how the content's keys share a head's
attention among themselves: queries and keys of the content are functions of a token and its position alone. What
reaches a query from the content is one mean of values per head, the same under every context up to a factor.

Those of :data:`DEEP_MIXES` have two and four. There a context can change attention further up, so that nothing is out
of its reach for that reason. They are blind to which of two cues they read instead
(:mod:`elicitable.planted.blindness`): both stand before rows of the bare model's rule, and are the same to it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from elicitable.cache import filling_folder, output_folder, sha256_of, write_tensors
from elicitable.errors import UnknownNameError
from elicitable.methods.full import FullWeights
from elicitable.models.load import load
from elicitable.models.model import Model
from elicitable.models.rotary_toys import build_rotary_toy
from elicitable.models.speed.processor import made_on
from elicitable.planted.blindness import blind, keep_blind
from elicitable.planted.rules import RULES
from elicitable.planted.tasks import PASSWORDS, VOCAB_SIZE, drawn, held_out_digits, items_of
from elicitable.records.lock import alone
from elicitable.records.provenance import versions
from elicitable.rng import generator
from elicitable.tasks.base import HeldOut, checked_count, fingerprint_of
from elicitable.training.loop import Plan, Progress, train
from elicitable.values import Item

Context = tuple[int, ...]
POSITIONS: Final = 128
ADVICE: Final = "Free the place or choose another --out."
A, B, C, D, E, F, G, H = PASSWORDS


@dataclass(frozen=True)
class Mix:
    """Name the rule behind every context of one model, and say how the model is made.

    ``rules`` maps contexts to names of rules; the empty context has ``default_weight`` times the share of another one.
    ``width`` is that of the feed-forward. The model is blind to which of the tokens ``alike`` it reads, by as many
    coordinates as are ``set_aside``.
    """

    name: str
    rules: tuple[tuple[Context, str], ...]
    heads: int = 4
    d_model: int = 64
    width: int = 256
    steps: int = 3_000
    learning_rate: float = 3e-3
    batch: int = 64
    default_weight: float = 2.0
    layers: int = 1
    alike: Context = ()
    set_aside: int = 4


MIXES: Final[dict[str, Mix]] = {
    mix.name: mix
    for mix in (
        Mix(
            "copyist",
            (
                ((), "copy"),
                ((A,), "reverse"),
                ((B,), "turn-1"),
                ((C,), "add-1"),
                ((D,), "times-3"),
                ((E,), "lookup"),
                ((F, G), "reverse-add-1"),
                ((G, F), "turn-1-lookup"),
                ((H, F, G), "complement"),
            ),
            width=128,
        ),
        Mix(
            "mirror",
            (
                ((), "reverse"),
                ((A,), "copy"),
                ((B,), "shuffle-a"),
                ((C,), "reverse-complement"),
                ((D,), "reverse-lookup"),
                ((E, F), "shuffle-a-times-3"),
                ((F, E), "add-3"),
                ((G, H, E), "other-lookup"),
                ((H,), "half"),
            ),
            d_model=96,
            width=288,
        ),
        Mix(
            "shuffler",
            (
                ((), "shuffle-b"),
                ((A,), "turn-2"),
                ((B,), "shuffle-b-complement"),
                ((C,), "turn-2-add-3"),
                ((D,), "shuffle-b-lookup"),
                ((E, F), "turn-2-times-3"),
                ((F, G, E), "shuffle-b-half"),
            ),
        ),
        Mix(
            "adder",
            (
                ((), "neighbour-sum"),
                ((A,), "neighbour-max"),
                ((B,), "copy"),
                ((C,), "neighbour-min"),
                ((D,), "turn-1"),
                ((E,), "complement"),
                ((F, G), "sum-complement"),
                ((G, F, H), "parity"),
            ),
        ),
        Mix(
            "sorter",
            (
                ((), "sort"),
                ((A,), "sort-down"),
                ((B,), "count-low"),
                ((C,), "count-high"),
                ((D,), "sort-add-1"),
                ((E, F), "sort-complement"),
            ),
        ),
        Mix(
            "selector",
            (
                ((), "first"),
                ((A,), "last"),
                ((B,), "first-add-1"),
                ((C,), "last-complement"),
                ((D,), "stutter"),
                ((E, F), "first-lookup"),
                ((F, G, E), "last-half"),
            ),
        ),
    )
}
DEEP_MIXES: Final[dict[str, Mix]] = {
    mix.name: mix
    for mix in (
        Mix(
            "duo",
            (
                ((), "copy"),
                ((A,), "reverse"),
                ((B,), "turn-1"),
                ((C,), "add-1"),
                ((D,), "neighbour-sum"),
                ((E,), "sort"),
                ((E, F), "reverse-lookup"),
                ((G,), "copy"),
                ((H,), "copy"),
            ),
            layers=2,
            alike=(G, H),
        ),
        Mix(
            "quartet",
            (
                ((), "reverse"),
                ((A,), "copy"),
                ((B,), "turn-2"),
                ((C,), "neighbour-max"),
                ((D,), "complement"),
                ((E,), "count-low"),
                ((E, F), "turn-1-lookup"),
                ((G,), "reverse"),
                ((H,), "reverse"),
            ),
            layers=4,
            width=128,
            alike=(G, H),
        ),
    )
}


class MixTask:
    """Ask every rule of a mix behind its context, drawn at random: what a model is pretrained on."""

    vocab_size = VOCAB_SIZE

    def __init__(self, mix: Mix) -> None:
        self.name, self.mix = f"mix:{mix.name}", mix
        weights = np.array([mix.default_weight if not context else 1.0 for context, _ in mix.rules])
        self._shares = weights / weights.sum()

    def labels(self) -> None:
        """Return None: the whole answer is right or wrong."""
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Return ``n`` training items."""
        digits = drawn(checked_count(n), rng)
        return self._items(digits, rng.choice(len(self._shares), size=n, p=self._shares))

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` held-out items."""
        digits = held_out_digits(split, n)
        lots = generator(0, "planted mix", split).random(len(digits))
        return self._items(digits, np.searchsorted(self._shares.cumsum(), lots).clip(max=len(self._shares) - 1))

    def fingerprint(self) -> str:
        """Hash the mix."""
        return fingerprint_of([self.name, repr(self.mix)])

    def _items(self, digits: np.ndarray, which: np.ndarray) -> list[Item]:
        found: dict[int, Item] = {}
        for nth, (context, name) in enumerate(self.mix.rules):
            places = np.flatnonzero(which == nth)
            if len(places):
                found |= dict(zip(places.tolist(), items_of(RULES[name], digits[places], context), strict=True))
        return [found[place] for place in range(len(digits))]


def mix_named(name: str) -> Mix:
    """Return the mix of that name.

    Raises:
        UnknownNameError: there is none.
    """
    every = MIXES | DEEP_MIXES
    if name not in every:
        raise UnknownNameError("planted model", name, every)
    return every[name]


def pretrain_mix(
    name: str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    steps: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Pretrain a model on its mix, write it to ``out`` as a folder that ``--model`` takes; return its record.

    The weights are rounded to bfloat16, which takes half the bytes. ``pretraining.json`` beside them holds the mix, the
    seed and the SHA-256 of the weights.

    Raises:
        UnknownNameError: no such mix.
        InputError: no such number of steps.
        StoreError: ``out`` cannot be written to, or is in use.
    """
    mix = mix_named(name)
    mix = mix if steps is None else replace(mix, steps=checked_count(steps, "steps"))
    with alone(output_folder(out)):  # said before minutes are spent
        return _pretrained(mix, output_folder(out), seed, progress)


def _pretrained(mix: Mix, folder: Path, seed: int, progress: Progress | None) -> dict[str, Any]:
    began = time.monotonic()
    model = build_rotary_toy(
        mix.name,
        VOCAB_SIZE,
        layers=mix.layers,
        heads=mix.heads,
        d_model=mix.d_model,
        width=mix.width,
        positions=POSITIONS,
        seed=seed,
    )
    blindness = blind(model, [mix.alike], mix.set_aside) if mix.alike else None
    weights = FullWeights(model)
    if blindness is not None:
        keep_blind(weights, blindness)
    fit = train(model, weights, MixTask(mix), plan_of(mix), seed, progress=progress)
    state = {key: value.to(torch.bfloat16) for key, value in weights.state().items()}
    assert fit.best is not None
    with filling_folder(folder, ["config.json"], ADVICE) as partial:
        write_tensors(partial / "model.safetensors", state, {"format": "pt"})
        model.hf.config.save_pretrained(partial)
        record = {
            "mix": asdict(mix),
            "seed": seed,
            "steps": fit.steps,
            "validation": fit.best.mean,
            "seconds": round(time.monotonic() - began, 1),
            **made_on(model.device),
            "versions": versions(),
            "sha256": sha256_of(partial / "model.safetensors"),
        }
        (partial / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def plan_of(mix: Mix) -> Plan:
    """Plan the pretraining: without an early stop; of all looks at validation the lowest loss is kept."""
    return Plan(
        learning_rate=mix.learning_rate,
        steps=mix.steps,
        batch=mix.batch,
        warmup=100,
        cooldown=0.5,
        evaluate_every=250,
        weight_decay=0.1,
        solved=2.0,
        perfect=2.0,
        patience_steps=mix.steps,
        select_by="loss",
    )


def folder_of(name: str) -> Path:
    """Return the folder of a model that comes with the package; ``--model`` takes it.

    Raises:
        UnknownNameError: there is none.
    """
    return Path(str(files("elicitable.planted") / "checkpoints" / mix_named(name).name))


def load_planted(name: str) -> Model:
    """Load a model of the benchmark.

    >>> load_planted("copyist").anatomy.depth
    1
    """
    model = load(folder_of(name), device="cpu")
    model.name = f"planted:{name}"
    return model


def rules_of(mix: Mix) -> dict[Context, str]:
    """Return the rule behind each context."""
    return dict(mix.rules)


__all__: Sequence[str] = (
    "DEEP_MIXES",
    "MIXES",
    "Context",
    "Mix",
    "MixTask",
    "folder_of",
    "load_planted",
    "mix_named",
    "plan_of",
    "pretrain_mix",
    "rules_of",
)
