"""What is written beside the rows that were answered is JSON, whatever a row holds."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from elicitable.deploy.outgoing import write
from elicitable.deploy.predict import Prediction
from elicitable.tasks.incoming import Incoming, Rows, incoming


def strictly(line: str) -> Any:
    """A line of JSON, which has no NaN and no Infinity."""
    return json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON: {line}"))


def written(rows: Rows) -> list[Any]:
    file = io.StringIO()
    for _ in write(file, "jsonl", rows, "text", ((row, Prediction("fine", 0.5)) for row in rows.rows)):
        pass
    return [strictly(line) for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_what_is_missing_in_a_column_of_numbers_is_null(tmp_path: Path, suffix: str) -> None:
    """A missing float32 came as NaN and was written as that."""
    import pyarrow
    from pyarrow import feather, parquet

    kinds = {"half": pyarrow.float16(), "single": pyarrow.float32(), "double": pyarrow.float64()}
    columns = {"text": ["a", "b", "c"]} | {
        name: pyarrow.array([0.1, None, math.inf], pyarrow.float32()).cast(kind) for name, kind in kinds.items()
    }
    path, table = tmp_path / f"rows.{suffix}", pyarrow.table(columns)
    if suffix == "parquet":
        parquet.write_table(table, path)
    else:
        feather.write_feather(table, path)
    with incoming(str(path)) as rows:
        found = written(rows)
    assert [row["single"] for row in found] == [0.1, None, None]
    assert [row["half"] for row in found][1:] == [None, None]
    assert [row["double"] for row in found][1:] == [None, None]
    assert [(row["text"], row["prediction"], row["probability"]) for row in found] == [
        (text, "fine", 0.5) for text in "abc"
    ]


def test_all_else_is_as_it_came_however_deep_it_is_nested() -> None:
    deep: Any = math.nan
    for _ in range(400):
        deep = [deep]
    row = {"text": "Ω \ud800", "deep": deep, "many": 10**30, "some": {"a": [1.5, -math.inf, True, None]}}
    [found] = written(Rows("rows", "jsonl", (), iter([Incoming("line 1", row)])))
    for _ in range(400):
        [found["deep"]] = found["deep"]
    assert found["deep"] is None
    assert found["some"] == {"a": [1.5, None, True, None]}
    assert (found["text"], found["many"]) == (row["text"], 10**30)
