"""A whole model with the change in its weights: a folder that transformers loads, which costs nothing more to run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from elicitable.deploy.forms.form import Form, Winner
from elicitable.deploy.forms.text import usage_beside, write_beside
from elicitable.errors import InputError
from elicitable.models.casting import cast
from elicitable.models.dispatch import packed_in
from elicitable.models.load import load, save_model
from elicitable.models.model import Model
from elicitable.training.generate import Stop


def _refusal(winner: Winner) -> str | None:
    winner = winner.trained
    if winner.changes_weights():
        if packed_in(winner.model.hf):
            return "the model's matrices are packed into few bits, to which what is merged would be rounded"
        return None if _stands_in_weights(winner) else "it acts on what layers give, which stands in no weight"
    if not winner.adaptation.parameters() and winner.prefix() is None:
        return "nothing is changed: the model as it is answers, so use the base model"
    return "it stands before the content and changes no weight, so there is nothing to merge"


def _stands_in_weights(winner: Winner) -> bool:
    """Say whether weights are changed, attention is not reached into beside them, and no module stands elsewhere."""
    before, places, is_used = _weights_of(winner.model), _places_of(winner.model), _is_reached_into(winner.model)
    with winner.adaptation.weights(winner.model):
        is_in_place = places <= _places_of(winner.model)
        return is_in_place and _weights_of(winner.model) != before and _is_reached_into(winner.model) is is_used


def _places_of(model: Model) -> set[str]:
    return {name for name, _ in model.hf.named_modules()}


def _weights_of(model: Model) -> dict[str, int]:
    return {name: id(weight) for name, weight in model.hf.named_parameters()}


def _is_reached_into(model: Model) -> bool:
    return hasattr(model.anatomy.attentions[0], "_elicitable_seat")


@torch.no_grad()
def merged(winner: Winner) -> Model:
    """Return a copy of the base model with the change in its weights; the base model stays as it is.

    Where answers end with a token at which the base model's ``generate`` does not stop, such as the end of a turn in a
    template that it was not made with, the copy's does.
    """
    own = [*filter(parametrize.is_parametrized, winner.model.hf.modules())]
    with winner.adaptation.weights(winner.model):
        hf = copy.deepcopy(winner.model.hf)
        computed = {
            path: {name: getattr(module, name) for name in module.parametrizations}
            for path, module in winner.model.hf.named_modules()
            if parametrize.is_parametrized(module) and module not in own
        }
    for path, values in computed.items():
        _settle(hf.get_submodule(path), values)
    for parent in list(hf.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "base_layer") and callable(getattr(child, "merge", None)):
                setattr(parent, name, _plain(child))
    for weight in hf.parameters():
        weight.requires_grad_(False)
    cast(hf, winner.model.dtype)
    hf.__dict__.pop("_elicitable_model", None)
    if winner.record.form.labels is None:
        _stop_at(hf, Stop.of(winner.model, winner.record.layout.layout()).ids)
    return Model(hf, winner.model.tokenizer, f"{winner.model.name}, merged")


def _stop_at(hf: Any, ids: frozenset[int]) -> None:
    """Let ``generate`` stop at ``ids`` too."""
    known = hf.generation_config.eos_token_id
    known = [] if known is None else known if isinstance(known, list) else [known]
    if new := sorted(ids - {*known}):
        hf.generation_config.eos_token_id = [*known, *new]


def _plain(layer: Any) -> nn.Module:
    """Return the layer that one of PEFT's stands around, its change added; a layer around another one comes off too.

    Raises:
        InputError: PEFT cannot add it, as a bias to a layer without one; the message is PEFT's.
    """
    while hasattr(layer, "base_layer"):
        if hasattr(layer.base_layer, "base_layer"):
            layer.base_layer = _plain(layer.base_layer)
        try:
            layer.merge()
        except (ValueError, NotImplementedError) as error:
            raise InputError(f"PEFT cannot merge {type(layer).__name__} into {layer.base_layer}: {error}.") from error
        layer = layer.base_layer
    found: nn.Module = layer
    return found


def _settle(module: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Let parametrized weights be ``values``; what shares one does so still.

    Copies of a module share its class with it, from which torch takes the weight's property when the other is left.
    """
    parametrized: Any = module.parametrizations
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        original = parametrized[name].original
        original.copy_(value)
        module.register_parameter(name, original)


def _write(winner: Winner, folder: Path) -> list[str]:
    trained = winner.trained
    save_model(merged(trained), folder)
    again = load(folder, device=str(winner.model.device), dtype=winner.model.dtype)
    ids = winner.sample()
    with torch.no_grad():
        found = again.hf(input_ids=ids, use_cache=False).logits
    tested = winner.check_close(found, trained.logits(ids), "the folder, loaded again,")
    return [tested, *write_beside(winner, folder)]


def _usage(winner: Winner) -> str:
    return (
        "```python\nfrom transformers import AutoModelForCausalLM\n\n"
        'model = AutoModelForCausalLM.from_pretrained("THIS FOLDER")\n```\n\n'
        f"Every server that serves the base model serves this one in its place.{usage_beside(winner)}"
    )


FORM = Form("merged", "a model folder with the change in its weights, for every server", _refusal, _write, _usage)
