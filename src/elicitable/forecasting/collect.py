"""Measure the planted cases for the forecast: ``python -m elicitable.forecasting.collect --out records/forecast``.

One file a case; what is there, of the same weights and task, is not measured again, so the same command resumes. With
``--rows`` both arms are trained for 60 steps on 16 and on 1,024 rows of each case and scored on test items: what the
forecast's scores are fitted to. The signals themselves never read a test item.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from elicitable.forecasting.answers import plan_for, scored
from elicitable.forecasting.pace import pace_for
from elicitable.forecasting.records import AGAIN, ROWS_FOLDER, SIGNALS_FOLDER, Grown, Kept, file_name
from elicitable.forecasting.signals import signals_of
from elicitable.forecasting.steps import arms, size_of
from elicitable.models.layout import PLAIN
from elicitable.models.model import Model
from elicitable.models.speed.processor import made_on
from elicitable.planted.models import load_planted
from elicitable.planted.parts import PARTS, AnyCase
from elicitable.race.rows_curve import FewRows, distinct_rows
from elicitable.records.digested import read_digested, write_digested
from elicitable.records.provenance import versions
from elicitable.records.schema import to_plain
from elicitable.training.loop import Plan, train

ROWS = (16, 1_024)
STEPS, WARMUP, COOLDOWN, LOOKS = 60, 10, 0.3, 20
ITEMS = 300  # of the test split
ADVICE = "Free the place, or choose another --out."


def cases() -> list[AnyCase]:
    """Return the cases of all models that come with the package."""
    return [case for name in ("one-layer", "deep") for case in PARTS[name].cases()]


def measured(case: AnyCase, model: Model, seed: int) -> Kept:
    """Measure the signals of one case."""
    task, used = case.task(), time.process_time()
    found = signals_of(model, task, seed=seed)
    return Kept(
        case=case.name,
        model=case.model,
        family=case.family,
        truth=case.truth,
        signals=found.values,
        seconds={group: round(seconds, 3) for group, seconds in found.seconds.items()},
        cpu_seconds=round(time.process_time() - used, 3),
        seed=seed,
        **made_on(model.device),
        versions=versions(),
        fingerprints=fingerprints(case, model),
    )


def fingerprints(case: AnyCase, model: Model) -> dict[str, str]:
    """Return what a record is of: other weights or another task make it anew."""
    return {"model": model.bare_fingerprint, "task": case.task().fingerprint()}


def grown(case: AnyCase, model: Model, seed: int) -> Grown:
    """Train both arms on a few numbers of rows, at the rate in the middle of each one's range, and score test items."""
    task, pace = case.task(), pace_for(model)
    rows = distinct_rows(task, max(ROWS), seed=seed)
    items = task.held_out("test", ITEMS)
    plan = replace(
        plan_for(PLAIN, pace.batch, None),
        steps=STEPS,
        warmup=WARMUP,
        cooldown=COOLDOWN,
        evaluate_every=LOOKS,
        validation_items=pace.validation_items,
    )
    scores: dict[str, tuple[float, ...]] = {}
    for count in ROWS:
        few: Any = FewRows(task, rows, count)
        scores[str(count)] = tuple(_trained(model, few, method, plan, seed, items) for method in arms().values())
    return Grown(case.name, scores, STEPS, ITEMS, seed, fingerprints(case, model), **made_on(model.device))


def _trained(model: Model, task: Any, method: Any, plan: Plan, seed: int, items: Sequence[Any]) -> float:
    rates = method.schedule.learning_rates
    own = replace(plan, learning_rate=rates[len(rates) // 2 - 1], weight_decay=method.schedule.weight_decay)
    adaptation = method.build(model, size_of(model, method), seed=seed, **method.start(model))
    train(model, adaptation, task, own, seed)
    return scored(model, task, adaptation, items, own).mean


def main(typed: Sequence[str] | None = None) -> None:
    """Measure every case that is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m elicitable.forecasting.collect", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("records/forecast"), help="the folder of the records")
    parser.add_argument("--rows", action="store_true", help="scores by rows instead of signals")
    parser.add_argument("--first", type=int, default=None, help="of the cases only so many")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    given = parser.parse_args(typed)
    folder = given.out / (ROWS_FOLDER if given.rows else SIGNALS_FOLDER)
    models: dict[str, Model] = {}
    for case in cases()[: given.first]:
        path = folder / file_name(case.name)
        model = models[case.model] = models.get(case.model) or load_planted(case.model)
        if path.exists() and read_digested(path, AGAIN).get("fingerprints") == fingerprints(case, model):
            continue
        since = time.monotonic()
        found = (grown if given.rows else measured)(case, model, given.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_digested(path, to_plain(found), ADVICE)
        print(f"{case.name}: {time.monotonic() - since:.1f} s", flush=True)


if __name__ == "__main__":
    main()
