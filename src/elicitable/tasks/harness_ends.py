"""Where a free answer to a task of the harness ends: at a stop string, or after so many tokens."""

from __future__ import annotations

from typing import Any, Final

from elicitable.errors import InputError

MOST_TOKENS: Final = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def stops_of(harness: Any) -> tuple[str, ...]:
    """Return what ends an answer; of a continuation whose likelihood is asked, nothing.

    Raises:
        InputError: the task's ``until`` is neither a text nor a list of texts.
    """
    if harness.OUTPUT_TYPE == "loglikelihood":
        return ("",)
    if harness.OUTPUT_TYPE != "generate_until":
        return ()
    until = harness.config.generation_kwargs.get("until") or []
    stops = [until] if isinstance(until, str) else until
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
        raise InputError(f"{harness.config.task}: until is a text or a list of texts, got {until!r:.80}.")
    return tuple(stop for stop in stops if stop)


def most_tokens_of(harness: Any) -> int | None:
    """Return how many tokens of a free answer the harness reads: its names for it in their order, by default 256.

    Raises:
        InputError: that is no whole number from 1.
    """
    if harness.OUTPUT_TYPE != "generate_until":
        return None
    given = harness.config.generation_kwargs or {}
    name = next((one for one in MOST_TOKENS if given.get(one) is not None), None)
    most = 256 if name is None else given[name]
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InputError(f"{harness.config.task}: {name} is a whole number from 1, got {most!r:.80}.")
    return most
