"""``check`` passes what is sound and finds every fault that is planted."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.compiling.test_conversations import TEMPLATE
from tests.models.test_templates import chatting
from torch import Tensor, nn

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.adapter import write_adapter
from elicitable.methods.base import Adaptation
from elicitable.methods.catalog import method_named
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.race import check
from elicitable.race.check import QUICK, SLOW, Checked
from elicitable.testing import Subject, trace

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
END = 2


def model_of(name: str = "llama") -> Model:
    hf = tiny_model(name)
    hf.generation_config.eos_token_id = END
    return Model(hf, name=name)


def folder_of(model: Model, method: str, place: Path) -> Path:
    return write_adapter(model, Subject(method_named(method), model).trained(), place)


def status_of(checked: Checked) -> dict[str, str]:
    return {one.name: one.status for one in checked.findings}


def failed(checked: Checked) -> list[str]:
    assert all(one.advice for one in checked.findings if one.status == "fail")
    return [one.name for one in checked.findings if one.status == "fail"]


@pytest.mark.parametrize("method", ["soft-prompt", "kv-prefix", "lora"])
def test_what_is_written_here_is_sound_and_the_model_left_as_it_was(method: str, tmp_path: Path) -> None:
    model = model_of()
    folder, before = folder_of(model, method, tmp_path / "adapter"), trace(model)
    checked = el.check(model, folder)
    assert failed(checked) == [], checked
    assert [one.name for one in checked.findings] == ["read", *(name for name, _, _ in (*QUICK, *SLOW))]
    # the vocabulary of a tiny model has no text to forget
    assert {name for name, status in status_of(checked).items() if status == "n/a"} <= {"stops", "forgetting"}
    assert trace(model) == before


def test_a_quick_check_of_an_adaptation_says_what_cannot_be_said() -> None:
    model = model_of()
    checked = el.check(model, el.context("prompt", model, token_ids=[3, 4]), quick=True)
    assert [one.name for one in checked.findings] == ["read", *(name for name, _, _ in QUICK)]
    assert status_of(checked)["base model"] == "n/a"
    assert failed(checked) == []


def test_an_adapter_that_does_nothing_is_found(tmp_path: Path) -> None:
    model = model_of()
    fresh = method_named("lora").build(model, 2, 0)  # B = 0
    assert failed(el.check(model, write_adapter(model, fresh, tmp_path / "adapter"), quick=True)) == ["active"]


def test_what_needs_nothing_is_sound(tmp_path: Path) -> None:
    """That a model does a task as it is was called an adapter that does nothing, and not sound."""
    el.verdict("toy:ascending", "ascending", methods=["zero-shot"], seeds=1, test_items=20, out=tmp_path / "run")
    checked = el.check("toy:ascending", tmp_path / "run", quick=True)
    assert failed(checked) == []
    assert status_of(checked)["active"] == "n/a"


def test_answers_that_end_with_a_turn_end(tmp_path: Path) -> None:
    """Texts end with a token that no turn ends with, so what was trained on turns seemed to have lost the end."""
    model = chatting(TEMPLATE)
    model.hf.generation_config.eos_token_id = model.tokenizer.eos_token_id
    ends = {model.tokenizer.eos_token_id, model.tokenizer.convert_tokens_to_ids("<|end|>")}
    asked: list[set[int]] = []
    rows = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "ja"}]} for n in range(60)
    ]
    given: dict[str, Any] = {"size": 1, "learning_rate": 0.02, "steps": 12, "test_items": 4}
    el.tune(model, rows, method="kv-prefix", out=tmp_path / "tuned", **given)
    with pytest.MonkeyPatch.context() as patch:
        plain = check._written
        patch.setattr(check, "_written", lambda subject, ends: (asked.append(ends), plain(subject, ends))[1])
        el.check(model, tmp_path / "tuned")
    assert asked == [ends, ends]


class Hooked(Adaptation):
    """A fault, as a hook on a module's output."""

    kind = "hooked"

    def __init__(self, model: Model, module: Callable[[Model], nn.Module], change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module, self.change = module(model), change

    @contextmanager
    def weights(self, model: Model) -> Iterator[None]:
        def hook(module: nn.Module, given: Any, out: Any) -> Any:
            return self.change(out) if isinstance(out, Tensor) else (self.change(out[0]), *out[1:])

        with self.module.register_forward_hook(hook):
            yield


def test_an_adapter_that_sees_padding_is_found() -> None:
    model = model_of()
    across = Hooked(model, lambda m: m.anatomy.blocks[0], lambda x: x + 0.1 * x.mean(dim=1, keepdim=True))
    found = failed(el.check(model, across))
    assert "padding" in found
    assert "generate" in found  # it sees what comes later, too


def test_an_adapter_that_sees_other_rows_is_found() -> None:
    model = model_of()
    across = Hooked(model, lambda m: m.anatomy.blocks[0], lambda x: x + 0.1 * x.mean(dim=0, keepdim=True))
    assert "batch" in failed(el.check(model, across, quick=True))


def test_an_adapter_that_stays_is_found() -> None:
    model = model_of()

    class Stays(Adaptation):
        def weights(self, model: Model) -> Any:
            with torch.no_grad():
                model.hf.lm_head.weight.mul_(1.01)
            return super().weights(model)

    assert "left behind" in failed(el.check(model, Stays()))

    class StaysOnce(Adaptation):
        def weights(self, model: Model) -> Any:
            model.hf.mark_of_it = 1
            return super().weights(model)

    assert "left behind" in failed(el.check(model_of(), StaysOnce()))


@pytest.mark.parametrize("does_base_stop", [True, False])
def test_an_adapter_that_never_stops_is_found(does_base_stop: bool) -> None:
    model = model_of()
    if does_base_stop:
        ids = Subject(method_named("lora"), model).ids
        model.hf.generation_config.eos_token_id = int(model.generate(ids, max_new_tokens=3, do_sample=False)[0, -1])
    end = model.hf.generation_config.eos_token_id

    def never(logits: Tensor) -> Tensor:
        return logits.index_fill(-1, torch.tensor([end]), -1e4)

    assert "stops" in failed(el.check(model, Hooked(model, lambda m: m.hf.lm_head, never)))


def test_an_adapter_of_another_base_is_found(tmp_path: Path) -> None:
    model = model_of()
    folder = folder_of(model, "kv-prefix", tmp_path / "adapter")
    other = Model(copy.deepcopy(model.hf), name="another")
    with torch.no_grad():
        next(other.hf.parameters()).add_(1e-3)
    assert failed(el.check(other, folder, quick=True)) == ["base model"]
    assert failed(el.check(model, folder, quick=True)) == []


@pytest.mark.parametrize("heads", [4, 1])
@pytest.mark.parametrize("method", ["kv-prefix", "lora"])
def test_an_adapter_for_other_heads_is_found(method: str, heads: int, tmp_path: Path) -> None:
    other = model_of()
    config = copy.deepcopy(other.hf.config)
    config.num_key_value_heads = heads
    from transformers import AutoModelForCausalLM

    other = Model(AutoModelForCausalLM.from_config(config).double().eval(), name="other heads")
    assert failed(el.check(model_of(), folder_of(other, method, tmp_path / "adapter"))) == ["read"]


def test_a_table_cut_into_other_heads_of_the_same_width_is_found(tmp_path: Path) -> None:
    model = model_of()
    folder = folder_of(model, "kv-prefix", tmp_path / "adapter")
    path = folder / "adapter_config.json"
    (folder / "seal.json").unlink()
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_attention_heads": config["num_attention_heads"] * 2}))
    assert failed(el.check(model, folder)) == ["read"]


@pytest.mark.parametrize("method", ["soft-prompt", "kv-prefix", "lora"])
def test_a_truncated_file_and_one_with_more_in_it_are_found(method: str, tmp_path: Path) -> None:
    model = model_of()
    folder = folder_of(model, method, tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    with safe_open(path, "pt") as held:
        metadata = held.metadata()
    whole = path.read_bytes()
    path.write_bytes(whole[:-16])
    assert failed(el.check(model, folder)) == ["read"]
    path.write_bytes(whole)
    save_file({**load_file(path), "more": torch.ones(2)}, path, metadata)
    checked = el.check(model, folder)
    assert failed(checked) == ["read"]
    assert "not what was written" in checked.findings[0].found
    (folder / "seal.json").unlink()  # as in a folder of PEFT's
    assert "more" in el.check(model, folder).findings[0].found


def test_a_folder_without_an_adapter_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no artefact and no adapter"):
        el.check(model_of(), tmp_path)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tuned") / "adapter"
    el.tune("toy:ascending", "ascending", method="kv-prefix", learning_rate=0.1, steps=3, test_items=8, out=place)
    return place


def test_tune_ends_with_the_quick_checks(tuned: Path) -> None:
    record = json.loads((tuned / "elicitable.json").read_text())
    assert {one["name"]: one["status"] for one in record["checks"]} == {
        **dict.fromkeys(["read", *(name for name, _, _ in QUICK)], "pass"),
        "base model": "n/a",
    }


def test_transformers_says_nothing_of_what_a_check_tries(tmp_path: Path) -> None:
    """Some kinds of cache that others still use are out of date there, which is no fault of an adapter."""
    model, said = model_of(), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    try:
        el.check(model, el.context("kv-prefix", model, length=2, init="random", seed=0))
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert said == []
