"""The command line. Nothing heavy is imported before a command runs, so that help answers at once.

    commands.py     the one list of commands        options.py   the options that several commands take
    <command>.py    one command per file            output.py    where results go and how they are printed
    construct/      a group: one subcommand per theorem

This file imports the standard library alone, so that Ctrl-C is answered in words from the first moment on.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the part in C: the module around it takes a while to load
import os
import sys

_INTERRUPTED = "interrupted: what is finished is kept; the same command resumes."
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


def _end_at_once(number: int, frame: object) -> None:
    """End while the command line is still being loaded, where there is nothing to clean up."""
    os.write(2, f"{_INTERRUPTED}\n".encode())
    os._exit(128 + number)


def _caught_while_loading() -> list[int]:
    """Answer the signals that ask a process to end from here on; return the numbers of those that are answered."""
    free = (_signal.SIG_DFL, _signal.default_int_handler)
    numbers = [getattr(_signal, name) for name in _ENDING if hasattr(_signal, name)]
    caught = [number for number in numbers if _signal.getsignal(number) in free]
    try:
        for number in caught:
            _signal.signal(number, _end_at_once)
    except ValueError:  # not the main thread
        return []
    return caught


def _threads_do_not_spin_long() -> None:
    """Let threads that wait sleep after a fraction of a millisecond; how long they spin is read when torch is loaded.

    Where other work wants the cores, a thread that spins keeps the one that it waits for from running.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


_caught = _caught_while_loading()
_threads_do_not_spin_long()

import atexit  # noqa: E402
import gc  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from types import FrameType  # noqa: E402
from typing import NoReturn  # noqa: E402

from elicitable.errors import ElicitableError  # noqa: E402
from elicitable.untrusted import is_out_of_memory, visible  # noqa: E402

STARTED = time.monotonic()
atexit.register(gc.freeze)  # the last look for garbage, among all objects of torch and transformers, takes a second


@contextmanager
def importing() -> Iterator[None]:
    """Inside, nobody looks for garbage, which takes a fifth of an import's time and finds none; what came stays."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main() -> NoReturn:
    """Run the command line and exit.

    The exit code is 0, or 1 where a check failed; 2 after bad input, with one line on standard error and never a
    traceback, as after what a person's own file raised and a machine that has run out of memory or disk; 128 plus the
    signal's number where a signal ended it (130 for Ctrl-C, 143 for SIGTERM); 141 where whoever reads standard output
    has left.
    """
    came: list[int] = []
    try:
        with _signals_raised(came):
            code = _run()
            sys.stdout.flush()
    except BaseException as error:
        if came or isinstance(error, KeyboardInterrupt):  # an interrupted import may end in an error of any kind
            code = 128 + signal.SIGINT
        elif isinstance(error, ElicitableError):
            code = _refused(str(error))
        elif isinstance(error.__context__ if isinstance(error, SystemExit) else error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered has nowhere to go
            code = 141
        elif is_out_of_memory(error):
            code = _refused(
                "there is not enough memory. What is finished is kept; a smaller model or batch needs less."
            )
        elif (told := _of_own_code(error)) is not None:
            code = _refused(told)
        elif isinstance(error, OSError):
            code = _refused(f"{error}. What is finished is kept; the same command resumes.")
        else:
            raise
    if code == 128 + signal.SIGINT:
        print(_INTERRUPTED, file=sys.stderr)
        code = 128 + came[0] if came else code
        _forget_interrupt()
    atexit.register(_ignore_interrupts)  # before what others have registered, which takes a while and holds no results
    sys.exit(code)


def _ignore_interrupts() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _forget_interrupt() -> None:
    """Let the exit code be ours: an interrupt within an import may leave Python to end as if nobody had caught it.

    What C code runs by ``PyRun_String`` sets a flag when it is interrupted, and clears it when it runs through.
    """
    import ctypes

    ctypes.pythonapi.PyRun_SimpleString(b"pass")


def _of_own_code(error: BaseException) -> str | None:
    from elicitable.own_code import told_of

    return told_of(error)


def _refused(reason: str) -> int:
    print(f"error: {visible(reason)}", file=sys.stderr)
    return 2


def _run() -> int:
    from elicitable.cli.commands import run

    return run()


@contextmanager
def _signals_raised(came: list[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt for every signal that asks a process to end, and note its number in ``came``.

    So whatever cleans up after Ctrl-C cleans up after ``kill`` and a closed terminal too. A signal that somebody
    ignores on purpose (``nohup``) stays ignored; handlers are as before afterwards. Python drops what is raised while
    an object is taken down (``__del__``), so a signal that comes just then is sent again a moment later.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    def again(dropped: sys.UnraisableHookArgs) -> None:
        if came and issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, os.kill, (os.getpid(), came[-1])).start()
        else:
            reported(dropped)

    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    free = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if before[number] in free] if _is_main_thread() else []
    reported, sys.unraisablehook = sys.unraisablehook, again
    try:
        for number in handled:
            signal.signal(number, stop)
        yield
    finally:
        sys.unraisablehook = reported
        for number in handled:
            signal.signal(number, before[number])


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


for _number in _caught:  # whoever imports this module without running it keeps the handlers it had
    signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
