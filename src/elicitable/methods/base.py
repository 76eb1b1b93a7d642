"""The contract: what every way to adapt a model can do, whatever it is.

An *adaptation* is one concrete thing put into a model: a prompt, a trained prefix, a LoRA. A *method* is the recipe
that makes adaptations of one kind at a given size. Nothing outside this room asks which method it holds.
"""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from elicitable.errors import BudgetError, InputError
from elicitable.glance import table
from elicitable.methods import folders
from elicitable.methods.refilled import built_again, read_own
from elicitable.methods.search import Offer, Search
from elicitable.methods.settings import Settled, settings_as_given
from elicitable.models.load import home_of
from elicitable.own_digest import digest_of
from elicitable.values import Budget, PrefixKV, Rung

if TYPE_CHECKING:
    from torch import Tensor, nn

    from elicitable.models.layout import Layout
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item


class Adaptation:
    """One thing put into a model. The default is to change nothing, which is the zero-shot arm.

    A subclass overrides :meth:`prefix` (a context), :meth:`weights` (a weight method) and, where it is trained,
    :meth:`parameters`. ``setting`` is what a record keeps to build it again.
    """

    kind: ClassVar[str] = "zero-shot"
    moves_content: bool = False  # the content's positions move up by the context's length even on rotary models
    layout: Layout | None = None  # how items are laid out with it; None: as whoever asks lays them out

    def __init__(self, **setting: Any) -> None:
        self.setting = {name: value for name, value in setting.items() if value is not None}

    @property
    def told(self) -> Mapping[str, Any]:
        """Its setting as a list of candidates shows it: in short, and so that one can be told from another."""
        return self.setting

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """The context's keys and values, computed with ``before`` in place; None where there is no context.

        ``end`` positions right before the content are left to later contexts.
        """
        return None

    @property
    def parts(self) -> tuple[Adaptation, ...]:
        """The adaptations that it is made of, used together; by default it is one."""
        return (self,)

    def weights(self, model: Model) -> AbstractContextManager[None]:
        """Install changed weights for the length of a ``with``; the base weights are bit-equal afterwards."""
        return nullcontext()

    def parameters(self) -> list[nn.Parameter]:
        """The numbers that training changes; gradients flow to nothing else."""
        return []

    def state(self) -> dict[str, Tensor]:
        """Every tensor needed to build this adaptation again, by name (detached copies)."""
        return {str(i): p.detach().clone() for i, p in enumerate(self.parameters())}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        import torch

        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(state[str(i)])

    def held(self) -> tuple[int, ...]:
        """The token ids that the context stands for, which every text behind it begins with in ``layout``."""
        return ()

    def embeddings(self, model: Model) -> Tensor | None:
        """Return the input embeddings (token, d_model) that the context is the same as; None where there are none."""
        return None

    @property
    def shown(self) -> tuple[Item, ...]:
        """The worked examples in it, which training leaves out of its batches: their answers could be copied."""
        return self.layout.examples if self.layout else ()

    def fit(self, model: Model, items: Sequence[Item]) -> None:
        """Make the context one that all ``items`` can stand behind; most can as they are."""

    @property
    def asks_otherwise(self) -> bool:
        """Whether :meth:`asked` changes items."""
        return False

    @property
    def marker(self) -> str:
        """Where the model thinks before it answers, the text behind which its answer stands; else empty."""
        return str(self.setting.get("marker", ""))

    @property
    def price(self) -> int:
        """How many item-passes of a search one item counts as: 1, or what is written besides where it thinks first."""
        return THINKING if self.marker else 1

    def asked(self, model: Model, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items as they are read with it: with worked examples of their own, or another question."""
        return items

    def keys_per_layer(self) -> int:
        """Keys that every content query pays attention to in each layer at inference."""
        return 0

    def bytes_stored(self) -> int:
        """Bytes that must be kept to use the adaptation again."""
        return sum(p.numel() * p.element_size() for p in self.parameters())

    def size(self) -> int:
        """The size it was built at: virtual tokens or a rank; 1 where there is no size."""
        return max(1, self.keys_per_layer())

    def folder_form(self, model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the configuration and tensors of its adapter folder; by default in a form of elicitable's own.

        Raises:
            InputError: it is chosen, not trained, so there are no tensors to write.
        """
        if not self.parameters():
            raise InputError(f"{self.kind} is chosen, not trained: there are no tensors to write.")
        config = {"peft_type": folders.OWN_TYPE, "method": self.kind, "size": self.size(), "setting": self.setting}
        return config, self.state()

    def write(self, model: Model, folder: Path) -> None:
        """Write the adapter folder, its configuration last.

        Raises:
            InputError: there is nothing to write, or the layout cannot hold it.
            StoreError: the folder cannot be written to.
        """
        config, tensors = self.folder_form(model)
        base = home_of(model) or model.source or model.name
        folders.write_adapter_files(folder, folders.of_base(base) | config, tensors, model.fingerprint)

    def budget(self) -> Budget:
        """The three budgets: numbers trained, bytes stored, keys paid per layer."""
        return Budget(
            numbers_trained=sum(p.numel() for p in self.parameters()),
            bytes_stored=self.bytes_stored(),
            keys_per_layer=self.keys_per_layer(),
        )

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.told.items())
        return f"{self.kind}({inside})"

    def _repr_html_(self) -> str:
        """Return its three budgets as a table, for a notebook."""
        rows = [(name.replace("_", " "), f"{number:,}") for name, number in asdict(self.budget()).items()]
        return table(repr(self), rows)


