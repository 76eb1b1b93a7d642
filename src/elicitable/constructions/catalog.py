"""The one list of constructions, and one way to build any of them by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from elicitable.constructions import (
    any_map,
    any_sequence,
    longer_answers,
    packed_inputs,
    tabled_inputs,
)
from elicitable.constructions.construction import Construction
from elicitable.constructions.precision import dtype_named
from elicitable.constructions.transformer import INVERSE_TEMPERATURE
from elicitable.errors import InputError, UnknownNameError

#: Scores are T times a small number of digits; float16 ends at 65,504.
HIGHEST_TEMPERATURE = 10_000.0


@dataclass(frozen=True)
class Entry:
    """A construction: its name, what it states in one line, the size option it takes beside ``vocab`` and its default.

    ``length`` is the number of symbols in the answer (N or n_Y), ``inputs`` the number of user tokens n_X.
    """

    name: str
    states: str
    build: Callable[..., Construction]
    option: str | None = None
    default: int = 0


CATALOG: tuple[Entry, ...] = (
    Entry(
        any_sequence.NAME,
        "one virtual token makes the transformer emit any sequence",
        any_sequence.build,
        "length",
        6,
    ),
    Entry(
        any_map.NAME,
        "one virtual token makes it realise any map from one token to one token",
        any_map.build,
    ),
    Entry(
        longer_answers.NAME,
        "n_Y virtual tokens: any map from one token to n_Y tokens",
        longer_answers.build,
        "length",
        4,
    ),
    Entry(
        packed_inputs.NAME,
        "one virtual token: any map from n_X tokens to one, paid in precision",
        packed_inputs.build,
        "inputs",
        2,
    ),
    Entry(
        tabled_inputs.NAME,
        "V^(n_X−1) virtual tokens: any map from n_X tokens to one, paid in length",
        tabled_inputs.build,
        "inputs",
        2,
    ),
)


def entry(name: str) -> Entry:
    """The catalog entry called ``name``; raises UnknownNameError (an InputError) for another."""
    for known in CATALOG:
        if known.name == name:
            return known
    raise UnknownNameError("construction", name, [known.name for known in CATALOG])


def build(
    name: str,
    *,
    vocab: int = 10,
    length: int | None = None,
    inputs: int | None = None,
    dtype: str = "float64",
    inverse_temperature: float = INVERSE_TEMPERATURE,
    unchecked: bool = False,
) -> Construction:
    """Builds a construction by name; raises InputError for an option it does not take.

    ``unchecked`` builds sizes that ``dtype`` cannot carry, to see them fail.

    >>> build("longer-answers", vocab=3, length=2).target_shape
    (3, 2)
    """
    known = entry(name)
    given = {"length": length, "inputs": inputs}
    for option, value in given.items():
        if value is not None and option != known.option:
            takes = f"vocab and {known.option}" if known.option else "vocab only"
            raise InputError(f"{name} takes {takes}, not {option} ({value}).")
    if not 0 <= inverse_temperature <= HIGHEST_TEMPERATURE:
        raise InputError(
            f"the inverse temperature must be a number from 0 to {HIGHEST_TEMPERATURE:g}, got {inverse_temperature}."
        )
    sizes = [vocab]
    if known.option is not None:
        value = given[known.option]
        sizes.append(known.default if value is None else value)
    return known.build(*sizes, dtype=dtype_named(dtype), inverse_temperature=inverse_temperature, unchecked=unchecked)
