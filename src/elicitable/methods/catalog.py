"""The one list of methods, least invasive first, the control last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from elicitable.errors import InputError, UnknownNameError
from elicitable.methods.base import Adaptation, Method
from elicitable.methods.examples import Examples
from elicitable.methods.frozen_attention import FrozenAttention
from elicitable.methods.full import Full
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.methods.layer_prefix import LayerPrefix
from elicitable.methods.lora import LoRA
from elicitable.methods.lora_behind_examples import LoRABehindExamples
from elicitable.methods.nearest import Nearest
from elicitable.methods.own import check_own
from elicitable.methods.peft_method import MARK, peft_method
from elicitable.methods.prompt import Prompt
from elicitable.methods.random_subspace import RandomSubspace
from elicitable.methods.soft_prompt import SoftPrompt
from elicitable.methods.some_weights import FeedForward, QueriesAndKeys, ValuesAndOutput
from elicitable.methods.steering import Steering
from elicitable.methods.unbounded import UnboundedContext
from elicitable.methods.value_bias import ValueBias
from elicitable.methods.zero_shot import ZeroShot
from elicitable.models.model import Model, as_model
from elicitable.own_code import is_own_code, load_own

METHODS: tuple[Method, ...] = (
    ZeroShot(),
    Prompt(),
    Examples(),
    Nearest(),
    SoftPrompt(),
    LayerPrefix(),
    KVPrefix(),
    Steering(),
    LoRA(),
    Full(),
    ValueBias(),
)
# what a race runs only where it is asked to
EXTRAS: tuple[Method, ...] = (LoRABehindExamples(),)
# what finds out why a context falls short; no race runs them unless they are asked for
PROBES: tuple[Method, ...] = (
    QueriesAndKeys(),
    ValuesAndOutput(),
    FeedForward(),
    FrozenAttention(),
    UnboundedContext(),
    RandomSubspace(),
)
CONTEXTS = tuple(method.name for method in METHODS if method.is_context)
TUNED = KVPrefix.name  # what is tuned where nobody says what


def catalog() -> tuple[Method, ...]:
    """Return the methods, least invasive first; behind them, those that a race runs only where it is asked to.

    >>> [method.name for method in catalog()][:2]
    ['zero-shot', 'prompt']
    """
    return (*METHODS, *EXTRAS, *PROBES)


def method_named(name: str | Method) -> Method:
    """Return the built-in method of that name, or your own: the object itself, or ``"my_method.py:MyMethod"``.

    ``"peft:TYPE"`` is nearly any weight method of PEFT's, such as ``peft:ia3``, ``peft:dora`` or ``peft:vera``.

    Raises:
        UnknownNameError: there is none; the message lists near matches.
        InputError: it is neither a name nor a method.
    """
    if isinstance(name, Method):
        check_own(name)
        return name
    if isinstance(name, type) and issubclass(name, Method):
        raise InputError(f"give a method itself, {name.__name__}(), not its class.")
    if not isinstance(name, str):
        raise InputError(f"a method is a name or an object of a class derived from Method, got {name!r}.")
    if is_own_code(name):
        return _own_method(name)
    if name.startswith(MARK):
        return peft_method(name)
    for method in catalog():
        if method.name == name:
            return method
    raise UnknownNameError("method", name, [method.name for method in catalog()])


def _own_method(name: str) -> Method:
    method = load_own(name, "my_method.py:MyMethod")
    if not isinstance(method, Method):
        raise InputError(f"{name} is no method: derive {type(method).__name__} from elicitable.methods.base.Method.")
    check_own(method)
    return method


def check_options(method: Method, options: Iterable[str]) -> None:
    """Raise UnknownNameError for the first of ``options`` that ``method`` is not built with."""
    for option in options:
        if option not in method.options:
            raise UnknownNameError(f"option of {method.name}", option, method.options)


def with_start(method: Method, model: Model, size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` of ``method``, in which an ``init`` that is a context is told as plain data.

    Raises:
        InputError: ``method`` cannot start at that context, or a text to start from is given besides.
    """
    init = options.get("init")
    if not isinstance(init, Adaptation):
        return dict(options)
    found = method.start_at(model, size, init)
    if not found or "text" in options:
        raise InputError(
            f"{method.name} cannot start at {init!r}"
            f"{' and at a text' if found else ''}: init= is the name of a start, or a prompt or worked examples "
            "(elicitable.context) whose last tokens it starts at."
        )
    return {**options, **found}


def context(kind: str | Method, model: Any, **options: Any) -> Adaptation:
    """A context for ``model``, ready for :func:`elicitable.use`.

    Args:
        kind: ``"prompt"`` (``text=`` or ``token_ids=``), ``"examples"`` (``task=``, ``k=``, ``seed=`` or ``items=``),
            ``"soft-prompt"``, ``"layer-prefix"`` or ``"kv-prefix"`` (``length=``, ``init=``, ``text=``, ``seed=``);
            ``init`` may be a prompt or worked examples, too, at whose last tokens it then starts.
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
    method = method_named(kind) if not isinstance(kind, str) or kind in CONTEXTS else None
    if method is None or not method.is_context:
        raise UnknownNameError("context", method.name if method else str(kind), CONTEXTS)
    settings = {"seed": 0} | options
    size = settings.pop("length", 10) if method.is_trained else 0
    if not isinstance(size, int) or isinstance(size, bool):
        raise InputError(f"length must be a whole number of virtual tokens, got {size!r}.")
    known = ("length", *method.options, "seed") if method.is_trained else method.options
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of {method.name}", option, known)
    taken = as_model(model)
    return method.build(taken, size=size, **with_start(method, taken, size, settings))
