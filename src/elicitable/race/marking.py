"""How answers become a score, for every arm of a race alike: the score, and the rule that decides between labels.

The likelihood of a label is not yet a decision. One number per label, taken from the validation split, can be worth
more than training, and a verdict must not send anybody to fine-tuning for points that such a number gives. So every arm
gets the rule that does best on *its* validation items (:mod:`elicitable.training.decision_rules`). The numbers that a
rule takes from validation count as trained, and the plain score is kept beside the chosen one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from elicitable.errors import InputError, UnknownNameError
from elicitable.own_code import is_own_code, load_own
from elicitable.own_digest import digest_of, settings_of
from elicitable.records.trial import Outcomes
from elicitable.scores.best_of import best_of
from elicitable.scores.catalog import score_from
from elicitable.scores.classification import MCC, Accuracy, SecondF1
from elicitable.scores.exact_match import ExactMatch
from elicitable.scores.of_task import TaskScore, scale_of
from elicitable.scores.scorer import Scorer, floor
from elicitable.tasks.base import HeldOut, TaskMetric, groups_of, metric_of, most_of
from elicitable.training.decision_rules import BY_LENGTH, RULES, SUM, DecisionRule, candidates, choose
from elicitable.training.evaluate import LabelCosts, Reading, answers, evaluate, read_labels, truth_of
from elicitable.values import Budget, Item, Score

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

AUTO = "auto"
LOOKED_AT = 50  # validation items on which a score of the task's own is tried
OVER_LABELS: dict[str, type[SecondF1 | MCC]] = {"f1": SecondF1, "mcc": MCC}


@dataclass(frozen=True, eq=False)
class Marking:
    """What a race scores by. ``rule`` is a name of :data:`RULES`, or "auto": the best one on validation.

    ``metric`` is the task's own score where that is what is scored by; then ``rule`` is its rule.
    """

    scorer: Scorer
    rule: str = AUTO
    identity: str = ""  # of a score that is code from outside
    metric: TaskMetric | None = None

    @classmethod
    def of(cls, model: Model, task: Task, score: Any = None, rule: str = AUTO) -> Marking:
        """Return what a person asked for, checked against the task before anything is trained.

        Args:
            model: whose answers are marked; without a tokenizer there is exact match alone.
            task: whose targets are compared.
            score: a name, ``my_score.py:function``, a function or a Scorer; None for the task's own score, where it
                has one, else for accuracy or exact match. A name that the task has a score of its own for is that one.
            rule: how labels are decided between.

        Raises:
            InputError: the score does not fit the task, or a target cannot be scored.
            UnknownNameError: there is no such score or rule.
        """
        if rule != AUTO and rule not in RULES:
            raise UnknownNameError("decision rule", rule, (AUTO, *RULES))
        if rule != AUTO and task.labels() is None:
            raise InputError(
                f"the rule {rule!r} decides between labels, and {task.name} has free answers: leave rule= (--rule) out."
            )
        if rule not in (AUTO, *BY_LENGTH) and task.labels() == ():
            raise InputError(
                f"the items of {task.name} have choices of their own, and the rule {rule!r} takes a number per label "
                f"from validation, which is for labels that all items share; give one of {', '.join(BY_LENGTH)}."
            )
        if model.tokenizer is None and score not in (None, "exact-match"):
            raise InputError(f"{model.name} has no tokenizer: its answers are digits, which exact match alone scores.")
        metric = metric_of(task, score) if score is None or isinstance(score, str) else None
        if metric is not None and model.tokenizer is not None:
            scorer = _scorer_of(metric, task)
            scale = getattr(scorer, "scale", 1.0)
            identity = metric.code if scale == 1 else f"{metric.code} over {scale!r}"
            return cls(scorer, _rule_of(metric, task, rule), identity, metric)
        chosen = load_own(score, "my_score.py:function") if is_own_code(score) else score
        scorer = score_from(chosen, _bare(task.labels()))
        known = (
            [item for split in get_args(HeldOut) for item in task.held_out(split)]
            if model.tokenizer is not None
            else []
        )
        if any(item.accepted for item in known) and not scorer.takes_several:
            scorer = best_of(scorer)
        marking = cls(scorer, rule, digest_of(chosen, settings_of(chosen)) or "" if callable(chosen) else "")
        if model.tokenizer is not None:
            scorer.check(marking.targets(known))
        return marking

    @property
    def is_as_looked_at(self) -> bool:
        """Say whether a look at a run, which counts answers that are right, tells of the score: both are that share."""
        return self.scorer.is_exact or (self.scorer.is_share and self.scorer.kind == "classification")

    def setting(self) -> dict[str, str]:
        """Return what a trial's identity holds of it."""
        return {"score": self.scorer.name, "rule": self.rule, "code": self.identity}

    def mark(
        self,
        model: Model,
        task: Task,
        items: Sequence[Item],
        known: Sequence[Item],
        reading: Reading,
        rule: DecisionRule | None = None,
    ) -> Marked:
        """Mark the answers to ``items`` with whatever is in use.

        ``known`` are validation items, on which the rule is chosen; where a ``rule`` is given, it decides.
        """
        labels = task.labels()
        if labels is not None:
            rule = rule or self._rule(model, task, known or items[:1], reading, labels)
            return self._between_labels(model, items, reading, labels, rule)
        score = evaluate(model, items, labels, reading)
        if model.tokenizer is None or self.scorer.is_exact:
            return Marked(score, Outcomes.of_items(score.correct))
        texts = [answer.text for answer in answers(model, items, labels, replace(reading, most=most_of(task)))]
        written = tuple(texts if self.scorer.reads_references else [text.strip() for text in texts])
        return self._marked(score, items, written)

    def estimate(self, model: Model, task: Task, known: Sequence[Item], reading: Reading) -> float:
        """Return what the answers to ``known`` are worth under the rule that they lead to, cross-validated.

        It is what contexts are to be compared by: a rule may give more than another context does. For a task with
        labels.
        """
        labels = task.labels() or ()
        costs = read_labels(model, known, labels, reading)
        truth, value = self._valued(known, labels)
        lengths = costs.lengths[0]
        if self.rule != AUTO:
            rule = next(one for one in candidates(costs.nats, truth, lengths) if one.name == self.rule)
            return value(truth, rule.decide(costs.nats))
        found = choose(costs.nats, truth, lengths, groups=groups_of(task, "validation", len(known)), value=value)
        return found.estimates[found.rule.name]

    def outcome(
        self, correct: Sequence[tuple[int, ...]], written: Sequence[tuple[str, ...]], items: Sequence[Item]
    ) -> Any:
        """Return the answers of all seeds as the intervals take them: right or wrong per item, or statistics."""
        if self.scorer.is_share or not all(written):
            return tuple(correct)
        return [self.scorer.scored(self.targets(items), own) for own in written]

    def floor(self, items: Sequence[Item]) -> float:
        """Return what always giving one answer scores, in the same score.

        Where items have choices of their own, it is always the choice at one place, or any of them at random.
        """
        if any(item.choices for item in items):
            return max(self._guesses(items))
        if isinstance(items[0].target, str):
            offered = [str(item.target) if self.scorer.reads_references else text_of_target(item) for item in items]
            return floor(self.scorer, self.targets(items), offered).value
        return Counter(item.target for item in items).most_common(1)[0][1] / len(items)

    def _guesses(self, items: Sequence[Item]) -> Iterator[float]:
        """Yield what the choice at each place scores, and what a random one does where that is a share."""
        targets = self.targets(items)
        for place in range(max(len(item.choices) for item in items)):
            given = [item.choices[min(place, len(item.choices) - 1)].strip() if item.choices else "" for item in items]
            yield self.scorer.point(targets, given)
        if self.scorer.is_share:
            yield sum(1 / max(1, len(set(item.choices))) for item in items) / len(items)

    def targets(self, items: Sequence[Item]) -> list[Any]:
        """Return what the score compares answers with: targets' texts, all right answers, or items' references."""
        if self.scorer.reads_references:
            return [item.reference for item in items]
        if self.scorer.takes_several:
            return [tuple(text.strip() for text in item.accepted) or (text_of_target(item),) for item in items]
        return [text_of_target(item) for item in items]

    def _between_labels(
        self, model: Model, items: Sequence[Item], reading: Reading, labels: tuple[str, ...], rule: DecisionRule
    ) -> Marked:
        costs = read_labels(model, items, labels, reading, (rule, SUM))
        found = costs.decide(rule)
        texts = [item.choices or labels for item in items]
        written = tuple(own[place].strip() for own, place in zip(texts, found.tolist(), strict=True))
        raw = costs.score(items, labels, costs.decide(SUM))
        marked = self._marked(costs.score(items, labels, found), items, written)
        return replace(marked, rule=rule, raw=Outcomes.of_items(raw.correct))

    def _rule(
        self, model: Model, task: Task, known: Sequence[Item], reading: Reading, labels: tuple[str, ...]
    ) -> DecisionRule:
        """Return the rule that was asked for, or the best on ``known``; every label is read only where it must be."""
        if self.rule in BY_LENGTH:
            rule = DecisionRule(self.rule, (), ())
            return (
                rule.of_lengths(read_labels(model, known[:1], labels, reading, (SUM,)).lengths[0]) if labels else rule
            )
        costs = read_labels(model, known, labels, reading)
        if not labels:
            return self._best_by_length(costs, known)
        truth, value = self._valued(known, labels)
        if self.rule != AUTO:
            return next(one for one in candidates(costs.nats, truth, costs.lengths[0]) if one.name == self.rule)
        groups = groups_of(task, "validation", len(known))
        return choose(costs.nats, truth, costs.lengths[0], groups=groups, value=value).rule

    def _valued(self, known: Sequence[Item], labels: tuple[str, ...]) -> tuple[Any, Callable[[Any, Any], float]]:
        """Return the places of the right labels, and what places that were answered are worth against them."""
        names = [label.strip() for label in labels]
        rights: list[Any] = [(name,) for name in names] if self.scorer.takes_several else names

        def value(right: Any, given: Any) -> float:
            return self.scorer.point([rights[place] for place in right], [names[place] for place in given])

        return np.array(truth_of(known, labels)), value

    def _best_by_length(self, costs: LabelCosts, known: Sequence[Item]) -> DecisionRule:
        """Return the rule for items with choices of their own: the best on ``known``, of equals the simplest."""
        targets = self.targets(known)

        def value(rule: DecisionRule) -> float:
            places = costs.decide(rule).tolist()
            return self.scorer.point(targets, [item.choices[k].strip() for item, k in zip(known, places, strict=True)])

        return max((DecisionRule(name, (), ()) for name in BY_LENGTH), key=value)

    def _marked(self, score: Score, items: Sequence[Item], written: tuple[str, ...]) -> Marked:
        correct = score.correct
        if self.scorer.is_share:
            statistics = self.scorer.statistics(self.targets(items), written)
            correct = tuple(int(value) for value in statistics[:, 0])
        return Marked(replace(score, correct=correct), Outcomes.of_items(correct), written)


