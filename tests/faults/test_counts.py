"""What is counted is kept, found again, and printed; a line that was altered is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.__main__ import names
from tests.faults.counts import Counted, as_markdown, is_known, keep, read

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
ONE = Counted(
    "inputs", "csv", {"taken": 3, "refused": 1_204}, [], 2.5, 0, 300.4, {"date": "2026-01-02", "processor": "amx"}
)
OTHER = Counted("kills", "tune", {"killed": 4}, ["lost"], 9.0, 1)


def test_a_count_is_kept_and_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "counts.jsonl"
    assert read(path) == []
    for one in (OTHER, Counted("inputs", "csv", {"taken": 1}, [], 1.0, 0), ONE):
        keep(one, path)
    assert read(path) == [ONE, OTHER]
    assert is_known(path, "inputs", "csv", 1_207)
    for what, name, count in (("inputs", "csv", 1_208), ("kills", "tune", 4), ("kills", "csv", 1)):
        assert not is_known(path, what, name, count)
    path.write_text(path.read_text(encoding="utf-8").replace("1204", "9204"), encoding="utf-8")
    with pytest.raises(ValueError, match="was altered"):
        read(path)


def test_a_table_says_how_each_ended_and_sums_and_names_what_was_not_counted() -> None:
    held = [ONE, Counted("inputs", "tsv", {"taken": 2}, ["a", "b"], 1.0, 0, 400.0)]
    lines = as_markdown(held, {"inputs": ["csv", "json", "tsv"], "alterations": ["x"], "kills": []}).splitlines()
    assert lines == [
        "Counted: 2026-01-02, on amx.",
        "",
        "| reader | inputs | refused | taken | wrong | peak, MiB |",
        "| --- | --: | --: | --: | --: | --: |",
        "| csv | 1,207 | 1,204 | 3 | 0 | 300 |",
        "| tsv | 2 | 0 | 2 | 2 | 400 |",
        "| **all** | 1,209 | 1,204 | 5 | 2 | 400 |",
        "",
        "Not counted: json.",
        "",
        "No alterations were counted.",
        "",
        "No kills were counted.",
    ]


def test_the_counts_on_the_page_are_those_that_are_kept() -> None:
    held = read()
    assert as_markdown(held, names()) in PAGE.read_text(encoding="utf-8")
    assert all(one.name in names()[one.what] for one in held)
    assert not [fault for one in held for fault in one.wrong]
