"""Say what an artefact is, as frozen data: what was put into which model, how a row is read, and what it scored.

One JSON object beside the adapter files (``artefact.json``), checked key by key when it is read
(:mod:`elicitable.records.schema`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from elicitable.errors import InputError
from elicitable.glance import bars
from elicitable.models.layout import Layout, Side, Start
from elicitable.tasks.base import Task
from elicitable.tasks.reading import CHOSEN_FROM
from elicitable.tasks.template import Template
from elicitable.training.decision_rules import DecisionRule
from elicitable.values import Budget, Item, Message

MOST = 1 << 24  # rows at once, or tokens of a text: more than anybody reads
FORM = 1  # of this record; raised when a key changes its meaning
RAW = "prompt"  # the column of a task whose items come ready-made
Kind = Literal["classification", "generation"]
Role = Literal["winner", "best", "kept", "tuned", "pruned"]
Packed = Literal["8bit", "4bit"]
Spread = Literal["auto", "balanced", "sequential"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Hold a worked example: a text or the messages of a conversation, and the answer to it."""

    target: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    spans: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, item: Item) -> Shown:
        """Return the example of an item of texts."""
        messages = tuple(part for part in item.prompt if isinstance(part, Message))
        text = item.prompt if isinstance(item.prompt, str) else ""
        return cls(str(item.target), text, messages, item.spans)

    def item(self) -> Item:
        """Return the item again."""
        return Item(self.messages or self.text, self.target, tuple((first, end) for first, end in self.spans))


@dataclass(frozen=True, slots=True)
class Laid:
    """Hold a :class:`~elicitable.models.layout.Layout` in a form that JSON keeps."""

    start: Start = "own"
    chat: bool = False
    system: str | None = None
    head: str = ""
    examples: tuple[Shown, ...] = ()
    separator: str = "\n\n"
    end: str | None = None
    stops: tuple[str, ...] = ()
    cut: Side = "left"
    turns: bool = False

    @classmethod
    def of(cls, layout: Layout) -> Laid:
        """Return what JSON keeps of ``layout``: everything."""
        return cls(
            layout.start,
            layout.chat,
            layout.system,
            layout.head,
            tuple(map(Shown.of, layout.examples)),
            layout.separator,
            layout.end,
            layout.stops,
            layout.cut,
            layout.turns,
        )

    def layout(self) -> Layout:
        """Return the layout again.

        >>> Laid.of(Layout(head="Sort: ")).layout() == Layout(head="Sort: ")
        True
        """
        return Layout(
            self.start,
            self.chat,
            self.system,
            self.head,
            tuple(shown.item() for shown in self.examples),
            self.separator,
            self.end,
            self.stops,
            self.cut,
            self.turns,
        )


@dataclass(frozen=True, slots=True)
class Form:
    """Say how a row becomes what the model reads, and which answers there are.

    ``columns`` are the columns that are shown, ``main`` the one that must not be empty. They enter ``literals`` at
    ``slots`` (:class:`~elicitable.tasks.template.Template`); without literals the main column holds a conversation.
    ``labels`` are the possible answers, verbatim: None for free answers, empty where every row brings choices of its
    own: in the columns ``choices``, with ``ending`` behind each, or verbatim in a column of that name. ``answer`` is
    the column that the right answers had, and ``example`` one of them, verbatim; ``lead`` is what separates answers
    from the prompt, where the task says so. A ``raw`` row is shown as it is; ``ids`` says that
    it is token ids.
    """

    kind: Kind
    columns: tuple[str, ...]
    main: str
    literals: tuple[str, ...]
    slots: tuple[int, ...] = (0,)
    separator: str = ""
    labels: tuple[str, ...] | None = None
    answer: str = ""
    example: str = ""
    lead: str | None = None
    raw: bool = False
    ids: bool = False
    choices: tuple[str, ...] = ()
    ending: str = ""

    @classmethod
    def of(cls, task: Task, is_text: bool) -> Form:
        """Return the form of ``task``; items of a task without a template are shown as they are."""
        labels = task.labels()
        kind: Kind = "generation" if labels is None else "classification"
        template = getattr(task, "template", None)
        first = task.held_out("validation", 1)[0]
        example, lead = str(first.target) if is_text else "", first.lead
        if not isinstance(template, Template):
            shown = cls(kind, (RAW,), RAW, ("", ""), labels=labels, example=example, lead=lead)
            return replace(shown, raw=True, ids=not is_text)
        used = dict(getattr(getattr(task, "reading", None), "used", ()))
        read = [name for name, role in used.items() if role.startswith("read") and name in template.names]
        return cls(
            kind,
            template.names,
            read[0] if read else template.names[0],
            template.literals,
            template.slots,
            template.separator,
            labels,
            next((name for name, role in used.items() if "label" in role or "target" in role), ""),
            example,
            choices=tuple(name for name, role in used.items() if role == CHOSEN_FROM),
            ending=getattr(task, "ending", ""),
        )

    def template(self) -> Template:
        """Return the template that shows a row."""
        return Template(self.literals, self.slots, self.columns, self.separator)


