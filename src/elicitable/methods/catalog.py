"""The one list of methods, least invasive first."""

from __future__ import annotations

from typing import Any

from elicitable.errors import InputError, UnknownNameError
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.examples import Examples
from elicitable.methods.full import Full
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.methods.layer_prefix import LayerPrefix
from elicitable.methods.lora import LoRA
from elicitable.methods.prompt import Prompt
from elicitable.methods.soft_prompt import SoftPrompt
from elicitable.methods.value_bias import ValueBias
from elicitable.methods.zero_shot import ZeroShot
from elicitable.models.model import as_model
from elicitable.own_code import is_own_code, load_own

METHODS: tuple[Method, ...] = (
    ZeroShot(),
    Prompt(),
    Examples(),
    SoftPrompt(),
    LayerPrefix(),
    KVPrefix(),
    ValueBias(),
    LoRA(),
    Full(),
)
CONTEXTS = ("prompt", "examples", "soft-prompt", "layer-prefix", "kv-prefix")


def method_named(name: str) -> Method:
    """The method of that name, or the one that ``my_method.py:MyMethod`` points to.

    Raises:
        UnknownNameError: there is none; the message lists near matches.
        InputError: what the file holds is no method.
    """
    if is_own_code(name):
        return _own_method(load_own(name, "my_method.py:MyMethod"))
    for method in METHODS:
        if method.name == name:
            return method
    raise UnknownNameError("method", name, [method.name for method in METHODS])


def _own_method(method: Any) -> Method:
    wanted = ("name", "label", "summary", "schedule", "numbers", "build", "candidates")
    lacking = ", ".join(part for part in wanted if not hasattr(method, part))
    if lacking:
        raise InputError(f"{type(method).__name__} is no method: it lacks {lacking}.")
    found: Method = method
    return found


def context(kind: str, model: Any, **options: Any) -> Adaptation:
    """A context for ``model``, ready for :func:`elicitable.use`.

    Args:
        kind: ``"prompt"`` (``text=`` or ``token_ids=``), ``"examples"`` (``task=``, ``k=``, ``seed=`` or ``items=``),
            ``"soft-prompt"``, ``"layer-prefix"`` or ``"kv-prefix"`` (``length=``, ``init=``, ``text=``, ``seed=``).
        model: what :func:`elicitable.load` returns, or a transformers model.

    Raises:
        UnknownNameError: no such kind or option.
        InputError: an option is missing or out of range.

    Example:
        >>> import elicitable as el
        >>> model = el.load("toy:ascending")
        >>> el.context("kv-prefix", model, length=2, seed=0).budget()
        Budget(numbers_trained=384, bytes_stored=1536, keys_per_layer=2)
    """
    if kind not in CONTEXTS:
        raise UnknownNameError("context", kind, CONTEXTS)
    known = _OPTIONS[kind]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of {kind}", option, known)
    size = options.pop("length", 10)
    if not isinstance(size, int) or isinstance(size, bool):
        raise InputError(f"length must be a whole number of virtual tokens, got {size!r}.")
    return method_named(kind).build(as_model(model), size=size, **({"seed": 0} | options))


_TRAINED = ("length", "init", "seed", "text")
_OPTIONS = {
    "prompt": ("text", "token_ids"),
    "examples": ("task", "k", "seed", "items"),
    "soft-prompt": _TRAINED,
    "layer-prefix": _TRAINED,
    "kv-prefix": _TRAINED,
}
