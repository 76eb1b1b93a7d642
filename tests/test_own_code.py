"""A person's own method and task as files, from Python and from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import elicitable as el
from elicitable import cli
from elicitable.errors import InputError
from elicitable.methods.catalog import method_named
from elicitable.methods.kv_prefix import KVPrefix
from elicitable.own_code import is_own_code, load_own, loaded_modules
from elicitable.own_digest import digest_of
from elicitable.race.trial import Trial
from elicitable.tasks.base import fingerprint_of, identity_of
from elicitable.tasks.catalog import task_from
from elicitable.training.loop import Plan

METHOD = '''
from elicitable.methods.kv_prefix import KVPrefix


class MyMethod(KVPrefix):
    """A prefix under another name."""

    name = "mine"
    summary = "a prefix of my own"
'''
TASK = '''
from dataclasses import dataclass

from words import ANSWER

from elicitable.values import Item


@dataclass
class MyTask:
    """Answer with the first of three digits."""

    name: str = "first"

    def labels(self):
        return None

    def sample(self, n, rng):
        rows = [tuple(map(int, row)) for row in rng.integers(10, size=(n, 3))]
        return [Item(row, (row[ANSWER],)) for row in rows]

    def held_out(self, split, n=None):
        import numpy as np

        return self.sample(n or 40, np.random.default_rng(len(split)))

    def fingerprint(self):
        return "first-1"


ready = MyTask("ready")


def score(answers, targets):
    return 0.5
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one, with a person's files in it."""
    (tmp_path / "my_method.py").write_text(METHOD, encoding="utf-8")
    (tmp_path / "my_task.py").write_text(TASK, encoding="utf-8")
    (tmp_path / "words.py").write_text("ANSWER = 0\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "words", raising=False)
    return tmp_path


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing had been loaded yet."""
    for module in [name for name in sys.modules if name.startswith("elicitable_own_code")]:
        monkeypatch.delitem(sys.modules, module)


def typed(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["elicitable", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_names_that_point_into_a_file() -> None:
    assert [is_own_code(name) for name in ("a.py:B", "a.py", "dir/a.py:B", "a.py:")] == [True] * 4
    assert not any(is_own_code(name) for name in ("kv-prefix", "rows.csv", "hub:a/b", "a.pyc", None, Path("a.py")))


def test_a_class_an_object_and_a_function(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = load_own("my_task.py:MyTask", "")
    assert (task.name, task.sample.__self__) == ("first", task)
    assert capsys.readouterr().err == "my_task.py is code and is run.\n"
    assert load_own("my_task.py:ready", "").name == "ready"
    assert load_own("my_task.py:score", "")([], []) == 0.5
    assert load_own(str(folder / "my_task.py") + ":MyTask", "") is task  # the same content is the same object
    assert capsys.readouterr().err == ""
    assert str(folder) not in sys.path


def test_a_file_that_changes_is_another(folder: Path) -> None:
    before = load_own("my_task.py:MyTask", "")
    (folder / "my_task.py").write_text(TASK.replace('"first"', '"second"'), encoding="utf-8")
    after = load_own("my_task.py:MyTask", "")
    assert (before.name, after.name) == ("first", "second")
    assert digest_of(before) != digest_of(after)


def test_the_digest_is_of_the_whole_file(folder: Path) -> None:
    """What a class uses from its file decides what it does, so a change there counts too."""
    first = digest_of(load_own("my_method.py:MyMethod", ""))
    (folder / "my_method.py").write_text(METHOD + "\nRATE = 2\n", encoding="utf-8")
    second = digest_of(load_own("my_method.py:MyMethod", ""))
    assert first is not None
    assert second is not None
    assert first != second


def test_two_objects_of_one_file_are_two_and_two_names_of_one_are_one(folder: Path) -> None:
    """A race with the one took what the folder kept of the other."""
    (folder / "mine.py").write_text("def strict(a, b): ...\ndef lenient(a, b): ...\nalias = strict\n", encoding="utf-8")
    names = ["strict", "lenient", "alias"]
    found = {name: digest_of(load_own(f"mine.py:{name}", "")) for name in names}
    assert found["strict"] != found["lenient"]
    assert found["alias"] == found["strict"] == digest_of(load_own("mine.py:strict", ""))
    lazy = "def __getattr__(name):\n    if name == 'made':\n        return int\n    raise AttributeError(name)\n"
    (folder / "lazy.py").write_text(lazy, encoding="utf-8")
    assert digest_of(load_own("lazy.py:made", "")) is not None
    two = METHOD + "\n\nclass Other(MyMethod):\n    pass\n"
    (folder / "my_method.py").write_text(two, encoding="utf-8")
    methods = [method_named(f"my_method.py:{name}") for name in ("MyMethod", "Other")]
    assert methods[0].identity != methods[1].identity
    (folder / "my_task.py").write_text(TASK + "\n\nclass Other(MyTask):\n    pass\n", encoding="utf-8")
    tasks = [task_from(f"my_task.py:{name}") for name in ("MyTask", "Other", "ready")]
    assert len(set(map(identity_of, tasks))) == 3


def test_files_beside_that_are_imported_count_and_are_run_as_they_are_now(folder: Path) -> None:
    """Also those that these import, in packages too; and what is not imported counts for nothing."""
    inner = folder / "inner"
    inner.mkdir()
    (inner / "__init__.py").write_text("from .deep import ANSWER\n", encoding="utf-8")
    (inner / "deep.py").write_text("ANSWER = 0\n", encoding="utf-8")
    (folder / "words.py").write_text("from inner import ANSWER\n", encoding="utf-8")

    def asked() -> tuple[str | None, int]:
        task = load_own("my_task.py:MyTask", "")
        return digest_of(task), sys.modules[type(task).__module__].ANSWER

    first = asked()
    (folder / "other.py").write_text("", encoding="utf-8")
    assert asked() == first
    assert load_own("my_task.py:MyTask", "") is load_own("my_task.py:MyTask", "")
    (inner / "deep.py").write_text("ANSWER = 1 + 1\n", encoding="utf-8")
    second = asked()
    assert (first[1], second[1]) == (0, 2)
    assert first[0] != second[0]
    (folder / "words.py").write_text("ANSWER = 1\n", encoding="utf-8")
    third = asked()
    assert third[1] == 1
    assert len({first[0], second[0], third[0]}) == 3
    for name in ("inner", "inner.deep"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "how", ["from parts import helper", "import parts.helper as helper", "from parts.helper import A"]
)
def test_a_file_in_a_folder_without_a_file_is_imported_anew_where_it_has_changed(folder: Path, how: str) -> None:
    """The folder stays, and kept what it held. An edit as long as what it takes the place of, at once, is one too."""
    (folder / "parts").mkdir()
    (folder / "mine.py").write_text(f"{how}\ndef told():\n    return A if 'A' in globals() else helper.A\n", "utf-8")
    found = []
    for answer in (1, 2, 3):
        (folder / "parts" / "helper.py").write_text(f"A = {answer}\n", encoding="utf-8")
        found.append(load_own("mine.py:told", "")())
    assert found == [1, 2, 3]
    other = folder / "other"
    (other / "parts").mkdir(parents=True)
    (other / "mine.py").write_bytes((folder / "mine.py").read_bytes())
    (other / "parts" / "helper.py").write_text("A = 4\n", encoding="utf-8")
    assert load_own("other/mine.py:told", "")() == 4


LAZY = """
def told():
    import late
    from late_inner.deep import answer
    return late.ANSWER + answer()
"""


def test_a_file_beside_is_there_for_a_function_that_imports_it_when_it_is_called(folder: Path) -> None:
    """Also where one of them does so itself, and as it was when the digest was made."""
    (folder / "late_inner").mkdir()
    deep = "def answer():\n    from late_inner import deeper\n    return deeper.ANSWER\n"
    (folder / "late_inner" / "deep.py").write_text(deep, encoding="utf-8")
    (folder / "late_inner" / "deeper.py").write_text("ANSWER = 20\n", encoding="utf-8")
    (folder / "late.py").write_text("ANSWER = 1\n", encoding="utf-8")
    (folder / "mine.py").write_text(LAZY, encoding="utf-8")
    told = load_own("mine.py:told", "")
    (folder / "late.py").write_text("ANSWER = 2\n", encoding="utf-8")
    assert told() == 21
    assert str(folder) not in sys.path
    again = load_own("mine.py:told", "")
    assert again() == 22
    assert digest_of(told) != digest_of(again)


def test_files_of_one_name_in_two_folders_are_two(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "my_task.py").write_text(TASK, encoding="utf-8")
    (other / "words.py").write_text("ANSWER = 2\n", encoding="utf-8")
    tasks = [load_own(f"{place}/my_task.py:MyTask", "") for place in (".", "other")]
    assert [sys.modules[type(task).__module__].ANSWER for task in tasks] == [0, 2]
    assert sys.modules["words"] in loaded_modules()  # so that it travels to workers
    assert digest_of(tasks[0]) != digest_of(tasks[1])


def test_two_files_share_what_both_import(folder: Path) -> None:
    (folder / "mine.py").write_text("import words\n", encoding="utf-8")
    (folder / "also.py").write_text("import words\n", encoding="utf-8")
    assert load_own("mine.py:words", "") is load_own("also.py:words", "")


def test_what_is_this_package_s_own_has_no_digest() -> None:
    assert digest_of(KVPrefix()) is None
    assert digest_of(task_from("ascending")) is None
    assert identity_of(task_from("ascending")) == task_from("ascending").fingerprint()


def test_a_class_of_a_program_has_the_digest_of_its_class() -> None:
    class Mine(KVPrefix):
        name = "mine"

    class Other(KVPrefix):
        name = "mine"
        turn = 3

    made = type("Typed", (KVPrefix,), {"name": "typed"})
    found = [digest_of(kind()) for kind in (Mine, Other, made)]
    assert None not in found
    assert len(set(found)) == 3
    assert digest_of(Mine()) == found[0]


OWN_TASK = """class Mine:
    name = "m"
    def labels(self): return None
    def fingerprint(self): return "1"
    def held_out(self, split): return []
    def sample(self, n, rng): return []
"""


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (None, "mine.py:Mine", "mine.py:Mine: the file mine.py cannot be read"),
        ("x = 1", "mine.py", "'mine.py' names no object of a Python file; write file.py:Name, as in my_task.py:MyTask"),
        ("x = 1", "mine.py:", "write file.py:Name"),
        ("x = 1", "mine.py:a-b", "write file.py:Name"),
        ("x = 1", "mine.py:Mine", "mine.py has no 'Mine'; it has x."),
        ("", "mine.py:Mine", "it has nothing"),
        ("x = 1\n\nif:\n", "mine.py:Mine", "mine.py, line 3: raised SyntaxError"),
        ("x = 1\nimport nothing_of_that_name\n", "mine.py:Mine", "mine.py, line 2: raised ModuleNotFoundError"),
        ("def f():\n    1 / 0\n\nf()\n", "mine.py:Mine", "mine.py, line 2: raised ZeroDivisionError"),
        ("raise SystemExit(3)\n", "mine.py:Mine", "mine.py, line 1: raised SystemExit: 3"),
        ("import sys\nsys.exit()\n", "mine.py:Mine", "mine.py, line 2: raised SystemExit"),
        ("class Mine:\n    def __init__(self, size): ...\n", "mine.py:Mine", "Mine() raised TypeError"),
        (
            "class Mine:\n    def __init__(self):\n        1 / 0\n",
            "mine.py:Mine",
            "mine.py, line 3: Mine() raised Zero",
        ),
        ("\x00", "mine.py:Mine", "mine.py: raised "),
        ("x = '\udcff'", "mine.py:x", "mine.py"),
        ("x = 3", "mine.py:x", "int is no task: it lacks name, labels"),
        ("class Mine:\n    name = 'm'\n", "mine.py:Mine", "Mine is no task: it lacks labels"),
        (
            OWN_TASK,
            "mine.py:Mine",
            "mine.py: held_out('validation', 8) raised TypeError: Mine.held_out() takes 2 positional arguments",
        ),
        (OWN_TASK.replace("None", "1 / 0"), "mine.py:Mine", "mine.py, line 3: labels() raised ZeroDivisionError"),
        (
            OWN_TASK.replace("None", "(' x',)"),
            "mine.py:Mine",
            "labels() has to give at least two labels, each once, and",
        ),
        (OWN_TASK.replace("None", "(' x', ' x')"), "mine.py:Mine", "at least two labels, each once"),
    ],
)
def test_what_cannot_be_is_named(fresh: None, folder: Path, content: str | None, name: str, words: str) -> None:
    if content is not None:
        (folder / "mine.py").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as refused:
        task_from(name)
    assert words in str(refused.value)
    if "raised" in words and "()" not in words:  # what broke off is not kept
        assert not any(module.endswith("_mine") for module in sys.modules if module.startswith("elicitable_own_code"))


def test_what_is_no_method_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"my_task\.py:MyTask is no method: derive MyTask from elicitable\.methods"):
        method_named("my_task.py:MyTask")
    with pytest.raises(InputError, match="as in my_method"):
        method_named("my_method.py")


def test_an_interrupt_in_a_file_is_no_fault_of_it(folder: Path) -> None:
    (folder / "mine.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        load_own("mine.py:Mine", "")


def test_identities_hold_the_code(folder: Path) -> None:
    """A trial of a method or a task that was edited since is another trial."""
    model = el.load("toy:ascending")

    def identity() -> str:
        trial = Trial(method_named("my_method.py:MyMethod"), 1, Plan(0.1, 2), 0)
        return fingerprint_of([json.dumps(trial.spec(model, task_from("my_task.py:MyTask")), sort_keys=True)])

    seen = [identity(), identity()]
    (folder / "my_method.py").write_text(METHOD + "\n# another line\n", encoding="utf-8")
    seen.append(identity())
    (folder / "my_task.py").write_text(TASK + "\n# another line\n", encoding="utf-8")
    seen.append(identity())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_a_race_of_a_person_s_method_on_a_person_s_task(folder: Path) -> None:
    given: dict[str, Any] = {"methods": ["zero-shot", "my_method.py:MyMethod"], "seeds": 1, "steps": 4}
    answer = el.verdict("toy:ascending", "my_task.py:MyTask", budget=400, test_items=20, **given)
    assert {arm.method: arm.status for arm in answer.arms} == {"zero-shot": "ok", "mine": "ok"}
    assert answer.task == "first"
    tuned = el.tune("toy:ascending", "my_task.py:MyTask", method="my_method.py:MyMethod", size=1, steps=4, test_items=8)
    assert (tuned.record["method"], tuned.record["task"]) == ("mine", "first")


def test_both_from_the_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--model", "toy:ascending", "--task", "my_task.py:MyTask", "--method", "my_method.py:MyMethod", "--json"]
    few = ["--seeds", "1", "--steps", "4", "--test-items", "20", "--budget", "400"]
    assert typed(monkeypatch, "verdict", *both, *few) == 0
    out, err = capsys.readouterr()
    assert [arm["method"] for arm in json.loads(out)["arms"]] == ["mine"]
    assert "my_task.py is code and is run." in err
    assert (folder / "elicitable-runs" / "verdict-toy-ascending-my_task-MyTask" / "report.html").exists()
    assert typed(monkeypatch, "tune", *both, "--size", "1", "--steps", "2", "--quiet", "--out", "adapter") == 0
    assert json.loads(capsys.readouterr().out)["method"] == "mine"
    assert (folder / "adapter" / "adapter_config.json").exists()
    assert typed(monkeypatch, "verdict", *both, "--template", "{text}") == 2
    assert "is given ready-made and takes no options: template" in capsys.readouterr().err
    assert typed(monkeypatch, "tune", "-m", "toy:ascending", "-t", "my_task.py:Nothing", "--method", "lora", "-q") == 2
    assert "error: my_task.py has no 'Nothing'; it has " in capsys.readouterr().err


WRONG = {
    "NoRung": ("", "NoRung has no rung: give the class one, a Rung"),
    "BadName": ("rung = rungs.PREFIX; name = 3", "BadName: name has to be what a person types: a text without blanks"),
    "Elsewhere": ("rung = rungs.PREFIX; name = '../x'", "Elsewhere: name has to be"),
    "Unfound": ("rung = rungs.PREFIX", "x: nothing says how it is found: give it a schedule of learning rates, or can"),
    "Rate": ("rung = rungs.PREFIX; schedule = 0.1", "Rate: schedule has to be a Schedule of learning rates above 0"),
    "NoRates": ("rung = rungs.PREFIX; schedule = Schedule(())", "NoRates: schedule has to be a Schedule"),
    "Downhill": ("rung = rungs.PREFIX; schedule = Schedule((1, 0.1))", "from low to high"),
    "Options": ("rung = rungs.PREFIX; schedule = Schedule((1,)); options = 'size'", "has to be a tuple of texts"),
}
TRAINED = "rung = rungs.PREFIX; schedule = Schedule((0.1,))"
BUILT = {
    "Counts": (
        f"{TRAINED}\n    numbers = lambda self, model, size: 'five'",
        "x: numbers(model, 1) has to say how many",
    ),
    "Nothing": (f"{TRAINED}\n    numbers = lambda self, model, size: 5", "x: build() has to return an Adaptation, and"),
    "Empty": (
        f"{TRAINED}\n    numbers = lambda self, model, size: 5\n    build = lambda self, *a, **b: Adaptation()",
        "x: parameters() of what it builds is empty, so there is nothing to train",
    ),
    "Candidates": (
        "rung = rungs.PROMPT\n    candidates = lambda self, *a, **b: [None]",
        "a candidate has to be an Adapt",
    ),
}


HEAD = """\
from elicitable.methods import rungs
from elicitable.methods.base import Adaptation, Method, Schedule


class {name}(Method):
    name = summary = "x"
    build = lambda self, *a, **b: None
    {body}
"""


def written_method(folder: Path, name: str, body: str) -> str:
    (folder / "wrong.py").write_text(HEAD.format(name=name, body=body or "pass"), encoding="utf-8")
    return f"wrong.py:{name}"


@pytest.mark.parametrize("name", WRONG)
def test_what_a_method_says_of_itself_is_looked_at(fresh: None, folder: Path, name: str) -> None:
    body, words = WRONG[name]
    with pytest.raises(InputError) as refused:
        method_named(written_method(folder, name, body))
    assert words in str(refused.value)


@pytest.mark.parametrize("name", BUILT)
def test_what_a_method_builds_is_looked_at(fresh: None, folder: Path, name: str) -> None:
    """The whole race ends in one error, or the arm says why it failed, never in what Python says of None."""
    body, words = BUILT[name]
    methods = ["zero-shot", written_method(folder, name, body)]

    def race() -> str:
        answer = el.verdict("toy:ascending", "descending", methods=methods, steps=2, seeds=1, test_items=20)
        return next(arm.reason for arm in answer.arms if arm.method == "x")

    if name == "Counts":  # needed before the race begins
        with pytest.raises(InputError) as refused:
            race()
        assert words in str(refused.value)
    else:
        assert words in race()
