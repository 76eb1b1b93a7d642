"""Send objects of this process to the workers that it started, and nowhere else: nothing here reads a file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from elicitable.errors import InputError
from elicitable.own_code import BESIDE, loaded_modules


def packed(thing: Any) -> bytes:
    """Return ``thing`` as bytes for a worker; classes of a notebook or of a person's own files travel with it.

    So do the files beside these, for functions that import them when they are called.

    Raises:
        InputError: a part of it cannot travel, such as an open file.
    """
    import cloudpickle

    for module in loaded_modules():  # a worker has no such module to import
        cloudpickle.register_pickle_by_value(module)
    try:
        whole: bytes = cloudpickle.dumps((BESIDE.files, cloudpickle.dumps(thing)))
    except (TypeError, AttributeError, ValueError, pickle.PicklingError) as error:
        raise InputError(
            f"what the workers need cannot be sent to them ({error}); name the model, the task and the methods, or run "
            "with the executor inline."
        ) from error
    return whole


@lru_cache(maxsize=1)
def unpacked(whole: bytes) -> Any:
    """Return what :func:`packed` was given; the same object again for the same bytes.

    Raises:
        InputError: a part of it is of a module that cannot be imported here.
    """
    try:
        files, thing = pickle.loads(whole)
        BESIDE.hold(files)
        return pickle.loads(thing)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"a worker cannot read what it was sent ({error}): it imports what is installed, and is sent what lies in "
            "the folder of your own file. Put the module there, or run with the executor inline."
        ) from error


def called(function: Callable[..., Any], item: Any, shared: bytes | None) -> Any:
    """Call ``function`` on a worker: with what is shared, where something is."""
    return function(item) if shared is None else function(unpacked(shared), item)
