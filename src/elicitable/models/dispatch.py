"""A model whose weights lie on several devices, or are brought in only while a module runs (accelerate's hooks).

``device_map`` spreads a model's modules over devices. What is offloaded to the processor's memory or to disk stands as
an empty ``meta`` tensor in the model and is there only while its module runs. So nothing here asks a model for *its*
device: where a module's input has to be is asked of the module, and the numbers of a weight are asked of its hook.
"""

from __future__ import annotations

import importlib.util
import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from elicitable.cache import CACHE_ADVICE, passing_folder, said_of
from elicitable.errors import InputError, MissingPackageError, UnknownNameError, UnsupportedModelError
from elicitable.models.in_place import check_bare


def runs_on(module: nn.Module) -> torch.device:
    """Return the device on which ``module`` computes, wherever its weight lies meanwhile."""
    weight = next(module.parameters())  # its own, or where a parametrization keeps it
    where = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if not weight.is_meta or where is None:
        return weight.device
    return torch.device(where) if isinstance(where, str | int | torch.device) else weight.device


@contextmanager
def brought_in(module: nn.Module) -> Iterator[None]:
    """Have the numbers of ``module``'s own weights there for the length of the ``with``."""
    if not any(weight.is_meta for weight in module.parameters(recurse=False)):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield


def state_of(hf: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of the state by name, in the order of names, one at a time where it is offloaded."""
    for name, tensor in sorted(hf.state_dict().items()):
        if not tensor.is_meta:
            yield name, tensor
            continue
        path, _, own = name.rpartition(".")
        module = hf.get_submodule(path)
        with brought_in(module):
            yield name, cast("Tensor", getattr(module, own)).detach()


def ends_of(module: nn.Module) -> tuple[int, ...]:
    """Return how many numbers go into a linear layer and come out, also where its weight is packed; else its shape."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return tuple(module.get_parameter("weight").shape)


def is_spread(hf: nn.Module) -> bool:
    """Say whether the model was spread, or its weights packed, when it was loaded, so that it must not be moved."""
    return getattr(hf, "hf_device_map", None) is not None or getattr(hf, "is_quantized", False)


def settle_packed(hf: nn.Module) -> None:
    """Let layers that bitsandbytes packed compute each row from its own tokens (:mod:`elicitable.models.packed`)."""
    if getattr(hf, "is_loaded_in_8bit", False) or getattr(hf, "is_loaded_in_4bit", False):
        from elicitable.models.packed import unpack_where_needed  # bitsandbytes is there, since it made them

        unpack_where_needed(hf)


def check_whole(hf: nn.Module, what: str) -> None:
    """Raise where ``what``, which trains the weights themselves, would find packed, offloaded or wrapped ones.

    Raises:
        UnsupportedModelError: they are packed, or offloaded.
        InputError: PEFT has put layers around some (:func:`elicitable.models.in_place.check_bare`).
    """
    check_all_here(hf, what)
    check_bare(hf, what)
    if packed := packed_in(hf):
        raise UnsupportedModelError(
            f"{what} trains weights, and {len(packed)} of this model's are packed into few bits ({packed[0]}, …), "
            "which have no gradient. Load it without --load-in, or take a method that leaves them as they are."
        )


def packed_in(hf: nn.Module) -> list[str]:
    """Return the names of the weights that are packed into few bits."""
    return [name for name, weight in hf.named_parameters() if not weight.is_floating_point()]


def check_all_here(hf: nn.Module, what: str) -> None:
    """Raise UnsupportedModelError where ``what``, which changes weights, would find empty ones."""
    gone = [name for name, weight in hf.named_parameters() if weight.is_meta]
    if gone:
        raise UnsupportedModelError(
            f"{what} changes weights, and {len(gone)} of this model's are offloaded ({gone[0]}, …): they are there "
            "only while their module runs. Load it on devices that hold it (a --device-map without cpu and disk, or "
            "--load-in 8bit), or take a method that leaves the weights alone."
        )


class RoomOnDisk:
    """A folder for what one model is offloaded with: a second model's files would have the same names.

    It goes with the model that it was made for, at the end of a ``with`` in which there came to be none, and where the
    process was killed with the next one.
    """

    def __init__(self, cache: Path) -> None:
        with said_of(f"to {cache}", CACHE_ADVICE):
            self.folder = passing_folder(cache / "offloaded" / "model", days=30.0)  # a run may read it for days
        self._is_taken = False

    def __enter__(self) -> RoomOnDisk:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_taken:
            shutil.rmtree(self.folder, ignore_errors=True)

    def go_with(self, hf: nn.Module) -> None:
        """Let the folder go when ``hf`` does."""
        self._is_taken = True
        weakref.finalize(hf, shutil.rmtree, self.folder, ignore_errors=True)


PACKED = ("8bit", "4bit")


def asked_how(device_map: str | Mapping[str, str | int] | None, load_in: str | None) -> dict[str, Any]:
    """Return how a model is to be spread and packed, by name; nothing for one that is neither.

    Raises:
        UnknownNameError: it cannot be packed so.
        MissingPackageError: bitsandbytes, which packs, is not installed.
    """
    if load_in is None:
        return {} if device_map is None else {"device_map": device_map}
    if load_in not in PACKED:
        raise UnknownNameError("kind of packed weights", load_in, PACKED)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingPackageError(
            f"load_in={load_in!r} needs bitsandbytes, which is not installed; run: pip install bitsandbytes"
        )
    importlib.import_module("elicitable.models.packed")  # before others import bitsandbytes in another way
    return {"load_in": load_in} | ({} if device_map is None else {"device_map": device_map})


def told(how: Mapping[str, Any], dtype: torch.dtype, offloaded: Path | None) -> dict[str, Any]:
    """Return how a model is spread and packed, as transformers is told; ``offloaded``: where its own files may lie.

    Raises:
        InputError: ``dtype`` has more digits than packed matrices can be unpacked to.
    """
    told: dict[str, Any] = {}
    if "device_map" in how:
        told = {"device_map": how["device_map"], "offload_folder": str(offloaded)}
    if "load_in" in how:
        if dtype == torch.float64:
            raise InputError(
                f"load_in={how['load_in']!r} unpacks to float32, bfloat16 or float16, and dtype is float64; "
                "give another dtype, or leave load_in."
            )
        bits = {f"load_in_{how['load_in']}": True}
        told["quantization_config"] = BitsAndBytesConfig(
            **bits, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return told
