"""Item by item: the counts are those of the outcomes, and no text of an item can end the element that it stands in."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import records
from elicitable.report.explorer import explorer, is_right, path
from elicitable.report.html import report_html
from elicitable.report.verdict_json import verdict_from_json, verdict_to_json

HOSTILE = ("</script><script>alert(1)</script>", "<!--<script>", "\u202egnp.exe\u200b", "\ud800\x1b[31m")


def small(correct, **changes):
    """Three arms with these outcomes, (arm, seed, item)."""
    names = ("zero-shot", "prompt", "lora")
    arms = [records.arm(name, items=3) for name in names]
    arms = [replace(arm, correct=own, seeds=len(own)) for arm, own in zip(arms, correct, strict=True)]
    return replace(records.verdict(), label="weights", answer="lora", arms=tuple(arms), **changes)


def test_it_counts_what_one_arm_won_and_another_lost():
    found = explorer(small((((0, 0, 1, 0),), ((0, 1, 1, 0),), ((1, 1, 0, 0), (1, 1, 1, 0)))))
    assert [strip.right for strip in found.strips] == [1, 2, 3]
    assert found.won == ((0, 0, 0), (1, 0, 0), (2, 1, 0))
    assert json.loads(found.data)["right"] == ["0010", "0110", "1110"]  # one seed of two is half of them


@pytest.mark.parametrize("name", [name for name in records.ALL if name != "empty"])
def test_every_count_is_that_of_the_outcomes(name):
    verdict = records.ALL[name]()
    found = explorer(verdict)
    arms = {arm.method: is_right(arm) for arm in verdict.arms if arm.correct and arm.status == "ok"}
    for one, row in zip(found.strips, found.won, strict=True):
        for other, count in zip(found.strips, row, strict=True):
            pairs = zip(arms[one.method], arms[other.method], strict=True)
            assert count == sum(a and not b for a, b in pairs)
        runs = re.findall(r"M(\d+) 0h(\d+)v1h-(\d+)z", one.path)
        assert sum(int(width) for _, width, _ in runs) == one.right


def test_a_path_is_one_rectangle_per_run():
    assert path([]) == ""
    assert path([True]) == "M0 0h1v1h-1z"


def test_there_is_nothing_to_compare_with_one_arm_or_with_other_items():
    assert explorer(records.empty()) is None
    assert explorer(small((((0, 1),), ((0, 1, 1),), ((1, 1),)))) is None


def test_no_text_of_an_item_ends_its_element():
    verdict = small((((0, 1),), ((1, 1),), ((1, 0),)), items=tuple((text, text) for text in HOSTILE))
    found = explorer(verdict)
    assert "<" not in found.data
    assert [prompt for prompt, _ in json.loads(found.data)["items"]] == list(HOSTILE)
    page = report_html(verdict)
    assert page.count("<script") == page.count("</script>") == 2


def test_the_items_come_back_from_json():
    verdict = small((((0, 1),), ((1, 1),), ((1, 0),)), items=(("a prompt", "its target"),))
    assert verdict_from_json(json.loads(json.dumps(verdict_to_json(verdict)))).items == verdict.items
