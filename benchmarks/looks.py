"""How often a race that looks again and again mistakes an arm at the margin for one that is enough or worse.

Two arms whose true difference is the margin itself, so either answer is wrong. After every look that holds the margin
each gets one more seed, as in a race; ``--spread`` is how far seeds of one arm lie apart (standard deviation, share of
items). Prints the share of wrong answers with the level of every look (:mod:`elicitable.diagnosis.looks`), and with
95 % each time.
"""

from __future__ import annotations

import argparse
import os

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from elicitable.diagnosis.intervals import LEVEL, Outcomes, gap
from elicitable.diagnosis.looks import level_after
from elicitable.race.seeds import EXTRA

MARGIN = 0.02


def main() -> None:
    """Print the error rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=200)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--score", type=float, default=0.9, help="of the better arm")
    parser.add_argument("--spread", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=2, help="before the first look")
    given = parser.parse_args()
    say_where()
    wrong = {"spent": 0, "plain": 0}
    for race in range(given.races):
        rng = np.random.default_rng(race)
        arms = drawn(rng, given.items, given.score, given.spread, given.seeds + EXTRA)
        wrong["spent"] += is_mistaken(arms, race, given.seeds, spends=True)
        wrong["plain"] += is_mistaken(arms, race, given.seeds, spends=False)
    for name, count in wrong.items():
        print(f"{name}: {100 * count / given.races:.1f} % of {given.races} races")


def drawn(rng: np.random.Generator, items: int, score: float, spread: float, seeds: int) -> tuple[Outcomes, Outcomes]:
    """Draw both arms: items have a difficulty that both share, and seeds a level of their own."""
    hardness = rng.random(items)
    tables = []
    for mean in (score, score - MARGIN):
        levels = mean + spread * rng.standard_normal(seeds)
        own = np.where(rng.random((seeds, items)) < 0.5, hardness, rng.random((seeds, items)))
        tables.append(tuple(tuple(int(x) for x in row) for row in (own < levels[:, None])))
    return tables[0], tables[1]


def is_mistaken(arms: tuple[Outcomes, Outcomes], seed: int, seeds: int, spends: bool) -> bool:
    """Look after every seed from ``seeds`` on; True if a look takes the arm for enough or for worse."""
    for looks in range(EXTRA + 1):
        best, other = (arm[: seeds + looks] for arm in arms)
        _, low, high = gap(best, other, seed, level=level_after(looks) if spends else LEVEL)
        if high <= MARGIN or low > MARGIN:
            return True
    return False


if __name__ == "__main__":
    main()
