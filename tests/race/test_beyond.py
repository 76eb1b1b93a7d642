"""What fails behind a decided race costs that part of the verdict, and the answer stands."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.reverse import Reverse, race_of_seconds

from elicitable.errors import InputError, StoreError
from elicitable.models.model import Model
from elicitable.race import contest, keeping
from elicitable.values import Verdict

Build = Callable[..., Model]
NO_MEMORY, FULL = "there is not enough memory", OSError(errno.ENOSPC, "No space left on device")
ON_A_GPU = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A race of seconds: little data, few steps; the side effects on the same few items."""
    race_of_seconds(monkeypatch, first_steps=4, finish=4, steps=8)


def run(model: Model, out: Path, **options: Any) -> Verdict:
    chosen = ["zero-shot", "kv-prefix"]
    return contest.verdict(model, Reverse(), seeds=1, budget=500, out=out, methods=chosen, **options)


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("part", "error", "said"),
    [
        ("_classes", KeyError(), "counting the answers by class failed: KeyError"),
        ("keep_winner", MemoryError(), f"writing the winner failed: {NO_MEMORY}"),
        ("grown_with_rows", FULL, "the curve over rows failed: OSError: [Errno 28] No space left on device"),
        ("find_why", InputError("no text is left."), "finding the causes failed: no text is left"),
        ("look_inside", ON_A_GPU, f"looking inside the model failed: {NO_MEMORY}"),
    ],
)
def test_the_answer_stands_whatever_fails_behind_it(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: Exception, said: str
) -> None:
    """No table, no record and no report came of a race that had been decided, however often it was run again."""
    model, asked = digits_model(8), {"rows_curve": part == "grown_with_rows", "why": part == "find_why"}
    with monkeypatch.context() as patch:
        patch.setattr(contest, part, failing(error))
        lacking = run(model, tmp_path, **asked)
    assert lacking.provenance["warnings"][-1].startswith(f"{said}. The answer stands")
    assert (lacking.card is None) == (part == "keep_winner")
    assert (lacking.inspection is None) == (part == "look_inside")
    whole = run(model, tmp_path, **asked)
    assert (whole.label, whole.arms) == (lacking.label, lacking.arms)
    assert not any("failed" in one for one in whole.provenance["warnings"])
    assert whole.card is not None
    assert whole.inspection is not None


def test_a_winner_that_the_disk_does_not_hold_is_warned_of(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "write_artefact", failing(FULL))
    answer = run(digits_model(8), tmp_path)
    assert (
        f"writing the winner failed: cannot write {tmp_path / 'winner'}: No space left on device"
        in (answer.provenance["warnings"][-1])
    )
    assert answer.card is None
    assert answer.inspection is not None


@pytest.mark.parametrize("error", [AssertionError("a promise"), StoreError("it was altered")])
def test_a_broken_promise_and_a_record_that_was_altered_are_no_warnings(
    digits_model: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(contest, "look_inside", failing(error))
    with pytest.raises(type(error), match=str(error)):
        run(digits_model(8), tmp_path)
