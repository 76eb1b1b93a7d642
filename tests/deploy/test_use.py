"""Whatever a person names can be used, watched and inspected alike: an adaptation, an artefact, or a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import elicitable as el
from elicitable.errors import InputError
from elicitable.models.model import Model

ROWS = [[3, 1, 2], [5, 6]]


@pytest.fixture(scope="module")
def model() -> Model:
    return el.load("toy:ascending")


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tuned")
    el.tune(model, "ascending", method="kv-prefix", learning_rate=0.1, steps=1, test_items=20, out=place)
    return place


@pytest.mark.parametrize("named", [str, Path, el.read, lambda folder: [folder]])
def test_a_folder_and_what_was_read_from_it_are_inspected_as_the_adaptation_is(
    model: Model, folder: Path, named: Callable[[Path], Any]
) -> None:
    adaptation = el.read(folder).adaptation(model)
    found = el.inspect(model, named(folder), ROWS)
    assert found.prefix == adaptation.keys_per_layer() > 0
    assert replace(found, shared=()) == replace(el.inspect(model, [adaptation], ROWS), shared=())


@pytest.mark.parametrize("context", [None, [None], 3])
@pytest.mark.parametrize("name", ["use", "watch", "inspect"])
def test_what_is_no_context_is_refused_by_name(model: Model, name: str, context: Any) -> None:
    if name == "watch" and context is None:
        with el.watch(model):  # the model as it is
            return
    shown = "None" if context != 3 else "3"
    with pytest.raises(InputError, match=f"context: {shown} is none; give what"):
        getattr(el, name)(model, context, *([ROWS] if name == "inspect" else []))


def test_a_folder_that_is_not_there_is_named(model: Model) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        el.inspect(model, "nowhere", ROWS)
