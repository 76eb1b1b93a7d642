"""Draw the attention of every head as a thumbnail, layers from left to right and heads from top to bottom.

A thumbnail opens as a popover, which needs no script. Each picture is held once and shown twice.
"""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from elicitable.report.notation import visible

if TYPE_CHECKING:
    from elicitable.microscope.inspect import Inspection
    from elicitable.microscope.patterns import Patterns

LEVELS = 35  # a weight of 1, in the letters of a pattern
COLOUR = (47, 143, 208)  # stands out on light and on dark
UNIT, LABEL = 14, 70  # of a cell and of the room for names, in the opened picture's own units


def patterns_part(found: Inspection) -> str:
    """Return the thumbnails and what they open, as HTML; nothing where no patterns were kept."""
    kept = found.patterns
    if kept is None or not kept.heads:
        return ""
    masses = {(head.layer, head.head): head.prefix_mass for head in found.heads}
    keys, queries = len(kept.prefix_tokens) + len(kept.tokens), len(kept.tokens)
    symbols = "".join(
        f'<symbol id="pattern-{layer}-{head}" viewBox="0 0 {keys} {queries}" preserveAspectRatio="none">'
        f'<image width="{keys}" height="{queries}" href="{_png(rows)}" style="image-rendering:pixelated"/></symbol>'
        for layer, head, rows in kept.heads
    )
    shown = "".join(_thumbnail(layer, head, masses.get((layer, head)), keys, queries) for layer, head, _ in kept.heads)
    layers = 1 + max(layer for layer, _, _ in kept.heads)
    return (
        "<h3>Every head on the first text</h3>"
        '<p class="note">Layers from left to right, heads from top to bottom. In each picture queries go down and keys '
        "across, the context first, up to the line. Choose one to see it large; Esc closes it.</p>"
        f'<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>{symbols}{_axes(kept)}</defs>'
        f'</svg><div class="table-scroll"><div class="heads" style="grid-template-columns:repeat({layers},'
        f'minmax(30px,64px))">{shown}</div></div>'
    )


def _thumbnail(layer: int, head: int, mass: float | None, keys: int, queries: int) -> str:
    name = f"layer {layer}, head {head}" + ("" if mass is None else f": {mass:.2f} of its attention on the context")
    width, height = LABEL + UNIT * keys, LABEL + UNIT * queries
    place, use = f"grid-column:{layer + 1};grid-row:{head + 1}", f'<use href="#pattern-{layer}-{head}"'
    return (
        f'<button type="button" popovertarget="open-{layer}-{head}" style="{place}" aria-label="{name}" title="{name}">'
        f'<svg viewBox="0 0 {keys} {queries}" preserveAspectRatio="none">{use} width="{keys}" height="{queries}"/>'
        f'</svg></button><div popover id="open-{layer}-{head}" class="opened"><p><b>{name}</b></p>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Attention of {name}"><use href="#pattern-axes"/>'
        f'{use} x="{LABEL}" y="{LABEL}" width="{UNIT * keys}" height="{UNIT * queries}"/></svg></div>'
    )


def _axes(kept: Patterns) -> str:
    """Return the names of queries and keys, and the line between context and content, for all opened pictures."""
    keys = (*kept.prefix_tokens, *kept.tokens)
    across = "".join(
        f'<text transform="translate({LABEL + UNIT * nth + 10} {LABEL - 4}) rotate(-90)">{_word(name)}</text>'
        for nth, name in enumerate(keys)
    )
    down = "".join(
        f'<text x="{LABEL - 4}" y="{LABEL + UNIT * nth + 11}" text-anchor="end">{_word(name)}</text>'
        for nth, name in enumerate(kept.tokens)
    )
    at, end = LABEL + UNIT * len(kept.prefix_tokens), LABEL + UNIT * len(kept.tokens)
    width, height = UNIT * len(keys), UNIT * len(kept.tokens)
    return (
        f'<g id="pattern-axes"><rect class="ground" x="{LABEL}" y="{LABEL}" width="{width}" height="{height}"/>'
        f'{across}{down}<line class="border" x1="{at}" x2="{at}" y1="{LABEL}" y2="{end}"/></g>'
    )


def _word(name: str) -> str:
    shown = visible(name)
    return html.escape(shown if len(shown) <= 9 else shown[:8] + "…")


def _png(rows: tuple[str, ...]) -> str:
    """Return a pattern as a PNG of one colour whose opacity is the weight, as a data address."""
    import numpy as np
    from matplotlib.image import imsave

    opacity = np.array([[int(letter, 36) for letter in row] for row in rows]) * 255 // LEVELS
    pixels = np.empty((*opacity.shape, 4), dtype=np.uint8)
    pixels[..., :3], pixels[..., 3] = COLOUR, opacity
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png", metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
