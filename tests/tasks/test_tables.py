"""Reading tables: what is accepted, and every way a file can be wrong, by its message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elicitable.errors import InputError
from elicitable.tasks import tables
from elicitable.tasks.tables import read_table


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text,label\nfine,1\nso so,0\n"),
        ("t.CSV", "text,label\r\nfine,1\r\n\r\nso so,0"),
        ("t.csv", b"\xef\xbb\xbftext,label\nfine,1\nso so,0\n"),
        ("t.csv", '\n text , label\n"fine",1\n"so so","0"\n'),
        ("t.csv", "text;label\nfine;1\nso so;0\n"),
        ("t.tsv", "text\tlabel\nfine\t1\nso so\t0\n"),
        ("t.jsonl", '{"text": "fine", "label": 1}\n\n{"label": 0.0, "text": "so so"}\n'),
        ("t.json", '{"text": "fine", "label": "1"}\r\n{"label": "0", "text": "so so"}'),
    ],
)
def test_all_kinds_give_the_same_table(tmp_path: Path, name: str, content: str | bytes) -> None:
    table = read_table(write(tmp_path, name, content))
    assert table.columns == ("text", "label")
    assert table.column("text") == ["fine", "so so"]
    assert table.column("label") == ["1", "0"]


def test_quoted_texts_keep_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "t.csv", 'text,label\n"a, ""b""\nc",1\nd,0\n'))
    assert table.column("text") == ['a, "b"\nc', "d"]
    assert table.places == ("line 2", "line 4")


BAD = [
    ("t.csv", "", "t.csv is empty"),
    ("t.csv", "  \n\n", "t.csv has no rows"),
    ("t.csv", "text,label\n", "t.csv has no rows, only the column names"),
    ("t.jsonl", "\n\n", "t.jsonl has no rows, only white space"),
    (
        "t.csv",
        b"text,label\nok,1\ncaf\xe9,0\n",
        r"t.csv, line 3: byte 19 \(0xe9\) is not UTF-8; save the file as UTF-8",
    ),
    ("t.csv", "text,label\na,1\nb,0,extra\n", "t.csv, line 3: 3 fields, but the first row names 2 columns"),
    ("t.csv", "text,label\na,1\nb\n", r"t.csv, line 3: 1 fields, but .* \(text, label\); put quotes around"),
    ("t.csv", 'text,label\na,1\n"b,0\n', "t.csv, line 3: unexpected end of data"),
    ("t.csv", "text,text\na,1\n", "two columns have the name 'text'"),
    ("t.csv", "text,,label\na,1,2\n", r"column 2 has no name in the first row \(text, , label\)"),
    ("t.csv", "text,label\n" + "x" * 200_000 + ",1\n", "t.csv, line 2: field larger than field limit"),
    ("t.jsonl", '{"text": "a"}\n[1]\n', "t.jsonl, line 2: expected a JSON object like {…}, found a list"),
    ("t.jsonl", '{"text": "a"}\n"x"\n', "line 2: expected a JSON object like {…}, found a text"),
    ("t.jsonl", "null\n", "line 1: expected a JSON object like {…}, found null"),
    ("t.jsonl", "true\n", "line 1: .* found true or false"),
    ("t.jsonl", "3\n", "line 1: .* found a number"),
    ("t.jsonl", '{"text": "a"}\n{"text": \n', "t.jsonl, line 2: not valid JSON"),
    ("t.json", '[\n{"text": "a"}]\n', r"t.json, line 1: not valid JSON.*one object a line is expected"),
    ("t.jsonl", "[" * 100_000, "line 1: not valid JSON"),
    ("t.parquet", "x", "cannot tell the kind of file by its name; expected .csv, .tsv"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_table(write(tmp_path, name, content))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "b"}', "line 2: column 'label' is missing, null or not a single value"),
        ('{"text": "b", "label": null}', "line 2: column 'label' is missing, null"),
        ('{"text": "b", "label": ["x"]}', "line 2: column 'label' is missing, null or not a single value"),
        ('{"text": "b", "label": NaN}', "line 2: column 'label' is missing, null"),
        ('{"text": "b", "label": "  "}', "line 2: column 'label' is empty"),
        ('{"text": "b", "label": "\\ud800"}', "line 2: column 'label' holds half a surrogate pair"),
    ],
)
def test_a_bad_cell_is_named_by_line_and_column_where_it_is_used(tmp_path: Path, row: str, message: str) -> None:
    table = read_table(write(tmp_path, "t.jsonl", '{"text": "a", "label": "x"}\n' + row))
    assert table.column("text") == ["a", "b"]
    with pytest.raises(InputError, match=message):
        table.column("label")


def test_missing_files_folders_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.csv: there is no such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="is a folder; name one file in it"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="there is no such file"):
        read_table("nul\0byte.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="there is no such file"):
        read_table(tmp_path / "pipe.csv")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "t.csv", "text,label\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"t.csv cannot be read: Permission denied"):
        read_table(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_BYTES", 10)
    with pytest.raises(InputError, match="has 17 bytes; at most 10 are read"):
        read_table(write(tmp_path, "t.csv", "text,label\nabc,1\n"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl"]))
def test_no_bytes_whatever_cause_anything_but_an_input_error(tmp_path: Path, content: bytes, name: str) -> None:
    path = write(tmp_path, name, content)
    try:
        table = read_table(path)
        for column in table.columns:
            table.column(column)
    except InputError:
        pass
