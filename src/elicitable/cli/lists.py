"""``elicitable models``, ``tasks``, ``methods`` and ``scores``: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from elicitable.cli.options import Json
from elicitable.cli.output import print_json, result_console


def models(
    architectures: Annotated[bool, typer.Option("--architectures", help="which decoders were checked")] = False,
    as_json: Json = False,
) -> None:
    """List the models that can be named without a path, or the architectures that were checked."""
    if architectures:
        from elicitable.models.architectures import architecture_rows

        rows = architecture_rows()
        shown = [(row["name"], row["state"], row["reason"] or row["traits"]) for row in rows]
        _print_list("architectures", rows, shown, as_json)
        return
    from elicitable.models.load import catalog

    _print_cards("models", [(card.name, card.description, card.source) for card in catalog()], as_json)


def tasks(as_json: Json = False) -> None:
    """List the built-in tasks."""
    from elicitable.tasks.catalog import catalog

    _print_cards("tasks", [(card.name, card.description, card.kind) for card in catalog().values()], as_json)


def methods(as_json: Json = False) -> None:
    """List the methods, least invasive first; behind them, those that a race runs only where it is asked to."""
    from elicitable.methods.catalog import catalog

    _print_cards("methods", [(method.name, method.summary, method.rung.label) for method in catalog()], as_json)


def scores(as_json: Json = False) -> None:
    """List the scores that a verdict can rest on."""
    from elicitable.scores.catalog import catalog

    cards: list[tuple[str, str, str]] = [
        (f"{one.name}:{one.argument}" if one.argument else one.name, one.summary, one.kind) for one in catalog()
    ]
    _print_cards("scores", cards, as_json)


def _print_cards(what: str, cards: list[tuple[str, str, str]], as_json: bool) -> None:
    rows = [{"name": name, "description": text, "note": note} for name, text, note in cards]
    _print_list(what, rows, cards, as_json)


def _print_list(what: str, rows: list[dict[str, str]], shown: list[tuple[str, str, str]], as_json: bool) -> None:
    """Print a list as one JSON object or as a table."""
    if as_json:
        print_json({what: rows})
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in shown:
        table.add_row(*row)
    result_console().print(table, highlight=False, markup=False)
