"""A folder that a run is writing to is no other run's: whoever comes second is told, and nothing is half-written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

import elicitable as el
from elicitable.errors import StoreError
from elicitable.lab.pretrain import pretrain
from elicitable.lab.reach import token_reach
from elicitable.lab.reproduce import export_experiments
from elicitable.planted.models import pretrain_mix
from elicitable.records.lock import alone
from elicitable.records.store import Store

RUNS: dict[str, Callable[[Path], object]] = {
    "token reach": lambda out: token_reach(el.load("toy:ascending"), out=out, virtual_tokens=1, length=1, steps=1),
    "pretrain": lambda out: pretrain("ascending", out, steps=1),
    "pretrain planted": lambda out: pretrain_mix("copyist", out, steps=1),
    "export": lambda out: export_experiments([], [0], Store(None), out),
}
COMMANDS = {
    "token reach": ("construct", "token-reach", "--model", "toy:ascending", "--virtual-tokens", "1", "--quiet"),
    "pretrain": ("pretrain", "ascending", "--steps", "1", "--quiet"),
    "pretrain planted": ("pretrain", "planted:copyist", "--steps", "1", "--quiet"),
}


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A folder that another run has to itself."""
    is_held, is_over = Event(), Event()

    def hold() -> None:
        with alone(tmp_path):
            is_held.set()
            is_over.wait(60)

    other = Thread(target=hold)
    other.start()
    is_held.wait(60)
    yield tmp_path
    is_over.set()
    other.join()


@pytest.mark.parametrize("name", RUNS)
def test_a_run_waits_for_no_folder_and_writes_into_none(held: Path, name: str) -> None:
    before = {path.name for path in held.iterdir()}
    with pytest.raises(StoreError, match="another run is using"):
        RUNS[name](held)
    assert {path.name for path in held.iterdir()} == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_told_too(held: Path, name: str, call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = call(*COMMANDS[name], "--out", str(held))
    assert (code, out) == (2, "")
    assert "another run is using" in err
