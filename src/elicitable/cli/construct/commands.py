"""The subcommands of ``elicitable construct``, each with the options that fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elicitable.cli.construct.options import (
    Alphabet,
    AnswerLength,
    BuildOptions,
    Inputs,
    Length,
    MapOptions,
    Request,
    RunOptions,
    Text,
)
from elicitable.cli.options import Json, Out, Quiet, Resumed, Seed
from elicitable.cli.output import RUNS, print_json, result_console

if TYPE_CHECKING:
    from rich.console import RenderableType


def theorem_1(
    *, built: BuildOptions, length: Length = None, alphabet: Alphabet = None, text: Text = None, run: RunOptions
) -> None:
    """Theorem 1: one virtual token makes the transformer emit any sequence."""
    _theorem("theorem-1", built, run, MapOptions(alphabet=alphabet), length=length, text=text)


def theorem_2(*, built: BuildOptions, told: MapOptions, run: RunOptions) -> None:
    """Theorem 2: one virtual token makes it realise any map from one token to one token."""
    _theorem("theorem-2", built, run, told)


def longer_answers(*, built: BuildOptions, length: AnswerLength = None, told: MapOptions, run: RunOptions) -> None:
    """With n_Y virtual tokens: any map from one token to n_Y tokens."""
    _theorem("longer-answers", built, run, told, length=length)


def packed_inputs(*, built: BuildOptions, inputs: Inputs = None, told: MapOptions, run: RunOptions) -> None:
    """With one virtual token: any map from n_X tokens to one, paid in precision."""
    _theorem("packed-inputs", built, run, told, inputs=inputs)


def tabled_inputs(*, built: BuildOptions, inputs: Inputs = None, told: MapOptions, run: RunOptions) -> None:
    """With V^(n_X−1) virtual tokens: any map from n_X tokens to one, paid in length."""
    _theorem("tabled-inputs", built, run, told, inputs=inputs)


def capacity(
    dtype: Annotated[
        str | None, typer.Option(help="float64, float32, bfloat16 or float16 [default: each of them]")
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find how far each construction goes in each floating-point type."""
    from elicitable.cli.construct.capacity import answer

    record, shown = answer(dtype, seed, out, quiet)
    _tell("capacity", _computed(record), shown, out, as_json)


def reach(
    built: BuildOptions,
    length: Annotated[int | None, typer.Option(help="N, the symbols of the sequence [default: 6]")] = None,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count the sequences that hard and virtual tokens reach in theorem 1."""
    from elicitable.cli.construct.reach import answer

    record, shown = answer(built, length, quiet)
    _tell("reach", _computed(record), shown, out, as_json)


def token_reach(
    model: Annotated[str, typer.Option("--model", "-m", help="a language model, named as everywhere")] = "smollm2",
    hard_tokens: Annotated[str, typer.Option(help="how many hard tokens to try, or all")] = "2000",
    virtual_tokens: Annotated[int, typer.Option(help="how many virtual tokens to train")] = 64,
    targets: Annotated[
        str, typer.Option(help="model (continuations it writes itself) or random (uniform tokens)")
    ] = "model",
    seed: Seed = 0,
    out: Resumed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put the same question to a trained language model."""
    from elicitable.cli.construct.token_reach import answer

    folder = out or RUNS / "token-reach"
    record, shown = answer(model, hard_tokens, virtual_tokens, targets, seed, folder, quiet)
    _tell("token-reach", record, shown, None, as_json)


def listing(as_json: Json = False) -> None:
    """List the constructions with the sizes they take."""
    from elicitable.cli.construct.listed import answer

    record, shown = answer()
    _tell("list", record, shown, None, as_json)


#: By the name that is typed.
CONSTRUCTIONS: dict[str, Callable[..., None]] = {
    "theorem-1": theorem_1,
    "theorem-2": theorem_2,
    "longer-answers": longer_answers,
    "packed-inputs": packed_inputs,
    "tabled-inputs": tabled_inputs,
    "capacity": capacity,
    "reach": reach,
    "token-reach": token_reach,
    "list": listing,
}


def _theorem(
    name: str,
    built: BuildOptions,
    run: RunOptions,
    told: MapOptions,
    length: int | None = None,
    inputs: int | None = None,
    text: str | None = None,
) -> None:
    from elicitable.cli.construct.theorem import answer

    request = Request(name, built, run, told, length, inputs, text)
    record, shown = answer(request)
    _tell(name, _computed(record), shown, run.out, run.as_json)


def _computed(record: dict[str, Any]) -> dict[str, Any]:
    """Add where a construction was run, which is the CPU."""
    from elicitable.models.speed.processor import made_on

    return {**record, **made_on()}


def _tell(name: str, record: dict[str, Any], shown: list[RenderableType], out: Path | None, as_json: bool) -> None:
    """Keep the record in ``out`` and print it; exit code 1 where it holds a counterexample."""
    if out is not None:
        from elicitable.cli.construct.record import keep

        shown.append(f"record: {keep(out / f'{name}.json', record)}")
    if as_json:
        print_json(record)
    else:
        for part in shown:
            result_console().print(part, highlight=False, markup=False)
    if record.get("counterexamples"):
        raise typer.Exit(1)
