"""Capacity, reach, trace, approximation and their figures."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import json
import math
import pkgutil
import time

import numpy as np
import pytest
import torch

import elicitable.constructions
from elicitable.constructions import any_sequence, capacity, catalog, packed_inputs, precision, tabled_inputs
from elicitable.constructions import continuous_function as continuous
from elicitable.constructions.alphabet import printable
from elicitable.constructions.reach import reach
from elicitable.constructions.trace import trace
from elicitable.report.constructions import plot_approximation, plot_capacity, plot_decoding

MODULES = [module.name for module in pkgutil.iter_modules(elicitable.constructions.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(f"elicitable.constructions.{name}")
    assert doctest.testmod(module).failed == 0


def test_capacity_of_a_small_type() -> None:
    rows = capacity.capacity(["bfloat16"])
    sizes = [(row.construction, row.vocab, row.n_input, row.n_answer) for row in rows]
    assert sizes == [
        ("theorem-1", 19, 0, 8),
        ("theorem-1", 10, 0, 128),
        ("theorem-2", 19, 1, 1),
        ("longer-answers", 19, 1, 8),
        ("packed-inputs", 3, 2, 1),
        ("packed-inputs", 2, 3, 1),
        ("tabled-inputs", 5, 3, 1),
    ]
    for row in rows:
        assert row.failures == 0 < row.decisions
        assert row.limited_by.split(":")[0] in {"margin", "packing", "size", "nothing met"}
        if row.limited_by.startswith(("margin", "packing")):
            assert row.failures_above is not None
            assert row.failures_above > 0
        assert row.smallest_margin > 0
        assert row.temperature_needed < 128
    assert plot_capacity(rows).axes
    assert json.loads(json.dumps([dataclasses.asdict(row) for row in rows]))[0]["vocab"] == 19


@pytest.mark.slow
def test_capacity_of_every_type_in_under_three_minutes() -> None:
    began = time.process_time()
    rows = capacity.capacity()
    # processor time, as the machine may be shared
    assert time.process_time() - began < 180
    largest = {(row.dtype, row.construction, row.n_input): row.vocab for row in rows if row.n_answer != 128}
    assert [largest["float64", "packed-inputs", n] for n in range(2, 7)] == [13, 4, 3, 2, 2]
    assert [largest["float32", "packed-inputs", n] for n in range(2, 6)] == [7, 3, 2, 2]
    assert all(row.failures == 0 for row in rows)


def test_the_temperature_needed_in_float64_is_the_bound() -> None:
    construction = any_sequence.build(20, 10)
    # found by bisection to 1e-3; at the bound itself the worst target may tie or just pass
    assert abs(capacity.temperature_needed(construction) - construction.temperature_bound) <= 1e-3


def test_a_construction_beyond_its_type_needs_no_finite_temperature() -> None:
    beyond = packed_inputs.build(8, 2, dtype=torch.float32, unchecked=True)
    assert capacity.temperature_needed(beyond) == math.inf


def test_the_margin_is_that_of_exact_arithmetic_where_there_is_room() -> None:
    # relative: float64 rounding of numbers of order one, against a gap of 1/V²
    for vocab in (2, 10, 94):
        assert precision.smallest_margin(vocab, torch.float64) == pytest.approx(vocab**-2, rel=1e-11)


def test_reach_of_hard_and_virtual_tokens(case) -> None:
    result = reach(case.build())
    assert result.hard_reached == result.hard_bound == result.hard_prompts == result.vocab**result.n_virtual
    assert result.virtual_reached == result.possible
    assert len(result.examples) == min(5, result.hard_reached)


def test_reach_says_when_it_did_not_enumerate() -> None:
    result = reach(any_sequence.build(94, 20))
    assert (result.hard_reached, result.virtual_reached, result.possible) == (94, None, 94**20)


def test_trace_of_theorem_1() -> None:
    alphabet = printable(94)
    wanted = alphabet.fit("I love transformers!", 20)
    record = trace(any_sequence.build(94, 20), wanted)
    assert record.emitted == record.wanted == wanted
    for number, step in enumerate(record.steps, start=1):
        assert (step.step, step.position) == (number, number)
        assert [(pick.head, pick.position) for pick in step.picks] == [("attend-to-self", number), ("attend-to-1", 1)]
        assert step.z == pytest.approx(wanted[number - 1] / 94, abs=1e-15)
        assert step.top[0][0] == step.emitted
        assert step.margin == pytest.approx(94**-2, rel=1e-9)  # rounding of logits of order one against 1/V²


def test_trace_shows_the_table_looked_up() -> None:
    construction = tabled_inputs.build(3, 3)
    record = trace(construction, np.arange(27).reshape(3, 3, 3) % 3, (2, 1, 0))
    picks = {pick.head: pick.position for pick in record.steps[0].picks}
    assert picks["table-lookup"] == 2 * 3 + 1 + 1
    assert record.emitted == (0,)


def test_a_trace_below_the_bound_shows_what_went_wrong() -> None:
    construction = any_sequence.build(10, 6, inverse_temperature=1.0)
    record = trace(construction, [0, 0, 0, 0, 0, 9])
    assert record.emitted != record.wanted
    assert max(pick.weight for pick in record.steps[-1].picks) < 0.5


@pytest.mark.parametrize(("vocab", "length"), [(10, 4), (94, 4)])
def test_the_decoding_is_drawn(vocab: int, length: int) -> None:
    figure = plot_decoding(
        trace(any_sequence.build(vocab, length), [0, 1, vocab - 1, 2]), 3, printable(vocab).characters
    )
    figure.canvas.draw()
    assert len(figure.axes) == 2


@pytest.mark.filterwarnings("error")  # a font that lacks a character warns
def test_a_character_that_the_font_lacks_is_drawn_as_its_code_point() -> None:
    figure = plot_decoding(trace(any_sequence.build(4, 2), [2, 3]), 1, "a$永z")
    figure.canvas.draw()
    drawn = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"1 '\\$'", "2 'U+6C38'"} <= drawn


def test_a_longer_prefix_approximates_better() -> None:
    result = continuous.approximate(np.exp, (16, 32, 64, 128))
    errors = [point.max_error for point in result.points]
    assert errors == sorted(errors, reverse=True)
    assert result.order == pytest.approx(2.0, abs=0.05)  # second order, up to the next term of the series
    assert plot_approximation(result).axes


@pytest.mark.parametrize(
    "function",
    [np.sin, lambda x: x**3 - x, lambda x: np.sqrt(np.abs(x - 0.3)), lambda x: np.tanh(20 * (x - 0.4))],
    ids=["sine", "cubic", "cusp", "step"],
)
def test_any_continuous_function_will_do(function) -> None:
    """The error falls with every doubling, also where there is no slope, or a steep one."""
    for interval in ((0.0, 1.0), (-2.0, 3.0)):
        errors = [
            p.max_error for p in continuous.approximate(function, (16, 64, 256), interval=interval, tested=101).points
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < errors[0] / 2


def test_a_kink_costs_one_order() -> None:
    result = continuous.approximate(lambda x: np.abs(x - 0.5), (32, 64, 128))
    assert result.order == pytest.approx(1.0, abs=0.05)


def test_interpolating_values_do_much_better_on_smooth_functions() -> None:
    sampled = continuous.approximate(np.exp, (16,)).points[0]
    interpolating = continuous.approximate(np.exp, (16,), values="interpolating").points[0]
    assert interpolating.max_error < sampled.max_error / 1000


def test_the_head_is_the_smoother_it_claims_to_be() -> None:
    length, interval = 12, (0.0, 1.0)
    vectors = continuous.prefix(np.sin, length, interval)
    tokens = continuous.content_token(np.linspace(0, 1, 9), interval)
    given = continuous.respond(continuous.build(length), vectors, tokens)
    scores = continuous.concentration(length) * tokens[:, :2] @ vectors[:, :2].T
    own = np.full((9, 1), continuous.concentration(length) - continuous.CONTENT_PENALTY)
    weights = np.exp(np.concatenate([scores, own], axis=1))
    wanted = (weights / weights.sum(axis=1, keepdims=True))[:, :-1] @ vectors[:, 3]
    assert np.abs(given - wanted).max() <= 1e-12


def test_the_same_head_serves_every_function() -> None:
    first, second = continuous.build(8).state_dict(), continuous.build(8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert continuous.approximate(np.sin, (8,)).points[0].max_error > 0


@pytest.mark.parametrize("known", catalog.CATALOG, ids=lambda known: known.name)
def test_every_construction_is_in_the_catalog(known) -> None:
    construction = catalog.build(known.name, vocab=2)
    assert construction.name == known.name
    if known.option:
        assert catalog.build(known.name, vocab=2, **{known.option: 3}).name == known.name
