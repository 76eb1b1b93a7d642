"""What a model's configuration claims, held to what its files hold while the model is put together.

transformers builds a model without memory first, and then asks for the memory of every weight, also of one that no
file has. So a configuration of a few bytes can ask for more than there is: 10⁹ layers, heads of 10⁹ numbers. Whatever
a module registers is counted here on the way, and what the files cannot account for ends the loading:

    numbers of all parameters ≤ 4 · numbers in the files + slack        (tied tables and packed copies count again)
    numbers of all buffers    ≤ 4 · numbers in the files + slack        (masks and angles are computed)
    modules                   ≤ 16 · tensors in the files + slack
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from elicitable.errors import InputError
from elicitable.untrusted import read_object, shapes_of

NUMBERS, MODULES = 4, 16  # of what is asked for, for each that is held
SLACK_NUMBERS = 1 << 24  # 64 MiB in float32
SLACK_MODULES = 10_000
NUMBERS_A_BYTE = 8  # at least a bit each, where they are packed
BYTES_A_TENSOR = 24  # of a GGUF header, at least


def check_is_model(folder: Path) -> None:
    """Raise InputError for the folder of an adapter: transformers would load the base that it names, and it on top.

    That base may be anywhere, and what is found out would be kept as said of the adapter's folder.
    """
    if not (folder / "adapter_config.json").is_file():
        return
    told = read_object(folder / "adapter_config.json")
    base, kind = told.get("base_model_name_or_path"), str(told.get("peft_type") or "PEFT").replace("_", " ")
    raise InputError(
        f"{folder} holds an adapter ({kind}) and no model: name its base as the model"
        f"{f', {base!r}' if isinstance(base, str) and base else ''}. To go on from the adapted model, merge the "
        "adapter into it first, save that (PEFT's merge_and_unload, or elicitable export --to merged), and name its "
        "folder."
    )


@dataclass
class _Claims:
    """Count what is registered; the same place of the same module counts once."""

    where: str
    numbers: int
    tensors: int
    seen: dict[str, dict[tuple[int, str], int]] = field(default_factory=lambda: {"parameters": {}, "buffers": {}})
    sums: dict[str, int] = field(default_factory=lambda: {"parameters": 0, "buffers": 0})
    modules: int = 0

    def parameter(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        self._add("parameters", module, name, tensor)

    def buffer(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        self._add("buffers", module, name, tensor)

    def module(self, module: nn.Module, name: str, inner: nn.Module | None) -> None:
        self.modules += 1
        if self.modules > MODULES * self.tensors + SLACK_MODULES:
            raise self._too_much(f"more than {self.modules - 1:,} parts", f"{self.tensors:,} tensors")

    def _add(self, kind: str, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None:
            return
        place, seen = (id(module), name), self.seen[kind]
        self.sums[kind] += tensor.numel() - seen.get(place, 0)
        seen[place] = tensor.numel()
        if self.sums[kind] > NUMBERS * self.numbers + SLACK_NUMBERS:
            raise self._too_much(f"{kind} of {self.sums[kind]:,} numbers or more", f"{self.numbers:,} numbers")

    def _too_much(self, asked: str, held: str) -> InputError:
        return InputError(
            f"{self.where} cannot be loaded: its configuration asks for {asked}, and its files hold {held}; one of "
            "them is damaged, or of another model."
        )


@contextmanager
def held_to(files: list[Path], where: str, is_packed: bool = False) -> Iterator[None]:
    """Inside, a model that is put together takes no more than ``files`` account for.

    Args:
        files: its safetensors files, whose headers are read; or one GGUF file.
        where: what the message names.
        is_packed: the numbers are packed into fewer bits than the headers say.

    Raises:
        InputError: a file cannot be read; and inside, where the configuration asks for more.
    """
    try:
        held = _held(files, is_packed)
    except InputError as error:
        raise InputError(f"{where} cannot be loaded: {error}") from error
    claims = _Claims(where, *held)
    with ExitStack() as stack:
        hooks: tuple[Any, ...] = (
            register_module_parameter_registration_hook(claims.parameter),
            register_module_buffer_registration_hook(claims.buffer),
            register_module_module_registration_hook(claims.module),
        )
        for hook in hooks:
            stack.callback(hook.remove)
        yield


def _held(files: list[Path], is_packed: bool) -> tuple[int, int]:
    """Return how many numbers and tensors the files hold, at most."""
    size = sum(file.stat().st_size for file in files)
    if any(file.suffix == ".gguf" for file in files):
        return NUMBERS_A_BYTE * size, size // BYTES_A_TENSOR
    shapes = [shape for file in files for _, shape in shapes_of(file).values()]
    return NUMBERS_A_BYTE * size if is_packed else sum(map(prod, shapes)), len(shapes)


def as_large_as_its_files(folder: Path) -> AbstractContextManager[None]:
    """Inside, a model from ``folder`` takes no more than its files account for."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return nullcontext()
    config = read_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    return held_to(files, str(folder), is_packed="quantization_config" in config)
