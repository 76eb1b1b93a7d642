"""Where memory runs out nothing is called a fault of what was given: such an arm would be left out for good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch

import elicitable as el
from elicitable import untrusted
from elicitable.methods import adapter, peft_method, peft_weights
from elicitable.methods.catalog import method_named
from elicitable.models import files, templates
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.scores.catalog import score_from
from elicitable.scores.of_task import TaskScore
from elicitable.values import Message


def full(*given: Any, **named: Any) -> NoReturn:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def built(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(peft_method, "PeftWeights", full)
    method_named("peft:ia3").build(model, 1)


def read_by_peft(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    adapter.write_adapter(model, method_named("peft:ia3").build(model, 1), folder)
    patch.setattr(peft_weights, "PeftWeights", full)
    el.read(folder).adaptation(model)


def read(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    adapter.write_adapter(model, method_named("kv-prefix").build(model, 2, 0), folder)
    patch.setattr(adapter, "_read", full)
    adapter.read_adapter(model, folder)


def tensors(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    adapter.write_adapter(model, method_named("kv-prefix").build(model, 2, 0), folder)
    patch.setattr(untrusted, "aligned", full)
    adapter.read_adapter(model, folder)


def embeddings(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def forward(*given: Any, **named: Any) -> NoReturn:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory")

    patch.setattr(model.hf, "forward", forward)
    assert model.runs_on_embeddings


def own_score(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    score_from(full).point(["a"], ["a"])


def of_task(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    TaskScore("mine", "", lambda targets, answers: [1.0], full).point(["a"], ["a"])


def template(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(templates, "_clock", lambda tokenizer, tools: {})
    fake = type("Tokenizer", (), {"apply_chat_template": full, "eos_token": None})()
    templates.render(fake, [Message("user", "a")])


def tokenizer_of(model: Model, folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    patch.setattr(files, "AutoTokenizer", SimpleNamespace(from_pretrained=full))
    files.tokenizer_in(str(folder))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "what", [built, read_by_peft, read, tensors, embeddings, own_score, of_task, template, tokenizer_of]
)
def test_it_is_said_to_be_memory(what: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"out of memory|can't allocate memory"):
        what(Model(tiny_model("llama")), tmp_path, monkeypatch)
