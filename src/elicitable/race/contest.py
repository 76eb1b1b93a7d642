"""The race: every method under one harness at a matched budget, and the verdict it leads to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from elicitable.diagnosis.margins import stretches
from elicitable.durations import seconds_of
from elicitable.errors import BudgetError, InputError
from elicitable.executors.executor import Executor
from elicitable.methods.base import Method, Sized
from elicitable.methods.budget import default_budget
from elicitable.methods.catalog import METHODS, method_named
from elicitable.models.layout import alternatives, layout_for
from elicitable.models.load import home_of, load
from elicitable.models.speed.frozen_parts import keeping_parts
from elicitable.models.speed.precision import undisturbed
from elicitable.models.speed.processor import made_on, one_thread
from elicitable.race.beyond import Part, made
from elicitable.race.causes.why import find_why
from elicitable.race.choice import check_searched
from elicitable.race.entry import Entry, Race
from elicitable.race.inside import look_inside
from elicitable.race.keeping import check_keep, keep_winner
from elicitable.race.marking import AUTO, Marking, text_of_target
from elicitable.race.pace import check_count, pace_for
from elicitable.race.questions import open_questions, said_to_be_open
from elicitable.race.reading import check_reading, reading_warnings
from elicitable.race.reporter import Reporter, Silent
from elicitable.race.results import arm_result, cut_warning, evidence_of
from elicitable.race.rounds import run_rounds
from elicitable.race.rows_curve import grown_with_rows
from elicitable.race.threads import Threads
from elicitable.race.timing import is_too_late_to_look
from elicitable.race.trial import as_shown
from elicitable.race.workers import executor_of, staffed
from elicitable.records.lock import alone_in_out
from elicitable.records.provenance import versions
from elicitable.records.store import Store
from elicitable.scores.confusion import class_results
from elicitable.tasks.base import has_turns, stops_of, warnings_of
from elicitable.tasks.catalog import task_from
from elicitable.values import ClassResults, Verdict

if TYPE_CHECKING:
    from elicitable.microscope.inspect import Inspection

LONGEST_SECONDS = 366 * 86_400.0
LONGEST = 64  # virtual tokens: every query pays for each of them in every layer, whatever the budget allows


@alone_in_out
@undisturbed()
def verdict(
    model: Any,
    task: Any,
    *,
    budget: int | None = None,
    methods: Sequence[str | Method] | None = None,
    seeds: int = 2,
    seed: int = 0,
    margin: float = 0.02,
    time_limit: float | str | None = None,
    steps: int | None = None,
    test_items: int | None = None,
    prompts: Sequence[str] = (),
    proposer: str | None = None,
    search_passes: int | None = None,
    chat: str = "auto",
    system: str | None = None,
    stop: str | None = None,
    max_tokens: int | None = None,
    truncate: str = "left",
    score: Any = None,
    rule: str = AUTO,
    keep: Sequence[str] = (),
    rows_curve: bool = False,
    why: bool = False,
    out: str | os.PathLike[str] | None = None,
    executor: str | Executor | None = None,
    workers: int | None = None,
    address: str | None = None,
    gpus: float | None = None,
    reporter: Reporter | None = None,
    started: float | None = None,
    **task_options: Any,
) -> Verdict:
    """Can the task be elicited from the model by context, or must the weights change?

    Every method is tried at the largest size that trains at most ``budget`` numbers: swept over its learning rates on
    the validation split, rerun over ``seeds`` at the best, then scored once on the test split. The verdict is the
    least invasive method that is not worse than the best by more than ``margin``, decided with paired bootstrap
    intervals (:mod:`elicitable.diagnosis.verdict`).

    Args:
        model: a name for, or a model from, :func:`elicitable.load`, or a transformers model.
        task: a name, a path to a CSV, JSON or Parquet file, ``hub:owner/name``, data in memory (a pandas frame, a
            ``datasets`` object, a list of dictionaries), or an object with a task's four methods.
        budget: numbers trained; default 12·layers·d_model (2· on toy:ascending). Full fine-tuning is shown, unbound.
        methods: which to try, by name or as objects of your own (:class:`~elicitable.methods.base.Method`); default
            all that are built in.
        seeds: of the arm that the verdict speaks of and of the best one; more where the margin is in doubt.
        seed: the first of them, and of everything else that is drawn.
        time_limit: seconds for the whole race, or ``"8m"``; None trains until nothing can change the label any more. A
            longer one in the same ``out`` goes on from what is there.
        steps: at most so many steps a run. test_items: how many of the test split; by default the pace's, or as
            many as the time limit pays for.
        prompts: texts for the prompt arm to try besides its own. proposer: a model, by name, that reads worked
            examples and proposes more; default the raced one.
        search_passes: how many items each method that is chosen may read in its search (:mod:`elicitable.race.search`);
            default 4,096, and 16,384 for digits.
        chat: "on" asks by the tokenizer's chat template, "off" never does; "auto" does where there is one, and lets
            the arms that are chosen try without. system: the system message.
        stop: the text that ends an answer; default the end of turn of the template, or the tokenizer's end of text.
        max_tokens: longer texts are cut; default as far as the model's positions reach. truncate: the side that is
            cut, "left" or "right".
        score: what counts: a name (``elicitable scores`` lists them), ``my_score.py:function``, or a function of target
            and answer; default accuracy where there are labels, else exact match.
        rule: how labels are decided between: "auto" takes the rule that does best on validation, for every arm alike;
            "sum" is the plain likelihood (:mod:`elicitable.training.decision_rules` has the others).
        rows_curve: train the best context and the best of the weights on 16, 64, 256 … rows as well; that takes as
            long again as the time limit, at most.
        why: run experiments that tell why each context that falls short does (:mod:`elicitable.race.causes`); they
            take as long again as the time limit, at most.
        keep: methods whose results are kept beside the winner's, by name.
        out: a folder that keeps every trial and, in ``winner/`` and ``kept/METHOD/``, what :func:`elicitable.read`
            reads; the same arguments resume there, and do nothing when complete.
        executor: where trials run: "inline", "local" (processes on this machine) or "ray", each on one thread, so that
            records are equal; default this process, on as many threads as are quickest. workers: how many at once.
            address: of a Ray cluster. gpus: share of a GPU for each worker there; default 1 where the model is on one.
        task_options: which columns, template, label names, … (:class:`elicitable.tasks.options.TaskOptions`).

    Raises:
        InputError: an argument, the model or the task is not as expected; the message names it.
        BudgetError: the budget is too small for a method, or the time limit too short for the first steps.
        StoreError: ``out`` cannot be written to, is in use, or holds a record that cannot be read.
        StoppedRace: a KeyboardInterrupt came; its ``answer`` says what is known and what is open.

    Example:
        >>> import elicitable as el
        >>> answer = el.verdict("toy:ascending", "ascending", methods=["zero-shot", "prompt"], seeds=1)
        >>> answer.label
        'already-there'
    """
    clock = time.monotonic() if started is None else started
    limit = seconds_of(time_limit)  # 480, 480.0 and "8m" find the same decisions
    _check(seeds, margin, limit, steps, test_items, max_tokens)
    check_count("search passes", search_passes)
    if isinstance(prompts, str):
        raise InputError(f"prompts are a list of texts, got {prompts!r}; put it into a list.")
    if isinstance(budget, bool) or not isinstance(budget, int | None):
        raise InputError(f"a budget is a whole number of trained numbers, got {budget!r}.")
    model, task = load(model), task_from(task, **task_options)
    pace = pace_for(model, steps, test_items, max_tokens)
    layout = layout_for(model, chat, system, stop, truncate, stops_of(task), has_turns(task))
    race = Race(
        model=model,
        task=task,
        store=Store(out),
        pace=pace,
        budget=default_budget(model) if budget is None else budget,
        seeds=seeds,
        seed=seed,
        margin=margin,
        time_limit=limit,
        started=clock,
        reporter=reporter or Silent(),
        marking=Marking.of(model, task, score, rule),
        prompts=tuple(prompts),
        proposer=proposer,
        search_passes=search_passes,
        layouts=alternatives(model, layout, chat),
        is_test_free=test_items is None,
    )
    check_reading(model, task, layout, max_tokens)  # a task that the model cannot read is no arm's failure
    for odd in reading_warnings(model, task, layout):
        race.warnings.append(odd)
        race.reporter.say(f"warning: {odd}")
    if race.store.folder is not None:
        home_of(model)  # a toy is written where its winner finds it; better not at all than after hours
    sizes = _sizes(race, methods)
    check_searched(race, sizes)
    race.methods = tuple(sized.method.identity for sized in sizes)
    check_keep(keep, [sized.method.name for sized in sizes])
    with ExitStack() as stack:
        if executor is None and (workers, address, gpus) != (None, None, None):
            raise InputError("workers, address and gpus are for an executor (--executor local or ray); give one.")
        if executor is not None:
            stack.enter_context(one_thread())
            runs_on = executor_of(executor, workers, address, gpus, model)
            stack.enter_context(staffed(race, sizes, runs_on))
        return _raced(race, sizes, keep, rows_curve, why)


def _raced(race: Race, sizes: Sequence[Sized], keep: Sequence[str], rows_curve: bool, why: bool) -> Verdict:
    """Run the race, judge it, keep its winner, and look at it, all on as many threads as are quickest meanwhile."""
    with keeping_parts(race.model), Threads.chosen(race) as threads:
        entries = run_rounds(race, sizes, threads)
        return _answered(race, entries, keep, rows_curve, why, threads)


def _answered(
    race: Race, entries: Sequence[Entry], keep: Sequence[str], rows_curve: bool, why: bool, threads: Threads
) -> Verdict:
    if race.was_interrupted and not any(entry.records or entry.line for entry in entries):
        raise KeyboardInterrupt  # there is nothing to answer with
    race.warnings += cut_warning(entries)
    try:
        answer = _judge(race, entries)
    except KeyboardInterrupt:  # all is there: it is judged, and ends with that
        race.was_interrupted = True
        answer = _judge(race, entries)
    if race.was_interrupted:
        raise StoppedRace(answer)
    try:
        for part in _beyond(race, entries, answer, keep, rows_curve, why):
            answer = replace(answer, **made(race, part))
            threads.look_again()
    except KeyboardInterrupt:  # what the race has found stands, with whatever was made of it so far
        race.was_interrupted = True
    told = [*warnings_of(race.task), *race.warnings]  # and what could not be written
    answer = replace(answer, provenance={**answer.provenance, **_kinds(race), "warnings": told})
    if race.was_interrupted:
        raise StoppedRace(answer)
    return answer


def _beyond(
    race: Race, entries: Sequence[Entry], answer: Verdict, keep: Sequence[str], rows_curve: bool, why: bool
) -> Iterator[Part]:
    """Yield what makes each part of a verdict beside the label: the curve and the causes as long again as the limit."""
    yield "counting the answers by class", lambda: {"classes": _classes(race, answer)}
    yield "writing the winner", lambda: {"card": keep_winner(race, entries, answer, keep)}
    is_late = is_too_late_to_look(race)
    if rows_curve:
        yield "the curve over rows", lambda: {"rows": grown_with_rows(race, entries, race.time_limit)}
    if why:
        yield "finding the causes", lambda: {"why": find_why(race, entries, race.time_limit)}
    if race.was_interrupted:
        return
    if is_late:
        race.warnings.append("the time limit left nothing to look inside the model with; elicitable inspect does")
    else:
        yield "looking inside the model", lambda: {"inspection": _inside(race, entries, answer)}


def _classes(race: Race, answer: Verdict) -> ClassResults | None:
    """Which label was taken for which by the answer's arm, or by the best one; None where there are no labels."""
    labels = race.task.labels()
    arms = [arm for arm in answer.arms if arm.answers and not arm.is_control]
    if not labels or not arms:
        return None
    best = max(arms, key=lambda arm: (arm.method == answer.answer, arm.mean or 0.0))
    targets = [text_of_target(item) for item in race.test()]
    return class_results(targets, best.answers[0], tuple(label.strip() for label in labels))


