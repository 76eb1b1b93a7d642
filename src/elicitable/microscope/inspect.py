"""Say what a context does inside a model, over many texts, in one small frozen record.

Source: sections 4 and 6 and appendix B of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.errors import InputError, UnsupportedModelError
from elicitable.glance import heat
from elicitable.microscope.patterns import Heatmap, Patterns, context_names, heatmap_of, patterns_of
from elicitable.microscope.prune import Ablation
from elicitable.microscope.scope import Scope
from elicitable.microscope.shareability import Shared, shareability
from elicitable.microscope.watch import changes_weights, watch
from elicitable.microscope.words import says
from elicitable.models.inject import prefix_of
from elicitable.models.layout import layout_unsaid
from elicitable.models.model import Model, as_model
from elicitable.models.prefixes import prefix_length, row_count
from elicitable.models.projections import output_projections
from elicitable.models.rounding import rounding
from elicitable.models.rows import rows_of
from elicitable.models.speed.precision import undisturbed
from elicitable.models.speed.processor import made_on
from elicitable.untrusted import in_one_line
from elicitable.values import Item, Message

if TYPE_CHECKING:
    import pandas as pd

DEAD_SHARE = 0.01  # a position that nowhere has that share of a head's prefix mass is called dead, but for
EVEN_SHARE = 0.1  # a long context: there it is so much of what each position would have if all had the same
SINK = 0.3  # a head with more than this weight on its first token has a sink there


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """Hold one head of one layer; the same names, units and ranges as :class:`elicitable.microscope.scope.Scope`."""

    layer: int
    head: int
    prefix_mass: float
    attention_residual: float
    output_residual: float
    drift: float
    drift_divergence: float
    drift_by_queries: float
    drift_by_keys: float
    drift_interaction: float
    local_rescaling: float
    bias_norm: float
    content_norm: float
    bias_cosine: float
    effective_rank: float
    first_share: float
    sink_with: float
    sink_without: float


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """Hold what was found in one layer.

    ``visible_share`` of the context is left by its sliding window. ``position_mass`` and ``position_share`` (largest
    over heads) are per context token. ``share_spread`` is appendix B's figure: the 1–99 percentile spread of a
    position's share, mean over positions. ``spectrum`` are the first shares of the bias's energy, heads averaged.
    ``promoted`` and ``suppressed`` are (token, logit) of the mean bias through W_O and the unembedding.
    """

    layer: int
    visible_share: float
    share_spread: float
    position_mass: tuple[float, ...]
    position_share: tuple[float, ...]
    spectrum: tuple[float, ...]
    promoted: tuple[tuple[str, float], ...] = ()
    suppressed: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Inspection:
    """Record everything that :func:`inspect` found.

    ``prefix`` is the number of context tokens, which is the rank that theory allows; ``context_tokens`` are they, as
    words where they are tokens of the vocabulary. ``patterns`` is the attention of every head on the first text.

    ``ablations`` are there where the score was measured without parts of the context, and ``shared`` says how far one
    change of weights does what the context does, layer by layer, where it is a context alone.
    """

    model: str
    context: str
    prefix: int
    texts: int
    queries: int
    dtype: str
    heads: tuple[HeadFacts, ...]
    layers: tuple[LayerFacts, ...]
    dead_positions: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    heatmap: Heatmap | None = None
    context_tokens: tuple[str, ...] = ()
    patterns: Patterns | None = None
    ablations: tuple[Ablation, ...] = ()
    shared: tuple[Shared, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return it in a line: what was looked at, and how much of the attention the context took."""
        masses = [one.prefix_mass for one in self.heads if one.prefix_mass == one.prefix_mass]
        taken = f", mean prefix mass {sum(masses) / len(masses):.3f}" if masses else ""
        seen = f"{self.texts:,} texts, {self.queries:,} queries, {self.prefix} context tokens"
        return in_one_line(f"<Inspection of {self.context} in {self.model}: {seen}{taken}>")

    def _repr_html_(self) -> str:
        """Return the prefix mass of every head as a map, for a notebook."""
        grid: list[list[float]] = [[] for _ in self.layers]
        for one in self.heads:
            grid[one.layer].append(one.prefix_mass)
        return heat(repr(self).strip("<>"), grid)

    @property
    def dead_share(self) -> float:
        """Return the share of a head's prefix mass below which, in every head, a context token is called dead."""
        return _dead_share(self.prefix)

    def frame(self) -> pd.DataFrame:
        """Return a tidy data frame, one row per layer and head."""
        import pandas as pd

        return pd.DataFrame([asdict(head) for head in self.heads])

    def largest_residual(self, layers: slice = slice(None)) -> float:
        """Return the largest deviation from either identity over the chosen layers and all heads."""
        chosen = set(range(len(self.layers))[layers])
        return max(max(h.attention_residual, h.output_residual) for h in self.heads if h.layer in chosen)


