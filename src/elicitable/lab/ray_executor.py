"""Run jobs on a Ray cluster, named by address or started on this machine. This is the only file that imports ray.

The folder of records must be one that every worker sees. A worker that dies is replaced by Ray and its job started
again; it goes on from its checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from elicitable.errors import InputError, MissingPackageError
from elicitable.lab.executors import RETRIES, Executor, cores

COMMAND = "pip install 'elicitable[ray]'"


class RayCluster(Executor):
    """Run jobs as Ray tasks of one processor each, pinned to one thread.

    Args:
        address: of a running cluster (``auto``, ``host:port``, ``ray://…``); None starts one on this machine.
        workers: processors of the cluster that is started; the machine's own number when None.

    Raises:
        MissingPackageError: ray is not installed.
    """

    name = "ray"

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingPackageError(f"--executor ray needs Ray, which is not installed; run: {COMMAND}") from error
        if workers is not None and workers < 1:
            raise InputError(f"workers must be at least 1, got {workers}.")
        self._ray = ray
        self._address, self._workers = address, workers
        self.at_once = sys.maxsize if address else workers or cores()  # a cluster queues, and may grow
        self._is_ours = False
        self._running: dict[Any, int] = {}

    def _start(self, index: int, function: Callable[[Any], Any], item: Any) -> None:
        if not self._ray.is_initialized():
            self._connect()
        task = self._ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        self._running[task.remote(item)] = index

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

    def _next(self) -> tuple[int, Any]:
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        index = self._running.pop(done[0])
        return index, self._ray.get(done[0])

    def _stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running = {}
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False
