"""A model of the hub, from its cache: the same files, the same checks as of any folder, and no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.models.test_dispatch import llama

PROGRAM = """
import json, pathlib
import elicitable as el
from elicitable.models.load import home_of
try:
    model = el.load("someone/tiny", device="cpu")
    found = {"home": home_of(model), "source": model.source, "name": model.name, "sum": float(sum(
        x.double().sum() for x in model.hf.parameters()))}
except el.errors.ElicitableError as error:
    found = {"error": str(error)}
peak = next(line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps({**found, "mib": int(peak.split()[1]) / 1024}))  # the program's own; getrusage counts its parent's
"""


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The folder of a snapshot in a hub's cache as the hub's own client lays it out: a reference, files as links."""
    home = tmp_path / "hub" / "models--someone--tiny"
    blobs, folder = home / "blobs", home / "snapshots" / ("0" * 40)
    for made in (blobs, folder, home / "refs"):
        made.mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    llama().save_pretrained(tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        shutil.move(file, blobs / file.name)
        (folder / file.name).symlink_to(blobs / file.name)
    return folder


def loaded(snapshot: Path) -> dict[str, object]:
    given = {"HF_HUB_CACHE": str(snapshot.parents[2]), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], env=os.environ | given, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


def test_a_model_of_the_hub_is_loaded_from_its_cache_and_keeps_its_id(snapshot: Path) -> None:
    found = loaded(snapshot)
    assert (found["home"], found["source"], found["name"]) == ("someone/tiny",) * 3
    with torch.no_grad():
        assert found["sum"] == float(sum(x.double().sum() for x in llama().parameters()))


def test_a_model_of_the_hub_takes_no_more_than_its_files_account_for(snapshot: Path) -> None:
    config = json.loads((snapshot / "config.json").read_text())
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text(json.dumps(config | {"intermediate_size": 3 * 10**6}))
    found = loaded(snapshot)
    assert str(found["error"]).startswith("someone/tiny") or "someone--tiny" in str(found["error"])
    assert found["mib"] < 1024


def test_a_model_that_is_not_there_is_named(snapshot: Path) -> None:
    shutil.rmtree(snapshot.parents[1])
    assert str(loaded(snapshot)["error"]).startswith("someone/tiny cannot be loaded: ")