@undisturbed()
def inspect(
    model: Any,
    context: Any,
    texts: Sequence[str | Sequence[int] | Item],
    *,
    batch_size: int = 8,
    max_tokens: int = 256,
    heatmap: tuple[int, int] | None = None,
    top: int = 8,
    drift: bool = True,
    shares: bool = True,
    reference: Any = None,
) -> Inspection:
    """Run ``texts`` through ``model`` with ``context`` and say what the context does in every layer and head.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        context: a context, an adaptation or a PrefixKV, or several; :func:`elicitable.inspect` takes folders too.
        texts: texts, token ids, or task items (their prompt and target; conversations as a race lays them out).
        batch_size: texts at once; shorter ones are padded on the left.
        max_tokens: longer texts are cut at their end.
        heatmap: a (layer, head) whose attention on the first text is kept in full, with and without the context.
        top: promoted and suppressed tokens kept per layer.
        drift: also run the model without the context (twice the time).
        shares: also measure how far one change of weights would do the same (:mod:`.shareability`; four more passes).
        reference: as :func:`elicitable.watch` takes it.

    Raises:
        InputError: there is no text, or no such layer or head; or a count is below 1.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> found = inspect(model, el.context("prompt", model, token_ids=[7, 0]), [[3, 1, 2], [5, 6]])
        >>> found.prefix, found.texts, found.queries
        (2, 2, 5)
    """
    for name, count in (("batch_size", batch_size), ("max_tokens", max_tokens)):
        if count < 1:
            raise InputError(f"{name} must be at least 1, got {count!r}.")
    model = as_model(model)
    parts = list(context) if isinstance(context, list | tuple) else [context]
    rows = [_token_row(model, text, parts)[:max_tokens] for text in texts]
    if not rows or min(map(len, rows)) == 0:
        raise InputError("inspect needs at least one text, and every text at least one token.")
    with torch.no_grad():
        _check_head(model, heatmap)
        with watch(model, parts, drift=drift, reference=reference) as scope:
            for batch in _batches(model, sorted(rows, key=len), batch_size):
                model.hf(**batch, use_cache=False, logits_to_keep=1)
        facts = _layer_facts(model, scope, top)
        names = context_names(model, parts, scope.prefix_length)
        picture = None if heatmap is None else heatmap_of(model, parts, rows[0], names, *heatmap)
        patterns = patterns_of(model, parts, rows[0], names) if scope.prefix_length else None
        shared = _shared(model, parts, rows, batch_size, scope) if shares and reference is None else ()
    return Inspection(
        model=model.name,
        context=", ".join(type(p).__name__ if not hasattr(p, "setting") else repr(p) for p in parts),
        prefix=scope.prefix_length,
        texts=len(rows),
        queries=scope.queries,
        dtype=str(model.dtype).removeprefix("torch."),
        heads=_head_facts(scope),
        layers=facts,
        dead_positions=_dead(facts),
        warnings=(*_warnings(model, parts, scope, drift), *scope.notes),
        heatmap=picture,
        context_tokens=names,
        patterns=patterns,
        shared=shared,
        provenance={
            "batch_size": batch_size,
            "max_tokens": max_tokens,
            "reference": reference is not None,
            **made_on(model.device),
        },
    )


def _token_row(model: Model, text: str | Sequence[int] | Item, parts: Sequence[Any]) -> list[int]:
    if isinstance(text, Item):
        if text.prompt and isinstance(text.prompt[0], Message):
            return _row_of_turns(model, text, parts)
        if isinstance(text.prompt, str) and isinstance(text.target, str):
            text = text.prompt + text.target
        else:
            text = [*text.prompt, *text.target]  # type: ignore[list-item]
    row: list[int] = model.ids(text)[0].tolist()
    return row


def _row_of_turns(model: Model, item: Item, parts: Sequence[Any]) -> list[int]:
    """Lay a conversation out behind a context: in that one's own layout, or as a race reads it where none says."""
    own = [part.layout for part in parts if getattr(part, "layout", None) is not None]
    held = [token for part in parts if hasattr(part, "held") for token in part.held()]
    [row] = rows_of(model, [item], own[0] if own else layout_unsaid(model, turns=True), held=held)
    return [*row.content, *row.answer]


def _batches(model: Model, rows: list[list[int]], size: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch], device=model.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch], device=model.device)
        yield {"input_ids": ids, "attention_mask": mask}


def _shared(model: Model, parts: list[Any], rows: list[list[int]], size: int, scope: Scope) -> tuple[Shared, ...]:
    """How far one change of weights does what the context does; nothing where it is not a context alone."""
    if changes_weights(model, parts):
        return ()
    prefix = prefix_of(model, parts)
    if prefix is None or prefix_length(prefix) == 0 or row_count(prefix) != 1:
        return ()
    rows = [list(row) for row in dict.fromkeys(map(tuple, rows))]  # none is fitted to and measured on
    batches = [(batch["input_ids"], batch["attention_mask"]) for batch in _batches(model, rows, size)]
    try:
        return shareability(model, prefix, batches)
    except UnsupportedModelError as error:
        scope.note(f"Shareability was not measured: {error}")
        return ()


