"""Run a construction on one target and show every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from elicitable.cli.construct.options import Request
from elicitable.cli.construct.record import Answer, keep_picture
from elicitable.cli.construct.wanted import Wanted
from elicitable.constructions.alphabet import Alphabet
from elicitable.constructions.construction import Construction
from elicitable.constructions.trace import Trace, trace
from elicitable.errors import InputError
from elicitable.report.constructions import decoding_lines, plot_decoding
from elicitable.report.microscope import figure_svg
from elicitable.report.notation import plural
from elicitable.report.verdict_json import plain_json
from elicitable.rng import generator

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Logits kept of each step: the symbol read and three neighbours on either side.
SHOWN_LOGITS = 7


def traced(request: Request, built: Construction, wanted: Wanted) -> Answer:
    """The record of one run, step by step, and what to print of it."""
    target = wanted.target
    if target is None:
        draws = generator(request.run.seed, "constructions", "target", built.name)
        target = built.random_targets(1, draws)[0].reshape(built.target_shape)
    run = trace(built, target, _user(request.told.given, built, wanted.alphabet), top=SHOWN_LOGITS)
    characters = wanted.characters
    record = plain_json(asdict(run)) | {"checked": len(run.steps), "counterexamples": _misses(run)}
    shown: list[RenderableType] = [facts(built), *_token_lines(run), _steps_table(run, characters)]
    shown += _answer_line(run, wanted)
    shown += ["", *decoding_lines(run, 1, characters)]
    if request.run.out is not None:
        path = request.run.out / f"{run.construction}.svg"
        shown.append(f"picture: {keep_picture(path, figure_svg(plot_decoding(run, 1, characters)))}")
    return record, shown


def _user(given: str, built: Construction, alphabet: Alphabet | None) -> tuple[int, ...]:
    """The user input in symbols; symbol 0 throughout where none was typed."""
    if not given or alphabet is None:
        return (0,) * built.n_input
    symbols = alphabet.encode(given)
    if len(symbols) != built.n_input:
        raise InputError(
            f"--input {given!r} has {plural(len(symbols), 'character')}, but an input is "
            f"{plural(built.n_input, 'character')}."
        )
    return symbols


def _answer_line(run: Trace, wanted: Wanted) -> Iterator[str]:
    """What a map answered, and where the answer ends."""
    if wanted.alphabet is None or wanted.texts is None:
        return
    given, emitted = wanted.alphabet.decode(run.inputs), wanted.alphabet.decode(run.emitted)
    end = len(wanted.texts.answers[given])
    filled = f", filled up to {plural(len(emitted), 'symbol')} with {wanted.characters[0]!r}"
    yield f"answer to {given!r}: {emitted[:end]!r}{filled if end < len(emitted) else ''}"


def _misses(run: Trace) -> list[dict[str, int]]:
    pairs = zip(run.wanted, run.emitted, strict=True)
    return [{"step": i + 1, "wanted": w, "emitted": e} for i, (w, e) in enumerate(pairs) if w != e]


def facts(built: Construction) -> str:
    """A line with the sizes of a construction."""
    return (
        f"{built.name}: V = {built.vocab}, n_X = {built.n_input}, n_Y = {built.n_answer}, {built.n_virtual} virtual "
        f"token{'s' if built.n_virtual > 1 else ''}, {sum(p.numel() for p in built.model.parameters()):,} parameters; "
        f"T = {built.inverse_temperature:g} (bound {built.temperature_bound:.2f})"
    )


def row(numbers: Sequence[float]) -> str:
    """Numbers in brackets, the first 24 of them; all are in the record."""
    return f"({', '.join([*(f'{number:.4g}' for number in numbers[:24]), *(['…'] if len(numbers) > 24 else [])])})"


def _token_lines(run: Trace) -> Iterator[str]:
    for nth, token in enumerate(run.tokens[:3]):
        yield f"virtual token {nth + 1}: {row(token)}"
    if len(run.tokens) > 3:
        yield f"… and {len(run.tokens) - 3:,} more virtual tokens"


def _steps_table(run: Trace, characters: str) -> Table:
    def name(symbol: int) -> str:
        return repr(characters[symbol]) if characters else str(symbol)

    table = Table(box=None, pad_edge=False)
    for head in ("step", "looked at", "z", "z·V", "best logits", "margin", "emits"):
        table.add_column(head, justify="right")
    for step in run.steps:
        looked = " ".join(f"{pick.position}({pick.weight:.2f})" for pick in step.picks)
        best = " ".join(f"{name(symbol)}:{logit:.4f}" for symbol, logit in step.top[:2])
        table.add_row(
            str(step.step),
            looked,
            f"{step.z:.4f}",
            f"{step.z * run.vocab:.2f}",
            best,
            f"{step.margin:.2e}",
            name(step.emitted),
        )
    written = "".join(characters[symbol] for symbol in run.emitted) if characters else " ".join(map(str, run.emitted))
    table.caption = f"emitted: {written}"
    return table
