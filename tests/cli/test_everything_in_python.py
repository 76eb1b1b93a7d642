"""What can be typed can be called: every command has a function of `elicitable`, and the reference says which."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import elicitable as el
from elicitable.cli.commands import app

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
NAMED_OTHERWISE = {"predict": "predictor", "compile": "compile_context"}
LISTS = {"models", "tasks", "methods", "scores"}  # these are the names of the rooms themselves
COMMANDS = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def function_of(command: str) -> str:
    return f"list_{command}" if command in LISTS else NAMED_OTHERWISE.get(command, command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_function(command: str) -> None:
    name = function_of(command)
    assert name in el.__all__
    function = getattr(el, name)
    assert callable(function)
    assert function.__doc__
    table = REFERENCE.read_text(encoding="utf-8").partition("| command | function |")[2]
    assert f"`{command}`" in table
    assert f"`el.{name}" in table or name == command


def test_all_commands_are_walked() -> None:
    assert {"verdict", "compile", "construct", "models"} <= set(COMMANDS)
    assert len(COMMANDS) == 16


def test_the_reference_describes_each_function_as_it_is_imported() -> None:
    described = re.findall(r"^::: ([\w.]+)$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name in set(el.__all__) - {"__version__", "errors"} - {f"list_{one}" for one in LISTS}:
        function = getattr(el, name)
        assert f"{function.__module__}.{function.__qualname__}" in described, name


def test_what_a_command_does_besides_has_the_function_that_the_reference_names() -> None:
    table = REFERENCE.read_text(encoding="utf-8").partition("| also on the command line | function |")[2]
    named = re.findall(r"`elicitable\.([\w.]+)\.(\w+)`", table)
    assert ("planted.models", "pretrain_mix") in named
    assert ("lab.reproduce", "tables") in named
    assert all(callable(getattr(importlib.import_module(f"elicitable.{home}"), name)) for home, name in named)


def test_the_lists_hold_what_the_commands_print(call) -> None:  # type: ignore[no-untyped-def]
    for command in LISTS:
        printed = call(command)[1]
        listed = getattr(el, function_of(command))()
        names = [one if isinstance(one, str) else one.name for one in listed]
        assert names
        assert all(name in printed for name in names)


def test_a_name_that_is_called_otherwise_at_home_is_the_same_function() -> None:
    from elicitable.race.pruning import prune_adapter

    assert el.prune is prune_adapter
    assert el.construct("theorem-1", vocab=3).target_shape


def test_the_package_is_a_command_as_well() -> None:
    done = subprocess.run([sys.executable, "-m", "elicitable", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"elicitable {el.__version__}\n"
