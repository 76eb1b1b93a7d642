"""``elicitable construct``: what a person typed to a record, and the record to what is printed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from elicitable.cache import replace_file
from elicitable.cli import text_map
from elicitable.cli.text_map import TextMap
from elicitable.constructions import any_sequence, catalog, longer_answers
from elicitable.constructions import capacity as capacities
from elicitable.constructions.alphabet import PRINTABLE, Alphabet, printable
from elicitable.constructions.capacity import CapacityRow
from elicitable.constructions.construction import Construction, Target
from elicitable.constructions.precision import DTYPES
from elicitable.constructions.reach import reach
from elicitable.constructions.trace import Trace, trace
from elicitable.constructions.transformer import INVERSE_TEMPERATURE
from elicitable.constructions.verify import Verification, verify, verify_targets
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
    alphabet: str | None
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


@dataclass(frozen=True)
class Wanted:
    """What a construction is to do: its target and the alphabet it is told in, None where only numbers were asked for.

    ``origin`` says whose characters the alphabet is; ``texts`` is the map that the target was read from.
    """

    target: Target | None = None
    alphabet: Alphabet | None = None
    origin: str = ""
    texts: TextMap | None = None

    @property
    def characters(self) -> str:
        """The characters of the alphabet; none where there is no alphabet."""
        return "" if self.alphabet is None else self.alphabet.characters


Answer = tuple[dict[str, Any], list["RenderableType"]]

ALWAYS = frozenset({"name", "seed", "out", "as_json", "quiet"})
BUILDING = frozenset({"vocab", "length", "inputs", "dtype", "temperature", "unchecked"})
TELLING = frozenset({"alphabet", "mapping"})
TRACING = frozenset({"text", "given"})
#: What each name takes beside ALWAYS; the constructions take BUILDING, TELLING and either TRACING or --verify.
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
    sized, wanted = _wanted(request)
    built = _built(sized, request.name)
    told = _traced if request.verify is None else _verified
    record, shown = told(request, built, wanted, console)
    if wanted.alphabet is not None:
        record["alphabet"] = wanted.characters
        shown.insert(1, f"alphabet: {wanted.alphabet}, {wanted.origin}")
    return record, shown


def _check_asked(request: Request) -> None:
    """Raises InputError for an option that would be ignored."""
    modes = BUILDING | TELLING | ({"verify"} if request.verify is not None else TRACING)
    takes = TAKES.get(request.name, modes)
    foreign = sorted(map(_flag, request.asked - takes - ALWAYS))
    if foreign:
        what = request.name if request.verify is None or request.name in TAKES else f"{request.name} with --verify"
        flags = ", ".join(sorted(map(_flag, takes))) or "no option but --seed, --out, --json and --quiet"
        raise InputError(f"{what} does not take {foreign[0]}; it takes {flags}.")


def _flag(option: str) -> str:
    return "--" + {"mapping": "map", "given": "input"}.get(option, option.replace("_", "-"))


def _wanted(request: Request) -> tuple[Request, Wanted]:
    """What was asked for, read and checked, and the request with the sizes that follow from it."""
    if request.text is not None and request.mapping is not None:
        raise InputError("give either --text or --map, not both.")
    if request.text is not None and request.name != any_sequence.NAME:
        raise InputError(f"{request.name} realises a map: give --map FILE instead of --text.")
    if request.mapping is not None and request.name == any_sequence.NAME:
        raise InputError(f"{request.name} emits a sequence: give --text instead of --map.")
    texts = None if request.mapping is None else text_map.read(request.mapping)
    alphabet, origin = _alphabet(request, texts)
    sized = replace(request, vocab=request.vocab if alphabet is None else len(alphabet), length=_length(request, texts))
    return sized, Wanted(_target(sized, alphabet, origin, texts), alphabet, origin, texts)


def _alphabet(request: Request, texts: TextMap | None) -> tuple[Alphabet | None, str]:
    """The characters of the symbols and whose they are: those typed, those of the map, or printable ASCII."""
    if request.alphabet is not None:
        return _typed_alphabet(request, request.alphabet), "given by --alphabet"
    if texts is not None and "vocab" not in request.asked:
        only = texts.only_answered()
        of_answers = f" ({only!r} only in answers)" if only else ""
        return _shown(texts.alphabet()), f"the characters of the map's inputs and answers{of_answers}"
    asked = [option for option in ("text", "mapping", "given") if getattr(request, option) not in (None, "")]
    if not asked:
        return None, ""
    if request.vocab > len(PRINTABLE):
        raise InputError(
            f"{_flag(asked[0])} needs a vocabulary of at most {len(PRINTABLE)}, the printable ASCII characters, or "
            "--alphabet."
        )
    return printable(request.vocab), "the first printable ASCII characters"


def _typed_alphabet(request: Request, characters: str) -> Alphabet:
    """The alphabet of --alphabet; raises InputError for one that --vocab disagrees with."""
    alphabet = _shown(Alphabet(characters))
    if "vocab" in request.asked and request.vocab != len(alphabet):
        raise InputError(
            f"--vocab {request.vocab} disagrees with the {plural(len(alphabet), 'character')} of --alphabet; "
            "leave --vocab out."
        )
    return alphabet


def _shown(alphabet: Alphabet) -> Alphabet:
    """The alphabet; raises InputError for a character that a terminal cannot show."""
    for character in alphabet.characters:
        if not character.isprintable():
            raise InputError(f"the character {character!r} cannot be shown; an alphabet has printable characters only.")
    return alphabet


def _length(request: Request, texts: TextMap | None) -> int | None:
    """The length typed, or else that of the text or of the longest answer (at least 1)."""
    if request.length is None and request.text is not None:
        return len(request.text)
    if request.length is None and texts is not None and request.name == longer_answers.NAME:
        return max(1, texts.longest)
    return request.length


def _target(sized: Request, alphabet: Alphabet | None, origin: str, texts: TextMap | None) -> Target | None:
    """The text or the map in symbols; None where neither was given."""
    if alphabet is not None and sized.text is not None:
        return alphabet.fit(sized.text, sized.length or 0)
    if alphabet is None or texts is None:
        return None
    known = catalog.entry(sized.name)
    n_input, n_answer, advice = 1, 1, ""
    if known.option == "inputs":
        n_input = known.default if sized.inputs is None else sized.inputs
    elif known.option == "length":
        n_answer, advice = sized.length or 0, f" or give --length {texts.longest}"
    return texts.encode(alphabet, origin, n_input, n_answer, advice)


def _built(request: Request, name: str) -> Construction:
    return catalog.build(
        name,
        vocab=request.vocab,
        length=request.length,
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


def _verified(request: Request, built: Construction, wanted: Wanted, console: Console | None) -> Answer:
    how: Any = request.verify
    if wanted.target is not None and how != "exhaustive":
        raise InputError(f"--map is the one target: give --verify exhaustive with it, not {how!r}, or leave --map out.")
    if how != "exhaustive":
        if not str(how).isdecimal() or int(how) < 1:
            raise InputError(f"--verify takes exhaustive or a number of random targets, got {how!r}.")
        how = int(how)
    with _status(console, f"verifying {built.name} …"):
        if wanted.target is None:
            result = verify(built, how, seed=request.seed)
        else:
            result = verify_targets(built, built.table(wanted.target)[None])
    return plain_json(asdict(result)), [_facts(built), *_verification_lines(result, wanted)]


def _status(console: Console | None, what: str) -> AbstractContextManager[object]:
    return nullcontext() if console is None else console.status(what)


def _verification_lines(result: Verification, wanted: Wanted) -> Iterator[str]:
    kind = "all" if result.exhaustive else f"{result.checked:,} random"
    what = f"{kind} targets: {result.checked:,} checked on every input, "
    if wanted.texts is not None:
        what = f"the map {wanted.texts.path}: {result.passes:,} inputs, each run: "
        yield from _filling_line(result, wanted)
    yield f"{what}{result.decisions:,} symbols, {result.failures:,} wrong, in {result.seconds:.1f} s ({result.dtype})"
    yield f"smallest margin {result.smallest_margin:.3g}; 1/V² = {result.ideal_margin:.3g}"
    for one in result.counterexamples:
        if wanted.alphabet is not None and wanted.texts is not None:
            given, right, emitted = (wanted.alphabet.decode(row) for row in (one.inputs, (one.wanted,), (one.emitted,)))
            yield f"counterexample: input {given!r}, step {one.step}: {right!r} → {emitted!r}"
            continue
        where = f"input {_row(one.inputs)}, step {one.step}" if one.inputs else f"step {one.step}"
        yield f"counterexample: target {_row(one.target)}, {where}: {one.wanted} → {one.emitted}"


def _filling_line(result: Verification, wanted: Wanted) -> Iterator[str]:
    """What fills up the answers of a map that are shorter than n_Y."""
    texts = wanted.texts
    if texts is not None and any(len(text) < result.n_answer for text in texts.answers.values()):
        yield f"shorter answers are filled up to {plural(result.n_answer, 'symbol')} with {wanted.characters[0]!r}"


def _row(numbers: Sequence[float]) -> str:
    """Numbers in brackets, the first 24 of them; all are in the record."""
    return f"({', '.join([*(f'{number:.4g}' for number in numbers[:24]), *(['…'] if len(numbers) > 24 else [])])})"


def _traced(request: Request, built: Construction, wanted: Wanted, _: Console | None) -> Answer:
    target = wanted.target
    if target is None:
        draws = generator(request.seed, "constructions", "target", built.name)
        target = built.random_targets(1, draws)[0].reshape(built.target_shape)
    run = trace(built, target, _user(request.given, built, wanted.alphabet), top=SHOWN_LOGITS)
    characters = wanted.characters
    record = plain_json(asdict(run)) | {"checked": len(run.steps), "counterexamples": _misses(run)}
    shown: list[RenderableType] = [_facts(built), *_token_lines(run), _steps_table(run, characters)]
    shown += _answer_line(run, wanted)
    shown += ["", *decoding_lines(run, 1, characters)]
    if request.out is not None:
        shown.append(f"picture: {_picture(run, request.out, characters)}")
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
