"""Reading tables: what is accepted, and every way a file can be wrong, by its message."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
import sys
import tracemalloc
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elicitable.errors import InputError, MissingPackageError
from elicitable.tasks import files
from elicitable.tasks.catalog import task_from
from elicitable.tasks.files import read_table
from elicitable.tasks.incoming import incoming
from elicitable.tasks.json_rows import object_of
from elicitable.tasks.tables import Cell, fault_of
from elicitable.values import Message


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
    assert table.cells("text") == ["fine", "so so"]
    assert table.cells("label") == ["1", "0"]


def test_quoted_texts_keep_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "t.csv", 'text,label\n"a, ""b""\nc",1\nd,0\n'))
    assert table.cells("text") == ['a, "b"\nc', "d"]
    assert table.places == ("line 2", "line 4")


BAD = [
    ("t.csv", "", "t.csv is empty"),
    ("t.csv", "  \n\n", "t.csv has no rows"),
    ("t.csv", "text,label\n", "t.csv has no rows, only the column names"),
    ("t.jsonl", "\n\n", "t.jsonl has no rows, only white space"),
    (
        "t.csv",
        b"text,label\nok,1\ncaf\xe9,0\n",
        r"t.csv, line 3: byte 19 \(0xe9\) is not UTF-8; save the file as UTF-8, or name .*--encoding latin-1",
    ),
    ("t.csv", 'text,label\na,1\n"b,0\n', "t.csv, line 3: unexpected end of data"),
    ("t.csv", "text,text\na,1\n", "two columns have the name 'text'"),
    ("t.csv", "text,,label\na,1,2\n", r"column 2 has no name in the first row \(text, , label\)"),
    ("t.jsonl", "null\n", "line 1: expected a JSON object like {…}, found null"),
    ("t.jsonl", "true\n", "line 1: .* found true or false"),
    ("t.jsonl", "3\n", "line 1: .* found a number"),
    ("t.json", '[\n{"text": "a"},\n]', r"t.json, line 3: not valid JSON"),
    ("t.json", "[\n3, null]", r"t.json, row 1: expected a JSON object like {…}, found a number"),
    ("t.json", '{"text": "a"\n"label": 1}', r"t.json, line 1: not valid JSON.*one object a line, or one array"),
    ("t.jsonl", "[" * 100_000, "line 1: not valid JSON"),
    ("t.xlsx", "x", "cannot tell the kind of file by its name; expected .csv, .tsv"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_table(write(tmp_path, name, content))
    assert str(tmp_path / name) in str(caught.value)


CSV = "text,label\n" + "".join(f"text {n},{'yn'[n % 2]}\n" for n in range(60))
JSONL = "".join(json.dumps({"text": f"text {n}", "label": "yn"[n % 2]}) + "\n" for n in range(60))
ARRAY = f"[{JSONL.strip().replace(chr(10), ', ')}"
BROKEN = [  # a row that cannot be read, behind 60 that can
    ("t.csv", CSV + "b,0,extra\n", "t.csv, line 62: 3 fields, but the first row names 2 columns"),
    ("t.csv", CSV + "b\n", r"t.csv, line 62: 1 fields, but .* \(text, label\); put quotes around"),
    ("t.jsonl", JSONL + "[1]\n", "t.jsonl, line 61: expected a JSON object like {…}, found a list"),
    ("t.jsonl", JSONL + '"x"\n', "line 61: expected a JSON object like {…}, found a text"),
    ("t.jsonl", JSONL + '{"text": \n', "t.jsonl, line 61: not valid JSON"),
    ("t.csv", CSV + '"a" b,0\n', "t.csv, line 62: ',' expected after '\"'; a quote within a quoted text is written"),
    ("t.json", ARRAY + ", 3]", "t.json, row 61: expected a JSON object like {…}, found a number"),
    ("t.json", f'{{"data": {ARRAY}, null]}}', "t.json, row 61: expected a JSON object like {…}, found null"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_row_that_cannot_be_read_is_refused_by_name_or_left_out_and_listed(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = str(write(tmp_path, name, content))
    with pytest.raises(InputError, match=message) as caught:
        task_from(path)
    assert "--skip-bad-rows" in str(caught.value)
    task = task_from(path, skip_bad_rows=True)
    assert sum(task.sizes.values()) == 60  # type: ignore[attr-defined]
    (note,) = [note for note in task.warnings if "left out" in note]  # type: ignore[attr-defined]
    assert f"1 of 61 rows are left out: {'row' if name == 't.json' else 'line'} 6" in note


def test_a_file_of_which_no_row_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: 1 fields.*no row of the file can be read"):
        read_table(write(tmp_path, "t.csv", "text,label\na\nb\n"))
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        read_table(write(tmp_path, "t.jsonl", "{a}\n{b}\n"))


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
    def refuse(self: Path, mode: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "t.csv", "text,label\n")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"t.csv cannot be read: Permission denied"):
        read_table(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    with pytest.raises(InputError, match="has 17 bytes; at most 10 are read"):
        read_table(write(tmp_path, "t.csv", "text,label\nabc,1\n"))


def read(folder: Path, name: str, content: str | bytes, encoding: str | None = None) -> list[list[Cell]]:
    table = read_table(write(folder, name, content), encoding)
    return [table.cells(column) for column in table.columns]


CAFE = "text,label\ncafé ☕,1\nso so,0\n"
EXPECTED = [["café ☕", "so so"], ["1", "0"]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("asked", [None, "latin-1", "utf-8"])
def test_a_byte_order_mark_is_honoured_whatever_was_asked_for(tmp_path: Path, encoding: str, asked: str | None) -> None:
    assert read(tmp_path, "t.csv", CAFE.encode(encoding), asked) == EXPECTED
    lines = '{"text": "café ☕", "label": 1}\n{"text": "so so", "label": 0}'
    assert read(tmp_path, "t.jsonl", lines.encode(encoding), asked) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "gb18030"])
def test_an_encoding_can_be_named(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, "t.csv", CAFE.encode(encoding), encoding) == EXPECTED
    assert read(tmp_path, "t.csv", "text,label\ncafé,1\n".encode("latin-1"), "latin-1")[0] == ["café"]
    assert read(tmp_path, "t.csv", "text,label\n“café”,1\n".encode("cp1252"), "cp1252")[0] == ["“café”"]


@pytest.mark.parametrize(
    ("content", "asked", "message"),
    [
        ("text,label\ncafé,1\n".encode("latin-1"), None, "line 2: byte 14 .*--encoding latin-1, cp1252 or utf-16"),
        (
            "text,label\ncafé ☕,1\n".encode(),
            "ascii",
            r"line 2: byte 14 \(0xc3\) is not ascii; .*--encoding utf-8, latin",
        ),
        ("text,label\nfine,1\n".encode("utf-16-le"), None, "characters of value 0.*--encoding utf-16-le"),
        (b"text,label\nodd,1\n", "utf-16-le", "line 1: the end is not utf-16-le|byte .* is not utf-16-le"),
        (b"text,label\nfine,1\n", "utf-16", "has no rows, only the column names, read as utf-16: is that the encoding"),
        (b"text,label\nfine,1\n", "latin-one", "'latin-one' is no encoding of texts; known are utf-8"),
        (b"text,label\nfine,1\n", "hex", "'hex' is no encoding of texts"),
        (b"text,label\nfine,1\n", "rot13", "'rot13' is no encoding of texts"),
    ],
)
def test_a_wrong_encoding_is_named_with_the_line_and_what_to_try(
    tmp_path: Path, content: bytes, asked: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_table(write(tmp_path, "t.csv", content), asked)


def test_a_one_byte_encoding_for_what_is_utf_8_is_doubted(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "t.csv", CAFE), "latin-1")
    assert len(table.notes) == 1
    assert "is read as latin-1, as asked, but is valid UTF-8" in table.notes[0]
    assert read_table(write(tmp_path, "t.csv", "text,label\nplain,1\n"), "latin-1").notes == ()


ROWS = [{"text": "fine", "label": 1}, {"text": "so so", "label": 0}]
JSON_FORMS = {
    "array": json.dumps(ROWS),
    "array over lines": json.dumps(ROWS, indent=2),
    "array in an object": json.dumps({"version": "1", "data": ROWS}, indent=2),
    "array in an object of one line": json.dumps({"version": "1", "data": ROWS}),
    "array behind a blank line": "\n" + json.dumps(ROWS),
    "columns of lists": json.dumps({"text": ["fine", "so so"], "label": [1, 0]}),
    "pandas' columns": json.dumps({"text": {"0": "fine", "1": "so so"}, "label": {"0": 1, "1": 0}}),
}


@pytest.mark.parametrize("form", JSON_FORMS)
def test_json_arrays_and_what_pandas_writes(tmp_path: Path, form: str) -> None:
    for name in ("t.json", "t.jsonl"):
        assert read(tmp_path, name, JSON_FORMS[form]) == [["fine", "so so"], ["1", "0"]]
        if name == "t.json" or (form.startswith("array") and "object" not in form):
            with incoming(str(tmp_path / name), wanted=["text"]) as found:  # as rows that are asked about
                assert [(one.fault, one.values.get("text")) for one in found.rows] == [("", "fine"), ("", "so so")]


def test_one_object_over_several_lines_is_one_row(tmp_path: Path) -> None:
    """Each of its lines was a row that is not valid JSON."""
    row = {"text": "say a", "meta": {"stars": 3}}
    (tmp_path / "row.json").write_text(json.dumps(row, indent=2))
    assert read_table(tmp_path / "row.json").columns == ("text", "meta.stars")
    with incoming(str(tmp_path / "row.json"), wanted=("text",)) as read:
        assert [(one.values, one.fault) for one in read.rows] == [(row, "")]


def test_a_row_that_holds_a_list_of_objects_is_one_row(tmp_path: Path) -> None:
    row = {"text": "a match in Lisbon", "places": [{"name": "Lisbon", "from": 11}]}
    path = write(tmp_path, "t.jsonl", json.dumps(row) + "\n")
    with incoming(str(path), wanted=["text"]) as found:
        assert [one.values["text"] for one in found.rows] == [row["text"]]


def test_one_line_of_messages_is_one_row_and_no_list_of_rows(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    table = read_table(write(tmp_path, "t.jsonl", json.dumps({"messages": talk})))
    assert (table.columns, len(table.rows), table.holds_messages("messages")) == (("messages",), 1, True)
    both = read_table(write(tmp_path, "t.jsonl", json.dumps({"prompt": talk[:1], "completion": talk[1:]})))
    assert (both.columns, len(both.rows)) == (("prompt", "completion"), 1)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv.bz2"])
def test_packed_texts_are_read_and_damaged_ones_named(tmp_path: Path, name: str) -> None:
    pack = gzip.compress if name.endswith("gz") else bz2.compress
    assert read(tmp_path, name, pack(CAFE.encode())) == EXPECTED
    for content in (pack(CAFE.encode())[:-6], b"no archive", pack(b"")):
        with pytest.raises(InputError, match=r"t.csv..* (cannot be unpacked|cannot be read|is empty)"):
            read_table(write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["t.csv.gz", "t.jsonl.bz2"])
def test_a_bomb_is_not_unpacked_beyond_the_limit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 21)
    path = tmp_path / name
    with gzip.open(path, "wb") if name.endswith("gz") else bz2.open(path, "wb") as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(InputError, match="unpacks to more than 2,097,152 bytes"):
        read_table(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def arrow_table(**columns: Any) -> Any:
    import pyarrow

    return pyarrow.table(columns or {"text": ["fine", "so so"], "label": [1, 0]})


def save(table: Any, path: Path) -> Path:
    import pyarrow
    from pyarrow import feather, parquet

    if path.suffix in (".parquet", ".pq"):
        parquet.write_table(table, path)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    else:  # a file where it is called .arrow, a stream where .ipc
        make = pyarrow.ipc.new_file if path.suffix == ".arrow" else pyarrow.ipc.new_stream
        with make(path, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.feather", "t.arrow", "t.ipc"])
def test_parquet_and_arrow(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_table(save(arrow_table(), tmp_path / name))
    assert [table.cells(column) for column in table.columns] == [["fine", "so so"], ["1", "0"]]
    assert table.places == ("row 1", "row 2")
    talk = [{"role": "user", "content": "Hi"}]
    mixed = arrow_table(
        text=["a", None], vector=[[1.0], [2.0]], picture=[b"x", b"y"], day=[date(2026, 1, 2), None], talk=[talk, talk]
    )
    found = read_table(save(mixed, tmp_path / name))
    assert found.columns == ("text", "day", "talk")
    assert found.cells("day") == ["2026-01-02", None]
    assert found.cells("talk")[0] == (Message("user", "Hi"),)
    assert dict(found.left_out) == {
        "vector": "no texts or numbers, but list<element: double>"
        if name.endswith(("parquet", "pq"))
        else "no texts or numbers, but list<item: double>",
        "picture": "no texts or numbers, but binary",
    }
    large = save(arrow_table(text=["x" * 1_000] * 5_000), tmp_path / name)
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"unpacks to .*1,048,576|has .* bytes; at most"):
        read_table(large)
    for content in (large.read_bytes()[:-40], b"PAR1 and nothing", b"ARROW1 and nothing"):
        with pytest.raises(InputError, match=r"t\..* cannot be read as |unpacks to|has .* bytes"):
            read_table(write(tmp_path, name, content))


def test_without_pyarrow_the_one_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(arrow_table(), tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match="python -m pip install pyarrow"):
        read_table(path)


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ('"b"', None),
        ("null", "is missing, null or not a single value"),
        ('["x"]', None),
        ('[["x"]]', "is missing, null or not a single value"),
        ("[]", "is empty"),
        ("NaN", "is missing, null or not a single value"),
        ('"  "', "is empty"),
        ('"\\ud800"', "holds half a surrogate pair"),
        ('[{"role": "user", "content": "\\ud800"}]', "holds half a surrogate pair"),
    ],
)
def test_a_bad_cell_is_named_by_line_and_column_where_it_is_used(tmp_path: Path, cell: str, fault: str | None) -> None:
    rows = '{"text": "a", "label": "x"}\n{"text": "b", "label": ' + cell + "}"
    table = read_table(write(tmp_path, "t.jsonl", rows))
    assert [fault_of(row[1]) for row in table.rows] == [None, fault]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200),
    name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.feather", "t.csv.gz", "t.csv.bz2"]),
)
def test_no_bytes_whatever_cause_anything_but_an_input_error(tmp_path: Path, content: bytes, name: str) -> None:
    path = write(tmp_path, name, content)
    try:
        table = read_table(path)
        for column in table.columns:
            table.cells(column)
    except InputError:
        pass


QUOTE = chr(34)


def table_of(first: str, lines: list[str]) -> str:
    return "\n".join([first, *lines]) + "\n"


OPENED = [f"{['', QUOTE][i % 40 == 3]}text {i}{['', ' end' + QUOTE][i % 40 == 17]}" for i in range(400)]


def test_quotes_that_are_characters_swallow_no_rows_of_a_table_with_tabs(tmp_path: Path) -> None:
    """Of 400 rows in GLUE's form, in which nothing is quoted, 140 stood within others, and nothing was said."""
    path = write(tmp_path, "t.tsv", table_of("text\tlabel", [f"{text}\t{i % 2}" for i, text in enumerate(OPENED)]))
    table = read_table(path)
    assert table.cells("text") == OPENED
    assert table.places[-1] == "line 401"
    (note,) = table.notes
    assert "each of its lines is a row if quotes are characters like others" in note
    with incoming(str(path), wanted=["text"]) as found:
        assert [(one.place, one.values["text"], one.fault) for one in found.rows] == [
            (f"line {i + 2}", text, "") for i, text in enumerate(OPENED)
        ]


