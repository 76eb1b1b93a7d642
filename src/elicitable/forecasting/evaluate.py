"""Hold the forecast to cases that it has not seen: ``python -m elicitable.forecasting.evaluate``.

Whole families of tasks are left out, one at a time, then single tasks, whatever models they are planted in, then whole
models. Whatever is fitted, chosen or calibrated is so on the others alone. Printed are the area under the curve and the
Brier score with 90 % intervals from a bootstrap over the left-out groups, the differences to each baseline in pairs,
the coverage of the scores' intervals, what is said to be outside, and what each group of signals carries by itself and
takes away when it is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier

from elicitable.errors import InputError
from elicitable.forecasting.model import FARTHEST
from elicitable.forecasting.names import MODEL, READ_OFF, SIGNALS, STEPS, TASK, of_groups
from elicitable.forecasting.records import Known, read_known
from elicitable.forecasting.train import EDGE, RECORDS, fit_chance, left_out, train
from elicitable.rng import generator

REPLICATES = 1_000
NOMINAL = 0.9
FEWEST = 30  # cases with scores by rows, from which on their intervals are judged

Floats = NDArray[np.float64]
#: Fit on (case, signal) and truth and groups; give the probabilities of other cases.
Fit = Callable[[Floats, NDArray[Any], NDArray[Any]], Callable[[Floats], Floats]]


@dataclass(frozen=True)
class Contender:
    """Name one way to foretell: how it is fitted, and the signals that it sees."""

    name: str
    fit: Fit
    signals: tuple[str, ...]


def calibrated(z: Floats, truth: NDArray[Any], groups: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Fit the shipped kind of model: standardised here, as only the known cases may say how."""
    means, scales = z.mean(axis=0), z.std(axis=0)
    scales = np.where(scales > 0, scales, 1.0)

    def cut(x: Floats) -> Floats:
        return np.asarray(np.clip((x - means) / scales, -FARTHEST, FARTHEST))

    line, slope, offset = fit_chance(cut(z), truth, groups)
    return lambda asked: 1 / (1 + np.exp(-(slope * (cut(asked) @ np.array(line.weights) + line.intercept) + offset)))


