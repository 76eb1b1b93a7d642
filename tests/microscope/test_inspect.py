"""The inspection: its record is the watch's, its words are the model's own matrices, its warnings come when due."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from tests.models.test_templates import SAYS, chatting
from transformers import AutoConfig, AutoModelForCausalLM

import elicitable as el
from elicitable.errors import InputError
from elicitable.microscope.inspect import Inspection, inspect
from elicitable.microscope.words import says
from elicitable.models.architectures import tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.layout import layout_for
from elicitable.models.model import Model
from elicitable.models.projections import output_projections
from elicitable.models.rows import rows_of
from elicitable.models.speed.processor import kind
from elicitable.report.conclusion import conclusion
from elicitable.report.microscope import microscope_section, write_figures
from elicitable.values import Item, Message, PrefixKV

TEXTS = [[5, 6, 7, 8, 12], [9, 10, 11], [20, 21, 22, 23, 24, 25, 26], [40, 41]]


def fresh(name: str = "llama") -> tuple[Model, PrefixKV]:
    model = Model(tiny_model(name))
    with torch.no_grad():
        return model, capture_tokens(model, torch.tensor([[7, 9, 4]]))


def test_batches_and_padding_change_nothing() -> None:
    model, prefix = fresh()
    whole, single = (inspect(model, prefix, TEXTS, batch_size=size) for size in (4, 1))
    assert (whole.texts, whole.queries, whole.prefix) == (4, 17, 3)
    for ours, theirs in zip(whole.heads, single.heads, strict=True):
        for field in dataclasses.fields(ours):
            # rotary angles and norms are float32 and the same; sums in another order
            assert getattr(ours, field.name) == pytest.approx(getattr(theirs, field.name), abs=1e-9), field.name
    assert whole.largest_residual() < 1e-12
    assert whole.largest_residual(slice(0, 1)) <= whole.largest_residual()


def test_the_record_is_frozen_and_small() -> None:
    model, prefix = fresh()
    found = inspect(model, prefix, TEXTS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.prefix = 4  # type: ignore[misc]
    assert list(found.frame()["layer"]) == [0] * 4 + [1] * 4
    assert sum(found.layers[1].position_mass) == pytest.approx(found.frame().query("layer == 1")["prefix_mass"].mean())
    assert sum(found.layers[0].spectrum) == pytest.approx(1.0)  # three tokens span three directions
    assert found.heatmap is None
    assert (found.provenance["processor"], found.provenance["device"]) == (kind(), "cpu")


def test_what_the_bias_says_is_the_unembedding_of_w_o() -> None:
    model, _ = fresh()
    bias = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    promoted, suppressed = says(model, 1, bias, top=3)
    own = model.hf.lm_head.weight @ model.hf.model.layers[1].self_attn.o_proj.weight @ bias.flatten()
    order = own.argsort(descending=True).tolist()
    assert [int(token) for token, _ in promoted] == order[:3]
    assert [int(token) for token, _ in suppressed] == order[-3:][::-1]
    assert promoted[0][1] == pytest.approx(own.max().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "module"),
    [("llama", "self_attn.o_proj"), ("gpt_neox", "attention.dense"), ("mpt", "attn.out_proj"),
     ("bloom", "self_attention.dense"), ("opt", "self_attn.out_proj"), ("deepseek_v3", "self_attn.o_proj")],
)  # fmt: skip
def test_the_output_projection_is_found_by_running(name: str, module: str) -> None:
    model, _ = fresh(name)
    assert output_projections(model)[1] is model.anatomy.blocks[1].get_submodule(module)


def test_a_gate_that_is_as_wide_as_the_heads_is_no_output_projection() -> None:
    """Beam's gate reads the layer's input after attention; its words were taken for the heads'."""
    like = {**tiny_model("beam").config.to_dict(), "head_dim": 8}
    config = AutoConfig.for_model("beam", **{key: value for key, value in like.items() if key != "model_type"})
    model = el.load(AutoModelForCausalLM.from_config(config, experts_implementation="eager"))
    assert output_projections(model) == tuple(block.self_attn.o_proj for block in model.anatomy.blocks)


def test_a_heatmap_keeps_one_head_with_without_and_rescaled() -> None:
    model, prefix = fresh()
    kept = inspect(model, prefix, TEXTS, heatmap=(0, 2)).heatmap
    assert kept is not None
    assert (len(kept.with_context), len(kept.with_context[0]), len(kept.without[0])) == (5, 8, 5)
    assert kept.tokens == ("5", "6", "7", "8", "12")
    for row, plain, rescaled in zip(kept.with_context, kept.without, kept.rescaled, strict=True):
        assert sum(row) == pytest.approx(1)
        assert rescaled == pytest.approx(plain)  # layer 0: relative attention is unchanged
    with pytest.raises(InputError, match="no head 4 in 0"):
        inspect(model, prefix, TEXTS, heatmap=(0, 4))


