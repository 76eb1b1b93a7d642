"""Hub data sets, through ``datasets`` on local folders of data files: the same code path without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from elicitable.errors import InputError, MissingPackageError
from elicitable.tasks import hub
from elicitable.tasks.catalog import task_from
from elicitable.tasks.hub import hub_task
from elicitable.tasks.text import TextTask

datasets = pytest.importorskip("datasets")  # a dependency: this only keeps the import out of collection order


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


def rows(n: int, label: int | None = None, start: int = 0) -> dict[str, list[Any]]:
    numbers = range(start, start + n)
    return {"text": [f"text {i}" for i in numbers], "label": [i % 2 if label is None else label for i in numbers]}


def classed(data: dict[str, list[Any]]) -> Any:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["zebra", "ant"])}
    return datasets.Dataset.from_dict(data, features=datasets.Features(features))


def serve(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    loaded = datasets.DatasetDict(parts)
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **_: loaded)


def test_a_folder_of_parquet_files_goes_through_load_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    classed(rows(60)).to_parquet(folder / "train.parquet")
    classed(rows(20, start=60)).to_parquet(folder / "test.parquet")
    task = task_from(f"hub:{folder}")
    assert isinstance(task, TextTask)
    assert task.labels() == (" zebra", " ant")  # the data set's own order
    assert task.sizes["test"] == 20
    assert task.sizes["train"] + task.sizes["validation"] == 60


def test_a_folder_of_json_lines(tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    folder.mkdir()
    lines = [f'{{"question": "{i} + 1", "answer": "{i + 1}"}}' for i in range(60)]
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert task_from(f"hub:{folder}").labels() is None


def test_all_own_splits_are_used_under_their_usual_names(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, train=classed(rows(9)), dev=classed(rows(5, start=20)), test=classed(rows(7, start=40)))
    task = hub_task("owner/name")
    assert task.name == "owner/name"
    assert task.sizes == {"train": 9, "validation": 5, "test": 7}


def test_a_test_split_with_hidden_labels_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, train=classed(rows(60)), test=classed(rows(30, label=-1, start=100)))
    task = hub_task("owner/name")
    assert "the test split of the data set has no labels and is not used" in task.warnings
    assert sum(task.sizes.values()) == 60


def test_columns_that_are_no_texts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures here are broken: decoding one would raise."""
    kinds = {"text": "string", "label": "int64", "note": "string"}
    features = {name: datasets.Value(kind) for name, kind in kinds.items()}
    features |= {"tokens": datasets.List(datasets.Value("int64")), "picture": datasets.Image()}
    extra = {"tokens": [[1, 2]] * 60, "note": [None] * 60, "picture": [{"bytes": b"broken", "path": None}] * 60}
    data = datasets.Dataset.from_dict({**rows(60), **extra}, features=datasets.Features(features))
    serve(monkeypatch, train=data)
    assert hub_task("owner/name").labels() == (" 0", " 1")


def test_a_fixed_random_choice_of_a_large_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_ROWS", 50)
    ordered = rows(200)
    ordered["label"].sort()
    serve(monkeypatch, train=classed(ordered))
    task = hub_task("owner/name")
    assert "50 of 200 rows of the train split are used, chosen at random" in task.warnings
    assert sum(task.sizes.values()) == 50
    assert task.labels() == (" zebra", " ant")
    assert hub_task("owner/name").fingerprint() == task.fingerprint()


def test_mistakes_name_the_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, test=classed(rows(9)))
    with pytest.raises(InputError, match="data set 'owner/name' has no train split; it has test"):
        hub_task("owner/name")
    serve(monkeypatch, train=classed(rows(60, label=-1)))
    with pytest.raises(InputError, match="data set 'owner/name': its train split has no labelled rows"):
        hub_task("owner/name")
    serve(monkeypatch, train=classed(rows(60)))
    with pytest.raises(InputError, match=r"data set 'owner/name' \(train\) has no column 'body'"):
        task_from("owner/name", text_column="body")


