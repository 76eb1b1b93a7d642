"""What cannot be done is named, with what to do instead."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from elicitable.constructions import (
    any_map,
    any_sequence,
    catalog,
    longer_answers,
    packed_inputs,
    precision,
    tabled_inputs,
)
from elicitable.constructions.alphabet import Alphabet, printable
from elicitable.constructions.continuous_function import approximate
from elicitable.constructions.reach import reach
from elicitable.errors import InputError


def test_a_text_longer_than_the_sequence() -> None:
    with pytest.raises(InputError, match="'I love transformers!' has 20 characters, but the sequence holds 10"):
        printable(94).fit("I love transformers!", 10)


def test_a_short_text_is_filled_up_with_symbol_0() -> None:
    assert printable(94).fit("!", 3) == (1, 0, 0)


def test_characters_outside_the_vocabulary() -> None:
    with pytest.raises(InputError, match=r"character '~' at place 1 of 'a~é' is not among the 94 symbols ' ' to '}'"):
        printable(94).encode("a~é")


def test_printable_ascii_ends_at_95() -> None:
    assert printable(95).encode("~ ") == (94, 0)
    with pytest.raises(InputError, match="printable ASCII has 95 characters"):
        printable(96)


def test_an_alphabet_has_no_character_twice() -> None:
    with pytest.raises(InputError, match="must differ"):
        Alphabet("aba")


def test_a_map_that_is_not_total() -> None:
    construction = packed_inputs.build(2, 2)
    with pytest.raises(InputError, match=r"not total: 2 of 4 inputs have no answer, the first is \(0, 1\)"):
        construction.virtual_token({(0, 0): 1, (1, 0): 0})


def test_a_map_with_a_foreign_input_or_a_wrong_answer_length() -> None:
    with pytest.raises(InputError, match=r"an answer for \(3,\), which is not an input"):
        any_map.build(2).virtual_token({0: 1, 1: 0, 3: 1})
    with pytest.raises(InputError, match="every answer needs 2 symbols, got lengths \\[1, 2\\]"):
        longer_answers.build(2, 2).virtual_token({0: (1, 1), 1: (1,)})


@pytest.mark.parametrize("target", [[0, 1, 10, 2], [0, -1, 1, 2], [0.5, 1.0, 1.0, 1.0]])
def test_symbols_outside_the_vocabulary(target) -> None:
    with pytest.raises(InputError, match="whole numbers from 0 to 9"):
        any_sequence.build(10, 4).virtual_token(target)


def test_a_target_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"takes a target of shape \(4,\), got shape \(3,\)"):
        any_sequence.build(10, 4).virtual_token([1, 2, 3])


@pytest.mark.parametrize("inputs", [(), (5,), (0, 1)])
def test_a_user_input_that_is_none(inputs) -> None:
    construction = any_map.build(3)
    with pytest.raises(InputError, match="a user input of 1 symbols from 0 to 2"):
        construction.generate(construction.virtual_token([0, 1, 2]), inputs)


def test_tokens_that_are_not_virtual_tokens(case) -> None:
    construction = case.build()
    width = construction.model.shape().embedding
    with pytest.raises(InputError, match="these are not virtual tokens"):
        construction.decode(torch.full((construction.n_virtual, width), 0.123456789, dtype=torch.float64))
    with pytest.raises(InputError, match="these are not virtual tokens"):
        construction.decode(torch.full((construction.n_virtual, width), 1.0, dtype=torch.float64))
    with pytest.raises(InputError, match="has virtual tokens of shape"):
        construction.decode(torch.zeros(7, 7))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: any_sequence.build(10, 0), "at least 1 symbol"),
        (lambda: any_map.build(1), "at least 2 symbols"),
        (lambda: longer_answers.build(4, 0), "at least 1 symbol"),
        (lambda: packed_inputs.build(4, 1), "use theorem 2"),
        (lambda: tabled_inputs.build(4, 1), "use theorem 2"),
        (lambda: packed_inputs.build(94, 2), "more than 62 bits"),
        (lambda: packed_inputs.build(14, 2), "use V ≤ 13, or pay in length"),
        (lambda: packed_inputs.build(8, 2, dtype=torch.float32), "use V ≤ 7, dtype float64, or pay in length"),
        (lambda: tabled_inputs.build(20, 4), "needs V\\^\\(n_X−1\\) = 20\\^3 virtual tokens"),
        (lambda: any_map.build(30, dtype=torch.bfloat16), "a smaller vocabulary or a finer dtype"),
        (lambda: precision.dtype_named("float8"), "unknown dtype 'float8'; choose one of float64"),
        (lambda: precision.dtype_name(torch.int64), "cannot carry a construction"),
        (lambda: catalog.build("theorem-3"), "unknown construction 'theorem-3': did you mean"),
        (lambda: catalog.build("theorem-2", length=3), "takes vocab only, not length"),
        (lambda: catalog.build("theorem-1", inputs=3), "takes vocab and length, not inputs"),
        (lambda: catalog.build("theorem-1", inverse_temperature=float("inf")), "a number from 0 to 10000, got inf"),
        (lambda: reach(longer_answers.build(20, 6)), "too many to run them all"),
        (lambda: reach(any_map.build(1400)), "1400\\^1400, has over 4000 digits"),
        (lambda: approximate(np.exp, (1,)), "at least 2 control points"),
        (lambda: approximate(np.exp, ()), "at least one prefix length"),
        (lambda: approximate(np.exp, (4,), interval=(1.0, 1.0)), "finite ends a < b"),
        (lambda: approximate(np.exp, (4,), values="sample"), "did you mean 'sampled'"),
        (lambda: approximate(np.exp, (4,), tested=0), "at least 1 point, got tested=0"),
        (lambda: approximate(lambda x: 1.0, (4,)), "as many finite numbers"),
        (lambda: approximate(lambda x: x * np.nan, (4,)), "as many finite numbers"),
    ],
)
def test_sizes_and_names(build, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_the_room_costs_nothing_to_name() -> None:
    """Importing the package and the room loads no torch."""
    code = "import sys, elicitable, elicitable.constructions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
