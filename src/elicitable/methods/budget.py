"""How many numbers may be trained: the default, and the size that a method gets for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elicitable.models.model import Model


def default_budget(model: Model) -> int:
    """n · layers · d_model, with n the model's ``prefix_length``: 12, the paper's "same budget" setting.

    For ``toy:ascending`` n is 2, which buys the one free key and value that the paper gives this toy.
    """
    return model.prefix_length * model.anatomy.depth * model.anatomy.d_model
