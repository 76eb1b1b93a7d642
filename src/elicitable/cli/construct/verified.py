"""Run a construction on many targets, or on all of them, and say how often it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from elicitable.cli.construct.options import Request
from elicitable.cli.construct.record import Answer
from elicitable.cli.construct.traced import facts, row
from elicitable.cli.construct.wanted import Wanted
from elicitable.cli.output import counted
from elicitable.constructions.construction import Construction
from elicitable.constructions.verify import Verification, verify, verify_targets
from elicitable.errors import InputError
from elicitable.report.notation import plural
from elicitable.report.verdict_json import plain_json


def verified(request: Request, built: Construction, wanted: Wanted) -> Answer:
    """The record of a verification, with the first counterexamples, and what to print of it."""
    how: Any = request.run.verify
    if wanted.target is not None and how != "exhaustive":
        raise InputError(f"--map is the one target: give --verify exhaustive with it, not {how!r}, or leave --map out.")
    if how != "exhaustive":
        if not str(how).isdecimal() or int(how) < 1:
            raise InputError(f"--verify takes exhaustive or a number of random targets, got {how!r}.")
        how = int(how)
    with counted(f"verifying {built.name}", request.run.quiet) as told:
        if wanted.target is None:
            result = verify(built, how, seed=request.run.seed, told=told)
        else:
            result = verify_targets(built, built.table(wanted.target)[None])
    return plain_json(asdict(result)), [facts(built), *_verification_lines(result, wanted)]


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
            given, right, emitted = (
                wanted.alphabet.decode(symbols) for symbols in (one.inputs, (one.wanted,), (one.emitted,))
            )
            yield f"counterexample: input {given!r}, step {one.step}: {right!r} → {emitted!r}"
            continue
        where = f"input {row(one.inputs)}, step {one.step}" if one.inputs else f"step {one.step}"
        yield f"counterexample: target {row(one.target)}, {where}: {one.wanted} → {one.emitted}"


def _filling_line(result: Verification, wanted: Wanted) -> Iterator[str]:
    """What fills up the answers of a map that are shorter than n_Y."""
    texts = wanted.texts
    if texts is not None and any(len(text) < result.n_answer for text in texts.answers.values()):
        yield f"shorter answers are filled up to {plural(result.n_answer, 'symbol')} with {wanted.characters[0]!r}"
