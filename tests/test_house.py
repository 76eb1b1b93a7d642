"""Who may import whom. The rooms are the argument of the package; this holds the walls between them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import elicitable

PACKAGE = Path(elicitable.__file__).parent

GROUND = {"errors", "durations", "glance", "values", "rng", "untrusted", "cache", "own_code", "own_digest"}
SIBLINGS = {"models", "attention", "constructions", "tasks"}
WORKING = GROUND | SIBLINGS | {"methods", "training", "microscope", "compiling", "scores", "diagnosis", "records"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "durations": {"errors"},
    "glance": {"untrusted"},
    "values": {"errors", "glance", "untrusted"},
    "rng": {"errors"},
    "untrusted": {"errors"},
    "cache": {"errors", "untrusted"},
    "executors": GROUND,
    "own_code": {"errors", "untrusted", "own_digest"},
    "own_digest": set(),
    **dict.fromkeys(SIBLINGS, GROUND),
    "models": GROUND | {"attention"},
    "methods": GROUND | SIBLINGS,
    "training": GROUND | SIBLINGS | {"methods"},
    "microscope": GROUND | {"models", "attention"},
    "compiling": GROUND | {"models", "attention", "tasks", "methods", "training", "microscope", "diagnosis"},
    "scores": {"errors", "untrusted", "values", "rng"},
    "diagnosis": {"errors", "values", "rng"},
    "records": GROUND,
    "deploy": GROUND | {"models", "tasks", "methods", "training", "microscope", "records"},
    "experiments": {"errors", "values"},
    "race": WORKING | {"deploy", "testing", "executors"},
    "forecasting": WORKING - {"constructions", "compiling"} | {"race", "planted"},
    "lab": WORKING | {"experiments", "executors"},
    "planted": WORKING | {"race", "executors"},
    "report": {"errors", "glance", "values", "untrusted", "cache"},
    "testing": GROUND | {"models", "methods", "training"},
    "cli": WORKING
    | {"experiments", "executors", "race", "forecasting", "lab", "planted", "report", "deploy", "__init__"},
    "__init__": {"errors"},
    "__main__": {"cli"},
}
# A report names the types of the records that it draws, and a record those of its parts: for type checkers alone.
MAY_NAME_TYPES: dict[str, set[str]] = {
    "report": {"constructions", "microscope", "tasks", "diagnosis", "records", "forecasting"},
    "records": {"diagnosis"},
}
OWNERS = {
    "transformers": ("models/",),
    "peft": ("methods/",),
    "datasets": ("tasks/",),
    "lm_eval": ("tasks/harness_source.py",),
    "pyarrow": ("tasks/arrow.py",),
    "ray": ("executors/ray_cluster.py",),
    "cloudpickle": ("executors/packing.py",),
    "matplotlib": ("report/",),
    "sklearn": ("scores/classification.py", "scores/confusion.py", "forecasting/train.py", "forecasting/evaluate.py"),
    "sacrebleu": ("scores/chrf.py", "scores/of_task.py"),
    "rouge_score": ("scores/rouge_l.py",),
    "scipy": ("diagnosis/intervals.py",),
}
HEAVY = {*OWNERS, "torch", "numpy", "pandas", "safetensors", "gguf", "rich", "jinja2"}


@dataclass(frozen=True)
class Import:
    """One import: the importing file, the module, whether it is for type checkers only, whether it runs at once."""

    file: str
    module: str
    is_type_only: bool
    is_at_once: bool

    def __str__(self) -> str:
        return f"{self.file} imports {self.module}"


def imports_of(root: Path, package: str = "elicitable") -> list[Import]:
    return [found for path in sorted(root.rglob("*.py")) for found in _imports(path, root, package)]


def _imports(path: Path, root: Path, package: str) -> Iterator[Import]:
    file = path.relative_to(root).as_posix()
    parents: dict[ast.AST, ast.AST] = {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        parents.update(dict.fromkeys(ast.iter_child_nodes(node), node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            modules = [node.module or ""]
            if any(alias.name == "*" for alias in node.names):
                modules = [f"{node.module}.*"]
            elif node.module == package or _is_room(root, node.module or "", package):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        around = list(_above(node, parents))
        is_type_only = any(isinstance(up, ast.If) and "TYPE_CHECKING" in ast.unparse(up.test) for up in around)
        is_at_once = not any(isinstance(up, ast.FunctionDef | ast.AsyncFunctionDef) for up in around)
        for module in modules:
            yield Import(file, module, is_type_only, is_at_once and not is_type_only)


def _is_room(root: Path, module: str, package: str) -> bool:
    inside = module.removeprefix(f"{package}.").replace(".", "/")
    return module.startswith(f"{package}.") and (root / inside).is_dir()


def _above(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[ast.AST]:
    while node in parents:
        node = parents[node]
        yield node


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def complaints(root: Path, package: str = "elicitable") -> list[str]:
    """Every import that breaks a rule, in words."""
    found = []
    for one in imports_of(root, package):
        top = one.module.split(".")[0]
        if one.module.endswith(".*"):
            found.append(f"{one}: name what is imported")
        if top == package:
            found += _through_a_wall(one, package)
        elif top in OWNERS and not one.file.startswith(OWNERS[top]):
            found.append(f"{one}: only {', '.join(OWNERS[top])} may")
    return [*found, *(f"cycle: {' -> '.join(cycle)}" for cycle in cycles(root, package))]


def _through_a_wall(one: Import, package: str) -> list[str]:
    room = room_of(one.file)
    parts = one.module.split(".")
    other = parts[1] if len(parts) > 1 and not parts[1].startswith("_") else "__init__"
    if room not in MAY_IMPORT:
        return [f"{one}: {room} is a room without rules"]
    if other == room or other in MAY_IMPORT[room]:
        return []
    if one.is_type_only and other in MAY_NAME_TYPES.get(room, set()):
        return []
    return [f"{one}: {room} may not import {other}"]


def cycles(root: Path, package: str) -> list[list[str]]:
    """Cycles of imports that run when a module is imported."""
    names = {_module_name(path, root, package) for path in root.rglob("*.py")}
    edges: dict[str, set[str]] = {name: set() for name in names}
    for one in imports_of(root, package):
        if one.is_at_once:
            target = one.module if one.module in names else one.module.rpartition(".")[0]
            source = _module_name(root / one.file, root, package)
            if target in names and target not in (package, source):
                edges[source].add(target)
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for target in sorted(edges[name]):
                visit(target, [*path, name])
            done.add(name)

    for name in sorted(names):
        visit(name, [])
    return found


def _module_name(path: Path, root: Path, package: str) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


def test_the_house_keeps_its_walls() -> None:
    assert complaints(PACKAGE) == []


def test_every_room_and_every_file_of_the_house_is_walked() -> None:
    files = {one.file for one in imports_of(PACKAGE)}
    assert {room_of(file) for file in files} >= {*WORKING - GROUND, "race", "lab", "report", "cli"}
    assert len(imports_of(PACKAGE)) > 300
    assert {room_of(path.relative_to(PACKAGE).as_posix()) for path in PACKAGE.rglob("*.py")} <= set(MAY_IMPORT)


def test_only_the_command_line_is_slow_to_load_and_only_when_it_runs() -> None:
    light = {f"{name}.py" for name in GROUND} | {"__init__.py", "cli/__init__.py"}
    at_once = {(one.file, one.module.split(".")[0]) for one in imports_of(PACKAGE) if one.is_at_once}
    assert {(file, top) for file, top in at_once if file in light and top in HEAVY} == set()


def test_the_walk_sees_a_house_that_breaks_every_rule(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "errors.py": "from elicitable.values import Item\n",
        "values.py": "def f():\n    from elicitable import rng\n",
        "rng.py": "",
        "models/__init__.py": "",
        "models/load.py": "import transformers.models\nfrom elicitable.tasks.base import Task\n",
        "microscope/watch.py": "from elicitable.attention.split import split\n",
        "attention/__init__.py": "",
        "attention/split.py": "from transformers import *\nimport peft\n",
        "tasks/__init__.py": "",
        "tasks/base.py": "import os\nfrom elicitable.methods import base\n",
        "methods/__init__.py": "",
        "methods/base.py": "from elicitable.models import load\n",
        "methods/lora.py": "import peft\nfrom elicitable.methods import full\n",
        "methods/full.py": "from elicitable.methods.lora import LoRA\n",
        "report/__init__.py": "",
        "report/html.py": (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from elicitable.microscope.inspect import I\n"
            "from elicitable.race.contest import verdict\n"
        ),
        "garage/__init__.py": "from elicitable import errors\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert sorted(complaints(tmp_path)) == [
        "attention/split.py imports peft: only methods/ may",
        "attention/split.py imports transformers.*: name what is imported",
        "attention/split.py imports transformers.*: only models/ may",
        "cycle: elicitable.methods.base -> elicitable.models.load -> elicitable.tasks.base -> elicitable.methods.base",
        "cycle: elicitable.methods.full -> elicitable.methods.lora -> elicitable.methods.full",
        "errors.py imports elicitable.values: errors may not import values",
        "garage/__init__.py imports elicitable.errors: garage is a room without rules",
        "models/load.py imports elicitable.tasks.base: models may not import tasks",
        "report/html.py imports elicitable.race.contest: report may not import race",
        "tasks/base.py imports elicitable.methods.base: tasks may not import methods",
        "values.py imports elicitable.rng: values may not import rng",
    ]


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = sorted(HEAVY | {"typer"})
    program = f"import sys, elicitable; print([m for m in {heavy!r} if m in sys.modules], elicitable.__all__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ['__version__'"), done.stdout


def test_every_public_name_is_there() -> None:
    assert sorted(elicitable.__all__) == list(elicitable.__all__)
    for name in elicitable.__all__:
        assert getattr(elicitable, name) is not None
    assert dir(elicitable) == list(elicitable.__all__)


# Words that are also a method's name but mean something else in that place, with what they mean there.
OTHER_MEANINGS = {
    **{
        (file, "prompt"): "a form that a winner is exported to: the text that one would type"
        for file in ("deploy/forms/text.py", "report/deployment.py")
    },
    **{
        (file, "prompt"): "what an item asks, as its column, its template and its sample call it"
        for file in (
            "deploy/record.py",
            "race/trial.py",
            "report/html.py",
            "report/reading.py",
            "tasks/columns.py",
            "tasks/reading.py",
            "tasks/template.py",
        )
    },
    **{
        (file, "lora"): "the form of what a context is compiled into, whatever the context"
        for file in ("compiling/compile.py", "cli/compile.py")
    },
}
NAMED_AT_HOME = ("methods/", "experiments/")


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every text constant of a file that is not a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def names_of_methods(root: Path) -> list[str]:
    """Where a method's name stands as a text outside the rooms that may name methods."""
    from elicitable.methods.adapter import READERS

    names = {one.name for one in READERS}
    return [
        f"{path.relative_to(root)}:{line} names {text!r}"
        for path in sorted(root.rglob("*.py"))
        if not path.relative_to(root).as_posix().startswith(NAMED_AT_HOME)
        for line, text in strings_of(path)
        if text in names and (path.relative_to(root).as_posix(), text) not in OTHER_MEANINGS
    ]


