"""What was counted: a line for each reader, kind of kept file and command; kept with a digest of its own content."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PATH = Path(__file__).parents[2] / "records" / "faults.jsonl"
Only = list[str] | None  # names; None for all
Known = Callable[[str, int], bool]  # whether that name was counted as often before
AGAIN = "Count again: python -m tests.faults --keep."


@dataclass(frozen=True)
class Counted:
    """What became of the inputs of a reader, the alterations of a kind of file, or the kills of a command.

    ``ends`` counts by how each ended, ``wrong`` says of each fault what it was, and ``peak_mebibytes`` is the most that
    one process held.
    """

    what: str  # "inputs", "alterations" or "kills"
    name: str
    ends: dict[str, int]
    wrong: list[str]
    seconds: float
    seed: int
    peak_mebibytes: float | None = None
    on: dict[str, str] = field(default_factory=dict)  # the date, and the kind of processor

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.ends.values())

    def __str__(self) -> str:
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(self.ends.items()))
        peak = f", peak {self.peak_mebibytes:,.0f} MiB" if self.peak_mebibytes else ""
        return f"{self.name}: {self.total:,} {self.what} in {self.seconds:,.0f} s{peak}: {ends}"


def read(path: Path = PATH) -> list[Counted]:
    """The lines of a file; none where there is no file. Raises ValueError where a line is not what was written."""
    from elicitable.records.digested import DIGEST, is_whole

    held = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    if not all(map(is_whole, held)):
        raise ValueError(f"{path} was altered, or is damaged. {AGAIN}")
    return [Counted(**{name: one for name, one in line.items() if name != DIGEST}) for line in held]


def keep(counted: Counted, path: Path = PATH) -> None:
    """Write a line in the place of that of the same name."""
    from elicitable.cache import replace_file
    from elicitable.records.digested import with_digest

    others = [one for one in read(path) if (one.what, one.name) != (counted.what, counted.name)]
    lines = [json.dumps(with_digest(asdict(one))) + "\n" for one in _in_order([*others, counted])]
    replace_file(path, "".join(lines).encode(), AGAIN)


def is_known(path: Path | None, what: str, name: str, count: int) -> bool:
    """Whether a file holds as many of that name, none of them wrong."""
    held = read(path) if path is not None else []
    return any((one.what, one.name) == (what, name) and one.total >= count and not one.wrong for one in held)


def as_markdown(held: Sequence[Counted], names: Mapping[str, Sequence[str]]) -> str:
    """When and on what it was counted, and a table for each of the three; it stands so in the documentation.

    ``names`` are those that there are of each, so that what was not counted is named.
    """
    days, kinds = (sorted({one.on[what] for one in held if what in one.on}) for what in ("date", "processor"))
    when = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else "no day"
    tables = [_table(what, [one for one in held if one.what == what], names[what]) for what in _TITLES]
    return "\n\n".join([f"Counted: {when}, on {', '.join(kinds)}.", *tables])


_TITLES = {"inputs": "reader", "alterations": "what is kept", "kills": "command"}


def _table(what: str, held: list[Counted], names: Sequence[str]) -> str:
    if not held:
        return f"No {what} were counted."
    ends = list(dict.fromkeys(end for one in held for end in sorted(one.ends)))
    has_peak = any(one.peak_mebibytes for one in held)
    head = [_TITLES[what], what, *ends, "wrong", *(["peak, MiB"] if has_peak else [])]
    rows = [head, ["---", *["--:"] * (len(head) - 1)]]
    for name, part in (*((one.name, [one]) for one in held), ("**all**", held)):
        counts = [sum(one.total for one in part), *(sum(one.ends.get(end, 0) for one in part) for end in ends)]
        peak = [f"{max(one.peak_mebibytes or 0 for one in part):,.0f}"] if has_peak else []
        rows.append([name, *(f"{count:,}" for count in counts), str(sum(len(one.wrong) for one in part)), *peak])
    left = sorted({*names} - {one.name for one in held})
    told = [f"\nNot counted: {', '.join(left)}."] if left else []
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), *told])


def _in_order(held: Iterable[Counted]) -> list[Counted]:
    whats = list(_TITLES)
    return sorted(held, key=lambda one: (whats.index(one.what), one.name))