def test_warnings_come_when_they_are_due() -> None:
    model, prefix = fresh("mistral")
    found = inspect(model, prefix, [list(range(3, 13))])
    assert any("Sliding windows cut the context off in layers 0–1" in warning for warning in found.warnings)
    assert inspect(model, dataclasses.replace(prefix, pinned=True), TEXTS).layers[0].visible_share == 1
    kept = torch.tensor([[True, False, True]])
    for cut in ({"visible": kept}, {"kept": (kept, None)}):  # keys that a person took away are no window's doing
        masked = inspect(model, dataclasses.replace(prefix, pinned=True, **cut), TEXTS, shares=False)
        assert [layer.visible_share for layer in masked.layers] == [1, 1]
        assert not any("Sliding" in warning for warning in masked.warnings)
    model, prefix = fresh()
    assert not any("Sliding" in warning for warning in inspect(model, prefix, TEXTS).warnings)
    unrotated = inspect(model, dataclasses.replace(prefix, positions=None), TEXTS)
    assert any("stored without positions" in warning for warning in unrotated.warnings)
    trained = inspect(model, el.context("kv-prefix", model, length=2), TEXTS)
    assert any("stored without positions" in warning for warning in trained.warnings)
    half = Model(tiny_model("llama", dtype=torch.bfloat16))
    with torch.no_grad():
        context = capture_tokens(half, torch.tensor([[7, 9, 4]]))
    assert any("residuals of 1e-3 are rounding" in warning for warning in inspect(half, context, TEXTS).warnings)


def test_a_changed_model_is_warned_of() -> None:
    model, prefix = fresh()
    other = Model(tiny_model("llama", seed=1))
    found = inspect(model, prefix, TEXTS, reference=other)
    assert any("more than a context was changed" in warning for warning in found.warnings)


def test_dead_tokens_are_named() -> None:
    model, prefix = fresh()
    # logits far below all others: their share is e^-hundreds
    keys = tuple(torch.cat([-1e3 * torch.ones_like(key[:, :, :1]) * key[:, :, :1].sign(), key[:, :, 1:]], dim=2)
                 for key in prefix.keys if key is not None)  # fmt: skip
    queries_dislike = dataclasses.replace(prefix, keys=keys)
    assert inspect(model, prefix, TEXTS).dead_positions == ()
    found = inspect(model, queries_dislike, TEXTS)
    assert all(0 <= dead < 3 for dead in found.dead_positions)


def test_of_a_long_context_that_is_read_evenly_every_token_is_used() -> None:
    """Each of 200 tokens has half a percent, and less than one was called used by no head."""
    model, _ = fresh()
    zeros = [torch.zeros(1, at.kv_heads, 200, at.d_head, dtype=torch.float64) for at in model.anatomy.layers]
    even = PrefixKV(tuple(zeros), tuple(zeros), positions=torch.arange(-200, 0)[None], shift=200)
    found = inspect(model, even, TEXTS, shares=False)
    assert found.dead_positions == ()
    assert found.dead_share == 0.1 / 200
    assert "used by some head" in " ".join(conclusion(found))
    some = dataclasses.replace(found, dead_positions=(3, 5))
    assert "no head uses (under 0.05% of its prefix mass): 3, 5." in microscope_section(some).html
    few = dataclasses.replace(found, prefix=3, dead_positions=(0,))
    assert "no head uses (under 1% of its prefix mass): 0." in microscope_section(few).html


@torch.no_grad()
def test_conversations_are_laid_out_as_a_race_reads_them() -> None:
    """Messages were taken for token ids, and refused as such."""
    said = "{% for m in messages %}" + SAYS + "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    for template, chat in ((said, "auto"), (None, "off")):
        model = chatting(template)
        items = [Item((Message("user", f"film {n}"),), "dull") for n in range(2)]
        kept = rows_of(model, items, layout_for(model, chat, turns=True))
        rows = [[*row.content, *row.answer] for row in kept]
        prefix = capture_tokens(model, model.ids([3, 4]))
        assert inspect(model, prefix, items).heads == inspect(model, prefix, rows).heads
        prompt = el.context("prompt", model, text="Judge it.\n\n", layout=layout_for(model, chat, turns=True))
        prompt.fit(model, items)
        behind = rows_of(model, items, prompt.layout, held=prompt.held())
        found = inspect(model, prompt, items)
        assert found.queries == sum(map(len, behind))
        assert found.prefix == len(prompt.held())


def test_texts_may_be_items_and_must_be_there() -> None:
    model, prefix = fresh()
    found: Inspection = inspect(model, prefix, [Item((5, 6, 7), (8, 12))], max_tokens=4, drift=False)
    assert found.queries == 4
    assert all(math.isnan(head.drift) for head in found.heads)
    for texts in ([], [[]]):
        with pytest.raises(InputError, match="at least one text"):
            inspect(model, prefix, texts)


def test_figures_of_another_inspection_do_not_stay(tmp_path: Path) -> None:
    model, prefix = fresh()
    (tmp_path / "mine.svg").touch()
    for heatmap in ((0, 2), None):
        found = inspect(model, prefix, TEXTS, heatmap=heatmap, shares=False)
        written = write_figures(found, tmp_path)
        assert (tmp_path / "attention.svg" in written) == (heatmap is not None)
        assert {*written, tmp_path / "mine.svg"} == set(tmp_path.iterdir())


def test_counts_below_one_are_refused() -> None:
    """The last token was dropped in silence."""
    model, prefix = fresh()
    with pytest.raises(InputError, match="max_tokens must be at least 1, got -1"):
        inspect(model, prefix, TEXTS, max_tokens=-1)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        inspect(model, prefix, TEXTS, batch_size=0)


def test_a_text_that_comes_twice_is_one_text_of_shareability() -> None:
    model, prefix = fresh()
    once, twice = (inspect(model, prefix, texts, drift=False).shared for texts in (TEXTS, TEXTS + TEXTS))
    assert once == twice
    assert all(one.by_token for one in inspect(model, prefix, TEXTS[:1] * 3, drift=False).shared)


def test_a_context_by_name_is_named_in_the_record() -> None:
    model = Model(tiny_model("llama"))
    found = inspect(model, el.context("prompt", model, token_ids=[7, 9]), TEXTS)
    assert "prompt" in found.context
