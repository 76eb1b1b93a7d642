"""The contract of all executors, and the one that runs everything in this process.

An executor maps a function over items. It starts an item as soon as everything that the item needs is done, and it says
when each one is done. The function and the items are plain data, so that they can travel. All executors keep one
contract, and their records are equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from elicitable.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
R = TypeVar("R")
EXECUTORS = ("local", "inline", "ray")
RETRIES = 3
NOTHING = object()  # is shared


class Executor(ABC):
    """State the contract. A subclass says how one item is started and how the next finished one is waited for."""

    name: str
    at_once: int = 1  # how many may be under way
    _is_kept = False
    _shared: Any = NOTHING

    @property
    def size(self) -> int:
        """How many items really run at a time."""
        return self.at_once

    @contextmanager
    def kept(self, shared: Any = NOTHING) -> Iterator[Self]:
        """Keep the workers from one :meth:`run` to the next, for the length of a ``with``.

        Where ``shared`` is given, every worker is sent it once, and functions are called as ``function(shared, item)``.
        """
        self._is_kept, self._shared = True, shared
        try:
            yield self
        finally:
            self._is_kept, self._shared = False, NOTHING
            self.stop()

    def run(
        self,
        function: Callable[..., R],
        items: Sequence[T],
        needs: Mapping[int, Sequence[int]] | None = None,
        told: Callable[[int, R], None] | None = None,
    ) -> list[R]:
        """Return ``[function(item) for item in items]``, as many at a time as there are workers.

        Of the items that could start, the first of ``items`` does: what is cut short has done the first ones whole.

        ``needs[i]`` are the indices that must be done before item i starts; ``told(i, result)`` is called in this
        process as each is done. What ``function`` raises is raised here, after the others were stopped.

        Raises:
            InputError: the needs go round in a circle.
        """
        waiting = {index: set((needs or {}).get(index, ())) for index in range(len(items))}
        results: dict[int, R] = {}
        running, is_done = 0, False
        try:
            while len(results) < len(items):
                for index in [i for i, missing in waiting.items() if not missing][: self.at_once - running]:
                    del waiting[index]
                    self.start(index, function, items[index])
                    running += 1
                if not running:
                    raise InputError(f"items {sorted(waiting)} wait for one another in a circle.")
                index, result = self.finished()
                running -= 1
                results[index] = result
                for missing in waiting.values():
                    missing.discard(index)
                if told:
                    told(index, result)
            is_done = True
        finally:
            if not (is_done and self._is_kept):
                self.stop()
        return [results[index] for index in range(len(items))]

    @abstractmethod
    def start(self, index: int, function: Callable[..., Any], item: Any) -> None:
        """Start, or queue, one item."""

    @abstractmethod
    def finished(self) -> tuple[int, Any]:
        """Wait until one that was started is done."""

    @abstractmethod
    def stop(self) -> None:
        """Let go of everything; nothing runs on."""


class Inline(Executor):
    """Run one after the other in this process: for a debugger, and as the reference for the other two."""

    name = "inline"

    def __init__(self) -> None:
        self._queue: list[tuple[int, Callable[..., Any], Any]] = []

    def start(self, index: int, function: Callable[..., Any], item: Any) -> None:
        self._queue.append((index, function, item))

    def finished(self) -> tuple[int, Any]:
        index, function, item = self._queue.pop(0)
        return index, function(item) if self._shared is NOTHING else function(self._shared, item)

    def stop(self) -> None:
        self._queue.clear()


def executor_named(
    name: str, workers: int | None = None, address: str | None = None, gpus: float | None = None
) -> Executor:
    """Make the executor called ``local``, ``inline`` or ``ray`` (with the cluster's ``address``; None starts one here).

    ``gpus`` is the share of a GPU that each item takes on a Ray cluster, such as 0.5 or 2.

    Raises:
        UnknownNameError: no such executor.
        MissingPackageError: ``ray`` is asked for and not installed; gives the one command.
        InputError: ``address``, ``gpus`` or ``workers`` where they mean nothing.
    """
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    for option, given in (("--address", address), ("--gpus", gpus)):
        if given is not None and name != "ray":
            raise InputError(f"{option} is for --executor ray, not for {name}.")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}.")
    if name == "inline" and workers is not None:
        raise InputError("--workers is for --executor local or ray, not for inline, which does one after the other.")
    if name == "inline":
        return Inline()
    if name == "local":
        from elicitable.executors.processes import LocalProcesses

        return LocalProcesses(workers)
    from elicitable.executors.ray_cluster import RayCluster

    return RayCluster(address, workers, gpus or 0.0)