def test_quotes_in_a_table_with_tabs_are_quotes_where_they_hold_a_text(tmp_path: Path) -> None:
    for first, cell in (("text\tlabel", '"two\nlines, ""quoted"""'), ('"text"\t"label"', '"two\nlines, ""quoted"""')):
        path = write(tmp_path, "t.tsv", table_of(first, [f"{cell}\t1", '"one line"\t0']))
        table = read_table(path)
        assert table.cells("text") == ['two\nlines, "quoted"', "one line"]
        assert table.notes == ()
        with incoming(str(path), wanted=["text"]) as found:
            assert [one.values["text"] for one in found.rows] == table.cells("text")


def test_quoted_texts_that_hold_lines_like_rows_are_warned_of(tmp_path: Path) -> None:
    lines = [f"{text},{i % 2}" for i, text in enumerate(OPENED)]
    (note,) = read_table(write(tmp_path, "t.csv", table_of("text,label", lines))).notes
    assert "10 quoted texts hold lines that look like rows, the first in line 5" in note
    # each line with as many commas as there are columns, and at its end the label of its own row alone
    orders = [f'{i},"Order {i} is broken, please help.\nsecond, line",label {i}' for i in range(60)]
    assert read_table(write(tmp_path, "t.csv", table_of("id,text,label", orders))).notes == ()
    letters = [f'"Dear all,\nmail {i}\nyours, me",{i % 2}' for i in range(60)]
    for quoted in (letters, [letter.replace("\n", " ", 1) for letter in letters]):
        assert read_table(write(tmp_path, "t.csv", table_of("text,label", quoted))).notes == ()


