"""Read the first form of a spec, in which the records in ``records/paper`` were written.

A spec then named the fingerprints of the digit tasks that were scored, and of no other data: neither the reviews nor
the passages, nor the language model, nor what a toy was pretrained on. The data were those below. A record of that form
is found under the spec of today as long as today's data are still the same; where they are others it is not asked, and
the trial runs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DATA_OF_THEN = {
    "mixed": "da5369a001caaf87",
    "movie-reviews": "1bb7e108e2cccea1",
    "passages": "3b23b23a26d19fe0",
    "smollm2": "b2da5d5a6c26fc58",
}


def first_form(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return ``spec`` as it was written then; None where that says nothing else, or where the data are others.

    >>> first_form({"seed": 0, "data": {"mixed": "da5369a001caaf87", "add-1": "8"}})
    {'seed': 0, 'data': {'add-1': '8'}}
    """
    former = _stripped(spec)
    return None if former == spec else former


def _stripped(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the data of then, here and in the spec of the base."""
    then = dict(spec)
    data, trial = spec.get("data"), spec.get("trial")
    if isinstance(data, Mapping):
        then["data"] = {name: found for name, found in data.items() if DATA_OF_THEN.get(name) != found}
    if isinstance(trial, Mapping) and isinstance(trial.get("base"), Mapping):
        then["trial"] = {**trial, "base": _stripped(trial["base"])}
    return then
