"""Tasks of lm-evaluation-harness as they are: its documents, prompts, choices, worked examples and stop strings.

``lm-eval:NAME`` is a task that comes with the harness, ``lm-eval:my_task.yaml`` one of a person's own (whose functions
are code that is run). Data must be on disk; nothing is fetched.

**Splits.** The test split is what the harness evaluates, whole and in its order, so that the first n items are those of
its ``limit=n``. Training and validation items come from the harness's other splits, without what is in the test split;
where there are none, from the evaluated documents themselves, by the hash of their text, which a warning says.

**Prompts** are the harness's own words. Worked examples are drawn as it draws them for the documents that it evaluates
(its seed, their order); for other items they never include the document itself. With ``turns`` they are turns of a
conversation, and the description is the system message: its ``apply_chat_template`` with ``fewshot_as_multiturn``.

**Answers.** Choices are compared as the harness does, by the log-likelihood of delimiter and choice as they stand (and
of blanks at the prompt's end), without an end. A free answer is the harness's target behind its delimiter (without one
where the harness's own metric does not accept it so), and ends with the first of the stop strings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from elicitable.errors import InputError
from elicitable.rng import generator
from elicitable.tasks.base import HeldOut, TaskMetric, checked_count, checked_split, fingerprint_of
from elicitable.tasks.harness_ends import most_tokens_of, stops_of
from elicitable.tasks.harness_metrics import choice_metric, free_metric, names_of, refusal
from elicitable.tasks.harness_source import PREFIX, files_of, judged, kind_of, loaded
from elicitable.tasks.options import TaskOptions
from elicitable.tasks.reading import Reading
from elicitable.tasks.splitting import SPLITS, Row, split_rows, units_of
from elicitable.untrusted import is_out_of_memory
from elicitable.values import Item, Message, Split

if TYPE_CHECKING:
    import numpy as np

SEED: Final = 1234  # from which the harness draws worked examples
DOCUMENTS: Final = 10_000  # of the training split at most
DEFAULT_ITEMS: Final = {"validation": 500, "test": 1_000}


@dataclass(frozen=True, slots=True)
class _Document(Row):
    """A row that knows which document it is: number ``place`` of the harness's split ``origin``."""

    origin: Split = "train"
    place: int = 0


def harness_task(name: str, options: TaskOptions) -> HarnessTask:
    """The task ``lm-eval:NAME`` or ``lm-eval:my_task.yaml``; options: ``fewshot``, ``turns``.

    Raises:
        MissingPackageError: the harness is not installed.
        InputError: the data are not on disk, or the task is of a kind that is not
            supported, which is named; UnknownNameError where there is no such task.
    """
    spec = name.removeprefix(PREFIX)
    return HarnessTask(loaded(spec), spec, fewshot=options.fewshot, turns=bool(options.turns))


