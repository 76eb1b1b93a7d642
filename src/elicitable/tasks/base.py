"""Define what a task is: the contract that every task keeps, the built-in ones and a user's own.

A task hands out items (read ``prompt``, then write ``target``). Training, evaluation and the verdict see tasks
through these four methods and never ask which task they hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from elicitable.errors import InputError
from elicitable.glance import table
from elicitable.own_digest import digest_of
from elicitable.untrusted import in_one_line
from elicitable.values import Item, Message, Split

if TYPE_CHECKING:
    import numpy as np

HeldOut = Literal["validation", "test"]
Kind = Literal["classification", "generation"]


@runtime_checkable
class Task(Protocol):
    """Keep four methods and a name. Bring your own class: nothing has to be inherited.

    Optional: ``warnings: tuple[str, ...]``, what a person should know about the data (see :func:`warnings_of`);
    ``groups(split, n)``, which items of ``held_out(split, n)`` are one piece of evidence (see :func:`groups_of`);
    ``stops: tuple[str, ...]``, texts that end an answer (see :func:`stops_of`);
    ``most_tokens: int``, which an answer may have (see :func:`most_of`);
    ``metric(name)``, a score of its own (see :func:`metric_of`);
    and, for tasks of token ids, ``vocab_size: int``.

    >>> class Echo:
    ...     name = "echo"
    ...     def labels(self): return None
    ...     def sample(self, n, rng): return [Item("say a", " a")] * n
    ...     def held_out(self, split, n=None): return [Item("say b", " b")]
    ...     def fingerprint(self): return fingerprint_of(["echo", "1"])
    >>> isinstance(Echo(), Task)
    True
    """

    name: str

    def labels(self) -> tuple[str, ...] | None:
        """Return the possible targets, verbatim, of a classification task; None where the whole answer must match.

        Empty where every item brings its own ``choices``.
        """
        ...

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """Draw ``n`` training items. The stream has no end, depends on ``rng`` only and gives no held-out input."""
        ...

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """Return the first ``n`` items (None: the task's default) of ``split``, in an order that is always the same."""
        ...

    def fingerprint(self) -> str:
        """Identify the data and the template, for records: equal exactly where both are equal."""
        ...


@dataclass(frozen=True, slots=True)
class TaskCard:
    """Hold one line of the catalog."""

    name: str
    description: str
    kind: Kind
    source: str


@dataclass(frozen=True, eq=False)
class TaskMetric:
    """Hold a score that a task brings of its own, under the name that its library gives it.

    Of choices it is ``name`` under the decision rule ``rule``. Of free answers ``values`` are the library's values of
    answers to items with such references, and ``aggregate`` its ``aggregation`` of them; without them it is the share
    of answers that are the target. ``is_share`` says that values are 0 or 1, ``scale`` what the best answer gets where
    that is declared. ``code`` says whose code it is.
    """

    name: str
    summary: str
    rule: str = ""
    values: Callable[[Sequence[Any], Sequence[str]], list[Any]] | None = None
    aggregate: Callable[[list[Any]], float] | None = None
    aggregation: str = "mean"
    is_share: bool = False
    scale: float | None = None
    code: str = ""


def metric_of(task: Task, name: str | None) -> TaskMetric | None:
    """Return the task's own score of that name, by default the first that it has; None where it has none such.

    Raises:
        InputError: it has a metric of that name, which cannot be the score of a race; the message says why.
    """
    own = getattr(task, "metric", None)
    found: TaskMetric | None = own(name) if callable(own) else None
    return found


def has_turns(task: Task) -> bool:
    """Say whether the items of a task are conversations.

    >>> from elicitable.tasks.catalog import task_from
    >>> has_turns(task_from("add-1"))
    False
    """
    items = task.held_out("validation", 1)
    return bool(items) and bool(items[0].prompt) and isinstance(items[0].prompt[0], Message)


def most_of(task: Task) -> int | None:
    """Return how many tokens an answer to this task may have; None where the task does not say."""
    found: int | None = getattr(task, "most_tokens", None)
    return found


def warnings_of(task: Task) -> tuple[str, ...]:
    """Return what the task says about its data; empty where the task has no ``warnings``."""
    return _texts(getattr(task, "warnings", ()))


def stops_of(task: Task) -> tuple[str, ...]:
    """Return the texts that end an answer of this task; the first of them ends its targets. Empty where it has none."""
    return _texts(getattr(task, "stops", ()))


def _texts(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the texts that were given; one alone is one, and not its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def groups_of(task: Task, split: HeldOut, n: int | None = None) -> tuple[int | str, ...]:
    """Return the group of each item of ``task.held_out(split, n)``: what an interval resamples together.

    The task's own ``groups`` where it has them; else items of the same prompt are one group, numbered in order of
    first appearance.

    >>> from elicitable.tasks.catalog import task_from
    >>> groups_of(task_from("add-1"), "test", 3)
    (0, 1, 2)
    """
    own = getattr(task, "groups", None)
    if callable(own):
        return tuple(own(split, n))
    numbers: dict[object, int] = {}
    return tuple(numbers.setdefault(item.prompt, len(numbers)) for item in task.held_out(split, n))


def fingerprint_of(parts: Iterable[str | bytes]) -> str:
    """Hash ``parts`` by SHA-256 (hex), each with its length, so that moving a border changes the result.

    >>> fingerprint_of(["ab", "c"]) == fingerprint_of(["a", "bc"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def identity_of(task: Task) -> str:
    """Return what records call the task: its fingerprint, with a digest of its code where that comes from outside.

    A task of your own that you edit is another task, so trials on the old one are not taken for trials on the new.
    """
    digest = digest_of(task)
    return task.fingerprint() if digest is None else f"{task.fingerprint()}:{digest[:12]}"


def in_short(item: Item, most: int = 60) -> tuple[str, str]:
    r"""Write an item's prompt, of a conversation its last turn, and its target on a line each, of ``most`` letters.

    >>> in_short(Item((3, 1, 2), (1, 2, 3))), in_short(Item("one\ntwo", " three"), most=5)
    (('3 1 2', '1 2 3'), ('one …', 'three'))
    """
    last = item.prompt[-1] if isinstance(item.prompt, tuple) and item.prompt else ""
    prompt = _on_a_line(last.content if isinstance(last, Message) else item.prompt, most)
    return prompt, _on_a_line(item.target, most)


def _on_a_line(text: Any, most: int) -> str:
    line = in_one_line(text if isinstance(text, str) else " ".join(map(str, text)))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def picture_of(task: Task) -> str:
    """Draw a few validation items as a table, for a notebook; the test split is left alone."""
    items = task.held_out("validation", 3)
    return table(repr(task), [in_short(item, 200) for item in items], ("a prompt", "its target"))


def checked_count(n: int, what: str = "n") -> int:
    """Return ``n`` itself if it is a whole number, at least 1; else :class:`InputError`.

    >>> checked_count(0)
    Traceback (most recent call last):
    elicitable.errors.InputError: n must be a whole number, at least 1, not 0
    """
    if isinstance(n, bool) or not hasattr(n, "__index__") or n < 1:
        raise InputError(f"{what} must be a whole number, at least 1, not {n!r}")
    return int(n)


def checked_split(split: str) -> HeldOut:
    """Return ``split`` itself if it is held out; else :class:`InputError`.

    >>> checked_split("test")
    'test'
    """
    if split == "validation":
        return "validation"
    if split == "test":
        return "test"
    raise InputError(f"held-out split must be 'validation' or 'test', not {split!r}")


__all__ = [
    "HeldOut",
    "Item",
    "Kind",
    "Split",
    "Task",
    "TaskCard",
    "TaskMetric",
    "checked_count",
    "checked_split",
    "fingerprint_of",
    "groups_of",
    "has_turns",
    "identity_of",
    "in_short",
    "metric_of",
    "most_of",
    "picture_of",
    "stops_of",
    "warnings_of",
]
