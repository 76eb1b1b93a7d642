"""Tables that are raced, and rows that are answered."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.faults.models import letters_model
from tests.faults.mutations import altered_bytes, altered_json, altered_json_text
from tests.faults.reader import Reader

_ROWS = [{"text": f"text {i}, café", "label": "yn"[i % 2], "n": i} for i in range(60)]
_CHATS = [
    {"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": f"say {i}"},
                  {"role": "assistant", "content": [{"type": "text", "text": f"{i % 3} it is"}]}]}
    for i in range(60)
]  # fmt: skip
_SHARED = [
    {"conversations": [{"from": "human", "value": f"say {i}"}, {"from": "gpt", "value": f"{i % 3} it is"}]}
    for i in range(60)
]


def _as_parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(_ROWS), sink)
    return sink.getvalue()


def _as_arrow(is_stream: bool = False) -> bytes:
    import pyarrow

    table, sink = pyarrow.Table.from_pylist(_ROWS), io.BytesIO()
    make = pyarrow.ipc.new_stream if is_stream else pyarrow.ipc.new_file
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_csv(delimiter: str = ",") -> bytes:
    """A table of texts and labels."""
    lines = [("text", "label", "n"), *((f'"{row["text"]}"', row["label"], str(row["n"])) for row in _ROWS)]
    return "\n".join(delimiter.join(line) for line in lines).encode()


def _as_lines(rows: list[Any] = _ROWS) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def _by_column() -> dict[str, Any]:
    return {name: {str(i): row[name] for i, row in enumerate(_ROWS)} for name in _ROWS[0]}


_FILES: dict[str, Callable[[], bytes]] = {
    "csv": as_csv, "tsv": lambda: as_csv("\t"), "jsonl": _as_lines, "json": lambda: json.dumps(_ROWS).encode(),
    "parquet": _as_parquet, "arrow": _as_arrow, "ipc": lambda: _as_arrow(is_stream=True),
    "csv.gz": lambda: gzip.compress(as_csv()), "jsonl.bz2": lambda: bz2.compress(_as_lines()),
}  # fmt: skip
_AS_JSON: tuple[Any, ...] = (_ROWS, {"data": _ROWS}, _by_column())


def _table(suffix: str) -> Reader:
    def inputs(place: Path) -> st.SearchStrategy[Any]:
        more = [altered_json_text(_AS_JSON)] if suffix == "json" else []
        return st.one_of(altered_bytes((_FILES[suffix](),)), *more)

    def read(place: Path, data: bytes) -> object:
        path = place / f"rows.{suffix}"
        path.write_bytes(data)
        return summed_up(str(path))

    return Reader(suffix, inputs, read)


def summed_up(source: str, **options: Any) -> object:
    """What is said of a task before a race, on the terminal and in the report; and one of its items."""
    from rich.console import Console

    from elicitable.report.reading import print_reading, reading_section
    from elicitable.tasks.catalog import task_from
    from elicitable.tasks.reading import summary_of

    task = task_from(source, **options)
    summary = summary_of(task)
    shown = io.StringIO()
    print_reading(summary, Console(file=shown, width=80))
    for letter in "\x1b\x07\u202e\u200b":
        assert letter not in shown.getvalue(), f"{letter!r} reaches the terminal"
    return reading_section(summary), task.held_out("test", 1)


def _chats(place: Path) -> st.SearchStrategy[Any]:
    def lines(rows: list[Any]) -> st.SearchStrategy[bytes]:
        changed = st.lists(altered_json(tuple(rows[:1])), min_size=1, max_size=3)
        return changed.map(lambda some: _as_lines([*some, *rows]))

    return st.one_of(lines(_CHATS), lines(_SHARED), altered_bytes((_as_lines(_CHATS), _as_lines(_SHARED))))


def _read_chats(place: Path, data: bytes) -> object:
    (place / "rows.jsonl").write_bytes(data)
    return summed_up(str(place / "rows.jsonl"))


# --- rows that are answered -----------------------------------------------------------------------------------

_KINDS = ("csv", "tsv", "jsonl", "json", "lines", "text", None)


@lru_cache(maxsize=1)
def _forms() -> tuple[Any, ...]:
    """How rows are read: by columns, as a conversation, with choices of their own."""
    from elicitable.deploy.record import Form

    columns = {"columns": ("text", "n"), "main": "text", "literals": ("Say ", " of ", ": "), "slots": (0, 1)}
    return (
        Form("classification", **columns, labels=("y", "n"), example="y"),
        Form("generation", **columns, example="y"),
        Form("classification", **columns, labels=()),
        Form("generation", ("messages",), "messages", (), (), answer="messages", example="y"),
    )


def _incoming(place: Path) -> st.SearchStrategy[Any]:
    chosen = [{"text": "which", "n": 1, "choices": ["a", "b"]}] * 3
    rows = (_as_lines(), _as_lines(_CHATS[:5]), _as_lines(chosen), json.dumps(chosen).encode())
    good = (as_csv(), as_csv("\t"), *rows, b"one text\nand another")
    named = [altered_bytes((made(),)).map(lambda data, suffix=suffix: (f"rows.{suffix}", None, data))  # type: ignore[misc]
             for suffix, made in _FILES.items()]  # fmt: skip
    values = st.lists(altered_json((*chosen, *_CHATS[:2], *_ROWS[:2])), min_size=1, max_size=3)
    return st.tuples(
        st.one_of(
            *named,
            st.tuples(st.just("rows"), st.sampled_from(_KINDS), altered_bytes(good)),
            st.tuples(st.just("rows"), st.just("json"), values.map(lambda some: json.dumps(some).encode())),
        ),
        st.sampled_from(range(len(_forms()))),
    )


def _read_incoming(place: Path, given: Any) -> object:
    """Read rows, make items of them, and write them out again beside an answer."""
    from elicitable.deploy.asked import item_of
    from elicitable.deploy.outgoing import format_for, write
    from elicitable.deploy.predict import Prediction
    from elicitable.errors import InputError
    from elicitable.tasks.incoming import Incoming, incoming

    (name, kind, data), which = given
    (place / name).write_bytes(data)
    form = _forms()[which]

    def answered(row: Incoming) -> Prediction:
        if row.fault:
            return Prediction(None, fault=row.fault)
        try:
            return Prediction(str(item_of(form, row.values, letters_model()).target), 0.5)
        except InputError as error:
            return Prediction(None, fault=str(error))

    with (
        incoming(str(place / name), kind, wanted=(form.main,)) as rows,
        (place / "out").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        pairs = ((row, answered(row)) for row in rows.rows)
        return sum(1 for _ in write(file, format_for(rows, None), rows, form.main, pairs))


TABLES = (*map(_table, _FILES), Reader("conversations", _chats, _read_chats))
ROWS = (Reader("rows that are answered", _incoming, _read_incoming),)
