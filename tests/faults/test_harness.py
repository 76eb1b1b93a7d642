"""A small share of what ``python -m tests.faults`` does, the same every time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults import fuzz
from tests.faults.counts import read


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs where processes can be forked")
def test_a_few_kills_alterations_and_inputs_are_all_accounted_for(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    program = [sys.executable, "-m", "tests.faults", "--kills", "2", "--alterations", "4", "--fuzz", "10"]
    program += ["--keep", str(tmp_path / "counts.jsonl")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(program, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = dict(re.findall(r"^([\d,]+) (kills|alterations|inputs) in", done.stdout, re.MULTILINE))
    assert set(counted.values()) == {"kills", "alterations", "inputs"}
    assert list(counted)[1:] == ["4", "2"]
    assert "WRONG" not in done.stdout + done.stderr
    assert {one.what for one in read(tmp_path / "counts.jsonl")} == set(counted.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs where processes can be forked")
def test_inputs_in_several_processes_are_counted_as_one(tmp_path: Path) -> None:
    """In a process of its own: a fork's peak begins at what its parent holds, and that of the tests may be large."""
    program = (
        "import json, pathlib, sys; from tests.faults import fuzz; fuzz.PART = 8;"
        "(found,) = fuzz.fuzz(20, pathlib.Path(sys.argv[1]), 0, ['heartbeat'], lambda name, count: False);"
        "print(json.dumps([sum(found.ends.values()), found.name, found.wrong, found.peak_mebibytes]))"
    )
    asked = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(asked, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=True)
    count, name, wrong, peak = json.loads(done.stdout.splitlines()[-1])
    assert (count, name, wrong) == (20, "heartbeat", [])
    assert 0 < peak < fuzz.MOST_MEBIBYTES
