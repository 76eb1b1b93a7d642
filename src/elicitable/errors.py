"""The exception tree. Every error a user can cause derives from :class:`ElicitableError`.

A message names the input, says what was expected and what to do about it. The command line prints the
message alone (no traceback) and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class ElicitableError(Exception):
    """Root of every error this package raises on purpose."""


class InputError(ElicitableError, ValueError):
    """An argument, a file or a name from outside is not what was expected."""


class UnknownNameError(InputError):
    """A name is not in a catalog; the message lists near matches.

    >>> str(UnknownNameError("task", "ascnding", ["ascending", "add-1"]))
    "unknown task 'ascnding': did you mean 'ascending'? Known: add-1, ascending."
    """

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        guess = f" did you mean {' or '.join(map(repr, near))}?" if near else ""
        tail = f" {hint}" if hint else ""
        super().__init__(f"unknown {what} {name!r}:{guess} Known: {', '.join(known)}.{tail}")
        self._given = what, name, known, hint

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[Any, ...]]:
        """Make it anew from what it was given, so that a worker can send it."""
        return type(self), self._given


class MissingPackageError(ElicitableError, ImportError):
    """An optional package is not installed; the message gives the one command that installs it."""


class UnsupportedModelError(ElicitableError):
    """A model whose attention cannot be given a context exactly; refused by name with the reason."""


class BudgetError(InputError):
    """A budget is too small for a method, or a time limit too short for one arm."""


class StoreError(ElicitableError):
    """A stored record or output folder cannot be used: unwritable, corrupt or from a newer version."""


class UnwritableError(StoreError):
    """A file or a folder cannot be written: the disk is full, or the folder is gone or not to be written to."""


class TrainingDivergedError(ElicitableError):
    """The loss or a gradient became NaN or infinite; the arm stops and is recorded as diverged."""
