"""A task of a person's own that does not keep the contract is refused by name, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import elicitable as el
from elicitable.errors import InputError
from elicitable.tasks.catalog import task_from
from elicitable.values import Item, Message

GOOD = Item("a ->", " x")
CALLS = iter(range(10_000))


def made(**parts: Callable[..., Any]) -> Any:
    """Make an object with a task's four methods, of which some are as given."""

    class Own:
        name = "own"

        def labels(self) -> Any:
            return (" x", " y")

        def sample(self, n: int, rng: np.random.Generator) -> Any:
            return [GOOD] * n

        def held_out(self, split: str, n: int | None = None) -> Any:
            return [GOOD, Item("b ->", " y")][:n]

        def fingerprint(self) -> Any:
            return "own-1"

    for name, part in parts.items():
        setattr(Own, name, part)
    return Own()


def test_one_that_keeps_it_is_taken_as_it_is() -> None:
    own = made()
    assert task_from(own) is own
    chosen = made(labels=lambda self: (), held_out=lambda self, split, n=None: [Item("a", " x", choices=(" x", " z"))])
    with pytest.raises(InputError, match=r"sample\(8, …\) has an item .*|labels\(\) is empty"):
        task_from(chosen)  # its training items bring no choices


@pytest.mark.parametrize(
    ("part", "given", "words"),
    [
        ("labels", lambda self: (), r"labels\(\) is empty, .*; return None from labels\(\) where the whole answer"),
        ("labels", lambda self: ("x", "y"), r"target ' x' is none of the labels \('x', 'y'\), .* blanks included"),
        ("labels", lambda self: iter("xy"), r"labels\(\) has to be None or texts"),
        ("fingerprint", lambda self: 7, r"fingerprint\(\) has to be a text, and is 7"),
        ("sample", lambda self, n, rng: [GOOD], r"sample\(8, …\) has to give 8 items, and gives 1\."),
        ("sample", lambda self, n, rng: [("a", "b")] * n, r"sample\(8, …\) has to be a list of items"),
        ("sample", lambda self, n, rng: [Item("a", 3)] * n, r"target has to be a text or token ids, and is 3"),
        ("sample", lambda self, n, rng: [Item(3, " x")] * n, r"prompt has to be a text, token ids or messages"),
        (
            "held_out",
            lambda self, split, n=None: [],
            r"held_out\('validation', 8\) has to give 1 to 8 items",
        ),
        ("held_out", lambda self, split, n=None: [GOOD] * 250, r"has to give 1 to 8 items, and gives 250"),
        (
            "held_out",
            lambda self, split, n=None: [Item(str(next(CALLS)), " x")],
            r"held_out\('validation', 8\) gives other items at each call",
        ),
    ],
)
def test_what_is_not_as_the_contract_says_is_named(part: str, given: Callable[..., Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^Own: .*{words}"):
        task_from(made(**{part: given}))


def test_a_race_refuses_it_before_anything_runs() -> None:
    with pytest.raises(InputError, match="own has no items in its test split"):
        el.verdict("toy:ascending", made(held_out=lambda self, split, n=None: [GOOD] * (split != "test")))


def test_a_look_at_a_task_does_not_read_its_test_split() -> None:
    def held_out(self: Any, split: str, n: int | None = None) -> list[Item]:
        assert split == "validation"
        return [GOOD]

    task_from(made(held_out=held_out))


def test_lists_and_whole_numbers_of_numpy_become_what_an_item_holds() -> None:
    """They were taken, and broke where items are looked up or written down, minutes later."""
    given = Item(list(np.array([3, 1])), np.array([1, 3]).tolist(), choices=[" x", " y"], shown=[Item([1], [2])])  # type: ignore[arg-type]
    assert given == Item((3, 1), (1, 3), choices=(" x", " y"), shown=(Item((1,), (2,)),))
    assert {given: 1}[given] == 1
    assert {type(id_) for id_ in (*given.prompt, *given.target)} == {int}
    told = Item([Message("user", "a")], " x", [[0, 1]], accepted=[" x", " z"], reference=["left", "as it is"])  # type: ignore[arg-type]
    assert (told.prompt, told.spans, told.accepted) == ((Message("user", "a"),), ((0, 1),), (" x", " z"))
    assert told.reference == ["left", "as it is"]


def test_what_is_plain_already_stays_the_same_object() -> None:
    prompt, spans = tuple(range(300, 340)), ((0, 2), (3, 5))
    item = Item(prompt, "x", spans)
    assert item.prompt is prompt
    assert item.spans is spans