def boosted(z: Floats, truth: NDArray[Any], groups: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Fit gradient boosting of shallow trees."""
    if len(set(truth.tolist())) < 2:
        return lambda asked: np.full(len(asked), truth.mean())
    fitted = GradientBoostingClassifier(
        n_estimators=100, max_depth=2, learning_rate=0.05, subsample=0.8, random_state=0
    )
    fitted.fit(z, truth)
    return lambda asked: np.asarray(fitted.predict_proba(asked)[:, 1])


def majority(z: Floats, truth: NDArray[Any], groups: NDArray[Any]) -> Callable[[Floats], Floats]:
    """Say the share of the known cases, whatever is asked."""
    return lambda asked: np.full(len(asked), truth.mean())


OURS = "forecast"
CONTENDERS = (
    Contender(OURS, calibrated, READ_OFF),
    Contender("with prompts, examples and first steps", calibrated, tuple(SIGNALS)),
    Contender("the same signals, boosted trees", boosted, READ_OFF),
    Contender("last value: context's score after the first steps", calibrated, ("context_score",)),
    Contender("last value: context's less weights'", calibrated, ("lead_score",)),
    Contender("majority", majority, ("base_score",)),
    Contender("linear probe on frozen states (as COSMOS)", calibrated, ("plain_score", "plain_token_score")),
    Contender("first 100 steps and descriptors, boosted trees (as TuneAhead)", boosted, of_groups(STEPS, TASK, MODEL)),
)


def said(known: Sequence[Known], contender: Contender, groups: NDArray[Any]) -> Floats:
    """Return (case,) the probability of each case from a fit on the other ``groups``."""
    x = np.array([[one.signals[name] for name in contender.signals] for one in known])
    truth, families = np.array([one.suffices for one in known]), np.array([one.family for one in known])
    found = np.zeros(len(known))
    for others, own in left_out(groups):
        found[own] = contender.fit(x[others], truth[others], families[others])(x[own])
    return found


def auc(scores: Floats, truth: NDArray[Any]) -> float:
    """Return the share of pairs of a true and a false case that ``scores`` order rightly, ties counted as half.

    >>> auc(np.array([0.9, 0.4, 0.4]), np.array([True, True, False]))
    0.75
    """
    right, wrong = scores[truth], scores[~truth]
    if not len(right) or not len(wrong):
        return float("nan")
    apart = right[:, None] - wrong[None, :]
    return float((apart > 0).mean() + 0.5 * (apart == 0).mean())


def brier(scores: Floats, truth: NDArray[Any]) -> float:
    """Return the mean of (p − truth)²."""
    return float(np.square(scores - truth).mean())


Measure = Callable[[Floats, NDArray[Any]], float]


def drawn(groups: NDArray[Any], seed: int = 0) -> list[NDArray[np.int64]]:
    """Draw whole groups with replacement, :data:`REPLICATES` times: the places of the cases."""
    rng, names = generator(seed, "left-out groups"), sorted(set(groups.tolist()))
    places = {name: np.flatnonzero(groups == name) for name in names}
    return [
        np.concatenate([places[names[nth]] for nth in rng.integers(len(names), size=len(names))])
        for _ in range(REPLICATES)
    ]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 90 % interval of bootstrap ``values``, without those that are not numbers."""
    kept = np.array([value for value in values if np.isfinite(value)])
    low, high = np.quantile(kept, [(1 - NOMINAL) / 2, (1 + NOMINAL) / 2]) if len(kept) else (np.nan, np.nan)
    return float(low), float(high)


@dataclass(frozen=True)
class Result:
    """Hold how one contender did: each measure with its interval, and how far behind the forecast its AUC is."""

    name: str
    auc: tuple[float, float, float]
    hard_auc: tuple[float, float, float]
    brier: tuple[float, float, float]
    behind: tuple[float, float, float]


def results(known: Sequence[Known], groups: NDArray[Any], contenders: Sequence[Contender]) -> list[Result]:
    """Measure ``contenders``; the first is the one that others are held against.

    ``hard_auc`` leaves out the cases that need nothing, which the bare score gives away.
    """
    truth = np.array([one.suffices for one in known])
    is_hard = np.array([one.truth != "nothing" for one in known])
    samples = drawn(groups)
    whole = np.arange(len(known))
    probabilities = [said(known, one, groups) for one in contenders]

    def over(measure: Callable[[NDArray[np.int64]], float]) -> tuple[float, float, float]:
        return (measure(whole), *interval([measure(sample) for sample in samples]))

    def area(p: Floats, at: NDArray[np.int64]) -> float:
        return auc(p[at], truth[at])

    def hard(p: Floats, at: NDArray[np.int64]) -> float:
        return auc(p[at][is_hard[at]], truth[at][is_hard[at]])

    ours = probabilities[0]
    return [
        Result(
            one.name,
            over(lambda at, p=p: area(p, at)),  # type: ignore[misc]
            over(lambda at, p=p: hard(p, at)),  # type: ignore[misc]
            over(lambda at, p=p: brier(p[at], truth[at])),  # type: ignore[misc]
            over(lambda at, p=p: area(ours, at) - area(p, at)),  # type: ignore[misc]
        )
        for one, p in zip(contenders, probabilities, strict=True)
    ]


@dataclass(frozen=True)
class Scores:
    """Hold how the scores were foretold: coverage of the 90 % intervals with its interval, width, error; outside."""

    coverage: tuple[float, float, float]
    width: float
    error: float
    outside: float
    inside_auc: float


def foretold(known: Sequence[Known], groups: NDArray[Any]) -> Scores:
    """Train everything anew without each group, and foretell its cases."""
    hits: list[tuple[str, bool, float, float]] = []
    inside, probability = np.zeros(len(known), dtype=bool), np.zeros(len(known))
    for others, own in left_out(groups):
        forecaster = train([one for one, is_known in zip(known, others, strict=True) if is_known])
        for place in np.flatnonzero(own).tolist():
            case = known[place]
            found = forecaster.predict(case.signals)
            inside[place], probability[place] = found.is_known, found.probability
            for arm, expected in enumerate((found.growth.context, found.growth.weights)):
                by_rows = {one.rows: one for one in expected}
                for rows, scores in case.by_rows.items():
                    if rows not in by_rows:  # beyond what the others were trained on
                        continue
                    at, score = by_rows[rows], scores[arm]
                    kept = min(max(score, EDGE), 1 - EDGE)  # as the fit saw it: a logit has no 0 and no 1
                    is_in = at.low <= kept <= at.high
                    hits.append((str(groups[place]), is_in, at.high - at.low, abs(at.mean - score)))
    truth = np.array([one.suffices for one in known])
    of_group = {name: [hit for group, hit, _, _ in hits if group == name] for name, *_ in hits}
    rng, names = generator(0, "coverage"), sorted(of_group)
    replicates = [
        float(np.mean([hit for nth in rng.integers(len(names), size=len(names)) for hit in of_group[names[nth]]]))
        for _ in range(REPLICATES)
    ]
    return Scores(
        (float(np.mean([hit for _, hit, _, _ in hits])), *interval(replicates)),
        float(np.mean([width for _, _, width, _ in hits])),
        float(np.mean([error for _, _, _, error in hits])),
        float((~inside).mean()),
        auc(probability[inside], truth[inside]),
    )


def ablations() -> list[Contender]:
    """Return the forecast by each group of signals alone, and without it."""
    names = list(dict.fromkeys(group for group, _ in SIGNALS.values()))
    ours, whole = CONTENDERS[0], CONTENDERS[1]
    alone = [replace(ours, name=f"{group} alone", signals=of_groups(group)) for group in names]
    own = [group for group in names if set(of_groups(group)) & set(READ_OFF)]
    without = [
        replace(ours, name=f"without {group}", signals=tuple(n for n in READ_OFF if SIGNALS[n][0] != group))
        for group in own
    ]
    heads = tuple(name for name in SIGNALS if name.startswith("heads_"))
    output = tuple(name for name in SIGNALS if name.startswith("linear_"))
    first = of_groups(STEPS)
    probes = [
        replace(ours, name="what the heads give alone", signals=heads),
        replace(ours, name="the output state, step by step, alone", signals=output),
        replace(
            ours, name="the first 8 steps alone", signals=tuple(name for name in first if name.endswith("_gone_1"))
        ),
    ]
    return [ours, whole, *alone, *probes, *without]


def table(rows: Sequence[Result]) -> str:
    """Return ``rows`` as a table in Markdown."""
    head = "| | AUC | AUC, context or weights | Brier | forecast's AUC less this one's |\n|---|---|---|---|---|\n"
    lines = [
        f"| {one.name} | {_shown(one.auc)} | {_shown(one.hard_auc)} | {_shown(one.brier)} | "
        f"{'' if one.name == OURS else _shown(one.behind)} |"
        for one in rows
    ]
    return head + "\n".join(lines)


def _told(told: Scores, grown: int) -> str:
    return (
        f"\nScores by rows, of {grown} cases: {_shown(told.coverage)} lie in their 90 % intervals, which are "
        f"{told.width:.2f} wide; mean error {told.error:.3f}.\n"
        f"Said to be outside: {told.outside:.1%} of the cases; AUC on the others {told.inside_auc:.3f}."
    )


def _shown(numbers: tuple[float, float, float]) -> str:
    mean, low, high = numbers
    return f"{mean:.3f} ({low:.3f} … {high:.3f})"


def main(typed: Sequence[str] | None = None) -> None:
    """Print the evaluation as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m elicitable.forecasting.evaluate", description=main.__doc__)
    parser.add_argument("--records", type=Path, default=RECORDS, help=f"what collect wrote [default: {RECORDS}]")
    parser.add_argument("--ablations", action="store_true", help="also what each group of signals carries")
    given = parser.parse_args(typed)
    known = read_known(given.records)
    by = {
        "family of tasks": [one.family for one in known],
        "task": [one.task for one in known],
        "model": [one.model for one in known],
    }
    counts = {truth: sum(one.truth == truth for one in known) for truth in ("nothing", "context", "weights")}
    print(f"{len(known)} cases: " + ", ".join(f"{n} {truth}" for truth, n in counts.items()))
    for what, names in by.items():
        groups = np.array(names)
        if len(set(names)) < 2:
            raise InputError(f"there is one {what} only: {names[0]}; measure more cases.")
        print(f"\n## Each {what} left out ({len(set(names))})\n")
        print(table(results(known, groups, CONTENDERS)))
        grown = sum(bool(one.by_rows) for one in known)
        if grown < FEWEST:
            print(f"\nOnly {grown} cases have scores by rows; {FEWEST} are needed to judge those that are foretold.")
        else:
            print(_told(foretold(known, groups), grown))
        if given.ablations:
            print(f"\n### Signals, each {what} left out\n")
            print(table(results(known, groups, ablations())))


if __name__ == "__main__":
    main()
