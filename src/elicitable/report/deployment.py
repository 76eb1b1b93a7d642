"""What deploying the winner takes: what serves it, what a thousand requests cost, and the commands to type next."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

from elicitable.errors import InputError
from elicitable.report.html import Section
from elicitable.report.notation import plural
from elicitable.untrusted import command_line
from elicitable.values import DeploymentCard

THOUSAND, MILLION, HOUR = 1_000, 1_000_000, 3_600
SERVES = {
    "prompt": "any server: it is text",
    "peft": "servers that load PEFT adapters, such as vLLM and transformers",
    "merged": "any server, as a model of its own",
    "prompt-embeds": "servers that take input embeddings, such as vLLM with --enable-prompt-embeds",
    "kv": "servers with a KV connector, such as vLLM and those of LMCache",
}


@dataclass(frozen=True, slots=True)
class Prices:
    """Hold what a person pays: per million tokens read and written, and per hour of the machine that trains.

    >>> Prices(0.5, 1.5).of(row_tokens=100, answer_tokens=2, context_tokens=400, requests=1_000)
    0.253
    """

    read: float | None = None
    written: float | None = None
    hour: float | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a price below nothing, or without end."""
        for name, price in (("read", self.read), ("written", self.written), ("hour", self.hour)):
            if price is not None and not 0 <= price < math.inf:
                raise InputError(f"the price ({name}) must be a number of 0 or more, got {price}.")

    def of(self, row_tokens: float, answer_tokens: float, context_tokens: float, requests: int) -> float:
        """Return what so many requests cost: each reads its row and the context, and writes its answer."""
        reading = (row_tokens + context_tokens) * (self.read or 0.0)
        return requests * (reading + answer_tokens * (self.written or 0.0)) / MILLION


def facts(card: DeploymentCard, prices: Prices) -> list[tuple[str, str]]:
    """Return what deploying takes, as pairs of a name and a text."""
    found = [
        ("what serves it", "; ".join(f"{name}: {SERVES.get(name, name)}" for name in card.forms) or _nothing(card))
    ]
    tokens = THOUSAND * (card.row_tokens + card.context_tokens)
    found.append(
        (
            "a thousand requests",
            f"read {tokens:,.0f} tokens ({card.row_tokens:,.0f} of a row and {card.context_tokens:,} of the context in "
            f"each), write {THOUSAND * card.answer_tokens:,.0f}, and attend to {card.keys_per_layer:,} more keys per "
            "layer each",
        )
    )
    if prices.read is not None or prices.written is not None:
        cost = prices.of(card.row_tokens, card.answer_tokens, card.context_tokens, THOUSAND)
        found.append(("at your prices", f"{cost:,.4g} per thousand requests"))
    if card.rival:
        found.append((f"against {card.rival}", against(card, prices)))
    if card.overhead:
        found.append(("time to read a request", _time(card)))
    return found


def against(card: DeploymentCard, prices: Prices) -> str:
    """Say what the rival's text costs more or less, and after how many requests the training has paid for itself."""
    more = card.rival_tokens - card.context_tokens
    scored = "" if card.rival_mean is None else f" and scores {card.rival_mean:.3f}"
    said = f"{card.rival} reads {abs(more):,} tokens {'more' if more >= 0 else 'fewer'} in every request{scored}"
    if not prices.read or more == 0:
        return said
    saved = more * prices.read / MILLION
    said += f": {abs(saved) * THOUSAND:,.4g} {'more' if more > 0 else 'less'} per thousand requests"
    requests = break_even(card, prices)
    if requests is None:
        return said
    return f"{said}; the {card.training_seconds:,.0f} seconds of training have paid for themselves after " + plural(
        requests, "request"
    )


def break_even(card: DeploymentCard, prices: Prices) -> int | None:
    """Return after how many requests training has paid for itself against the rival's text; None where it never does.

        requests = ⌈seconds / 3600 · price an hour / ((rival's tokens − own) · price a token)⌉

    >>> card = DeploymentCard("lora", "run", (), 10.0, 1.0, 0, 0, 3600.0, rival="examples", rival_tokens=500)
    >>> break_even(card, Prices(read=2.0, hour=4.0))
    4000
    """
    saved = (card.rival_tokens - card.context_tokens) * (prices.read or 0.0) / MILLION
    if prices.hour is None or saved <= 0:
        return None
    return -int(-(card.training_seconds / HOUR * prices.hour) // saved)


def commands(card: DeploymentCard, own: str | None = None) -> tuple[str, ...]:
    """Return the commands that answer new rows with the arm, and that export it.

    ``own`` is how a method of a person's own was typed, which only they can name again.

    >>> card = DeploymentCard("lora", "my run", ("peft", "merged"), 10.0, 1.0, 0, 0, 1.0)
    >>> commands(card)[1]
    "elicitable export 'my run' --to peft --out 'my run/peft'"
    """
    folder = _typed(card.run)
    run = (folder, "--method", own) if own else (folder,)
    exports = (
        command_line("elicitable", "export", *run, "--to", form, "--out", f"{folder}/{form}") for form in card.forms
    )
    return (command_line("elicitable", "predict", *run, "--input", "rows.csv"), *exports)


def _typed(run: str) -> str:
    """Return a folder as it can be typed where options may stand too."""
    return f"./{run}" if run.startswith("-") else run


def deployment_section(card: DeploymentCard, prices: Prices, typed: tuple[str, ...]) -> Section:
    """Return the part of the report that says what deploying takes, and what is typed next."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in facts(card, prices)
    )
    lines = "\n".join(typed)
    return Section(
        f"Deploying {card.method}",
        f'<div class="table-scroll"><table class="facts said">{rows}</table></div>'
        f'<p class="note">What to type next, with your own file of rows:</p><pre>{html.escape(lines)}</pre>',
    )


def _time(card: DeploymentCard) -> str:
    low, middle, high = card.overhead
    return (
        f"{1e3 * card.plain_seconds:,.1f} ms for the base model alone, {1e3 * card.with_seconds:,.1f} ms with it: "
        f"{middle:+.0%} (quartiles {low:+.0%} to {high:+.0%}), in {card.requests_timed} pairs, one request at a time, "
        f"in this package on {card.device}; a server has other overheads"
    )


def _nothing(card: DeploymentCard) -> str:
    return f"this package alone: {command_line('elicitable', 'predict', _typed(card.run))}"
