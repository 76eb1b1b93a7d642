"""Write the report: one HTML file that holds everything and asks the network for nothing.

The page has one script of its own (``templates/report.js``), and its content security policy allows that one by its
hash, no other, and no request. So a text from a user's file could not cause one even if it were not escaped. It is
escaped all the same, like every value that reaches the template. Control, zero-width and right-to-left characters are
written out, in the sections too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import replace_file
from elicitable.report import notation, phrases, standing
from elicitable.report.explorer import explorer
from elicitable.report.glossary import entries, linked
from elicitable.report.margins import margins
from elicitable.report.pictures.axes import PANEL, TICKS
from elicitable.report.pictures.cost import cost_plot
from elicitable.report.pictures.curves import curve_panels
from elicitable.report.pictures.differences import difference_chart
from elicitable.report.pictures.masses import heat_maps
from elicitable.report.pictures.race import race_chart
from elicitable.report.pictures.side_effects import side_effects
from elicitable.report.pictures.sweeps import sweep_panels
from elicitable.report.script import SCRIPT, SCRIPT_HASH
from elicitable.report.table import warnings_of
from elicitable.report.tried import NO_SETTINGS, setting_text, tried_table
from elicitable.untrusted import visible
from elicitable.values import ArmResult, Verdict

if TYPE_CHECKING:
    from jinja2 import Environment

ADVICE = "Free the place or choose another --out."
SHOWN_APART = ("command", "warnings")  # keys of provenance with a place of their own


@dataclass(frozen=True, slots=True)
class Section:
    """Hold a further part of the report. ``html`` is taken as it is, so whoever makes it escapes the texts in it.

    One that ``leads`` stands before the race; the others behind all that the race itself has to show.

    It may use inline SVG, images as ``data:`` and inline styles; scripts and requests are blocked by the page. The
    page's colours are CSS variables (``--ink``, ``--soft``, ``--line``, ``--card``, ``--context``, ``--weights``,
    ``--nothing``, ``--accent``) that fit light and dark; its classes ``note``, ``panels``, ``panel``, ``table-scroll``
    may be used.
    """

    title: str
    html: str
    leads: bool = False


def write_report(verdict: Verdict, path: str | os.PathLike[str], sections: Sequence[Section] = ()) -> Path:
    """Write the report to ``path`` and return it. The same record gives the same bytes.

    The file appears whole or not at all.

    Raises:
        StoreError: ``path`` cannot be written.
        UnknownNameError: the verdict's label is none that an arm or the report knows.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> verdict = Verdict("inconclusive", ("One seed only.",), (), "toy:mixed", "ascending", 0.02)
        >>> write_report(verdict, Path(folder) / "report.html").name
        'report.html'
    """
    path = Path(path)
    page = report_html(verdict, sections).encode("utf-8", errors="replace")
    replace_file(path, page, ADVICE, f"the report to {str(path)!r}")
    return path


def write_page(title: str, sections: Sequence[Section], path: str | os.PathLike[str]) -> Path:
    """Write a page of sections without a verdict, self-contained like the report; raises StoreError as it does."""
    path = Path(path)
    page = visible(_environment().get_template("page.html.j2").render(title=title, sections=sections))
    replace_file(path, page.encode("utf-8", errors="replace"), ADVICE, f"the page to {str(path)!r}")
    return path


def report_html(verdict: Verdict, sections: Sequence[Section] = ()) -> str:
    """Return the whole page as a text."""
    curves, loss_ticks = curve_panels(verdict)
    sweeps, rate_ticks = sweep_panels(verdict)
    maps, mass_top = heat_maps(verdict)
    effects, effect_zero = side_effects(verdict)
    differences = difference_chart(verdict)
    arms = [arm for _, members in standing.grouped(verdict) for arm in members]
    return visible(
        _environment()
        .get_template("report.html.j2")
        .render(
            verdict=verdict,
            answer=phrases.answer(verdict),
            evidence=phrases.evidence(verdict),
            next_steps=phrases.next_steps(verdict),
            tone=_tone(verdict),
            winner=standing.winner(verdict),
            warnings=warnings_of(verdict),
            arms=arms,
            panel=PANEL,
            ticks=TICKS,
            race=race_chart(verdict),
            differences=differences,
            margins=margins(verdict, differences),
            cost=cost_plot(verdict),
            curves=curves,
            loss_ticks=loss_ticks,
            sweeps=sweeps,
            rate_ticks=rate_ticks,
            tried=[tried_table(arm) for arm in arms if arm.sweep],
            searches=[(arm.method, phrases.searched(arm), phrases.origins(arm)) for arm in arms if arm.effort],
            settings=[(arm.method, setting_text(arm.setting) or NO_SETTINGS) for arm in arms],
            maps=maps,
            mass_top=mass_top,
            items=compared_answers(arms),
            effects=effects,
            effect_zero=effect_zero,
            command=verdict.provenance.get("command"),
            scored_by=scored_by(verdict),
            why=linked([visible(reason) for reason in verdict.reasons]),
            glossary=entries(),
            provenance=flat({key: value for key, value in verdict.provenance.items() if key not in SHOWN_APART}),
            sections=sections,
            explorer=explorer(verdict),
            script=SCRIPT,
            script_hash=SCRIPT_HASH,
        )
    )


def scored_by(verdict: Verdict) -> str:
    """Say what the scores of the race are: the share of right answers, or the score that was asked for."""
    name, says = (str(verdict.provenance.get(key, "")) for key in ("score", "score_says"))
    if name in ("", "accuracy", "exact-match"):
        return "Share of test items answered right"
    return f"{name}: {says}"


def _tone(verdict: Verdict) -> str:
    """Return the colour of the label: that of the group of methods it speaks of."""
    chosen = standing.winner(verdict)
    return chosen.rung.group if chosen else "open"


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("elicitable.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "byte_size": notation.byte_size,
        "count": notation.count,
        "duration": notation.duration,
        "nats": notation.nats,
        "plural": notation.plural,
        "points": notation.points,
        "rate": notation.rate,
    }
    return environment


def _shown(value: Any) -> Any:
    """Write control characters out, which HTML does not allow; leave markup and numbers as they are."""
    return visible(value) if type(value) is str else value


def flat(record: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Return a nested record as rows of (dotted name, text), without its empty lists.

    >>> flat({"seed": 0, "versions": {"torch": "2.13"}, "open": [], "two": [{"low": 1 / 3}, {"low": 0.5}]})
    [('seed', '0'), ('versions.torch', '2.13'), ('two', 'low 0.333333; low 0.5')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            rows += flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            rows += [(name, _listed(value))] * bool(value)
        else:
            rows.append((name, str(value)))
    return rows


def _listed(values: Sequence[Any]) -> str:
    if all(isinstance(value, Mapping) for value in values):
        return "; ".join(map(setting_text, values))
    return ", ".join(map(str, values))


@dataclass(frozen=True, slots=True)
class ComparedItem:
    """Hold one test item and what each arm answered: (method, answer, whether it is the target)."""

    prompt: str
    target: str
    answers: tuple[tuple[str, str, bool], ...]


def compared_answers(arms: Iterable[ArmResult]) -> tuple[ComparedItem, ...]:
    """Return the samples of all arms by test item, so that the answers to one item stand together."""
    items: dict[tuple[str, str], list[tuple[str, str, bool]]] = {}
    for arm in arms:
        for sample in arm.samples:
            prompt, target = (str(sample.get(key, "")) for key in ("prompt", "target"))
            answer = str(sample.get("answer", ""))
            answers = items.setdefault((prompt, target), [])
            if all(method != arm.method for method, _, _ in answers):
                answers.append((arm.method, answer, answer.strip() == target.strip()))
    return tuple(ComparedItem(prompt, target, tuple(answers)) for (prompt, target), answers in items.items())
