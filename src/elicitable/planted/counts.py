"""Count verdicts against planted truths, and write the counts as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from elicitable.diagnosis.shares import wilson
from elicitable.diagnosis.verdict import OPEN_LABELS
from elicitable.planted.cases import STATES, TRUTHS
from elicitable.planted.parts import Part

GROUPS: Final = ("nothing", "context", "weights", *OPEN_LABELS)

SETTING: Final = ("seeds", "test_items", "time_limit")


def counted(every: Sequence[Mapping[str, Any]], part: Part, left_out: int = 0) -> dict[str, Any]:
    """Count verdicts against truths, and say of each share its Wilson interval.

    ``matrix[truth][group]`` are cases. *Decided* is what is not inconclusive; ``right`` is the share of decided cases
    whose group is the truth, ``inconclusive`` that of all cases. The same by state, model and family; every case that
    is not right with its reasons; how many plantings did not take; which settings, and how many models of each name,
    are counted together; and how many records were ``left_out``.
    """
    records = [record for record in every if record["planting"]["took"]]
    pairs = Counter((record["truth"], record["group"]) for record in records)
    lost = Counter(part.lost(every))
    return {
        "cases": len(records),
        "of": len(part.cases()),
        "models": len({record["model"] for record in records}),
        "tasks": len({record["task"] for record in records}),
        "matrix": {truth: {group: pairs[truth, group] for group in GROUPS} for truth in dict.fromkeys(TRUTHS.values())},
        **_shares(records),
        "by_state": {state: _shares([one for one in records if one["state"] == state]) for state in STATES},
        "by_model": _by(records, "model"),
        "by_family": _by(records, "family"),
        "not_right": [_miss(record) for record in records if record["group"] != record["truth"]],
        "plantings_lost": {state: lost[state] for state in STATES},
        "planned": len(part.planned()),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "cpu_seconds": round(sum(record["cpu_seconds"] for record in records), 1),
        "processors": sorted({record["processor"] for record in records}),
        "devices": sorted({record.get("device", "cpu") for record in records}),  # the first records do not say
        "settings": _settings(records),
        "makes": {name: len(hashes) for name, hashes in _hashes(records).items()},
        "left_out": left_out,
    }


def _settings(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every setting of the records' races, the commonest first, and how many records are of it."""
    found = Counter(tuple(record.get(name) for name in SETTING) for record in records)
    return [{**dict(zip(SETTING, values, strict=True)), "records": count} for values, count in found.most_common()]


def _hashes(records: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    return {
        name: {record.get("model_hash", "") for record in records if record["model"] == name}
        for name in dict.fromkeys(record["model"] for record in records)
    }


def _by(records: Sequence[Mapping[str, Any]], field: str) -> dict[str, dict[str, Any]]:
    kinds = dict.fromkeys(record[field] for record in records)
    return {kind: _shares([one for one in records if one[field] == kind]) for kind in kinds}


def _shares(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    decided = [record for record in records if record["group"] != "inconclusive"]
    right = sum(record["group"] == record["truth"] for record in decided)
    return {
        "right": _share(right, len(decided)),
        "inconclusive": _share(len(records) - len(decided), len(records)),
    }


def _share(count: int, of: int) -> dict[str, Any]:
    """Return a count with the share and its 95 % interval; without them where there is nothing to count in."""
    if of == 0:
        return {"count": 0, "of": 0}
    low, high = wilson(count / of, of)
    return {"count": count, "of": of, "share": round(count / of, 6), "low": round(low, 6), "high": round(high, 6)}


def _miss(record: Mapping[str, Any]) -> dict[str, Any]:
    means = {name: arm["mean"] for name, arm in record["arms"].items()}
    named = ("case", "state", "truth", "group", "label", "answer")
    return {name: record[name] for name in named} | {"reason": record["reasons"][0], "means": means}


def as_markdown(found: Mapping[str, Any]) -> str:
    """Write the counts as Markdown: the confusion matrix, the shares, and what is not right.

    >>> from elicitable.planted.parts import part_named
    >>> print(as_markdown(counted([], part_named("smollm2"))).splitlines()[0])
    0 of 12 cases: no models, no tasks.
    """
    if not found["cases"]:
        return "\n\n".join([f"0 of {found['of']} cases: no models, no tasks.", *_mixed(found)]) + "\n"
    lost, others = sum(found["plantings_lost"].values()), [one for one in found["devices"] if one != "cpu"]
    where = ", ".join([*found["processors"], *others])
    lines = [
        f"{found['cases']} of {found['of']} cases: {found['models']} models, {found['tasks']} tasks; "
        f"{found['cpu_seconds'] / 60:.1f} min of processor time ({where}). Of "
        f"{found['planned']} planned cases {lost} were dropped before any race, as their planting did not take.",
        *(line for said in _mixed(found) for line in ("", said)),
        "",
        f"| truth | {' | '.join(GROUPS)} |",
        "|---" * (len(GROUPS) + 1) + "|",
        *(f"| {truth} | {' | '.join(str(row[group]) for group in GROUPS)} |" for truth, row in found["matrix"].items()),
        "",
        f"Right among the decided: {_said(found['right'])}. Inconclusive: {_said(found['inconclusive'])}.",
        "",
        "| | right among the decided | inconclusive |",
        "|---|---|---|",
    ]
    for table in ("by_state", "by_model", "by_family"):
        lines += [
            f"| {name} | {_said(row['right'])} | {_said(row['inconclusive'])} |" for name, row in found[table].items()
        ]
    if found["not_right"]:
        lines += ["", "| not right | planted | truth | verdict | first reason |", "|---|---|---|---|---|"]
    for miss in found["not_right"]:
        reason = miss["reason"].replace("|", "\\|")
        lines.append(f"| {miss['case']} | {miss['state']} | {miss['truth']} | {miss['label']} | {reason} |")
    return "\n".join(lines) + "\n"


def _mixed(found: Mapping[str, Any]) -> list[str]:
    """Say where records are left out, or counted together that are not of one setting or one model."""
    said = []
    if found["left_out"]:
        said.append(f"{found['left_out']} records of another model, task or setting are there and not counted.")
    if len(found["settings"]) > 1:
        each = ", ".join(f"{one['records']} of {_setting(one)}" for one in found["settings"])
        said.append(f"Counted together though not raced alike: {each}.")
    made = [f"{count} models called {name}" for name, count in found["makes"].items() if count > 1]
    return said + ([f"Counted together though not the same: {', '.join(made)}."] if made else [])


def _setting(one: Mapping[str, Any]) -> str:
    limit, items = one["time_limit"], one["test_items"]
    more = [f"{items} test items"] if items is not None else []
    return " and ".join([f"{one['seeds']} seeds", *more, "no time limit" if limit is None else f"{limit:g} s a race"])


def _said(share: Mapping[str, Any]) -> str:
    if not share["of"]:
        return "–"
    return f"{share['count']} of {share['of']} ({share['share']:.3f} [{share['low']:.3f}, {share['high']:.3f}])"
