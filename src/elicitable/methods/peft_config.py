"""The configuration of an adapter folder as PEFT's own object, with every key accounted for.

PEFT checks little of what stands in ``adapter_config.json``: a wrong type is an exception somewhere inside, and a key
that it does not know is left out with a warning. Here each is refused with the folder, the key and what was expected.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from pathlib import Path
from typing import Any

from elicitable.errors import InputError

# What PEFT can save for a causal model and this package does not put into one, with the reason.
REFUSED_TYPES: dict[str, str] = {
    "XLORA": "it mixes other adapters from folders of their own; read those one by one",
    "POLY": "every row needs a task id, which no plain call of a model gives",
    "SHADOW": "it runs a second network beside the model, outside of the model's own modules",
}
# Options that change more than the modules of a model, or need what a folder does not hold.
REFUSED_KEYS: dict[str, str] = {
    "layer_replication": "it changes how many layers the model has",
    "megatron_config": "it loads modules of Megatron",
    "alora_invocation_tokens": "it acts from certain tokens on, which PEFT looks for outside of the model's modules",
    "arrow_config": "it routes between other adapters, which the folder does not hold",
}
_NO_DEFAULT = ("r", "lora_alpha", "alpha")  # what PEFT would fill in, and nobody would see that it was missing
_NOTE = ("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode")


def peft_types() -> tuple[str, ...]:
    """Return every type of adapter that the installed PEFT knows."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return tuple(one.value for one in PEFT_TYPE_TO_CONFIG_MAPPING)


def weight_types() -> tuple[str, ...]:
    """Return the types that change weights and are read, in PEFT's order."""
    from peft.config import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return tuple(
        one.value
        for one, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if one.value not in REFUSED_TYPES and not issubclass(made, PromptLearningConfig)
    )


def peft_config(folder: Path, config: dict[str, Any]) -> Any:
    """Return PEFT's configuration object for what stands in ``folder``.

    Raises:
        InputError: a type, key or value that is refused, missing, unknown or malformed; the message names it.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = str(config.get("peft_type"))
    if kind in REFUSED_TYPES:
        raise InputError(f"{folder}: an adapter of type {kind} is not read: {REFUSED_TYPES[kind]}.")
    made: Any = PEFT_TYPE_TO_CONFIG_MAPPING[typing.cast("Any", kind)]
    check_task(folder, config)
    hints, fields = typing.get_type_hints(made), {one.name: one for one in dataclasses.fields(made)}
    for key, value in config.items():
        if key not in fields:
            check_empty(folder, kind, key, value)
        elif key not in _NOTE and key != "runtime_config":
            _check_value(folder, fields[key], hints[key], value)
    for key in _NO_DEFAULT:
        if key in fields and key not in config and fields[key].default is not None:
            raise InputError(f"{folder}: {key} is missing; expected a number, as PEFT writes it for {kind}.")
    given = {key: value for key, value in config.items() if key in fields and key not in (*_NOTE, "runtime_config")}
    try:
        return made(**given, task_type="CAUSAL_LM", base_model_name_or_path=config.get("base_model_name_or_path"))
    except Exception as error:  # PEFT checks by raising whatever is at hand
        raise InputError(f"{folder}: PEFT does not take this configuration of {kind}: {error}") from error


def check_task(folder: Path, config: dict[str, Any]) -> None:
    """Raise InputError where an adapter was trained for something else than a causal language model."""
    task = config.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise InputError(f"{folder}: task_type is {task!r}; expected CAUSAL_LM, as for any model that writes text.")


def check_empty(folder: Path, kind: str, key: str, value: Any) -> None:
    """Raise InputError for a ``key`` that nobody knows and that says something."""
    if key not in ("peft_version", "method") and value not in (None, False, [], {}, ""):
        raise InputError(
            f"{folder}: {key} is {value!r}, which this version of PEFT does not know for {kind}, so it cannot be "
            "followed; upgrade peft, or save the adapter without it."
        )


def _check_value(folder: Path, field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    if field.name in REFUSED_KEYS and value:
        raise InputError(f"{folder}: an adapter with {field.name} is not read: {REFUSED_KEYS[field.name]}.")
    if field.name == "init_lora_weights" and isinstance(value, str) and value.startswith("pissa_niter"):
        raise InputError(
            f"{folder}: init_lora_weights is {value!r}, which draws another decomposition of the weights at each "
            "loading, so what was trained cannot be had back; convert it to a plain LoRA when saving "
            "(path_initial_model_for_weight_conversion), or train with 'pissa'."
        )
    if field.name == "random_seed" and value is None and field.default is None:
        hint = int
    is_null_for_a_collection = value is None and field.default_factory is not dataclasses.MISSING
    if is_null_for_a_collection or not _fits(value, hint, is_scale=field.name.endswith(("alpha", "scaling"))):
        raise InputError(f"{folder}: {field.name} is {value!r}; expected {_in_words(hint)}.")


def _fits(value: Any, hint: Any, is_scale: bool = False) -> bool:
    """Say whether a value read from JSON is what an annotation says; what is no plain type is left to PEFT."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one, is_scale) for one in inside)
    if origin is typing.Literal:
        return value in inside
    if hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return is_number and (hint is float or is_scale or float(value).is_integer())
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [one.value for one in hint]
    if hint is str:
        return isinstance(value, str)
    return _fits_collection(value, hint, origin, inside)


def _fits_collection(value: Any, hint: Any, origin: Any, inside: tuple[Any, ...]) -> bool:
    if (origin or hint) in (list, set, tuple):
        each = [one for one in inside if one is not ...]
        return isinstance(value, list) and (len(each) != 1 or all(_fits(one, each[0]) for one in value))
    if (origin or hint) is dict:
        return isinstance(value, dict) and (not inside or all(_fits(one, inside[1]) for one in value.values()))
    return not dataclasses.is_dataclass(hint) or isinstance(value, dict)


def _in_words(hint: Any) -> str:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_in_words, inside)))
    if origin is typing.Literal:
        return " or ".join(map(repr, inside))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if hint in words:
        return words[hint]
    return {list: "a list", set: "a list", tuple: "a list", dict: "an object"}.get(
        origin or hint, getattr(hint, "__name__", str(hint))
    )
