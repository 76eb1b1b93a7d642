"""The options that several commands take, each defined once.

A group of options is a dataclass: a field per option. A command names the group as a parameter, and :func:`spread`
turns that parameter into the options. The options of a task stand in ``tasks/options.py``, for Python and the command
line alike: a field there is an option of every command that takes a task.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from elicitable.errors import InputError
from elicitable.tasks import options

if TYPE_CHECKING:
    from elicitable.deploy.record import Base
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

Budget = Annotated[
    int | None,
    typer.Option("--budget", help="the most numbers to train [default: 12 x layers x d_model; 2 x on toy:ascending]"),
]
Seed = Annotated[int, typer.Option("--seed", help="of everything that is drawn")]
Out = Annotated[Path | None, typer.Option("--out", help="the folder that results are written to")]
Resumed = Annotated[Path | None, typer.Option("--out", help="output folder; the same arguments resume there")]
Json = Annotated[
    bool, typer.Option("--json", help="print one JSON object on standard output, progress on standard error")
]
TestItems = Annotated[int | None, typer.Option("--test-items", help="how many items of the test split")]
ScoreName = Annotated[
    str | None,
    typer.Option("--score", help="what counts: see `elicitable scores`; my_score.py:function is code that is run"),
]
Rule = Annotated[
    str,
    typer.Option(
        "--rule",
        help="how labels are decided between: auto (the best on validation), sum, per token, per character, per byte, "
        "prior-corrected or fitted",
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", help="trials at once")]
Address = Annotated[str | None, typer.Option("--address", help="of a Ray cluster")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: Annotated[
        str, typer.Option("--model", "-m", help="toy:mixed, toy:ascending, smollm2, a folder, a .gguf file or a hub id")
    ]
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")] = "auto"
    dtype: Annotated[
        str | None,
        typer.Option(help="float64, float32, bfloat16 or float16 [default: bfloat16 on cuda, float32 elsewhere]"),
    ] = None
    device_map: Annotated[
        str | None,
        typer.Option(help="auto, balanced or sequential: spread over all devices, memory and disk"),
    ] = None
    load_in: Annotated[str | None, typer.Option(help="8bit or 4bit: pack its matrices (needs bitsandbytes)")] = None
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="train in less memory: run layers again for the gradients"),
    ] = False

    def load(self, dtype: str | None = None, base: Base | None = None) -> Model:
        """The model, in the type that was asked for, in ``dtype``, or in the one that suits the device.

        What was not asked for is as it was in ``base``, where an artefact of it is read.
        """
        from elicitable.models.load import load

        asked = {
            "dtype": self.dtype,
            "device_map": self.device_map,
            "load_in": self.load_in,
            "gradient_checkpointing": self.gradient_checkpointing or None,
        }
        typed = {name: value for name, value in asked.items() if value is not None}
        known = {} if base is None else base.how(self.device)
        return load(self.model, **{"device": self.device, "dtype": dtype} | known | typed)

    def typed(self) -> list[str]:
        """The options as they are typed on a command line."""
        return _typed(self)


@dataclass(frozen=True)
class ExecutorOptions:
    """Where trials run."""

    executor: Annotated[
        str | None,
        typer.Option(
            help="local, inline or ray: a thread a trial, equal records "
            "[default: local for a small model that nothing hurries, else this process on its quickest threads]"
        ),
    ] = None
    workers: Workers = None
    address: Address = None
    gpus: Annotated[
        float | None, typer.Option(help="share of a GPU that each worker on a Ray cluster takes, such as 0.5")
    ] = None

    def begin(self, model: str, time_limit: float | None) -> None:
        """Let the workers that a race of a toy will have begin, before anything that takes seconds is imported."""
        from elicitable.executors.processes import begin_early, is_free

        if not self._said() and model.startswith("toy:") and time_limit is None and is_free():
            begin_early(["elicitable.models.load"])

    def given(self, model: Model, time_limit: float | None) -> dict[str, Any]:
        """Return the options by name; where none is given, what suits a race of ``model``."""
        from elicitable.race.workers import suited_executor

        return self._said() or {"executor": suited_executor(model, time_limit)}

    def typed(self) -> list[str]:
        """The options as they are typed on a command line."""
        return flags(**self._said())

    def _said(self) -> dict[str, Any]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class LayoutOptions:
    """How a model reads the items of a text task."""

    chat: Annotated[
        str,
        typer.Option(help="the tokenizer's chat template: on, off, or auto (where there is one; a race tries off too)"),
    ] = "auto"
    system: Annotated[str | None, typer.Option(help="the system message of a chat")] = None
    stop: Annotated[
        str | None, typer.Option(help="the text that ends an answer [default: the template's end of turn, or of text]")
    ] = None
    max_tokens: Annotated[
        int | None, typer.Option(help="longer texts are cut [default: as far as the model's positions reach]")
    ] = None
    truncate: Annotated[str, typer.Option(help="the side on which texts are cut: left or right")] = "left"

    def given(self) -> dict[str, Any]:
        """The options by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def typed(self) -> list[str]:
        """The options as they are typed on a command line."""
        return _typed(self)


