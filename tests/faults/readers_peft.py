"""Adapters of every type that PEFT saves: weights, and contexts."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.faults.models import letters_model
from tests.faults.mutations import altered_json_text, altered_tensors
from tests.faults.reader import Reader

Form = tuple[dict[str, Any], dict[str, Any]]


@lru_cache(maxsize=2)
def _saved(is_context: bool) -> tuple[Form, ...]:
    """What PEFT saves of each type, one adapter each."""
    import warnings

    from safetensors.torch import load_file
    from tests.methods.test_peft_weights import TYPES, config_of, saved_by_peft

    from elicitable.methods.peft_contexts import CONTEXT_TYPES

    found = []
    for kind, settings in TYPES.items():
        if (kind in CONTEXT_TYPES) != is_context:
            continue
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved_by_peft(letters_model().hf, config_of(kind, settings[0]), Path(folder))
            config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
            found.append((config, load_file(Path(folder) / "adapter_model.safetensors")))
    return tuple(found)


def _adapters(is_context: bool) -> st.SearchStrategy[Any]:
    def of(form: Form) -> st.SearchStrategy[Any]:
        config, tensors = form
        return st.tuples(altered_json_text((config,)), altered_tensors(tensors))

    return st.sampled_from(_saved(is_context)).flatmap(of)


def read_adapter_folder(place: Path, given: tuple[bytes, dict[str, Any]]) -> object:
    """Read an adapter, and let the model see it."""
    import torch

    from elicitable.cache import write_tensors
    from elicitable.methods.adapter import read_adapter
    from elicitable.models.inject import use

    config, tensors = given
    (place / "adapter_config.json").write_bytes(config)
    write_tensors(place / "adapter_model.safetensors", tensors)
    model = letters_model()
    with torch.no_grad(), use(model, read_adapter(model, place)):
        return model.hf(input_ids=model.ids("ab")).logits


PEFT = (
    Reader("PEFT weights", lambda place: _adapters(is_context=False), read_adapter_folder),
    Reader("PEFT contexts", lambda place: _adapters(is_context=True), read_adapter_folder),
)
