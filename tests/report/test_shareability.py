"""The report says how far one change of weights would do the same, and nothing where that was not measured."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from elicitable.microscope.shareability import Shared
from elicitable.report.shareability import shared_part, shared_summary

ONE = Shared(0, 0.75, 3, (0.5, 0.25), 1e-13, (1e-14, 2e-14))


def found(*layers: Shared) -> Any:
    return SimpleNamespace(shared=layers)


def test_every_layer_has_a_row_and_the_summary_its_range() -> None:
    said = shared_part(found(ONE, replace(ONE, layer=1, shareability=0.25, rank=9)))
    assert said.count("<tr>") == 3
    assert "25% to 75%" in said
    assert "0.25 … 0.50" in said
    assert "1.0e-13 for one token, 2.0e-14 for added odds" in said


def test_of_one_text_alone_no_others_are_spoken_of() -> None:
    assert "on texts that it was not fitted to" in shared_summary(found(ONE))
    said = shared_summary(found(replace(ONE, by_token=True)))
    assert "on every other token of the one text, to whose other tokens it was fitted" in said
    assert "texts that it was not" not in said


def test_a_block_without_such_a_change_is_a_dash_and_nothing_measured_is_nothing() -> None:
    behind_a_norm = replace(ONE, layer=1, shareability=None, rank=None, token_residual=None)
    assert shared_part(found(ONE, behind_a_norm)).count(">–</td>") == 2
    assert shared_summary(found(behind_a_norm)) == ""
    assert shared_part(found()) == ""


def test_a_change_that_gives_nothing_back_is_said_in_words_and_never_as_a_negative_share() -> None:
    said = shared_summary(found(ONE, replace(ONE, layer=1, shareability=-0.43), replace(ONE, layer=2)))
    assert "gives back 0% to 75%" in said
    assert "in 1 of 3 layers it gives back nothing" in said
    assert "-43" not in said
    assert "nothing (R²" not in shared_summary(found(ONE))
