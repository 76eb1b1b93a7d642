"""Whatever PEFT saves for a causal model is read with PEFT's own logits, or refused by name. None is passed over."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.catalog import method_named
from elicitable.methods.lora import LoRA
from elicitable.methods.peft_config import REFUSED_TYPES, peft_types
from elicitable.methods.peft_method import peft_method
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.testing import trace

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning")
IDS = torch.tensor([[5, 9, 2, 30, 41, 8, 17, 3], [7, 7, 1, 60, 4, 22, 11, 50]])
QV = {"target_modules": ["q_proj", "v_proj"]}
# A setting that fits the tiny Llama for every type of PEFT's registry, and more for what has options.
TYPES: dict[str, list[dict[str, Any]]] = {
    "LORA": [
        {**QV},
        {**QV, "use_rslora": True},
        {**QV, "use_dora": True},
        {**QV, "bias": "all"},
        {**QV, "bias": "lora_only"},
        {**QV, "lora_bias": True},
        {**QV, "init_lora_weights": "pissa"},
        {**QV, "init_lora_weights": "olora"},
        {**QV, "init_lora_weights": "orthogonal"},
        {**QV, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 7}},
        {**QV, "layers_to_transform": [1]},
        {"target_modules": r".*\.1\.mlp\.(up|down)_proj"},
        {"target_modules": "all-linear"},
        {**QV, "exclude_modules": ["layers.0.self_attn.q_proj"]},
        {**QV, "modules_to_save": ["lm_head", "norm"]},
        {**QV, "trainable_token_indices": [1, 5, 17]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": [], "target_parameters": ["q_proj.weight"]},
        {**QV, "use_qalora": True, "qalora_group_size": 4},
        {**QV, "lora_dropout": 0.3},
    ],
    "ADALORA": [{**QV, "total_step": 10, "init_r": 4, "target_r": 2}],
    "ADAMSS": [{**QV, "r": 8, "num_subspaces": 2}],
    "ADAPTION_PROMPT": [{"adapter_len": 4, "adapter_layers": 1}],
    "BEFT": [{**QV}],
    "BOFT": [{**QV, "boft_block_size": 4}, {**QV, "boft_block_size": 4, "bias": "all"}],
    "C3A": [{**QV, "block_size": 8}],
    "CARTRIDGE": [{"num_virtual_tokens": 3}],
    "CPT": [{"num_virtual_tokens": 3, "cpt_token_ids": [4, 5, 6], "cpt_tokens_type_mask": [1, 2, 3]}],
    "DEFT": [{**QV}],
    "DELORA": [{**QV}],
    "FOURIERFT": [{**QV, "n_frequency": 20}],
    "FROD": [{**QV, "progressbar": False}],
    "GLORA": [{**QV}],
    "GRALORA": [{**QV, "r": 4}],
    "HIRA": [{**QV}],
    "HRA": [{**QV}],
    "IA3": [{"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}],
    "LILY": [{**QV}],
    "LN_TUNING": [{"target_modules": ["input_layernorm", "norm"]}],
    "LOHA": [{**QV}],
    "LOKR": [{**QV}],
    "MISS": [{**QV}],
    "MULTITASK_PROMPT_TUNING": [{"num_virtual_tokens": 3, "num_tasks": 1}],
    "OFT": [{**QV, "oft_block_size": 8}, {**QV, "r": 4, "oft_block_size": 0, "coft": True}],
    "OSF": [{**QV, "effective_rank": 4}],
    "PEANUT": [{**QV}],
    "PREFIX_TUNING": [{"num_virtual_tokens": 3}, {"num_virtual_tokens": 3, "prefix_projection": True}],
    "PROMPT_TUNING": [{"num_virtual_tokens": 3}],
    "PSOFT": [{**QV}],
    "PVERA": [{**QV}],
    "P_TUNING": [{"num_virtual_tokens": 3, "encoder_hidden_size": 8}],
    "RANDLORA": [{**QV}],
    "ROAD": [{**QV, "group_size": 8}],
    "SHIRA": [{**QV, "random_seed": 3}],
    "SUPERTUNING": [{**QV, "sparsity": 0.9}],
    "TINYLORA": [{**QV}],
    "TRAINABLE_TOKENS": [{"token_indices": [1, 5, 7]}],
    "UNILORA": [{**QV}],
    "VBLORA": [{"target_modules": ["q_proj"], "num_vectors": 10, "vector_length": 8}],
    "VERA": [{**QV}, {**QV, "save_projection": False}],
    "WAVEFT": [{**QV, "n_frequency": 20}],
}
FLOAT64, FLOAT32 = torch.float64, torch.float32


def types_of(kind: str, given: dict[str, Any], nth: int) -> list[torch.dtype]:
    """Both, for the first setting of a type; but decompositions are what PEFT refuses in float64."""
    if kind == "PSOFT" or given.get("init_lora_weights") in ("pissa", "olora"):
        return [FLOAT32]
    return [FLOAT64, FLOAT32] if nth == 0 else [FLOAT64]


CASES = [
    pytest.param(kind, given, dtype, id=f"{kind.lower()}-{i}-{str(dtype)[-7:]}")
    for kind, options in TYPES.items()
    for i, given in enumerate(options)
    for dtype in types_of(kind, given, i)
]


def model_of(name: str = "llama", dtype: torch.dtype = torch.float64) -> Model:
    hf = tiny_model(name).to(dtype)
    hf.generation_config.eos_token_id = None
    return Model(hf, name=name)


def config_of(kind: str, given: dict[str, Any]) -> Any:
    """PEFT's configuration; ranks of 4 where nothing else is said and the type has one."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    made: Any = PEFT_TYPE_TO_CONFIG_MAPPING[kind]  # type: ignore[index]
    small = {"r": 4} if "r" in made.__dataclass_fields__ and kind not in ("OFT", "SUPERTUNING") else {}
    return made(task_type="CAUSAL_LM", **{**small, **given})


