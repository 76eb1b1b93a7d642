"""The command line as a person meets it: bad input is one sentence and exit code 2, results are one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from elicitable.durations import seconds_of
from elicitable.errors import InputError

ROWS = [f"text number {i} about things,{'good' if i % 2 else 'bad'}" for i in range(60)]


def refused(result: tuple[int, str, str], *words: str) -> None:
    """Exit code 2, nothing on standard output, the words in one message, no traceback."""
    code, out, err = result
    assert code == 2, (out, err)
    assert out == ""
    assert "Traceback" not in err
    message = " ".join(err.split("error: ")[-1].split())
    for word in words:
        assert word in message, message


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models that are no causal decoders, or not whole."""
    import torch
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    folder = tmp_path_factory.mktemp("models")
    small = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        BertForMaskedLM(BertConfig(**small, intermediate_size=8)).save_pretrained(folder / "bert")
        t5 = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
        T5ForConditionalGeneration(t5).save_pretrained(folder / "t5")
        LlamaModel(LlamaConfig(**small, **ids, intermediate_size=8)).save_pretrained(folder / "headless")
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, **ids))
        gpt2.save_pretrained(folder / "pickled")
        torch.save(gpt2.state_dict(), folder / "pickled" / "pytorch_model.bin")
        (folder / "pickled" / "model.safetensors").unlink()
        gpt2.save_pretrained(folder / "cut")
        whole = (folder / "cut" / "model.safetensors").read_bytes()
        (folder / "cut" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.gguf").write_bytes(bytes(range(256)) * 4)
    (folder / "cut.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (9).to_bytes(8, "little") * 2)
    (folder / "empty").mkdir()
    (folder / "code").mkdir()
    config = {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.Mine"},
        "architectures": ["Mine"],
    }
    (folder / "code" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code" / "mine.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    return folder


Call = Callable[..., tuple[int, str, str]]


def verdict(**changed: str) -> list[str]:
    """The arguments of a verdict that would run, with some of them changed."""
    args = {"model": "toy:ascending", "task": "ascending", "method": "zero-shot"} | changed
    return ["verdict", "--quiet", *(part for name, value in args.items() for part in (f"--{name}", value))]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "toy:ascnding"}, ("unknown model 'toy:ascnding'", "did you mean 'toy:ascending'")),
        ({"model": "smolm2"}, ("unknown model 'smolm2'", "did you mean 'smollm2'", "hub id (owner/name)")),
        ({"model": "nothing.gguf"}, ("no such GGUF file: nothing.gguf",)),
        ({"task": "ascnding"}, ("unknown task 'ascnding'", "'ascending'", "CSV")),
        ({"task": "absent.csv"}, ("absent.csv",)),
        ({"method": "kv-prefx"}, ("unknown method 'kv-prefx'", "did you mean 'kv-prefix'")),
        ({"method": "kv-prefix", "budget": "10"}, ("budget of 10", "kv-prefix", "toy:ascending", "192")),
        ({"budget": "0"}, ("at least 1 trained number, got 0",)),
        ({"method": "kv-prefix", "time-limit": "0.01s"}, ("time limit of 0.01 s is too short", "kv-prefix")),
        ({"time-limit": "soon"}, ("'soon'", "90s, 30m, 2h")),
        ({"time-limit": "0"}, ("more than 0 seconds",)),
        ({"seeds": "0"}, ("seeds must be at least 1, got 0",)),
        ({"steps": "-5"}, ("steps must be at least 1, got -5",)),
        ({"test-items": "0"}, ("test items must be at least 1",)),
        ({"margin": "2"}, ("margin must be", "got 2")),
        ({"device": "gpu"}, ("unknown device 'gpu'", "'cpu'")),
        ({"device": "cuda:7"}, ("cuda:7", "--device cpu")),
        ({"out": "/proc/nowhere"}, ("output folder /proc/nowhere cannot be written to", "--out")),
        ({"text-column": "words"}, ("'ascending' takes no options", "text_column")),
        ({"task": "movie-reviews", "template": "no slot"}, ("template 'no slot'", "{text}")),
    ],
)
def test_bad_input_is_named(call: Call, changed: dict[str, str], words: tuple[str, ...]) -> None:
    refused(call(*verdict(**changed)), *words)


