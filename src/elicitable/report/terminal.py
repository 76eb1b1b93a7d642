"""The terminal, as this package writes to it: what a text holds is shown, and never obeyed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from elicitable.untrusted import visible


def terminal(is_error: bool = False, **options: Any) -> Console:
    r"""Make a console for standard output or standard error that takes no text for markup and shows control characters.

    Example:
        >>> terminal(width=40).print("[bold] \x1b[31m \u202e")
        [bold] \u001b[31m \u202e
    """
    console = Console(stderr=is_error, markup=False, emoji=False, **options)
    console.push_render_hook(_Shown())
    return console


class _Shown(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(one) for one in renderables]


@dataclass(frozen=True)
class _Visible:
    """Render ``inner``; whatever its texts still hold of control characters is written out."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _without_control(console.render(self.inner, options))


def _without_control(segments: Iterable[Segment]) -> Iterable[Segment]:
    for segment in segments:
        if segment.control:  # the console's own, such as where a live line goes
            yield segment
        else:
            yield Segment(visible(segment.text), segment.style)
