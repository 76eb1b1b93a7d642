"""``elicitable construct theorem-1`` and its like: what a person typed to a record and what is printed of it."""

from __future__ import annotations

from elicitable.cli.construct.options import BuildOptions, Request
from elicitable.cli.construct.record import Answer
from elicitable.cli.construct.traced import traced
from elicitable.cli.construct.verified import verified
from elicitable.cli.construct.wanted import VOCAB, wanted_of
from elicitable.constructions import catalog
from elicitable.constructions.construction import Construction
from elicitable.constructions.transformer import INVERSE_TEMPERATURE
from elicitable.errors import InputError


def answer(request: Request) -> Answer:
    """The record of what was asked, and what to print of it; a picture goes to ``out`` where that is given.

    Raises:
        InputError: sizes, alphabet, text or map do not fit together; the message names what does not.
    """
    _check_verify(request)
    sized, wanted = wanted_of(request)
    construction = build(sized.name, sized.built, sized.length, sized.inputs)
    told = traced if request.run.verify is None else verified
    record, shown = told(request, construction, wanted)
    if wanted.alphabet is not None:
        record["alphabet"] = wanted.characters
        shown.insert(1, f"alphabet: {wanted.alphabet}, {wanted.origin}")
    return record, shown


def _check_verify(request: Request) -> None:
    """Raises InputError for a text or an input that a verification would ignore: it takes every one."""
    for option, value in (("--text", request.text), ("--input", request.told.given or None)):
        if request.run.verify is not None and value is not None:
            raise InputError(f"{request.name} with --verify does not take {option}; leave one of the two out.")


def build(name: str, options: BuildOptions, length: int | None = None, inputs: int | None = None) -> Construction:
    """The construction called ``name`` at the sizes that were asked for; raises InputError where it cannot be."""
    return catalog.build(
        name,
        vocab=VOCAB if options.vocab is None else options.vocab,
        length=length,
        inputs=inputs,
        dtype=options.dtype,
        inverse_temperature=INVERSE_TEMPERATURE if options.temperature is None else options.temperature,
        unchecked=options.unchecked,
    )
