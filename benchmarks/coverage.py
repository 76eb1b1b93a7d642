"""How often an interval holds the truth: 95 % is what it says.

    python benchmarks/coverage.py [--samples 1000] [--cases macro-f1,mcc] [--items 60,120,250,500]

Test splits of known populations are drawn again and again, and it is counted how often the score of the whole
population lies in the interval, and how often below and above it; then the same for the difference of two arms on the
same items. "60 × 3" are 60 texts that occur three times each, in groups. One JSON object per line on standard output,
a table on standard error. A thousand samples leave a standard error of 0.7 points.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from elicitable.diagnosis.intervals import gap, interval
from elicitable.rng import generator
from elicitable.scores.chrf import ChrF
from elicitable.scores.classification import MCC, BalancedAccuracy, MacroF1
from elicitable.scores.exact_match import ExactMatch
from elicitable.scores.scorer import Scorer, Sums
from elicitable.scores.token_f1 import TokenF1

POPULATION = 200_000
LABELS = ("a", "b", "c", "d")
PRIOR = np.array([0.4, 0.3, 0.2, 0.1])
Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A score, and a population that (item, number) statistics of two arms are drawn from."""

    name: str
    scorer: Scorer
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def labelled(better: float, worse: float) -> Draw:
    """Statistics of labels: each arm answers right with its probability, else any other label by its share."""

    def draw(rng: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
        wanted, luck = rng.choice(4, items, p=PRIOR), rng.random(items)
        arms = []
        for right in (better, worse):
            others = np.where(np.arange(4) == wanted[:, None], 0.0, PRIOR)
            ladder = (others / others.sum(1, keepdims=True)).cumsum(1)
            wrong = (rng.random(items)[:, None] > ladder).sum(1).clip(max=3)
            given = np.where(luck < right, wanted, wrong)
            one_hot = np.eye(5)
            hits = one_hot[wanted] * (wanted == given)[:, None]
            arms.append(np.concatenate([hits, one_hot[given], one_hot[wanted]], axis=1))
        return arms[0], arms[1]

    return draw


def shares(better: float, worse: float) -> Draw:
    """Right or wrong; both arms find the same items easy."""

    def draw(rng: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
        luck = rng.random(items)
        return tuple(np.stack([luck < right, np.ones(items)], axis=1).astype(float) for right in (better, worse))

    return draw


def words(rng: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Token-F1: half the answers perfect, the others anything down to nothing."""
    perfect, rest = rng.random(items) < 0.5, rng.beta(0.5, 1.0, items)
    scores = np.where(perfect, 1.0, rest), np.where(perfect & (rng.random(items) < 0.9), 1.0, rest)
    return tuple(np.stack([score, np.ones(items)], axis=1) for score in scores)


def letters(rng: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
    """chrF: texts of 5 to some 60 letters; an n-gram is right where n letters in a row are."""
    length, perfect = rng.geometric(0.08, items) + 5, rng.random(items) < 0.3
    skill = np.where(perfect, 1.0, rng.beta(2.0, 1.0, items))
    written = np.maximum(length + rng.integers(-3, 4, items) * ~perfect, 1)
    arms = []
    for better in (1.0, 0.95):
        columns = []
        for n in range(1, 7):
            given, wanted = np.maximum(written - n + 1, 0), np.maximum(length - n + 1, 0)
            matched = rng.binomial(np.minimum(given, wanted), (better * skill) ** n)
            columns += [np.where(wanted > 0, given, 0), wanted, matched]
        arms.append(np.stack(columns, axis=1).astype(float))
    return arms[0], arms[1]


CASES = (
    Case("accuracy 0.70", ExactMatch(), shares(0.70, 0.65)),
    Case("accuracy 0.95", ExactMatch(), shares(0.95, 0.92)),
    Case("balanced-accuracy 0.85", BalancedAccuracy(LABELS), labelled(0.85, 0.80)),
    Case("macro-f1 0.60", MacroF1(LABELS), labelled(0.60, 0.55)),
    Case("macro-f1 0.85", MacroF1(LABELS), labelled(0.85, 0.80)),
    Case("mcc 0.60", MCC(LABELS), labelled(0.60, 0.55)),
    Case("mcc 0.85", MCC(LABELS), labelled(0.85, 0.80)),
    Case("chrf", ChrF(), letters),
    Case("token-f1", TokenF1(), words),
)


def coverage(case: Case, items: int, copies: int, samples: int, seed: int = 0) -> dict[str, object]:
    """How often the truth lies in the intervals, for splits of ``items`` distinct items in ``copies`` each."""
    rng = generator(seed, "coverage", case.name, items, copies)
    whole = [float(case.scorer.value(arm.sum(0))) for arm in case.draw(rng, POPULATION)]
    groups = tuple(np.repeat(np.arange(items), copies).tolist()) if copies > 1 else ()
    below, above, apart = 0, 0, 0
    for _ in range(samples):
        best, other = ([scored(case.scorer, np.repeat(arm, copies, axis=0))] for arm in case.draw(rng, items))
        low, high = interval(best, seed, groups)
        below, above = below + (whole[0] < low), above + (whole[0] > high)
        _, low, high = gap(best, other, seed, groups)
        apart += not low - 1e-12 <= whole[0] - whole[1] <= high + 1e-12
    percent = 100.0 / samples
    return {
        "case": case.name,
        "items": items,
        "copies": copies,
        "samples": samples,
        "score": round(whole[0], 3),
        "covered": round(100 - percent * (below + above), 1),
        "below": round(percent * below, 1),
        "above": round(percent * above, 1),
        "difference_covered": round(100 - percent * apart, 1),
    }


def scored(scorer: Scorer, statistics: np.ndarray) -> Sums:
    """Statistics as answers."""
    return Sums(statistics, scorer.value, scorer.lowest, scorer.highest, scorer.is_share)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row per case and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--cases", default="", help="beginnings of names, with commas between")
    parser.add_argument("--items", default="60,120,250,500", help="distinct items of a split, with commas between")
    chosen = parser.parse_args(arguments)
    print(f"{'score':24}{'items':>9}{'covered':>9}{'below':>7}{'above':>7}{'difference':>12}", file=sys.stderr)
    for case in CASES:
        if not case.name.startswith(tuple(chosen.cases.split(","))):
            continue
        for items, copies in [*((int(items), 1) for items in chosen.items.split(",")), (60, 3)]:
            row = coverage(case, items, copies, chosen.samples)
            size = f"{items} × {copies}" if copies > 1 else str(items)
            print(json.dumps(row), flush=True)
            print(
                f"{case.name:24}{size:>9}{row['covered']:>9}{row['below']:>7}{row['above']:>7}"
                f"{row['difference_covered']:>12}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
