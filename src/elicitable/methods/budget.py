"""How large may a method be for a given number of trained numbers?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elicitable.errors import BudgetError
from elicitable.methods.catalog import method_named

if TYPE_CHECKING:
    from elicitable.models.model import Model


@dataclass(frozen=True)
class Sized:
    """A method's size within a budget. ``mismatch`` = numbers / budget − 1, ≤ 0 unless the method ignores budgets."""

    method: str
    size: int
    numbers: int
    budget: int
    is_bound: bool = True

    @property
    def mismatch(self) -> float:
        """How far the numbers trained are from the budget, as a share of it."""
        return self.numbers / self.budget - 1.0


def solve(model: Model, method: str, budget: int, longest: int | None = None) -> Sized:
    """The largest size of ``method`` that trains at most ``budget`` numbers on ``model``.

    Numbers are linear in the size for every method that has one, so size = ⌊budget / numbers(1)⌋. Methods without a
    size (value-bias) are fixed; full fine-tuning is not bound by a budget and says so. ``longest`` caps the size of
    contexts whose keys every query pays for.

    Raises:
        UnknownNameError: no such method.
        BudgetError: the budget is too small for size 1; the message says how much it needs.
    """
    recipe = method_named(method)
    if budget < 1:
        raise BudgetError(f"a budget must be at least 1 trained number, got {budget}.")
    one = recipe.numbers(model, 1)
    if one == 0:
        return Sized(method, 0, 0, budget)
    if method == "full":
        return Sized(method, 1, one, budget, is_bound=False)
    if one > budget:
        raise BudgetError(
            f"a budget of {budget:,} is too small for {method} on {model.name}: its smallest size trains {one:,} "
            "numbers."
        )
    size = 1 if method == "value-bias" else budget // one
    size = min(size, longest) if longest else size
    return Sized(method, size, recipe.numbers(model, size), budget)


def default_budget(model: Model) -> int:
    """n · layers · d_model, with n the model's ``budget_tokens``: 12, the paper's "same budget" setting.

    For ``toy:ascending`` n is 2, which buys the one free key and value that the paper gives this toy.
    """
    return model.budget_tokens * model.anatomy.depth * model.anatomy.d_model
