"""``elicitable construct``: what a person typed to a record, and the record to what is printed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from elicitable.cache import replace_file
from elicitable.constructions import any_sequence, catalog, longer_answers
from elicitable.constructions import capacity as capacities
from elicitable.constructions.alphabet import PRINTABLE, Alphabet, printable
from elicitable.constructions.capacity import CapacityRow
from elicitable.constructions.construction import Construction
from elicitable.constructions.precision import DTYPES
from elicitable.constructions.reach import reach
from elicitable.constructions.trace import Trace, trace
from elicitable.constructions.transformer import INVERSE_TEMPERATURE
from elicitable.constructions.verify import Verification, verify
from elicitable.errors import InputError, UnknownNameError
from elicitable.report.constructions import decoding_lines, plot_capacity, plot_decoding
from elicitable.report.microscope import figure_svg
from elicitable.report.notation import plural
from elicitable.report.verdict_json import plain_json
from elicitable.rng import generator

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: What can be asked for beside the constructions.
MORE = {
    "capacity": "how far each construction goes in each floating-point type  (--dtype for one)",
    "reach": "sequences that hard and virtual tokens reach in theorem 1  (--vocab --length)",
    "token-reach": "the same question to a trained language model  (--model --targets …)",
}

#: Logits kept of each step: the symbol read and three neighbours on either side.
SHOWN_LOGITS = 7

OUT_ADVICE = "Give --out a folder that can be written to."


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
    unchecked: bool
    model: str
    hard_tokens: str
    virtual_tokens: int
    targets: str
    seed: int
    out: Path | None
    asked: frozenset[str] = frozenset()  # the options that were typed


Answer = tuple[dict[str, Any], list["RenderableType"]]

ALWAYS = frozenset({"name", "seed", "out", "as_json", "quiet"})
BUILDING = frozenset({"vocab", "length", "inputs", "dtype", "temperature", "unchecked"})
TRACING = frozenset({"text", "mapping", "given"})
#: What each name takes beside ALWAYS; the constructions take BUILDING and either TRACING or --verify.
TAKES = {
    "list": frozenset[str](),
    "capacity": frozenset({"dtype"}),
    "reach": BUILDING,
    "token-reach": frozenset({"model", "hard_tokens", "virtual_tokens", "targets"}),
}


def answer(request: Request, console: Console | None) -> Answer:
    """The record of what was asked, and what to print of it; record and picture go to ``out`` when given."""
    names = [*(one.name for one in catalog.CATALOG), *TAKES]
    if request.name not in names:
        raise UnknownNameError("construction", request.name, names)
    _check_asked(request)
    if request.name == "token-reach":
        from elicitable.cli.token_reach import answer as token_reach

        folder = request.out or Path("elicitable-runs") / "token-reach"
        sizes = (request.hard_tokens, request.virtual_tokens, request.targets)
        return token_reach(request.model, *sizes, request.seed, folder, console)
    record, shown = _answer(request, console)
    if request.out is not None:
        shown.append(f"record: {_keep(request.out / f'{request.name}.json', record)}")
    return record, shown


def _answer(request: Request, console: Console | None) -> Answer:
    if request.name == "list":
        return _listed()
    if request.name == "capacity":
        return _capacity(request, console)
    if request.name == "reach":
        return _reached(_built(request, any_sequence.NAME))
    built = _built(request, request.name)
    return _traced(request, built) if request.verify is None else _verified(request, built, console)


def _check_asked(request: Request) -> None:
    """Raises InputError for an option that would be ignored."""
    modes = BUILDING | ({"verify"} if request.verify is not None else TRACING)
    takes = TAKES.get(request.name, modes)
    foreign = sorted(map(_flag, request.asked - takes - ALWAYS))
    if foreign:
        what = request.name if request.verify is None or request.name in TAKES else f"{request.name} with --verify"
        flags = ", ".join(sorted(map(_flag, takes))) or "no option but --seed, --out, --json and --quiet"
        raise InputError(f"{what} does not take {foreign[0]}; it takes {flags}.")


def _flag(option: str) -> str:
    return "--" + {"mapping": "map", "given": "input"}.get(option, option.replace("_", "-"))


def _built(request: Request, name: str) -> Construction:
    length = request.length
    if request.text is not None and length is None and name == any_sequence.NAME:
        length = len(request.text)
    return catalog.build(
        name,
        vocab=request.vocab,
        length=length,
        inputs=request.inputs,
        dtype=request.dtype,
        inverse_temperature=INVERSE_TEMPERATURE if request.temperature is None else request.temperature,
        unchecked=request.unchecked,
    )


def _keep(path: Path, record: dict[str, Any]) -> Path:
    replace_file(path, (json.dumps(plain_json(record), indent=1) + "\n").encode(), OUT_ADVICE)
    return path


def _reached(built: Construction) -> Answer:
    found = reach(built)
    return asdict(found), [
        f"{found.construction}: V = {found.vocab}, N = {found.n_answer}, V^N = {found.possible:,} sequences",
        f"{found.hard_prompts:,} hard tokens, each run, reach {found.hard_reached:,}",
        "virtual tokens reach all of them (by the theorem; too many to run)"
        if found.virtual_reached is None
        else f"{found.possible:,} virtual tokens, each run, reach {found.virtual_reached:,}",
    ]


def _listed() -> Answer:
    rows = [{"name": one.name, "states": one.states, "option": one.option} for one in catalog.CATALOG]
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        sizes = f"--vocab --{row['option']}" if row["option"] else "--vocab"
        table.add_row(row["name"], f"{row['states']}  ({sizes})")
    for name, does in MORE.items():
        table.add_row(name, does)
    return {"constructions": rows, "more": MORE}, [table]


def _facts(built: Construction) -> str:
    return (
        f"{built.name}: V = {built.vocab}, n_X = {built.n_input}, n_Y = {built.n_answer}, {built.n_virtual} virtual "
        f"token{'s' if built.n_virtual > 1 else ''}, {sum(p.numel() for p in built.model.parameters()):,} parameters; "
        f"T = {built.inverse_temperature:g} (bound {built.temperature_bound:.2f})"
    )


def _verified(request: Request, built: Construction, console: Console | None) -> Answer:
    how: Any = request.verify
    if how != "exhaustive":
        if not str(how).isdecimal() or int(how) < 1:
            raise InputError(f"--verify takes exhaustive or a number of random targets, got {how!r}.")
        how = int(how)
    with _status(console, f"verifying {built.name} …"):
        result = verify(built, how, seed=request.seed)
    return plain_json(asdict(result)), [_facts(built), *_verification_lines(result)]


def _status(console: Console | None, what: str) -> AbstractContextManager[object]:
    return nullcontext() if console is None else console.status(what)


def _verification_lines(result: Verification) -> Iterator[str]:
    kind = "all" if result.exhaustive else f"{result.checked:,} random"
    yield (
        f"{kind} targets: {result.checked:,} checked on every input, {result.decisions:,} symbols, "
        f"{result.failures:,} wrong, in {result.seconds:.1f} s ({result.dtype})"
    )
    yield f"smallest margin {result.smallest_margin:.3g}; 1/V² = {result.ideal_margin:.3g}"
    for one in result.counterexamples:
        where = f"input {_row(one.inputs)}, step {one.step}" if one.inputs else f"step {one.step}"
        yield f"counterexample: target {_row(one.target)}, {where}: {one.wanted} → {one.emitted}"


def _row(numbers: Sequence[float]) -> str:
    """Numbers in brackets, the first 24 of them; all are in the record."""
    return f"({', '.join([*(f'{number:.4g}' for number in numbers[:24]), *(['…'] if len(numbers) > 24 else [])])})"


def _alphabet(built: Construction, what: str) -> Alphabet:
    if built.vocab > len(PRINTABLE):
        raise InputError(f"{what} needs a vocabulary of at most {len(PRINTABLE)}, the printable ASCII characters.")
    return printable(built.vocab)


def _target(request: Request, built: Construction) -> Any:
    """What the construction is made to do: the text, the map, or a random target of the seed."""
    if request.text is not None:
        if built.n_input:
            raise InputError(f"{built.name} realises a map: give --map FILE instead of --text.")
        return _alphabet(built, "--text").fit(request.text, built.n_answer)
    if request.mapping is not None:
        if not built.n_input:
            raise InputError(f"{built.name} emits a sequence: give --text instead of --map.")
        return _read_map(request.mapping, built, _alphabet(built, "--map"))
    draws = generator(request.seed, "constructions", "target", built.name)
    return built.random_targets(1, draws)[0].reshape(built.target_shape)


def _read_map(path: Path, built: Construction, alphabet: Alphabet) -> dict[Any, Any]:
    """A total map from texts of n_X characters to texts of at most n_Y; shorter answers are filled up with spaces."""
    answers = _read_answers(path)
    for given, text in answers.items():
        if len(given) != built.n_input:
            raise InputError(f"the map {path} answers {given!r}, but an input is {plural(built.n_input, 'character')}.")
        if len(text) > built.n_answer:
            longer = f" or give --length {len(text)}" if built.name == longer_answers.NAME else ""
            raise InputError(
                f"the map {path} answers {given!r} with {text!r}, but an answer is at most "
                f"{plural(built.n_answer, 'character')}; shorten it{longer}."
            )
    pairs = {alphabet.encode(given): alphabet.fit(text, built.n_answer) for given, text in answers.items()}
    missing = [row for row in map(tuple, built.inputs().tolist()) if row not in pairs]
    if missing:
        raise InputError(
            f"the map {path} is not total: {len(missing):,} of {built.n_inputs:,} inputs have no answer, the first is "
            f"{alphabet.decode(missing[0])!r}; give each an answer."
        )
    return pairs


def _read_answers(path: Path) -> dict[str, str]:
    """The JSON object in a file; raises InputError for anything else, and for a key that stands there twice."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the map {path} cannot be read: {error}.") from error
    # the hook turns {"a": "b"} into [("a", "b")]; a JSON list holds no tuples
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) and isinstance(pair[1], str) for pair in pairs):
        raise InputError(f"the map {path} must be a JSON object from input text to answer text.")
    twice = [given for given, times in Counter(given for given, _ in pairs).items() if times > 1]
    if twice:
        raise InputError(f"the map {path} answers {twice[0]!r} more than once; keep one answer.")
    return dict(pairs)