def saved_by_peft(hf: Any, config: Any, folder: Path, seed: int = 5) -> None:
    """Build an adapter with PEFT, move all its numbers, and save it as people do."""
    from peft import get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft = get_peft_model(copy.deepcopy(hf), config)
        with torch.no_grad():
            for parameter in peft.parameters():
                if parameter.requires_grad and parameter.is_floating_point():
                    parameter.add_(0.2 * torch.randn_like(parameter))
        peft.save_pretrained(folder)


def reloaded(hf: Any, folder: Path, ids: Tensor = IDS, **given: Any) -> Tensor:
    """The logits of PEFT's own reloaded model."""
    from peft import PeftModel

    peft = PeftModel.from_pretrained(copy.deepcopy(hf), folder).eval()
    with torch.no_grad():
        return peft(input_ids=ids, attention_mask=torch.ones_like(ids), **given).logits[:, -ids.shape[1] :]


def ours(model: Model, adaptation: Any) -> Tensor:
    with torch.no_grad(), el.use(model, adaptation):
        return model(input_ids=IDS).logits


def test_every_type_of_peft_is_either_tried_here_or_refused_by_name() -> None:
    assert set(TYPES) | set(REFUSED_TYPES) == set(peft_types())
    assert not set(TYPES) & set(REFUSED_TYPES)


