"""Every option of every command does something, and the options that commands share are defined once."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from elicitable.cli import commands
from elicitable.cli.construct.commands import CONSTRUCTIONS
from elicitable.cli.options import TaskOptions, spread
from elicitable.tasks import catalog, options

Call = Callable[..., tuple[int, str, str]]
EVERY = {**{command.__name__: command for command in commands.COMMANDS}, **CONSTRUCTIONS}
TAKES_A_TASK = {
    "verdict": ["verdict", "--model", "toy:ascending"],
    "tune": ["tune", "--model", "toy:ascending", "--method", "kv-prefix"],
    "inspect": ["inspect", "--model", "toy:ascending", "--prompt", "3 1"],
    "prune": ["prune", "adapter", "--model", "toy:ascending"],
}


def body_of(function: Callable[..., Any]) -> ast.FunctionDef:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(tree, ast.FunctionDef)
    return tree


def read_from(name: str, function: Callable[..., Any]) -> tuple[bool, set[str]]:
    """Whether ``function`` hands the variable ``name`` on as a whole, and the attributes that it reads off it."""
    parents = {child: node for node in ast.walk(body_of(function)) for child in ast.iter_child_nodes(node)}
    uses = [node for node in parents if isinstance(node, ast.Name) and node.id == name]
    attributes = {up.attr for use in uses if isinstance(up := parents[use], ast.Attribute)}
    return any(not isinstance(parents[use], ast.Attribute) for use in uses), attributes


def unused(command: Callable[..., Any]) -> Iterator[str]:
    """The options that the body of ``command`` never looks at."""
    hints = get_type_hints(command)
    for name in inspect.signature(command).parameters:
        is_handed_on, attributes = read_from(name, command)
        if not is_dataclass(hints[name]):
            if not is_handed_on and not attributes:
                yield name
        elif not is_handed_on:
            yield from {field.name for field in fields(hints[name])} - reached(hints[name], attributes)


def reached(group: type, attributes: set[str]) -> set[str]:
    """``attributes`` and what the methods among them read in turn; ``fields(self)`` reads everything."""
    found = set(attributes)
    for name in attributes:
        method = getattr(group, name, None)
        if inspect.isfunction(method):
            is_handed_on, more = read_from("self", method)
            found |= {field.name for field in fields(group)} if is_handed_on else reached(group, more)
    return found


@pytest.mark.parametrize("name", EVERY)
def test_every_option_of_every_command_is_looked_at(name: str) -> None:
    assert list(unused(EVERY[name])) == []


@dataclass(frozen=True)
class Group:
    """Two options, of which one is read by a method."""

    left: int
    right: int

    def half(self) -> int:
        """One of the two."""
        return self.left


def test_an_option_that_nothing_looks_at_is_found() -> None:
    def command(group: Group, seed: int, out: int) -> None:
        print(group.half(), out)

    command.__annotations__ = {"group": Group, "seed": int, "out": int}
    assert list(unused(command)) == ["right", "seed"]


def test_the_groups_of_the_constructions_are_read_to_the_last_field() -> None:
    """They are handed on as a whole, so where they end up counts."""
    from elicitable.cli import construct
    from elicitable.cli.construct.options import BuildOptions, MapOptions, Request, RunOptions

    (folder,) = construct.__path__
    source = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(folder).glob("*.py")]
    read = {node.attr for tree in source for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for group in (BuildOptions, MapOptions, RunOptions, Request):
        assert {field.name for field in fields(group)} <= read


@pytest.mark.parametrize("command", TAKES_A_TASK)
def test_every_command_that_takes_a_task_takes_all_that_say_how_to_read_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """What is typed arrives at the one place where tasks are made, in every command."""
    import elicitable.race.contest
    import elicitable.race.tune  # noqa: F401 (what is imported under the patch would keep it)

    given: dict[str, Any] = {}

    def task_from(task: str, **options: Any) -> None:
        given.update(options, task=task)
        raise catalog.InputError("far enough")

    monkeypatch.setattr(catalog, "task_from", task_from)
    wanted: dict[str, Any] = {"task": "my task"}
    typed = ["--task", "my task"]
    for option in fields(options.TaskOptions):
        flag = f"--{option.name.replace('_', '-')}"
        kind = str(option.type)
        known = {"bool": (True, []), "Mapping": ({"a": "b=c"}, ["a=b=c"]), "int": (3, ["3"])}
        other = (f"my {option.name}", [f"my {option.name}"])
        wanted[option.name], value = next((known[name] for name in known if name in kind), other)
        typed += [flag, *value]
    code, _, err = call(*TAKES_A_TASK[command], *typed)
    assert (code, given) == (2, wanted), err
    code, _, err = call(*TAKES_A_TASK[command], "--task", "mail.csv")
    assert given == wanted | {"task": "mail.csv"}


def test_a_zero_that_is_typed_is_given(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It equals False, and --fewshot 0 was taken for nothing typed: the task's own number of examples was shown."""
    import elicitable.race.tune  # noqa: F401 (what is imported under the patch would keep it)

    given: dict[str, Any] = {}

    def task_from(task: str, **options: Any) -> None:
        given.update(options)
        raise catalog.InputError("far enough")

    monkeypatch.setattr(catalog, "task_from", task_from)
    call(*TAKES_A_TASK["tune"], "--task", "lm-eval:arc_easy", "--fewshot", "0")
    assert given == {"fewshot": 0}
    assert TaskOptions(task="lm-eval:arc_easy", fewshot=0).typed()[-2:] == ["--fewshot", "0"]  # type: ignore[call-arg]


