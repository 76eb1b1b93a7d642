"""The frozen records that rooms exchange.

Shape glossary, used in every docstring and always in this order:
``layer, head, batch, query, key, d_head, d_model, vocab, prefix``; ``kv_head`` where keys and values are grouped,
``row`` where a context differs from row to row of the batch (1 when it is shared).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from elicitable.glance import bars
from elicitable.untrusted import in_one_line, make_plain

if TYPE_CHECKING:
    import numpy as np
    import torch

Split = Literal["train", "validation", "test"]
Text = str | tuple[int, ...]
CALLS: Final = ("tool_calls", "function_call")  # the parts of a turn that call a tool
TOOLS: Final = "tools"  # the part of a conversation's first turn that says which tools there are


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: who speaks (``system``, ``user``, ``assistant``, …), and what is said."""

    role: str
    content: str
    parts: str = field(default="", repr=False)  # JSON of what else a template may show, such as calls of tools

    @property
    def shown(self) -> str:
        """What a person sees, and what stands in a transcript: the text, and the calls behind it as JSON."""
        parts = json.loads(self.parts or "{}")
        calls = [json.dumps(parts[name], ensure_ascii=False) for name in CALLS if name in parts]
        return " ".join([self.content, *calls] if self.content else calls)


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a task: read ``prompt``, then write ``target``.

    Both are texts, or both are tuples of token ids (the synthetic tasks have no tokenizer). ``prompt`` is already
    in the task's template; or it is the messages of a conversation, which a model's chat template will write out,
    and ``target`` is the text of the next message. In a classification task ``target`` is one of the task's labels.
    ``spans`` (first, end) are the parts of a text ``prompt`` that may be shortened where the model's positions do not
    reach; none: any part of it. ``choices`` are the item's own possible targets, where they differ from item to item.
    ``lead`` is what separates every possible target from the prompt; None: the white space that it begins with.
    ``shown`` are worked examples of its own, which stand before it. ``accepted`` are all right answers where there
    are several, of which the target is the first. ``reference`` is what a task's own score judges an answer by.
    """

    prompt: Text | Messages
    target: Text
    spans: tuple[tuple[int, int], ...] = field(default=(), repr=False, compare=False)
    choices: tuple[str, ...] = field(default=(), repr=False)
    lead: str | None = field(default=None, repr=False, compare=False)
    shown: tuple[Item, ...] = field(default=(), repr=False)
    accepted: tuple[str, ...] = field(default=(), repr=False, compare=False)
    reference: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        make_plain(self, but="reference")

    @property
    def is_text(self) -> bool:
        """Whether it is read by a tokenizer: a text or a conversation, not token ids."""
        return isinstance(self.target, str)


@dataclass(frozen=True, slots=True)
class Score:
    """Per-item outcomes of one evaluation, kept per item so that methods can be compared in pairs.

    ``correct`` holds one 0/1 per item, in the order of the split. ``loss_nats`` is the mean negative log-likelihood
    of the target per token, in nats. Of ``cut_items`` texts that were too long ``cut_tokens`` were left out in all.
    """

    correct: tuple[int, ...]
    loss_nats: float
    cut_items: int = 0
    cut_tokens: int = 0

    @property
    def mean(self) -> float:
        """Share of items answered right, in [0, 1]."""
        return sum(self.correct) / len(self.correct)


class Scored(Protocol):
    """Answers to a split's items in one score, as intervals need them: the score under any number of draws per item.

    The score lies between ``lowest`` and ``highest``; ``is_share`` says that it is the mean of outcomes that are 0 or
    1; ``replicates`` is how many bootstrap replicates are affordable.
    """

    @property
    def items(self) -> int:
        """How many items were answered."""

    @property
    def lowest(self) -> float:
        """The least that the score can be."""

    @property
    def highest(self) -> float:
        """The most that the score can be."""

    @property
    def is_share(self) -> bool:
        """Whether the score is the mean of outcomes that are 0 or 1."""

    @property
    def replicates(self) -> int:
        """How many bootstrap replicates are affordable."""

    def under(self, counts: np.ndarray) -> np.ndarray:
        """(replicate, item) draws to (replicate,) scores of the items drawn so often."""


@dataclass(frozen=True, slots=True)
class ClassResult:
    """How one label fared. None where nothing can be said: precision of a label that was never answered."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, slots=True)
class ClassResults:
    """A confusion table and the results of every class.

    ``counts[target][answer]`` are items, in the order of ``labels``; a last column counts answers that are no label.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    classes: tuple[ClassResult, ...]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One point of a learning curve. ``validation`` is None where only the loss was measured."""

    step: int
    loss_nats: float
    validation: float | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """The three budgets of an adapted model; they are different numbers and are shown apart."""

    numbers_trained: int
    bytes_stored: int
    keys_per_layer: int


