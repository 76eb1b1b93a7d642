"""What checking an adapter found: one finding per promise, and what to do where one is not kept."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Literal

from elicitable.glance import table
from elicitable.untrusted import in_one_line

Status = Literal["pass", "fail", "n/a"]


@dataclass(frozen=True)
class Finding:
    """What one check found: ``n/a`` where it is not about this adapter, and ``advice`` where it failed."""

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True, repr=False)
class Checked:
    """What all checks found, in order."""

    adapter: str
    model: str
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed."""
        return all(one.status != "fail" for one in self.findings)

    def __repr__(self) -> str:
        """Return in a line how many checks passed, and which failed."""
        failed = ", ".join(one.name for one in self.findings if one.status == "fail")
        passed = sum(one.status == "pass" for one in self.findings)
        ended = f"{failed} failed" if failed else "nothing failed"
        return in_one_line(f"<Checked {self.adapter} on {self.model}: {passed} passed, {ended}>")

    def _repr_html_(self) -> str:
        """Return every check with what it found, for a notebook."""
        rows = [(one.name, one.status, f"{one.found} {one.advice}".strip()) for one in self.findings]
        return table(repr(self).strip("<>"), rows, ("check", "", "found"))

    def record(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        findings = [asdict(one) for one in self.findings]
        return {"adapter": self.adapter, "model": self.model, "is_sound": self.is_sound, "findings": findings}


def as_text(checked: Checked, width: int = 10_000) -> str:
    """Return a table: a line per check, and what to do where one failed; lines are broken at ``width``.

    >>> print(as_text(Checked("a", "m", (Finding("active", "pass", "logits change by up to 2"),))))
    pass  active  logits change by up to 2
    a is sound on m.
    """
    names = max(len(one.name) for one in checked.findings)
    lines = [(f"{one.status:4}  {one.name:{names}}  {one.found}", names + 8) for one in checked.findings]
    failed = [one for one in checked.findings if one.status == "fail"]
    is_or_not = "is not sound on" if failed else "is sound on"
    told = f"{checked.adapter} {is_or_not} {checked.model}.{' What to do:' if failed else ''}"  # a path stays whole
    advice = [(f"{one.name}: {one.advice}", 2) for one in failed]
    return "\n".join([*(_filled(*line, width) for line in lines), told, *(_filled(*line, width) for line in advice)])


def _filled(line: str, indent: int, width: int) -> str:
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
