"""``elicitable check``: a table, one JSON object, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import elicitable as el
from elicitable.methods.adapter import write_adapter

Call = Callable[..., tuple[int, str, str]]


def test_the_command_ends_with_1_where_something_fails(tmp_path: Path, call: Call) -> None:
    model = el.load("toy:ascending")
    adapter = write_adapter(model, el.context("kv-prefix", model, length=1, init="random"), tmp_path / "adapter")
    given = ["check", str(adapter), "--model", "toy:ascending", "--quick"]
    code, out, _ = call(*given)
    assert code == 0
    assert f"{adapter} is sound on toy:ascending." in out
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    code, out, _ = call(*given, "--json")
    record = json.loads(out)
    assert (code, record["is_sound"]) == (1, False)
    assert record["findings"][0]["status"] == "fail"


def test_a_folder_without_an_adapter_is_bad_input(call: Call) -> None:
    code, out, err = call("check", "nothing", "--model", "toy:ascending")
    assert (code, out) == (2, "")
    assert "nothing: there is no such folder" in err