class HarnessTask:
    """A task of lm-evaluation-harness; see the module. ``harness`` is the harness's own object.

    ``fewshot`` is the number of worked examples, by default the task's own; ``turns`` shows them as turns of a
    conversation. ``stops`` are the texts that end an answer.
    """

    def __init__(self, harness: Any, spec: str, *, fewshot: int | None = None, turns: bool = False) -> None:
        self.name = f"{PREFIX}{harness.config.task or spec}"
        self.harness = harness
        self.turns = turns
        self.kind = kind_of(self.name, harness, turns)
        self.fewshot = _fewshot(self.name, harness, fewshot)
        self.reading = _reading(harness, self.fewshot)
        self.stops = stops_of(harness)
        self._told: list[str] = []
        try:
            self._documents = _documents(harness, self._told)
        except Exception as error:  # of the task's own splits and code
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{self.name}: lm-eval cannot read the documents of its splits: {reason}") from error
        self._choices: dict[tuple[Split, int], tuple[str, ...]] = {}
        self._bare = False
        self._splits = self._split()
        self._bare = self.kind == "generation" and self._is_refused_with_delimiter()
        self._units = units_of([row for rows in self._splits.values() for row in rows])
        self._asked: list[Any] = []  # prompts of evaluated documents, in the order in which examples were drawn
        self._fingerprint: str | None = None
        self.most_tokens = most_tokens_of(harness)
        self.warnings = (*self._told, *self._doubts())

    def labels(self) -> tuple[str, ...] | None:
        """The choices with their delimiter where they are the same for all items; empty where each has its own."""
        if self.kind == "generation":
            return None
        found = {self._targets(row) for rows in self._splits.values() for row in rows}
        return found.pop() if len(found) == 1 else ()

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        """``n`` training items, drawn uniformly; within one call no item returns before all others were drawn."""
        rows = self._splits["train"]
        order: list[int] = []
        while len(order) < checked_count(n):
            order += rng.choice(len(rows), min(n - len(order), len(rows)), replace=False).tolist()
        return [self.item(rows[place]) for place in order]

    def held_out(self, split: HeldOut, n: int | None = None) -> list[Item]:
        """The first ``n`` items, or all if there are fewer; of the test split in the harness's own order."""
        return [self.item(row) for row in self._first(split, n)]

    def groups(self, split: HeldOut, n: int | None = None) -> tuple[int, ...]:
        """The group of each item of ``held_out(split, n)``: documents of the same text are one."""
        numbers: dict[str, int] = {}
        return tuple(numbers.setdefault(self._units[row.text], len(numbers)) for row in self._first(split, n))

    def places(self, split: HeldOut, n: int | None = None) -> list[int]:
        """The harness's number (``doc_id``) of each item of ``held_out(split, n)``, in its own split."""
        return [row.place for row in self._first(split, n)]

    def metrics(self, split: HeldOut, answers: Sequence[str]) -> list[dict[str, float]]:
        """The harness's own filters and metrics on free answers to the first items of ``split``.

        Returns:
            One dictionary per answer, "metric,filter" to value, as the harness names them.
        """
        rows = self._first(split, len(answers))
        docs = [self._documents[row.origin][row.place] for row in rows]
        return judged(self.harness, docs, answers)

    def metric(self, name: str | None = None) -> TaskMetric | None:
        """Return the harness's metric of that name ("metric" or "metric,filter") as the score of a race.

        Without a name it is the first of the task's metrics that can be one. None where there is none such.

        Raises:
            InputError: the task has such a metric, which cannot be the score of a race.
        """
        reasons = self._refusals()
        if name is None:
            name = next((one for one, why in reasons.items() if not why), None)
        if name is None or name not in reasons:
            return None
        if reasons[name]:
            fit = "; ".join(one for one, why in reasons.items() if not why) or "none of them"
            raise InputError(
                f"{self.name}: lm-eval's metric {name} cannot be the score of a race: {reasons[name]}. Of this task's "
                f"metrics these can: {fit}; or give a score of elicitable's (elicitable scores)."
            )
        if self.harness.OUTPUT_TYPE == "generate_until":
            return free_metric(self.name, self.harness, name, self._document)
        return choice_metric(self.harness, name)

    def _refusals(self) -> dict[str, str]:
        labels = self.labels() if self.kind == "classification" else None
        return {name: refusal(self.harness, name, labels) for name in names_of(self.harness)}

    def _document(self, reference: tuple[Split, int]) -> Any:
        origin, place = reference
        return self._documents[origin][place]

    def fingerprint(self) -> str:
        """Hash of all documents, of the task's settings and its functions' files, and of how it is shown."""
        if self._fingerprint is None:
            self._fingerprint = self._hashed()
        return self._fingerprint

    def _hashed(self) -> str:
        settings = {k: v for k, v in self.harness.dump_config().items() if k not in ("dataset_kwargs", "metadata")}
        shown = json.dumps(settings, sort_keys=True, default=lambda x: getattr(x, "__qualname__", type(x).__name__))
        rows = [row for split in SPLITS for row in self._splits[split]]
        texts = [
            part for row in rows for part in (row.origin, row.text, row.answer, *row.accepted, *self._targets(row))
        ]
        read = [self._document((row.origin, row.place)) for row in rows]  # also what a metric alone looks at
        read += self.harness.fewshot_docs() if self.fewshot else ()
        docs = [json.dumps(doc, sort_keys=True, default=str) for doc in read]
        how = (shown, *files_of(self.harness), str(self.fewshot), str(self.turns))
        return fingerprint_of(["lm-eval", self.name, *how, *texts, *docs])

    def item(self, row: _Document) -> Item:
        """The item of a document."""
        shown = self._shown(row)
        prompt = tuple(Message(turn["role"], turn["content"]) for turn in shown) if self.turns else shown
        if isinstance(prompt, str):
            prompt = prompt.removesuffix(self._blank(row))
        lead = self._blank(row) + self._delimiter()
        choices, place = self._targets(row), (row.origin, row.place)
        return Item(prompt, lead + row.answer, choices=choices, lead=lead, accepted=row.accepted, reference=place)

    def _shown(self, row: _Document) -> Any:
        """The harness's prompt for a document; those that it evaluates draw their examples one after the other."""
        if row.origin == "test":
            if row.place >= len(self._asked):
                self.harness.set_fewshot_seed(SEED)
                most = min(max(row.place + 1, 2 * len(self._asked), 100), len(self._documents["test"]))
                self._asked = [self._context(doc) for doc in _first_of(self._documents["test"], most)]
            return self._asked[row.place]
        doc = self._documents[row.origin][row.place]
        with _others_only(self.harness, doc, f"{row.origin} {row.place}"):
            return self._context(doc)

    def _context(self, doc: Any) -> Any:
        try:
            return self.harness.fewshot_context(
                doc,
                num_fewshot=self.fewshot,
                apply_chat_template=self.turns,
                fewshot_as_multiturn=self.turns,
                chat_template=(lambda turns, add_generation_prompt: turns) if self.turns else None,
                gen_prefix=self.harness.doc_to_prefix(doc),
            )
        except Exception as error:  # of the task's own code, or too few documents for so many examples
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{self.name}: a document with {self.fewshot} worked examples cannot be shown: {error}"
            ) from error

    def _delimiter(self) -> str:
        if self.turns or self._bare or self.harness.OUTPUT_TYPE == "loglikelihood":
            return ""
        prefixed = self.kind == "generation" and self.harness.config.gen_prefix
        return " " if prefixed else str(self.harness.config.target_delimiter)

    def _targets(self, row: _Document) -> tuple[str, ...]:
        if self.kind == "generation":
            return ()
        before = self._blank(row) + self._delimiter()
        return tuple(before + choice for choice in self._choices[row.origin, row.place])

    def _blank(self, row: _Document) -> str:
        """Blanks at the prompt's end, which the harness takes for the beginning of what is compared."""
        if self.turns or self.harness.OUTPUT_TYPE == "generate_until":
            return ""
        doc = self._documents[row.origin][row.place]
        end = self.harness.doc_to_prefix(doc) or row.text
        return str(end[len(end.rstrip()) :])

    def _first(self, split: HeldOut, n: int | None) -> list[_Document]:
        return self._splits[checked_split(split)][: DEFAULT_ITEMS[split] if n is None else checked_count(n)]

    def _split(self) -> dict[Split, list[_Document]]:
        rows = {split: [*self._rows(split)] for split in self._documents}
        given: dict[Split, list[_Document]] = {split: rows[split] for split in rows if split != "validation"}
        if "train" in given and "validation" in rows:
            given["validation"] = rows["validation"]
        elif "validation" in rows:
            given["train"] = rows["validation"]
        elif "train" not in given:
            given = {"train": rows["test"]}
            self._told.append(
                "the harness has one split only: 70 of 100 documents are trained on, 20 are the test split"
            )
        splits, _ = split_rows(given)
        found = {split: [row for row in splits[split] if isinstance(row, _Document)] for split in SPLITS}
        found["test"].sort(key=lambda row: row.place)
        if empty := next((split for split in SPLITS if not found[split]), None):
            raise InputError(f"{self.name}: no documents are left for the {empty} split; the task needs more of them.")
        return found

    def _rows(self, origin: Split) -> Iterator[_Document]:
        for place, doc in enumerate(self._documents[origin]):
            answer = self._answer(doc, origin, place)
            text = str(self.harness.doc_to_text(doc))
            yield _Document((text,), answer, accepted=self._accepted(doc), origin=origin, place=place)

    def _answer(self, doc: Any, origin: Split, place: int) -> str:
        """The right answer of a document without its delimiter; its choices are kept."""
        gold = self.harness.doc_to_target(doc)
        if self.harness.config.doc_to_choice is None:
            return str(gold[0] if isinstance(gold, list) and gold else gold)
        choices = tuple(map(str, self.harness.doc_to_choice(doc)))
        self._choices[origin, place] = choices
        at = choices.index(gold) if isinstance(gold, str) and gold in choices else gold
        if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < len(choices):
            raise InputError(
                f"{self.name}: document {place} of the {origin} split has {len(choices)} choices and {gold!r} as the "
                "right one; elicitable needs one right choice per document."
            )
        return choices[at]

    def _accepted(self, doc: Any) -> tuple[str, ...]:
        """All right answers of a document, where the harness takes several."""
        gold = self.harness.doc_to_target(doc) if self.kind == "generation" else None
        return tuple(map(str, gold)) if isinstance(gold, list) and self.harness.config.doc_to_choice is None else ()

    def _is_refused_with_delimiter(self) -> bool:
        """Whether the harness's metrics give the bare target more than the one behind its delimiter."""
        row = self._splits["test"][0]
        docs = [self._documents[row.origin][row.place]] * 2
        if self.harness.OUTPUT_TYPE != "generate_until" or self.turns:
            return False
        try:
            found = judged(self.harness, docs, [row.answer, self._delimiter() + row.answer])
        except Exception as error:  # a metric is a program, which raises anything; where it is the score, that is said
            if is_out_of_memory(error):
                raise
            return False
        bare, delimited = (sum(x for x in one.values() if isinstance(x, int | float)) for one in found)
        return bool(bare > delimited)

    def _doubts(self) -> list[str]:
        """What is scored, trained or decoded in another way than by the harness, in words."""
        told, reasons = [], self._refusals()
        scored = next((name for name, why in reasons.items() if not why), None)
        first = next(iter(reasons), None)
        if first != scored:
            instead = f"{scored} is, unless --score names another" if scored else "answers are scored as right or wrong"
            told.append(f"lm-eval's metric {first} cannot be the score of a race: {reasons[str(first)]}; {instead}")
        generation = self.harness.config.generation_kwargs or {}
        if self.kind == "generation" and generation.get("do_sample"):
            told.append("the harness draws its answers at random; here the likeliest one is written")
        if self.kind == "generation" and (self.harness.config.repeats or 1) > 1:
            told.append(f"the harness asks {self.harness.config.repeats} times for an answer; here it is asked once")
        if self.kind == "generation" and any(self._stopped(row) for row in self._splits["test"]):
            told.append("some answers contain a stop string, so the harness never sees them whole")
        if twice := sum(len(set(self._targets(row))) < len(self._targets(row)) for row in self._splits["test"]):
            told.append(f"documents with the same choice twice, of which the harness takes one for wrong: {twice}")
        if self.kind == "generation" and isinstance(self.harness.doc_to_target(self._documents["test"][0]), list):
            told.append("the harness accepts several answers; the first of them is what is trained on")
        return told

    def _stopped(self, row: _Document) -> bool:
        return any(stop in row.answer for stop in self.stops if stop)

    def __repr__(self) -> str:
        return f"HarnessTask({self.name!r}, {self.kind}, { {split: len(self._splits[split]) for split in SPLITS} })"


