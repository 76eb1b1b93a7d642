"""Show what an arm tried, candidate by candidate, so that one can be told from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elicitable.report import notation
from elicitable.report.pictures.axes import is_number
from elicitable.values import ArmResult

LONGEST_SETTING = 240
NO_SETTINGS = "no settings"
SHOWN = "shown"  # of a setting: worked examples in short, which a table names by number


@dataclass(frozen=True, slots=True)
class TriedTable:
    """Hold an arm's trials as a table. ``examples`` are the worked examples that its cells name by number, from 1."""

    method: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    examples: tuple[str, ...]


def tried_table(arm: ArmResult) -> TriedTable:
    """Return what ``arm`` tried: the columns in the order in which they first appear, and a row for each trial.

    Candidates of worked examples often differ in nothing but which these are, or in their order; so every example has
    a number, and a row lists the numbers in order.
    """
    columns = tuple(dict.fromkeys(key for entry in arm.sweep for key in entry))
    shown = [text for entry in arm.sweep for text in _examples_of(entry.get("setting"))]
    numbers = {text: nth for nth, text in enumerate(dict.fromkeys(shown), start=1)}
    rows = tuple(tuple(_cell(key, entry.get(key), numbers) for key in columns) for entry in arm.sweep)
    return TriedTable(arm.method, columns, rows, tuple(numbers))


def setting_text(setting: Mapping[str, Any]) -> str:
    """Return a setting in one line, with its line ends as signs, cut where it is very long.

    >>> setting_text({"rank": 1, "modules": ["q", "v"], "text": "Sort."})
    "rank 1, modules ['q', 'v'], text Sort."
    """
    texts = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in setting.items()}
    text = ", ".join(f"{name} {value}".replace("\n", "⏎") for name, value in texts.items())
    return text if len(text) <= LONGEST_SETTING else text[: LONGEST_SETTING - 1] + "…"


def _examples_of(setting: Any) -> list[str]:
    found = setting.get(SHOWN) if isinstance(setting, Mapping) else None
    return [str(text) for text in found] if isinstance(found, list | tuple) else []


def _cell(key: str, value: Any, numbers: Mapping[str, int]) -> str:
    if value is None:
        return notation.NONE
    if key == "learning_rate" and is_number(value):
        return notation.rate(value)
    if isinstance(value, Mapping):
        examples = ", ".join(str(numbers[text]) for text in _examples_of(value))
        return setting_text({**value, SHOWN: examples} if examples else value) or NO_SETTINGS
    if isinstance(value, float):
        return f"{value:.3f}" if key == "validation" else f"{value:.4g}"
    return setting_text({"": value}).strip()
