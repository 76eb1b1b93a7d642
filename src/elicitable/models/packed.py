"""Layers that bitsandbytes packed into few bits, as a context needs them: a row's numbers hang on its own tokens alone.

bitsandbytes has two ways of its own to be quick, and each breaks what a context stands on:

* An 8-bit layer rounds its input too, except in columns where any token of the batch is large. So a later token, or
  another row, changes the numbers of an earlier one. It also casts its bias for good to whatever type comes in.
* On processors that multiply in bfloat16 a 4-bit layer packs itself anew when it first runs without gradients: in
  place, with rounded scales, for outputs in multiples of 32 only, and from then on no gradient goes through it.

Here a matrix is unpacked where it is needed and multiplied with whatever comes in, on the way back as well.
"""

from __future__ import annotations

import importlib
import logging
import sys
from types import MethodType
from typing import Any

from torch import Tensor, nn

from elicitable.models.restoring import swapped


def _without_what_it_fetches(name: str) -> Any:
    """Import bitsandbytes, which else fetches a kernel from the hub and runs it where the package ``kernels`` is."""
    fetching = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        with swapped(logging.getLogger(f"{name}.backends.cpu.ops"), disabled=True):
            return importlib.import_module(name)
    finally:
        sys.modules.pop("kernels")
        if fetching is not None:
            sys.modules["kernels"] = fetching


bnb = _without_what_it_fetches("bitsandbytes")


class Linear8bit(bnb.nn.Linear8bitLt):  # type: ignore[name-defined]
    """A layer whose weights alone are rounded: (…, in) to (…, out)."""

    def forward(self, x: Tensor) -> Tensor:
        """Unpack the matrix and multiply; unpacked again on the way back, so that it takes no memory in between."""
        if self.weight.CB is not None:
            self.init_8bit_state()
        output: Tensor = bnb.autograd._functions.MatMul8bitFp.apply(x, self.weight, None, self.bias, self.state)
        return output


def unpack_where_needed(hf: nn.Module) -> None:
    """Let every packed layer of ``hf`` compute as :mod:`this module <.>` says, from now on."""
    module: Any
    for module in hf.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
            module.state_dict()  # which packs as before what has been packed anew
        elif type(module) is bnb.nn.Linear8bitLt and not module.state.has_fp16_weights:
            module.__class__ = Linear8bit
            if "_old_forward" in vars(module):  # accelerate's hook is around it
                module._old_forward = MethodType(Linear8bit.forward, module)
