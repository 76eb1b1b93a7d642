"""The gallery page runs, block after block, and prints what stands beneath each."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "constructions.md"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)
FILE = re.compile(r'```json title="([^"]+)"\n(.*?)```', re.DOTALL)


def test_the_commands_of_the_gallery_end_as_it_says(call: Callable[..., tuple[int, str, str]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, text in FILE.findall(page):
        Path(name).write_text(text, encoding="utf-8")
    lines = COMMANDS.findall(page)[0].splitlines()
    assert len(lines) == 5
    for line in lines:
        command, _, says = line.replace("--length 6 --verify exhaustive", "--length 3 --verify exhaustive").partition(
            "#"
        )
        code, out, _ = call(*shlex.split(command)[1:])
        assert code == ("exit 1" in says or "the same" in says), line
        assert ("counterexample" in out) == bool(code)


@pytest.mark.slow
def test_the_gallery_prints_what_it_says() -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 14
    names: dict[str, object] = {}
    for code, output in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)
        assert printed.getvalue() == output
