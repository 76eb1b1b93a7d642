"""``python -m tests.clean_install PYTHON …``: the built wheel, installed and used with nothing else around it.

For each interpreter: a new virtual environment, ``pip install`` of the wheel with what it depends on, the version, and
a small race from the command line with its report. It ends with exit code 1 where one of them fails. Dependencies
are downloaded, so it takes minutes and gigabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
RACE = ["verdict", "--model", "toy:ascending", "--task", "ascending", "--method", "zero-shot", "--method", "kv-prefix"]
FEW = ["--steps", "4", "--seeds", "1", "--test-items", "100", "--quiet", "--out", "run"]


def main(pythons: Sequence[str]) -> int:
    """Try every interpreter; return how many failed."""
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        wheel = build(Path(place))
        for nth, python in enumerate(pythons):
            began = time.monotonic()
            try:
                said = used(python, wheel, Path(place) / str(nth))
            except (OSError, subprocess.CalledProcessError, AssertionError) as error:
                failed += 1
                said = f"FAILED: {str(error)[-2_000:]}{(getattr(error, 'stderr', '') or '')[-2_000:]}"
            print(f"{python}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return failed


def build(folder: Path) -> Path:
    """Build the wheel into ``folder``."""
    from hatchling.builders.wheel import WheelBuilder

    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])))


def used(python: str, wheel: Path, folder: Path) -> str:
    """Install the wheel into a new environment in ``folder`` and race with it; say what came out."""
    run(folder.parent, python, "-m", "venv", str(folder))
    own = str(folder / "bin" / "python")
    run(folder, own, "-m", "pip", "install", "--quiet", str(wheel))
    version = run(folder, own, "-m", "elicitable", "--version").strip()
    run(folder, str(folder / "bin" / "elicitable"), *RACE, *FEW)
    verdict = json.loads((folder / "run" / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["label"] == "already-there", verdict["label"]
    assert (folder / "run" / "report.html").stat().st_size > 10_000
    versions = verdict["provenance"]["versions"]
    return f"{version}, torch {versions['torch']}, transformers {versions['transformers']}: {verdict['label']}"


def run(folder: Path, *command: str) -> str:
    """Run a command in ``folder`` and return what it printed, without this checkout on the path."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )
    return done.stdout


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:] or [sys.executable]), 1))
