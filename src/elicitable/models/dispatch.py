"""A model whose weights lie on several devices, or are brought in only while a module runs (accelerate's hooks).

``device_map`` spreads a model's modules over devices. What is offloaded to the processor's memory or to disk stands as
an empty ``meta`` tensor in the model and is there only while its module runs. So nothing here asks a model for *its*
device: where a module's input has to be is asked of the module, and the numbers of a weight are asked of its hook.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from elicitable.errors import UnsupportedModelError

META = "meta"


def runs_on(module: nn.Module) -> torch.device:
    """Return the device on which ``module`` computes, wherever its weight lies meanwhile."""
    weight = next(module.parameters(recurse=False))
    where = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if weight.device.type != META or where is None:
        return weight.device
    return torch.device(where) if isinstance(where, str | int | torch.device) else weight.device


@contextmanager
def brought_in(module: nn.Module) -> Iterator[None]:
    """Have the numbers of ``module``'s own weights there for the length of the ``with``."""
    if not any(weight.device.type == META for weight in module.parameters(recurse=False)):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield


def state_of(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the state by name, in the order of names, one at a time where it is offloaded."""
    for name, tensor in sorted(hf.state_dict().items()):
        if tensor.device.type != META:
            yield name, tensor
            continue
        path, _, own = name.rpartition(".")
        module = hf.get_submodule(path)
        with brought_in(module):
            yield name, cast("Tensor", getattr(module, own)).detach()


def check_all_here(hf: nn.Module, what: str) -> None:
    """Raise UnsupportedModelError where ``what``, which changes weights, would find empty ones."""
    gone = [name for name, weight in hf.named_parameters() if weight.device.type == META]
    if gone:
        raise UnsupportedModelError(
            f"{what} changes weights, and {len(gone)} of this model's are offloaded ({gone[0]}, …): they are there "
            "only while their module runs. Load it on devices that hold it (a --device-map without cpu and disk, or "
            "--load-in 8bit), or take a method that leaves the weights alone."
        )