def test_what_a_spreadsheet_says_of_its_delimiter_and_commas_in_its_cells(tmp_path: Path) -> None:
    """A first line ``sep=;`` was the header, and a comma within it cut the columns."""
    rows = [f"{i};well, text {i};{'ab'[i % 2]}" for i in range(60)]
    for first in ('id;"text";label', '"id";"text";label', "sep=;\nid;text;label", "SEP=;\r\nid;text;label"):
        path = write(tmp_path, "t.csv", table_of(first, rows))
        assert read_table(path).cells("text") == [f"well, text {i}" for i in range(60)]
        with incoming(str(path), wanted=["text"]) as found:
            assert [one.values["text"] for one in found.rows] == [f"well, text {i}" for i in range(60)]
    for name in ('"text, full"', "text, full", '"text (de, en)"'):
        for cell in ("text", "well, text"):
            lines = [f"{cell} {i};{'ab'[i % 2]}" for i in range(60)]
            path = write(tmp_path, "t.csv", table_of(f"{name};label", lines))
            table = read_table(path)
            assert table.columns == (name.strip('"'), "label")
            assert table.cells(table.columns[0])[7] == f"{cell} 7"
            with incoming(str(path), wanted=[name.strip('"')]) as found:
                assert next(found.rows).values[name.strip('"')] == f"{cell} 0"
    assert read_table(write(tmp_path, "t.csv", "text (a; b; c),label\nx,1\ny,0\n")).columns == (
        "text (a; b; c)",
        "label",
    )