def _typed(group: Any) -> list[str]:
    """What was given of a group of options that take a value each, as it is typed."""
    given = {field: getattr(group, field.name) for field in fields(group)}
    return flags(**{field.name: value for field, value in given.items() if value != field.default})


def flags(**given: object) -> list[str]:
    """Return options as they are typed: nothing for None, the flag alone for True, several for a list.

    A value that looks like an option is joined to its own.

    >>> flags(prompt="--seed")
    ['--prompt=--seed']
    >>> flags(budget=100, score=None, prompt=["a b", "c"], why=True)
    ['--budget', '100', '--prompt', 'a b', '--prompt', 'c', '--why']
    """
    found: list[str] = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif value is not None and value is not False:
            for one in map(str, value if isinstance(value, list) else [value]):
                found += [f"{flag}={one}"] if one.startswith("-") else [flag, one]
    return found


def _option_of(field: Field[Any], kind: Any) -> tuple[str, Any, Any]:
    """An option of a task as typer wants it: what is a mapping in Python is typed as OLD=NEW, a choice as a flag."""
    help_line = field.metadata["help"]
    if bool in get_args(kind):
        flag = f"--{field.name.replace('_', '-')}"
        return field.name, Annotated[bool, typer.Option(flag, help=help_line)], False
    typed = list[str] | None if "Mapping" in str(kind) else int | None if int in get_args(kind) else str | None
    return field.name, Annotated[typed, typer.Option(help=help_line)], None


#: Every option that `tasks/options.py` defines.
_Read = make_dataclass(
    "_Read",
    [_option_of(one, get_type_hints(options.TaskOptions)[one.name]) for one in fields(options.TaskOptions)],
    frozen=True,
    kw_only=True,
)


@dataclass(frozen=True, kw_only=True)
class ReadOptions(_Read):  # type: ignore[misc, valid-type]
    """How the data of a task are read: every option that a task has in Python."""

    def given(self) -> dict[str, Any]:
        """The options that were typed."""
        typed = {field.name: getattr(self, field.name) for field in fields(_Read)}
        known = {name: value for name, value in typed.items() if not _is_unsaid(value)}
        return {name: _pairs(name, value) if isinstance(value, list) else value for name, value in known.items()}


@dataclass(frozen=True, kw_only=True)
class TaskOptions(ReadOptions):
    """Which task, and how its data are read."""

    task: Annotated[
        str,
        typer.Option(
            "--task",
            "-t",
            help="a task by name, a file of rows, hub:owner/name, lm-eval:name, or my_task.py:MyTask (runs code)",
        ),
    ]

    def read(self) -> Task:
        """The task, read as the options that were given say."""
        from elicitable.tasks.catalog import task_from

        return task_from(self.task, **self.given())

    def typed(self) -> list[str]:
        """The options as they are typed on a command line."""
        given = self.given().items()
        pairs = {
            name: [f"{old}={new}" for old, new in value.items()] for name, value in given if isinstance(value, dict)
        }
        return flags(task=self.task, **(dict(given) | pairs))


def _is_unsaid(value: Any) -> bool:
    """Say whether ``value`` is that of an option which was not typed; a 0 was, although it equals False."""
    return value is None or value is False or value == []


def _pairs(name: str, typed: list[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in typed]
    if not all(old and mark for old, mark, _ in pairs):
        raise InputError(f"--{name.replace('_', '-')} takes OLD=NEW (and may be repeated), got {' '.join(typed)!r}.")
    return {old: new for old, _, new in pairs}


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer wants it: every parameter that is a group of options becomes one parameter per field.

    Raises:
        ValueError: two options of one command have the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _parameters_of(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    def typed(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **given)

    typed.__name__, typed.__doc__ = command.__name__, command.__doc__
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return typed


def _parameters_of(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
