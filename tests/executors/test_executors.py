"""One contract over all executors: results in order, needs kept, errors raised, a worker that dies is replaced."""

from __future__ import annotations

import builtins
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import LOCAL, RAY

from elicitable.errors import ElicitableError, InputError, MissingPackageError, UnknownNameError
from elicitable.executors.executor import Executor, Inline, executor_named
from elicitable.executors.packing import unpacked
from elicitable.executors.processes import LocalProcesses
from elicitable.own_code import load_own

ALL = ["inline", LOCAL, RAY]


def double(number: int) -> int:
    return 2 * number


def add(shared: int, number: int) -> int:
    return shared + number


def refuse(number: int) -> int:
    if number == 2:
        raise InputError("two is not wanted")
    return number


def unknown(_: int) -> None:
    raise UnknownNameError("task", "ascnding", ["ascending", "add-1"], "Or a file.")


class Unsendable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def unsendable(_: int) -> None:
    raise Unsendable(1, 2)


def die_once(path: str) -> int:
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def moment(path: str) -> float:
    time.sleep(0.05)
    return time.monotonic()


def threads(_: int) -> Any:
    import torch

    return os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()


@pytest.mark.parametrize("name", ALL)
def test_results_come_in_order_and_are_told_as_they_are_done(name: str) -> None:
    told: dict[int, int] = {}
    results = executor_named(name, None if name == "inline" else 2).run(
        double, [3, 1, 2], told=lambda index, result: told.update({index: result})
    )
    assert results == [6, 2, 4]
    assert told == dict(enumerate(results))


@pytest.mark.parametrize("name", ALL)
def test_an_item_starts_when_what_it_needs_is_done(name: str) -> None:
    first, second, third = executor_named(name, None if name == "inline" else 2).run(
        moment, ["a", "b", "c"], needs={0: [2], 1: [0]}
    )
    assert third < first < second


@pytest.mark.parametrize("name", ALL)
def test_of_the_items_that_could_start_the_first_does(name: str) -> None:
    told: list[int] = []
    executor_named(name, None if name == "inline" else 1).run(
        double, [1, 2, 3, 4], needs={1: [0]}, told=lambda index, _: told.append(index)
    )
    assert told == [0, 1, 2, 3]  # 1 was the last that could start


@pytest.mark.parametrize("name", ALL)
def test_what_the_function_raises_is_raised(name: str) -> None:
    with pytest.raises(InputError, match="two is not wanted"):
        executor_named(name, None if name == "inline" else 2).run(refuse, [1, 2, 3])


@pytest.mark.slow
def test_what_a_worker_cannot_send_back_is_told_and_no_death() -> None:
    """The pool took both for workers that ran out of memory, and started the item four times."""
    with pytest.raises(UnknownNameError) as refused:
        LocalProcesses(1).run(unknown, [1])
    with pytest.raises(UnknownNameError) as said:
        unknown(1)
    assert str(refused.value) == str(said.value)
    with pytest.raises(ElicitableError, match="Unsendable: 1 and 2"):
        LocalProcesses(1).run(unsendable, [1])


PART = """
import json
from dataclasses import dataclass

import inner.part

@dataclass
class Part:
    number: int

    def told(self):
        return json.dumps([self.number, inner.part.WORD])
"""
OWN = """
import part
from part import Part

class Own(Part):
    def __init__(self):
        super().__init__(part.__name__ == "part" and 3)
"""


def tell(shared: Any, _: int) -> str:
    told: str = shared.told()
    return told


@pytest.mark.parametrize("name", [LOCAL, RAY])
def test_what_a_file_imports_from_beside_it_travels_with_it(name: str, tmp_path: Path) -> None:
    """No worker could import it."""
    (tmp_path / "inner").mkdir()  # no __init__.py
    (tmp_path / "inner" / "part.py").write_text("WORD = 'of a package'\n")
    (tmp_path / "part.py").write_text(PART)
    (tmp_path / "own.py").write_text(OWN)
    before = set(sys.modules)
    try:
        own = load_own(f"{tmp_path / 'own.py'}:Own", "")
        with executor_named(name, 1).kept(own) as executor:
            assert executor.run(tell, [1]) == ['[3, "of a package"]']
    finally:
        for module in {"part", "inner", "inner.part"} - before:
            sys.modules.pop(module, None)


