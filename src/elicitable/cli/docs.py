"""``python -m elicitable.cli.docs``: the page of the documentation that says what can be typed, made from the help."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from elicitable.cli.commands import app

WIDTH = 78  # what is printed on a terminal of 80 columns

_HEAD = """# The command line

What `elicitable COMMAND --help` prints, for every command. `python -m elicitable.cli.docs > docs/command-line.md`
writes this page anew.

Results go to standard output (`--json`: one JSON object and nothing else), progress and warnings to standard error.
The exit code is 0, or 1 where what was checked is wrong, a trial failed or a row could not be answered; 2 after bad
input, with one line that names it; 130 after Ctrl-C, 143 after SIGTERM. Where `--out` says that the same arguments
resume, they do so after any of these.

`my_task.py:MyTask` and `my_method.py:MyMethod` name a class in a Python file of yours. The file is code and is run.
"""


def page() -> str:
    """The whole page, in Markdown."""
    return _HEAD + "".join(f"\n## {path}\n\n```text\n{shown}\n```\n" for path, shown in helps())


def helps() -> Iterator[tuple[str, str]]:
    """Each command as it is typed, with its help, in the order of the help; a group before its subcommands."""
    yield from _helps(typer.main.get_command(app), "elicitable", None)


def _helps(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    settings = command.context_settings | {"terminal_width": WIDTH, "max_content_width": WIDTH}
    context = command.context_class(command, info_name=name, parent=parent, **settings)
    shown = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, shown
    for sub in getattr(command, "commands", {}).values():
        yield from _helps(sub, sub.name, context)


if __name__ == "__main__":
    sys.stdout.write(page())
