"""Every theorem by enumeration, and every check seen to fail."""

from __future__ import annotations

import dataclasses
import itertools
import string
import time

import numpy as np
import pytest
import torch

import elicitable.constructions.verify as verification
from elicitable.constructions import any_map, any_sequence, longer_answers, packed_inputs, precision, tabled_inputs
from elicitable.constructions.alphabet import Alphabet, printable
from elicitable.constructions.capacity import extreme_targets
from elicitable.constructions.reach import reach
from elicitable.constructions.verify import holds, rows_at_once, verify, verify_targets
from elicitable.errors import InputError
from elicitable.rng import generator


def test_every_target_of_every_construction(case) -> None:
    construction = case.build()
    result = verify(construction)
    assert result.exhaustive
    assert result.checked == construction.n_targets == construction.vocab ** int(np.prod(case.target_shape))
    assert (result.failures, result.counterexamples) == (0, ())
    # the margin of exact arithmetic, up to rounding of numbers of order one
    assert result.smallest_margin == pytest.approx(result.ideal_margin, abs=1e-14)


def test_generation_emits_what_verify_says(case) -> None:
    """Teacher forcing decides all steps at once; greedy generation, step by step, agrees target by target."""
    # at T = 2 some targets come out wrong and some right
    construction = case.build(inverse_temperature=2.0)
    tables = construction.random_targets(20, generator(0, "generate"))
    for table in tables:
        token = construction.virtual_token(table)
        emitted = [construction.generate(token, row) for row in construction.inputs().tolist()]
        right = np.array_equal(np.array(emitted), table)
        assert right == (verify_targets(construction, table[None]).failures == 0)


def test_virtual_tokens_decode_to_their_target(case) -> None:
    for dtype in (torch.float64, torch.float32):
        construction = case.build(dtype=dtype)
        for table in construction.random_targets(20, generator(0, "decode")):
            target = construction.decode(construction.virtual_token(table))
            assert target.shape == case.target_shape
            assert np.array_equal(target.reshape(table.shape), table)


@pytest.mark.parametrize(("vocab", "length"), [(2, 6), (3, 4), (4, 5), (5, 2)])
def test_theorem_1_fails_just_below_its_bound(vocab: int, length: int) -> None:
    bound = any_sequence.temperature_bound(vocab, length)
    # 1e-9 of T moves the deciding logit by about 1e-10, far above rounding
    assert verify(any_sequence.build(vocab, length, inverse_temperature=bound + 1e-9)).failures == 0
    below = verify(any_sequence.build(vocab, length, inverse_temperature=bound - 1e-9))
    worst = (0,) * (length - 1) + (vocab - 1,)
    assert [found.target for found in below.counterexamples] == [worst]
    assert below.counterexamples[0].wanted == vocab - 1
    assert below.counterexamples[0].emitted == vocab - 2


@pytest.mark.parametrize(("vocab", "answer"), [(3, 2), (2, 3)])
def test_longer_answers_fail_just_below_their_bound(vocab: int, answer: int) -> None:
    bound = longer_answers.temperature_bound(vocab, answer)
    assert verify(longer_answers.build(vocab, answer, inverse_temperature=bound + 1e-9)).failures == 0
    below = verify(longer_answers.build(vocab, answer, inverse_temperature=bound - 1e-9))
    assert below.failures > 0


@pytest.mark.parametrize("build", [packed_inputs, tabled_inputs])
@pytest.mark.parametrize(("vocab", "n_input"), [(2, 2), (2, 3), (4, 2)])
def test_longer_inputs_hold_above_their_bound_and_fail_well_below(build, vocab: int, n_input: int) -> None:
    """Their bounds are sufficient, not sharp: e^T at the bound is at most 3 times what is needed."""
    bound = build.temperature_bound(vocab, n_input)
    construction = build.build(vocab, n_input, inverse_temperature=bound)
    targets = np.concatenate([extreme_targets(construction), construction.random_targets(50, generator(0, "bound"))])
    assert verify_targets(construction, targets).failures == 0
    assert verify_targets(construction.at(bound - np.log(3)), targets).failures > 0


