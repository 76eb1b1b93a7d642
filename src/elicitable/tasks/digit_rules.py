"""Say what each digit task answers: one function per task, with its name and its line in the catalog.

A rule maps prompts, (item, 10) digits in 0..7, to targets of the same shape, symbols in 0..9. To add a task, write its
function here and decorate it; nothing else has to know about it. numpy is imported inside the functions, so that the
catalog can list the tasks without loading it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from elicitable.errors import InputError
from elicitable.tasks.base import TaskCard

if TYPE_CHECKING:
    from elicitable.tasks.digit_inputs import Digits

Rule = Callable[["Digits"], "Digits"]

RULES: Final[dict[str, Rule]] = {}
DESCRIPTIONS: Final[dict[str, str]] = {}
MIXED: Final = ("ascending", "descending", "add-1", "add-2")
_SOURCE: Final = "section 5 of the paper, made here"


def rule(name: str, description: str) -> Callable[[Rule], Rule]:
    """Register the decorated function as the rule of the digit task ``name``, which the catalog describes so.

    Raises:
        InputError: another task has that name.
    """

    def register(function: Rule) -> Rule:
        if name in RULES or name == "mixed":
            raise InputError(f"there is a digit task called {name!r} already; choose another name.")
        RULES[name], DESCRIPTIONS[name] = function, description
        return function

    return register


def cards() -> list[TaskCard]:
    """List the digit tasks as the catalog shows them, ``mixed`` last.

    >>> [card.name for card in cards()][:2]
    ['ascending', 'descending']
    """
    described = {**DESCRIPTIONS, "mixed": "ascending, descending, add-1 or add-2, unlabelled"}
    return [TaskCard(name, text, "generation", _SOURCE) for name, text in described.items()]


@rule("ascending", "sort 10 digits from low to high")
def ascending(digits: Digits) -> Digits:
    """Sort from low to high.

    >>> import numpy as np
    >>> ascending(np.array([[3, 1, 4, 1, 5, 7, 2, 6, 5, 3]])).tolist()
    [[1, 1, 2, 3, 3, 4, 5, 5, 6, 7]]
    """
    import numpy as np

    return np.sort(digits, axis=1)


@rule("descending", "sort 10 digits from high to low")
def descending(digits: Digits) -> Digits:
    """Sort from high to low.

    >>> import numpy as np
    >>> descending(np.array([[3, 1, 4, 1, 5, 7, 2, 6, 5, 3]])).tolist()
    [[7, 6, 5, 5, 4, 3, 3, 2, 1, 1]]
    """
    return ascending(digits)[:, ::-1]


@rule("add-1", "add 1 to each of 10 digits")
def add_1(digits: Digits) -> Digits:
    """Add 1 to every digit, in place; nothing wraps, 7 becomes 8.

    >>> import numpy as np
    >>> add_1(np.array([[3, 1, 4, 1, 5, 7, 2, 6, 5, 3]])).tolist()
    [[4, 2, 5, 2, 6, 8, 3, 7, 6, 4]]
    """
    return digits + 1


@rule("add-2", "add 2 to each of 10 digits")
def add_2(digits: Digits) -> Digits:
    """Add 2 to every digit, in place; nothing wraps, 7 becomes 9.

    >>> import numpy as np
    >>> add_2(np.array([[3, 1, 4, 1, 5, 7, 2, 6, 5, 3]])).tolist()
    [[5, 3, 6, 3, 7, 9, 4, 8, 7, 5]]
    """
    return digits + 2


@rule("ascending-add-1", "sort 10 digits, then add 1 to each")
def ascending_add_1(digits: Digits) -> Digits:
    """Sort from low to high, then add 1 to every digit.

    >>> import numpy as np
    >>> ascending_add_1(np.array([[3, 1, 4, 1, 5, 7, 2, 6, 5, 3]])).tolist()
    [[2, 2, 3, 4, 4, 5, 6, 6, 7, 8]]
    """
    return ascending(digits) + 1


@rule("double-histogram", "replace each of 10 digits by its count")
def double_histogram(digits: Digits) -> Digits:
    """Replace every digit by the number of places that hold the same digit, in 1..9.

    >>> import numpy as np
    >>> double_histogram(np.array([[3, 1, 4, 1, 5, 7, 2, 6, 5, 3]])).tolist()
    [[2, 2, 1, 2, 2, 1, 1, 1, 2, 2]]
    """
    import numpy as np

    width = digits.shape[1]
    cells = digits + width * np.arange(len(digits))[:, None]
    return np.asarray(np.bincount(cells.ravel(), minlength=width * len(digits))[cells])
