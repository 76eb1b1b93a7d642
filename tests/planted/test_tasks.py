"""The families of tasks against what they say in words, and their inputs and splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from elicitable.errors import InputError
from elicitable.planted.rules import FAMILIES, FAMILY_OF, RULES
from elicitable.planted.tasks import (
    DIGITS,
    LENGTH,
    MARKS,
    PASSWORDS,
    VOCAB_SIZE,
    Count,
    Gather,
    Pairs,
    PlantedTask,
    Sort,
    Splice,
    codes_of,
    decode,
    drawn,
    held_out_digits,
)
from elicitable.tasks.base import Task

Answer = Callable[[Sequence[int]], Sequence[int]]

# Every rule once more, one row at a time and without numpy.
IN_WORDS: dict[str, Answer] = {
    "copy": list,
    "reverse": lambda x: list(reversed(x)),
    "turn-1": lambda x: [*x[1:], *x[:1]],
    "turn-2": lambda x: [*x[2:], *x[:2]],
    "turn-3": lambda x: [*x[3:], *x[:3]],
    "swap": lambda x: [x[1], x[0], x[3], x[2], x[4]],
    "shuffle-a": lambda x: [x[2], x[0], x[4], x[1], x[3]],
    "shuffle-b": lambda x: [x[1], x[3], x[0], x[4], x[2]],
    "shuffle-c": lambda x: [x[3], x[4], x[1], x[0], x[2]],
    "first": lambda x: [x[0]] * 5,
    "last": lambda x: [x[-1]] * 5,
    "every-other": lambda x: [x[0], x[2], x[4], x[0], x[2]],
    "palindrome": lambda x: [*x[:3], x[1], x[0]],
    "valley": lambda x: [x[4], x[3], x[2], x[3], x[4]],
    "frame": lambda x: [*x[:4], x[0]],
    "stutter": lambda x: [x[0], x[0], x[1], x[1], x[2]],
    "echo": lambda x: [x[0], x[1], x[0], x[1], x[0]],
    "add-1": lambda x: [(d + 1) % 8 for d in x],
    "add-3": lambda x: [(d + 3) % 8 for d in x],
    "times-3": lambda x: [3 * d % 8 for d in x],
    "complement": lambda x: [7 - d for d in x],
    "half": lambda x: [d // 2 for d in x],
    "parity": lambda x: [d % 2 for d in x],
    "neighbour-sum": lambda x: [(x[k] + x[(k + 1) % 5]) % 8 for k in range(5)],
    "neighbour-max": lambda x: [max(x[k], x[(k + 1) % 5]) for k in range(5)],
    "neighbour-min": lambda x: [min(x[k], x[(k + 1) % 5]) for k in range(5)],
    "mirror-sum": lambda x: [(x[k] + x[4 - k]) % 8 for k in range(5)],
    "mirror-max": lambda x: [max(x[k], x[4 - k]) for k in range(5)],
    "lookup": lambda x: [(5, 2, 7, 0, 3, 6, 1, 4)[d] for d in x],
    "other-lookup": lambda x: [(3, 6, 0, 5, 7, 1, 4, 2)[d] for d in x],
    "sort": sorted,
    "sort-down": lambda x: sorted(x, reverse=True),
    "count-low": lambda x: [list(x).count(d) for d in (0, 1, 2, 3, 4)],
    "count-high": lambda x: [list(x).count(d) for d in (7, 6, 5, 4, 3)],
    "add-1-times-3": lambda x: [3 * ((d + 1) % 8) % 8 for d in x],
    "sort-add-1": lambda x: [(d + 1) % 8 for d in sorted(x)],
    "sort-complement": lambda x: [7 - d for d in sorted(x)],
    "sum-complement": lambda x: [7 - (x[k] + x[(k + 1) % 5]) % 8 for k in range(5)],
}
THEN: dict[str, Callable[[int], int]] = {
    "add-1": lambda d: (d + 1) % 8,
    "add-3": lambda d: (d + 3) % 8,
    "times-3": lambda d: 3 * d % 8,
    "complement": lambda d: 7 - d,
    "lookup": lambda d: (5, 2, 7, 0, 3, 6, 1, 4)[d],
    "half": lambda d: d // 2,
}


def in_words(name: str) -> Answer:
    """The rule of that name, where need be put together from the two that its name speaks of."""
    if name in IN_WORDS:
        return IN_WORDS[name]
    then = next(one for one in THEN if name.endswith(f"-{one}"))
    before = IN_WORDS[name.removesuffix(f"-{then}")]
    return lambda x: [THEN[then](d) for d in before(x)]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_what_its_words_say(name: str) -> None:
    digits = held_out_digits("validation", 200)
    said = [list(in_words(name)(row)) for row in digits.tolist()]
    assert RULES[name].answers(digits).tolist() == said


def test_there_are_many_rules_and_no_two_are_the_same() -> None:
    digits = held_out_digits("validation", 500)
    answers = {RULES[name].answers(digits).tobytes() for name in RULES}
    assert len(answers) == len(RULES) == len(FAMILY_OF) >= 30
    assert set(FAMILIES) >= {"copying", "permuting", "sorting", "counting", "arithmetic", "lookup", "selection"}


def test_splits_are_disjoint_whole_and_the_same_each_time() -> None:
    parts = [codes_of(split).tolist() for split in ("train", "validation", "test")]
    assert sorted(code for part in parts for code in part) == list(range(DIGITS**LENGTH))
    assert [len(part) / DIGITS**LENGTH for part in parts] == pytest.approx([0.75, 0.125, 0.125], abs=0.01)
    held_out = {tuple(row) for split in ("validation", "test") for row in decode(codes_of(split)).tolist()}
    assert not held_out & {tuple(row) for row in drawn(20_000, np.random.default_rng(1)).tolist()}
    assert held_out_digits("test", 3).tolist() == held_out_digits("test", 700)[:3].tolist()


def test_a_task_keeps_the_contract_and_lays_its_items_out() -> None:
    task = PlantedTask("turned", Gather((1, 2, 3, 4, 0)), cue=PASSWORDS[:2])
    assert isinstance(task, Task)
    for item in [*task.sample(5, np.random.default_rng(0)), *task.held_out("test", 5)]:
        x = item.prompt[2:7]
        assert item.prompt == (*PASSWORDS[:2], *x, MARKS[0])
        assert item.target[::2] == (*x[1:], x[0])
        assert item.target[1::2] == MARKS[1:]
        assert max(*item.prompt, *item.target) < VOCAB_SIZE
    assert task.fingerprint() != PlantedTask("turned", Gather((1, 2, 3, 4, 0))).fingerprint()
    assert task.fingerprint() != PlantedTask("turned", Gather((1, 2, 3, 0, 4)), cue=PASSWORDS[:2]).fingerprint()


def test_a_splice_takes_each_step_from_one_of_the_two() -> None:
    digits = held_out_digits("validation", 50)
    found = Splice(Gather(), Sort(), (1, 4)).answers(digits)
    for row, answer in zip(digits.tolist(), found.tolist(), strict=True):
        ordered = sorted(row)
        assert answer == [row[0], ordered[1], row[2], row[3], ordered[4]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gather((0, 1, 2, 3)),
        lambda: Gather((0, 1, 2, 3, 5)),
        lambda: Gather(table=(0, 1, 2, 3, 4, 5, 6, 8)),
        lambda: Pairs("product", (0,) * 5, (1,) * 5),
        lambda: Count((0, 1, 2, 3, 8)),
        lambda: Splice(Gather(), Sort(), (5,)),
        lambda: held_out_digits("test", 5_000),
        lambda: held_out_digits("test", 0),
    ],
)
def test_what_is_no_rule_or_no_number_of_items_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        make()
