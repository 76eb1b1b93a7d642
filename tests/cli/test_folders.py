"""Where results go when nobody says: other questions go to other folders, whatever stands in the names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from elicitable.cli.output import default_folder

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Qwen/Qwen2.5-7B", "ascending"), ("Qwen/Qwen2.5-3B", "ascending")),
        (("models/mine-1.5", "ascending"), ("models/mine-1.6", "ascending")),
        (("a/tiny.gguf", "ascending"), ("b/tiny.gguf", "ascending")),
        (("toy:mixed", "hub:mine/mail-1.5"), ("toy:mixed", "hub:mine/mail-1.6")),
        (("toy:mixed", "hub:mine/mail"), ("toy:mixed", "hub:yours/mail")),
        (("toy:mixed", "one/mail.csv"), ("toy:mixed", "two/mail.csv")),
        (("toy:mixed", "mail.v1.csv"), ("toy:mixed", "mail.v2.csv")),
        (("toy:mixed", f"{'long/' * 80}one.csv"), ("toy:mixed", f"{'long/' * 80}two.csv")),
    ],
)
def test_other_questions_go_to_other_folders(one: tuple[str, str], other: tuple[str, str], tmp_path: Path) -> None:
    folders = {default_folder("verdict", *question) for question in (one, other)}
    assert len(folders) == 2
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)  # a name that a file system takes
        assert len(folder.parts) == 2


def test_toys_of_other_seeds_are_kept_beside_one_another(call: Call, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        assert call("pretrain", "ascending", "--steps", "2", "--seed", seed, "-q")[0] == 0
    made = sorted((tmp_path / "elicitable-runs").glob("*/ascending.json"))
    assert [json.loads(path.read_text(encoding="utf-8"))["spec"]["seed"] for path in made] == [0, 1]
