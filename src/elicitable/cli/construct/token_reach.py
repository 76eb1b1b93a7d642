"""``elicitable construct token-reach``: what single hard and virtual tokens reach on a trained language model."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from elicitable.cli.construct.record import Answer
from elicitable.cli.output import output, progress_console, say
from elicitable.errors import InputError
from elicitable.lab.reach import check_sizes, token_reach
from elicitable.models.load import load
from elicitable.report.html import write_page
from elicitable.report.token_reach import reach_lines, token_reach_section
from elicitable.report.verdict_json import plain_json

if TYPE_CHECKING:
    from pathlib import Path


def answer(
    model: str, hard_tokens: str, virtual_tokens: int, targets: str, seed: int, out: Path, is_quiet: bool
) -> Answer:
    """The record and the lines to print; records and report are kept in ``out``."""
    count: int | Literal["all"]
    if hard_tokens == "all":
        count = "all"
    elif hard_tokens.isdecimal():
        count = int(hard_tokens)
    else:
        raise InputError(f"--hard-tokens takes a number or all, got {hard_tokens!r}.")
    # before the model is loaded, which takes a while
    check_sizes(count, virtual_tokens, targets)
    started = said = time.monotonic()

    def told(what: str, share: float) -> None:
        nonlocal said
        now = time.monotonic()
        if is_quiet or now - said < 5:
            return
        said = now
        left = f"about {(now - started) * (1 - share) / share:.0f} s left" if share > 0.02 else "…"
        say(f"{what}: {share:.0%}, {left}", progress_console())

    with output(out):
        found = token_reach(
            load(model),
            hard_tokens=count,
            virtual_tokens=virtual_tokens,
            targets=targets,
            seed=seed,
            out=out,
            progress=told,
        )
        report = write_page(f"Single tokens on {model}", [token_reach_section(found)], out / "report.html")
    record: dict[str, Any] = plain_json(asdict(found))
    return record, [*reach_lines(found), f"Report: {report}"]