def test_theorem_2_and_single_symbols_need_no_temperature() -> None:
    for construction in (
        any_map.build(4, inverse_temperature=0.0),
        any_sequence.build(10, 1, inverse_temperature=0.0),
        longer_answers.build(4, 1, inverse_temperature=0.0),
    ):
        assert construction.temperature_bound == 0.0
        assert verify(construction).failures == 0


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32"])
def test_one_vocabulary_above_the_margin_is_refused_and_fails(name: str) -> None:
    dtype = precision.DTYPES[name]
    limit = precision.largest_vocab(dtype)
    good = any_sequence.build(limit, 2, dtype=dtype)
    sequences = np.stack([np.arange(limit), np.arange(limit)[::-1]], axis=1)[:, None]
    assert verify_targets(good, sequences).failures == 0
    with pytest.raises(InputError, match=f"vocabulary {limit + 1} is beyond {name}"):
        any_sequence.build(limit + 1, 2, dtype=dtype)
    # a processor that fuses multiply and add lasts a little longer in float32: 1.3 times the limit fails on any
    above = any_sequence.build(int(1.3 * limit), 2, dtype=dtype, unchecked=True)
    symbols = np.arange(above.vocab)
    assert verify_targets(above, np.stack([symbols, symbols], axis=1)[:, None]).failures > 0


@pytest.mark.parametrize(("dtype", "n_input", "limit"), [("float64", 2, 13), ("float64", 3, 4), ("float32", 2, 7)])
def test_one_vocabulary_above_the_packing_is_refused_and_fails(dtype: str, n_input: int, limit: int) -> None:
    kind = precision.DTYPES[dtype]
    assert packed_inputs.largest_vocab(n_input, kind) == limit
    draws = generator(0, "packing")
    good = packed_inputs.build(limit, n_input, dtype=kind)
    targets = np.concatenate([extreme_targets(good), good.random_targets(20, draws)])
    assert verify_targets(good, targets).failures == 0
    with pytest.raises(InputError, match=rf"V = {limit + 1}, n_X = {n_input} packs .* bits .* {dtype} carries"):
        packed_inputs.build(limit + 1, n_input, dtype=kind)
    above = packed_inputs.build(limit + 1, n_input, dtype=kind, unchecked=True)
    result = verify_targets(above, above.random_targets(20, draws))
    assert result.failures > 0
    assert result.counterexamples


@pytest.mark.parametrize("name", precision.DTYPES)
def test_every_number_is_of_the_type_asked_for(case, name: str) -> None:
    """Weights and what every module puts out: nothing is computed in a finer type along the way."""
    construction = case.build(dtype=precision.DTYPES[name])
    seen: set[torch.dtype] = {weight.dtype for weight in construction.model.parameters()}

    def look(_module: object, _given: object, out: object) -> None:
        seen.update(
            part.dtype for part in (out if isinstance(out, tuple) else (out,)) if isinstance(part, torch.Tensor)
        )

    for module in construction.model.modules():
        module.register_forward_hook(look)
    assert verify(construction, 5).failures == 0
    assert seen == {precision.DTYPES[name]}


def test_some_inputs_are_enough_to_find_a_target_wrong() -> None:
    """``holds`` on all inputs agrees with ``verify_targets``; on inputs that come out right it sees no failure."""
    construction = tabled_inputs.build(3, 2, inverse_temperature=2.5)
    tables = construction.random_targets(30, generator(0, "holds"))
    for table in tables[:, None]:
        result = verify_targets(construction, table, most_counterexamples=9)
        assert holds(construction, table) == (result.failures == 0)
        wrong = {found.inputs for found in result.counterexamples}
        right = [n for n, row in enumerate(construction.inputs().tolist()) if tuple(row) not in wrong]
        assert holds(construction, table, np.array(right, dtype=np.int64))
    assert not holds(construction, tables)


def test_counterexamples_are_capped_but_counted_and_can_be_rerun() -> None:
    construction = any_sequence.build(4, 4, inverse_temperature=1.0)
    result = verify(construction, most_counterexamples=3)
    assert result.failures > len(result.counterexamples) == 3
    for found in result.counterexamples:
        assert found.margin <= 0
        emitted = construction.generate(construction.virtual_token(found.target), found.inputs)
        assert emitted != found.target


def test_a_tie_is_a_failure() -> None:
    construction = any_sequence.build(2, 1)
    with torch.no_grad():
        construction.model.readout[-1].weight.zero_()
        construction.model.readout[-1].bias.zero_()
    result = verify(construction)
    assert (result.checked, result.failures, result.smallest_margin) == (2, 2, 0.0)


def test_random_verification_states_its_count_and_repeats() -> None:
    construction = any_map.build(20)
    first, second = verify(construction, 50, seed=3), verify(construction, 50, seed=3)
    assert (first.checked, first.passes, first.exhaustive, first.seed) == (50, 1000, False, 3)
    assert dataclasses.replace(first, seconds=0) == dataclasses.replace(second, seconds=0)


@pytest.mark.parametrize("how", ["everything", 0, -1])
def test_verify_takes_exhaustive_or_a_count(how) -> None:
    with pytest.raises(InputError, match="'exhaustive' or a positive count"):
        verify(any_map.build(3), how)


