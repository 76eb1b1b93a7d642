"""The options that several subcommands of ``elicitable construct`` take, and the request that they make together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from elicitable.cli.options import Json, Out, Quiet, Seed

Text = Annotated[str | None, typer.Option(help="the text to emit")]
Length = Annotated[int | None, typer.Option(help="N, the symbols of the sequence [default: 6, or those of --text]")]
AnswerLength = Annotated[
    int | None, typer.Option("--length", help="n_Y, the symbols of an answer [default: 4, or the longest of --map]")
]
Inputs = Annotated[int | None, typer.Option(help="n_X, the symbols of an input [default: 2]")]
Alphabet = Annotated[
    str | None,
    typer.Option(
        "--alphabet",
        help="the characters of the symbols, in order; V is their number [default: printable ASCII from the space]",
    ),
]


@dataclass(frozen=True)
class BuildOptions:
    """What every transformer that is built is made of."""

    vocab: Annotated[int | None, typer.Option(help="V, the size of the vocabulary [default: 10]")] = None
    dtype: Annotated[str, typer.Option(help="float64, float32, bfloat16 or float16")] = "float64"
    temperature: Annotated[float | None, typer.Option(help="the inverse temperature T of the softmax")] = None
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="build sizes that the dtype cannot carry too, to see them fail")
    ] = False


@dataclass(frozen=True)
class MapOptions:
    """The map that a transformer realises, and the input that it is shown on."""

    alphabet: Alphabet = None
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="a JSON object from input text to answer text; its characters are the alphabet where none is given "
            "[default: a random map]",
        ),
    ] = None
    given: Annotated[str, typer.Option("--input", help="the user input that the answer is generated for")] = ""


@dataclass(frozen=True)
class RunOptions:
    """What is done with a transformer once it is built, and where the result goes."""

    verify: Annotated[str | None, typer.Option(help="exhaustive, or how many random targets")] = None
    seed: Seed = 0
    out: Out = None
    as_json: Json = False
    quiet: Quiet = False


@dataclass(frozen=True)
class Request:
    """What one theorem was asked for; the sizes are None where they were not typed."""

    name: str
    built: BuildOptions
    run: RunOptions
    told: MapOptions
    length: int | None = None
    inputs: int | None = None
    text: str | None = None
