"""``elicitable predict``: answer new rows with what a race ended with."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from elicitable.cli import importing
from elicitable.cli.options import Quiet
from elicitable.errors import InputError
from elicitable.untrusted import in_one_line

if TYPE_CHECKING:
    from elicitable.deploy.predict import Predictor
    from elicitable.deploy.record import Form, Record
    from elicitable.methods.base import Method
    from elicitable.tasks.incoming import Rows

MOST_NAMED = 20  # broken rows that are named one by one


def predict(
    run: Annotated[Path, typer.Argument(help="the folder of a race or a tuning, or an artefact in it")],
    source: Annotated[
        str | None, typer.Option("--input", "-i", help="a file of rows, or - for standard input [default: -]")
    ] = None,
    text: Annotated[str | None, typer.Option(help="one text to answer, instead of a file")] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="what was kept of the race, not its winner; my_method.py:MyMethod runs code"),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="the base model, where it is not found")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")] = "auto",
    column: Annotated[
        str | None, typer.Option(help="the column that is read, where the input calls it otherwise")
    ] = None,
    input_format: Annotated[
        str | None, typer.Option(help="csv, tsv, jsonl, json, lines or text [default: by the file's name]")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="of the input [default: UTF-8]")] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="csv, tsv, jsonl or lines (bare answers) [default: as the input]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="a file for the answers [default: standard output]")] = None,
    max_answer: Annotated[
        int | None, typer.Option(min=1, help="tokens of a free answer at most [default: as raced]")
    ] = None,
    any_base: Annotated[bool, typer.Option("--any-base", help="take another base model than the one raced")] = False,
    quiet: Quiet = False,
) -> None:
    """Answer new rows with what won: a label and its probability, or what the model writes.

    Rows stay in their order and keep their columns. A row that cannot be answered is named on standard error, the
    others are answered, and the exit code is 1.
    """
    with importing():
        from elicitable.deploy.outgoing import format_for
        from elicitable.deploy.predict import predictor
        from elicitable.tasks.incoming import incoming

    if text is not None:
        _check_alone({"--input": source, "--input-format": input_format, "--encoding": encoding})
    if out is not None and out.is_dir():
        raise InputError(f"{out} is a folder; name a file for the answers (--out).")
    name, own = own_method(method)
    found = predictor(run, name, model=model, device=device, methods=own, any_base=any_base, max_answer=max_answer)
    if column is not None:
        found.record = _reading(found.record, column)
    form = found.record.form
    given = _of_text(text, form.main) if text is not None else None
    with given or incoming(_source(source), input_format, encoding, _wanted(form)) as rows:
        done = _answer(rows, found, format_for(rows, output_format), out)
    _summary(done, quiet)


@dataclass
class _Done:
    """Count rows, those of them that are broken, and those that lost tokens; hold the columns that no row had."""

    missing: set[str]
    rows: int = 0
    broken: int = 0
    cut: int = 0


def _answer(rows: Rows, predictor: Predictor, kind: str, out: Path | None) -> _Done:
    """Answer ``rows`` as they come, and count them."""
    from elicitable.deploy.outgoing import answered, write
    from elicitable.tasks.nested import flat

    form = predictor.record.form
    done = _Done({name for name in form.columns if name != form.main})
    with _output(out) as file:
        for row, prediction in write(file, kind, rows, form.main, answered(rows.rows, predictor)):
            done.rows += 1
            if done.missing:
                done.missing -= flat(row.values).keys()
            done.cut += prediction.cut > 0
            if prediction.fault:
                done.broken += 1
                if done.broken <= MOST_NAMED:
                    print(in_one_line(f"{rows.source}, {row.place}: {prediction.fault}"), file=sys.stderr)
        file.flush()
    return done


def _summary(done: _Done, quiet: bool) -> None:
    count, broken = done.rows, done.broken
    if broken or not quiet:
        more = f", {broken - MOST_NAMED:,} of them not named" if broken > MOST_NAMED else ""
        lost = f"; {broken:,} cannot be answered{more}" if broken else ""
        print(f"{count - broken:,} of {count:,} rows answered{lost}.", file=sys.stderr)
    if done.cut and not quiet:
        print(f"{done.cut:,} of them are longer than the model reads; what was too much was left out.", file=sys.stderr)
    if done.missing and count and not quiet:
        names = ", ".join(map(repr, sorted(done.missing)))
        print(
            in_one_line(f"No row has {names}, which the race showed beside the text; read as empty."), file=sys.stderr
        )
    if broken:
        raise typer.Exit(1)


def own_method(method: str | None) -> tuple[str | None, tuple[Method, ...]]:
    """Return the name of what was kept, and the method of a person's own that made it."""
    from elicitable.methods.catalog import method_named
    from elicitable.own_code import is_own_code

    if method is None or not is_own_code(method):
        return method, ()
    own = method_named(method)
    return own.name, (own,)


def _check_alone(of_file: Mapping[str, str | None]) -> None:
    """Raise InputError where one text is given, and an option of a file too."""
    for name, given in of_file.items():
        if given is not None:
            raise InputError(f"give either a file (--input) or one text (--text): {name} is of a file.")


def _source(source: str | None) -> str:
    if source is None and sys.stdin.isatty():
        raise InputError("nothing to answer: name a file (--input FILE), give a text (--text TEXT), or pipe rows in.")
    return source or "-"


def _reading(record: Record, column: str) -> Record:
    """Return ``record`` with its main column called ``column``."""
    form = record.form
    if column in form.columns and column != form.main:
        raise InputError(
            f"the column {column!r} is read as itself already, beside {form.main!r}; name another one (--column)."
        )
    columns = tuple(column if name == form.main else name for name in form.columns)
    answer = column if form.answer == form.main else form.answer
    return replace(record, form=replace(form, columns=columns, main=column, answer=answer))


def _wanted(form: Form) -> tuple[str, ...]:
    """Return the columns that a table must have, the main one first."""
    from elicitable.deploy.asked import CHOICES

    own = (form.choices or (CHOICES,)) if form.labels == () else ()
    return (form.main, *(name for name in form.columns if name != form.main), *own)


def _of_text(text: str, main: str) -> AbstractContextManager[Rows]:
    from elicitable.tasks.incoming import Incoming, Rows

    return nullcontext(Rows("the text", "text", (), iter([Incoming("--text", {main: text})])))


@contextmanager
def _output(out: Path | None) -> Iterator[TextIO]:
    """Yield where predictions go: standard output, or a file that is there whole or not at all."""
    from elicitable.cache import replacing_file

    if out is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # columns pass through as they came
        yield sys.stdout
        return
    with (
        replacing_file(out, "Free the place, or choose another --out.") as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file