def _traced(request: Request, built: Construction) -> Answer:
    if request.text is not None and request.mapping is not None:
        raise InputError("give either --text or --map, not both.")
    user = _alphabet(built, "--input").encode(request.given) if request.given else (0,) * built.n_input
    run = trace(built, _target(request, built), user, top=SHOWN_LOGITS)
    is_text = request.text is not None or request.mapping is not None
    characters = printable(built.vocab).characters if is_text else ""
    record = plain_json(asdict(run)) | {"checked": len(run.steps), "counterexamples": _misses(run)}
    shown: list[RenderableType] = [_facts(built), *_token_lines(run), _steps_table(run, characters)]
    shown += ["", *decoding_lines(run, 1, characters)]
    if request.out is not None:
        shown.append(f"picture: {_picture(run, request.out, characters)}")
    return record, shown


def _misses(run: Trace) -> list[dict[str, int]]:
    pairs = zip(run.wanted, run.emitted, strict=True)
    return [{"step": i + 1, "wanted": w, "emitted": e} for i, (w, e) in enumerate(pairs) if w != e]


def _token_lines(run: Trace) -> Iterator[str]:
    for nth, token in enumerate(run.tokens[:3]):
        yield f"virtual token {nth + 1}: {_row(token)}"
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
    path = folder / f"{run.construction}.svg"
    replace_file(path, figure_svg(plot_decoding(run, 1, characters)), OUT_ADVICE)
    return path


def _capacity(request: Request, console: Console | None) -> Answer:
    dtypes = (request.dtype,) if "dtype" in request.asked else tuple(DTYPES)
    with _status(console, "looking for the largest exact sizes …"):
        rows = capacities.capacity(dtypes, seed=request.seed)
    shown: list[RenderableType] = [_capacity_table(rows), "", "What limits each row:", *map(_limit, rows)]
    if request.out is not None:
        path = request.out / "capacity.svg"
        replace_file(path, figure_svg(plot_capacity(rows)), OUT_ADVICE)
        shown.append(f"plot: {path}")
    record = {"rows": [asdict(row) for row in rows], "checked": sum(row.checked for row in rows)}
    return plain_json(record), shown


def _limit(row: CapacityRow) -> str:
    """What ends a row, and how many symbols are wrong one vocabulary above, where that was run all the same."""
    above = f"; run all the same, {row.failures_above:,} symbols are wrong" if row.failures_above else ""
    sizes = f"V = {row.vocab:,}, n_X = {row.n_input}, N = {row.n_answer}"
    return f"{row.dtype} {row.construction}, {sizes}: {row.limited_by}{above}"


def _capacity_table(rows: Iterable[CapacityRow]) -> Table:
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
    return table
