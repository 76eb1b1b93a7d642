"""Trained contexts that start at a context that was chosen: at the tokens of a prompt, or of worked examples.

As in Context Tuning (Lu et al., 2025, arXiv 2507.04221), a prefix then begins at their own keys and values. There an
item does not see its own places among them while it is trained on. Here it is left out of what is trained on, which
gives more: in the deeper layers the keys of later tokens have read it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from elicitable.methods.base import Adaptation
from elicitable.methods.examples import ExampleContext, as_tuples, items_of, plain_pair
from elicitable.methods.prompt import TokenContext

if TYPE_CHECKING:
    from elicitable.models.model import Model
    from elicitable.values import Item

START: Final = ("init", "origin", "text", "items")  # a start, where its text is from, the text, the examples in it


class StartedContext(Adaptation):
    """A trained context. Where its setting has an ``origin``, that says in words which context it started at."""

    def __init__(self, **setting: Any) -> None:
        super().__init__(**{name: _as_lists(value) for name, value in setting.items()})

    @property
    def shown(self) -> tuple[Item, ...]:
        """The worked examples that it started at."""
        return items_of(self.setting.get("items", ()))

    @property
    def told(self) -> dict[str, Any]:
        """The setting, without the text of a start whose origin it names."""
        hidden = ("text", "items") if "origin" in self.setting else ()
        return {name: value for name, value in self.setting.items() if name not in hidden}


def start_at(model: Model, size: int, chosen: Adaptation) -> dict[str, Any]:
    """Return the options of a start at the last ``size`` tokens of ``chosen``, and which worked examples they show.

    There are none where it has no tokens, or where it asks otherwise than by these.
    """
    if not isinstance(chosen, TokenContext) or chosen.asks_otherwise or not chosen.ids.numel():
        return {}
    text = tuple(chosen.ids.flatten().tolist()[-size:])
    items = chosen.items_in_last(model, len(text)) if isinstance(chosen, ExampleContext) else ()
    pairs = {"items": as_tuples([plain_pair(item) for item in items])} if items else {}
    return {"init": "text", "origin": f"the chosen {chosen.kind}", "text": text, **pairs}


def _as_lists(plain: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    return list(map(_as_lists, plain)) if isinstance(plain, list | tuple) else plain


def said_of_start(options: Mapping[str, Any]) -> str:
    """Say which start ``options`` are: where its text is from, or the options themselves.

    >>> said_of_start({"init": "text", "origin": "the chosen prompt", "text": (5, 3, 5)})
    'the chosen prompt'
    >>> said_of_start({"init": "sink"}), said_of_start({"modules": ("q", "v")}), said_of_start({"layer": 7})
    ('sink', 'q v', 'layer 7')
    """
    if "origin" in options:
        return str(options["origin"])
    return ", ".join(_said(name, value) for name, value in options.items())


def _said(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return " ".join(value) if isinstance(value, list | tuple) else f"{name} {value}"
