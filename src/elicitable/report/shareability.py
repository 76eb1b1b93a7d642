"""Say how far one change of weights would do what a context does: what compiling it can keep, layer by layer."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from elicitable.report.stacked import stacked_table

if TYPE_CHECKING:
    from elicitable.microscope.inspect import Inspection
    from elicitable.microscope.shareability import Shared


def shared_summary(found: Inspection) -> str:
    """Say in two sentences what was found; empty where nothing was measured."""
    shares = [one.shareability for one in found.shared if one.shareability is not None]
    if not shares:
        return ""
    tokens = [one.token_residual for one in found.shared if one.token_residual is not None]
    odds = max((off for one in found.shared for off in one.odds_residual), default=0.0)
    kept = [max(share, 0.0) for share in shares]
    none = sum(share <= 0 for share in shares)
    misses = f"; in {none} of {len(shares)} layers it gives back nothing (R² is not above 0)" if none else ""
    mean = f"{sum(kept) / len(kept):.0%}"
    range_of = mean if len(kept) == 1 else f"{min(kept):.0%} to {max(kept):.0%} (mean {mean})"
    others = (
        "every other token of the one text, to whose other tokens it was fitted"
        if any(one.by_token for one in found.shared)
        else "texts that it was not fitted to"
    )
    return (
        f"One change of the weights gives back {range_of} of what the context changes in a "
        f"layer, on {others}: what compiling can keep"
        f"{misses}. "
        f"Largest deviation from the two identities behind it: {max(tokens):.1e} for one token, {odds:.1e} for added "
        "odds."
    )


def shared_part(found: Inspection) -> str:
    """Make the report's table of shareability; nothing where it was not measured."""
    said = shared_summary(found)
    if not said:
        return ""
    rows = ((f"layer {one.layer}", _cells(one)) for one in found.shared)
    table = stacked_table(("", "R² of one change", "its rank (90 %)", "R² by head"), rows)
    return f"<h3>Could one change of weights do the same?</h3><p>{html.escape(said)}</p>{table}"


def _cells(one: Shared) -> tuple[str, str, str]:
    rank = "–" if one.rank is None else str(one.rank)
    return _number(one.shareability), rank, f"{min(one.heads):.2f} … {max(one.heads):.2f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
