"""``elicitable reproduce``: the paper's experiments, run or looked up."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from elicitable.cli import importing
from elicitable.cli.options import Address, Json, Quiet, Resumed, Workers
from elicitable.cli.output import RUNS, print_json, progress_console, result_console
from elicitable.cli.planted import NAME, PART, planted_truth
from elicitable.durations import seconds_of
from elicitable.errors import InputError


def reproduce(
    name: Annotated[
        list[str] | None, typer.Argument(help="experiments, or planted-truth; default all experiments")
    ] = None,
    preset: Annotated[str, typer.Option(help="quick (one seed) or paper (ten)")] = "quick",
    seeds: Annotated[int | None, typer.Option(help="how many, instead of the preset's")] = None,
    seed: Annotated[int, typer.Option("--seed", help="the first; the others follow it")] = 0,
    executor: Annotated[str, typer.Option(help="local, inline or ray")] = "local",
    workers: Workers = None,
    address: Address = None,
    status: Annotated[bool, typer.Option("--status", help="say what is done and run nothing")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="tables and report of what is done; run nothing")] = False,
    export: Annotated[
        Path | None, typer.Option(help="also add the records to those there, one JSON lines file an experiment")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="run failed trials again")] = False,
    cases: Annotated[int | None, typer.Option(help="of planted-truth: so many, the first; default all")] = None,
    part: Annotated[str | None, typer.Option(help="of planted-truth: one-layer (default), deep or smollm2")] = None,
    device: Annotated[str | None, typer.Option(help="of planted-truth: auto, cpu, cuda or mps")] = None,
    time_limit: Annotated[str | None, typer.Option(help="of planted-truth: for each race, such as 90s or 3m")] = None,
    out: Resumed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the paper's experiments and put ours beside what the source reports.

    planted-truth is another question: how often a verdict is right where the truth is known by construction.
    """
    if NAME in (name or ()):
        others = (preset != "quick", seeds is not None, seed != 0, executor != "local", address, status)
        if len(name or ()) > 1 or any((*others, retry, export is not None)):
            raise InputError(
                f"{NAME} stands alone; of the options it takes --part, --cases, --device, --time-limit, --workers, "
                "--tables, --out, --json and --quiet."
            )
        limits = (("cases", cases), ("device", device), ("time-limit", time_limit), ("workers", workers))
        if tables and (passed := [flag for flag, value in limits if value is not None]):
            raise InputError(f"--tables counts what is there and races nothing; leave out --{passed[0]}, or --tables.")
        planted_truth(
            part or PART,
            out,
            only_tables=tables,
            as_json=as_json,
            is_quiet=quiet,
            count=cases,
            device=device or "auto",
            time_limit=seconds_of(time_limit),
            workers=workers,
        )
        return
    for flag, given in (("cases", cases), ("part", part), ("device", device), ("time-limit", time_limit)):
        if given is not None:
            raise InputError(f"--{flag} is an option of {NAME}: elicitable reproduce {NAME} --{flag} {given}.")
    if (status or tables) and retry:
        raise InputError(f"--{'status' if status else 'tables'} runs nothing; leave it out, or --retry.")
    if status and (tables or export is not None):
        raise InputError(f"--status writes nothing; leave it out, or --{'tables' if tables else 'export'}.")
    with importing():
        from elicitable.lab import reproduce as runs
        from elicitable.report.reproduction import print_reproduction, write_reproduction

    folder = out or RUNS / f"reproduce-{preset}"
    which: dict[str, Any] = {"preset": preset, "seeds": seeds, "first_seed": seed, "out": folder}
    if status:
        _print_status(runs.status(name or (), **which), runs.tables(name or (), **which), as_json)
        return
    if tables:
        found = runs.tables(name or (), **which)
        runs.write_results(found, folder)
    else:
        from elicitable.cli.overview import Overview
        from elicitable.executors.processes import cores

        watcher = None if quiet else Overview(progress_console(), 1 if executor == "inline" else workers or cores())
        more: dict[str, Any] = {"executor": executor, "workers": workers, "address": address, "retry": retry}
        found = runs.reproduce(name or (), **which, **more, watcher=watcher)
    report = write_reproduction(found, folder)
    if export is not None:
        runs.export(name or (), **which, to=export)
    if as_json:
        print_json(found)
    else:
        print_reproduction(found, result_console(), report)
    if found.get("trials_failed"):
        raise typer.Exit(1)


def _print_status(lines: list[Any], found: dict[str, Any], as_json: bool) -> None:
    from elicitable.report.reproduction import in_a_line
    from elicitable.report.table import print_hanging, print_wrapped

    if as_json:
        print_json({"summary": in_a_line(found), "trials": [_plain_line(line) for line in lines]})
        return
    console = result_console()
    print_wrapped([in_a_line(found)], console)
    for experiment, own in groupby(lines, key=lambda line: str(line.experiment)):
        print_wrapped(["", experiment], console)
        for line in own:
            note = f" ({line.reason})" if line.reason else ""
            print_hanging(f"{line.job.describe()}{note}", console, indent=" " * 14, first=f"  {line.state:<12}")


def _plain_line(line: Any) -> dict[str, Any]:
    return {
        "experiment": line.experiment,
        "trial": line.job.describe(),
        "state": line.state,
        "steps": line.steps,
        "seconds": line.seconds,
        "reason": line.reason,
    }
