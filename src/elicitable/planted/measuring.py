"""Measure the planting of every case whose model comes with the package, and write ``planting.json``.

    python -m elicitable.planted.measuring                     # every case anew, into the package
    python -m elicitable.planted.measuring --part deep         # those of one part; the others stay as they are

One line a case, in the order of the cases. Nothing here knows of a race: items are those of the validation split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from elicitable.cache import replace_file
from elicitable.models.model import Model
from elicitable.planted import cases, deep_cases
from elicitable.planted.models import load_planted
from elicitable.records.digested import read_digested, with_digest

MEASURES: Final = {"one-layer": (cases.planned, cases.measured), "deep": (deep_cases.planned, deep_cases.measured)}
SHIPPED: Final = Path(str(files("elicitable.planted") / "planting.json"))
DIGITS: Final = 4
ADVICE: Final = "Free the place, or choose another --out."


def measured(part: str) -> dict[str, dict[str, Any]]:
    """Measure every planned case of a part, by name."""
    planned, measure = MEASURES[part]
    models: dict[str, Model] = {}
    found: dict[str, dict[str, Any]] = {}
    for case in planned():
        model = models[case.model] = models.get(case.model) or load_planted(case.model)
        shares = measure(case, model)  # type: ignore[arg-type]
        found[case.name] = {key: round(x, DIGITS) if isinstance(x, float) else x for key, x in shares.items()}
        print(f"{case.name}: {json.dumps(found[case.name])}", flush=True)
    return found


def as_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Write a line a case.

    >>> print(as_text({"copyist/copy": {"bare": 1.0, "took": True}}), end="")
    {
     "copyist/copy": {"bare": 1.0, "took": true}
    }
    """
    return "{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(one)}" for name, one in found.items()) + "\n}\n"


def main(typed: Sequence[str] | None = None) -> None:
    """Measure the plantings anew."""
    parser = argparse.ArgumentParser(prog="python -m elicitable.planted.measuring", description=main.__doc__)
    parser.add_argument("--part", choices=tuple(MEASURES), action="append", help="may be repeated; default all")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the file; default the one in the package")
    given = parser.parse_args(typed)
    known = read_digested(given.out, "Move it away to measure everything.") if given.out.is_file() else {}
    for part in given.part or MEASURES:
        known |= measured(part)
    names = [case.name for planned, _ in MEASURES.values() for case in planned()]  # type: ignore[operator]
    replace_file(
        given.out, as_text(with_digest({name: known[name] for name in names if name in known})).encode(), ADVICE
    )


if __name__ == "__main__":
    main()
