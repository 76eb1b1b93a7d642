"""Python's functions take all that the command line takes, and the other way round, by enumeration of both."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import elicitable as el
from elicitable.cli import forecast as forecast_command
from elicitable.cli import tune as tune_command
from elicitable.cli import verdict as verdict_command
from elicitable.cli.options import ModelOptions, spread
from elicitable.tasks.options import TaskOptions

OUTPUT = {"as_json", "quiet", "price_in", "price_out", "price_hour"}  # what is printed; Python returns it
PYTHON_ONLY = {"reporter", "started", "task_options"}
RENAMED = {"method": "methods", "prompt": "prompts"}  # options that may be repeated


@pytest.mark.parametrize(
    ("command", "function", "renamed"),
    [
        (verdict_command.verdict, el.verdict, RENAMED),
        (tune_command.tune, el.tune, {"init_text": "text"}),
        (forecast_command.forecast, el.forecast, {}),
    ],
)
def test_python_takes_what_the_command_line_takes(
    command: Callable[..., None], function: Callable[..., Any], renamed: dict[str, str]
) -> None:
    typed = set(inspect.signature(spread(command)).parameters)
    of_tasks, of_models = ({field.name for field in fields(group)} for group in (TaskOptions, ModelOptions))
    typed = {renamed.get(name, name) for name in typed - OUTPUT - (of_models - {"model"}) - of_tasks}
    assert typed == set(inspect.signature(function).parameters) - PYTHON_ONLY
    assert "task_options" in inspect.signature(function).parameters  # every option of a task, by its name


def test_both_commands_take_every_option_of_a_task_and_a_model() -> None:
    for command in (verdict_command.verdict, tune_command.tune):
        typed = set(inspect.signature(spread(command)).parameters)
        assert {field.name for group in (TaskOptions, ModelOptions) for field in fields(group)} <= typed