def test_verify_refuses_to_exhaust_what_it_cannot() -> None:
    with pytest.raises(InputError, match=r"94\^20 targets here, too many to exhaust"):
        verify(any_sequence.build(94, 20))


def test_i_love_transformers() -> None:
    alphabet = printable(94)
    construction = any_sequence.build(94, 20)
    token = construction.virtual_token(alphabet.fit("I love transformers!", 20))
    assert token.shape == (1, 20)
    assert alphabet.decode(construction.generate(token)) == "I love transformers!"


def test_letters_to_words_is_complete() -> None:
    """A 52-entry map of single letters to words of up to 10 letters."""
    letters = Alphabet(string.ascii_letters + ".")
    words = """apple banana cherry dragonfly elephant falcon giraffe hedgehog iguana jackrabbit kangaroo llama manatee
        nightjar octopus penguin quail rabbit salamander tiger urchin vulture walrus xerus yak zebra""".split()  # noqa: SIM905
    answers = dict(zip(string.ascii_letters, [*words, *(word.upper() for word in words)], strict=True))
    assert max(map(len, answers.values())) == 10
    construction = longer_answers.build(len(letters), 10)
    answers["."] = ""
    mapping = {letters.encode(key)[0]: letters.encode(word.ljust(10, ".")) for key, word in answers.items()}
    token = construction.virtual_token(mapping)
    for key, word in answers.items():
        assert letters.decode(construction.generate(token, letters.encode(key))).rstrip(".") == word


def test_two_inputs_at_ten_symbols_packed() -> None:
    construction = packed_inputs.build(10, 2)
    result = verify(construction, 100)
    assert (result.checked, result.passes, result.failures) == (100, 10_000, 0)


def test_three_inputs_at_the_largest_vocabulary_of_float64() -> None:
    largest = packed_inputs.largest_vocab(3, torch.float64)
    assert largest == 4  # 4^2 digits of 2 bits: 32 bits; 5^2 digits of log2 5 bits: 59 of the 52 carried
    construction = packed_inputs.build(largest, 3)
    result = verify(construction, 1000)
    assert (result.passes, result.failures) == (64_000, 0)
    assert verify_targets(construction, extreme_targets(construction)).failures == 0


def test_arithmetic_read_from_one_virtual_token() -> None:
    construction = packed_inputs.build(10, 2)
    times = construction.virtual_token([[a * b % 10 for b in range(10)] for a in range(10)])
    for a, b in itertools.product(range(10), repeat=2):
        assert construction.generate(times, (a, b)) == (a * b % 10,)


def test_three_inputs_at_ten_symbols_paid_in_length() -> None:
    construction = tabled_inputs.build(10, 3)
    assert construction.n_virtual == 100
    result = verify(construction, 2)
    assert (result.passes, result.failures) == (2000, 0)


@pytest.mark.slow
def test_theorem_1_all_million_sequences() -> None:
    began = time.process_time()
    result = verify(any_sequence.build(10, 6))
    assert (result.checked, result.exhaustive, result.failures) == (10**6, True, 0)
    # processor time, as the machine may be shared: about 5 s
    assert time.process_time() - began < 60


@pytest.mark.slow
def test_theorem_1_at_94_symbols() -> None:
    result = verify(any_sequence.build(94, 20), 10**5)
    assert (result.checked, result.decisions, result.failures) == (10**5, 2 * 10**6, 0)


@pytest.mark.slow
def test_theorem_2_at_94_symbols() -> None:
    result = verify(any_map.build(94), 10**4)
    assert (result.checked, result.passes, result.failures) == (10**4, 940_000, 0)


def test_what_is_reached_does_not_depend_on_how_much_is_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = any_sequence.build(vocab=4, length=3)
    together = dataclasses.replace(reach(built), seconds=0.0)
    monkeypatch.setattr(verification, "BATCH_NUMBERS", 1)
    assert rows_at_once(built) == 1
    assert dataclasses.replace(reach(built), seconds=0.0) == together


@pytest.mark.parametrize("how", ["exhaustive", 40])
def test_what_is_done_of_a_verification_is_told_up_to_the_whole(how):
    heard = []
    verify(any_map.build(vocab=3), how, told=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_what_is_done_of_a_count_is_told_row_by_row_up_to_the_whole():
    heard = []
    built = any_sequence.build(vocab=3, length=2)
    counts = reach(built, heard.append)
    assert heard == sorted(heard)
    assert (len(heard) > 1, heard[-1]) == (True, 1.0)
    assert counts.virtual_reached == counts.possible
