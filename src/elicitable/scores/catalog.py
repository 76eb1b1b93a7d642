"""List the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from elicitable.errors import InputError, UnknownNameError
from elicitable.scores.chrf import ChrF
from elicitable.scores.classification import MCC, Accuracy, BalancedAccuracy, MacroF1
from elicitable.scores.equal_json import EqualJSON
from elicitable.scores.exact_match import ExactMatch
from elicitable.scores.numeric import Numeric, tolerance_from
from elicitable.scores.own import own_score
from elicitable.scores.regex import FirstMatch, pattern_from
from elicitable.scores.rouge_l import RougeL
from elicitable.scores.scorer import Kind, Scorer
from elicitable.scores.token_f1 import TokenF1

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Listed:
    """List a score: its class, and how it is made of the task's labels and of what follows the colon."""

    name: str
    scorer: type[Scorer] = field(repr=False)
    make: Callable[[Labels, str], Scorer] = field(repr=False)
    argument: str = ""  # what may or must follow the colon, as help shows it
    needs_argument: bool = False

    @property
    def kind(self) -> Kind:
        """Say what it scores: answers that are labels, or free ones."""
        return self.scorer.kind

    @property
    def summary(self) -> str:
        """Say what it is, in a few words."""
        return self.scorer.summary


SCORES: tuple[Listed, ...] = (
    Listed("accuracy", Accuracy, lambda labels, _: Accuracy(labels)),
    Listed("balanced-accuracy", BalancedAccuracy, lambda labels, _: BalancedAccuracy(labels)),
    Listed("macro-f1", MacroF1, lambda labels, _: MacroF1(labels)),
    Listed("mcc", MCC, lambda labels, _: MCC(labels)),
    Listed("exact-match", ExactMatch, lambda _, __: ExactMatch()),
    Listed("token-f1", TokenF1, lambda _, __: TokenF1()),
    Listed("rouge-l", RougeL, lambda _, __: RougeL()),
    Listed("chrf", ChrF, lambda _, __: ChrF()),
    Listed("numeric", Numeric, lambda _, text: Numeric(tolerance_from(text or "0")), "TOLERANCE"),
    Listed("regex", FirstMatch, lambda _, text: FirstMatch(pattern_from(text)), "PATTERN", needs_argument=True),
    Listed("equal-json", EqualJSON, lambda _, __: EqualJSON()),
)


def catalog() -> tuple[Listed, ...]:
    """Return the scores that a verdict can rest on.

    >>> [score.name for score in catalog()][:2]
    ['accuracy', 'balanced-accuracy']
    """
    return SCORES


def score_from(choice: str | Scorer | Callable[..., Any] | None, labels: Labels | None = None) -> Scorer:
    """Make the score that a person chose.

    Args:
        choice: a name of the catalog (``"macro-f1"``, ``"numeric:0.01"``, ``"regex:#### ([0-9]+)"``), a function of
            one's own (:func:`elicitable.scores.own.own_score`), a Scorer, or None for accuracy with labels and exact
            match without.
        labels: the labels of a classification task, None for free answers.

    Raises:
        UnknownNameError: there is no score of that name; the message lists near matches.
        InputError: a score of labels for a task without labels, or what follows the colon is not what it should be.

    >>> score_from("numeric:0.5").point(["3", "4"], ["it is 3.5", "5"])
    0.5
    """
    if isinstance(choice, Scorer):
        return choice
    if callable(choice):
        return own_score(choice)
    if choice is None:
        choice = "exact-match" if labels is None else "accuracy"
    name, colon, argument = choice.partition(":")
    listed = _listed(name)
    if colon and not listed.argument:
        raise InputError(f"the score {name} takes nothing behind a colon, got {choice!r}.")
    if not argument and (colon or listed.needs_argument):
        raise InputError(f"the score {name} needs its {listed.argument} behind a colon: {name}:{listed.argument}.")
    if listed.kind == "classification" and not labels:
        free = ", ".join(one.name for one in SCORES if one.kind == "generation")
        raise InputError(f"the score {name} is for tasks with labels, and this one has free answers: use {free}.")
    return listed.make(labels or (), argument)


def _listed(name: str) -> Listed:
    for listed in SCORES:
        if listed.name == name:
            return listed
    raise UnknownNameError(
        "score", name, [one.name for one in SCORES], hint="Or a function of your own: FILE.py:FUNCTION."
    )