@pytest.mark.parametrize(
    ("content", "changed", "words"),
    [
        ("review,label\n" + "\n".join(ROWS), {"text-column": "comment"}, ("comment", "review, label")),
        ("review,label\n" + "\n".join(ROWS), {"label-column": "lable"}, ("no column 'lable'", "review, label")),
        ("text,label\n" + "\n".join(f"text {i},same" for i in range(60)), {}, ("label",)),
        ("", {}, ("empty",)),
        ("text,label\n", {}, ("mail.csv",)),
        (b"text,label\ncaf\xe9,good\n", {}, ("UTF-8",)),
        ("text,label\n" + "\n".join(ROWS), {}, ("toy:ascending has no tokenizer",)),
        ("text,label\n" + "\n".join(ROWS[:30]), {}, ("30 different texts", "at least 40", "--test FILE")),
        ("text,label\n" + "\n".join(ROWS), {"test": "absent.csv"}, ("absent.csv", "no such file")),
        ("text,label\n" + "\n".join(ROWS), {"validation": "mail.csv"}, ("mail.csv", "validation or test data")),
        ("text,text\n" + "\n".join(ROWS), {}, ("two columns have the name 'text'",)),
        ("text,label\n" + "\n".join(ROWS) + "\na,b,c\n", {}, ("line 62", "3 fields", "2 columns")),
        ("text,label\n" + "x" * 200_000 + ",good\n" + "\n".join(ROWS), {}, ("toy:ascending has no tokenizer",)),
        (
            "text,label\n" + "\n".join(f"text {i},label {i}" for i in range(300)),
            {},
            ("300 distinct values", "--target"),
        ),
        (b"\x00\x01\x02PK\x03\x04\xff\xfe", {}, ("not UTF-8",)),
        (b"\x00\x01\x02\x00", {}, ("mail.csv",)),
    ],
)
def test_bad_files_are_named(
    call: Call, tmp_path: Path, content: str | bytes, changed: dict[str, str], words: tuple[str, ...]
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "mail.csv").write_bytes(data)
    refused(call(*verdict(task="mail.csv", **changed)), *words)


def test_a_broken_line_of_json_is_named(call: Call, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"{i}", "target": "x"}) for i in range(50)]
    (tmp_path / "gen.jsonl").write_text("\n".join([*lines[:6], '{"prompt": "7", "tar', *lines]), encoding="utf-8")
    refused(call(*verdict(task="gen.jsonl")), "gen.jsonl, line 7")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bert", ("BertLMHeadModel", "attends in both directions", "causal decoder")),
        ("t5", ("t5", "no causal decoder", "T5Config")),
        ("headless", ("headless", "lm_head.weight")),
        ("pickled", ("pickled", "safetensors")),
        ("cut", ("cut", "cannot be loaded")),
        ("empty", ("empty", "cannot be loaded", "config.json")),
        ("code", ("code", "never runs such code")),
        ("cut.gguf", ("cut.gguf", "cannot be loaded")),
        ("noise.gguf", ("noise.gguf", "cannot be loaded")),
    ],
)
def test_what_is_no_causal_decoder_is_refused_by_name(
    call: Call, others: Path, name: str, words: tuple[str, ...]
) -> None:
    refused(call(*verdict(model=str(others / name))), *words)


