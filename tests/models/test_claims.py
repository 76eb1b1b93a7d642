"""A configuration that asks for more than its files hold is refused before there is memory for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.models import letters_gguf
from transformers import AutoConfig, AutoModelForCausalLM

from elicitable.errors import InputError
from elicitable.models.claims import held_to
from elicitable.models.load import load

TINY: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "phi": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "mixtral": {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "num_local_experts": 4,
    },
    "gemma2": {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16,
    },
}  # fmt: skip
#: Loads each folder once for each number in its configuration that is made large; prints what came, and the peak.
PROGRAM = """
import json, pathlib, sys
import torch
from elicitable.errors import ElicitableError
from elicitable.models.load import load
torch.set_num_threads(1)
ends = {}
for folder in map(pathlib.Path, sys.argv[1:]):
    good = json.loads((folder / "config.json").read_text())
    load(folder)
    for name, number in good.items():
        for large in (10**4, 10**9) if type(number) is int else ():
            (folder / "config.json").write_text(json.dumps({**good, name: large}))
            try:
                load(folder)
                ends[f"{folder}: {name}={large}"] = "taken"
            except ElicitableError as error:
                ends[f"{folder}: {name}={large}"] = str(error)
status = pathlib.Path("/proc/self/status")  # of this program alone; what getrusage says holds its parent's too
lines = status.read_text().splitlines() if status.exists() else []
peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
print(json.dumps([ends, int(peaks[0]) / 1024 if peaks else 0.0]))
"""


def saved(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=32, **TINY[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_no_number_of_a_configuration_asks_for_memory_that_the_files_do_not_account_for(tmp_path: Path) -> None:
    """One such number took 20 GB before the folder was refused."""
    folders = [saved(kind, tmp_path / kind) for kind in TINY]
    asked = [sys.executable, "-c", PROGRAM, *map(str, folders)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(asked, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    ends, peak = json.loads(done.stdout.splitlines()[-1])
    assert peak < 1024, ends
    for kind, folder in zip(TINY, folders, strict=True):
        layers = next(name for name in ("num_hidden_layers", "n_layer") if name in TINY[kind])
        assert ends[f"{folder}: {layers}=1000000000"] != "taken"
    assert all(end == "taken" or str(tmp_path) in end for end in ends.values())


def test_what_is_asked_for_and_what_is_held_are_named(tmp_path: Path) -> None:
    config = json.loads((saved("llama", tmp_path) / "config.json").read_text())
    for name, number, asked in (
        ("num_hidden_layers", 10**6, "more than 10,3"),
        ("head_dim", 10**8, "parameters of 6,4"),
        ("intermediate_size", 10**8, "parameters of 3,2"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, name: number}))
        with pytest.raises(InputError, match=rf"its configuration asks for {asked}.*and its files hold [\d,]+ "):
            load(tmp_path)


def test_a_gguf_file_is_held_to_its_size(tmp_path: Path) -> None:
    letters_gguf(tmp_path / "model.gguf")
    with held_to([tmp_path / "model.gguf"], "model.gguf"):
        torch.nn.Linear(100, 100, device="meta")
        with pytest.raises(InputError, match=r"model\.gguf cannot be loaded: its configuration asks for parameters of"):
            torch.nn.Linear(10**5, 10**5, device="meta")


def test_nothing_is_counted_outside_and_a_replaced_weight_counts_once(tmp_path: Path) -> None:
    files = [saved("llama", tmp_path) / "model.safetensors"]
    with held_to(files, "it"):
        layer = torch.nn.Linear(2**11, 2**11, bias=False, device="meta")
        for _ in range(20):
            layer.weight = torch.nn.Parameter(torch.empty_like(layer.weight))
    torch.nn.Linear(2**20, 2**20, device="meta")


def test_a_gguf_file_that_lacks_weights_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers put random numbers in the places of weights that a split file has elsewhere; they were sealed."""
    import gguf

    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path / "cache"))
    add = gguf.GGUFWriter.add_tensor
    with monkeypatch.context() as patch:
        patch.setattr(
            gguf.GGUFWriter, "add_tensor",
            lambda self, name, *given: None if name.startswith("blk.0.ffn") else add(self, name, *given),
        )  # fmt: skip
        letters_gguf(tmp_path / "model.gguf")
    with pytest.raises(InputError, match=r"is not a whole LlamaForCausalLM: \d of its weights .* take the whole file"):
        load(str(tmp_path / "model.gguf"), device="cpu")
    assert not list((tmp_path / "cache").glob("models/*"))