THINKING = 16  # item-passes that a few hundred written tokens count as
WIDEST = 3  # rates that are tried beyond either end of a method's range


@dataclass(frozen=True)
class Schedule:
    """How a method wants to be trained: learning rates to sweep (low to high), and its weight decay."""

    learning_rates: tuple[float, ...]
    weight_decay: float = 0.0

    def wider(self, tried: Iterable[float], best: float) -> float | None:
        """Return the next rate beyond ``best`` where it is the lowest or the highest of those ``tried``.

        It lies as far off as the two next to the edge lie apart. None where ``best`` has tried rates on both sides,
        where one rate alone is tried, or :data:`WIDEST` rates beyond the range.

        >>> wide = Schedule((0.01, 0.1, 1.0))
        >>> wide.wider((0.01, 0.1, 1.0), 1.0), wide.wider((0.01, 0.1, 1.0), 0.1)
        (10.0, None)
        """
        rates = sorted(tried)
        if len(rates) < 2 or best not in (rates[0], rates[-1]):
            return None
        low, high = self.learning_rates[0], self.learning_rates[-1]
        if sum(rate > high * 1.01 if best == rates[-1] else rate < low * 0.99 for rate in rates) >= WIDEST:
            return None
        return float(f"{best * (best / (rates[-2] if best == rates[-1] else rates[1])):.6g}")


@dataclass(frozen=True)
class Sized:
    """The size at which a method meets a budget. Full fine-tuning is bound by none, and says so.

    ``options`` are settings of :meth:`Method.build` other than those that it starts from.
    """

    method: Method
    size: int
    numbers: int
    budget: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mismatch(self) -> float:
        """How far the numbers trained are from the budget, as a share of it: numbers / budget − 1."""
        return self.numbers / self.budget - 1.0