def test_an_output_folder_in_the_place_of_a_file_is_refused(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(call(*verdict(out="file")), "output folder file cannot be written to")
    refused(call(*verdict(out="file/below")), "output folder file/below cannot be written to")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("args", [["verdit"], ["verdict", "--modle", "x"], ["verdict"], ["pretrain"]])
def test_what_the_command_line_does_not_know_is_exit_code_2(call: Call, args: list[str]) -> None:
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert err


# --- what is printed ------------------------------------------------------------------------------------------------


def only_object(out: str) -> dict[str, object]:
    """Standard output is one JSON object, strict JSON, and nothing else."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found = json.loads(out, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


OWN_THAT_PRINTS = """
from elicitable.values import Item
print("hello from the task")

class Mine:
    name = "mine"
    warnings = ()

    def labels(self):
        return None

    def items(self):
        print("called")
        return [Item((i % 10, i * 7 % 10, i // 10), (i % 10,)) for i in range(60)]

    def sample(self, n, rng):
        return [self.items()[i] for i in rng.integers(60, size=n)]

    def held_out(self, split, n=None):
        return self.items()[::2][:n] if split == "validation" else self.items()[1::2][:n]

    def fingerprint(self):
        return "mine"
"""


def test_what_a_persons_own_code_prints_is_no_part_of_the_one_json_object(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN_THAT_PRINTS, encoding="utf-8")
    given = ("verdict", "--model", "toy:mixed", "--task", "mine.py:Mine", "--method", "zero-shot", "--json", "-q")
    code, out, err = call(*given)
    assert code == 0, err
    assert isinstance(json.loads(out), dict)
    assert "hello from the task\n" in err
    assert "called\n" in err


@pytest.mark.parametrize("command", ["models", "tasks", "methods"])
def test_the_lists_are_one_json_object_and_readable(call: Call, command: str) -> None:
    code, out, err = call(command, "--json")
    assert (code, err) == (0, "")
    rows = only_object(out)[command]
    assert isinstance(rows, list)
    names = [row["name"] for row in rows]
    code, shown, _ = call(command)
    assert code == 0
    assert all(name in shown for name in names)
    assert max(map(len, shown.splitlines())) <= 80


def race_args(out: Path) -> list[str]:
    shown = ["--seeds", "2", "--steps", "6", "--test-items", "40", "--budget", "1200", "--json", "--out", str(out)]
    methods = ["zero-shot", "kv-prefix"]
    chosen = [part for method in methods for part in ("--method", method)]
    return ["verdict", "--model", "toy:ascending", "--task", "ascending", *chosen, *shown]


def test_a_race_end_to_end_and_again_as_a_no_op(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "race"
    code, printed, progress = call(*race_args(out))
    assert code == 0, progress
    verdict = only_object(printed)
    assert verdict["label"] == "already-there"
    assert {arm["method"]: arm["status"] for arm in verdict["arms"]} == {  # type: ignore[attr-defined]
        "zero-shot": "ok",
        "kv-prefix": "ok",
    }
    assert "loading toy:ascending" in progress
    assert json.loads((out / "verdict.json").read_text(encoding="utf-8")) == verdict
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("record.json")}
    assert len(before) >= 3
    code, again, _ = call(*race_args(out), "--quiet")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("record.json")} == before
    same = only_object(again)
    assert (same["label"], same["arms"]) == (verdict["label"], verdict["arms"])


def test_quiet_says_nothing_but_the_answer(call: Call) -> None:
    code, out, err = call(*verdict(**{"test-items": "20"}))
    assert (code, err) == (0, "")
    assert "already-there" in " ".join(out.split())
    assert max(map(len, (line for line in out.splitlines() if "/" not in line))) <= 80


def test_bad_input_leaves_no_folder_behind(call: Call, tmp_path: Path) -> None:
    refused(call(*verdict(model="toy:nothing")), "toy:nothing")
    refused(call(*verdict(task="nothing")), "nothing")
    refused(call(*verdict(method="kv-prefix", budget="10")), "budget of 10")
    refused(call(*verdict(**{"method": "kv-prefix", "time-limit": "1s"})), "too short")
    refused(call("tune", "-m", "toy:ascending", "-t", "ascending", "--method", "prompt", "-q"), "not trained")
    refused(
        call("tune", "-m", "toy:ascending", "-t", "ascending", "--method", "lora", "--size", "0", "-q"), "at least 1"
    )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    refused(call(*verdict(method="kv-prefix", budget="10", out="mine/new/one")), "budget of 10")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2 m ", 120), (None, None)]
)
def test_durations(text: str | None, value: float | None) -> None:
    assert seconds_of(text) == value


@pytest.mark.parametrize("text", ["", "m", "-5", "5d", "1e3", "5 m 3 s", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="90s, 30m, 2h"):
        seconds_of(text)


def test_a_task_of_the_harness_that_there_is_not_is_named(call: Call) -> None:
    code, out, err = call("verdict", "--model", "toy:mixed", "--task", "lm-eval:nowhere.yaml", "--fewshot", "1")
    assert (code, out) == (2, "")
    assert "lm-eval:nowhere.yaml: there is no such file" in err
    assert "Traceback" not in err
