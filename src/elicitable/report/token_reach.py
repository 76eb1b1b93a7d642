"""Show hard tokens beside virtual tokens, in the terminal and in the report.

Tokens are decoded, and every text is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

from elicitable.report.html import Section
from elicitable.report.notation import duration, plural, rate
from elicitable.report.table import plain

if TYPE_CHECKING:
    from elicitable.diagnosis.distinct import Distinct
    from elicitable.records.reach import ReachExample, TokenReach

LONGEST_TEXT = 120
DRAWN = {
    "model": "what the model itself writes at temperature 1 after a token drawn at random",
    "random": "every token drawn uniformly from the vocabulary",
}


def reach_lines(found: TokenReach) -> list[str]:
    """Return the result as lines for a terminal, examples included.

    Control characters of decoded tokens are shown as escapes, so that no token can move the cursor.
    """
    return [
        f"{plain(found.model)}: {_question(found)}",
        "",
        *(f"  {text}" for text in [*hard_facts(found), *virtual_facts(found)]),
        f"  {duration(found.seconds)} in all.",
        "",
        "hard tokens",
        *(f"  {shown(one.token)} -> {shown(one.continuation)}" for one in found.hard.examples),
        *(f"  {plural(count, 'token')} -> {shown(text)}" for text, count in found.hard.shared),
        "virtual tokens",
        *(line for one in found.virtual.examples for line in _example_lines(one)),
    ]


def _question(found: TokenReach) -> str:
    after = f", after its start token {shown(found.start)}," if found.start else ""
    return f"what one token{after} can make it write, greedily, {plural(found.length, 'token')} long"


def _example_lines(one: ReachExample) -> Iterable[str]:
    if one.reached:
        yield f"  {plain(one.token)}, {plural(one.steps, 'step')} -> {shown(one.continuation)}"
    else:
        yield f"  {plain(one.token)}, missed: wanted {shown(one.target)}"
        yield f"    wrote {shown(one.continuation)}"


def hard_facts(found: TokenReach) -> list[str]:
    """Say what the hard tokens reach, in sentences."""
    counted = found.hard.distinct
    if counted.sampled == counted.population:
        return [
            f"All {counted.population:,} hard tokens: {counted.distinct:,} distinct continuations "
            f"({_percent(counted.share)})."
        ]
    return [
        f"{counted.sampled:,} of {counted.population:,} hard tokens, sampled: {counted.distinct:,} distinct "
        f"continuations, {_percent(counted.share)} [{_percent(counted.share_low)}, {_percent(counted.share_high)}].",
        _population(counted),
    ]


def _population(counted: Distinct) -> str:
    return (
        f"All {counted.population:,} would give about {counted.at_least:,.0f} (Chao and Lin's lower bound) to "
        f"{counted.at_most:,.0f} (discovery going on as at the sample's end); 95 % limits {counted.low:,.0f} to "
        f"{counted.high:,.0f}."
    )


def virtual_facts(found: TokenReach) -> list[str]:
    """Say what the virtual tokens reach, in sentences."""
    virtual = found.virtual
    rates = ", ".join(
        f"{rate(entry['rate'])}: {entry['reached']:.0f} of {entry['tried']:.0f} at {entry['loss_nats']:.2f} nats"
        for entry in virtual.sweep
    )
    return [
        f"{plural(virtual.tried, 'virtual token')}, {found.d_model:,} numbers each: {virtual.reached:,} wrote their "
        f"target exactly, free-running: {_percent(virtual.share)} [{_percent(virtual.low)}, {_percent(virtual.high)}].",
        f"They wrote {plural(virtual.distinct, 'distinct continuation')}; {_percent(virtual.tokens_right)} of the "
        "target tokens came before a first mistake.",
        f"Targets: {DRAWN[virtual.targets]}. At most {plural(virtual.steps, 'step')} of Adam at "
        f"{rate(virtual.learning_rate)}, chosen on other targets ({rates}).",
    ]


def token_reach_section(found: TokenReach) -> Section:
    """Return the section of the HTML report: the facts, and examples of hard and of virtual tokens."""
    told = [f"The question: {_question(found)}.", *hard_facts(found), *virtual_facts(found)]
    facts = "".join(f"<p>{html.escape(text)}</p>" for text in told)
    note = (
        "The source reports, for LLaMA-7B and ten tokens: 24,426 distinct continuations of its 32,000 hard tokens, and "
        "46,812 of 48,218 trained virtual tokens that reach theirs (Petrov, Torr, Bibi, ICLR 2024, section 3)."
    )
    shared = [(plural(count, "token"), text) for text, count in found.hard.shared]
    hard = [(one.token, one.continuation) for one in found.hard.examples]
    virtual = [
        (one.token, one.target, one.continuation, f"reached, step {one.steps}" if one.reached else "missed")
        for one in found.virtual.examples
    ]
    body = (
        facts
        + f'<p class="note">{html.escape(note)}</p>'
        + _table("Hard tokens", ("token", "the model writes"), hard)
        + (_table("Most shared", ("hard tokens", "the model writes"), shared) if shared else "")
        + _table("Virtual tokens", ("token", "target", "the model writes", "outcome"), virtual)
    )
    return Section(title=f"One token of {found.model}: hard and virtual", html=body)


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(shown(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h3>{html.escape(title)}</h3><div class="table-scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def shown(text: str) -> str:
    """Write a decoded token or continuation on one line, escaped where it cannot be printed, cut where it is long.

    >>> shown("two\\nlines \\x1b[31m")
    'two\\\\nlines \\\\x1b[31m'
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