CURLY = "text,label\n“café”,1\nfine,0\n".encode("cp1252")


def test_bytes_of_cp1252_are_called_so(tmp_path: Path) -> None:
    """Read as latin-1, which the message named first, its quotes became control characters, and nothing was said."""
    path = write(tmp_path, "t.csv", CURLY)
    with pytest.raises(InputError, match="--encoding cp1252, latin-1 or utf-16"):
        read_table(path)
    with pytest.raises(InputError, match="--encoding utf-8, cp1252 or latin-1"):
        read_table(path, "ascii")
    (note,) = read_table(path, "latin-1").notes
    assert "holds 2 control characters (U+0080 to U+009F); try --encoding cp1252" in note
    assert read_table(path, "cp1252").notes == ()
    assert "control" in read_table(write(tmp_path, "t.csv", CURLY + b"\x81,1\n"), "latin-1").notes[0]
    assert read_table(write(tmp_path, "t.csv", "text,label\ncafé,1\n".encode("latin-1")), "latin-1").notes == ()
    with incoming(str(write(tmp_path, "t.csv", CURLY)), wanted=["text"]) as found:
        assert "--encoding cp1252" in next(found.rows).fault


def test_a_table_with_tabs_is_read_for_answers_as_for_training(tmp_path: Path) -> None:
    """A text in quotes lost them where it was asked about, and had them where it was trained on."""
    content = table_of("text\tlabel", ['"so so"\t1', '"half\t0', "fine\t1"])
    for name, data in (("t.tsv", content.encode()), ("t.tsv.gz", gzip.compress(content.encode()))):
        path = write(tmp_path, name, data)
        with incoming(str(path), wanted=["text"]) as found:
            assert [one.values["text"] for one in found.rows] == ['"so so"', '"half', "fine"]
        assert read_table(path).cells("text") == ['"so so"', '"half', "fine"]


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (gzip.compress(b"text,label\nfine,1\n", mtime=0), r"packed by gzip: end its name with \.gz"),
        (bz2.compress(b"text,label\nfine,1\n"), r"packed by bzip2: end its name with \.bz2"),
        (b"PK\x03\x04\x14\0\x06\0", r"a zip archive, which Excel's \.xlsx is too"),
        (b"PAR1\x15\x04\x15\0", r"Parquet: end its name with \.parquet"),
        (b"ARROW1\0\0\xff", r"Arrow: end its name with \.arrow"),
    ],
    ids=["gzip", "bzip2", "zip", "parquet", "arrow"],
)
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_what_is_no_text_is_called_by_its_kind(tmp_path: Path, name: str, begin: bytes, said: str) -> None:
    """An encoding was asked for, and no encoding makes a text of what is packed."""
    path = write(tmp_path, name, begin)
    with pytest.raises(InputError, match=rf"{name} is no text but {said}"):
        read_table(path)
    with pytest.raises(InputError, match=said), incoming(str(path), wanted=["text"]):
        pass
    assert read_table(write(tmp_path, "t.csv", "PAR1,BZh\nPK,1\n")).columns == ("PAR1", "BZh")


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_key_twice_in_a_row_is_a_broken_row(tmp_path: Path, name: str) -> None:
    """The last value won, and the other was gone without a word."""
    rows = [json.dumps({"text": f"text {i}", "label": i % 2}) for i in range(60)]
    rows[3] = '{"text": "text 3", "label": 0, "label": 1}'
    path = write(tmp_path, name, f"[{', '.join(rows)}]" if name == "t.json" else "\n".join(rows))
    with pytest.raises(InputError, match=r"(line|row) 4: the key 'label' stands in it twice.*--skip-bad-rows"):
        task_from(path)
    with incoming(str(path), wanted=["text"]) as found:
        faults = [one.fault for one in found.rows]
    assert [number for number, fault in enumerate(faults) if fault] == [3]
    with pytest.raises(InputError, match="it is one object, and the key 'text' stands in it twice"):
        read_table(write(tmp_path, name, '{"text": ["a"], "label": ["b"], "text": ["c"]}'))


