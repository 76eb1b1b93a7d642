"""Run the jobs: in this process, in processes on this machine, or on a cluster.

An executor maps a function over items. It starts an item as soon as everything that the item needs is done, and it says
when each one is done. The function and the items are plain data, so that they can travel. All executors keep one
contract, and their records are equal.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from elicitable.errors import ElicitableError, InputError, UnknownNameError

T = TypeVar("T")
R = TypeVar("R")
EXECUTORS = ("local", "inline", "ray")
RETRIES = 3


class Executor(ABC):
    """State the contract. A subclass says how one item is started and how the next finished one is waited for."""

    name: str
    at_once: int = 1  # how many may be under way

    def run(
        self,
        function: Callable[[T], R],
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
        running = 0
        try:
            while len(results) < len(items):
                for index in [i for i, missing in waiting.items() if not missing][: self.at_once - running]:
                    del waiting[index]
                    self._start(index, function, items[index])
                    running += 1
                if not running:
                    raise InputError(f"items {sorted(waiting)} wait for one another in a circle.")
                index, result = self._next()
                running -= 1
                results[index] = result
                for missing in waiting.values():
                    missing.discard(index)
                if told:
                    told(index, result)
        finally:
            self._stop()
        return [results[index] for index in range(len(items))]

    @abstractmethod
    def _start(self, index: int, function: Callable[[Any], Any], item: Any) -> None:
        """Start, or queue, one item."""

    @abstractmethod
    def _next(self) -> tuple[int, Any]:
        """Wait until one that was started is done."""

    @abstractmethod
    def _stop(self) -> None:
        """Let go of everything; nothing runs on."""


class Inline(Executor):
    """Run one after the other in this process: for a debugger, and as the reference for the other two."""

    name = "inline"

    def __init__(self) -> None:
        self._queue: list[tuple[int, Callable[[Any], Any], Any]] = []

    def _start(self, index: int, function: Callable[[Any], Any], item: Any) -> None:
        self._queue.append((index, function, item))

    def _next(self) -> tuple[int, Any]:
        index, function, item = self._queue.pop(0)
        return index, function(item)

    def _stop(self) -> None:
        self._queue.clear()


class LocalProcesses(Executor):
    """Run processes on this machine, each pinned to one thread: on two cores two jobs take the time of one.

    A worker that dies (killed, out of memory) is replaced and its item started again, at most :data:`RETRIES` times
    without any item finishing in between.
    """

    name = "local"

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}.")
        self.workers = self.at_once = workers or cores()
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[Any], tuple[int, Callable[[Any], Any], Any]] = {}
        self._deaths = 0

    def _start(self, index: int, function: Callable[[Any], Any], item: Any) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(os.getpid(),)
            )
        try:
            self._running[self._pool.submit(function, item)] = (index, function, item)
        except BrokenProcessPool:
            self._renew([(index, function, item)])

    def _next(self) -> tuple[int, Any]:
        while True:
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            whole = [future for future in done if not isinstance(future.exception(), BrokenProcessPool)]
            if whole:
                self._deaths = 0
                index, _, _ = self._running.pop(whole[0])
                return index, whole[0].result()
            self._renew([])

    def _renew(self, more: list[tuple[int, Callable[[Any], Any], Any]]) -> None:
        """Start a new pool for what was running when a worker died."""
        self._deaths += 1
        lost = [*self._running.values(), *more]
        self._stop()
        if self._deaths > RETRIES:
            raise ElicitableError(
                f"workers died {self._deaths} times in a row (out of memory?). What is finished is kept; run it again "
                "with fewer --workers."
            )
        for index, function, item in sorted(lost, key=lambda one: one[0]):
            self._start(index, function, item)

    def _stop(self) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._running = None, {}


def cores() -> int:
    """Count the cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin_worker(parent: int) -> None:
    """Pin to one thread before torch is imported, leave Ctrl-C to the parent, and do not outlive it."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this worker when its parent is gone: a rerun must not find two processes at one job."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def executor_named(name: str, workers: int | None = None, address: str | None = None) -> Executor:
    """Make the executor called ``local``, ``inline`` or ``ray`` (with the cluster's ``address``; None starts one here).

    Raises:
        UnknownNameError: no such executor.
        MissingPackageError: ``ray`` is asked for and not installed; gives the one command.
        InputError: ``address`` or ``workers`` where they mean nothing.
    """
    if name not in EXECUTORS:
        raise UnknownNameError("executor", name, EXECUTORS)
    if address is not None and name != "ray":
        raise InputError(f"--address is for --executor ray, not for {name}.")
    if name == "inline":
        return Inline()
    if name == "local":
        return LocalProcesses(workers)
    from elicitable.lab.ray_executor import RayCluster

    return RayCluster(address, workers)
