"""Make a person's own file a task: CSV, TSV, JSON, Parquet or Arrow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from elicitable.tasks.files import check_encoding, read_table
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.tables import Table
from elicitable.tasks.tabular import task_of_tables
from elicitable.tasks.text import TextTask
from elicitable.values import Split

_NONE: Final = TaskOptions()


def file_task(path: str | os.PathLike[str], options: TaskOptions = _NONE) -> TextTask:
    """Return the task of one file, named after it; ``validation`` and ``test`` are files of their own where given.

    A split that is not given is split off by the hash of the text: 10 % validation, 20 % test. Every mistake in a
    file raises :class:`InputError`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mail.csv"
    ...     rows = [f"message {i},{'spam' if i % 3 else 'ham'}" for i in range(90)]
    ...     _ = path.write_text("\\n".join(["text,label", *rows]))
    ...     task = file_task(path)
    >>> task.name, task.labels(), sum(task.sizes.values())
    ('mail.csv', (' ham', ' spam'), 90)
    """
    given = (path, options.validation, options.test)
    check_encoding([one for one in given if one is not None], options.encoding)
    tables: dict[Split, Table] = {"train": read_table(path, options.encoding)}
    if options.validation is not None:
        tables["validation"] = read_table(options.validation, options.encoding)
    if options.test is not None:
        tables["test"] = read_table(options.test, options.encoding)
    return task_of_tables(Path(path).name, tables, options)
