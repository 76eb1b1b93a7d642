"""The options that several commands take, each defined once.

A group of options is a dataclass: a field per option. A command names the group as a parameter, and :func:`spread`
turns that parameter into the options. To give every command that takes a task another option, add a field to
:class:`TaskOptions`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from elicitable.errors import InputError

if TYPE_CHECKING:
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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: Annotated[
        str, typer.Option("--model", "-m", help="toy:mixed, toy:ascending, smollm2, a folder, a .gguf file or a hub id")
    ]
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps")] = "auto"

    def load(self, dtype: str | None = None) -> Model:
        """The model, in ``dtype`` or in the one that suits the device."""
        from elicitable.models.load import load

        return load(self.model, device=self.device, dtype=dtype)


@dataclass(frozen=True)
class TaskOptions:
    """Which task, and how its data are read: every field but ``task`` is an option of ``tasks.catalog.task_from``."""

    task: Annotated[
        str,
        typer.Option(
            "--task",
            "-t",
            help="a task by name, a CSV, TSV or JSONL file, hub:owner/name, or my_task.py:MyTask (code that is run)",
        ),
    ]
    text_column: Annotated[str | None, typer.Option(help="column of the text (files, hub data)")] = None
    label_column: Annotated[str | None, typer.Option(help="column of the label")] = None
    prompt_column: Annotated[str | None, typer.Option(help="column of the prompt (generation)")] = None
    target_column: Annotated[str | None, typer.Option(help="column of the target (generation)")] = None
    template: Annotated[str | None, typer.Option(help="how a text is shown, with {text} in it")] = None
    max_words: Annotated[int | None, typer.Option(help="cut texts at so many words; 0 never cuts")] = None
    validation: Annotated[str | None, typer.Option(help="a file of its own for the validation split")] = None
    test: Annotated[str | None, typer.Option(help="a file of its own for the test split")] = None

    def read(self) -> Task:
        """The task, read as the options that were given say."""
        from elicitable.tasks.catalog import task_from

        return task_from(self.task, **self.given())

    def given(self) -> dict[str, Any]:
        """The options whose values are not the default."""
        options = (field for field in fields(self) if field.default is not MISSING)
        values = {field.name: (getattr(self, field.name), field.default) for field in options}
        return {name: value for name, (value, default) in values.items() if value != default}


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


def seconds(text: str | None) -> float | None:
    """A duration such as ``90``, ``90s``, ``30m`` or ``1.5h`` in seconds.

    >>> seconds("30m")
    1800.0
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h)?", text.strip())
    if match is None:
        raise InputError(f"a time limit is a number with s, m or h (90s, 30m, 2h), got {text!r}.")
    return float(match[1]) * {None: 1, "s": 1, "m": 60, "h": 3600}[match[2]]
