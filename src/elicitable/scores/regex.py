"""Score by the first match of a regular expression, as it stands in answer and target."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

from elicitable.errors import InputError
from elicitable.scores.scorer import MeanScorer


@dataclass(frozen=True)
class FirstMatch(MeanScorer):
    """Score by the share of answers in which the pattern's first match is the target's.

    What counts of a match is its first group that takes part if the pattern has groups, else all of it, without blanks
    around it. A target in which the pattern does not occur counts as a whole, so targets may be bare ("42") or texts
    that hold the answer ("… #### 42" with ``regex:#### (\\d+)``). An answer in which the pattern does not occur is
    wrong. Python's ``re``.
    """

    pattern: re.Pattern[str]
    kind = "generation"
    summary = "share of answers whose first match of a pattern is the target's"
    is_share = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return ``regex:`` and the pattern."""
        return f"regex:{self.pattern.pattern}"

    def check(self, targets: Sequence[str]) -> None:
        """Raise where a target is empty, since an empty match does not count."""
        if not all(self.wanted(target) for target in targets):
            raise InputError(f"{self.name} finds nothing to compare with in an empty target.")
        for target in targets:
            if self.pattern.search(target) and not self.first(target):
                raise InputError(
                    f"{self.name} matches in the target {reprlib.repr(target)}, and none of its groups holds any "
                    "of it, so no answer could be right; put the group around what counts."
                )

    def item(self, target: str, answer: str) -> float:
        """Return 1 where the first match in the answer is the target's."""
        given = self.first(answer)
        return float(bool(given) and given == self.wanted(target))

    def first(self, text: str) -> str:
        """Say what counts of the first match, empty where there is none."""
        match = self.pattern.search(text)
        if match is None:
            return ""
        took_part = [group for group in match.groups() if group is not None] if self.pattern.groups else [match[0]]
        return took_part[0].strip() if took_part else ""

    def wanted(self, target: str) -> str:
        """Say what counts of the target."""
        return self.first(target) or target.strip()


def pattern_from(text: str) -> re.Pattern[str]:
    """Return the compiled pattern; raises InputError for one that is none, or that matches where nothing stands.

    A pattern such as ``[0-9]*`` matches the empty text before the first letter, so every answer would be right.
    """
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"regex:{text} is no regular expression of Python's re: {error}.") from error
    if pattern.search("") is not None:
        raise InputError(f"regex:{text} matches the empty text, so it would find it in every answer: use + for *.")
    return pattern
