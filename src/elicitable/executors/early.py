"""What the process that workers are forked from runs before it imports anything for all of them.

:func:`elicitable.executors.processes.begin_early` starts it. It leaves Ctrl-C to the command, and ends with it also in
the middle of an import. It does not look for garbage, of which imports make none. A worker that the command no longer
waits for finds its queues gone, which is not told.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
from types import TracebackType

_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of linux/prctl.h

gc.disable()  # until it is a worker
signal.signal(signal.SIGINT, signal.SIG_IGN)
ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)


def _unless_gone(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, (FileNotFoundError, EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _unless_gone