def _check_head(model: Model, heatmap: tuple[int, int] | None) -> None:
    if heatmap is None:
        return
    layer, head = heatmap
    layers = model.anatomy.layers
    if not (0 <= layer < len(layers) and 0 <= head < layers[layer].heads):
        raise InputError(f"heatmap: {model.name} has layers 0 to {len(layers) - 1}, and no head {head} in {layer}.")


def _head_facts(scope: Scope) -> tuple[HeadFacts, ...]:
    rows: list[dict[str, Any]] = scope.frame().to_dict("records")
    names = [name for name in HeadFacts.__dataclass_fields__ if name not in ("layer", "head")]
    return tuple(HeadFacts(int(row["layer"]), int(row["head"]), *(float(row[name]) for name in names)) for row in rows)


def _layer_facts(model: Model, scope: Scope, top: int) -> tuple[LayerFacts, ...]:
    mass, spreads, visible = scope.position_mass, scope.layer_spread, scope.visible_share
    share = mass / mass.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
    facts = []
    projections = output_projections(model) if scope.prefix_length and top else ()
    for layer, bias in enumerate(scope.mean_bias):
        if bias is None:
            continue
        energies = scope.bias_subspace(layer).energies
        shares = energies / energies.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(energies.dtype).tiny)
        projection = projections[layer] if projections else None
        promoted, suppressed = says(model, layer, bias, top, projection) if projection else ((), ())
        has_prefix = mass.shape[1] > 0
        facts.append(
            LayerFacts(
                layer=layer,
                visible_share=float(visible[layer]),
                share_spread=float(spreads[layer]),
                position_mass=tuple(mass[layer].nanmean(dim=0).tolist()) if has_prefix else (),
                position_share=tuple(share[layer].nan_to_num(0).amax(dim=0).tolist()) if has_prefix else (),
                spectrum=tuple(shares.mean(dim=0)[: max(scope.prefix_length, 1)].tolist()),
                promoted=promoted,
                suppressed=suppressed,
            )
        )
    return tuple(facts)


def _dead(layers: Sequence[LayerFacts]) -> tuple[int, ...]:
    used = [layer.position_share for layer in layers if layer.position_share]
    if not used:
        return ()
    most = [max(shares) for shares in zip(*used, strict=True)]
    return tuple(place for place, share in enumerate(most) if share < _dead_share(len(most)))


def _dead_share(length: int) -> float:
    """Return the share below which one of ``length`` positions is called dead.

    >>> _dead_share(5), _dead_share(1000)
    (0.01, 0.0001)
    """
    return min(DEAD_SHARE, EVEN_SHARE / max(length, 1))


def _warnings(model: Model, parts: list[Any], scope: Scope, drift: bool) -> Iterator[str]:
    windows = [layer.sliding_window for layer in model.anatomy.layers]
    cut = [i for i, share in enumerate(scope.visible_share.tolist()) if share < 1 and windows[i] is not None]
    if cut:
        worst = float(scope.visible_share[cut].min())
        yield (
            f"Sliding windows cut the context off in layers {_ranges(cut)}: down to {worst:.0%} of "
            "(query, context token) pairs are visible."
        )
    if drift:
        yield from _sink_warning(scope)
    with torch.no_grad():
        prefix = prefix_of(model, [part for part in parts if part is not None])
    if prefix is not None and (prefix.positions is None or prefix.shift) and model.anatomy.has_relative_positions:
        yield (
            "The context's keys are stored without positions (as PEFT stores them): on a rotary model its prefix "
            "mass depends on where in the sequence a query stands."
        )
    if (coarseness := rounding(model)) > torch.finfo(torch.float32).eps:
        yield (
            f"The model is in {model.dtype}, with products rounded to {coarseness:.0e}: residuals of 1e-3 are "
            "rounding. Decide in float32 or float64."
        )
    elif (scope.attention_residual.nan_to_num(0) > 1e-3).any():
        changed = (scope.attention_residual.nan_to_num(0) > 1e-3).any(dim=1).nonzero()[:, 0].tolist()
        yield (
            f"Relative attention over the content is not the reference's in layers {_ranges(changed)}, given the "
            "same layer input: more than a context was changed."
        )


def _sink_warning(scope: Scope) -> Iterator[str]:
    without, with_ = scope.sink_without.nan_to_num(0), scope.sink_with.nan_to_num(0)
    heads = without > SINK
    if not heads.any():
        return
    before, after = float(without[heads].mean()), float(with_[heads].mean())
    yield (
        f"{int(heads.sum())} of {int(scope.sink_without.isfinite().sum())} heads have a sink on the content's first "
        f"token: mean weight {before:.2f} without the context, {after:.2f} with it."
        + (" The context takes the sink's place." if after < before / 2 else "")
    )


def _ranges(layers: Sequence[int]) -> str:
    """Write whole numbers as ranges.

    >>> _ranges([0, 1, 2, 5, 7, 8])
    '0–2, 5, 7–8'
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)