def test_one_stray_quote_does_not_decide_how_all_texts_are_read(tmp_path: Path) -> None:
    """What was trained on texts with their quotes was asked new ones of the same form without them."""
    rows = [f'"text {i}, ""so"" it is"\t{"yn"[i % 2]}\n' for i in range(60)]
    stray = ['say "hi"\ty\n', '"x" z\tn\n']
    table = read_table(write(tmp_path, "train.tsv", "".join(["text\tlabel\n", *rows, *stray])))
    assert [row[0] for row in table.rows] == [*(f'text {i}, "so" it is' for i in range(60)), 'say "hi"']
    assert [place for place, _ in table.broken] == ["line 63"]
    new = write(tmp_path, "new.tsv", "".join(["text\tlabel\n", *rows[:3]]))
    with incoming(str(new), wanted=["text"]) as found:
        assert [one.values["text"] for one in found.rows] == [row[0] for row in table.rows[:3]]


NESTED = (
    '{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good", "content": "bad"}]}',
    '{"text": "a", "meta": {"x": {"y": 1, "y": 2}}}',
)


@pytest.mark.parametrize("row", NESTED)
@pytest.mark.parametrize("name", ["t.jsonl", "array.json", "data.json"])
def test_a_key_twice_is_found_at_every_depth(tmp_path: Path, name: str, row: str) -> None:
    key = "content" if "content" in row else "y"
    rows = [re.sub(r', "(content|y)": ("bad"|2)', "", row)] * 3 + [row]
    whole = {"t.jsonl": "\n".join(rows), "array.json": f"[{', '.join(rows)}]"}
    path = write(tmp_path, name, whole.get(name, f'{{"data": [{", ".join(rows)}]}}'))
    [(place, why)] = read_table(path).broken
    assert (place.split()[1], why) == ("4", f"the key {key!r} stands in it twice")
    with incoming(str(path), wanted=["text"]) as found:
        assert [one.fault for one in found.rows] == ["", "", "", why]


