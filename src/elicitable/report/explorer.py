"""Set the arms side by side item by item: who was right where, and which items one arm won that another lost.

The picture and the table stand without a script. The page's one script lists the items behind a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elicitable.report import standing
from elicitable.report.script import script_data
from elicitable.values import ArmResult, Verdict

LONGEST_TEXT = 600  # characters of a prompt, target or answer that the page holds


@dataclass(frozen=True, slots=True)
class Strip:
    """Hold one arm's row of the picture: an SVG path over the items that it got right, easiest item first."""

    method: str
    group: str
    path: str
    right: int


@dataclass(frozen=True, slots=True)
class Explorer:
    """Hold what the section shows.

    ``won[a][b]`` counts the items that arm a got right and arm b did not. ``data`` is the same as JSON that may stand
    inside a script element, with the items' texts where the record has them.
    """

    strips: tuple[Strip, ...]
    won: tuple[tuple[int, ...], ...]
    items: int
    data: str


def explorer(verdict: Verdict) -> Explorer | None:
    """Return the arms item by item; None where fewer than two arms answered the same items.

    An arm is right on an item if at least half of its seeds are.
    """
    arms = [arm for _, members in standing.grouped(verdict) for arm in members if arm.status == "ok" and arm.correct]
    if len(arms) < 2 or len({len(arm.correct[0]) for arm in arms}) != 1:
        return None
    right = [is_right(arm) for arm in arms]
    count = len(right[0])
    order = sorted(range(count), key=lambda item: -sum(own[item] for own in right))
    strips = tuple(
        Strip(arm.method, arm.rung.group, path([own[item] for item in order]), sum(own))
        for arm, own in zip(arms, right, strict=True)
    )
    won = tuple(tuple(sum(a and not b for a, b in zip(one, other, strict=True)) for other in right) for one in right)
    return Explorer(strips, won, count, _data(verdict, arms, right))


def is_right(arm: ArmResult) -> list[bool]:
    """Say for each item whether at least half of the arm's seeds are right.

    >>> from elicitable.methods.rungs import PROMPT
    >>> from elicitable.values import Budget
    >>> is_right(ArmResult("prompt", PROMPT, {}, Budget(0, 0, 0), "ok", correct=((1, 0, 1), (0, 0, 1))))
    [True, False, True]
    """
    return [2 * sum(seeds) >= len(seeds) for seeds in zip(*arm.correct, strict=True)]


def path(right: Sequence[bool]) -> str:
    """Draw one rectangle per run of right answers, one unit wide per item.

    >>> path([True, True, False, True])
    'M0 0h2v1h-2zM3 0h1v1h-1z'
    """
    drawn, start = [], None
    for at, hit in enumerate([*right, False]):
        if hit and start is None:
            start = at
        elif not hit and start is not None:
            drawn.append(f"M{start} 0h{at - start}v1h{start - at}z")
            start = None
    return "".join(drawn)


def _data(verdict: Verdict, arms: Sequence[ArmResult], right: Sequence[Sequence[bool]]) -> str:
    record: dict[str, Any] = {
        "arms": [arm.method for arm in arms],
        "right": ["".join("1" if hit else "0" for hit in own) for own in right],
        "items": [[_cut(prompt), _cut(target)] for prompt, target in verdict.items],
        "answers": [[_cut(text) for text in arm.answers[0]] if arm.answers else [] for arm in arms],
    }
    return script_data(record)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