def _fewshot(name: str, harness: Any, asked: int | None) -> int:
    own = harness.config.num_fewshot
    if asked is None:
        return int(own or 0)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 0:
        raise InputError(f"{name}: the number of worked examples is a whole number from 0, got {asked!r}.")
    if own == 0 and asked:
        raise InputError(f"{name} is a task without worked examples (num_fewshot: 0); leave fewshot out.")
    return asked


def _reading(harness: Any, fewshot: int) -> Reading:
    """Where the documents come from, and how they are shown."""
    shown = harness.config.doc_to_text
    examples = f", after {fewshot} worked examples" if fewshot else ""
    source = " ".join(filter(None, (harness.config.dataset_path, harness.config.dataset_name)))
    template = shown if isinstance(shown, str) else "by a function of the task's own"
    return Reading(source or "data of the task's own", (), (), template + examples)


def _documents(harness: Any, told: list[str]) -> dict[Split, Any]:
    """The harness's documents by what they are here: what it evaluates is "test"."""
    found: dict[Split, Any] = {"test": harness.eval_docs}
    if harness.has_validation_docs() and harness.has_test_docs():
        found["validation"] = harness.validation_docs()
    if harness.has_training_docs():
        documents = harness.training_docs()
        if len(documents) > DOCUMENTS:
            told.append(f"the first {DOCUMENTS:,} of {len(documents):,} training documents are read")
        found["train"] = _first_of(documents, DOCUMENTS)
    return found


def _first_of(documents: Any, n: int) -> list[Any]:
    return [documents[place] for place in range(min(n, len(documents)))]


@contextmanager
def _others_only(harness: Any, doc: Any, seed: str) -> Iterator[None]:
    """Inside, worked examples are drawn from ``seed``, and ``doc`` is none of them."""
    sampler: Any = getattr(harness, "sampler", None)
    if sampler is None:
        yield
        return
    sampler.set_rnd(int(generator(SEED, "worked examples", seed).integers(2**31)))
    draw: Callable[..., Any] = sampler.sample
    sampler.sample = lambda n, **_: draw(n, eval_doc=doc)
    try:
        yield
    finally:
        del sampler.sample
