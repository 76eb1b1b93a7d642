"""``elicitable forecast``: say, before anything is trained at length, whether a context will do."""

from __future__ import annotations

from elicitable.cli import importing
from elicitable.cli.options import Json, LayoutOptions, ModelOptions, Out, Quiet, Seed, TaskOptions, flags
from elicitable.cli.output import (
    default_folder,
    output,
    print_json,
    result_console,
    status,
)


def forecast(
    about: ModelOptions,
    asked: TaskOptions,
    how: LayoutOptions,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Foretell whether a context will do, or say that it is not known; no test item is read."""
    with importing():
        from elicitable.forecasting.forecast import forecast as foretell
        from elicitable.forecasting.names import SIGNALS
        from elicitable.report.forecast import print_forecast

    folder = out or default_folder("forecast", about.model, asked.task)
    wanted = asked.read()
    with output(folder):
        loaded = about.load()
        with status("measuring …", quiet):
            found = foretell(loaded, wanted, seed=seed, **how.given(), out=folder)
    command = found.command([*about.typed(), *asked.typed(), *how.typed(), *flags(seed=seed or None)])
    if as_json:
        print_json(found.record() | {"next": command})
    else:
        print_forecast(found, {name: words for name, (_, words) in SIGNALS.items()}, command, result_console())
