"""Python's ``verdict`` and ``tune`` take what the command line takes: every option of a task, and data in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import elicitable as el
from elicitable.errors import InputError, UnknownNameError
from elicitable.models.model import Model
from elicitable.tasks.options import TaskOptions

Build = Callable[..., Model]


def frame() -> Any:
    import pandas

    return pandas.DataFrame({"body": [f"say {i}" for i in range(120)], "kind": ["a", "b"] * 60, "other": range(120)})


def test_verdict_and_tune_read_a_frame_with_named_columns(letters_model: Build) -> None:
    options: dict[str, Any] = {"text_column": "body", "label_column": "kind", "template": "{text}:", "test_items": 5}
    answer = el.verdict(letters_model(), frame(), methods=["zero-shot"], seeds=1, **options)
    assert answer.task == "data"
    assert answer.arms[0].samples[0]["prompt"].endswith(":")
    tuned = el.tune(letters_model(), frame(), method="value-bias", learning_rate=0.01, steps=1, **options)
    assert tuned.record["task"] == "data"


@pytest.mark.parametrize("name", [one.name for one in fields(TaskOptions)])
def test_every_option_reaches_the_task(name: str) -> None:
    """A task that takes no options names the one that it was given."""
    with pytest.raises(InputError, match=f"takes no options, so not '{name}'"):
        el.verdict("toy:ascending", "ascending", **{name: "x"})
    with pytest.raises(InputError, match=f"takes no options, so not '{name}'"):
        el.tune("toy:ascending", "ascending", **{name: "x"})


def test_an_option_that_there_is_not_has_near_matches() -> None:
    with pytest.raises(UnknownNameError, match=r"'text_colum': did you mean 'text_column'"):
        el.verdict("toy:ascending", "t.csv", text_colum="x")
