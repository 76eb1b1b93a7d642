"""Lists and conversations that stand as texts, in every spelling in which programs write them into CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from elicitable.errors import InputError
from elicitable.tasks.catalog import task_from
from elicitable.tasks.text import TextTask
from elicitable.tasks.written import LONGEST, parsed

Rows = list[dict[str, Any]]


def task_of(data: Any, **options: Any) -> TextTask:
    task = task_from(data, **options)
    assert isinstance(task, TextTask)
    return task


def saved(folder: Path, rows: Rows, spelling: str = "python") -> Path:
    """Rows as pandas saves them: of lists what Python writes, of arrays what numpy does."""
    frame = pd.DataFrame(rows)
    if spelling == "numpy":
        frame = frame.map(lambda cell: np.array(cell, dtype=object) if isinstance(cell, list) else cell)
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def talk(i: int) -> list[dict[str, str]]:
    said = f'What\'s "{i}"\n+ 1?'
    return [{"role": "user", "content": said}, {"role": "assistant", "content": f"It's {i + 1}"}]


FORMS = {
    "messages beside a label": lambda i: {"messages": talk(i)[:1], "label": "ab"[i % 2]},
    "prompt and completion": lambda i: {"prompt": talk(i)[:1], "completion": talk(i)[1:]},
    "messages beside an id": lambda i: {"id": i, "messages": talk(i)},
    "several right answers": lambda i: {"question": f"q {i}", "answer": [f"x {i}", f"it's {i}"]},
    "one of several": lambda i: {"question": f"q {i}", "answer": [f"it's {i}"] if i % 2 else [f"x {i}"]},
    "a label in a list": lambda i: {"text": f"text {i}", "label": ["ab"[i % 2]]},
    "own choices": lambda i: {"question": f"q {i}", "choices": [f"a {i}", f"b {i}"], "answer": "AB"[i % 2]},
}


@pytest.mark.parametrize("spelling", ["python", "numpy"])
@pytest.mark.parametrize("form", FORMS)
def test_what_pandas_writes_is_read_as_the_rows_it_was(tmp_path: Path, form: str, spelling: str) -> None:
    """The text of the list was shown to the model, and was what it had to write, without a word."""
    rows = [FORMS[form](i) for i in range(60)]
    found = task_of(saved(tmp_path, rows, spelling))
    assert found.fingerprint() == task_of(rows).fingerprint()
    assert not any("written out" in one for one in found.warnings)


def test_answers_that_are_json_stay_what_is_to_be_written_and_are_said(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "target": f'["x {i}", "y"]'} for i in range(60)]
    task = task_of(saved(tmp_path, rows))
    assert {item.target[:5] for item in task.held_out("test")} == {' ["x '}
    assert any("column 'target' holds lists or objects that are written out" in one for one in task.warnings)
    objects = task_of([{"prompt": f"q {i}", "target": f"{{'a': {i}}}"} for i in range(60)])
    assert any("written out" in one for one in objects.warnings)
    plain = task_of([{"prompt": f"[{i}] q", "target": f"[{i}]"} for i in range(60)])
    assert not any("written out" in one for one in plain.warnings)


def test_several_labels_in_a_list_are_refused(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": ["a", "b"]} for i in range(60)]
    with pytest.raises(InputError, match="is a list of several values, and a label is one"):
        task_of(saved(tmp_path, rows), label_column="label")


@pytest.mark.filterwarnings("error")
def test_what_is_no_list_is_none() -> None:
    for text in ("", "a", "[", "['a'", "[" * 5_000, "['\\d'", "['a' + b]", "[f'{x}']", "['a']['b']", "{'a': 1}"):
        assert parsed(text) is None
    assert parsed("['" + "a" * LONGEST + "']") is None
    assert parsed(r"['\d']") == [r"\d"]
