"""How often an interval holds the truth: 95 % is what it says.

    python benchmarks/coverage.py [--samples 1000] [--cases macro-f1,mcc] [--items 60,120,250,500] [--seed 0]
    python benchmarks/coverage.py --shares [--samples 4000]

Test splits of known populations are drawn again and again, and it is counted how often the score of the whole
population lies in the interval, and how often below and above it; then the same for the difference of two arms on the
same items. "60 × 3" are 60 texts that occur three times each, in groups. One JSON object per line on standard output,
a table on standard error. A thousand samples leave a standard error of 0.7 points.

``--shares`` looks at accuracy alone, and closer: items in groups that answer alike, or only often alike; several seeds
that differ; and arms that disagree on few items ("discordant" is how many are expected).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from elicitable.diagnosis.intervals import gap, interval
from elicitable.diagnosis.shares import share_gap, share_interval
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


@dataclass(frozen=True)
class Shares:
    """Two arms' accuracies, and how their outcomes hang together.

    Both find the same items easy, but for the share ``apart`` of outcomes. Of the ``copies`` of an item the share
    ``alike`` has its difficulty. A seed's accuracy is off by a normal draw of ``spread``.
    """

    best: float
    other: float
    apart: float = 0.0
    copies: int = 1
    alike: float = 1.0
    seeds: int = 1
    spread: float = 0.0

    def draw(self, rng: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw (seed, item) zeros and ones of both arms."""
        own = rng.random(items * self.copies)
        hard = np.where(rng.random(len(own)) < self.alike, np.repeat(rng.random(items), self.copies), own)
        arms = []
        for share in (self.best, self.other):
            shape = (self.seeds, len(hard))
            luck = np.where(rng.random(shape) < self.apart, rng.random(shape), hard)
            arms.append((luck < share + self.spread * rng.normal(size=(self.seeds, 1))).astype(float))
        return arms[0], arms[1]

    @property
    def discordant(self) -> float:
        """Which share of single outcomes is expected to differ between the arms."""
        high, low = max(self.best, self.other), min(self.best, self.other)
        same = 1 - self.apart
        return same**2 * (high - low) + (1 - same**2) * (high + low - 2 * high * low)


SHARES = (
    *(Shares(share, share - 0.03) for share in (0.5, 0.8, 0.95)),
    *(Shares(share, share - 0.03, apart=0.1) for share in (0.5, 0.8, 0.95)),
    Shares(0.8, 0.8, apart=0.1),
    *(Shares(share, share - 0.03, apart=0.1, copies=3) for share in (0.8, 0.95)),
    *(Shares(share, share - 0.03, apart=0.1, copies=3, alike=0.7) for share in (0.8, 0.95)),
    *(Shares(share, share - 0.05, apart=0.1, seeds=2) for share in (0.5, 0.8)),
    *(Shares(0.8, 0.75, apart=0.1, seeds=seeds, spread=0.01) for seeds in (2, 3)),
)


def shares_coverage(case: Shares, items: int, samples: int) -> dict[str, object]:
    """How often the truth lies in the intervals for a share and for a difference of two."""
    rng = generator(0, "shares", str(case), items)
    groups = tuple(np.repeat(np.arange(items), case.copies).tolist()) if case.copies > 1 else ()
    inside = apart = 0
    for _ in range(samples):
        best, other = case.draw(rng, items)
        (low, high), (least, most) = share_interval(best, groups), share_gap(best, other, groups)
        inside += low - 1e-12 <= case.best <= high + 1e-12
        apart += least - 1e-12 <= case.best - case.other <= most + 1e-12
    counts = {"items": items, "samples": samples, "discordant": round(items * case.discordant, 1)}
    covered = {"covered": round(100 * inside / samples, 1), "difference_covered": round(100 * apart / samples, 1)}
    return asdict(case) | counts | covered


def scored(scorer: Scorer, statistics: np.ndarray) -> Sums:
    """Statistics as answers."""
    return Sums(statistics, scorer.value, scorer.lowest, scorer.highest, scorer.is_share)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row per case and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--cases", default="", help="beginnings of names, with commas between")
    parser.add_argument("--items", default="60,120,250,500", help="distinct items of a split, with commas between")
    parser.add_argument("--seed", type=int, default=0, help="of the splits that are drawn, and of the bootstrap")
    parser.add_argument(
        "--shares", action="store_true", help="accuracy alone, in groups, over seeds, and with few pairs"
    )
    chosen = parser.parse_args(arguments)
    say_where()
    if chosen.shares:
        for one, items in itertools.product(SHARES, (60, 200, 500)):
            print(json.dumps(shares_coverage(one, items, chosen.samples)), flush=True)
        return
    print(f"{'score':24}{'items':>9}{'covered':>9}{'below':>7}{'above':>7}{'difference':>12}", file=sys.stderr)
    for case in CASES:
        if not case.name.startswith(tuple(chosen.cases.split(","))):
            continue
        for items, copies in [*((int(items), 1) for items in chosen.items.split(",")), (60, 3)]:
            row = coverage(case, items, copies, chosen.samples, chosen.seed)
            size = f"{items} × {copies}" if copies > 1 else str(items)
            print(json.dumps(row), flush=True)
            print(
                f"{case.name:24}{size:>9}{row['covered']:>9}{row['below']:>7}{row['above']:>7}"
                f"{row['difference_covered']:>12}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
