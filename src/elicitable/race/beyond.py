"""What a verdict holds beside its label is made part by part; what fails there costs that part and not the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from elicitable.errors import ElicitableError, StoreError, UnwritableError
from elicitable.untrusted import in_one_line, is_out_of_memory

if TYPE_CHECKING:
    from elicitable.race.entry import Race

Part = tuple[str, Callable[[], dict[str, Any]]]  # its name, and what makes its fields of the verdict


def made(race: Race, part: Part) -> dict[str, Any]:
    """Return the fields of a verdict that a part of it is made into; none where that fails, which is warned of.

    Raises:
        StoreError: what is kept of it was altered. A disk that is full is warned of.
    """
    name, make = part
    try:
        return make()
    except AssertionError:  # a promise of this package's own is broken
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, StoreError) and not isinstance(error, UnwritableError):
            raise
        race.warnings.append(f"{name} failed: {_reason(error)}. The answer stands; the same race again tries it anew")
        return {}


def _reason(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "there is not enough memory"
    told = in_one_line(error).rstrip(".")
    return told if isinstance(error, ElicitableError) else f"{type(error).__name__}: {told}".rstrip(": ")
