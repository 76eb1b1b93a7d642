"""LoRA behind worked examples: low-rank changes that are trained while the same examples stand before every text.

    logits = f(text | examples; W + (α/r)·B·A)

The examples are those that the arm ``examples`` chose. The changed weights read them too, so gradients flow through
their keys and values. Source: Min et al., NAACL 2022 (arXiv 2110.15943), who train all weights, on many tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.examples import ExampleContext, Examples, Pair, as_tuples
from elicitable.methods.lora import LoRA, LoRAWeights
from elicitable.models.layout import PLAIN, Layout
from elicitable.values import Budget, Item

if TYPE_CHECKING:
    from torch import Tensor, nn

    from elicitable.models.model import Model
    from elicitable.values import PrefixKV


BEGINNINGS = ("", " ", "\n")  # of texts, which a tokenizer may join with the examples' end
_KEPT = [one.name for one in fields(Layout) if one.name not in ("head", "examples")]  # the setting has those apart


class LoRAWithExamples(Adaptation):
    """LoRA and worked examples, used together."""

    kind = "lora-behind-examples"

    def __init__(self, lora: LoRAWeights, examples: ExampleContext) -> None:
        own: dict[str, Any] = {
            name: examples.setting[name] for name in ("k", "items", "text") if name in examples.setting
        }
        laid = examples.layout
        if laid is not None:
            own |= {**laid.setting(), "layout": list(map(list, _laid(laid)))}
        super().__init__(**lora.setting, **own)
        self.lora, self.examples, self.layout = lora, examples, laid
        self.home = lora.home

    @property
    def parts(self) -> tuple[Adaptation, ...]:
        """LoRA, then the examples."""
        return self.lora, self.examples

    def prefix(self, model: Model, before: PrefixKV | None = None, end: int = 0) -> PrefixKV | None:
        """The examples' keys and values, as the weights make them that are in the model right now."""
        return self.examples.prefix(model, before, end)

    def weights(self, model: Model) -> AbstractContextManager[None]:
        """LoRA's layers."""
        return self.lora.weights(model)

    def parameters(self) -> list[nn.Parameter]:
        """LoRA's; the examples are text."""
        return self.lora.parameters()

    def state(self) -> dict[str, Tensor]:
        """LoRA's; the examples are in the setting."""
        return self.lora.state()

    @property
    def shown(self) -> tuple[Item, ...]:
        """The examples."""
        return self.examples.items

    def held(self) -> tuple[int, ...]:
        """The examples' ids."""
        return self.examples.held()

    def fit(self, model: Model, items: Sequence[Item]) -> None:
        """Leave to the texts those tokens of the examples that a tokenizer joins with one of ``items``."""
        self.examples = copy.copy(self.examples)  # a copy of this shares them
        self.examples.fit(model, items)

    def budget(self) -> Budget:
        """The three budgets; the keys are those that the examples cost."""
        return replace(super().budget(), keys_per_layer=self.examples.budget().keys_per_layer)

    def keys_per_layer(self) -> int:
        """The examples': one key a token."""
        return self.examples.keys_per_layer()

    def bytes_stored(self) -> int:
        """LoRA's numbers and the examples' ids."""
        return self.lora.bytes_stored() + self.examples.bytes_stored()

    def size(self) -> int:
        """The rank."""
        return self.lora.size()


class LoRABehindExamples(Method):
    """As many numbers as LoRA trains, behind as many keys per layer as the examples have tokens."""

    name = "lora-behind-examples"
    rung = rungs.BOTH
    summary = "LoRA, trained and used with the chosen worked examples before every text"
    deployment = (
        "The weights can be merged, but the examples stay: their keys are paid in every request unless the server "
        "caches them."
    )
    turn = 40
    options = ("modules", "alpha", "items", "text", "layout")
    schedule = LoRA.schedule
    stands_on = Examples()

    def numbers(self, model: Model, size: int) -> int:
        """Count what LoRA trains."""
        return LoRA().numbers(model, size)

    def build(
        self,
        model: Model,
        size: int,
        seed: int = 0,
        items: Sequence[Item | Pair] | None = None,
        text: str | None = None,
        layout: Layout | Iterable[Sequence[Any]] | None = None,
        **lora: Any,
    ) -> LoRAWithExamples:
        """LoRA of rank ``size``, with its options, behind the worked examples ``items``, and ``text`` before them.

        ``layout`` says how they and the texts are laid out: itself, or its fields as names and values.

        Raises:
            InputError: there are no items.
        """
        laid = layout if isinstance(layout, Layout | None) else _layout(layout)
        examples = Examples().build(model, items=items or (), layout=laid, text=text)
        if examples.layout is not None:
            probes = [
                replace(one, prompt=begin + one.prompt) for one in _of_text(examples.items) for begin in BEGINNINGS
            ]
            examples.fit(model, probes or examples.items)
        return LoRAWithExamples(LoRA().build(model, size, seed, **lora), examples)

    def standing_on(self, chosen: Adaptation) -> dict[str, Any]:
        """The chosen examples, with the instruction before them and their layout."""
        given = {name: as_tuples(chosen.setting[name]) for name in ("items", "text") if name in chosen.setting}
        return given | ({"layout": _laid(chosen.layout)} if chosen.layout is not None else {})


def _of_text(items: Sequence[Item]) -> Iterable[Any]:
    return (one for one in items if isinstance(one.prompt, str))


def _laid(layout: Layout) -> tuple[tuple[str, Any], ...]:
    """What of a layout is not plain, but for what stands before the texts in it."""
    return tuple((name, found) for name in _KEPT if (found := getattr(layout, name)) != getattr(PLAIN, name))


def _layout(named: Iterable[Sequence[Any]]) -> Layout:
    """The layout that :func:`_laid` told, or JSON kept of it."""
    plain: dict[str, Any] = {name: tuple(found) if isinstance(found, list) else found for name, found in named}
    return Layout(**plain)
