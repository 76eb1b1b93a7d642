"""Compile a context: fit it to unlabelled texts, train what is left, and say how faithful the result is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from elicitable.compiling.distil import Distilling, distil
from elicitable.compiling.fidelity import NOTHING, Forgetting, Teacher, elsewhere_scores, forgetting, likeness, scores
from elicitable.compiling.matching import fit_short_prefix
from elicitable.compiling.pairs import (
    Pair,
    PairBatch,
    bare,
    batches_of,
    layout_with,
    pairs_of_items,
    pairs_of_texts,
    parts_of,
)
from elicitable.compiling.patch import Patch, fresh, multiplied_out, patchable
from elicitable.compiling.static import Fitting, fit_patch
from elicitable.errors import InputError, UnknownNameError, UnsupportedModelError
from elicitable.glance import bars
from elicitable.models.inject import prefix_of
from elicitable.models.layout import PLAIN, Layout
from elicitable.models.model import as_model
from elicitable.models.prefixes import prefix_length, row_count
from elicitable.models.sites import Sites
from elicitable.models.speed.precision import undisturbed
from elicitable.rng import generator
from elicitable.tasks.base import checked_count, has_turns, stops_of
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import layout_without_record
from elicitable.values import Item, PrefixKV

if TYPE_CHECKING:
    from elicitable.compiling.fidelity import Marks
    from elicitable.methods.base import Adaptation
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

FORMS = ("lora", "weights", "short-prefix")
RIDGES = (1e-3, 1e-2, 1e-1)  # λ over the mean diagonal of H′ᵀH′; the one of least divergence on held-out texts is taken
SHARES = (0.7, 0.15, 0.15)  # of the texts: fitted to, chosen by, reported on
RATES = {"lora": 3e-4, "weights": 1e-5, "short-prefix": 1e-2}
FRESH_RATE = 1e-3  # of a patch that begins with no change
FRESH_RANK = 64  # of one that becomes whole matrices

Told = Callable[[str], None]


@dataclass(frozen=True, eq=False, repr=False)
class Compiled:
    """Hold what a context was compiled into, ready for :func:`elicitable.use`, and what was measured."""

    adaptation: Adaptation
    record: dict[str, Any]

    def __repr__(self) -> str:
        """Return in a line what it was compiled into, and how far that is from the context."""
        found = self.record["compiled"]
        told = f"{self.record['numbers']:,} numbers, {found['kl_nats']:.4f} nats from the context"
        return f"<Compiled {self.record['to']}: {told}, same first choice {found['agreement']:.3f}>"

    def _repr_html_(self) -> str:
        """Return how often the likeliest token is that with the context, as bars, for a notebook."""
        shown = {"compiled": "compiled", "without the context": "neither", "control": "control"}
        shares = {name: self.record[key]["agreement"] for name, key in shown.items() if key in self.record}
        rows = [(name, share, share, share, name == "compiled") for name, share in shares.items()]
        return bars(f"{repr(self).strip('<>')}; the same first choice as with the context:", rows)


@dataclass(frozen=True)
class Recipe:
    """Say what a context is compiled into and how.

    Attributes:
        to: ``lora`` (a LoRA of ``rank``), ``weights`` (changed matrices of full rank, and their biases where they have
            some) or ``short-prefix`` (``keys`` keys and values a head).
        rank: of the LoRA.
        keys: of the short prefix.
        steps: of distillation after the closed form, and for a patch also from no change at all, of which the better
            one by held-out texts is taken; 0 trains nothing.
        rate: its learning rate; by default that of the form and of its start.
        seconds: of each distillation at most.
        ridges: what λ is chosen from, over the mean diagonal of H′ᵀH′.
        asked: how often a token at which the model is asked counts in the closed form; any other counts once.
        batch: texts at once.
        control: also fit a patch to targets dealt to other tokens, which must do badly.
        seed: of everything that is drawn.
    """

    to: str = "lora"
    rank: int = 32
    keys: int = 16
    steps: int = 200
    rate: float | None = None
    seconds: float | None = None
    ridges: tuple[float, ...] = RIDGES
    asked: float = 1.0
    batch: int = 16
    control: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.to not in FORMS:
            raise UnknownNameError("form", self.to, FORMS)
        for name, least in (("rank", 1), ("keys", 1), ("steps", 0), ("batch", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        if not 0 < self.asked < float("inf"):
            raise InputError(f"asked must be a number above 0, got {self.asked!r}.")
        if not self.ridges or not all(0 < one < float("inf") for one in self.ridges):
            raise InputError(f"ridges must be numbers above 0, got {self.ridges!r}.")

    def distilling(self, is_fresh: bool = False) -> Distilling:
        """Return how what is left is trained, or how a patch that changes nothing yet is."""
        rate = self.rate or (FRESH_RATE if is_fresh else RATES[self.to])
        return Distilling(self.steps, rate, self.seconds, seed=self.seed)


@undisturbed()
def compile_context(
    model: Any,
    context: Any,
    texts: Sequence[str | Sequence[int]] | None = None,
    *,
    task: Any = None,
    texts_of_task: int = 140,
    test_items: int = 240,
    other_tasks: Sequence[Any] = (),
    max_tokens: int | None = None,
    layout: Layout | None = None,
    marks: Marks | None = None,
    told: Told = lambda line: None,
    **recipe: Any,
) -> Compiled:
    """Compile ``context`` into a change of weights, or into fewer keys, and measure what that loses.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        context: a prompt, worked examples, a soft prompt, any prefix (an adaptation or a ``PrefixKV`` of one row); or
            several, the first of which stands first.
        texts: unlabelled texts (or token ids) of the kind that will be asked about; or give ``task``. What is read
            alike counts once.
        task: whose training prompts are the texts (no target is read), and whose test split is scored.
        texts_of_task: how many training prompts, at most.
        test_items: items of the test split that are scored.
        other_tasks: tasks on which is measured what the result does where nobody asked for it.
        max_tokens: longer texts are cut.
        layout: how texts and items are read, for a context that does not lay them out itself as a text does: that in
            which it was trained. By default conversations are read by the chat template, and all else without it.
        marks: scores the test split, as :meth:`elicitable.race.standard.Standard.outcome` does by the score and rule of
            a run; by default labels are compared by likelihood, and free answers with the whole of the right one.
        told: hears what is being done.
        recipe: the fields of :class:`Recipe`: ``to``, ``rank``, ``keys``, ``steps``, ``ridges``, …

    Raises:
        InputError: there are too few different texts, or the context is none.
        UnsupportedModelError: the model's blocks cannot be run one at a time.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> context = el.context("prompt", model, token_ids=[7, 0])
        >>> texts = [[3, 1, 2, 5], [5, 6, 0, 1], [1, 1, 4, 2], [2, 7, 6, 3]]
        >>> compiled = el.compile_context(model, context, texts, rank=4, steps=0)
        >>> compiled.adaptation
        patch(rank=4, ridge=0.1)
    """
    checked_count(texts_of_task, "texts of the task")
    checked_count(test_items, "test items")
    how = Recipe(**_known(recipe))
    model, context = as_model(model), _one(as_model(model), context)
    task = None if task is None else task_from(task)
    layout = layout_without_record(model, task) if layout is None else layout
    job = _Job.of(model, context, texts, task, texts_of_task, max_tokens, how, told, layout)
    started = time.monotonic()
    adaptation, chosen = job.made()
    record = {"to": how.to, **chosen, "seconds": time.monotonic() - started} | job.measured(adaptation)
    if job.task is not None:
        told("scoring the test split …")
        given = (test_items, how.seed, max_tokens, layout, marks)
        record["score"] = scores(job.model, job.task, context, adaptation, *given)
    record["elsewhere"] = []
    for one in map(task_from, other_tasks):
        read = replace(bare(layout_with(context, layout)), stops=stops_of(one), turns=has_turns(one))
        record["elsewhere"].append(elsewhere_scores(job.model, one, adaptation, test_items, how.seed, read))
    return Compiled(adaptation, record)


def _one(model: Model, context: Any) -> Any:
    """Join several contexts, each of which sees the earlier ones, into their keys and values.

    Raises:
        InputError: one of several holds the first tokens of the texts, which then lack them; or one asks every item
            otherwise, so that it is no context that stands before all of them.
    """
    import torch

    parts = list(context) if isinstance(context, list | tuple) else [context]
    if any(isinstance(part, str | os.PathLike) for part in parts):
        raise InputError(
            f"a context is an adaptation or a prefix, and {context!r} is a path; el.read(path).adaptation(model) reads "
            "what is there."
        )
    if any(getattr(part, "asks_otherwise", False) for part in parts):
        raise InputError("what stands behind every item, or differs from item to item, is no context to compile.")
    if any(len(getattr(part, "parts", ())) > 1 for part in parts):
        raise InputError(
            "a context whose weights are changed too is not compiled: merge them, and compile the context."
        )
    if len(parts) == 1:
        return parts[0]
    if any(hasattr(part, "held") and part.held() for part in parts):
        raise InputError("of several contexts none may be a text that the items are laid out behind; compile it alone.")
    with torch.no_grad():
        return prefix_of(model, parts)


def _known(recipe: dict[str, Any]) -> dict[str, Any]:
    for name in recipe:
        if name not in Recipe.__dataclass_fields__:
            raise UnknownNameError("option of compile", name, Recipe.__dataclass_fields__)
    return recipe


@dataclass(frozen=True, eq=False)
class _Job:
    """Hold a context, its texts in three parts, and how it is compiled."""

    model: Model
    prefix: PrefixKV
    task: Task | None
    how: Recipe
    fitted: list[PairBatch]
    held: list[PairBatch]
    reported: list[PairBatch]
    told: Told

    @cached_property
    def teacher(self) -> Teacher:
        """The model behind the context."""
        return Teacher(self.model, self.prefix)

    @classmethod
    def of(
        cls,
        model: Model,
        context: Any,
        texts: Sequence[str | Sequence[int]] | None,
        task: Task | None,
        count: int,
        max_tokens: int | None,
        how: Recipe,
        told: Told,
        layout: Layout = PLAIN,
    ) -> _Job:
        items = _items_of(task, count, how.seed) if texts is None else []
        _fit_to(model, context, texts, items, task)
        told("reading the texts …")
        pairs = pairs_of_items(model, context, items, max_tokens, layout) if texts is None else []
        pairs = pairs or pairs_of_texts(model, context, list(texts or ()), max_tokens, layout)
        fitted, held, reported = (batches_of(model, part, how.batch) for part in _dealt(pairs, how.seed))
        return cls(model, _prefix(model, context), task, how, fitted, held, reported, told)

    def made(self) -> tuple[Adaptation, dict[str, Any]]:
        """Return what the context was compiled into, and what was chosen on the way."""
        if self.how.to == "short-prefix":
            made, chosen = self._short()
            return made, chosen | (self._distilled(made, self.how.distilling()) if self.how.steps else {})
        sites = patchable(self.model, self._rank)
        patch, chosen = self._patched(sites)
        if not self.how.steps:
            return patch, chosen
        starts = {"closed form": patch, "nothing": fresh(self.model, sites, self._rank or FRESH_RANK, self.how.seed)}
        ends = {name: self._distilled(one, self.how.distilling(name == "nothing")) for name, one in starts.items()}
        start = min(ends, key=lambda name: float(ends[name]["held_nats"]))
        chosen |= {"start": start, "starts": {name: end["held_nats"] for name, end in ends.items()}, **ends[start]}
        best = starts[start]
        return (multiplied_out(self.model, best) if best.rank != self._rank else best), chosen

    def _distilled(self, made: Adaptation, how: Distilling) -> dict[str, Any]:
        """Train ``made`` towards the context; return the steps and what is left on held-out texts."""
        told = partial(_tell_step, self.told, self.how.steps)
        steps = distil(self.teacher, made, self.fitted, self.held, how, told)
        return {"steps": steps, "held_nats": likeness(self.teacher, made, self.held).kl_nats}

    def _short(self) -> tuple[Adaptation, dict[str, Any]]:
        self.told(f"matching attention with {self.how.keys} keys …")
        made = fit_short_prefix(self.model, self.prefix, self.fitted, self.how.keys, seed=self.how.seed)
        return made, {"keys": self.how.keys, "untrained": self._likeness(made)}

    def _patched(self, sites: Sequence[Sites]) -> tuple[Patch, dict[str, Any]]:
        """The patch of that λ whose divergence is least on texts that it was not fitted to."""
        downs = sum(block.down is not None for block in sites)
        if not any(block.all() for block in sites):
            raise UnsupportedModelError(
                f"{type(self.model.hf).__name__}: no block has a projection that can be patched."
            )
        tried: dict[float, tuple[float, Patch]] = {}
        for strength in self.how.ridges:
            self.told(f"solving for λ = {strength:g} …")
            patch = fit_patch(self.model, self.prefix, self.fitted, self._fitting(strength), sites)
            tried[strength] = (likeness(self.teacher, patch, self.held).kl_nats, patch)
        best = min(tried, key=lambda strength: tried[strength][0])
        patch = tried[best][1]
        chosen: dict[str, Any] = {"rank": self._rank, "ridge": best, "down_projections": downs}
        chosen["ridges"] = {f"{strength:g}": nats for strength, (nats, _) in tried.items()}
        chosen["untrained"] = self._likeness(patch)
        if self.how.control:
            self.told("fitting the control …")
            control = fit_patch(self.model, self.prefix, self.fitted, self._fitting(best, self.how.seed), sites)
            chosen["control"] = self._likeness(control)
        return patch, chosen

    @property
    def _rank(self) -> int | None:
        return self.how.rank if self.how.to == "lora" else None

    def _fitting(self, strength: float, shuffle: int | None = None) -> Fitting:
        has_biases = self.how.to == "weights"
        return Fitting(strength, self._rank, has_biases=has_biases, asked=self.how.asked, shuffle=shuffle)

    def _likeness(self, what: Adaptation) -> dict[str, float]:
        return asdict(likeness(self.teacher, what, self.reported))

    def measured(self, adaptation: Adaptation) -> dict[str, Any]:
        """Return what is measured on texts that had no part in anything, and on texts of another kind."""
        self.told("comparing with the context …")
        size = self.how.batch
        return {
            "texts": [sum(len(one.shared) for one in part) for part in (self.fitted, self.held, self.reported)],
            "context_keys": prefix_length(self.prefix),
            "numbers": sum(x.numel() for x in adaptation.parameters()),
            "compiled": self._likeness(adaptation),
            "neither": self._likeness(NOTHING),
            "blocks": self.model.anatomy.depth,
            "forgetting": _plain(forgetting(self.model, adaptation, size)),
            "forgetting_context": _plain(forgetting(self.model, self.prefix, size)),
        }


def _tell_step(told: Told, steps: int, step: int, nats: float) -> None:
    told(f"step {step} of {steps}: {nats:.4f} nats from the context …")


def _plain(found: Forgetting | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _items_of(task: Task | None, count: int, seed: int) -> list[Item]:
    if task is None:
        raise InputError("compile needs texts of the kind that will be asked about: give texts= or task=.")
    return list(task.sample(count, generator(seed, "compile", task.name)))


def _fit_to(model: Model, context: Any, texts: Any, items: list[Item], task: Task | None) -> None:
    """Let the context leave to the texts those of its last tokens that a tokenizer joins with their first ones."""
    if not hasattr(context, "fit"):
        return
    asked = [*items, *(task.held_out("test") if task is not None else ())]
    asked += [Item(text, " .") for text in texts or () if isinstance(text, str)]
    if asked:
        context.fit(model, asked)


def _dealt(pairs: Sequence[Pair], seed: int) -> list[list[Pair]]:
    order = generator(seed, "compile", "parts").permutation(len(pairs))
    return list(parts_of([pairs[place] for place in order], SHARES))


def _prefix(model: Model, context: Any) -> PrefixKV:
    """Compute the context's keys and values.

    Raises:
        InputError: it has none, changes weights, or differs from row to row.
    """
    import torch

    with torch.no_grad():
        prefix = prefix_of(model, [context])
    if prefix is None or (prefix_length(prefix) == 0 and prefix.value_bias is None):
        if getattr(context, "layout", None) is not None:
            raise InputError(
                "the context is a text within the rows, which do not begin alike (some conversations have a system "
                "message of their own), so there are no keys and values to compile; compile it for rows that do."
            )
        raise InputError(
            "only a context can be compiled (a prompt, examples, a soft prompt, a prefix), and this is none."
        )
    if row_count(prefix) != 1:
        raise InputError(f"the context has {row_count(prefix)} rows; compile one at a time.")
    return prefix
