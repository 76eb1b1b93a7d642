"""Say in three sentences what an inspection found: how much a context takes, what it does, and which part does it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elicitable.report.notation import visible

if TYPE_CHECKING:
    from elicitable.microscope.inspect import Inspection

GOVERNED = 0.5  # share of its attention from which on a head is governed by the context
STILL = 0.05  # total variation up to which attention over the text counts as left as it was
WORDS_SHOWN = 4


def conclusion(found: Inspection) -> tuple[str, ...]:
    """Return three sentences, from the record alone; two where nothing stands before the text."""
    return (_takes(found), _does(found), _by_what(found)) if found.prefix else (_takes(found), _does(found))


def _takes(found: Inspection) -> str:
    if not found.prefix:
        return "Nothing stands before the text, so no attention goes to a context."
    masses = [head.prefix_mass for head in found.heads]
    layers = _by_layer(found, "prefix_mass")
    most, least = max(layers, key=layers.__getitem__), min(layers, key=layers.__getitem__)
    governed = sum(mass > GOVERNED for mass in masses)
    where = f", most in layer {most} ({layers[most]:.0%}) and least in layer {least} ({layers[least]:.0%})"
    where = ", in every layer alike" if f"{layers[most]:.0%}" == f"{layers[least]:.0%}" else where
    several = f"; {governed} of {len(masses)} heads give it more than half" if len(masses) > 1 else ""
    return f"The context takes {_mean(masses):.0%} of all attention{where if len(layers) > 1 else ''}{several}."


def _does(found: Inspection) -> str:
    drifts = _by_layer(found, "drift")
    if not drifts:
        return "How far attention over the text itself moves was not measured."
    mean, most = _mean(list(drifts.values())), max(drifts, key=drifts.__getitem__)
    if mean <= STILL:
        adds = ": the context adds to what heads put out and does not redirect them" if found.prefix else ""
        return (
            f"Attention over the text itself stays as it was (it moves by {mean:.2f} of 1){adds}{_directions(found)}."
        )
    queries, keys = (_mean(list(_by_layer(found, name).values())) for name in ("drift_by_queries", "drift_by_keys"))
    cause = "its queries have changed" if queries >= keys else "its keys have changed"
    return (
        f"Attention over the text itself moves by {mean:.2f} of 1, most in layer {most} ({drifts[most]:.2f}), more "
        f"because {cause}{_directions(found)}."
    )


def _directions(found: Inspection) -> str:
    ranks = [head.effective_rank for head in found.heads if math.isfinite(head.effective_rank)]
    if not ranks or not found.prefix:
        return ""
    return f"; what it adds lies in about {_mean(ranks):.1f} of the {found.prefix} directions that theory allows"


def _by_what(found: Inspection) -> str:
    if found.ablations:
        dearest = max(found.ablations, key=lambda part: part.lost)
        free = sum(part.lost <= 0 for part in found.ablations)
        if free == len(found.ablations):
            return f"Left out one at a time, none of {free} parts costs anything: the score hangs on none alone."
        return (
            f"Left out one at a time, {dearest.what} costs the most ({100 * dearest.lost:.1f} points), and {free} of "
            f"{len(found.ablations)} parts cost nothing."
        )
    totals = [sum(column) for column in zip(*(layer.position_mass for layer in found.layers), strict=False)]
    if not totals or not sum(totals):
        return "No part of a context was left out to see what it is good for."
    order = sorted(range(len(totals)), key=lambda place: -totals[place])[:WORDS_SHOWN]
    if len(totals) == 1:
        return f"It is one token, {_name(found, 0)}."
    named = ", ".join(f"{_name(found, place)} ({totals[place] / sum(totals):.0%})" for place in order)
    dead = len(found.dead_positions)
    unused = f"no head uses {dead} of them" if dead else "each of them is used by some head"
    return f"Of its {len(totals)} tokens, {named} take the most of that; {unused}."


def _name(found: Inspection, place: int) -> str:
    name = found.context_tokens[place] if place < len(found.context_tokens) else f"[{place}]"
    return name if name == f"[{place}]" else f"“{visible(name.strip() or name)}”"


def _by_layer(found: Inspection, field: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for head in found.heads:
        value = float(getattr(head, field))
        if math.isfinite(value):
            values.setdefault(head.layer, []).append(value)
    return {layer: _mean(own) for layer, own in values.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
