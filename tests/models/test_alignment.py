"""Weights from files begin where PyTorch begins its own: kernels may add in another order elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import elicitable as el
from elicitable.models.architectures import tiny_model
from elicitable.training.checkpoint import Checkpoint, Frozen
from elicitable.untrusted import ALIGNMENT, read_tensors

IDS = torch.tensor([[5, 9, 3, 40, 22, 7, 12]])


def shifted(path: Path) -> None:
    """Let the numbers of a safetensors file begin 8 bytes behind a multiple of :data:`ALIGNMENT`."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + length].rstrip(b" ")
    header += b" " * (-len(header) % ALIGNMENT)
    path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length :])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    shifted(tmp_path / "model" / "model.safetensors")
    return tmp_path / "model"


def odd(tensors: list[Tensor]) -> list[int]:
    return [place for one in tensors if (place := one.data_ptr() % ALIGNMENT)]


def test_a_model_from_a_folder_computes_the_digits_of_the_same_one_in_memory(folder: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    assert odd(list(theirs.parameters()))  # as it comes from the file
    wrapped = el.models.model.as_model(theirs)
    for model in (wrapped, el.load(str(folder), dtype="float64", device="cpu")):
        assert not odd([*model.hf.parameters(), *model.hf.buffers()])
        with torch.no_grad():
            assert torch.equal(model.hf(IDS).logits, tiny_model("llama").eval()(IDS).logits)


def test_tensors_and_checkpoints_from_files_begin_as_those_in_memory(tmp_path: Path) -> None:
    held = {"a": torch.randn(3, 5), "b": torch.randn(7), "c": torch.randn(2, dtype=torch.float64)}
    checkpoint = Checkpoint(tmp_path / "running.safetensors", "mine", 0.0)
    checkpoint.write(Frozen(held, {}))
    shifted(checkpoint.path)
    found = checkpoint.read()
    assert found is not None
    for tensors in (found.tensors, read_tensors(checkpoint.path)):
        assert not odd(list(tensors.values()))
        assert all(torch.equal(tensors[name], one) for name, one in held.items())
