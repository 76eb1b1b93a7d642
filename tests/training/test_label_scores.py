"""Every label behind every content against the plain computation: one row, one label, no padding, no trie."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import ARCHITECTURES, tiny_model
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.models.prefixes import stack_rows
from elicitable.training import label_scores
from elicitable.training.batches import encode
from elicitable.training.evaluate import Reading, answer_logits, read_labels, token_losses
from elicitable.training.label_scores import label_costs
from elicitable.training.label_trie import ROOT, LabelIds, Trie, part
from elicitable.values import Item, PrefixKV

Build = Callable[..., Model]
EXACT = [row.name for row in ARCHITECTURES if row.state == "exact"]
# What a part computes in float32 (routers their scores, Beam how its queries are scaled) rounds otherwise among other
# numbers of tokens.
ROUTED = {
    "afmoe", "beam", "deepseek_v2", "deepseek_v3", "dots1", "ernie4_5_moe", "glm4_moe", "mimo_v2_flash", "minimax_m2",
}  # fmt: skip
# Costs so large that 1e-5 is less than what float32 keeps of them: minicpm3's logits are hundreds, and nemotron's costs
# up to 53 nats, of which the plain pass itself is 1.3e-5 off float64's on a processor with AVX2 alone.
LARGE = {"minicpm3": 1e-4, "nemotron": 2e-5}
CONTENTS = [[12, 40, 5, 6, 33, 9, 3], [8, 17, 3], [44], [20, 61, 10, 5, 7, 9, 22, 31, 2, 6, 4], [20, 61, 10]]
LABELS = [  # several begin others, several share tokens, several have one
    (7,), (7, 8), (7, 8, 9), (7, 8, 9, 10, 11, 12), (5, 6), (5, 6, 7), (40, 41), (41, 40, 5), (60,),
]  # fmt: skip


@functools.cache
def model_of(name: str, dtype: torch.dtype = torch.float64) -> Model:
    return Model(tiny_model(name, dtype=dtype))


def behind(labels: Sequence[Sequence[int]] = LABELS) -> list[LabelIds]:
    return [LabelIds(tuple(ids)) for ids in labels]


@torch.no_grad()
def plain(model: Model, content: Sequence[int], label: Sequence[int]) -> float:
    ids = torch.tensor([[*content, *label[:-1]]])
    logits = model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].double()
    logs = torch.log_softmax(logits, dim=-1)
    return -sum(float(logs[len(content) - 1 + i, token]) for i, token in enumerate(label))


def all_plain(model: Model, contents: Sequence[Sequence[int]] = CONTENTS) -> torch.Tensor:
    return torch.tensor([[plain(model, c, label) for label in LABELS] for c in contents], dtype=torch.float64)


@pytest.mark.parametrize("name", EXACT)
def test_every_architecture_gives_the_plain_numbers_with_and_without_a_context(name: str) -> None:
    for dtype in (torch.float64, torch.float32):
        model = model_of(name, dtype)
        for context, strength in ([], 1.0), (capture_tokens(model, torch.tensor([[7, 9, 4, 11, 30]])), 0.5):
            with el.use(model, context, strength):
                difference = (label_costs(model, CONTENTS, [behind()] * 5) - all_plain(model)).abs().max()
            single = LARGE.get(name, 1e-5)
            assert difference < {torch.float32: single, torch.float64: 1e-6 if name in ROUTED else 1e-10}[dtype]


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def pruned(model: Model) -> PrefixKV:
    context = capture_tokens(model, torch.tensor([[7, 9, 4]]))
    kept = torch.tensor([[True, False, True], [False, True, True]])
    return replace(context, kept=(kept, None))


def biased(model: Model) -> PrefixKV:
    biases = tuple(randn(facts.kv_heads, facts.d_value) for facts in model.anatomy.layers)
    return PrefixKV((None,) * model.anatomy.depth, (None,) * model.anatomy.depth, value_bias=biases)


CONTEXTS: dict[str, Callable[[Model], object]] = {
    "prompt": lambda model: el.context("prompt", model, token_ids=[7, 9, 4]),
    "soft-prompt": lambda model: el.context("soft-prompt", model, length=3, init="random", seed=0),
    "kv-prefix": lambda model: el.context("kv-prefix", model, length=3, init="random", seed=0),
    "layer-prefix": lambda model: el.context("layer-prefix", model, length=3, init="random", seed=0),
    "several": lambda model: [
        el.context("prompt", model, token_ids=[7, 9]),
        el.context("kv-prefix", model, length=2, init="random", seed=0),
    ],
    "pruned": pruned,
    "value bias": biased,
}


@pytest.mark.parametrize("kind", CONTEXTS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "mistral", "gpt_oss"])
def test_every_kind_of_context_gives_the_plain_numbers(name: str, kind: str) -> None:
    model = model_of(name)
    bare = label_costs(model, CONTENTS, [behind()] * 5)
    with el.use(model, CONTEXTS[kind](model)):  # type: ignore[arg-type]
        found = label_costs(model, CONTENTS, [behind()] * 5)
        assert (found - all_plain(model)).abs().max() < 1e-10
    assert (found - bare).abs().max() > 1e-3  # the context counts
    assert torch.equal(label_costs(model, CONTENTS, [behind()] * 5), bare)  # and nothing is left of it


def test_changed_weights_give_the_plain_numbers() -> None:
    model = Model(tiny_model("llama"))
    lora = method_named("lora").build(model, 2, seed=0)
    for parameter in lora.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    bare = label_costs(model, CONTENTS, [behind()] * 5)
    with el.use(model, lora):
        found = label_costs(model, CONTENTS, [behind()] * 5)
        assert (found - all_plain(model)).abs().max() < 1e-10
    assert (found - bare).abs().max() > 1e-3


def test_a_context_of_its_own_for_every_item() -> None:
    model = model_of("llama")
    each = [capture_tokens(model, torch.tensor([[7, 9, 4, 11][: 2 + i % 3]]) + i) for i in range(5)]
    with el.use(model, stack_rows(each)):
        found = label_costs(model, CONTENTS, [behind()] * 5)
        with pytest.raises(InputError, match="5 rows for 4 items"):
            label_costs(model, CONTENTS[:4], [behind()] * 4)
    for item, context in enumerate(each):
        with el.use(model, context):
            assert (found[item] - all_plain(model, [CONTENTS[item]])[0]).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("logits", "nodes", "tokens", "kept"), [(64, 256, 1, 4096), (64 * 3, 2, 8, 9), (64 * 7, 5, 20, 1)]
)
def test_memory_bounds_change_no_number(
    monkeypatch: pytest.MonkeyPatch, logits: int, nodes: int, tokens: int, kept: int
) -> None:
    model = model_of("gemma2")
    whole = label_costs(model, CONTENTS, [behind()] * 5)
    monkeypatch.setattr(label_scores, "LOGITS", logits)
    monkeypatch.setattr(label_scores, "NODES", nodes)
    monkeypatch.setattr(label_scores, "CONTENT_TOKENS", tokens)
    monkeypatch.setattr(label_scores, "NODE_TOKENS", kept)
    largest = []
    seen = model.hf.register_forward_hook(lambda m, a, out: largest.append(out.logits.shape[0] * out.logits.shape[1]))
    assert (label_costs(model, CONTENTS, [behind()] * 5) - whole).abs().max() < 1e-10
    seen.remove()
    assert max(largest) <= max(logits // 64, len(CONTENTS))


def test_one_pass_reads_the_contents_and_one_more_all_labels_whatever_their_number() -> None:
    model = model_of("llama")
    label_costs(model, CONTENTS[:1], [behind([(3,), (4,)])])  # what is found out at a model's first pass is not counted
    labels = [LabelIds(ids) for ids in itertools.product(range(3, 9), repeat=3)]
    calls: list[tuple[int, ...]] = []
    seen = model.hf.register_forward_pre_hook(
        lambda m, a, kwargs: calls.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    costs = label_costs(model, CONTENTS, [labels] * 5)
    seen.remove()
    assert calls == [(5, 11), (5, 6 + 36)]
    assert costs.exp().reciprocal().sum(1).max() < 1  # probabilities of 216 different texts
    assert label_costs(model, CONTENTS, [behind([(3,), (4,)])] * 5).shape == (5, 2)


def test_labels_that_depend_on_the_item_and_a_token_that_spans_the_border() -> None:
    """The rows of one item as whole texts, of which the second label's first token takes in the content's last."""
    model = model_of("qwen2")
    rows = [[12, 40, 5, 7, 8], [12, 40, 33, 9], [12, 40, 5, 7]]
    content, labels = part(rows, [3, 2, 3])
    assert (content, [label.given for label in labels]) == ((12, 40), [1, 0, 1])
    found = label_costs(model, [content, CONTENTS[0]], [labels, behind(LABELS[:3])])
    by_hand = [plain(model, [12, 40, 5], [7, 8]), plain(model, [12, 40], [33, 9]), plain(model, [12, 40, 5], [7])]
    assert found[0].tolist() == pytest.approx(by_hand, abs=1e-10)
    assert found[1].tolist() == pytest.approx([plain(model, CONTENTS[0], label) for label in LABELS[:3]], abs=1e-10)


def test_a_trie_has_every_label_and_no_last_token() -> None:
    trie = Trie(behind())
    assert len(trie) == 10
    assert [[*trie.tokens[path].tolist(), label[-1]] for path, label in zip(trie.paths, LABELS, strict=True)] == [
        list(label) for label in LABELS
    ]
    paths: dict[int, list[int]] = {k: [] for k in range(len(LABELS))}
    for node in (ROOT, *range(len(trie))):
        steps = trie.steps(np.array([node]))
        for label, token in zip(steps.labels.tolist(), steps.tokens.tolist(), strict=True):
            assert len(paths[label]) == (0 if node == ROOT else trie.depths[node] + 1)
            paths[label].append(token)
    assert [tuple(path) for path in paths.values()] == LABELS
    assert len(Trie(behind([(3,), (4,)]))) == 0


@pytest.mark.parametrize(
    ("contents", "labels", "message"),
    [
        ([[1], []], [behind()] * 2, "nothing stands before the labels"),
        ([[1]], [[LabelIds(())]], "no tokens of its own"),
        ([[1]], [[LabelIds((3, 4), 2)]], "no tokens of its own"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused(
    contents: list[list[int]], labels: list[list[LabelIds]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        label_costs(model_of("llama"), contents, labels)


def test_positions_beyond_the_models_are_refused() -> None:
    model = model_of("gpt2")
    assert label_costs(model, [[5] * 60], [behind([(1, 2, 3, 4)])]).isfinite().all()
    with (
        pytest.raises(InputError, match="the model has only 64"),
        el.use(model, capture_tokens(model, torch.tensor([[7, 9]]))),
    ):
        label_costs(model, [[5] * 60], [behind([(1, 2, 3, 4)])])
    with pytest.raises(InputError, match="nothing stands before"):
        part([[1, 2], [3, 4]], [1, 1])
    with pytest.raises(InputError, match="no tokens behind"):
        part([[1, 2], [1, 2]], [1, 2])


def test_a_long_prompt_is_cut_as_its_longest_label_needs_it(letters_model: Build) -> None:
    """So that all labels are compared behind one and the same text."""
    model = letters_model(has_start=True)
    labels = (" yes", " no", " yes or no", " not")
    items = [Item("abcdefghijklmnop", " no"), Item("abc", " no"), Item("ponmlkjihgfedcbaponmlk", " no")]
    costs = read_labels(model, items, labels, Reading(max_tokens=16))
    assert [own.tokens for own in costs.lengths] == [(4, 3, 10, 4)] * 3
    kept = ["lmnop", "abc", "onmlk"]  # 16 without the start and the longest label
    for k, label in enumerate(labels):
        batch = encode(model, [Item(prompt, label) for prompt in kept])
        with torch.no_grad():
            losses = token_losses(answer_logits(model, batch), batch.targets).sum(-1)
        assert np.allclose(costs.nats[:, k], losses, atol=1e-10)