def test_other_names_of_labels_are_pairs(call: Call) -> None:
    code, _, err = call(*TAKES_A_TASK["tune"], "--task", "mail.csv", "--label-names", "a=b", "--label-names", "c")
    assert code == 2
    assert "--label-names takes OLD=NEW (and may be repeated), got 'a=b c'" in err


def test_two_options_of_one_name_are_refused_when_the_command_is_defined() -> None:
    def command(group: Group, left: int) -> None: ...

    command.__annotations__ = {"group": Group, "left": int}
    with pytest.raises(ValueError, match="duplicate parameter name"):
        spread(command)


def test_a_group_becomes_options_and_comes_back_as_a_group() -> None:
    @dataclass(frozen=True)
    class Two:
        need: Annotated[str, typer.Option("--need", "-n")]
        flag: Annotated[bool, typer.Option("--flag")] = False

    got: list[Any] = []

    def command(two: Two, more: int = 3) -> None:
        got.append((two, more))

    command.__annotations__ = {"two": Two, "more": int}
    Two.__annotations__ = get_type_hints(Two, localns=locals(), include_extras=True)
    app = typer.Typer()
    app.command()(spread(command))
    assert CliRunner().invoke(app, ["-n", "x", "--flag", "--more", "4"]).exit_code == 0
    assert CliRunner().invoke(app, []).exit_code == 2
    assert got == [(Two("x", True), 4)]


# --- which options there are ----------------------------------------------------------------------------------------


def options_of(call: Call, *command: str) -> set[str]:
    shown = call(*command, "--help")[1]
    words = shown.replace(",", " ").split()
    return {word for word in words if word.startswith("--") and word.lstrip("-").replace("-", "").isalpha()}


@pytest.mark.parametrize("command", ["verdict", "tune", "prune", "pretrain", "reproduce"])
def test_commands_that_draw_and_write_take_the_same_four(call: Call, command: str) -> None:
    assert options_of(call, command) >= {"--json", "--out", "--seed", "--quiet"}


@pytest.mark.parametrize("command", [("models",), ("tasks",), ("methods",), ("construct", "list")])
def test_lists_draw_nothing_and_write_nothing(call: Call, command: tuple[str, ...]) -> None:
    assert options_of(call, *command) - {"--architectures"} == {"--json", "--help"}


def test_there_are_no_other_commands(call: Call) -> None:
    shown = call("--help")[1].partition("Commands:")[2]
    names = {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line[2] != " "}
    assert names == {*(command.__name__.removesuffix("_command") for command in commands.COMMANDS), "construct"}
    assert len(names) == 16


@pytest.mark.parametrize(("args", "near"), [(["verdit"], "verdict"), (["construct", "theorm-1"], "theorem-1")])
def test_a_mistyped_command_is_named_with_near_matches(call: Call, args: list[str], near: str) -> None:
    code, out, err = call(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"unknown command {args[-1]!r}: did you mean {near!r}" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["verdict", "--modle", "x"], "No such option: --modle (Possible options: --method, --model, --rule)"),
        (["verdict"], "Missing option '--model'"),
        (["pretrain"], "Missing argument"),
        (["tune", "--steps", "many"], "Invalid value for '--steps'"),
    ],
)
def test_what_cannot_be_read_is_one_line(call: Call, args: list[str], words: str) -> None:
    code, out, err = call(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert words in err
    assert f"`elicitable {args[0]} --help`" in err


@pytest.mark.parametrize("args", [[], ["construct"]])
def test_nothing_typed_is_answered_with_the_help(call: Call, args: list[str]) -> None:
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert err == call(*args, "--help")[1]


def test_lists_are_what_they_say(call: Call) -> None:
    assert json.loads(call("construct", "list", "--json")[1])["more"].keys() == {"capacity", "reach", "token-reach"}
