"""The tiny experiment, run once for all that look at its records."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_experiment


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny experiment was run undisturbed, in this process."""
    out = tmp_path_factory.mktemp("whole")
    tiny_experiment.run(out)
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of that folder to work on."""
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"
