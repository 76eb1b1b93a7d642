"""Read what a watch has seen: statistics that add up over batches, and raw operands only where they were asked for.

Shapes as in the glossary of :mod:`elicitable.values`; layers with fewer heads than the widest are filled with NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elicitable.attention.crossing import OVER_LATER, OVER_QUERIES, Drift
from elicitable.attention.float64 import doubled
from elicitable.attention.operands import Operands, valid_queries
from elicitable.attention.positions import share_histogram, spread
from elicitable.attention.residuals import Residuals
from elicitable.attention.split import Parts, attend_content
from elicitable.attention.subspace import Subspace, packed, second_moment, subspace, unpacked
from elicitable.errors import InputError
from elicitable.glance import heat
from elicitable.microscope.tally import Tally

if TYPE_CHECKING:
    import pandas as pd

#: What each statistic of drift is a mean over: the tally's field that counts its queries.
_DRIFT_COUNTS = {**dict.fromkeys(OVER_QUERIES, "drift_queries"), **dict.fromkeys(OVER_LATER, "later_queries")}


def _directions(vectors: Tensor) -> Tensor:
    """Return unit vectors along the last axis, zero for zero; scaled first, as float32 cannot hold squares of 1e-23."""
    tiny = torch.finfo(vectors.dtype).tiny
    scaled = vectors / vectors.abs().amax(dim=-1, keepdim=True).clamp(min=tiny)
    unit: Tensor = scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).clamp(min=tiny)
    return unit


class Scope:
    """Give the statistics of everything that a model ran inside :func:`elicitable.watch`.

    Means are over all queries that are not padding, of all batches. Every (layer, head) result is a float64 tensor.
    """

    def __init__(self, layers: int, keep: Sequence[int] = (), spectra: bool = True) -> None:
        self.depth = layers
        self.raw: dict[int, list[tuple[Operands, Operands | None]]] = {layer: [] for layer in keep}
        self.notes: list[str] = []
        self._spectra = spectra
        self._tallies: dict[int, Tally] = {}
        self._masses: dict[int, list[list[Tensor]]] = {}

    def __repr__(self) -> str:
        """Return the scope in a line: what was seen, and how much of the attention the context took."""
        seen = f"{self.depth} layers, {self.queries:,} queries, {self.prefix_length} context tokens"
        mass = f", mean prefix mass {float(self.mean_mass.nanmean()):.3f}" if self._tallies else ""
        return f"<Scope {seen}{mass}>"

    def _repr_html_(self) -> str:
        """Return the prefix mass of every head as a map, for a notebook."""
        return heat(repr(self).strip("<>"), self.mean_mass.tolist() if self._tallies else [])

    # --- what the watch feeds in -------------------------------------------------------------------------------

    def add_split(self, layer: int, operands: Operands, parts: Parts, kept: Tensor | None = None) -> None:
        """Take in one call's split; ``kept`` is what of the context would be visible without a sliding window."""
        tally = self._tally(layer, operands)
        valid = valid_queries(operands)
        every = bool(valid.all())
        self._keep_mass(layer, operands, parts.mass if every else parts.mass.masked_fill(~valid[:, None], torch.nan))
        bias, rest = _parts_with_value_bias(operands, parts)
        if not every:
            bias, rest = (torch.where(valid[:, None, :, None], x, 0.0) for x in (bias, rest))
        mass = parts.mass if every else torch.where(valid[:, None], parts.mass, 0.0)
        bias_norm, rest_norm = torch.linalg.vector_norm(bias, dim=-1), torch.linalg.vector_norm(rest, dim=-1)
        cosine = torch.linalg.vecdot(_directions(bias), _directions(rest))
        for name, value in (("mass", mass), ("bias_norm", bias_norm), ("content_norm", rest_norm), ("cosine", cosine)):
            tally.add(name, value.sum(dim=(0, 2)))
        tally.add("bias", bias.sum(dim=(0, 2)))
        if self._spectra:
            tally.add("moment", packed(second_moment(bias, valid)))
        count = int(valid.sum())
        if operands.prefix_length:
            share = parts.share if every else torch.where(valid[:, None, :, None], parts.share, 0.0)
            used = torch.einsum("bhq,bhqn->hn", mass, share)
            histogram = share_histogram(share, valid)
            tally.add_positions(used, histogram)
            tally.visible += count * _visible_share(operands, kept, valid)
        tally.queries += count

    def add_residuals(self, layer: int, found: Residuals) -> None:
        """Take in how far one call is from both identities."""
        self._tallies[layer].raise_to("attention", found.attention)
        self._tallies[layer].raise_to("output", found.output)

    def add_drift(self, layer: int, found: Drift) -> None:
        """Take in how far one call's content attention is from the run without the context."""
        tally = self._tallies[layer]
        for name in _DRIFT_COUNTS:
            tally.add(name, getattr(found, name))
        tally.raise_to("crossing", found.residual)
        tally.drift_queries += found.queries
        tally.later_queries += found.later

    def keep(self, layer: int, operands: Operands, without: Operands | None) -> None:
        """Keep raw operands of a layer that was asked for."""
        if layer in self.raw:
            self.raw[layer].append((operands, without))

    def note(self, text: str) -> None:
        """Remember, once, what a reader of the numbers must know."""
        if text not in self.notes:
            self.notes.append(text)

    def _tally(self, layer: int, operands: Operands) -> Tally:
        if layer not in self._tallies:
            self._tallies[layer] = Tally(operands.query.shape[1], operands.value.shape[3])
        return self._tallies[layer]

    def _keep_mass(self, layer: int, operands: Operands, mass: Tensor) -> None:
        """Append along the batch; a call that continues a cache appends along the queries of the last batch."""
        batches = self._masses.setdefault(layer, [])
        mass = mass.transpose(0, 1).cpu()
        continues = operands.key.shape[2] > operands.query.shape[2]
        if continues and batches and batches[-1][0].shape[1] == mass.shape[1]:
            batches[-1].append(mass)
        else:
            batches.append([mass])

    # --- what a reader takes out -------------------------------------------------------------------------------

    @property
    def prefix_mass(self) -> Tensor:
        """Return α, (layer, head, batch, query) in [0, 1]: attention on the context. NaN at padding and filled places.

        Under beam search a row is a beam's place, and holds what stood there at each step.
        """
        layers = [[torch.cat(pieces, dim=2) for pieces in self._masses.get(i, [])] for i in range(self.depth)]
        if not any(layers):
            raise InputError("nothing was watched: run the model inside the `with`.")
        heads = max(mass.shape[0] for masses in layers for mass in masses)
        queries = max(mass.shape[2] for masses in layers for mass in masses)
        rows = max(sum(mass.shape[1] for mass in masses) for masses in layers)
        first = next(masses[0] for masses in layers if masses)
        result = torch.full((self.depth, heads, rows, queries), torch.nan, dtype=first.dtype)
        for layer, masses in enumerate(layers):
            at = 0
            for mass in masses:
                result[layer, : mass.shape[0], at : at + mass.shape[1], : mass.shape[2]] = mass
                at += mass.shape[1]
        return result

    @property
    def queries(self) -> int:
        """Return the number of (batch, query) pairs seen by every layer, padding left out."""
        return max((tally.queries for tally in self._tallies.values()), default=0)

    @property
    def mean_mass(self) -> Tensor:
        """Return the mean α, (layer, head) in [0, 1]."""
        return self._mean("mass")

    @property
    def attention_residual(self) -> Tensor:
        """Return the largest |A^pt_ij − (1 − α_i) A_ij|, (layer, head): the first identity of section 4."""
        return self._most("attention", "residuals")

    @property
    def output_residual(self) -> Tensor:
        """Return the largest |t^pt_i − Σ_{j∈prefix} A^pt_ij v_j − (1 − α_i) t_i|, (layer, head): the second one."""
        return self._most("output", "residuals")

    @property
    def drift(self) -> Tensor:
        """Return the mean total variation of content attention with and without context, (layer, head) in [0, 1]."""
        return self._mean("variation", "drift")

    @property
    def drift_divergence(self) -> Tensor:
        """Return the mean Jensen–Shannon divergence of the same, (layer, head), nats in [0, log 2]."""
        return self._mean("divergence", "drift")

    @property
    def drift_by_queries(self) -> Tensor:
        """Return the mean ½ Σ_j |P_10 − P_00|, (layer, head): the drift that changed queries cause alone."""
        return self._mean("by_queries", "drift")

    @property
    def drift_by_keys(self) -> Tensor:
        """Return the mean ½ Σ_j |P_01 − P_00|, (layer, head): the drift that changed keys cause alone."""
        return self._mean("by_keys", "drift")

    @property
    def drift_interaction(self) -> Tensor:
        """Return the mean ½ Σ_j |P_11 − P_10 − P_01 + P_00|, (layer, head)."""
        return self._mean("interaction", "drift")

    @property
    def local_rescaling(self) -> Tensor:
        """Return the mean ½ Σ_j |A^pt_ij − P_11,ij|, (layer, head): what its own prefix takes from the content."""
        return self._mean("local", "drift")

    @property
    def crossing_residual(self) -> Tensor:
        """Return the largest |A^pt − (1 − α)(P_00 + queries + keys + interaction)|, (layer, head)."""
        return self._most("crossing", "drift")

    @property
    def sink_with(self) -> Tensor:
        """Return the mean attention of later queries on the content's first token, with the context, (layer, head)."""
        return self._mean("first_with", "drift")

    @property
    def sink_without(self) -> Tensor:
        """Return the mean attention of later queries on the content's first token, without context, (layer, head)."""
        return self._mean("first_without", "drift")

    @property
    def bias_norm(self) -> Tensor:
        """Return the mean ‖bias‖ of the head's output, (layer, head)."""
        return self._mean("bias_norm")

    @property
    def content_norm(self) -> Tensor:
        """Return the mean ‖(1 − α) t‖ of the head's output, (layer, head)."""
        return self._mean("content_norm")

    @property
    def bias_cosine(self) -> Tensor:
        """Return the mean cosine between the bias and the content part, (layer, head) in [−1, 1]."""
        return self._mean("cosine")

    @property
    def position_mass(self) -> Tensor:
        """Return the mean A^pt on each context position, (layer, head, prefix); sums over prefix to the mean mass."""
        per_layer = {i: t.position_mass / max(t.queries, 1) for i, t in self._tallies.items() if t.prefix_length}
        return self._stack_positions(per_layer)

    @property
    def position_spread(self) -> Tensor:
        """Return the 1–99 percentile spread of each position's share of the mass, (layer, head, prefix) in [0, 1]."""
        return self._stack_positions({i: spread(t.histogram) for i, t in self._tallies.items() if t.prefix_length})

    @property
    def layer_spread(self) -> Tensor:
        """Return the same with all heads of a layer pooled, mean over positions, (layer,): the figure of appendix B."""
        pooled = {
            i: spread(t.histogram.sum(dim=0, dtype=torch.int64)) for i, t in self._tallies.items() if t.prefix_length
        }
        means = [pooled[i].mean() if i in pooled else torch.tensor(torch.nan).double() for i in range(self.depth)]
        return torch.stack(means)

    @property
    def visible_share(self) -> Tensor:
        """Return the share of (query, context key) pairs that the sliding window leaves visible, (layer,) in [0, 1]."""
        shares = [
            tally.visible / max(tally.queries, 1)
            if (tally := self._tallies.get(i)) and tally.prefix_length
            else torch.nan
            for i in range(self.depth)
        ]
        return torch.tensor(shares, dtype=torch.float64)

    @property
    def mean_bias(self) -> tuple[Tensor | None, ...]:
        """Return the mean bias of each layer's heads, (head, d_value); None for a layer that saw nothing."""
        found = (self._tallies.get(i) for i in range(self.depth))
        return tuple(None if tally is None else tally.sums["bias"] / max(tally.queries, 1) for tally in found)

    def bias_subspace(self, layer: int) -> Subspace:
        """Return the spectrum of the biases of one layer's heads over all queries and inputs."""
        if not self._spectra:
            raise InputError("spectra were not measured: watch(..., spectra=True).")
        return subspace(unpacked(self._tallies[layer].sums["moment"]))

    @property
    def effective_rank(self) -> Tensor:
        """Return exp of the entropy of the bias spectrum, (layer, head); at most the context's length."""
        return self._spectral(lambda found: found.effective_rank)

    @property
    def first_share(self) -> Tensor:
        """Return the share of the bias's energy in its first direction, (layer, head) in [0, 1]."""
        return self._spectral(lambda found: found.first_share)

    @property
    def prefix_length(self) -> int:
        """Count the context keys of the longest context seen."""
        return max((tally.prefix_length for tally in self._tallies.values()), default=0)

    def frame(self) -> pd.DataFrame:
        """Return a tidy data frame, one row per layer and head; what was not measured is NaN."""
        import pandas as pd

        columns: dict[str, Any] = {
            "prefix_mass": self.mean_mass,
            **{name: self._or_nan(name) for name in _COLUMNS},
        }
        layers, heads = columns["prefix_mass"].shape
        index = pd.MultiIndex.from_product([range(layers), range(heads)], names=["layer", "head"])
        table = pd.DataFrame({name: value.flatten().numpy() for name, value in columns.items()}, index=index)
        table = table.reset_index()
        return table[table["prefix_mass"].notna()].reset_index(drop=True)

    def _or_nan(self, name: str) -> Tensor:
        try:
            value: Tensor = getattr(self, name)
        except InputError:
            return torch.full_like(self.mean_mass, torch.nan)
        return value

    def _spectral(self, pick: Any) -> Tensor:
        if not self._spectra:
            raise InputError("spectra were not measured: watch(..., spectra=True).")
        return self._stack({i: pick(self.bias_subspace(i)) for i in self._tallies})

    def _mean(self, name: str, option: str = "") -> Tensor:
        counted = _DRIFT_COUNTS.get(name, "queries")
        found = {i: (t.sums[name], getattr(t, counted)) for i, t in self._tallies.items() if name in t.sums}
        return self._stack({i: total / (count or torch.nan) for i, (total, count) in found.items()}, option)

    def _most(self, name: str, option: str) -> Tensor:
        return self._stack({i: t.largest[name] for i, t in self._tallies.items() if name in t.largest}, option)

    def _stack(self, per_layer: dict[int, Tensor], option: str = "") -> Tensor:
        if not self._tallies:
            raise InputError("nothing was watched: run the model inside the `with`.")
        if not per_layer:
            why = " ".join(self.notes)
            raise InputError(f"this was not measured: watch(model, context, {option}=True) does. {why}".rstrip())
        heads = max(value.shape[0] for value in per_layer.values())
        result = torch.full((self.depth, heads), torch.nan, dtype=torch.float64)
        for layer, value in per_layer.items():
            result[layer, : value.shape[0]] = value
        return result

    def _stack_positions(self, per_layer: dict[int, Tensor]) -> Tensor:
        heads = max((value.shape[0] for value in per_layer.values()), default=0)
        result = torch.full((self.depth, heads, self.prefix_length), torch.nan, dtype=torch.float64)
        for layer, value in per_layer.items():
            result[layer, : value.shape[0], self.prefix_length - value.shape[1] :] = value
        return result


