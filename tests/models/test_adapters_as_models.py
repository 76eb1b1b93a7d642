"""An adapter is no model: its folder is not loaded as one, and weights that stand within one are not trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model


@pytest.mark.parametrize("has_config", [False, True])
@pytest.mark.parametrize("kind", ["LORA", "PROMPT_TUNING"])
def test_the_folder_of_an_adapter_is_no_model(kind: str, has_config: bool, tmp_path: Path) -> None:
    """transformers loaded the base and the adapter together, and what was found was said of the base alone."""
    config = {"peft_type": kind, "base_model_name_or_path": "elsewhere/base", "task_type": "CAUSAL_LM"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    if has_config:
        tiny_model("llama").config.save_pretrained(tmp_path)
    save_file({"prompt_embeddings": torch.zeros(3, 4)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        InputError, match=r"holds an adapter .* and no model: name its base .*, 'elsewhere/base'\. To go"
    ):
        el.load(str(tmp_path), device="cpu")


@pytest.mark.parametrize("method", ["full", "lora", "random-subspace", "values-and-output", "feed-forward"])
def test_weights_within_an_adapter_of_pefts_are_not_trained(method: str) -> None:
    """Full fine-tuning ended in a KeyError by the name of a weight that an adapter stands around."""
    hf = tiny_model("llama").float()
    hf.add_adapter(LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    model = Model(hf, name="adapted")
    with pytest.raises(InputError, match="holds an adapter of PEFT's already"):
        method_named(method).build(model, 1, seed=0)
    assert torch.isfinite(hf(torch.tensor([[1, 2, 3]])).logits).all()