@pytest.mark.parametrize(("kind", "given", "dtype"), CASES)
def test_what_peft_saves_has_the_logits_of_peft(
    kind: str, given: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    model = model_of(dtype=dtype)
    saved_by_peft(model.hf, config_of(kind, given), tmp_path / "theirs")
    plain, before = ours(model, []), trace(model)
    read = read_adapter(model, tmp_path / "theirs")
    is_multitask = kind == "MULTITASK_PROMPT_TUNING"
    theirs = reloaded(model.hf, tmp_path / "theirs", **({"task_ids": torch.tensor([0, 0])} if is_multitask else {}))
    is_weights = not read.keys_per_layer()
    # weights are PEFT's own modules; a context stands at other positions, whose angles are computed in float32
    bound = {FLOAT64: 1e-10 if is_weights else 2e-5, FLOAT32: 1e-5 if is_weights else 1e-4}[dtype]
    found = ours(model, read)
    assert float((found - theirs).abs().max()) <= bound
    assert float((found - plain).abs().max()) > 1e-4  # it does something
    if kind in ("PREFIX_TUNING", "CPT", "P_TUNING", "CARTRIDGE", "MULTITASK_PROMPT_TUNING") or dtype == FLOAT32:
        return
    write_adapter(model, read, tmp_path / "again")
    assert float((reloaded(model.hf, tmp_path / "again") - theirs).abs().max()) <= bound
    assert trace(model) == before


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("gpt2", {"target_modules": ["c_attn", "wte"]}),
        ("mixtral", {"target_modules": ["o_proj"], "target_parameters": ["experts.gate_up_proj"]}),
        ("gpt_oss", {"target_modules": [], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_other_layers_than_linear_ones_are_peft_s_too(name: str, given: dict[str, Any], tmp_path: Path) -> None:
    """Conv1D, embeddings, and experts, whose single parameters PEFT takes out of their module at every call."""
    model = model_of(name)
    saved_by_peft(model.hf, config_of("LORA", given), tmp_path)
    read, before = read_adapter(model, tmp_path), trace(model)
    theirs = reloaded(model.hf, tmp_path)
    assert float((ours(model, read) - theirs).abs().max()) <= 1e-10
    assert trace(model) == before


@pytest.mark.parametrize("is_tied", [False, True], ids=["apart", "tied"])
@pytest.mark.parametrize(
    "given",
    [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}, {"trainable_token_indices": [65, 3]}],
    ids=["plain", "modules_to_save", "tokens"],
)
def test_a_grown_vocabulary_comes_with_its_rows_and_goes_again(
    is_tied: bool, given: dict[str, Any], tmp_path: Path
) -> None:
    from peft import PeftModel, get_peft_model

    model = model_of()
    if is_tied:
        model.hf.config.tie_word_embeddings = True
        model.hf.tie_weights()
    grown = copy.deepcopy(model.hf)
    grown.resize_token_embeddings(68, mean_resizing=False)
    again = copy.deepcopy(grown)
    peft = get_peft_model(grown, config_of("LORA", {**QV, **given}))
    with torch.no_grad():
        for parameter in peft.parameters():
            parameter.add_(torch.randn_like(parameter) if parameter.requires_grad else 0.0)
    peft.save_pretrained(tmp_path, save_embedding_layers=True)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(again, tmp_path).eval()(input_ids=IDS).logits
    before = trace(model)
    read = read_adapter(model, tmp_path)
    found = ours(model, read)
    assert found.shape == (*IDS.shape, 68)
    assert float((found - theirs).abs().max()) <= 1e-10
    assert trace(model) == before


def test_a_grown_vocabulary_without_all_its_rows_is_refused(tmp_path: Path) -> None:
    model = model_of()
    grown = copy.deepcopy(model.hf)
    grown.resize_token_embeddings(68, mean_resizing=False)
    saved_by_peft(grown, config_of("LORA", {"target_modules": ["embed_tokens"]}), tmp_path)
    with pytest.raises(InputError, match="68 tokens, the model has 64, and the file holds only one"):
        read_adapter(model, tmp_path)


def test_one_adapter_around_another_is_both(tmp_path: Path) -> None:
    """Two LoRAs on the same layers add up, in either order and with a context; each alone is as before."""
    from peft import PeftModel

    model = model_of()
    for seed in (1, 2):
        saved_by_peft(model.hf, config_of("LORA", QV), tmp_path / str(seed), seed)
    one, two = (read_adapter(model, tmp_path / str(seed)) for seed in (1, 2))
    peft = PeftModel.from_pretrained(copy.deepcopy(model.hf), tmp_path / "1", adapter_name="one")
    peft.load_adapter(tmp_path / "2", adapter_name="two")
    peft.base_model.set_adapter(["one", "two"])
    with torch.no_grad():
        theirs = peft.eval()(input_ids=IDS).logits
    before, alone = trace(model), ours(model, one)
    for both in ([one, two], [two, one]):
        # sums in another order
        assert float((ours(model, both) - theirs).abs().max()) < 1e-10
    assert torch.equal(ours(model, one), alone)
    context = el.context("prompt", model, token_ids=[3, 4])
    assert not torch.equal(ours(model, [one, context]), ours(model, context))
    assert trace(model) == before


def test_two_that_replace_the_same_weights_are_refused_together(tmp_path: Path) -> None:
    model = model_of()
    saved_by_peft(model.hf, config_of("LORA", {**QV, "bias": "all"}), tmp_path / "a", 1)
    if not any("bias" in name for name, _ in model.hf.named_parameters()):
        model = model_of("qwen2")
        saved_by_peft(model.hf, config_of("LORA", {**QV, "bias": "all"}), tmp_path / "a", 1)
    one, two = read_adapter(model, tmp_path / "a"), read_adapter(model, tmp_path / "a")
    before = trace(model)
    with pytest.raises(InputError, match="replaces 'bias' of the model"):
        ours(model, [one, two])
    with pytest.raises(InputError, match="already in use"):
        ours(model, [one, one])
    assert trace(model) == before


FIRSTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "head": {"target_modules": ["lm_head"]},
}


@pytest.mark.parametrize("first", FIRSTS.values(), ids=FIRSTS)
def test_what_is_read_inside_another_is_what_the_list_of_both_is(first: dict[str, Any], tmp_path: Path) -> None:
    """PEFT, which builds the second one, never sees the first one's layers."""
    model = model_of()
    saved_by_peft(model.hf, config_of("LORA", {**QV, **first}), tmp_path / "a", 1)
    saved_by_peft(model.hf, config_of("LORA", QV), tmp_path / "b", 2)
    context, before = el.context("prompt", model, token_ids=[3, 4]), trace(model)
    expected = ours(model, [tmp_path / "a", context, tmp_path / "b"])
    with el.use(model, [tmp_path / "a", context]):
        outside = model(input_ids=IDS).logits
        assert torch.equal(ours(model, tmp_path / "b"), expected)
        assert torch.equal(model(input_ids=IDS).logits, outside)
    assert not torch.equal(outside, expected)
    assert trace(model) == before


def test_reading_leaves_every_module_in_its_own_mode(tmp_path: Path) -> None:
    model = model_of()
    saved_by_peft(model.hf, config_of("LORA", QV), tmp_path)
    for is_training in (True, False):
        model.hf.train(is_training)
        model.anatomy.blocks[0].train(not is_training)
        before = trace(model)
        read_adapter(model, tmp_path)
        assert trace(model) == before


@pytest.mark.parametrize("name", ["lora", "full", "peft:ia3"])
def test_what_is_built_inside_an_adapter_stands_on_the_model_s_own_weights(name: str, tmp_path: Path) -> None:
    method = peft_method(name) if ":" in name else method_named(name)
    model = model_of()
    saved_by_peft(model.hf, config_of("LORA", QV), tmp_path)
    before, numbers = trace(model), method.numbers(model, 1)
    with el.use(model, tmp_path):
        outside = model(input_ids=IDS).logits
        built = method.build(model, 1)
        assert sum(one.numel() for one in built.parameters()) == numbers == method.numbers(model, 1)
        assert torch.equal(ours(model, built), outside)  # as it starts it changes nothing
    assert trace(model) == before


# and whether a copy of the model's own is in it, which fewer digits would change
MOVED: dict[str, tuple[str, dict[str, Any], bool]] = {
    "lora": ("LORA", {}, False),
    "modules_to_save": ("LORA", {"modules_to_save": ["lm_head"]}, True),
    "bias": ("LORA", {"bias": "all"}, True),
    "ia3": ("IA3", {"target_modules": ["k_proj"], "feedforward_modules": []}, False),
    "vera": ("VERA", {}, False),
    "oft": ("OFT", {"oft_block_size": 8}, False),
}


@pytest.mark.parametrize(("kind", "given", "is_refused"), MOVED.values(), ids=MOVED)
def test_an_adapter_goes_with_its_model_to_another_type_or_is_refused(
    kind: str, given: dict[str, Any], is_refused: bool, tmp_path: Path
) -> None:
    model = model_of("qwen2", FLOAT32)
    saved_by_peft(model.hf, config_of(kind, {**QV, **given}), tmp_path)
    read = read_adapter(model, tmp_path)
    expected = ours(model, read)
    model.hf.to(FLOAT64)
    assert float((ours(model, read) - ours(model, tmp_path)).abs().max()) <= 1e-10
    model.hf.to(FLOAT32)
    assert torch.equal(ours(model, read), expected)
    model.hf.to(torch.bfloat16)
    before = trace(model)
    if is_refused:
        with pytest.raises(InputError, match="the model has changed since"):
            ours(model, read)
    else:
        assert torch.equal(ours(model, read), ours(model, tmp_path))
    assert trace(model) == before


def test_a_copy_of_weights_that_have_changed_is_refused(tmp_path: Path) -> None:
    """PiSSA's layers hold what a weight is without its largest parts."""
    model = model_of(dtype=FLOAT32)
    saved_by_peft(model.hf, config_of("LORA", {**QV, "init_lora_weights": "pissa"}), tmp_path)
    read = read_adapter(model, tmp_path)
    expected, weight = ours(model, read), model.hf.get_parameter("model.layers.0.self_attn.q_proj.weight")
    model.hf.to(FLOAT64)
    assert float((ours(model, read) - expected).abs().max()) < 1e-4
    model.hf.to(FLOAT32)
    read_adapter(model, tmp_path)  # PEFT writes into the weights meanwhile, and they are as before
    assert torch.equal(ours(model, read), expected)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(InputError, match=r"the model has changed since .*; read or build it again"):
        ours(model, read)
    assert not torch.equal(ours(model, tmp_path), expected)
    model.hf.to(torch.bfloat16)
    with pytest.raises(InputError, match="the model has changed since"):
        ours(model, read)


def test_a_model_that_holds_an_adapter_of_peft_s_is_refused_another(tmp_path: Path) -> None:
    model = model_of()
    saved_by_peft(model.hf, config_of("LORA", QV), tmp_path)
    model.hf.load_adapter(tmp_path, adapter_name="mine")
    before, plain = trace(model), ours(model, [])
    with pytest.raises(InputError, match=r"q_proj: PEFT's Linear.*Merge or unload it first"):
        read_adapter(model, tmp_path)
    for method in (peft_method("peft:ia3"), LoRA()):
        with pytest.raises(InputError, match="Merge or unload it first"):
            method.build(model, 1, modules=["k_proj"])
    assert torch.equal(ours(model, []), plain)
    assert trace(model) == before


def folder_of(tmp_path: Path, model: Model, kind: str = "LORA", **given: Any) -> Path:
    saved_by_peft(model.hf, config_of(kind, {**QV, **given}), tmp_path / "adapter")
    return tmp_path / "adapter"


def edited(folder: Path, **changes: Any) -> Path:
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": ...}, r"r is missing; expected a number"),
        ({"r": "x"}, r"r is 'x'; expected a whole number"),
        ({"r": None}, r"r is None; expected a whole number"),
        ({"r": 2.5}, r"r is 2\.5; expected a whole number"),
        ({"r": True}, r"r is True; expected a whole number"),
        ({"r": 0}, r"PEFT cannot put this lora adapter into llama: .*positive"),
        ({"r": 10**7}, r"asks for a tensor of 320,000,000 numbers"),
        ({"r": 10**30}, r"adapter: "),
        ({"r": 5}, r"size mismatch for .*lora_A"),
        ({"lora_alpha": "x"}, r"lora_alpha is 'x'; expected a whole number"),
        ({"lora_alpha": float("nan")}, r"NaN is no number of JSON"),
        ({"lora_alpha": ...}, r"lora_alpha is missing"),
        ({"rank_pattern": None}, r"rank_pattern is None; expected an object"),
        ({"rank_pattern": {"q_proj": "x"}}, r"adapter: "),
        ({"target_modules": [None]}, r"target_modules is \[None\]; expected"),
        ({"target_modules": 3}, r"target_modules is 3; expected"),
        ({"target_modules": ["nothing"]}, r"PEFT cannot put .*nothing"),
        ({"target_modules": "(("}, r"PEFT cannot put"),
        ({"target_modules": ["q_proj"]}, r"belong nowhere in this model: .*v_proj"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, r"lacks tensors of the adapter: .*o_proj"),
        ({"bias": "some"}, r"bias is 'some'; expected 'none' or 'all' or 'lora_only'"),
        ({"use_dora": "yes"}, r"use_dora is 'yes'; expected true or false"),
        ({"from_the_future": 3}, r"from_the_future is 3, which this version of PEFT does not know"),
        ({"layer_replication": [[0, 2], [0, 2]]}, r"layer_replication is not read"),
        ({"alora_invocation_tokens": [3]}, r"alora_invocation_tokens is not read"),
        ({"init_lora_weights": "pissa_niter_4"}, r"draws another decomposition"),
        ({"init_lora_weights": "corda"}, r"PEFT cannot put"),
        ({"task_type": "SEQ_CLS"}, r"task_type is 'SEQ_CLS'; expected CAUSAL_LM"),
        ({"peft_type": "XLORA"}, r"of type XLORA is not read: it mixes"),
        ({"peft_type": "POLY"}, r"of type POLY is not read: every row needs a task id"),
        ({"peft_type": "SHADOW"}, r"of type SHADOW is not read: it runs a second network"),
        ({"peft_type": "NEW"}, r"an adapter of type NEW; elicitable reads .*LORA"),
        ({"peft_type": None}, r"an adapter of type None; elicitable reads"),
        ({"peft_type": ["LORA"]}, r"adapter of type"),
    ],
    ids=lambda one: "" if isinstance(one, str) else "-".join(f"{k}-{v}"[:24] for k, v in one.items()),
)
def test_a_broken_configuration_is_refused_and_named(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = model_of()
    folder, before = edited(folder_of(tmp_path, model), **changes), trace(model)
    with pytest.raises(InputError, match=said) as raised:
        read_adapter(model, folder)
    assert str(folder) in str(raised.value)
    assert trace(model) == before


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda held: {**held, "extra.weight": torch.ones(2)}, "belong nowhere in this model: extra.weight"),
        (lambda held: {**held, "copy.lora_A.weight": held[f"{Q_PROJ}.lora_A.weight"].clone()}, "belong nowhere"),
        (lambda held: {**held, f"{Q_PROJ}.base_layer.weight": torch.ones(32, 32)}, "replaces weights of the model"),
        (
            lambda held: {k: v for k, v in held.items() if k != f"{Q_PROJ}.lora_B.weight"},
            "lacks tensors of the adapter",
        ),
        (lambda held: {k: v[:, :-1].clone() for k, v in held.items()}, "size mismatch"),
        (lambda held: {}, "lacks tensors"),
    ],
    ids=["extra", "copy", "base", "missing", "shape", "none"],
)
def test_broken_tensors_are_refused_and_leave_no_trace(edit: Any, said: str, tmp_path: Path) -> None:
    model = model_of()
    folder = folder_of(tmp_path, model)
    path = folder / "adapter_model.safetensors"
    save_file(edit(load_file(path)), path, {"format": "pt"})
    before = trace(model)
    with pytest.raises(InputError, match=said):
        read_adapter(model, folder)
    assert trace(model) == before


