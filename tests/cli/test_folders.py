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


def test_other_contexts_are_inspected_in_other_folders(call: Call, tmp_path: Path) -> None:
    """The second one's report stood beside figures of the first."""
    about = ("inspect", "-m", "toy:ascending", "-t", "ascending", "--texts", "2", "-q")
    for prompt in ("7 0", "7 1", "7 0"):
        assert call(*about, "--prompt", prompt)[0] == 0
    made = list((tmp_path / "elicitable-runs").iterdir())
    assert len(made) == 2
    assert all(one.name.startswith("inspect-toy-ascending-ascending-") for one in made)


def test_a_score_that_nothing_is_measured_by_is_refused(call: Call) -> None:
    typed = ("inspect", "-m", "toy:ascending", "-t", "ascending", "--prompt", "7 0", "--score", "accuracy")
    code, _, err = call(*typed)
    assert (code, "--score says what --ablate measures" in err) == (2, True)


def test_toys_of_other_seeds_are_kept_beside_one_another(call: Call, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        assert call("pretrain", "ascending", "--steps", "2", "--seed", seed, "-q")[0] == 0
    made = sorted((tmp_path / "elicitable-runs").glob("*/ascending.json"))
    assert [json.loads(path.read_text(encoding="utf-8"))["spec"]["seed"] for path in made] == [0, 1]
