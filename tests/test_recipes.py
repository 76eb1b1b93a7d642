"""The recipes of CONTRIBUTING for tasks and architectures, followed to the letter by someone new."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import elicitable as el
from elicitable import cli
from elicitable.errors import InputError
from elicitable.lab.sources import task_named
from elicitable.models import architectures
from elicitable.models.architectures import Architecture, architecture_rows, tiny_model
from elicitable.tasks import catalog, digit_rules
from elicitable.tasks.base import TaskCard
from elicitable.tasks.catalog import task_from

RECIPES = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")

DIGIT_RULE = '''
@rule("reversed", "write 10 digits from last to first")
def reversed_digits(digits):
    """Reverse the order."""
    return digits[:, ::-1]
'''

TEXT_TASK = '''
"""Ask whether a number is even."""

from elicitable.tasks.splitting import Row, split_rows
from elicitable.tasks.template import Template
from elicitable.tasks.text import TextTask

TEMPLATE = "Number: {text}\\nEven:"


def even_numbers(*, template=TEMPLATE):
    """Make the task."""
    rows = [Row((f"{number} and more",), "no" if number % 2 else "yes") for number in range(400)]
    splits, _ = split_rows({"train": rows})
    return TextTask("even-numbers", splits, Template.parse(template, "text"), classes=("no", "yes"))
'''

OWN_TASK = '''
from elicitable.tasks.base import fingerprint_of
from elicitable.values import Item


class Rotated:
    """Write the digits with the first one moved to the end."""

    name = "rotated"
    vocab_size = 10

    def labels(self):
        return None

    def sample(self, n, rng):
        return [self._item(digits) for digits in rng.integers(0, 4, (n, 10)).tolist()]

    def held_out(self, split, n=None):
        low = 4 if split == "validation" else 6
        return [self._item([low + (number >> k) % 2 for k in range(10)]) for number in range(1, 41)][:n]

    def fingerprint(self):
        return fingerprint_of(["rotated", "1"])

    def _item(self, digits):
        return Item(tuple(digits), tuple(digits[1:] + digits[:1]))
'''

OWN_METHOD = """
from elicitable.methods.kv_prefix import KVPrefix


class Mine(KVPrefix):
    name = "mine"
"""


def typed(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["elicitable", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_a_digit_task_is_one_decorated_function(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = dict(digit_rules.RULES)
    monkeypatch.setattr(digit_rules, "RULES", rules)
    monkeypatch.setattr(digit_rules, "DESCRIPTIONS", dict(digit_rules.DESCRIPTIONS))
    monkeypatch.setattr("elicitable.tasks.digits.RULES", rules)  # the name under which it was imported
    exec(DIGIT_RULE, vars(digit_rules))
    monkeypatch.delitem(vars(digit_rules), "reversed_digits")
    assert catalog.catalog()["reversed"].description == "write 10 digits from last to first"
    task = task_from("reversed")
    assert task_named("reversed").fingerprint() == task.fingerprint() != task_from("descending").fingerprint()
    items = [*task.sample(8, np.random.default_rng(0)), *task.held_out("test", 8)]
    assert all(item.target == item.prompt[::-1] for item in items)
    answer = el.verdict("toy:mixed", "reversed", methods=["zero-shot"], seeds=1, test_items=20)
    assert (answer.task, answer.arms[0].status) == ("reversed", "ok")
    with pytest.raises(InputError, match="there is a digit task called 'reversed' already"):
        exec(DIGIT_RULE, vars(digit_rules))


def test_a_text_task_is_a_file_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("elicitable.tasks.even_numbers")
    exec(TEXT_TASK, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    card = TaskCard("even-numbers", "is a number even?", "classification", "made here")
    monkeypatch.setattr(catalog, "TEXT_TASKS", (*catalog.TEXT_TASKS, card))
    assert catalog.catalog()["even-numbers"] == card
    task = task_from("even-numbers")
    assert task.labels() == (" no", " yes")
    assert str(task.held_out("test", 1)[0].prompt).startswith("Number: ")
    other = task_from("even-numbers", template="{text}?")
    assert str(other.held_out("test", 1)[0].prompt).endswith("and more?")
    assert other.fingerprint() != task.fingerprint()


def test_a_task_of_one_s_own_is_asked_from_the_command_line_with_a_method_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(OWN_TASK, encoding="utf-8")
    (tmp_path / "my_method.py").write_text(OWN_METHOD, encoding="utf-8")
    named = ["--model", "toy:ascending", "--task", "my_task.py:Rotated", "--method", "my_method.py:Mine"]
    few = ["--seeds", "1", "--steps", "4", "--test-items", "20", "--budget", "400"]
    assert typed(monkeypatch, "verdict", *named, *few, "--json", "--quiet") == 0
    printed = capsys.readouterr()
    verdict = json.loads(printed.out)
    assert (verdict["task"], [(arm["method"], arm["status"]) for arm in verdict["arms"]]) == (
        "rotated",
        [("mine", "ok")],
    )
    assert "my_task.py is code and is run." in printed.err
    assert "my_method.py is code and is run." in printed.err
    assert el.verdict("toy:ascending", "my_task.py:Rotated", methods=["zero-shot"], seeds=1).task == "rotated"


def test_an_architecture_is_one_row_that_the_tests_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Architecture("llama (one key for all)", ("multi-query",), {"num_key_value_heads": 1}, "", "llama")
    monkeypatch.setattr(architectures, "ARCHITECTURES", (*architectures.ARCHITECTURES, row))
    assert architecture_rows()[-1] == {
        "name": "llama (one key for all)", "state": "exact", "traits": "multi-query", "reason": "",
    }  # fmt: skip
    model = tiny_model(row.name)
    context = el.context("prompt", model, token_ids=[7, 9, 4])
    with torch.no_grad(), el.watch(model, context, drift=False) as scope:
        model(torch.tensor([[12, 40, 5, 6, 33, 9]]))
    assert scope.prefix_mass.shape == (2, 4, 1, 6)
    assert max(scope.attention_residual.max(), scope.output_residual.max()) < 1e-12  # float64


@pytest.mark.parametrize(
    "place",
    ["`tasks/digit_rules.py`", "`TEXT_TASKS` in `tasks/catalog.py`", "`ARCHITECTURES` in `models/architectures.py`"],
)
def test_the_recipes_name_the_places(place: str) -> None:
    assert place in RECIPES.replace("\n", " ")
