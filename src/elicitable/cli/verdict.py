"""``elicitable verdict``: race the methods on a task and say what is needed."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from elicitable import cli
from elicitable.cli.options import (
    Budget,
    ExecutorOptions,
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
    flags,
)
from elicitable.cli.output import default_folder, output, print_json, progress_console, result_console, write_json
from elicitable.durations import seconds_of
from elicitable.untrusted import command_line

if TYPE_CHECKING:
    from rich.console import Console

    from elicitable.tasks.base import Task
    from elicitable.tasks.reading import Summary

MARGIN, SEEDS = 0.02, 2


def verdict(
    about: ModelOptions,
    asked: TaskOptions,
    how: LayoutOptions,
    where: ExecutorOptions,
    budget: Budget = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="only these methods (may be repeated); my_method.py:MyMethod is code that is run"
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="of the answer and the best arm; more where the margin is in doubt")
    ] = SEEDS,
    margin: Annotated[
        float, typer.Option(help="how much worse still counts as good enough (0.02 is 2 points)")
    ] = MARGIN,
    time_limit: Annotated[
        str | None, typer.Option(help="for all of it, e.g. 90s, 30m, 2h; a longer one goes on")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="at most so many steps a run")] = None,
    test_items: TestItems = None,
    score: ScoreName = None,
    rule: Rule = "auto",
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="a text for the prompt arm to try")] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="keep this method's result beside the winner's (may be repeated)")
    ] = None,
    proposer: Annotated[
        str | None, typer.Option(help="a model that proposes prompts; a small one proposes little that is of use")
    ] = None,
    search_passes: Annotated[
        int | None, typer.Option(help="items that a method which is chosen may read in its search (4,096 for texts)")
    ] = None,
    price_in: Annotated[
        float | None, typer.Option(help="what a million tokens read cost, for the deployment card")
    ] = None,
    price_out: Annotated[float | None, typer.Option(help="what a million tokens written cost")] = None,
    price_hour: Annotated[
        float | None, typer.Option(help="what an hour of training costs, for the break-even against a prompt")
    ] = None,
    rows_curve: Annotated[
        bool,
        typer.Option(
            "--rows-curve",
            help="also train the contenders on 16, 64, 256 … rows: what would more buy? Up to the time limit again",
        ),
    ] = False,
    why: Annotated[
        bool,
        typer.Option("--why", help="run experiments that tell why contexts fall short; up to the time limit again"),
    ] = False,
    seed: Seed = 0,
    out: Resumed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try every method at a matched budget and say whether context is enough or the weights must change."""
    limit = seconds_of(time_limit)
    where.begin(about.model, limit)
    folder = out or default_folder("verdict", about.model, asked.task)
    console = progress_console()
    with cli.importing():
        from elicitable.methods.catalog import method_named
        from elicitable.own_code import is_own_code
        from elicitable.race import contest
        from elicitable.report.causes import print_why, why_commands, why_json, why_section
        from elicitable.report.classes import classes_section
        from elicitable.report.deployment import Prices, commands, deployment_section
        from elicitable.report.following import Typed
        from elicitable.report.html import write_report
        from elicitable.report.microscope import microscope_section
        from elicitable.report.progress import LiveReporter
        from elicitable.report.reading import reading_section
        from elicitable.report.rows import rows_json, rows_lines, rows_section
        from elicitable.report.table import print_next, print_verdict, print_wrapped
        from elicitable.report.verdict_json import verdict_to_json

    prices = Prices(price_in, price_out, price_hour)
    wanted = asked.read()
    summary = told_back(wanted, None if quiet else console)
    if not quiet:
        console.print(f"loading {about.model} …", highlight=False, markup=False)
    loaded = about.load()
    interrupt = None
    with output(folder), LiveReporter(console, limit) as live:
        race = partial(
            contest.verdict,
            loaded,
            wanted,
            budget=budget,
            methods=method,
            seeds=seeds,
            seed=seed,
            **how.given(),
            **where.given(loaded, limit),
            margin=margin,
            time_limit=limit,
            steps=steps,
            test_items=test_items,
            prompts=prompt or (),
            proposer=proposer,
            search_passes=search_passes,
            score=score,
            rule=rule,
            keep=keep or (),
            rows_curve=rows_curve,
            why=why,
            out=folder,
            started=cli.STARTED,
            reporter=None if quiet else live,
        )
        try:
            answer = race()
        except contest.StoppedRace as stopped:  # an answer is owed at any moment
            answer, interrupt = stopped.answer, stopped
    answer = replace(answer, provenance={**answer.provenance, "command": command_line("elicitable", *sys.argv[1:])})
    scored = flags(score=score, rule=None if rule == "auto" else rule, test_items=test_items, steps=steps)
    raced = flags(
        budget=budget,
        method=method,
        prompt=prompt,
        proposer=proposer,
        time_limit=time_limit,
        search_passes=search_passes,
        seeds=None if seeds == SEEDS else seeds,
        margin=None if margin == MARGIN else margin,
        keep=keep,
        price_in=price_in,
        price_out=price_out,
        price_hour=price_hour,
    )
    typed = Typed(
        [*about.typed(), *asked.typed(), *how.typed(), *scored, *flags(seed=seed or None)],
        [*where.typed(), *raced],
        {method_named(one).name: one for one in method or () if is_own_code(one)},
        flags(out=out),
    )
    write_json(folder / "verdict.json", verdict_to_json(answer))
    made_on = {name: answer.provenance[name] for name in ("processor", "device")}
    sections = [reading_section(summary)]
    if answer.classes is not None:
        sections.append(classes_section(answer.classes, answer.answer))
    if answer.card is not None:
        following = commands(answer.card, typed.own.get(answer.card.method))
        alone = [typed.tune(arm) for arm in answer.arms if arm.method == answer.card.method and arm.learning_rate]
        sections.append(deployment_section(answer.card, prices, (*following, *alone)))
    if answer.inspection:
        sections.append(microscope_section(answer.inspection))
    if answer.rows is not None:
        curves = answer.rows.growths, answer.rows.crossing
        write_json(folder / "rows.json", rows_json(*curves) | made_on)
        sections.append(rows_section(*curves))
    remedies: tuple[str, ...] = ()
    if answer.why is not None:
        remedies = why_commands(answer.why, answer.arms, typed)
        write_json(folder / "why.json", why_json(answer.why) | made_on)
        sections.append(why_section(answer.why, remedies))
    report = write_report(answer, folder / "report.html", sections)
    if as_json:
        print_json(verdict_to_json(answer))
    else:
        print_verdict(answer, result_console(), report)
        if answer.card is not None:
            print_next(following, result_console())
        if answer.rows is not None:
            print_wrapped(rows_lines(*curves), result_console())
        if answer.why is not None:
            result_console().print()
            print_why(answer.why, result_console())
            print_next(remedies, result_console())
    if interrupt is not None:
        raise interrupt


def told_back(task: Task, console: Console | None) -> Summary:
    """What was understood of the task, printed on ``console`` before minutes are spent on a misunderstanding."""
    from elicitable.report.reading import print_reading
    from elicitable.tasks.reading import summary_of

    summary = summary_of(task)
    if console is not None:
        print_reading(summary, console)
    return summary
