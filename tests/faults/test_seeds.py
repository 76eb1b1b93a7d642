"""What once was taken in silence or ended in a foreign exception: inputs that kills, alterations and fuzzing found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.models import letters_gguf, letters_model

import elicitable as el
from elicitable import cli
from elicitable.cache import check_seal, replacing_folder, seal, sweep, write_tensors
from elicitable.durations import seconds_of
from elicitable.errors import BudgetError, InputError, StoreError
from elicitable.methods import rungs
from elicitable.methods.adapter import read_adapter, write_adapter
from elicitable.methods.catalog import method_named
from elicitable.methods.pruned_prefix import PrunedPrefixContext
from elicitable.models.load import home_of, load
from elicitable.own_code import load_own
from elicitable.race.contest import verdict
from elicitable.records.lock import alone
from elicitable.records.store import Store, identity
from elicitable.records.trial import Outcomes, TrialRecord, kept_trial
from elicitable.report.html import Section, report_html, write_page
from elicitable.report.progress import LiveReporter
from elicitable.report.terminal import terminal
from elicitable.scores.own import own_score
from elicitable.tasks.files import read_table
from elicitable.training.checkpoint import Checkpoint, Frozen
from elicitable.untrusted import parse_json, read_tensors, shapes_of, visible
from elicitable.values import ArmResult, Budget, Verdict

SPEC = {"seed": 0}
LEAST = {"status": "ok", "stopped": "steps", "timing": {"seconds": 1.0}, "steps": 12}


def adapter_with(folder: Path, method: str, config: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    """An adapter of the letters model, with some entries of its configuration, or its tensors, replaced."""
    form, good = method_named(method).build(letters_model(), 2, seed=0).folder_form(letters_model())
    (folder / "adapter_config.json").write_text(json.dumps({**form, **config}), encoding="utf-8")
    write_tensors(folder / "adapter_model.safetensors", good if tensors is None else tensors)
    return folder


# --- records --------------------------------------------------------------------------------------------------


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(("old", "new"), [('"steps": 12', '"steps": 13'), ('"ok"', '"diverged"'), ("1.0", "NaN")])
def test_a_record_that_was_edited_is_refused(tmp_path: Path, old: str, new: str) -> None:
    Store(tmp_path).put(SPEC, LEAST)
    edited(path := next(tmp_path.rglob("record.json")), old, new)
    with pytest.raises(StoreError, match=r"edited|NaN") as refusal:
        Store(tmp_path).get(SPEC)
    assert str(path) in str(refusal.value)


def test_tensors_that_are_not_those_of_the_record_are_refused_and_lost_ones_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(SPEC, LEAST, {"0": torch.zeros(4)})
    state = next(tmp_path.rglob("state.safetensors"))
    write_tensors(state, {"0": torch.tensor([0.0, 0.0, 1e-30, 0.0])})
    with pytest.raises(StoreError, match=r"state\.safetensors cannot be read .*not what was written"):
        store.get(SPEC)
    state.unlink()
    assert store.get(SPEC) is not None
    with pytest.raises(StoreError, match="cannot be read"):
        store.state(SPEC)


def test_outcomes_that_claim_more_than_they_hold_ask_for_no_memory() -> None:
    for of in (10**15, 10**9):
        with pytest.raises(InputError, match="bits do not say"):
            Outcomes(1, of, "1")
    with pytest.raises(InputError, match="hexadecimal"):
        Outcomes(1, 4, "0x1")


@pytest.mark.parametrize(
    "change",
    [{"scores": {}}, {"scores": {"other": {"right": 1, "of": 2, "bits": "1"}}}, {"steps": 10**400}, {"timing": []}],
)
def test_a_record_that_says_too_little_ends_in_no_traceback(tmp_path: Path, change: dict[str, Any]) -> None:
    """Kept by a program with a valid digest, and of the wrong form all the same."""
    answer = verdict("toy:ascending", "ascending", methods=["zero-shot"], seeds=1, test_items=4, out=tmp_path)
    assert answer.arms[0].status == "ok"
    records = {path: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("record.json")}
    [(path, record)] = [(path, one) for path, one in records.items() if "method" in one["spec"]]
    spec, whole = record.pop("spec"), {k: v for k, v in record.items() if k not in ("digest", "version")}
    Store(tmp_path).put(spec, {**whole, **change})
    assert path.parent.name == identity(spec)
    if "steps" in change:  # a number like any other
        assert kept_trial(Store(tmp_path), spec) is not None
        return
    with pytest.raises(StoreError, match="is no record of a trial"):
        verdict("toy:ascending", "ascending", methods=["zero-shot"], seeds=1, test_items=4, out=tmp_path)


def test_a_checkpoint_whose_numbers_were_altered_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "it", "it")
    checkpoint.write(Frozen({"best/0": torch.zeros(3)}, {"steps": 1}))
    data = bytearray(checkpoint.path.read_bytes())
    data[-1] ^= 1
    checkpoint.path.write_bytes(data)
    with pytest.raises(StoreError, match=r"cannot be read .*not what was written"):
        checkpoint.read()


# --- adapters and models --------------------------------------------------------------------------------------


def test_an_adapter_that_was_altered_is_refused_and_a_strangers_is_read(tmp_path: Path) -> None:
    model = letters_model()
    write_adapter(model, method_named("kv-prefix").build(model, 2, seed=0), tmp_path)
    read_adapter(model, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors is not what was written there"):
        read_adapter(model, tmp_path)
    (tmp_path / "seal.json").unlink()
    read_adapter(model, tmp_path)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("kv-prefix", {"peft_type": None}),
        ("kv-prefix", {"peft_type": []}),
        ("value-bias", {"setting": 7}),
        ("value-bias", {"setting": [[1, 2, 3]]}),
        ("value-bias", {"size": "2"}),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path, method: str, config: dict[str, Any]) -> None:
    adapter = adapter_with(tmp_path, method, config)
    with pytest.raises(InputError) as refusal:
        read_adapter(letters_model(), adapter)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_prefix_that_holds_no_numbers_is_refused_by_name(tmp_path: Path, number: float) -> None:
    _, good = method_named("kv-prefix").build(letters_model(), 2, seed=0).folder_form(letters_model())
    table = torch.full_like(good["prompt_embeddings"], number)
    adapter = adapter_with(tmp_path, "kv-prefix", {}, {"prompt_embeddings": table})
    with pytest.raises(InputError, match="prompt_embeddings holds numbers that are not finite"):
        read_adapter(letters_model(), adapter)


@pytest.mark.parametrize("change", ["layers.0.kept", "layers.1.keys", "positions", "content_at"])
def test_a_pruned_prefix_whose_parts_do_not_fit_is_refused(tmp_path: Path, change: str) -> None:
    model = letters_model()
    whole = PrunedPrefixContext.of(method_named("kv-prefix").build(model, 2, seed=0).prefix(model))
    config, tensors = whole.folder_form(model)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    bad = [torch.zeros(0), torch.tensor(-1), torch.zeros_like(tensors[change]).double(), None]
    for other in bad if change != "layers.1.keys" else bad[:2]:
        held = {name: x for name, x in {**tensors, change: other}.items() if x is not None}
        write_tensors(tmp_path / "adapter_model.safetensors", held)
        with pytest.raises(InputError, match=rf"{change}.* do not fit"):
            read_adapter(model, tmp_path)


def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(InputError, match="lie where the file has nothing"):
        read_tensors(tmp_path / "x")
    (tmp_path / "x").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="a header of"):
        shapes_of(tmp_path / "x")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 70 + "]" * 70])
def test_json_that_is_nested_without_end_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="nested more than 64 deep"):
        parse_json(text)


def test_a_converted_model_that_is_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path / "cache"))
    letters_gguf(tmp_path / "letters.gguf")
    before = load(tmp_path / "letters.gguf").fingerprint
    for name in ("model.safetensors", "tokenizer.json"):
        path = next((tmp_path / "cache").rglob(name))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        again = load(tmp_path / "letters.gguf")
        assert (again.fingerprint, again.tokenizer is None) == (before, False), name
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "cache").rglob("*.*") if path.is_file()} == {
        oct(0o666 & ~umask())
    }


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_model_folder_whose_tokenizer_is_damaged_says_so(tmp_path: Path) -> None:
    model = letters_model()
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((tmp_path / "tokenizer.json").read_bytes()[:100])
    with pytest.raises(InputError, match=r"the tokenizer of .* cannot be read: .*tokenizer\.json"):
        load(tmp_path)


@pytest.mark.parametrize(("method", "name"), [("zero-shot", "artefact.json"), ("layer-prefix", "state.safetensors")])
def test_an_artefact_that_was_altered_is_refused_and_a_race_makes_it_again(
    tmp_path: Path, method: str, name: str
) -> None:
    """The record says how answers are decided; what PEFT has no form for lies beside it. Both were read unseen."""

    def race() -> None:
        verdict("toy:ascending", "ascending", methods=[method], seeds=1, steps=3, test_items=4, out=tmp_path)

    race()
    path = next(tmp_path.glob(f"*/{name}"))
    whole = path.read_bytes()
    at = whole.index(b'"slope"') - 3 if b'"slope"' in whole else len(whole) - 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(StoreError, match=re.escape(f"{path} is not what was written there")):
        el.read(tmp_path)
    path.unlink()
    with pytest.raises((StoreError, InputError), match=f"there is no file {name}|holds no artefact"):
        el.read(tmp_path)
    race()
    assert path.read_bytes() == whole or name == "artefact.json"  # which holds timings
    assert el.read(tmp_path).record is not None


def test_a_score_that_ends_the_process_is_an_error_with_its_name(tmp_path: Path) -> None:
    def score(target: str, answer: str) -> float:
        sys.exit(0)

    for function in (score, lambda target, answer: 10**400):
        with pytest.raises(InputError, match=r"the score .* (raised SystemExit|has to be a number)"):
            own_score(function).point(["a"], ["b"])


def test_what_a_persons_own_file_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    for raised in ("KeyError('x')", "SystemExit(0)"):
        path.write_text(f"def score(target, answer): raise {raised}\n", encoding="utf-8")
        function = load_own(f"{path}:score", "mine.py:score")
        monkeypatch.setattr(cli, "_run", lambda function=function: function("a", "b"))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        assert f"error: {path}, line 1: raised {raised.split('(')[0]}" in capsys.readouterr().err


def test_a_toy_in_the_cache_that_is_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELICITABLE_CACHE", str(tmp_path))
    weights = Path(str(home_of(load("toy:ascending")))) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert home_of(load("toy:ascending")) == str(weights.parent)
    assert weights.read_bytes() == whole


# --- tables ---------------------------------------------------------------------------------------------------


def test_an_arrow_file_whose_offsets_lead_outside_is_refused(tmp_path: Path) -> None:
    """Arrow took the file's word for it, and the process died."""
    import numpy as np
    import pyarrow

    batch = pyarrow.record_batch([["abc", "def"]], names=["text"])
    with pyarrow.ipc.new_file(str(tmp_path / "rows.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    good, bad = (np.array([0, 3, last], dtype=np.int32).tobytes() for last in (6, 1 << 30))
    data = (tmp_path / "rows.arrow").read_bytes()
    assert data.count(good) == 1
    (tmp_path / "rows.arrow").write_bytes(data.replace(good, bad))
    with pytest.raises(InputError, match=r"rows\.arrow cannot be read"):
        read_table(tmp_path / "rows.arrow")


# --- what a person is shown -----------------------------------------------------------------------------------

HOSTILE = "[/x] [enforce fail at alloc] \x1b[31m\x07 \u202eleft\u200b"
SHOWN = "[/x] [enforce fail at alloc] \\u001b[31m\\u0007 \\u202eleft\\u200b"


def test_a_failures_text_is_neither_markup_nor_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    arm = ArmResult("mine", rungs.PREFIX, {}, Budget(0, 0, 0), "failed", HOSTILE)
    for console in (terminal(width=200), terminal(width=200, force_terminal=True)):
        LiveReporter(console).end(arm)
        console.print(HOSTILE)
        shown = capsys.readouterr().out
        assert SHOWN in shown
        assert shown.count("\\u202eleft\\u200b") == 2  # rich drops a bell where it is printed as it is
        assert not set(shown) & {"\x07", "\u202e", "\u200b"}
        assert "\x1b[31m" not in shown


def test_an_error_shows_what_it_holds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        raise InputError(f"no column {HOSTILE}")

    monkeypatch.setattr(cli, "_run", run)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"error: no column {SHOWN}\n"


def test_a_report_shows_what_it_holds(tmp_path: Path) -> None:
    found = Verdict("inconclusive", (HOSTILE,), (), HOSTILE, HOSTILE, 0.02)
    page = report_html(found, [Section(HOSTILE, f"<p>{HOSTILE}</p>")])
    other = write_page("t", [Section("t", HOSTILE)], tmp_path / "page.html").read_text(encoding="utf-8")
    for one in (page, other):
        assert not set(one) & {"\x1b", "\x07", "\u202e", "\u200b"}
        assert "\\u202eleft\\u200b" in one


def test_text_that_is_harmless_stays_as_it_is() -> None:
    for text in ("a\tb\n", "naïve 模型 שלום", "x\u00a0y", ""):
        assert visible(text) == text
    assert visible("\U000e0041") == "\\udb40\\udc41"


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "h", "1e9", "nan", "inf"])
def test_a_time_limit_without_end_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="a time limit is a number"):
        seconds_of(text)
    for limit in (float("inf"), 1e300):
        with pytest.raises(BudgetError, match="at most a year"):
            verdict("toy:ascending", "ascending", time_limit=limit)


