"""The geometry of the figures, on records with gaps, breaks and odd sizes."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

import records
from elicitable.report import standing
from elicitable.report.pictures.axes import PANEL
from elicitable.report.pictures.cost import COST_BOTTOM, COST_TOP, LABEL_LINE, ZERO_X, cost_plot
from elicitable.report.pictures.curves import LONGEST_CURVE, curve_panels
from elicitable.report.pictures.differences import difference_chart
from elicitable.report.pictures.masses import heat_maps
from elicitable.report.pictures.race import race_chart
from elicitable.report.pictures.side_effects import side_effects
from elicitable.report.pictures.sweeps import sweep_panels
from elicitable.values import Budget, CurvePoint, Rung


def test_the_race_is_ordered_by_invasiveness_and_marks_the_answer():
    race = race_chart(records.verdict(arms=records.verdict().arms[::-1]))
    assert [row.method for _, _, rows in race.groups for row in rows] == [
        "zero-shot",
        "prompt",
        "examples",
        "soft-prompt",
        "kv-prefix",
        "layer-prefix",
        "full",
        "lora",
        "value-bias",
    ]  # fmt: skip (arms of one rung keep the order of the record, which is reversed here)
    assert [row.method for _, _, rows in race.groups for row in rows if row.is_answer] == ["kv-prefix"]
    assert race.best == "full"
    assert race.band[1] - race.band[0] == pytest.approx(2)


def test_seeds_are_marked_where_there_are_several():
    seeds = [row.seeds for _, _, rows in race_chart(records.verdict()).groups for row in rows]
    assert {len(marks) for marks in seeds} == {3}
    assert not any(row.seeds for _, _, rows in race_chart(records.inconclusive()).groups for row in rows)


def test_seeds_are_not_marked_by_what_is_no_share_of_the_score():
    """Right and wrong are all that is kept of a seed, and ROUGE-L may be 0.4 where nothing is right."""
    verdict = records.verdict()
    arm = next(one for one in verdict.arms if one.method == "lora")
    for mean, seeds in ((arm.mean, 3), (arm.mean - 0.1, 0)):
        shown = race_chart(records.with_arm(verdict, "lora", mean=mean))
        (row,) = [row for _, _, rows in shown.groups for row in rows if row.method == "lora"]
        assert len(row.seeds) == seeds


def test_the_control_is_never_the_best():
    verdict = records.with_arm(records.verdict(), "value-bias", mean=1.0)
    assert standing.highest(verdict).method == "full"


@pytest.mark.parametrize(
    ("label", "method"),
    [
        ("prefix", "kv-prefix"),
        ("weights", "lora"),
        ("prompt", "prompt"),
        ("out-of-reach", None),
        ("inconclusive", None),
    ],
)
def test_the_arm_a_label_speaks_of(label, method):
    winner = standing.winner(records.verdict(label=label))
    assert (winner and winner.method) == method


def test_the_answer_is_the_arm_that_the_record_names():
    assert standing.winner(records.verdict(label="weights", answer="full")).method == "full"
    assert standing.winner(records.verdict(label="weights", answer="nobody")) is None


def test_a_curve_breaks_where_the_loss_is_not_a_number():
    arms = (records.arm("lora", curves=(tuple(CurvePoint(i, math.nan if i in (3, 5) else 1.0) for i in range(9)),)),)
    (panel,), ticks = curve_panels(records.verdict(arms=arms))
    assert [len(line.split()) for line in panel.loss.stretches] == [3, 3]
    assert len(panel.loss.dots) == 1
    assert len(panel.loss.breaks) == 2
    assert [tick.text for tick in ticks] == ["0", "0.5", "1"]


def test_a_long_curve_is_thinned_and_keeps_its_end():
    curve = tuple(CurvePoint(i, 1.0 + i, i / 10_000) for i in range(10_001))
    (panel,), _ = curve_panels(records.verdict(arms=(records.arm("lora", curves=(curve,)),)))
    points = panel.loss.stretches[0].split()
    assert len(points) <= LONGEST_CURVE + 2
    assert points[-1].startswith(f"{PANEL.right:g},")


def test_labels_never_overlap_in_a_column():
    plot = cost_plot(records.verdict())
    for x in {point.x for point in plot.points}:
        heights = sorted(point.label_y for point in plot.points if point.x == x)
        gaps = [b - a for a, b in itertools.pairwise(heights)]
        assert all(gap >= LABEL_LINE - 0.01 for gap in gaps)
        assert all(COST_TOP <= height <= COST_BOTTOM for height in heights)


@pytest.mark.parametrize("width", [300, 358, 1000])
def test_labels_never_lie_on_each_other_on_a_telephone_either(width):
    """Ten arms, most of them at 0 and at the same numbers, as after a race that was cut off early."""
    numbers = {"zero-shot": 0, "prompt": 0, "examples": 0, "nearest-examples": 0, "soft-prompt": 3_456}
    numbers |= {"layer-prefix": 3_456, "kv-prefix": 3_456, "steering": 96, "lora": 3_024, "full": 441_504}
    for score in (0.0, 0.5, 1.0):
        like = records.arm("kv-prefix")
        arms = [
            dataclasses.replace(like, method=name, mean=score, budget=Budget(k, 0, 0)) for name, k in numbers.items()
        ]
        points = cost_plot(records.verdict(arms=tuple(arms))).points
        boxes = []
        for point in points:
            dot, reach = width * point.x / 100, 22 + 6.9 * len(point.method)
            left, right = (dot - reach, dot) if point.anchor == "end" else (dot, dot + reach)
            boxes.append((left, right, point.label_y))
        for (left, right, y), (other, end, height) in itertools.combinations(boxes, 2):
            assert right <= other or end <= left or abs(y - height) >= LABEL_LINE - 0.01
        assert all(COST_TOP <= point.label_y <= COST_BOTTOM for point in points)


def test_what_trains_more_stands_further_right():
    places = {point.method: point.x for point in cost_plot(records.verdict()).points}
    assert places["prompt"] == ZERO_X < places["value-bias"] < places["lora"] < places["full"]


def test_no_scored_arm_gives_no_plot():
    assert cost_plot(records.empty()) is None


def test_the_sweep_marks_the_chosen_rate_and_broken_trials():
    sweep = (
        {"learning_rate": 0.1, "validation": 0.9},
        {"learning_rate": 0.1, "validation": 0.5},
        {"learning_rate": 1.0, "validation": None},
        {"text": "no rate", "validation": 0.3},
    )
    (panel,), ticks = sweep_panels(records.verdict(arms=(records.arm("kv-prefix", sweep=sweep),)))
    assert [(dot.is_chosen, dot.is_broken) for dot in panel.dots] == [(True, False), (False, False), (False, True)]
    assert [tick.text for tick in ticks] == ["0.1", "1"]


@pytest.mark.parametrize(("rate", "is_at_edge"), [(0.01, True), (0.1, False), (0.3, True)])
def test_a_rate_at_the_edge_of_the_sweep_is_pointed_out(rate, is_at_edge):
    (panel,), _ = sweep_panels(records.verdict(arms=(records.arm("kv-prefix", learning_rate=rate),)))
    assert ("at the edge" in panel.caption) == is_at_edge


def test_heat_maps_share_one_scale_and_large_ones_are_drawn_by_level():
    small = records.arm("prompt", prefix_mass=((0.1, 0.2), (math.nan, 0.64)))
    large = records.arm("kv-prefix", prefix_mass=((0.35,) * 64,) * 80)
    (first, second), top = heat_maps(records.verdict(arms=(small, large)))
    assert top == 0.7
    assert [(cell.x, cell.y) for cell in first.cells] == [(0, 0), (0, 1), (1, 1)]
    assert not second.cells
    assert [level.share for level in second.levels] == [0.5]


def test_side_effects_start_at_zero_on_either_side():
    arms = (records.arm("lora", side_effect_nats=-0.5), records.arm("full", side_effect_nats=1.5))
    effects, zero = side_effects(records.verdict(arms=arms))
    assert zero == 25
    assert [(effect.start, effect.width) for effect in effects] == [(0, 25), (25, 75)]


def test_an_unknown_method_has_a_place_before_the_control():
    rung = Rung(4.5, "steering", "other")
    arm = dataclasses.replace(records.arm("lora"), method="mine", rung=rung)
    race = race_chart(records.verdict(arms=(records.arm("value-bias"), arm)))
    assert [(group, title) for group, title, _ in race.groups] == [
        ("other", "Other methods"),
        ("control", "Control, no part in the verdict"),
    ]


def test_the_differences_that_decide_stand_beside_the_margin():
    """Arm minus best around the margin of 2 points: -8 to +6 points have 70 percent of the axis."""
    found = difference_chart(records.verdict())
    assert found.best == "full"
    assert found.band == (60.0, 100.0)  # -2 points is 6/14 of 70 percent from the bend
    assert found.zero == 70.0
    assert found.bend == (30.0, "-8")
    rows = {row.method: row for row in found.rows}
    assert "value-bias" not in rows
    assert (rows["full"].dot, rows["full"].text, rows["full"].standing) == (70.0, "the best", "")
    assert rows["kv-prefix"].dot == pytest.approx(62.5)  # -1.5 points
    assert rows["kv-prefix"].interval == pytest.approx((60.5, 64.5))  # -1.9 to -1.1: inside the band
    assert rows["kv-prefix"].text == "-1.5 [-1.9, -1.1]"
    assert rows["kv-prefix"].standing == "within the margin"
    assert rows["kv-prefix"].is_answer
    assert rows["lora"].standing == "within the margin"
    mean, low, high = next(arm for arm in records.verdict().arms if arm.method == "zero-shot").behind
    assert 0.64 < low < high <= 1.0  # beyond 32 margins, which have the last 7.5 percent
    assert rows["zero-shot"].dot == pytest.approx(7.5 * (1 - mean) / 0.36, abs=0.01)
    assert rows["zero-shot"].interval == pytest.approx((7.5 * (1 - high) / 0.36, 7.5 * (1 - low) / 0.36), abs=0.01)
    assert rows["zero-shot"].standing == "behind by more"
    few = {row.method: row for row in difference_chart(records.inconclusive()).rows}
    assert few["kv-prefix"].standing == "not settled"
    growing = {"stopped": "steps", "steps": 12}  # hardly trained, so its place says nothing yet
    found = difference_chart(records.with_arm(records.verdict(), "layer-prefix", **growing))
    assert {row.method: row for row in found.rows}["layer-prefix"].standing == "not settled"


@pytest.mark.parametrize("margin", [0.001, 0.02, 0.1, 0.2, 0.5])
def test_whatever_the_margin_an_arm_that_is_further_behind_stands_further_left(margin):
    """Also far behind: no two of them lie at the same place, and all of it is on the axis."""
    behind = [0.0, margin, 3 * margin, *(share for share in (0.05, 0.1, 0.3, 0.31, 0.9, 1.0) if share > 3 * margin)]
    arms = [dataclasses.replace(records.arm("full"), behind=(0.0, 0.0, 0.0), method="best")]
    arms += [dataclasses.replace(records.arm("lora"), behind=(one, one, one), method=str(one)) for one in behind[1:]]
    found = difference_chart(dataclasses.replace(records.verdict(arms=tuple(arms)), margin=margin))
    dots = {row.method: row.dot for row in found.rows}
    in_order = [dots["best"], *(dots[str(one)] for one in behind[1:])]
    assert all(right > left for right, left in itertools.pairwise(in_order))
    assert in_order[-1] >= 0.0
    assert found.zero == dots["best"]
    assert [tick.at for tick in found.ticks] == sorted({tick.at for tick in found.ticks})


def test_there_are_no_differences_without_two_arms():
    arms = tuple(dataclasses.replace(arm, behind=()) for arm in records.verdict().arms)
    assert difference_chart(records.verdict(arms=arms)) is None
    assert difference_chart(records.verdict(arms=records.verdict().arms[-1:])) is None
