"""Show why contexts fall short: a cause for each in a few sentences and a picture, the experiments, what to type."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from elicitable.report.html import Section
from elicitable.report.pictures.axes import percent
from elicitable.report.stacked import stacked_table
from elicitable.report.table import print_hanging
from elicitable.report.verdict_json import plain_json
from elicitable.untrusted import in_one_line

if TYPE_CHECKING:
    from elicitable.diagnosis.causes import Diagnosis, Experiment, Why
    from elicitable.diagnosis.sizes import SizeCurve
    from elicitable.report.following import Typed
    from elicitable.values import ArmResult

NAMES = {
    "reading": "it is asked in the wrong way",
    "data": "the data do not tell the answer",
    "optimisation": "the right one was not found",
    "capacity": "it is too small",
    "structure": "no context of its kind can do it",
    "unknown": "not known yet",
}
FEW = 3  # experiments without a result that are named


def why_json(why: Why) -> dict[str, Any]:
    """Return the causes and their experiments as plain JSON."""
    found: dict[str, Any] = plain_json(asdict(why))
    return found


def alike(why: Why) -> list[list[Diagnosis]]:
    """Put together what was found for the same reason, in the order of the first of each."""
    groups: dict[tuple[str, ...], list[Diagnosis]] = {}
    for one in why.diagnoses:
        groups.setdefault((one.cause, str(one.is_sure), *one.sentences[1:], one.advice), []).append(one)
    return list(groups.values())


def headline(group: Sequence[Diagnosis]) -> str:
    """Say the cause in a line, with every context that falls short for it."""
    first = group[0]
    likely = "" if first.is_sure or first.cause == "unknown" else " (likely)"
    cause = NAMES[first.cause] if first.cause == "unknown" else f"{first.cause}, {NAMES[first.cause]}"
    return f"{', '.join(one.of for one in group)}: {cause}{likely}"


def said(group: Sequence[Diagnosis]) -> list[str]:
    """Say what was seen of each, then what it means and what to do."""
    seen = dict.fromkeys(one.sentences[0] for one in group)
    return [*seen, *group[0].sentences[1:], group[0].advice]


def print_why(why: Why, console: Console) -> None:
    """Print for each context its cause, what was seen, what it means and what to do; then what did not run."""
    console.print(Text("Why contexts fall short", style="bold"))
    for group in alike(why):
        console.print(Text(in_one_line(headline(group)), style="bold"))
        for sentence in said(group):
            print_hanging(in_one_line(sentence), console, indent="  ", first="  ")
    for one in without_result(why):
        print_hanging(in_one_line(one), console, indent="  ", first="  ")


def without_result(why: Why) -> list[str]:
    """Say which experiments gave nothing, and why; many for the same reason together."""
    lost: dict[str, list[str]] = {}
    for one in why.experiments:
        if one.reason:
            lost.setdefault(one.reason, []).append(f"{one.of or 'the task'}, {one.what}")
    told = []
    for reason, names in lost.items():
        first = "; ".join(names[:FEW])
        more = f"; and {len(names) - FEW} more" if len(names) > FEW else ""
        told.append(f"No score: {first}{more} ({reason})")
    return told


def why_commands(why: Why, arms: Sequence[ArmResult], typed: Typed) -> tuple[str, ...]:
    """Return the commands that act on the causes, of a race of ``arms`` that was ``typed``."""
    found: list[str] = []
    of = {arm.method: arm for arm in arms}
    was_cut_off = any(one.had_no_time for one in why.experiments) or any(arm.stopped == "time" for arm in arms)
    for one in why.diagnoses:
        setting = one.remedy.setting if one.remedy is not None else {}
        another = of.get(one.remedy.what) if one.remedy is not None and one.remedy.kind == "context" else None
        if another is not None:
            found += [typed.tune(another)] if another.learning_rate is not None else []
        elif one.cause == "unknown":
            found += [typed.longer()] if was_cut_off else []
        elif one.cause == "reading":
            found.append(typed.verdict(setting))
        elif one.cause == "data":
            found.append(typed.on("--rows-curve"))
        elif setting:
            found.append(typed.tune(of[one.of], setting))
        elif one.cause == "structure" and one.remedy is None and of[why.best].learning_rate is not None:
            found.append(typed.tune(of[why.best]))
    return tuple(dict.fromkeys(found))


def why_section(why: Why, typed: Sequence[str]) -> Section:
    """Return the section of the report: a card for each cause, the curve over sizes, and all experiments."""
    cards = "".join(_card(why, group) for group in alike(why))
    lines = "\n".join(map(_safe, typed))
    following = f'<p class="note">What to type next:</p><pre>{lines}</pre>' if typed else ""
    note = (
        f'<p class="note">Each experiment changes one thing and is tested on the same items as the arms. The line is '
        f"{_safe(why.best)}, the best arm ({why.best_mean:.2f}); bars are 95 % intervals.</p>"
    )
    return Section(
        "Why contexts fall short",
        note + cards + _curves(why.curves, why.best) + following + _table(why.experiments),
        leads=True,
    )


def _card(why: Why, group: Sequence[Diagnosis]) -> str:
    names = {one.of for one in group}
    own = [each for each in why.experiments if each.of in ("", *names) and each.mean is not None]
    others = {one.remedy.what: one.remedy for one in group if one.remedy is not None and one.remedy.kind == "context"}
    own += [each for each in others.values() if each.mean is not None]
    meant = f"<p>{_safe(' '.join((*group[0].sentences[1:], group[0].advice)))}</p>"
    seen = f'<p class="note">{_safe(" ".join(dict.fromkeys(one.sentences[0] for one in group)))}</p>'
    return f"<h3>{_safe(headline(group))}</h3>{meant}{_picture(why, own)}{seen}"


def _picture(why: Why, own: Sequence[Experiment]) -> str:
    """Return a row for each experiment with its score and interval, and a line where the best arm is."""
    if not own:
        return ""
    label = _safe(f"Scores of the experiments beside {why.best}")
    rows = "".join(_row(why.best_mean, each) for each in own)
    return f'<div class="rows experiments" role="table" aria-label="{label}">{rows}</div>'


def _row(best: float, one: Experiment) -> str:
    assert one.mean is not None
    colour = "var(--accent)" if one.is_enough else "var(--soft)"
    interval = ""
    if one.low is not None and one.high is not None:
        interval = f'<i class="interval" style="left:{percent(one.low)}%;width:{percent(one.high - one.low)}%"></i>'
    return (
        f'<div class="row" role="row" style="--own:{colour}"><div class="name" role="rowheader">{_safe(one.what)}</div>'
        '<div class="track" role="cell"><i class="base"></i>'
        f'<i class="zero" style="left:{percent(best)}%"></i>{interval}'
        f'<i class="dot" style="left:{percent(one.mean)}%"></i></div>'
        f'<div class="number" role="cell">{one.mean:.2f}</div></div>'
    )


def _curves(curves: Sequence[SizeCurve], best: str) -> str:
    """Say at how many numbers half of the gain to the ``best`` arm is there, for contexts and numbers put anywhere."""
    told = [one for one in curves if one.half is not None]
    if not told:
        return ""
    items = "".join(
        f"<li>{_safe(one.name)}: half of the gain at about {one.half:,.0f} numbers (from {len(one.points)} points)</li>"
        for one in told
        if one.half is not None
    )
    is_anywhere = any(one.is_anywhere for one in told)
    elicited = " A task that few numbers do, wherever they are put, is elicited and not taught." if is_anywhere else ""
    return (
        "<p>Score over the logarithm of the numbers trained, fitted by a logistic curve; the gain is that from the "
        f"model as it is to {_safe(best)}.{elicited}</p><ul>{items}</ul>"
    )


def _table(experiments: Sequence[Experiment]) -> str:
    heads = ("experiment", "about", "score", "numbers", "steps", "s")
    table = stacked_table(heads, ((_safe(one.what), _cells(one)) for one in experiments))
    return f"<details><summary>All experiments</summary>{table}</details>"


def _cells(one: Experiment) -> tuple[str, ...]:
    numbers = f"{one.numbers_trained:,}", f"{one.steps:,}", f"{one.seconds:.0f}"
    return (_safe(one.of or "the task"), _score(one), *numbers)


def _score(one: Experiment) -> str:
    if one.mean is None:
        return _safe(one.reason)
    if one.low is None or one.high is None:
        return f"{one.mean:.3f}"
    return f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _safe(text: str) -> str:
    return html.escape(in_one_line(text))
