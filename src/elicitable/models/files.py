"""Read the files of a model: what transformers says of damaged ones becomes this package's errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from elicitable.errors import ElicitableError, InputError, UnsupportedModelError
from elicitable.untrusted import is_out_of_memory

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")
_OF_A_TOKENIZER = re.compile(r"token|vocab|merges|spiece|spm|sentencepiece|tekken")


def tokenizer_in(where: str) -> Any:
    """The tokenizer; None for a model of token ids, of which text tasks will say that they need a tokenizer.

    Raises:
        InputError: there are files of one, but it cannot be read.
    """
    if Path(where).is_dir() and not any(_OF_A_TOKENIZER.search(one.name) for one in Path(where).iterdir()):
        return None  # transformers would make an empty one of the model's kind
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        tokenizer("a")  # some settings that make no sense are read as they are, and fail at the first text
        return tokenizer
    except Exception as error:
        if is_out_of_memory(error):
            raise
        there = [name for name in _TOKENIZERS if (Path(where) / name).is_file()]
        if not there and isinstance(error, OSError | ValueError | KeyError):
            return None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the tokenizer of {where} cannot be read: {', '.join(there) or 'a file of it'} is damaged or of another "
            f"kind ({reason})."
        ) from error


def check_whole_files(where: str, hf: PreTrainedModel, found: Mapping[str, Any], what_to_do: str) -> None:
    """Raise InputError where weights are missing: transformers would go on with random numbers in their place."""
    missing = sorted(found["missing_keys"])
    if missing:
        raise InputError(
            f"{where} is not a whole {type(hf).__name__}: {len(missing)} of its weights are not in the files "
            f"({', '.join(missing[:5])}); {what_to_do}."
        )


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn what transformers raises on unreadable models into this package's errors."""
    try:
        yield
    except ElicitableError:
        raise
    except ValueError as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise UnsupportedModelError(
                f"{where} needs code of its own to run; elicitable never runs such code."
            ) from error
        if "Unrecognized configuration class" in text or "model type" in text:
            first = text.split(". ")[0].split("\n")[0].rstrip(".")
            raise UnsupportedModelError(f"{where} is no causal decoder that transformers knows: {first}.") from error
        raise InputError(f"{where} cannot be loaded: {text.splitlines()[0]}") from error
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{where} cannot be loaded: {reason} "
            "(elicitable reads safetensors and GGUF, and uses the network only for a hub id.)"
        ) from error
    except Exception as error:  # whatever a parser stumbles over in a file from outside
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where} cannot be loaded: it is damaged, cut off or of another kind ({reason}).") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice, and the hub's retries, off the terminal inside the ``with``."""
    before, hub = transformers_logging.get_verbosity(), logging.getLogger("huggingface_hub")
    spoken = hub.level
    transformers_logging.set_verbosity(logging.ERROR)
    hub.setLevel(logging.ERROR)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        hub.setLevel(spoken)
        if bars:
            transformers_logging.enable_progress_bar()