def test_many_tensors_that_are_each_allowed_are_refused_together(tmp_path: Path) -> None:
    """300,000 × 16 numbers in every part of every matrix: none is too large alone, and all of them take gigabytes."""
    saved_by_peft(model_of().hf, config_of("GRALORA", TYPES["GRALORA"][0]), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 300_000}))
    with pytest.raises(InputError, match="numbers more than an adapter of this model can need"):
        read_adapter(model_of(), tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, model_of())
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"adapter_model\.safetensors cannot be read"):
        read_adapter(model_of(), folder)


@pytest.mark.parametrize(
    "given",
    [
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [3]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": [], "target_parameters": ["q_proj.weight"]},
    ],
    ids=lambda one: next(iter(one)),
)
def test_an_exception_inside_leaves_the_model_as_it_was(given: dict[str, Any], tmp_path: Path) -> None:
    model = model_of(dtype=FLOAT32)
    read, before = read_adapter(model, folder_of(tmp_path, model, **given)), trace(model)
    with pytest.raises(IndexError), el.use(model, read):
        model(input_ids=IDS + 1000)  # inside the embeddings, with every layer in place
    assert trace(model) == before


def test_a_failure_halfway_through_peft_leaves_the_model_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT has wrapped layers and written into base weights (PiSSA) when it fails: all is taken back."""
    from peft.tuners.lora import Linear

    model = model_of(dtype=FLOAT32)
    folder = folder_of(tmp_path, model, init_lora_weights="pissa")
    whole, calls = Linear.pissa_init, []

    def fails_at_the_third(self: Any, *given: Any) -> None:
        calls.append(self)
        whole(self, *given)
        if len(calls) == 3:
            raise RuntimeError("on purpose")

    before = trace(model)
    monkeypatch.setattr(Linear, "pissa_init", fails_at_the_third)
    with pytest.raises(InputError, match="on purpose"):
        read_adapter(model, folder)
    assert len(calls) == 3
    assert trace(model) == before


def test_what_is_read_is_watched_and_trained_on(tmp_path: Path) -> None:
    model = model_of()
    read = read_adapter(model, folder_of(tmp_path, model, "IA3", target_modules=["v_proj"], feedforward_modules=[]))
    with torch.no_grad(), el.watch(model, [read, el.context("prompt", model, token_ids=[3, 4])]) as scope:
        model(input_ids=IDS)
    assert bool((scope.prefix_mass > 0).all())
    before = ours(model, read)
    with el.use(model, read):
        model(input_ids=IDS).logits.sum().backward()
    assert all(p.grad is not None for p in read.parameters())
    with torch.no_grad():
        for parameter in read.parameters():
            parameter.mul_(2.0)
    assert not torch.equal(ours(model, read), before)


CONTEXT = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("PREFIX_TUNING", {"num_attention_heads": 4, "token_dim": 16}, "num_attention_heads is 4; expected 2"),
        ("PREFIX_TUNING", {"num_layers": 4}, "num_layers is 4; expected 2"),
        ("PREFIX_TUNING", {"num_virtual_tokens": 2}, "num_virtual_tokens is 2; expected 3"),
        ("PREFIX_TUNING", {"mystery": 1}, "mystery is 1, which this version of PEFT does not know"),
        ("PROMPT_TUNING", {"num_transformer_submodules": 2}, "num_transformer_submodules is 2; expected 1"),
        ("PROMPT_TUNING", {"task_type": "SEQ_2_SEQ_LM"}, "task_type is 'SEQ_2_SEQ_LM'"),
        ("PROMPT_TUNING", {"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ("MULTITASK_PROMPT_TUNING", {"num_tasks": 2}, "tasks is not read"),
    ],
)
def test_a_context_is_refused_where_something_in_it_is_not_understood(
    kind: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    model = model_of()
    saved_by_peft(model.hf, config_of(kind, {"num_virtual_tokens": 3}), tmp_path)
    with pytest.raises(InputError, match=said):
        read_adapter(model, edited(tmp_path, **changes))


def test_a_context_with_a_tensor_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    model = model_of()
    saved_by_peft(model.hf, config_of("PROMPT_TUNING", {"num_virtual_tokens": 3}), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(path), "more": torch.ones(2)}, path)
    with pytest.raises(InputError, match="tensors that belong to no PROMPT_TUNING: more"):
        read_adapter(model, tmp_path)