@dataclass(frozen=True, slots=True)
class Effort:
    """What a method that is chosen tried before its best candidate was taken; scores are those on validation.

    Of ``offered`` candidates ``candidates`` were scored, in ``passes`` and ``seconds``. A pass is one item read once;
    those that were read to find candidates are included, and an item about which a model thinks first counts as 16.
    The best one was scored on ``items`` items and has ``best``; ``median`` is the median score of all, each on the
    items that it was scored on. ``origins`` says where candidates came from, and for each such place how many were
    scored and the best score.
    """

    candidates: int
    offered: int
    passes: int
    items: int
    seconds: float
    best: float
    median: float
    origins: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # name: (candidates, best score)


Group = Literal["nothing", "context", "weights", "other", "control"]


@dataclass(frozen=True, slots=True, order=True)
class Rung:
    """One rung of the ladder from a model left as it is to a model with all its weights changed.

    Methods that reach equally deep into a model share a rung. ``depth`` orders the ladder: the lower, the less
    invasive. ``label`` is the verdict when a method of this rung is the least invasive one that suffices. ``group``
    says what kind of change it is; a ``"control"`` is measured beside the others and never judged. ``answer`` says
    the verdict in one sentence about ``{model}`` and ``{task}``, and ``advice`` says what the reader does next.

    >>> Rung(1.0, "prompt", "context") < Rung(6.0, "weights", "weights")
    True
    """

    depth: float
    label: str
    group: Group
    answer: str = field(default="This does {task} on {model}.", compare=False)
    advice: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class ArmResult:
    """One arm of a race: a method at one setting, over all its seeds, on the test split.

    ``rung`` and ``deployment`` (what running it elsewhere takes) are the method's own words, so nobody need ask it.
    """

    method: str
    rung: Rung
    setting: Mapping[str, Any]
    budget: Budget
    status: str  # "ok", "diverged", "failed", "skipped"
    reason: str = ""  # why, when status is not "ok" or not every seed ran through
    stopped: str = ""  # "solved", "plateau", "settled", "steps", "time", "passes" or "all candidates tried"
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    items: int = 0
    seeds: int = 0
    learning_rate: float | None = None
    steps: int = 0
    seconds: float = 0.0
    side_effect_nats: float | None = None
    correct: tuple[tuple[int, ...], ...] = ()  # (seed, item)
    curves: tuple[tuple[CurvePoint, ...], ...] = ()  # one per seed, at the chosen learning rate
    sweep: tuple[Mapping[str, Any], ...] = ()  # what was tried: learning_rate, steps, validation, loss_nats
    prefix_mass: tuple[tuple[float, ...], ...] = ()  # (layer, head), mean over test items and queries
    samples: tuple[Mapping[str, str], ...] = ()  # prompt, target, answer: a few of the test items
    cut_items: int = 0  # test texts that were longer than is read, of the first seed
    cut_tokens: int = 0  # what they lost in all
    behind: tuple[float, ...] = ()  # mean, low, high of (best arm − this arm), in pairs over items: what decides
    deployment: str = ""
    answers: tuple[tuple[str, ...], ...] = ()  # (seed, item), where more is scored than right or wrong
    rule: str = ""  # that decides between labels; empty where there are none
    raw_mean: float | None = None  # share that the plain likelihood of the labels has right, mean over seeds
    effort: Effort | None = None  # what was tried, where the arm is chosen and not trained
    share_of_batch: float = 1.0  # of the usual rows that a step read: the clock may have paid for fewer

    def __repr__(self) -> str:
        """Return in a line how the arm did."""
        scored = f" {self.mean:.3f}, {self.items:,} items, {self.seeds} seeds" if self.mean is not None else ""
        told = f"{self.status}{scored}, {self.budget.numbers_trained:,} numbers trained"
        return in_one_line(f"<ArmResult {self.method}: {told}>")

    @property
    def is_control(self) -> bool:
        """Whether the arm is measured for comparison only and takes no part in the verdict."""
        return self.rung.group == "control"