def test_a_key_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    """Every key was counted for every key: one object of 0.7 MB took a minute."""
    keys = "".join(f'"k{i}": 1, ' for i in range(200_000))
    row = f'{{{keys}"k199999": 2}}'
    assert json.loads(row, object_pairs_hook=object_of).fault == "the key 'k199999' stands in it twice"


def test_a_column_twice_in_itself_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "t.json", '{"text": {"0": "a", "1": "b", "1": "c"}, "label": {"0": 1, "1": 2}}')
    with pytest.raises(InputError, match="of its column 'text' the key '1' stands in it twice"):
        read_table(path)


FAULTY = ("5", '{"text": "c", "text": "d"}', '{"text": "\\udc80"}', "null")


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("form", ["one object", "array", "lines"])
def test_a_broken_row_of_a_json_file_is_named_and_the_others_are_as_they_were(
    tmp_path: Path, form: str, fault: str
) -> None:
    """In a file of one object broken rows were left out without a word, and the others' values were texts."""
    good = [{"text": f"text {i}", "id": i, "meta": {"x": [i]}} for i in range(2)]
    rows = [json.dumps(good[0]), fault, json.dumps(good[1])]
    if form == "lines":
        rows.insert(0, "true")
    texts = {"one object": f'{{"data": [{", ".join(rows)}]}}', "array": f"[{', '.join(rows)}]"}
    with incoming(str(write(tmp_path, "t.json", texts.get(form, "\n".join(rows)))), wanted=["text"]) as found:
        read = list(found.rows)
    assert [bool(one.fault) for one in read] == [*([True] if form == "lines" else []), False, True, False]
    assert [one.values for one in read if not one.fault] == good
    assert [int(one.place.split()[1]) for one in read] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[{"text": "a"}] [{"text": "b"}]', "it stands behind the end of the array"),
        ('[{"text": "a"}]' + " \n" * 40_000 + '{"text": "b"}', "it stands behind the end of the array"),
        ('[{"text": "a"} {"text": "b"}]', "there is no comma before it"),
        ('[{"text": "a"},]', "not valid JSON"),
        ('[{"text": "a"},,{"text": "b"}]', "not valid JSON"),
    ],
)
def test_what_stands_behind_or_between_the_rows_of_an_array_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = write(tmp_path, "t.json", text)
    with incoming(str(path), wanted=["text"]) as found:
        first, last = found.rows
    assert (first.values, first.fault) == ({"text": "a"}, "")
    assert why in last.fault
    assert last.fault.endswith("nothing behind it can be read")
    with incoming(str(write(tmp_path, "t.json", '[{"text": "a"}]\n \n')), wanted=["text"]) as found:
        assert len(list(found.rows)) == 1


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_an_encoding_of_files_that_bring_their_own_is_refused(tmp_path: Path, name: str) -> None:
    path, rows = write(tmp_path, name, "of no matter"), "".join(f"text {i},{i % 2}\n" for i in range(60))
    for encoding in ("zip", "utf-8"):
        with pytest.raises(InputError, match="is of texts, and Parquet and Arrow bring their own"):
            task_from(path, encoding=encoding)
        with pytest.raises(InputError, match="is of texts"), incoming(str(path), encoding=encoding, wanted=["text"]):
            pass
    both = write(tmp_path, "t.csv", f"text,label\n{rows}")
    with pytest.raises(InputError, match=rf"{name} ") as found:
        task_from(both, test=path, encoding="utf-8")
    assert "bring their own" not in str(found.value)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    """One of them won without a word."""
    import pyarrow

    path = save(pyarrow.table([["a"], ["b"], ["1"]], names=["text", "text", "label"]), tmp_path / name)
    with pytest.raises(InputError, match="two columns have the name 'text'; rename or drop one"):
        read_table(path)
    with pytest.raises(InputError, match="two columns have the name 'text'"), incoming(str(path)) as found:
        list(found.rows)


def test_columns_that_are_not_read_are_named_where_columns_cannot_be_told(tmp_path: Path) -> None:
    """A column of bytes was said to be not there."""
    path = save(arrow_table(text=[b"fine"] * 60, label=["a", "b"] * 30), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"only the column label; not read: text \(no texts or numbers, but binary\)"):
        task_from(path)
    with pytest.raises(InputError, match=r"has no column 'text'; .*not read: text"):
        task_from(path, text_column="text")


def test_an_empty_line_of_texts_is_a_row_that_cannot_be_answered(tmp_path: Path) -> None:
    """It was passed over, and the answers behind it stood beside other lines."""
    with incoming(str(write(tmp_path, "t.txt", "\nfine\n \n\nso so\n\n\n"))) as found:
        rows = [(one.place, one.values["text"], one.fault) for one in found.rows]
    empty = "it is empty"
    assert rows == [
        ("line 1", "", empty),
        ("line 2", "fine", ""),
        ("line 3", "", empty),
        ("line 4", "", empty),
        ("line 5", "so so", ""),
    ]
