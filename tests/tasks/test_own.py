"""A task of a person's own that does not keep the contract is refused by name, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import elicitable as el
from elicitable.errors import InputError
from elicitable.tasks.base import stops_of, warnings_of
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
        ("labels", lambda self: (" x", "x", " y"), r"labels\(\) gives ' x' and 'x', which are one answer: white space"),
        ("fingerprint", lambda self: str(next(CALLS)), r"fingerprint\(\) gives another text at each call"),
        (
            "sample",
            lambda self, n, rng: [Item("a", " x", choices=(" x", " x\n"))] * n,
            r"with choices of its own gives ' x' and ' x\\n', which are one answer",
        ),
        (
            "sample",
            lambda self, n, rng: [Item("a", " x", choices=(" x", " x"))] * n,
            r"at least two choices of its own, each once, and has \(' x', ' x'\)",
        ),
        ("sample", lambda self, n, rng: [Item("a", " x", choices=(" x",))] * n, r"at least two choices of its own"),
        (
            "sample",
            lambda self, n, rng: [Item("a", " x", accepted=("y", "z"))] * n,
            r"accepts \('y', 'z'\), and its target ' x', which is trained, is none of them",
        ),
        (
            "sample",
            lambda self, n, rng: [Item("abc", " x", ((-1, 2),))] * n,
            r"spans \(\(-1, 2\),\), and they have to be characters of its prompt, from 0 to 3",
        ),
        ("sample", lambda self, n, rng: [Item("abc", " x", ((0, 4),))] * n, r"characters of its prompt, from 0 to 3"),
        ("sample", lambda self, n, rng: [Item("a", "x", choices="xy")] * n, r"choices have to be texts, and are 'xy'"),
        ("fingerprint", lambda self: 7, r"fingerprint\(\) has to be a text, and is 7"),
        (
            "sample",
            lambda self, n, rng: [Item(str(next(CALLS)), " x") for _ in range(n)],
            r"sample\(8, …\) gives other items at each call with generators of one seed, .* draw with the generator",
        ),
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


def test_one_warning_is_not_one_a_letter() -> None:
    own = made()
    own.warnings = "few rows"
    own.stops = "##"
    assert warnings_of(task_from(own)) == ("few rows",)
    assert stops_of(own) == ("##",)
    own.warnings = 3
    with pytest.raises(InputError, match="warnings has to be a tuple of texts, and is 3"):
        task_from(own)


def test_a_race_refuses_it_before_anything_runs() -> None:
    with pytest.raises(InputError, match="own has no items in its test split"):
        el.verdict("toy:ascending", made(held_out=lambda self, split, n=None: [GOOD] * (split != "test")))


def sorting(test: Callable[[list[Item]], Any], **parts: Callable[..., Any]) -> Any:
    """Make a task of token ids whose test split is ``test`` of thirty items."""

    def held_out(self: Any, split: str, n: int | None = None) -> Any:
        items = [Item((nth % 8, 1, 3), (1, 3, nth % 8)) for nth in range(30)][:n]
        return test(items) if split == "test" else items

    sample: Callable[..., Any] = lambda self, n, rng: [Item((3, 2, 1), (1, 2, 3))] * n  # noqa: E731
    return made(labels=lambda self: None, sample=sample, held_out=held_out, **parts)


def replaced(item: Item) -> Callable[[list[Item]], list[Item]]:
    """Put ``item`` in the place of the 21st."""
    return lambda items: [item if nth == 20 else one for nth, one in enumerate(items)]


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (iter, r"held_out\('test', 1000\) has to be a list of items, and is <list_it"),
        (lambda items: None, r"held_out\('test', 1000\) has to be a list of items, and is None"),
        (lambda items: items * 40, r"held_out\('test', 1000\) has to give at most 1,000 items, and gives 1,200"),
        (
            lambda items: [Item((nth % 8,), (nth % 7,)) for nth in range(30)],
            r"held_out\('test', 1\) has to give the first of the items of held_out\('test', 1000\) alone",
        ),
        (replaced(3), r"held_out\('test', 1000\) has to be a list of items"),  # type: ignore[arg-type]
        (replaced(Item((1, 2, 3), "abc")), r"are not both read as texts or both token ids: \(1, 2, 3\) and 'abc'"),
        (replaced(Item("abc", "abc")), r"has items of texts and items of token ids, such as 'abc' and 'abc'"),
        (replaced(Item((1, 2, 3), (99,))), r"the test item '1 2 3': the task uses token id 99"),
        (replaced(Item((), (1,))), r"the test item '': nothing stands before the answer"),
        (
            lambda items: [Item((1, next(CALLS) % 7), (1, 2)) for _ in items],
            r"held_out\('test', 1000\) gives other items at each call",
        ),
    ],
)
def test_what_is_odd_about_a_test_item_is_said_before_anything_is_trained(test: Any, words: str) -> None:
    """Test items were first looked at where they are scored: after minutes of training, in a traceback."""
    with pytest.raises(InputError, match=words):
        el.verdict("toy:ascending", sorting(test), methods=["zero-shot"], steps=1, seeds=1)


def test_every_held_out_item_has_a_group() -> None:
    own = sorting(list, groups=lambda self, split, n=None: [0] * 7)
    with pytest.raises(InputError, match=r"own: groups\('validation', 1000\) has to give .* the 30 items .* gives 7"):
        el.verdict("toy:ascending", own, methods=["zero-shot"], steps=1, seeds=1)


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
