"""What fuzzing found in names that are typed, rows that are answered, and models: inputs that ended in a traceback."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.faults.models import letters_model

import elicitable as el
from elicitable.cache import write_tensors
from elicitable.errors import ElicitableError, InputError
from elicitable.methods.adapter import read_adapter
from elicitable.models.layout import Layout
from elicitable.models.load import load
from elicitable.models.rows import rows_of as rows
from elicitable.own_code import load_own
from elicitable.tasks.catalog import task_from
from elicitable.tasks.files import read_table
from elicitable.tasks.incoming import incoming
from elicitable.values import Item


def rows_of(path: str) -> list[object]:
    with incoming(path) as found:
        return list(found.rows)


READ: dict[str, Callable[[str], object]] = {
    "model": load,
    "gguf": lambda name: load(f"{name}.gguf"),
    "task": task_from,
    "table": lambda name: task_from(f"{name}.csv"),
    "harness": lambda name: task_from(f"lm-eval:{name}.yaml"),
    "own task": lambda name: task_from(f"{name}.py:Mine"),
    "own code": lambda name: load_own(f"{name}.py:f", "mine.py:f"),
    "rows": rows_of,
    "artefact": el.read,
    "adapter": lambda name: read_adapter(letters_model(), Path(name)),
    "check": lambda name: el.check(letters_model(), name),
    "output": lambda name: el.verdict("toy:ascending", "ascending", methods=["zero-shot"], test_items=4, out=name),
}


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("name", ["x" * 300, "/" + "y/" * 3_000, "a\0b"], ids=["long", "deep", "zero"])
def test_a_name_that_no_file_can_have_is_refused(what: str, name: str) -> None:
    """Pathlib raises where it asks for a name that is too long."""
    with pytest.raises(ElicitableError):
        READ[what](name)


def test_a_home_that_nobody_has_is_a_name_like_any_other() -> None:
    for read, name in ((task_from, "~nobody-here/rows.csv"), (READ["own code"], "~nobody-here/mine")):
        with pytest.raises(InputError, match="~nobody-here"):
            read(name)


@pytest.mark.parametrize("encoding", ["\0", "utf-8\0", "\ud800", "no such", "zip"])
def test_what_is_no_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,b\n", encoding="utf-8")
    with pytest.raises(InputError, match="is no encoding of texts"):
        read_table(tmp_path / "rows.csv", encoding)
    with (
        pytest.raises(InputError, match="is no encoding of texts"),
        incoming(str(tmp_path / "rows.csv"), None, encoding),
    ):
        pass


def test_packed_rows_whose_bits_lead_nowhere_are_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress("\n".join(["text", *(f"text {i * i}" for i in range(999))]).encode(), mtime=0))
    data[40] ^= 1  # "invalid distance too far back", or the like: zlib's own exception
    (tmp_path / "rows.csv.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"rows\.csv\.gz cannot be read on: .* damaged or cut off"):
        rows_of(str(tmp_path / "rows.csv.gz"))


def test_a_length_in_an_arrow_stream_that_leads_beyond_its_end_asks_for_no_memory(tmp_path: Path) -> None:
    """Two gigabytes were asked for, and a MemoryError ended the program."""
    import pyarrow

    table, path = pyarrow.table({"text": ["a b"] * 50, "label": ["y", "n"] * 25}), tmp_path / "rows.ipc"
    with pyarrow.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    data, refused = path.read_bytes(), 0
    for at in range(0, len(data), 4):
        path.write_bytes(data[:at] + (0x7FFF_FFFF).to_bytes(4, "little") + data[at + 4 :])
        for read in (rows_of, read_table):
            try:
                read(str(path))
            except InputError:
                refused += 1
    assert refused > 400


def test_a_tokenizer_whose_settings_fail_at_the_first_text_is_refused(tmp_path: Path) -> None:
    model = letters_model()
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "model_max_length": "x"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"the tokenizer of .* cannot be read: .*tokenizer_config\.json"):
        load(tmp_path)


def test_a_tokenizer_of_another_model_is_told_at_the_first_text(tmp_path: Path) -> None:
    """The embedding raised an IndexError that named neither."""
    model = letters_model()
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    told = json.loads(path.read_text("utf-8"))
    told["model"]["vocab"]["b"] = 77
    path.write_text(json.dumps(told), encoding="utf-8")
    other = load(tmp_path)
    assert other.ids("a").tolist() == model.ids("a").tolist()
    for read in (other.ids, lambda text: rows(other, [Item(text, "a")], Layout())):
        with pytest.raises(InputError, match=r"the tokenizer of .* the id 77, and the model knows 0 to 31"):
            read("ab")


# --- artefacts ------------------------------------------------------------------------------------------------

NO_IDS = [
    {"x": torch.zeros(1, 2, dtype=torch.long)},
    {"token_ids": torch.zeros(1, 2)},
    {"token_ids": torch.zeros(2, dtype=torch.long)},
    {"token_ids": torch.zeros(2, 2, dtype=torch.long)},
]


@pytest.mark.parametrize("state", NO_IDS, ids=["name", "type", "row", "rows"])
def test_an_artefact_of_tokens_that_are_none_is_refused(artefact: Path, state: dict[str, torch.Tensor]) -> None:
    write_tensors(artefact / "state.safetensors", state)
    with pytest.raises(InputError, match="expected token_ids, one row of whole numbers"):
        el.read(artefact).adaptation(load("toy:ascending"))


def test_an_artefact_of_tokens_outside_the_vocabulary_is_refused(artefact: Path) -> None:
    model = load("toy:ascending")
    write_tensors(artefact / "state.safetensors", {"token_ids": torch.tensor([[1, 10**9]])})
    with (
        pytest.raises(InputError, match="token ids must be between"),
        el.use(model, el.read(artefact).adaptation(model)),
    ):
        pass


@pytest.mark.parametrize("ids", [[{}], [None, 1], [0.5], ["x"], [10**30], True, [[[1], 2]]])
def test_a_setting_whose_tokens_are_no_whole_numbers_is_refused(artefact: Path, ids: object) -> None:
    path = artefact / "artefact.json"
    record = json.loads(path.read_text("utf-8"))
    record["setting"]["token_ids"] = ids
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ElicitableError, match=r"token ids are whole numbers|no record of an artefact"):
        el.read(artefact).adaptation(load("toy:ascending"))


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefact of a prompt, as a stranger could have written it: without a seal."""
    place = tmp_path_factory.mktemp("raced")
    model = load("toy:ascending")
    el.verdict(model, "ascending", methods=["zero-shot"], keep=["zero-shot"], seeds=1, test_items=4, out=place)
    folder = next(place.glob("**/artefact.json")).parent
    path = folder / "artefact.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**record, "method": "prompt", "setting": {"token_ids": [3, 1]}}), encoding="utf-8")
    (folder / "seal.json").unlink()
    return folder


@pytest.fixture
def artefact(raced: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(raced, tmp_path / "artefact"))