@dataclass(frozen=True, slots=True)
class Base:
    """Name the base model: how elicitable loads it again, where transformers finds it, and which one it was.

    ``hash`` is over the weights, the configuration and the tokenizer (:attr:`Model.fingerprint`). ``path`` is a folder
    or a hub id; both it and ``source`` are None for a model that was only ever in memory. ``load_in`` says how its
    matrices were packed, and ``device_map`` how it was spread over devices; ``written`` is a digest of its tokenizer's
    chat template and end of text (:attr:`Model.written`), empty where that was not kept.
    """

    name: str
    hash: str
    dtype: str
    source: str | None = None
    path: str | None = None
    load_in: Packed | None = None
    device_map: Spread | None = None
    written: str = ""

    def how(self, device: str = "auto") -> dict[str, Any]:
        """Return how :func:`elicitable.load` loads it as it was then; a ``device`` that is named holds all of it.

        >>> Base("mine", "0", "bfloat16", device_map="auto").how("cpu")
        {'device': 'cpu', 'dtype': 'bfloat16'}
        """
        how = {"device": device, "dtype": self.dtype}
        how |= {} if self.load_in is None else {"load_in": self.load_in}
        return how | ({} if self.device_map is None or device != "auto" else {"device_map": self.device_map})


@dataclass(frozen=True, slots=True)
class Result:
    """Hold what was measured on the test split: the score, its 95 % interval, over how many items and seeds."""

    score: str
    mean: float
    low: float
    high: float
    items: int
    seeds: int = 1


@dataclass(frozen=True, slots=True)
class Serving:
    """Hold what a request takes: tokens of its text and of its answer, and the time to read it, without and with.

    ``forms`` are those that it can be exported to. ``overhead`` are the quartiles of with / plain − 1 over
    ``requests_timed`` pairs (:class:`~elicitable.values.DeploymentCard`).
    """

    forms: tuple[str, ...]
    row_tokens: float
    answer_tokens: float
    plain_seconds: float
    with_seconds: float
    overhead: tuple[float, ...]
    requests_timed: int


@dataclass(frozen=True, slots=True)
class Record:
    """Hold everything about an artefact that is not a tensor.

    Attributes:
        method: what made it. ``rung`` is its place on the ladder, ``deployment`` what running it elsewhere takes.
        role: ``winner`` of a race, the ``best`` arm where the race gave no winner, ``kept`` beside it, ``tuned``, or
            ``pruned``.
        verdict: the label of the race; empty where there was none.
        identity: of the trial that made it.
        size, seed, setting: how it was built.
        layout: how a row is laid out for the model, which is the adaptation's own choice where ``chose_layout``;
            ``held`` are the token ids that the context stands for.
        batch, max_tokens: how much was read at once, and from which length on texts were cut.
        form: how a row becomes what is laid out.
        rule: what decides between labels; ``slope`` turns its costs into calibrated probabilities
            (:mod:`elicitable.training.calibration`).
        longest_answer: tokens of the longest right answer that the test had; a new one may have twice as many, or
            ``most_answer`` where the task said how many.
        result, budget: score and interval, and the three budgets.
        serving: what a request takes, where it was measured.
        base, task, data_hash: the model and the data. ``versions``: of the packages.
        form_version: of this record.
    """

    method: str
    role: Role
    identity: str
    size: int
    seed: int
    form: Form
    base: Base
    result: Result
    budget: Budget
    task: str
    data_hash: str
    batch: int
    verdict: str = ""
    rung: str = ""
    deployment: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)
    layout: Laid = field(default_factory=Laid)
    chose_layout: bool = False
    held: tuple[int, ...] = ()
    max_tokens: int | None = None
    rule: DecisionRule | None = None
    slope: float | None = None
    longest_answer: int = 0
    most_answer: int | None = None
    serving: Serving | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    processor: str = ""
    device: str = ""
    form_version: int = FORM

    @property
    def told(self) -> str:
        """Say in a line what made it, for which task and base, and what it scores."""
        scored = f"{self.result.score} {self.result.mean:.3f} [{self.result.low:.3f}, {self.result.high:.3f}]"
        return f"{self.method} ({self.role}) for {self.task} on {self.base.name}, {scored}"

    def picture(self) -> str:
        """Return its score as a bar, for a notebook."""
        return bars(self.told, [(self.method, self.result.mean, self.result.low, self.result.high, True)])

    def __post_init__(self) -> None:
        """Raise InputError where the parts contradict one another."""
        lengths = [self.max_tokens, self.most_answer]
        if not 1 <= self.batch <= MOST or not 0 <= self.longest_answer <= MOST:
            raise InputError(f"batch has to be from 1 to {MOST:,}, and longest_answer from 0")
        if not all(one is None or 1 <= one <= MOST for one in lengths):
            raise InputError(f"max_tokens and most_answer have to be from 1 to {MOST:,}")
        labels = self.form.labels
        if self.rule is not None and labels is not None and len(self.rule.offsets) != len(labels):
            raise InputError(f"rule is for {len(self.rule.offsets)} labels, form.labels are {len(labels)}")
        if self.rule is not None and len(self.rule.offsets) != len(self.rule.divisors):
            raise InputError(f"rule has {len(self.rule.divisors)} divisors and {len(self.rule.offsets)} offsets")
        if self.form.literals and len(self.form.slots) != len(self.form.literals) - 1:
            raise InputError(f"form.slots are {len(self.form.slots)} and form.literals {len(self.form.literals)}")
        if any(not 0 <= slot < len(self.form.columns) for slot in self.form.slots):
            raise InputError(f"form.slots {self.form.slots} are not all among {len(self.form.columns)} form.columns")

    def is_of(self, other: Record) -> bool:
        """Say whether ``other`` is of the same trial, stands where it stood and scored the same."""
        mine, theirs = (
            (one.identity, one.method, one.role, one.verdict, one.result, one.budget, one.base) for one in (self, other)
        )
        return mine == theirs
