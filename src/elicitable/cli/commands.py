"""The one list of commands, and how a line that a person typed becomes a call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from elicitable import __version__
from elicitable.cli.check import check
from elicitable.cli.compile import compile_command
from elicitable.cli.construct.commands import CONSTRUCTIONS
from elicitable.cli.export import export
from elicitable.cli.forecast import forecast
from elicitable.cli.inspect import inspect
from elicitable.cli.lists import methods, models, scores, tasks
from elicitable.cli.options import spread
from elicitable.cli.output import json_alone
from elicitable.cli.predict import predict
from elicitable.cli.pretrain import pretrain
from elicitable.cli.prune import prune
from elicitable.cli.reproduce import reproduce
from elicitable.cli.tune import tune
from elicitable.cli.verdict import verdict
from elicitable.errors import InputError, UnknownNameError

#: In the order of the help.
COMMANDS: tuple[Callable[..., None], ...] = (
    verdict,
    forecast,
    tune,
    check,
    predict,
    export,
    inspect,
    prune,
    compile_command,
    pretrain,
    reproduce,
    models,
    tasks,
    methods,
    scores,
)

_UsageError: Any = typer.BadParameter.__mro__[1]  # click's; newer typers carry a click of their own
_QUESTION = "Can it be elicited by context, or must the weights change?"


class _Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Print the help, and end with exit code 2, where nothing was typed."""
        if not args:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that ``args`` begin with; raises UnknownNameError, with near matches, where there is none."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            raise UnknownNameError("command", args[0], names)
        return super().resolve_command(ctx, args)


def _typer(explained: str) -> typer.Typer:
    return typer.Typer(
        cls=_Group,
        help=explained,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


app = _typer(_QUESTION)
construct = _typer("Build a theorem as a transformer, run it and verify it.")


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"elicitable {__version__}")
        raise typer.Exit


@app.callback(help=_QUESTION)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Nothing: the version is printed by its callback."""


for command in COMMANDS:
    app.command(command.__name__.removesuffix("_command"))(spread(command))
for name, command in CONSTRUCTIONS.items():
    construct.command(name)(spread(command))
app.add_typer(construct, name="construct")


def run() -> int:
    """Run the command that was typed; returns the exit code.

    Raises:
        ElicitableError: what was typed cannot be done, in one line.
    """
    try:
        with json_alone() if "--json" in sys.argv else nullcontext():
            return int(app(prog_name="elicitable", standalone_mode=False) or 0)
    except _UsageError as error:
        raise InputError(_in_one_line(error)) from error


def _in_one_line(error: Any) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    path = error.ctx.command_path if error.ctx is not None else "elicitable"
    return f"{message}; `{path} --help` lists what there is."
