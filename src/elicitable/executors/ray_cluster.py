"""Run items on a Ray cluster, named by address or started on this machine. This is the only file that imports ray.

The folder of records must be one that every worker sees. A worker that dies is replaced by Ray and its item started
again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from elicitable.errors import ElicitableError, InputError, MissingPackageError
from elicitable.executors.executor import NOTHING, RETRIES, Executor
from elicitable.executors.packing import called, packed
from elicitable.executors.processes import cores

COMMAND = "pip install 'elicitable[ray]'"


class RayCluster(Executor):
    """Run items as Ray tasks of one processor each, pinned to one thread.

    Args:
        address: of a running cluster (``auto``, ``host:port``, ``ray://…``); None starts one on this machine, or takes
            the one that this process is connected to.
        workers: processors of the cluster that is started, the machine's own number when None; of a running one, how
            many items are under way at once, as many as it takes when None.
        gpus: share of a GPU that each item takes; Ray shows it that one alone.

    Raises:
        MissingPackageError: ray is not installed.
        InputError: ``gpus`` is negative.
    """

    name = "ray"

    def __init__(self, address: str | None = None, workers: int | None = None, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingPackageError(f"--executor ray needs Ray, which is not installed; run: {COMMAND}") from error
        if gpus < 0:
            raise InputError(f"gpus must be at least 0, got {gpus:g}.")
        self._ray = ray
        self._address, self._workers, self._gpus = address, workers, gpus
        self.at_once = workers or (sys.maxsize if address else cores())  # a cluster queues, and may grow
        self._is_ours = False
        self._running: dict[Any, int] = {}
        self._task: Any = None
        self._sent: Any = None  # what is shared, where the cluster keeps it

    @property
    def size(self) -> int:
        """How many items the cluster has processors, and GPUs, for now; a running cluster may grow."""
        if self._address is None:
            return self.at_once
        if not self._ray.is_initialized():
            self._connect()
        there = self._ray.cluster_resources()
        by_gpus = there.get("GPU", 0.0) / self._gpus if self._gpus else there.get("CPU", 1.0)
        return max(1, int(min(there.get("CPU", 1.0), by_gpus, self.at_once)))

    def start(self, index: int, function: Callable[..., Any], item: Any) -> None:
        if not self._ray.is_initialized():
            self._connect()
        if self._shared is not NOTHING and self._sent is None:
            self._sent = self._ray.put(packed(self._shared))
        if self._task is None:
            # max_calls: a worker that has loaded a model keeps it for the next item, on a GPU too
            how = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": RETRIES, "max_calls": 0}
            self._task = self._ray.remote(**how)(called)
        task = self._task.options(name=function.__name__)
        self._running[task.remote(function, item, self._sent)] = index

    def _connect(self) -> None:
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        where: dict[str, Any] = {"num_cpus": self._workers, "include_dashboard": False}
        if self._address is not None:
            where = {"address": self._address}
        try:
            self._ray.init(**where, log_to_driver=False, runtime_env={"env_vars": threads})
        except (ConnectionError, ValueError) as error:
            raise InputError(f"no Ray cluster answers at {self._address}: {error}") from error
        self._is_ours = True

    def finished(self) -> tuple[int, Any]:
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        index = self._running.pop(done[0])
        try:
            return index, self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError) as error:
            raise ElicitableError(
                f"workers died {RETRIES + 1} times at one item (out of memory?). What is finished is kept; run it "
                "again with fewer --workers."
            ) from error

    def stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running, self._task, self._sent = {}, None, None
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False