class Method(Settled, ABC):
    """A recipe for adaptations of one kind, and all that anybody needs to know about it.

    The race, the verdict, the report and the adapter folders ask a method's attributes and never its name, so a class
    that sets the first four and overrides :meth:`build` (and :meth:`numbers` where it is trained, :meth:`candidates`
    or :meth:`search` where it is chosen) takes part like a built-in one:
    ``el.verdict(model, task, methods=[MyMethod()])``.

    Attributes:
        name, summary: what a person types and records call it, and one line for lists.
        rung: how deep it reaches into the model (:mod:`elicitable.methods.rungs`).
        schedule: how it is trained; None for a method that is chosen on the validation split.
        deployment: what running its result elsewhere takes, in one or two sentences.
        turn: when it has its turn in a race; cheap and quick methods have low numbers.
        reads_rows: whether more training rows can give another result.
        is_seeded: whether another seed can give another result, so that reruns are worth their time.
        is_bound: whether the budget of trained numbers binds it.
        has_size: whether it can be made larger and smaller.
        keeps_state: whether a trial keeps its tensors (a whole copy of the model is too much to keep).
        options: settings that :meth:`build` takes besides size and seed.
        searched: settings that :meth:`candidates` and :meth:`search` take.
        peft_types: values of ``peft_type`` in an adapter folder that :meth:`read` understands.
        probe: what it tells of why a context falls short (:data:`elicitable.diagnosis.causes.Kind`); else empty.
        stands_on: a method that is chosen, where this one is trained behind what it chose (:meth:`standing_on`); it
            takes part in every race that this one does.
    """

    name: str
    summary: str
    rung: Rung
    schedule: Schedule | None = None
    deployment: str = "See the method's own documentation."
    turn: int = 80
    is_seeded: bool = True
    reads_rows: bool = True
    is_bound: bool = True
    has_size: bool = True
    keeps_state: bool = True
    options: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    peft_types: tuple[str, ...] = ()
    probe: str = ""
    stands_on: Method | None = None

    @property
    def is_trained(self) -> bool:
        """Whether gradients find it; otherwise it is chosen among candidates."""
        return self.schedule is not None

    @property
    def is_context(self) -> bool:
        """Whether it leaves the weights alone and puts something before the content."""
        return self.rung.group == "context"

    @property
    def is_control(self) -> bool:
        """Whether it is measured for comparison only, without a part in the verdict."""
        return self.rung.group == "control"

    @property
    def identity(self) -> str:
        """What a record calls the recipe: its name, with a digest of its source where it comes from outside.

        A method of your own that you edit is another method, so its old trials are not taken for new ones. So is one
        with other settings: public attributes, but for what :meth:`build` and its like leave there.
        """
        digest = digest_of(self, settings_as_given(self))
        return self.name if digest is None else f"{self.name}:{digest[:12]}"

    def numbers(self, model: Model, size: int) -> int:
        """Return how many numbers are trained at ``size``, in closed form over the live model's shapes."""
        return 0

    @abstractmethod
    def build(self, model: Model, size: int, seed: int, **options: Any) -> Adaptation:
        """Make a fresh adaptation; the same arguments give the same bytes."""

    def made(self, model: Model, size: int, seed: int, **options: Any) -> Adaptation:
        """Build an adaptation to be trained, and see that it is one.

        Raises:
            InputError: :meth:`build` returned something else, or something without parameters.
        """
        built = self.build(model, size, seed=seed, **options)
        if not isinstance(built, Adaptation):
            raise InputError(f"{self.name}: build() has to return an Adaptation, and returned {reprlib.repr(built)}.")
        if not built.parameters():
            raise InputError(f"{self.name}: parameters() of what it builds is empty, so there is nothing to train.")
        return built

    def candidates(self, model: Model, task: Task, seed: int, **options: Any) -> Iterator[Adaptation]:
        """Yield what to choose from on the validation split; nothing for a method that is trained."""
        return iter(())

    def search(self, model: Model, task: Task, seed: int, **options: Any) -> Search:
        """Offer candidates in rounds and hear after each how they did; by default all :meth:`candidates` at once."""
        yield Offer(list(self.candidates(model, task, seed, **options)))

    def from_setting(self, model: Model, setting: Mapping[str, Any], layout: Layout) -> Adaptation:
        """Build what was chosen again from the setting that its record keeps; ``layout`` is the race's own."""
        return self.build(model, 0, 0, **setting)

    def start(self, model: Model) -> dict[str, Any]:
        """Return the options that :meth:`build` gets on this model where a person gives none."""
        return {}

    def starts(self, model: Model) -> tuple[dict[str, Any], ...]:
        """Return other options than :meth:`start`'s, plain data too, which a race tries before one goes on."""
        return ()

    def begun(self, model: Model, sized: Sized, options: Mapping[str, Any]) -> Sized:
        """Return ``sized`` with one of :meth:`starts` in the place of its own, under the same budget."""
        return replace(sized, options=options)

    def start_at(self, model: Model, size: int, chosen: Adaptation) -> dict[str, Any]:
        """Return the options, as plain data, of a start at a context that was chosen; none where it has no such."""
        return {}

    def standing_on(self, chosen: Adaptation) -> dict[str, Any]:
        """Return the options, as plain data, that :meth:`build` gets behind what :attr:`stands_on` chose."""
        return {}

    def read(self, model: Model, folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Adaptation:
        """Build the adaptation of an adapter folder again; by default one that :meth:`Adaptation.folder_form` made.

        Raises:
            InputError: the tensors are not those of this method on this model; the message names them.
        """
        return read_own(self, model, folder, config, tensors)

    def again(
        self,
        model: Model,
        size: int,
        seed: int,
        setting: Mapping[str, Any],
        layout: Layout | None,
        state: dict[str, Tensor],
    ) -> Adaptation:
        """Build an adaptation again from what was kept of it: its setting, its own layout, and its tensors.

        Raises:
            InputError: the tensors are not those of this method on this model; the message names them.
        """
        return built_again(self, model, size, seed, setting, layout, state)

    def fitting(self, model: Model, budget: int, longest: int | None = None) -> Sized:
        """Return the largest size that trains at most ``budget`` numbers on ``model``.

        Numbers are linear in the size for every method that has one, so size = ⌊budget / numbers(1)⌋; ``longest`` caps
        the size of contexts, whose keys every query pays for.

        Raises:
            BudgetError: the budget is too small for size 1; the message says how much it needs.
        """
        if budget < 1:
            raise BudgetError(f"a budget must be at least 1 trained number, got {budget}.")
        if not self.is_trained:
            return Sized(self, 0, 0, budget)
        one = self.numbers(model, 1)
        if isinstance(one, bool) or not isinstance(one, Integral) or one < 1:
            raise InputError(
                f"{self.name}: numbers(model, 1) has to say how many numbers are trained at the smallest size, a whole "
                f"number of at least 1, and is {reprlib.repr(one)}."
            )
        if not self.is_bound:
            return Sized(self, 1, one, budget)
        if one > budget:
            raise BudgetError(
                f"a budget of {budget:,} is too small for {self.name} on {model.name}: its smallest size trains "
                f"{one:,} numbers."
            )
        size = min(budget // one if self.has_size else 1, longest or budget)
        return Sized(self, size, self.numbers(model, size), budget)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
