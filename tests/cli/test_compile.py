"""``elicitable compile`` as it is typed: what it writes and says, and what it refuses in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.deploy.conftest import save_letters, text_of

import elicitable as el

Call = Callable[..., tuple[int, str, str]]
QUICK = ("--steps", "0", "--items", "12", "--test-items", "10", "-q")
QUICKEST = ("--steps", "0", "--items", "12", "--test-items", "2", "--rank", "2", "-q")


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
        "--rank",
        "4",
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
        (("--prompt", "7 0", "--to", "short-prefix", "--keys", "0"), "keys must be"),
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


@pytest.mark.parametrize(
    "others",
    [
        ("--prompt", "7 0", "--task", "descending"),
        ("--prompt", "7 1", "--task", "ascending"),
        ("--examples", "1", "--task", "ascending"),
        ("--prompt", "7 0", "--task", "ascending", "--seed", "1"),
        ("--prompt", "7 0", "--task", "ascending", "--other-task", "add-1"),
        ("--prompt", "7 0", "--task", "ascending", "--score", "exact-match"),
        ("--prompt", "7 0", "--task", "ascending", "--dtype", "float64"),
    ],
)
def test_other_contexts_and_tasks_go_to_other_folders(call: Call, tmp_path: Path, others: tuple[str, ...]) -> None:
    for _ in range(2):  # the same question has the same folder
        assert call("compile", "--prompt", "7 0", "--task", "ascending", "-m", "toy:ascending", *QUICKEST)[0] == 0
    assert call("compile", "-m", "toy:ascending", *QUICKEST, *others)[0] == 0
    made = [path.name for path in (tmp_path / "elicitable-runs").iterdir()]
    assert len(made) == 2
    assert all(name.startswith("compile-lora-toy-ascending-") for name in made)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("--texts", "texts.txt", "--items", "3"), "--items counts training prompts of --task"),
        (("--texts", "texts.txt", "--test-items", "3"), "--test-items counts items of --task and --other-task"),
        (("--texts", "texts.txt", "--keys", "3"), "--keys is the size of --to short-prefix, and --to is lora here"),
        (("--texts", "texts.txt", "--to", "weights", "--rank", "3"), "--rank is the size of --to lora"),
        (("--texts", "texts.txt", "--to", "short-prefix", "--rank", "3"), "--rank is the size of --to lora"),
        (("--texts", "texts.txt", "--score", "accuracy"), "--score says how the test split of --task is scored"),
    ],
)
def test_options_that_nothing_reads_are_refused(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("1 2\n3 4\n5 6\n")
    code, said, err = call("compile", "--prompt", "7 0", *typed, "-m", "toy:ascending", "-q")
    assert (code, said) == (2, "")
    assert says in err


def test_a_file_of_rows_is_read_as_its_options_say(call: Call, tmp_path: Path) -> None:
    model, rows = save_letters(tmp_path / "model"), tmp_path / "rows.csv"
    lines = [f"{n},{text_of(n)},{'yes' if n % 2 else 'no'},x" for n in range(60)]
    rows.write_text("\n".join(["id,note,kind,other", *lines]) + "\n", encoding="utf-8")
    given = ("--prompt", "say:", "-m", str(model), *QUICKEST)
    out, read = ("--out", str(tmp_path / "out")), ("--text-column", "note", "--label-column", "kind")
    code, _, err = call("compile", *given, "--task", str(rows), *out)
    assert (code, "column" in err) == (2, True)
    code, said, err = call("compile", *given, "--task", str(rows), *read, *out)
    assert (code, err) == (0, "")
    assert "Score on 2 test items" in said
    code, _, err = call("compile", "--prompt", "say:", "-m", str(model), *read)
    assert (code, "--text-column says how a task is read: give --task." in err) == (2, True)


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """The folder of a tuning, that is, of an artefact."""
    el.tune("toy:ascending", "ascending", method="kv-prefix", size=1, learning_rate=0.1, steps=2, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_folder_that_holds_an_artefact_is_refused_before_anything_is_computed(
    call: Call, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "race"
    shutil.copytree(tuned, run / "winner")
    plain = tmp_path / "plain"
    shutil.copytree(tuned, plain)
    for name in ("artefact.json", "elicitable.json"):
        (plain / name).unlink()
    monkeypatch.setattr("elicitable.cli.options.ModelOptions.load", lambda *_: pytest.fail("the model was loaded"))
    for folder, held in (
        (tuned, "artefact.json"),
        (run, "winner/artefact.json"),
        (plain, "adapter_config.json"),
    ):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        code, said, err = call(
            "compile", "--prompt", "7 0", "-m", "toy:ascending", "-t", "ascending", *QUICKEST, "--out", str(folder)
        )
        assert (code, said) == (2, "")
        assert f"{folder} holds something that was not compiled ({held}); choose another --out." in err
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
