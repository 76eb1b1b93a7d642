"""``elicitable compile`` as it is typed: what it writes and says, and what it refuses in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]
QUICK = ("--steps", "0", "--items", "12", "--test-items", "10", "--rank", "4", "-q")


def test_a_prompt_becomes_a_folder_and_its_losses_are_said(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "compiled"
    code, said, err = call(
        "compile",
        "--prompt",
        "7 0",
        "-m",
        "toy:ascending",
        "--task",
        "ascending",
        "--other-task",
        "add-1",
        *QUICK,
        "--out",
        str(out),
    )
    assert (code, err) == (0, "")
    for words in ("control (dealt targets)", "with the context", "Elsewhere, add-1", "On other text", "one change for"):
        assert words in said
    assert json.loads((out / "adapter_config.json").read_text())["peft_type"] == "LORA"
    record = json.loads((out / "elicitable.json").read_text())
    assert record["score"]["items"] == 10
    assert record["control"]["kl_nats"] > record["compiled"]["kl_nats"]
    code, said, _ = call(
        "inspect", "-m", "toy:ascending", "-t", "ascending", "-c", str(out), "--out", str(tmp_path / "i")
    )
    assert code == 0


def test_worked_examples_become_a_model_that_can_be_asked(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "model"
    given = ("-m", "toy:ascending", "--task", "ascending", "--examples", "2", "--to", "weights", *QUICK)
    code, said, _ = call("compile", *given, "--json", "--out", str(out))
    assert code == 0
    assert json.loads(said)["context_keys"] == 40
    assert (out / "config.json").is_file()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ((), "give one of"),
        (("--prompt", "7 0", "--examples", "2"), "give one of"),
        (("--prompt", "7 0", "--to", "lroa"), "did you mean 'lora'"),
        (("--prompt", "7 0", "--texts", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("--prompt", "7 0", "--keys", "0"), "keys must be"),
        (("--prompt", "7 0", "--to", "short-prefix"), "ask for fewer"),
        (("no-such-run",), "no-such-run: there is no such folder"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, err = call("compile", *typed, "-m", "toy:ascending", "--task", "ascending", *QUICK)
    assert (code, said) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not any(tmp_path.rglob("*"))