_COLUMNS = (
    "attention_residual",
    "output_residual",
    "drift",
    "drift_divergence",
    "drift_by_queries",
    "drift_by_keys",
    "drift_interaction",
    "local_rescaling",
    "bias_norm",
    "content_norm",
    "bias_cosine",
    "effective_rank",
    "first_share",
    "sink_with",
    "sink_without",
)


def _parts_with_value_bias(operands: Operands, parts: Parts) -> tuple[Tensor, Tensor]:
    """Return the context's and the content's part; what a value bias adds belongs to the context."""
    bias, rest = parts.bias, parts.rest
    if operands.value_bias is None:
        return bias, rest
    heads = operands.query.shape[1]
    added = operands.value_bias.to(bias.dtype).repeat_interleave(heads // operands.value_bias.shape[0], dim=0)
    weight = parts.content_mass[..., None]
    if operands.sink is not None:  # a sink takes weight and gives no value
        ones = torch.ones_like(operands.value[..., :1])
        weight = weight * attend_content(replace(operands, value=ones))[0]
    moved = weight * added[None, :, None, :]
    return bias + moved, rest - moved


def _visible_share(operands: Operands, kept: Tensor | None, valid: Tensor) -> float:
    """Return the share of the pairs in ``kept`` (None: of all) that are visible; masked and pruned keys are no loss."""
    if operands.prefix_visible is None:
        return 1.0
    left = torch.ones_like(operands.prefix_visible) if kept is None else kept
    seen, there = (doubled(x).sum(dim=(1, 3)) for x in (operands.prefix_visible, left))
    share = torch.where(there > 0, seen / there.clamp(min=1), 1.0).expand(valid.shape)
    return float(share[valid.to(share.device)].mean()) if bool(valid.any()) else 0.0
