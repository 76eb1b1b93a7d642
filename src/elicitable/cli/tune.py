"""``elicitable tune``: train one method and keep it as an adapter folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from elicitable.cli import importing
from elicitable.cli.options import (
    Budget,
    Json,
    LayoutOptions,
    ModelOptions,
    Quiet,
    Resumed,
    Rule,
    ScoreName,
    Seed,
    TaskOptions,
    TestItems,
)
from elicitable.cli.output import default_folder, output, print_json, progress_console, result_console, say
from elicitable.cli.verdict import told_back


def tune(
    about: ModelOptions,
    asked: TaskOptions,
    how: LayoutOptions,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="a trained method (see `elicitable methods`), peft:TYPE (peft:ia3), my_method.py:MyMethod runs code",
        ),
    ],
    budget: Budget = None,
    size: Annotated[int | None, typer.Option(help="virtual tokens or rank, instead of a budget")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="default: swept")] = None,
    steps: Annotated[int | None, typer.Option(help="at most so many steps")] = None,
    init: Annotated[str | None, typer.Option(help="random, vocabulary, text or sink  [default: as in a race]")] = None,
    init_text: Annotated[str | None, typer.Option(help="the text of --init text")] = None,
    layer: Annotated[int | None, typer.Option(help="of a steering vector, from 0  [default: the middle one]")] = None,
    test_items: TestItems = None,
    score: ScoreName = None,
    rule: Rule = "auto",
    seed: Seed = 0,
    out: Resumed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one method and write an adapter folder that PEFT loads."""
    with importing():
        from elicitable.race.tune import tune as run_tune
        from elicitable.report.progress import LiveReporter
        from elicitable.report.table import print_wrapped

    folder = out or default_folder(f"tune-{method}", about.model, asked.task)
    wanted = asked.read()
    console = progress_console()
    told_back(wanted, None if quiet else console)
    with output(folder), LiveReporter(console) as live:
        tuned = run_tune(
            about.load(),
            wanted,
            method=method,
            budget=budget,
            size=size,
            learning_rate=learning_rate,
            steps=steps,
            init=init,
            text=init_text,
            layer=layer,
            test_items=test_items,
            score=score,
            rule=rule,
            seed=seed,
            **how.given(),
            out=folder,
            reporter=None if quiet else live,
        )
    if as_json:
        print_json(tuned.record)
    else:
        print_wrapped(_said(tuned.record), result_console())
        say(f"adapter: {folder}")


def _said(record: dict[str, Any]) -> Iterator[str]:
    """Say what was tuned, how it scored, what is odd about how it was read, and what is not sound about it."""
    scored = f"{record['score']} {record['mean']:.3f} [{record['low']:.3f}, {record['high']:.3f}]"
    floor = f" (always giving one answer: {record['floor']:.3f})" if "floor" in record else ""
    yield (
        f"{record['method']} on {record['task']}: {scored} on {record['items']:,} test items{floor}; "
        f"{record['numbers_trained']:,} numbers trained at {record['learning_rate']:g}."
    )
    if (rule := record.get("rule", {}).get("name", "sum")) != "sum":
        yield (
            f"It decides between the labels by the rule {rule!r} (from validation); by the plain likelihood it has "
            f"{record['raw_mean']:.3f} right."
        )
    for warning in record.get("warnings", ()):
        yield f"warning: {warning}"
    for one in record.get("checks", ()):
        if one["status"] == "fail":
            yield f"not sound: {one['name']}: {one['found']}. {one['advice']}"
