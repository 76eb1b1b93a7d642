"""In a model that also reads images, a context is put into the decoder alone; a tower keeps its own attention."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import LlamaAttention

import elicitable as el
from elicitable.errors import UnsupportedModelError
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.training.label_scores import label_costs
from elicitable.training.label_trie import LabelIds
from elicitable.training.loop import prepared

TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
IMAGE = 60  # the token that stands for a part of an image
HEAD = [7, 9, 4]


def llava() -> PreTrainedModel:
    """CLIP says by an attribute of its modules that it attends in both directions."""
    return LlavaForConditionalGeneration(
        LlavaConfig(
            text_config={**TEXT, "model_type": "llama"},
            vision_config={**TOWER, "model_type": "clip_vision_model"},
            image_token_index=IMAGE,
            vision_feature_layer=-1,
        )
    )


def gemma3() -> PreTrainedModel:
    """SigLIP says so with every call."""
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={**TEXT, "head_dim": 8, "sliding_window": 16},
            vision_config={**TOWER, "model_type": "siglip_vision_model"},
            image_token_id=IMAGE,
            mm_tokens_per_image=4,
            boi_token_index=61,
            eoi_token_index=62,
        )
    )


def qwen2_5_vl() -> PreTrainedModel:
    """Positions have three axes, and the tower has windows of its own."""
    rotary = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    tower = {"depth": 2, "num_heads": 4, "out_hidden_size": 32, "fullatt_block_indexes": [1], "window_size": 28}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={**TEXT, "rope_parameters": rotary},
            vision_config={"hidden_size": 32, "intermediate_size": 48, "patch_size": 14, **tower},
            image_token_id=IMAGE,
            video_token_id=59,
            vision_start_token_id=58,
            vision_end_token_id=57,
        )
    )


MADE = {made.__name__: made for made in (llava, gemma3, qwen2_5_vl)}


@cache
def model_of(name: str) -> Model:
    torch.manual_seed(0)
    hf = MADE[name]().eval()
    for weight in hf.parameters():
        if weight.ndim > 1:
            weight.data = 0.25 * torch.randn(weight.shape)
    return Model(hf)


def read(model: Model, name: str, head: list[int]) -> Tensor:
    """The logits of a text with an image in it, behind the tokens ``head``, which are left out."""
    generator = torch.Generator().manual_seed(1)
    if name == "qwen2_5_vl":
        ids = torch.tensor([[*head, 12, 40, 58, IMAGE, 6, 33, 9]])
        given = {
            "pixel_values": torch.randn(4, 3 * 2 * 14 * 14, generator=generator),
            "image_grid_thw": torch.tensor([[1, 2, 2]]),
            "mm_token_type_ids": (ids == IMAGE).int(),
        }
    else:
        ids = torch.tensor([[*head, 12, 40, 5, IMAGE, IMAGE, IMAGE, IMAGE, 6, 33, 9]])
        given = {"pixel_values": torch.randn(1, 3, 28, 28, generator=generator)}
        given |= {"token_type_ids": (ids == IMAGE).long()} if name == "gemma3" else {}
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, **given).logits[:, len(head) :]
    return logits


def implementations(hf: PreTrainedModel) -> list[tuple[str, str]]:
    """The attention that every part of a model is set to."""
    parts = [module for module in hf.modules() if isinstance(module, PreTrainedModel)]
    return [(type(part).__name__, part.config._attn_implementation) for part in parts]


@pytest.mark.parametrize("name", MADE)
def test_an_image_is_read_as_ever_with_a_context_or_without(name: str) -> None:
    model = model_of(name)
    plain, together = read(model, name, []), read(model, name, HEAD)
    with el.use(model, []):
        torch.testing.assert_close(read(model, name, []), plain, rtol=0.0, atol=2e-5)  # float32: logits of size 5
    with el.use(model, el.context("prompt", model, token_ids=HEAD)):
        torch.testing.assert_close(read(model, name, []), together, rtol=0.0, atol=2e-5)
    assert float((together - plain).abs().max()) > 0.1


@pytest.mark.parametrize("name", MADE)
def test_each_part_of_a_model_gets_its_own_attention_back(name: str) -> None:
    model = Model(model_of(name).hf)
    for given in ({"text_config": "eager", "vision_config": "sdpa"}, {"text_config": "sdpa", "vision_config": "eager"}):
        model.hf.set_attn_implementation(given)
        before = implementations(model.hf)
        assert len({implementation for _, implementation in before}) == 2
        model.__dict__.pop("anatomy", None)  # the probe leaves it as it was, too
        with el.use(model, el.context("prompt", model, token_ids=HEAD)):
            assert len({implementation for _, implementation in implementations(model.hf)}) > 1
        assert implementations(model.hf) == before


def test_an_encoder_with_the_decoders_configuration_still_sees_what_comes_later() -> None:
    model = Model(tiny_model("llama", dtype=torch.float32))
    encoder: Any = LlamaAttention(model.hf.config, 0).eval()
    encoder.is_causal = False
    stream = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1))
    angles = model.hf.model.rotary_emb(stream, torch.arange(5)[None])
    with torch.no_grad():
        expected = encoder(stream, angles, None)[0]
        with el.use(model, el.context("prompt", model, token_ids=HEAD)):
            found = encoder(stream, angles, None)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("method", ["lora", "peft:ia3"])
def test_weights_are_changed_in_the_decoder_alone(name: str, method: str) -> None:
    """A tower for images has queries and values too: its numbers were counted, and got no gradient."""
    model = model_of(name)
    recipe = method_named(method)
    change = recipe.build(model, 2, 0)
    assert change.budget().numbers_trained == recipe.numbers(model, 2)
    with prepared(model, change) as refresh:
        refresh()
        logits = model.hf(input_ids=torch.tensor([[7, 9, 4, 5]])).logits
        grads = torch.autograd.grad(logits.sum(), list(change.parameters()), allow_unused=True)
    assert all(grad is not None for grad in grads)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("head", [[], HEAD])
def test_padding_on_the_left_changes_nothing(name: str, head: list[int]) -> None:
    """Gemma 3's wrapper counts positions itself, padding with them, and hands them to the decoder."""
    model, ids = model_of(name), [12, 40, 5, 6]
    padded, mask = torch.tensor([[0] * 5 + ids]), torch.tensor([[0] * 5 + [1] * 4])
    with el.use(model, el.context("prompt", model, token_ids=head) if head else []), torch.no_grad():
        alone = model(input_ids=torch.tensor([ids])).logits
        found = model(input_ids=padded, attention_mask=mask).logits[:, 5:]
    torch.testing.assert_close(found, alone, rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("name", MADE)
def test_padding_is_left_out_where_the_model_is_asked_for_something_else_meanwhile(name: str) -> None:
    model, ids = model_of(name), [12, 40, 5, 6]
    padded, mask = torch.tensor([[0] * 5 + ids]), torch.tensor([[0] * 5 + [1] * 4])
    asked: list[int] = []

    def ask(*given: Any) -> None:
        if not asked:
            asked.append(1)
            model(input_ids=torch.tensor([[7, 9]]))

    with el.use(model, el.context("prompt", model, token_ids=HEAD)), torch.no_grad():
        alone = model(input_ids=torch.tensor([ids])).logits
        with model.hf.model.register_forward_pre_hook(ask):
            found = model(input_ids=padded, attention_mask=mask).logits[:, 5:]
    assert asked
    torch.testing.assert_close(found, alone, rtol=0.0, atol=2e-5)


def test_a_mask_is_known_by_its_place_too() -> None:
    """Gemma 3 is given the numbers of images in the second place."""
    model, ids = model_of("gemma3"), [12, 40, 5, 6]
    padded, mask = torch.tensor([[0] * 5 + ids]), torch.tensor([[0] * 5 + [1] * 4])
    with el.use(model, el.context("prompt", model, token_ids=HEAD)), torch.no_grad():
        named = model(input_ids=padded, attention_mask=mask).logits
        placed = model.hf(padded, None, mask).logits
    assert torch.equal(named, placed)


@pytest.mark.parametrize("name", MADE)
def test_labels_have_one_price_beside_a_longer_item(name: str) -> None:
    model, labels = model_of(name), [LabelIds((7, 8)), LabelIds((9,))]
    alone = label_costs(model, [[12, 40, 5, 6]], [labels])
    beside = label_costs(model, [[12, 40, 5, 6], [5] * 12], [labels, labels])
    torch.testing.assert_close(beside[:1], alone, rtol=0.0, atol=2e-5)
    whole = model(input_ids=torch.tensor([[12, 40, 5, 6, 7, 8]])).logits.double().log_softmax(-1)
    torch.testing.assert_close(alone[0, 0], -(whole[0, 3, 7] + whole[0, 4, 8]).detach(), rtol=0.0, atol=2e-5)


@pytest.mark.parametrize("made", ["blip-2", "kosmos-2", "inconsistent"])
def test_a_model_that_runs_on_no_text_alone_is_refused_by_name(made: str) -> None:
    """What its own code raised came through, some of it about arguments that nobody had given."""
    if made == "blip-2":
        parts = {"vision_config": TOWER | {"hidden_act": "gelu"}, "qformer_config": {**TEXT, "encoder_hidden_size": 32}}
        text = {**TEXT, "model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32}
        hf: PreTrainedModel = Blip2ForConditionalGeneration(Blip2Config(text_config=text, **parts))
    elif made == "kosmos-2":
        text = {"vocab_size": 64, "embed_dim": 32, "layers": 2, "ffn_dim": 48, "attention_heads": 4}
        hf = Kosmos2ForConditionalGeneration(Kosmos2Config(text_config=text, vision_config=TOWER))
    else:  # DeepSeek's keys are as many as its queries, whatever the configuration says
        hf = DeepseekV3ForCausalLM(DeepseekV3Config(**TEXT, kv_lora_rank=16, q_lora_rank=16, first_k_dense_replace=2))
    with pytest.raises(UnsupportedModelError, match=f"{type(hf).__name__} does not run on 3 tokens of text "):
        el.load(hf)