@pytest.mark.parametrize("name", [LOCAL, RAY])
def test_what_a_function_imports_when_it_is_called_travels_too(name: str, tmp_path: Path) -> None:
    """Where the folder is not seen any more, either."""
    (tmp_path / "lazy_inner").mkdir()  # no __init__.py
    (tmp_path / "lazy_inner" / "lazy_part.py").write_text(
        "def word():\n    import lazy_word\n    return lazy_word.WORD\n"
    )
    (tmp_path / "lazy_word.py").write_text("WORD = 'at call'\n")
    source = "class Own:\n    def told(self):\n        from lazy_inner.lazy_part import word\n        return word()\n"
    (tmp_path / "own.py").write_text(source)
    own = load_own(f"{tmp_path / 'own.py'}:Own", "")
    for file in tmp_path.rglob("*.py"):
        file.unlink()
    with executor_named(name, 1).kept(own) as executor:
        assert executor.run(tell, [1]) == ["at call"]


def test_what_a_worker_cannot_import_is_named() -> None:
    script = (
        "import sys; sys.modules['gone_module'] = m = type(sys)('gone_module'); exec('class A: pass', m.__dict__)\n"
        "import pickle; print(pickle.dumps(m.A()).hex())"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    with pytest.raises(InputError, match=r"cannot read what it was sent \(No module named 'gone_module'"):
        unpacked(bytes.fromhex(told))


@pytest.mark.parametrize("name", [LOCAL, RAY])
def test_a_worker_that_is_killed_is_replaced_and_its_item_started_again(name: str, tmp_path: Path) -> None:
    others = [tmp_path / "there"]
    others[0].touch()
    found = executor_named(name, 2).run(die_once, [str(tmp_path / "new"), *map(str, others)])
    assert (tmp_path / "new").exists()
    assert all(isinstance(one, int) for one in found)


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_run_with_advice() -> None:
    with pytest.raises(ElicitableError, match=r"died 4 times in a row.*fewer --workers"):
        LocalProcesses(1).run(die, [1])


def test_a_script_without_a_guard_is_told_of_it_at_once(tmp_path: Path) -> None:
    """Every worker ran the script again and died of it, four times, which read like a lack of memory."""
    script = tmp_path / "script.py"
    script.write_text(
        "from elicitable.executors.processes import LocalProcesses\n"
        "from elicitable.records.lock import alone_in_out\n"
        "@alone_in_out\n"
        "def run(out):\n"
        "    print(LocalProcesses(1).run(abs, [-1]))\n"
        f"run(out={str(tmp_path / 'run')!r})\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("elicitable.errors.InputError: every process that is started runs the script again")
    assert last.endswith("put the call under `if __name__ == '__main__':` in the script.")


@pytest.mark.parametrize("name", [LOCAL, RAY])
def test_workers_are_pinned_to_one_thread(name: str) -> None:
    assert executor_named(name, 2).run(threads, [0]) == [("1", 1)]


def test_needs_that_go_round_are_refused() -> None:
    with pytest.raises(InputError, match="circle"):
        Inline().run(double, [1, 2], needs={0: [1], 1: [0]})


def test_names_and_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'local'"):
        executor_named("locl")
    with pytest.raises(InputError, match="--address is for --executor ray"):
        executor_named("local", address="auto")
    with pytest.raises(InputError, match="workers must be at least 1"):
        executor_named("local", workers=0)
    with pytest.raises(InputError, match="--workers is for --executor local or ray, not for inline"):
        executor_named("inline", workers=8)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="runs where `pip install elicitable[ray]`")
def test_of_a_running_cluster_as_many_are_asked_for_as_was_said() -> None:
    assert executor_named("ray", 3, "host:6379").at_once == 3
    assert executor_named("ray", None, "host:6379").at_once == sys.maxsize


def test_without_ray_the_error_gives_the_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"run: pip install 'elicitable\[ray\]'"):
        executor_named("ray")


def test_an_executor_lets_go_when_it_is_interrupted() -> None:
    stopped: list[str] = []

    class Watched(Inline):
        def stop(self) -> None:
            stopped.append("now")
            super().stop()

    executor: Executor = Watched()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        executor.run(interrupt, [1, 2])
    assert stopped == ["now"]


@pytest.mark.parametrize("name", ALL)
def test_what_is_shared_is_given_to_every_item_of_every_run(name: str) -> None:
    with executor_named(name, None if name == "inline" else 2).kept(10) as executor:
        assert executor.run(add, [1, 2, 3]) == [11, 12, 13]
        assert executor.run(add, [4]) == [14]
    assert executor.run(double, [1]) == [2]  # nothing is shared any more
