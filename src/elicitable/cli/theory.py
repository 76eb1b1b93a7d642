"""``elicitable construct``: what a person typed to a record, and the record to what is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from elicitable.constructions import capacity as capacities
from elicitable.constructions import catalog
from elicitable.constructions.alphabet import printable
from elicitable.constructions.construction import Construction
from elicitable.constructions.precision import DTYPES
from elicitable.constructions.reach import reach
from elicitable.constructions.trace import Trace, trace
from elicitable.constructions.transformer import INVERSE_TEMPERATURE
from elicitable.constructions.verify import Verification, verify
from elicitable.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass(frozen=True)
class Request:
    """The arguments of the command."""

    name: str
    vocab: int
    length: int | None
    inputs: int | None
    text: str | None
    mapping: Path | None
    given: str
    verify: str | None
    dtype: str
    temperature: float | None
    model: str
    hard_tokens: str
    virtual_tokens: int
    seed: int
    out: Path | None


Answer = tuple[dict[str, Any], list["RenderableType"]]


def answer(request: Request, console: Console | None) -> Answer:
    """The record of what was asked, and what to print of it; a picture goes to ``out`` when given."""
    if request.name == "list":
        return _listed()
    if request.name == "capacity":
        return _capacity(request, console)
    if request.name == "token-reach":
        from elicitable.cli.token_reach import answer as token_reach

        folder = request.out or Path("elicitable-runs") / "token-reach"
        return token_reach(request.model, request.hard_tokens, request.virtual_tokens, request.seed, folder, console)
    is_reach = request.name == "reach"
    names = [*(one.name for one in catalog.CATALOG), "capacity", "list", "reach", "token-reach"]
    name = "theorem-1" if is_reach else request.name
    if name not in names:
        raise UnknownNameError("construction", name, names)
    built = catalog.build(
        name,
        vocab=request.vocab,
        length=_length(request),
        inputs=request.inputs,
        dtype=request.dtype,
        inverse_temperature=INVERSE_TEMPERATURE if request.temperature is None else request.temperature,
    )
    if is_reach:
        found = reach(built)
        line = f"of {found.possible:,} behaviours, {found.hard_prompts:,} hard prompts reach {found.hard_reached:,}"
        virtual = "all (the theorem)" if found.virtual_reached is None else f"{found.virtual_reached:,} (each run)"
        return asdict(found), [line, f"virtual prompts reach {virtual}"]
    if request.verify is not None:
        return _verified(request, built, console)
    return _traced(request, built)


def _length(request: Request) -> int | None:
    if request.text is not None and request.length is None and request.name == "theorem-1":
        return len(request.text)
    return request.length


def _listed() -> Answer:
    rows = [{"name": one.name, "states": one.states, "option": one.option} for one in catalog.CATALOG]
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["states"])
    return {"constructions": rows}, [table]


def _facts(built: Construction) -> str:
    return (
        f"{built.name}: V = {built.vocab}, n_X = {built.n_input}, n_Y = {built.n_answer}, {built.n_virtual} virtual "
        f"token{'s' if built.n_virtual > 1 else ''}, {sum(p.numel() for p in built.model.parameters()):,} parameters; "
        f"T = {built.inverse_temperature:g} (bound {built.temperature_bound:.2f})"
    )


def _verified(request: Request, built: Construction, console: Console | None) -> Answer:
    how: Any = request.verify
    if how != "exhaustive":
        if not str(how).isdigit() or int(how) < 1:
            raise InputError(f"--verify takes exhaustive or a number of random targets, got {how!r}.")
        how = int(how)
    if console is not None:
        with console.status(f"verifying {built.name} …"):
            result = verify(built, how, seed=request.seed)
    else:
        result = verify(built, how, seed=request.seed)
    return asdict(result), [_facts(built), *_verification_lines(result)]


def _verification_lines(result: Verification) -> Iterator[str]:
    kind = "all" if result.exhaustive else f"{result.checked:,} random"
    yield (
        f"{kind} targets: {result.checked:,} checked on every input, {result.decisions:,} symbols, "
        f"{result.failures:,} wrong, in {result.seconds:.1f} s ({result.dtype})"
    )
    yield f"smallest margin {result.smallest_margin:.3g}; 1/V² = {result.ideal_margin:.3g}"
    for one in result.counterexamples:
        yield f"counterexample: target {one.target}, input {one.inputs}, step {one.step}: {one.wanted} → {one.emitted}"


def _target(request: Request, built: Construction) -> Any:
    """What the construction is made to do: the text, the map, or a random target of the seed."""
    if request.text is not None and request.mapping is not None:
        raise InputError("give either --text or --map, not both.")
    alphabet = printable(built.vocab) if built.vocab <= 95 else None
    if request.text is not None:
        if built.n_input:
            raise InputError(f"{built.name} realises a map: give --map FILE instead of --text.")
        if alphabet is None:
            raise InputError("texts need a vocabulary of at most 95, the printable ASCII characters.")
        return alphabet.fit(request.text, built.n_answer)
    if request.mapping is not None:
        if alphabet is None:
            raise InputError("maps of text need a vocabulary of at most 95, the printable ASCII characters.")
        return _read_map(request.mapping, built)
    return built.random_targets(1, np.random.default_rng(request.seed))[0].reshape(built.target_shape)


def _read_map(path: Path, built: Construction) -> dict[Any, Any]:
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the map {path} cannot be read: {error}.") from error
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise InputError(f"the map {path} must be a JSON object from input text to answer text.")
    alphabet = printable(built.vocab)
    return {alphabet.encode(key): alphabet.fit(value, built.n_answer) for key, value in pairs.items()}


def _traced(request: Request, built: Construction) -> Answer:
    alphabet = printable(built.vocab) if built.vocab <= 95 else None
    if request.given and alphabet is None:
        raise InputError("--input needs a vocabulary of at most 95, the printable ASCII characters.")
    user = alphabet.encode(request.given) if request.given and alphabet else (0,) * built.n_input
    run = trace(built, _target(request, built), user)
    is_text = request.text is not None or request.mapping is not None
    characters = alphabet.characters if alphabet is not None and is_text else ""
    record = asdict(run) | {"checked": len(run.steps), "counterexamples": _misses(run)}
    shown: list[RenderableType] = [_facts(built), *_token_lines(run), _steps_table(run, characters)]
    if request.out is not None:
        shown.append(f"picture: {_picture(run, request.out, characters)}")
    return record, shown


def _misses(run: Trace) -> list[dict[str, int]]:
    pairs = zip(run.wanted, run.emitted, strict=True)
    return [{"step": i + 1, "wanted": w, "emitted": e} for i, (w, e) in enumerate(pairs) if w != e]


def _token_lines(run: Trace) -> Iterator[str]:
    for nth, token in enumerate(run.tokens[:3]):
        numbers = [*(f"{x:.4g}" for x in token[:24]), *(["…"] if len(token) > 24 else [])]
        yield f"virtual token {nth + 1}: ({', '.join(numbers)})"
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


def _picture(run: Trace, folder: Path, characters: str) -> Path:
    from elicitable.cache import replace_file
    from elicitable.report.constructions import plot_decoding
    from elicitable.report.microscope import figure_svg

    path = folder / f"{run.construction}.svg"
    replace_file(path, figure_svg(plot_decoding(run, 1, characters)))
    return path


def _capacity(request: Request, console: Console | None) -> Answer:
    dtypes = tuple(DTYPES)
    if console is not None:
        with console.status("looking for the largest exact sizes …"):
            rows = capacities.capacity(dtypes, seed=request.seed)
    else:
        rows = capacities.capacity(dtypes, seed=request.seed)
    table = Table(box=None, pad_edge=False)
    for head in ("type", "construction", "V", "n_X", "N", "T needed", "T bound", "margin", "1/V²"):
        table.add_column(head, justify="left" if head in ("type", "construction") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.dtype,
            row.construction,
            f"{row.vocab:,}",
            str(row.n_input),
            str(row.n_answer),
            f"{row.temperature_needed:.2f}",
            f"{row.temperature_bound:.2f}",
            f"{row.smallest_margin:.1e}",
            f"{row.ideal_margin:.1e}",
        )
    limits = [f"{row.dtype} {row.construction}, V = {row.vocab:,}: {row.limited_by}" for row in rows]
    shown: list[RenderableType] = [table, "", "What limits each row:", *limits]
    if request.out is not None:
        from elicitable.cache import replace_file
        from elicitable.report.constructions import plot_capacity
        from elicitable.report.microscope import figure_svg

        path = request.out / "capacity.svg"
        replace_file(path, figure_svg(plot_capacity(rows)))
        shown.append(f"plot: {path}")
    return {"rows": [asdict(row) for row in rows], "checked": sum(row.checked for row in rows)}, shown
