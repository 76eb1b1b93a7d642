"""The page of the documentation that lists the commands is what they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from elicitable.cli.commands import COMMANDS
from elicitable.cli.docs import helps, page

PAGE = Path(__file__).parent.parent.parent / "docs" / "command-line.md"


def test_the_page_is_what_the_commands_print() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m elicitable.cli.docs > docs/command-line.md"


def test_the_page_has_every_command_as_it_is_typed(call: Callable[..., tuple[int, str, str]]) -> None:
    shown = dict(helps())
    assert len(shown) == 1 + len(COMMANDS) + 1 + 9
    for path in ("elicitable", "elicitable tune", "elicitable construct", "elicitable construct theorem-1"):
        printed = call(*path.split()[1:], "--help")[1]
        assert [line.rstrip() for line in printed.splitlines()] == shown[path].splitlines()