def test_no_text_names_a_method_outside_the_rooms_of_methods_and_experiments() -> None:
    assert names_of_methods(PACKAGE) == []


def test_a_method_that_is_named_elsewhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "race").mkdir()
    (tmp_path / "race" / "rounds.py").write_text('"""kv-prefix"""\nif method == "kv-prefix":\n    x = "a kv-prefix"\n')
    assert names_of_methods(tmp_path) == ["race/rounds.py:2 names 'kv-prefix'"]


MOST_LINES = 400


def long_files(root: Path, page: str) -> list[str]:
    """Return the files over 400 lines that ``page`` does not name, and those that it names without need."""
    found = []
    for path in sorted(root.rglob("*.py")):
        name, lines = path.relative_to(root).as_posix(), len(path.read_text(encoding="utf-8").splitlines())
        is_excused = f"* `{name}` is long because" in page
        if (lines > MOST_LINES) != is_excused:
            found.append(f"{name} has {lines} lines")
    return found


def test_a_long_file_gives_its_reason_in_the_page_on_architecture() -> None:
    page = Path(__file__).parents[1] / "docs" / "architecture.md"
    assert long_files(PACKAGE, page.read_text(encoding="utf-8")) == []


def test_a_long_file_without_a_reason_is_seen_and_so_is_a_reason_without_need(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("x = 1\n" * 401, encoding="utf-8")
    (tmp_path / "short.py").write_text("x = 1\n" * 400, encoding="utf-8")
    assert long_files(tmp_path, "") == ["long.py has 401 lines"]
    page = "* `long.py` is long because it is.\n* `short.py` is long because it was."
    assert long_files(tmp_path, page) == ["short.py has 400 lines"]


def test_no_benchmark_stands_in_for_a_library() -> None:
    """A script's own folder comes first where it looks for modules: transformers took one for an optional package."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import elicitable, transformers; transformers.PreTrainedModel"
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parents[1] / "benchmarks")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def missing(scripts: Path) -> list[str]:
    """What ``scripts`` take of the package, or give to its functions, that is not there (by mypy)."""
    command = [sys.executable, "-m", "mypy", str(scripts), "--implicit-reexport"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parents[1])
    assert done.returncode in (0, 1), done.stderr
    kinds = ("[attr-defined]", "[call-arg]", "[name-defined]")
    return [line for line in done.stdout.splitlines() if line.endswith(kinds)]


def test_what_benchmarks_take_of_the_package_is_there() -> None:
    """They run for hours and rarely: a function that was renamed meanwhile would show at the end of one."""
    assert missing(PACKAGE.parents[1] / "benchmarks") == []


def test_what_is_not_there_is_seen(tmp_path: Path) -> None:
    (tmp_path / "renamed.py").write_text("from elicitable.race import look\n\nlook.worth()\n", encoding="utf-8")
    assert len(missing(tmp_path)) == 1


# Files that write JSON and name no processor, with who does or why nobody has to.
SAID_ELSEWHERE = {
    "cache.py": "a seal is of the files that it is beside",
    "cli/construct/record.py": "writes what the commands beside it give",
    "cli/inspect.py": "an inspection says it in its provenance",
    "cli/output.py": "writes what the commands give",
    "deploy/artefact.py": "the record of an artefact is completed in deploy/making.py",
    "deploy/forms/form.py": "what other programs read; the record of the artefact lies beside it",
    "lab/reproduce.py": "its results are those of lab/outcomes.py",
    "methods/folders.py": "configurations that PEFT reads; the record of the artefact lies beside them",
    "planted/spent.py": "times of the records beside it",
    "records/digested.py": "writes what the others give",
    "records/store.py": "writes what the others give",
}
SAY = ("made_on", "processor")


def unsaid(root: Path) -> list[str]:
    """Files that write JSON and do not say on which kind of processor it was made; exceptions that are none."""
    found = set()
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if any(writes_json(node) for node in ast.walk(ast.parse(text))) and not any(word in text for word in SAY):
            found.add(path.relative_to(root).as_posix())
    return sorted(found ^ SAID_ELSEWHERE.keys())


def writes_json(node: ast.AST) -> bool:
    """Whether a node writes a file of JSON, or a record of a store."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    is_stores = name == "put" and ast.unparse(node.func).endswith("store.put")
    is_a_file = name in ("dump", "dumps") and any(word.arg == "indent" for word in node.keywords)
    return is_stores or is_a_file or name in ("write_json", "write_digested")


def test_what_is_stored_says_on_which_kind_of_processor_it_was_made() -> None:
    assert unsaid(PACKAGE) == []


def test_a_record_that_does_not_say_it_is_seen(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("import json\n\npath.write_text(json.dumps(record, indent=1))\n")
    assert unsaid(tmp_path) == sorted(["new.py", *SAID_ELSEWHERE])
