"""Say in one place what a person can tell about a task; the command line, ``verdict`` and ``tune`` take these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from elicitable.errors import InputError, UnknownNameError

TABLES: Final = ("file", "hub", "memory")


def _of(help: str, takes: tuple[str, ...] = TABLES) -> dict[str, Any]:
    return {"help": help, "takes": takes}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """Hold every option of every kind of task; None means that it was not given.

    Each field's ``metadata`` holds ``help``, one line for a person, and ``takes``, the kinds of task that take it.
    """

    text_column: str | None = field(default=None, metadata=_of("column of the text (classification)"))
    label_column: str | None = field(default=None, metadata=_of("column of the label"))
    prompt_column: str | None = field(default=None, metadata=_of("column of the prompt (generation)"))
    target_column: str | None = field(default=None, metadata=_of("column of the target"))
    group_column: str | None = field(
        default=None, metadata=_of("rows that agree in this column belong together, in one split")
    )
    template: str | None = field(
        default=None, metadata=_of("how a row is shown: {text}, or any columns by name", (*TABLES, "text"))
    )
    separator: str | None = field(
        default=None, metadata=_of("what stands between prompt and answer; default one space")
    )
    label_names: Mapping[Any, Any] | None = field(default=None, metadata=_of("other names for labels: OLD=NEW"))
    skip_bad_rows: bool | None = field(
        default=None, metadata=_of("leave out rows without a text or an answer, and list them")
    )
    encoding: str | None = field(
        default=None, metadata=_of("encoding of CSV, TSV and JSON files; default UTF-8", ("file",))
    )
    validation: Any = field(
        default=None, metadata=_of("a file of its own for the validation split", ("file", "memory"))
    )
    test: Any = field(default=None, metadata=_of("a file of its own for the test split", ("file", "memory")))
    config: str | None = field(default=None, metadata=_of("subset of a hub data set", ("hub",)))
    fewshot: int | None = field(
        default=None, metadata=_of("worked examples in every prompt of an lm-eval task", ("harness",))
    )
    turns: bool | None = field(
        default=None, metadata=_of("lm-eval's worked examples as turns of a conversation", ("harness",))
    )

    @classmethod
    def names(cls, kind: str) -> tuple[str, ...]:
        """Return the options that tasks of ``kind`` take.

        >>> TaskOptions.names("text")
        ('template',)
        """
        return tuple(one.name for one in fields(cls) if kind in one.metadata["takes"])

    @classmethod
    def checked(cls, name: str, kind: str, given: Mapping[str, Any]) -> TaskOptions:
        """Return the options of the task ``name``; raises :class:`InputError` for one that its kind does not take."""
        known = cls.names(kind)
        for option in given:
            if option not in known and not known:
                raise InputError(f"task {name!r} takes no options, so not {option!r}")
            if option not in known:
                raise UnknownNameError(f"option of task {name!r}", option, known)
        return cls(**given)