# --- runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device"), KeyError("x")])
def test_an_arm_that_fails_in_any_way_ends_the_arm_and_not_the_race(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("elicitable.race.line.train", fail)
    answer = verdict("toy:ascending", "ascending", methods=["zero-shot", "value-bias"], seeds=1, test_items=4)
    assert {arm.method: arm.status for arm in answer.arms} == {"zero-shot": "ok", "value-bias": "failed"}


def test_out_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), OSError(5, "I/O error")):

        def run(error: Exception = error) -> int:
            raise error

        monkeypatch.setattr(cli, "_run", run)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr().err
        assert stop.value.code == 2
        assert said.startswith("error: ")
        assert said.count("\n") == 1


def test_a_second_run_is_told_who_is_there(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from elicitable.records.lock import alone
with alone(Path({str(tmp_path)!r})):
    print("here", flush=True)
    sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"
        with pytest.raises(StoreError, match=rf"another run is using .* \(process {other.pid} on .*since"):
            verdict("toy:ascending", "ascending", out=tmp_path)
        other.communicate("")
    assert list(tmp_path.iterdir()) == []
    with alone(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_interrupt_while_the_process_ends_is_not_answered_with_a_traceback() -> None:
    ending = "import atexit, os, signal, sys; atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))"
    given = "from elicitable.cli import main; sys.argv = ['elicitable', '--version']; main()"
    ended = subprocess.run([sys.executable, "-c", f"{ending}; {given}"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_while_the_command_line_is_still_being_imported_ends_it_in_words(number: int) -> None:
    program = f"""
import os, sys
class Sends:
    def find_spec(self, name, path=None, target=None):
        if name == "elicitable.errors":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Sends())
from elicitable.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program, "models"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"{cli._INTERRUPTED}\n")


def test_what_killed_processes_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    from elicitable import cache

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = cache._beside(tmp_path / "mine")
    for left in (mine, Path(str(mine).replace(f"-{os.getpid()}-", f"-{dead.pid}-")), tmp_path / ".theirs"):
        left.mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, ".theirs"])
    sweep(tmp_path, is_alone=True)
    assert [path.name for path in tmp_path.iterdir()] == [".theirs"]


def test_a_folder_whose_place_cannot_be_taken_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replacing_folder(tmp_path / "kept") as partial:
        (partial / "file").write_text("old", encoding="utf-8")
    real = os.replace

    def fails(source: Any, target: Any) -> None:
        if Path(target).name == "kept" and (Path(source) / "file").read_text(encoding="utf-8") == "new":
            raise OSError(5, "I/O error")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(StoreError, match="I/O error"), replacing_folder(tmp_path / "kept") as partial:
        (partial / "file").write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert check_seal(tmp_path / "kept", "")
    assert (tmp_path / "kept" / "file").read_text(encoding="utf-8") == "old"


def test_an_archive_without_digests_is_read_where_its_folder_vouches_for_it(tmp_path: Path) -> None:
    record = {**LEAST, "version": 1, "spec": SPEC}
    (tmp_path / "old.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"old\.jsonl:1 carries no digest"):
        Store(tmp_path, is_read_only=True).get(SPEC)
    seal(tmp_path, ["old.jsonl"])
    assert kept_trial(Store(tmp_path, is_read_only=True), SPEC) == TrialRecord.from_json(LEAST, "")
    edited(tmp_path / "old.jsonl", "12", "13")
    with pytest.raises(StoreError, match=r"old\.jsonl is damaged or was altered"):
        Store(tmp_path, is_read_only=True).get(SPEC)
