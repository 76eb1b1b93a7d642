"""What pruning writes: packed head by head, the same again when read, refused for another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.pruned_prefix import PrunedPrefixContext
from elicitable.microscope.prune import keep_pairs
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model

IDS = torch.tensor([[12, 40, 5, 6, 33, 9, 8, 2]])


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
@torch.no_grad()
def test_what_is_left_of_a_prefix_is_written_packed_and_acts_the_same_when_read(name: str, tmp_path: Path) -> None:
    model = Model(tiny_model(name))
    whole = el.context("kv-prefix", model, length=5).prefix(model)
    kv_heads = model.anatomy.layers[0].kv_heads
    kept = torch.rand(2, kv_heads, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    kept[:, :, 1] = False
    smaller = keep_pairs(whole, kept)
    packed = PrunedPrefixContext.of(smaller)
    assert sum(key.numel() for key in packed.keys) == int(kept.sum()) * model.anatomy.layers[0].d_head
    assert packed.bytes_stored() == sum(x.numel() * x.element_size() for x in (*packed.keys, *packed.values))
    read = read_adapter(model, write_adapter(model, packed, tmp_path / "adapter"))
    assert read.keys_per_layer() == int(kept.sum(dim=2).max())
    with el.use(model, smaller):
        wanted = model(IDS).logits
    for context in (packed, read):
        with el.use(model, context):
            assert torch.equal(model(IDS).logits, wanted)
    other = Model(tiny_model("gemma"))
    with pytest.raises(InputError, match="made for another model"):
        read_adapter(other, tmp_path / "adapter")