@dataclass(frozen=True, eq=False)
class Marked:
    """Marked answers: right or wrong per item, what was answered, the rule, and what the plain rule had right."""

    score: Score
    outcomes: Outcomes
    written: tuple[str, ...] = ()
    rule: DecisionRule | None = None
    raw: Outcomes | None = None

    def counted(self, budget: Budget) -> Budget:
        """Return ``budget`` with the numbers that the rule took from validation: trained numbers like any others."""
        return replace(budget, numbers_trained=budget.numbers_trained + self.rule.numbers) if self.rule else budget


def _scorer_of(metric: TaskMetric, task: Task) -> Scorer:
    """Return what scores as the task's own metric does; looked at on the validation split before anything is trained.

    Raises:
        InputError: its library cannot compute it, or its values are no score of a race.
    """
    labels = _bare(task.labels())
    if metric.values is None or metric.aggregate is None:
        if labels and metric.name in OVER_LABELS:
            return OVER_LABELS[metric.name](labels, metric.name, metric.summary)
        return Accuracy(labels, metric.name, metric.summary) if labels else ExactMatch(metric.name, metric.summary)
    known = task.held_out("validation")[:LOOKED_AT]
    references, right = [item.reference for item in known], [str(item.target) for item in known]
    scale = metric.scale or scale_of(metric.values(references, right))
    summary = metric.summary if scale == 1 else f"{metric.summary}, over {scale:g}"
    named = (metric.name, summary, metric.values, metric.aggregate, metric.aggregation)
    scorer = TaskScore(*named, scale, metric.is_share)
    scorer.check(references)
    scorer.statistics(references, right)
    scorer.point(references, right)
    return scorer


def _rule_of(metric: TaskMetric, task: Task, asked: str) -> str:
    """Return the rule that a task's metric decides by; raises InputError where another one was asked for."""
    if not metric.rule or asked in (AUTO, metric.rule):
        return metric.rule or asked
    raise InputError(
        f"the score {metric.name} of {task.name} decides between choices by the rule {metric.rule!r}, and not by "
        f"{asked!r}; to choose a rule, give a score of elicitable's: {'accuracy' if task.labels() else 'exact-match'}."
    )


def text_of_target(item: Item) -> str:
    """The target of a text item as scores compare it: without the white space that separates it from the prompt."""
    return str(item.target).strip()


def _bare(labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return tuple(label.strip() for label in labels) if labels else None
