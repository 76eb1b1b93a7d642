"""Run items in processes on this machine.

Workers import what takes seconds (torch, transformers). Where a command knows early that it will have workers, one
process imports it all beside the command itself, and workers are forked from it (:func:`begin_early`); else every
worker is a new process that imports for itself.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from typing import Any

from elicitable.errors import ElicitableError, InputError
from elicitable.executors.executor import NOTHING, RETRIES, Executor
from elicitable.executors.packing import called, packed
from elicitable.own_code import NO_GUARD, RUN_AGAIN, end_if_run_again

SET_BY_HAND = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # of threads: a number that a person has set is left alone
ONE_THREAD = dict.fromkeys(SET_BY_HAND, "1")
_start = {"method": "spawn"}


class LocalProcesses(Executor):
    """Run processes on this machine, each pinned to one thread: on two cores two jobs take the time of one.

    A worker that dies (killed, out of memory) is replaced and its item started again, at most :data:`RETRIES` times
    without any item finishing in between.
    """

    name = "local"

    def __init__(self, workers: int | None = None) -> None:
        end_if_run_again()
        self.at_once = workers or cores()
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[Any], tuple[int, Callable[..., Any], Any]] = {}
        self._deaths = 0

    def start(self, index: int, function: Callable[..., Any], item: Any) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.at_once,
                mp_context=get_context(_start["method"]),
                initializer=_begin_worker,
                initargs=(None if self._shared is NOTHING else packed(self._shared),),
            )
        try:
            self._running[self._pool.submit(_called, function, item)] = (index, function, item)
        except BrokenProcessPool:
            self._renew([(index, function, item)])

    def finished(self) -> tuple[int, Any]:
        while True:
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            whole = [future for future in done if not isinstance(future.exception(), BrokenProcessPool)]
            if whole:
                self._deaths = 0
                index, _, _ = self._running.pop(whole[0])
                return index, whole[0].result()
            self._renew([])

    def _renew(self, more: list[tuple[int, Callable[..., Any], Any]]) -> None:
        """Start a new pool for what was running when a worker died."""
        self._deaths += 1
        lost = [*self._running.values(), *more]
        workers = list((self._pool._processes or {}).values()) if self._pool is not None else []
        self.stop()
        if any(worker.exitcode == RUN_AGAIN for worker in workers):
            raise InputError(NO_GUARD)
        if self._deaths > RETRIES:
            raise ElicitableError(
                f"workers died {self._deaths} times in a row (out of memory?). What is finished is kept; run it again "
                "with fewer --workers, or with --executor inline."
            )
        for index, function, item in sorted(lost, key=lambda one: one[0]):
            self.start(index, function, item)

    def stop(self) -> None:
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


def is_free() -> bool:
    """Say whether more than one core is there to be used, and nobody has said by how many threads."""
    return cores() > 1 and not any(os.environ.get(name) for name in SET_BY_HAND)


def begin_early(modules: Sequence[str]) -> None:
    """Let the process that workers are forked from import ``modules``, while this one imports them too.

    It ends with this process, however that ends. Only Linux forks so; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    resource_tracker.ensure_running()  # which unblocks what it blocked
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the command alone
    os.environ |= ONE_THREAD
    try:
        forkserver.set_forkserver_preload(["elicitable.executors.early", *modules])
        forkserver.ensure_running()
        _start["method"] = "forkserver"
    finally:
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {} if value is None else {name: value}
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


_given: dict[str, bytes | None] = {"shared": None}  # to this worker


def _begin_worker(shared: bytes | None) -> None:
    """Pin to one thread before torch computes, leave Ctrl-C to the command, and do not outlive it."""
    _given["shared"] = shared
    gc.freeze()  # what was imported stays
    gc.enable()
    os.environ |= ONE_THREAD
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End this worker when the command is gone: a rerun must not find two processes at one job."""
    command = parent_process()
    assert command is not None
    command.join()
    os._exit(1)


def _called(function: Callable[..., Any], item: Any) -> Any:
    try:
        return called(function, item, _given["shared"])
    except Exception as error:
        if _can_travel(error):
            raise
        raise ElicitableError(f"{type(error).__name__}: {error}") from error


def _can_travel(error: Exception) -> bool:
    """Say whether ``error`` can be sent back; where it cannot be read, the pool takes the worker for dead."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