def _check(
    seeds: int,
    margin: float,
    time_limit: float | None,
    steps: int | None,
    test_items: int | None,
    max_tokens: int | None,
) -> None:
    counts = (("seeds", seeds), ("steps", steps), ("test items", test_items), ("max tokens", max_tokens))
    for name, number in counts:
        check_count(name, number)
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise InputError(f"margin must be a number, got {margin!r}.")
    if not 0.0 < margin < 1.0:
        raise InputError(f"margin must be a share of items between 0 and 1 (2 points are 0.02), got {margin}.")
    if time_limit is not None and not time_limit > 0:
        raise BudgetError(f"a time limit must be more than 0 seconds, got {time_limit:g}.")
    if time_limit is not None and time_limit > LONGEST_SECONDS:
        raise BudgetError("a time limit must be at most a year; leave it out to train until nothing improves.")


def _sizes(race: Race, methods: Sequence[str | Method] | None) -> list[Sized]:
    """Every method's size within the budget. A method that a person asks for must fit; of all, at least one must."""
    if methods is not None and (isinstance(methods, str | Method) or not methods):
        raise InputError(f"methods must be a list of at least one name, got {methods!r}; leave it out to try all.")
    chosen: dict[str, Method] = {}
    for method in map(method_named, methods or METHODS):
        if chosen.setdefault(method.name, method).identity != method.identity:
            raise InputError(f"two different methods are called {method.name!r}; give one of them another name.")
    for method in [one.stands_on for one in chosen.values() if one.stands_on is not None]:
        chosen.setdefault(method.name, method)
    longest = min(LONGEST, (race.model.anatomy.trained_positions or 2 * LONGEST) // 2)
    sizes, refusals = [], []
    for method in chosen.values():
        try:
            sizes.append(method.fitting(race.model, race.budget, longest))
        except BudgetError as error:
            refusals.append(error)
            sizes.append(Sized(method, 0, 0, race.budget))
            if methods:
                raise
            race.reporter.begin(method.name, str(error), 0, 0)
    if refusals and all(s.size == 0 for s in sizes if s.method.is_trained and s.method.is_bound):
        raise refusals[-1]
    return sizes


class StoppedRace(KeyboardInterrupt):
    """An interrupt of a race. ``answer`` is the verdict on what was finished, with what is still open."""

    def __init__(self, answer: Verdict) -> None:
        super().__init__("the race was interrupted")
        self.answer = answer


def _judge(race: Race, entries: Sequence[Entry]) -> Verdict:
    results = [arm_result(race, entry) for entry in entries]
    place = {method.name: nth for nth, method in enumerate(METHODS)}  # methods of a person's own come last on a rung
    arms = tuple(sorted(results, key=lambda arm: (arm.rung.depth, place.get(arm.method, len(place)))))
    floor = race.marking.floor(race.test())
    evidence = evidence_of(race, arms)
    decision = evidence.decide(race.margin)
    questions = [] if not (decision.is_open or race.was_interrupted) else open_questions(race, entries)
    bounds = said_to_be_open(arms, questions, decision, has_ended=_has_ended(race, entries, questions))
    behind = {one.arm.method: (one.mean, one.low, one.high) for one in decision.compared}
    return Verdict(
        label=decision.label,
        reasons=(*bounds, *decision.reasons),
        arms=tuple(replace(arm, behind=behind.get(arm.method, ())) for arm in arms),
        model=race.model.name,
        task=race.task.name,
        margin=race.margin,
        answer=decision.answer,
        provenance=_provenance(race, floor) | {"open": questions},
        items=tuple((as_shown(item.prompt), as_shown(item.target)) for item in race.test()),
        margins=stretches(evidence),
    )


def _has_ended(race: Race, entries: Sequence[Entry], questions: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a race came to its own end: no limit cut it off, be it when the folder was begun, nor would now."""
    left = race.left()
    was_cut_off = race.was_interrupted or any(entry.stopped == "time" for entry in entries)
    return not was_cut_off and (left is None or left >= sum(one["seconds"] for one in questions))


def _inside(race: Race, entries: Sequence[Entry], answer: Verdict) -> Inspection | None:
    """The microscope on the answer's context; on the best context where the answer is another or none."""
    contexts = {arm.method: arm for arm in answer.arms if arm.status == "ok" and arm.prefix_mass}
    if not contexts:
        return None
    best = max(contexts, key=lambda name: contexts[name].mean or 0.0)
    method = answer.answer if answer.answer in contexts else best
    entry = next(entry for entry in entries if entry.method.name == method)
    assert entry.trial is not None
    race.reporter.begin(method, "looking inside", len(entries) - 1, len(entries))
    return look_inside(entry.trial, entry.records[0], race.model, race.task, race.store)


def _kinds(race: Race) -> dict[str, str]:
    """All kinds of processor that the records of a race were made on."""
    return {"processor": ", ".join(race.processors)} if race.processors else {}


def _provenance(race: Race, floor: float) -> dict[str, Any]:
    return {
        "versions": versions(),
        **made_on(race.model.device),
        **_kinds(race),
        "seed": race.seed,
        "seeds": race.seeds,
        "budget": race.budget,
        "margin": race.margin,
        "score": race.marking.scorer.name,
        "score_says": race.marking.scorer.summary,
        "rule": race.marking.rule,
        "time_limit_seconds": race.time_limit,
        "price": race.price,
        "looks": race.looks + 1,
        "model": race.model.name,
        "model_hash": race.model.fingerprint,
        "task": race.task.name,
        "data_hash": race.task.fingerprint(),
        "dtype": str(race.model.dtype).removeprefix("torch."),
        "floor": round(floor, 4),
        "warnings": [*warnings_of(race.task), *race.warnings],
    }
