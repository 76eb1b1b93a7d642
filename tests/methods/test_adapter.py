"""What ``tune`` writes, PEFT reads: the same logits there, and here again when it is read back."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import elicitable as el
from elicitable.errors import InputError, StoreError
from elicitable.methods.adapter import read_adapter
from elicitable.methods.base import Adaptation
from elicitable.methods.folders import write_adapter_files
from elicitable.methods.lora import LoRA, every_linear
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.values import Item

from .conftest import fresh_model

# peft 0.21 still calls what transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
IDS = torch.tensor([[5, 9, 2, 30, 41, 8, 17, 3], [7, 7, 1, 60, 4, 22, 11, 50]])
MODELS = ("gpt2", "llama", "qwen3", "gemma3_text")
PEFT_METHODS = ("soft-prompt", "layer-prefix", "kv-prefix", "lora")


class Echo:
    """Two tokens in, the same out."""

    name = "echo"

    def labels(self) -> None:
        return None

    def _items(self) -> list[Item]:
        return [Item(pair, pair) for pair in itertools.product(range(3, 11), repeat=2)]

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        items = self._items()
        return [items[i] for i in rng.integers(0, len(items), n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self._items()[:n]

    def fingerprint(self) -> str:
        return "echo"


@contextmanager
def peft_model(model: Model, folder: Path) -> Iterator[torch.nn.Module]:
    """The base model with the adapter in ``folder``, as PEFT makes it."""
    from peft import PeftModel

    yield PeftModel.from_pretrained(copy.deepcopy(model.hf), folder).eval()


def without_extras(model: Model) -> Model:
    """A GPT-2 has no grouped heads; PEFT would take the attribute that every tiny configuration has for a fact."""
    if model.name == "gpt2":
        del model.hf.config.num_key_value_heads
    return model


def ours(model: Model, adaptation: Adaptation) -> Tensor:
    with torch.no_grad(), el.use(model, adaptation):
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", PEFT_METHODS)
def test_peft_loads_what_tune_writes_and_gives_the_same_logits(name: str, method: str, tmp_path: Path) -> None:
    model = without_extras(fresh_model(name))
    tuned = el.tune(
        model, Echo(), method=method, size=2, learning_rate=0.1, steps=8, seed=3, test_items=8, out=tmp_path
    )
    wanted = ours(model, tuned.adaptation)
    with torch.no_grad():
        base = model(input_ids=IDS).logits
    assert (wanted - base).abs().max() > 1e-2  # the adapter does something
    with peft_model(model, tmp_path) as peft, torch.no_grad():
        theirs = peft(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -IDS.shape[1] :]
    # rotary and norm layers compute in float32, and PEFT runs soft prompts at other absolute positions
    assert (theirs - wanted).abs().max() < 2e-5
    assert (ours(model, read_adapter(model, tmp_path)) - wanted).abs().max() < 2e-5


def peft_config(kind: str) -> Any:
    """What people train with PEFT."""
    import peft

    given: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    virtual = {**given, "num_virtual_tokens": 3}
    made = {
        "prefix": lambda: peft.PrefixTuningConfig(**virtual),
        "prefix through a projection": lambda: peft.PrefixTuningConfig(
            **virtual, prefix_projection=True, encoder_hidden_size=16
        ),
        "cartridge": lambda: peft.CartridgeConfig(**virtual, num_frozen_tokens=1),
        "soft prompt": lambda: peft.PromptTuningConfig(**virtual),
        "p-tuning": lambda: peft.PromptEncoderConfig(**virtual, encoder_hidden_size=16),
        "lora": lambda: peft.LoraConfig(**given, r=2, lora_alpha=5, init_lora_weights=False),
    }
    return made[kind]()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "kind", ["prefix", "prefix through a projection", "cartridge", "soft prompt", "p-tuning", "lora"]
)
def test_what_peft_writes_is_read_with_the_same_logits_and_seen_through(name: str, kind: str, tmp_path: Path) -> None:
    from peft import get_peft_model

    model = without_extras(fresh_model(name))
    torch.manual_seed(5)
    get_peft_model(copy.deepcopy(model.hf), peft_config(kind)).save_pretrained(tmp_path)
    read = read_adapter(model, tmp_path)
    with peft_model(model, tmp_path) as peft, torch.no_grad():
        theirs = peft(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -IDS.shape[1] :]
    found = ours(model, read)
    with torch.no_grad():
        assert (found - model(input_ids=IDS).logits).abs().max() > 1e-3  # the adapter does something
    # as above; what PEFT stores is float32
    assert (found - theirs).abs().max() < 2e-5
    if kind != "lora":
        with torch.no_grad(), el.watch(model, read) as scope:
            model(input_ids=IDS)
        assert scope.prefix_mass[..., 0].min() > 0  # later queries of a sliding window do not see it
        assert max(scope.attention_residual.max(), scope.output_residual.max()) < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_full_fine_tuning_is_written_as_a_model(name: str, tmp_path: Path) -> None:
    model = fresh_model(name)
    tuned = el.tune(model, Echo(), method="full", learning_rate=1e-2, steps=8, test_items=8, out=tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    wanted = ours(model, tuned.adaptation)
    with torch.no_grad():
        found = whole(input_ids=IDS).logits
    # transformers' own attention sums in another order, before norms in float32
    assert (found - wanted).abs().max() < 1e-5
    assert (ours(el.load(tmp_path, dtype="float64"), Adaptation()) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["dots1", "deepseek_v3", "qwen2_moe", "afmoe"])
def test_a_lora_on_every_layer_is_on_layers_and_trains_what_it_says(name: str) -> None:
    """PEFT took feed-forward layers for the parameters of experts, and a race's other start broke its budget."""
    model, method = Model(tiny_model(name)), LoRA()
    modules = every_linear(model)
    built = method.build(model, 2, modules=modules)
    assert sum(p.numel() for p in built.parameters()) == method.numbers(model, 2, modules=modules)
    assert not built.config.target_parameters
    if "down_proj" not in modules:
        with pytest.raises(InputError, match=r"takes down_proj of .* for parameters of its experts"):
            method.build(model, 2, modules=["q_proj", "down_proj"])


def test_a_lora_of_another_model_object_is_refused_not_ignored() -> None:
    lora = el.tune(fresh_model("llama"), Echo(), method="lora", size=1, learning_rate=0.1, steps=2, test_items=4)
    with pytest.raises(InputError, match="made for another model"):
        ours(fresh_model("llama"), lora.adaptation)


def test_a_folder_that_cannot_be_written_keeps_the_adapter_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_adapter_files(tmp_path, {"peft_type": "old"}, {"table": torch.zeros(2)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"adapter_config.json", "adapter_model.safetensors", "seal.json"}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elicitable.methods.folders.write_tensors", full)
    with pytest.raises(StoreError, match=r"cannot write .*adapter_model\.safetensors: No space left"):
        write_adapter_files(tmp_path, {"peft_type": "new"}, {"table": torch.ones(2)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_whose_configuration_did_not_come_is_no_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames: new tensors never stand beside the old configuration."""
    write_adapter_files(tmp_path, {"peft_type": "old"}, {"table": torch.zeros(2)})
    moved = []

    def killed(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        raise KeyboardInterrupt

    monkeypatch.setattr("elicitable.cache.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_adapter_files(tmp_path, {"peft_type": "new"}, {"table": torch.ones(2)})
    assert moved == ["adapter_model.safetensors"]
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_model.safetensors"}
