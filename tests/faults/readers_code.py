"""A person's own code: files that are damaged, files whose functions raise or return anything, tasks of the harness."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tests.faults.mutations import altered_bytes, altered_json
from tests.faults.reader import Reader

_CODE = b"""
class Mine:
    name = "mine"
    def labels(self): return None
    def sample(self, n, rng): return []
    def held_out(self, split, n=None): return []
    def fingerprint(self): return "1"
def score(target, answer): return float(target == answer)
"""


def _forgotten() -> None:
    for module in [name for name in sys.modules if name.startswith("elicitable_own_code_")]:
        del sys.modules[module]


def _read_code(place: Path, data: bytes) -> object:
    from elicitable.own_code import load_own
    from elicitable.scores.catalog import score_from
    from elicitable.tasks.catalog import task_from

    (place / "mine.py").write_bytes(data)
    _forgotten()

    def run() -> int:
        score_from(load_own(f"{place}/mine.py:score", "mine.py:score"))
        task_from(f"{place}/mine.py:Mine")
        return 0

    return _through_the_command_line(run)


_ENDS = (
    "raise KeyError('x')", "raise SystemExit(0)", "import sys; sys.exit()", "raise MemoryError", "1 / 0", "return None",
    "return float('nan')", "return 10 ** 400", "return 'x'", "return [1]", "return object()", "return -1", "return 0.5",
    "return True", "return self(target, answer)", "assert False", "raise StopIteration", "raise OSError(28, 'full')",
    "raise Exception('\\x1b[31m')", "raise UnicodeDecodeError('a', b'', 0, 1, 'b')", "return ('y', 'n')", "return ()",
    "return ('y', 'y')", "return ('', 3)", "return {'y'}", "return b'y'", "return super",
)  # fmt: skip


def _raising(place: Path) -> st.SearchStrategy[Any]:
    """For a score, and for each method of a task, what it does; None for what it should do."""
    parts = ("score", "labels", "sample", "held_out", "fingerprint", "name")
    some = st.one_of(st.none(), st.none(), st.sampled_from(_ENDS))
    return st.fixed_dictionaries(dict.fromkeys(parts, some))


def _read_raising(place: Path, does: dict[str, str | None]) -> object:
    """Run a score on its own, and a task as far as a race reads it before it trains, through the command line's end."""
    from elicitable.own_code import load_own
    from elicitable.scores.catalog import score_from

    good = {
        "labels": "return (' y', ' n')",
        "sample": "return [Item('ab', ' y')] * n",
        "held_out": "return [Item('ab', ' y'), Item('cd', ' n')][:n]",
        "fingerprint": "return '1'",
    }
    given = {"labels": "self", "sample": "self, n, rng", "held_out": "self, split, n=None", "fingerprint": "self"}
    methods = [f"    def {name}({arguments}):\n        {does[name] or good[name]}" for name, arguments in given.items()]
    name = does["name"] if (does["name"] or "").startswith("return") else "return 'mine'"
    lines = [
        "from elicitable.values import Item",
        "class Mine:",
        f"    name = {name.removeprefix('return ')}",
        *methods,
    ]
    score = ["def score(target, answer):", f"    self = score; {does['score'] or 'return 1.0'}"]
    (place / "mine.py").write_text("\n".join([*lines, *score]) + "\n", encoding="utf-8")
    _forgotten()

    def run() -> int:
        score_from(load_own(f"{place}/mine.py:score", "mine.py:score")).point(["a"], ["b"])
        return _asked(f"{place}/mine.py:Mine")

    return _through_the_command_line(run)


def _through_the_command_line(run: Callable[[], int]) -> None:
    """What a person's own code raises is theirs in Python, and one line on the command line."""
    from elicitable import cli
    from elicitable.errors import InputError

    real, cli._run = cli._run, run
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code not in (0, 2):
            raise AssertionError(f"exit code {stop.code}") from stop
        if stop.code == 2:
            raise InputError("refused") from stop
    finally:
        cli._run = real


def _asked(source: str) -> int:
    """Ask a task for what a race asks it."""
    import numpy as np
    from tests.faults.models import letters_model

    from elicitable.models.layout import Layout
    from elicitable.models.rows import rows_of
    from elicitable.tasks.base import groups_of, identity_of
    from elicitable.tasks.catalog import task_from
    from elicitable.tasks.reading import summary_of

    task = task_from(source)
    summary_of(task)
    identity_of(task)
    for split in ("validation", "test"):
        rows_of(letters_model(), task.held_out(split, 2), Layout())  # type: ignore[arg-type]
        groups_of(task, split, 2)  # type: ignore[arg-type]
    rows_of(letters_model(), task.sample(2, np.random.default_rng(0)), Layout())
    return 0


# --- tasks of lm-evaluation-harness ---------------------------------------------------------------------------


def _harness(place: Path) -> st.SearchStrategy[Any]:
    """JSON is YAML: the settings of a task whose data lie beside it."""
    os.environ["HF_DATASETS_CACHE"] = str(place / "datasets")
    files = {split: str(place / f"{split}.jsonl") for split in ("train", "validation", "test")}
    for split, file in files.items():
        rows = [{"text": f"a fine {split} {i}", "label": i % 2, "times": i % 3} for i in range(30)]
        Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "training_split": "train",
            "validation_split": "validation", "test_split": "test"}  # fmt: skip
    chosen = {
        "task": "mine", **data, "output_type": "multiple_choice", "doc_to_text": "Review: {{text}}\nSentiment:",
        "doc_to_target": "label", "doc_to_choice": ["negative", "positive"], "num_fewshot": 1,
        "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    written = {
        "task": "mine", **data, "output_type": "generate_until", "doc_to_text": "count {{text}}:",
        "doc_to_target": " {{times}}", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    return altered_json((chosen, written)).map(lambda found: json.dumps(found).encode("utf-8", "surrogatepass"))


def _read_harness(place: Path, data: bytes) -> object:
    from tests.faults.readers_rows import summed_up

    (place / "task.yaml").write_bytes(data)
    return summed_up(f"lm-eval:{place}/task.yaml")


CODE = (
    Reader("own code", lambda place: altered_bytes((_CODE,)), _read_code),
    Reader("own code that raises", _raising, _read_raising),
    Reader("task of lm-eval", _harness, _read_harness),
)