@dataclass(frozen=True, slots=True)
class DeploymentCard:
    """Say what it takes to serve an arm of a race: its winner, or the best arm where there is no winner.

    Attributes:
        method: the arm. ``run`` is the folder that holds it, ``forms`` what it can be exported to.
        row_tokens: tokens of a request's own text, ``answer_tokens`` of its answer, means over test items.
        context_tokens: of a text that is sent with every request; 0 where nothing is (numbers that were trained are
            loaded once).
        keys_per_layer: keys that every request attends to besides its own.
        training_seconds: what the arm took in the race.
        rival: the best arm whose context is a text, other than this one, with its ``rival_tokens`` and ``rival_mean``.
        plain_seconds: median time in which the base model alone reads a request, one at a time; ``with_seconds`` with
            the arm in place. ``overhead`` is the median of with / plain − 1 over pairs, between its quartiles.
        requests_timed: pairs that were timed. ``device``: where.
    """

    method: str
    run: str
    forms: tuple[str, ...]
    row_tokens: float
    answer_tokens: float
    context_tokens: int
    keys_per_layer: int
    training_seconds: float
    rival: str = ""
    rival_tokens: int = 0
    rival_mean: float | None = None
    plain_seconds: float = 0.0
    with_seconds: float = 0.0
    overhead: tuple[float, ...] = ()
    requests_timed: int = 0
    device: str = ""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Hold what a race decides at every margin from ``start`` on, up to the start of the next stretch.

    ``label`` and ``answer`` are as in :class:`Verdict`, ``reason`` is the first one without the number of the margin,
    and ``standings`` says of each arm that is judged whether it is ``enough``, ``worse`` or ``open``.
    """

    start: float
    label: str
    answer: str
    reason: str
    standings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a race, and everything needed to judge it.

    ``answer`` names the arm that the label speaks of; it is empty where the label speaks of none.
    ``inspection`` is the microscope's record of the context that the answer speaks of, else of the best context.
    ``classes`` says which label the answer's arm (the best arm, where there is no answer) took for which.
    ``card`` says what deploying that arm takes, where the race wrote it to a folder.
    ``rows`` is how the contenders grow with the training rows, and ``why`` the causes for which contexts fall short
    (:class:`elicitable.diagnosis.causes.Why`), where that was asked for.
    ``margins`` is what the same results decide at any other margin, from the smallest on.
    """

    label: str
    reasons: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    model: str
    task: str
    margin: float
    answer: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    inspection: Any = None
    classes: ClassResults | None = None
    items: tuple[tuple[str, str], ...] = ()  # prompt and target of every test item, as the report shows them
    card: DeploymentCard | None = None
    rows: Any = None
    margins: tuple[Stretch, ...] = ()
    why: Any = None

    @property
    def scores(self) -> dict[str, float | None]:
        """Mean test score of each method, by name."""
        return {arm.method: arm.mean for arm in self.arms}

    def __repr__(self) -> str:
        """Return the verdict in a line."""
        answer = next((f", {arm.method} {arm.mean:.3f}" for arm in self.arms if arm.method == self.answer), "")
        return in_one_line(f"<Verdict {self.label}{answer}: {self.task} on {self.model}, {len(self.arms)} arms>")

    def _repr_html_(self) -> str:
        """Return a bar for every arm, for a notebook."""
        arms = [(arm, arm.mean) for arm in self.arms if arm.mean is not None]
        rows = [(arm.method, mean, arm.low or 0.0, arm.high or 0.0, arm.method == self.answer) for arm, mean in arms]
        return bars(repr(self).strip("<>"), rows)


@dataclass(frozen=True, slots=True)
class ToySpec:
    """The shape of a toy transformer and how it is pretrained: on which task, how long, at which rate.

    ``largest_offset`` is the furthest that the content is moved up at random during pretraining, so that a context of
    that length may stand before it.
    """

    name: str
    task: str
    layers: int
    heads: int
    d_model: int
    steps: int
    learning_rate: float
    has_first_norm: bool = True
    batch: int = 64
    largest_offset: int = 64


@dataclass(frozen=True, eq=False)
class PrefixKV:
    """What every context comes down to: keys and values that the content attends to, one set per layer.

    ``keys[layer]`` is (row, kv_head, prefix, d_head) and ``values[layer]`` (row, kv_head, prefix, d_value), after
    whatever the model does to its own keys (rotary angles, norms); a layer whose entry is None gets no context.
    ``visible`` (row, prefix) masks unused places where rows have contexts of different length. ``kept[layer]``
    (kv_head or 1, prefix) masks keys that a layer's heads do without (a pruned context). ``positions``
    (row, prefix) are relative to the first content token (-prefix … -1), which is what a sliding window sees.
    ``shift`` is how far the content's own positions move up (models with learned absolute positions).
    ``value_bias[layer]`` (kv_head, d_value) is added to every content value; it is the control without a context.
    """

    keys: tuple[torch.Tensor | None, ...]
    values: tuple[torch.Tensor | None, ...]
    positions: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    shift: int = 0
    value_bias: tuple[torch.Tensor | None, ...] | None = None
    pinned: bool = False  # True: sliding windows do not cut the context off
    kept: tuple[torch.Tensor | None, ...] | None = None
