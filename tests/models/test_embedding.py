"""A soft prompt that starts from a text starts where the text itself is, on every architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.methods.initial import embedding_spread
from elicitable.models.architectures import ARCHITECTURES, tiny_model

EXACT = [row.name for row in ARCHITECTURES if not row.reason]
SCALED = ("gemma", "gemma2", "gemma3_text", "vaultgemma", "biogpt", "minicpm3")
TOKENS = [7, 9, 4]


class Tokenizer:
    """Reads every text as the same three tokens."""

    bos_token_id = None

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": TOKENS}


@torch.no_grad()
@pytest.mark.parametrize("name", EXACT)
def test_a_soft_prompt_of_a_text_is_the_text(name: str) -> None:
    model = el.load(tiny_model(name), tokenizer=Tokenizer())
    ids = torch.tensor([[12, 40, 5, 6]])
    soft = el.context("soft-prompt", model, length=3, init="text", text="x")
    hard = el.context("prompt", model, token_ids=TOKENS)
    with el.use(model, soft):
        found = model(ids).logits
    with el.use(model, hard):
        expected = model(ids).logits
    assert torch.equal(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", *SCALED])
def test_the_spread_is_that_of_what_the_module_gives(name: str) -> None:
    model = el.load(tiny_model(name))
    table = model.hf.get_input_embeddings().weight
    embedded = model.embed(torch.arange(len(table))[None])[0]
    assert (not torch.equal(embedded, table)) == (name in SCALED)
    assert embedding_spread(model) == pytest.approx(float(embedded.std()), rel=1e-4)  # a padding row may be scaled too
    if name not in SCALED:
        assert embedding_spread(model) == float(table.float().std())