def test_offline_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub (LocalEntryNotFoundError)\nmore")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match="data set 'owner/name' could not be loaded: Couldn't reach") as caught:
        hub_task("owner/name")
    assert "more" not in str(caught.value)
    assert "name that file" in str(caught.value)


def test_no_code_of_a_data_set_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "evil.py").write_text("raise SystemExit('code was run')", encoding="utf-8")
    with pytest.raises(InputError, match="could not be loaded"):
        hub_task(str(folder))


def test_without_the_package_the_one_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match="python -m pip install datasets"):
        hub_task("owner/name")


def with_classes(columns: dict[str, list[Any]], **classes: Any) -> Any:
    features = {name: datasets.Value("string") for name in columns} | classes
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


CLASSES = {
    "one": datasets.ClassLabel(names=["zebra", "ant"]),
    "list": datasets.List(datasets.ClassLabel(names=["z", "a"])),
}


def test_the_same_classes_have_names_and_an_order_wherever_they_were(tmp_path: Path) -> None:
    """A Parquet file of a data set had numbers as labels, and a column of lists of one class was not read at all."""
    for kind, feature in CLASSES.items():
        labels = [[i % 2] if kind == "list" else i % 2 for i in range(60)]
        data = with_classes({"text": [f"text {i}" for i in range(60)], "label": labels}, label=feature)
        names = (" z", " a") if kind == "list" else (" zebra", " ant")
        data.to_parquet(tmp_path / "t.parquet")
        data.save_to_disk(tmp_path / kind)
        saved = next((tmp_path / kind).glob("*.arrow"))
        found = [task_from(one) for one in (data, tmp_path / "t.parquet", saved, data.data.table, {"train": data})]
        assert [task.labels() for task in found] == [names] * 5
        assert len({task.fingerprint() for task in found}) == 1
    inner = with_classes(
        {"row": [{"text": f"text {i}", "kind": i % 2} for i in range(60)]},
        row={"text": datasets.Value("string"), "kind": CLASSES["one"]},
    )
    assert task_from(inner, text_column="row.text", label_column="row.kind").labels() == (" zebra", " ant")


def test_hidden_labels_are_counted_and_those_of_other_columns_hide_nothing() -> None:
    """Two thirds of the rows went because a column that is not used has no class there, and nothing was said."""
    texts, numbers = [f"text {i}" for i in range(99)], list(range(99))
    data = with_classes(
        {"text": texts, "label": [i % 2 for i in numbers], "topic": [-1 if i % 3 else 0 for i in numbers]},
        label=CLASSES["one"],
        topic=datasets.ClassLabel(names=["x"]),
    )
    task = task_from(data)
    assert isinstance(task, TextTask)
    assert (sum(task.sizes.values()), task.labels()) == (99, (" zebra", " ant"))
    assert not any("left out" in note for note in task.warnings)
    hidden = data.remove_columns("topic").map(lambda row: {"label": -1 if row["text"].endswith("0") else row["label"]})
    for form in (hidden, hidden.data.table):
        task = task_from(form)
        assert isinstance(task, TextTask)
        assert sum(task.sizes.values()) == 89
        assert any("10 of 99 rows are left out: their 'label' is hidden (-1)" in note for note in task.warnings)


def test_a_schema_says_nothing_of_classes_where_its_metadata_are_not_what_they_should_be() -> None:
    import pyarrow

    deep = '{"a": ' * 100_000
    for said in (
        "",
        "[]",
        "{",
        '{"info": 3}',
        '{"info": {"features": [1]}}',
        deep,
        '{"info": {"features": {"label": []}}}',
    ):
        schema = pyarrow.schema(
            [("text", pyarrow.string()), ("label", pyarrow.int64())], metadata={"huggingface": said}
        )
        table = pyarrow.table(
            {"text": [f"text {i}" for i in range(60)], "label": [i % 2 for i in range(60)]}, schema=schema
        )
        assert task_from(table).labels() == (" 0", " 1")
