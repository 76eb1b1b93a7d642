"""Examples that differ from item to item: the nearest ones, and a row that reads them as a PrefixKV would give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.examples import Examples, draw
from elicitable.methods.nearest import Nearest, Pool
from elicitable.models.layout import PLAIN
from elicitable.models.model import Model
from elicitable.models.rows import rows_of
from elicitable.training.evaluate import read_labels
from elicitable.training.loop import Plan, reading_of
from elicitable.values import Item, Message

Build = Callable[..., Model]
POOL = [
    Item("aaab:", "b"), Item("bbba:", "a"), Item("aabb:", "b"),
    Item("cc c:", "c"), Item("c ccc:", "c"), Item("ab:", "a"),
]  # fmt: skip
ASKED = [Item("aaaa:", "b"), Item("ccc:", "c"), Item("bba:", "a")]
LABELS = ("a", "b", "c")


def test_what_a_row_reads_is_what_a_context_of_its_own_gives(letters_model: Build) -> None:
    """Both in float64, where a sum of some hundred terms of size 1 differs by 1e-14 in another order."""
    model = letters_model()
    nearest = Nearest().build(model, k=2, items=POOL, layout=PLAIN)
    reading = reading_of(Plan(0.0, 1), nearest)
    inside = read_labels(model, ASKED, LABELS, reading).nats
    shown = nearest.asked(model, ASKED)
    for row, item in enumerate(shown):
        context = Examples().build(model, items=item.shown, layout=PLAIN)
        with el.use(model, context):
            own = read_labels(model, [ASKED[row]], LABELS, reading_of(Plan(0.0, 1), context)).nats
        assert (own[0] - inside[row]).abs().max() < 1e-12
    with el.use(model, Examples().build(model, items=POOL[:2], layout=PLAIN)):
        other = read_labels(
            model, ASKED, LABELS, reading_of(Plan(0.0, 1), Examples().build(model, items=POOL[:2]))
        ).nats
    assert (other - inside).abs().max() > 1e-3


def test_a_prefix_with_a_row_for_each_item_gives_the_same(letters_model: Build) -> None:
    model = letters_model()
    same = [item for item in POOL if len(item.prompt) == 5]  # contexts of one length: learned positions ask for that
    nearest = Nearest().build(model, k=2, items=same, layout=PLAIN)
    inside = read_labels(model, ASKED[:2], LABELS, reading_of(Plan(0.0, 1), nearest)).nats
    prefix = nearest.before(model, ASKED[:2])
    assert prefix.keys[0] is not None
    assert prefix.keys[0].shape[0] == 2
    with el.use(model, prefix):
        together = read_labels(model, ASKED[:2], LABELS, replace(reading_of(Plan(0.0, 1), nearest), asked=None)).nats
    assert (together - inside).abs().max() < 1e-12


def test_the_nearest_stand_last_and_an_item_is_not_its_own_example(letters_model: Build) -> None:
    model = letters_model()
    pool = Pool(model, POOL)
    near = pool.near(model, [POOL[3], Item("cc cc:", "c")])
    assert near[0, 3] == -torch.inf
    assert int(near[0].argmax()) == 4
    nearest = Nearest().build(model, k=3, items=POOL)
    own = nearest.asked(model, [Item("cc cc:", "c")])[0].shown
    ranked = near[1].argsort(descending=True)[:3].tolist()
    assert own == tuple(POOL[place] for place in reversed(ranked))
    even = Nearest().build(model, k=3, items=POOL, even=True).asked(model, ASKED)
    assert all({item.target for item in one.shown} == set(LABELS) for one in even)


def test_as_many_as_there_is_room_for(letters_model: Build) -> None:
    model = letters_model()
    lengths = dict(zip([item.prompt for item in POOL], Pool(model, POOL).lengths, strict=True))
    for room in (9, 10, 20, 31):
        for item in Nearest().build(model, k=6, items=POOL, room=room).asked(model, ASKED):
            assert sum(lengths[one.prompt] for one in item.shown) <= room


def test_digits_are_read_the_same_way(digits_model: Build) -> None:
    model = digits_model(8)
    items = [Item((1, 2), (3,)), Item((1, 3), (4,)), Item((7, 7), (0,))]
    asked = Nearest().build(model, k=1, items=items).asked(model, [Item((7, 6), (0,))])
    assert len(asked[0].shown) == 1
    shown = asked[0].shown[0]
    assert rows_of(model, asked)[0].content == [*shown.prompt, *shown.target, 7, 6]


def test_it_is_built_again_from_its_setting(letters_model: Build) -> None:
    model = letters_model()
    one = Nearest().build(model, k=2, items=POOL, even=True, layout=replace(PLAIN, start="none"))
    again = Nearest().from_setting(model, one.setting, PLAIN)
    assert again.setting == one.setting
    assert again.asked(model, ASKED) == one.asked(model, ASKED)
    assert again.layout == one.layout


def test_it_cannot_be_put_before_whatever_is_read(letters_model: Build) -> None:
    model = letters_model()
    with pytest.raises(InputError, match="before\\(model, items\\)"), el.use(model, Nearest().build(model, items=POOL)):
        pass
    with pytest.raises(InputError, match="task= or items="):
        Nearest().build(model)
    with pytest.raises(InputError, match="at least 1"):
        Nearest().build(model, k=0, items=POOL)


def test_conversations_have_nearest_ones_too(letters_model: Build) -> None:
    talks = [Item((Message("user", item.prompt),), item.target) for item in POOL]
    pool = Pool(letters_model(), talks)
    assert len(pool.lengths) == len(POOL)
    near = pool.near(letters_model(), [Item((Message("user", "ccc:"),), "c")])
    assert near.shape == (1, len(POOL))


def test_of_more_labels_than_there_are_examples_every_one_is_shown_in_some_draw() -> None:
    """The first k labels were shown in every draw, and the others in none."""

    class Many:
        def labels(self) -> tuple[str, ...]:
            return tuple("abcdefghij")

        def sample(self, n: int, rng: Any) -> list[Item]:
            return [Item(f"{nth} {rng.integers(1000)}", "abcdefghij"[nth % 10]) for nth in range(n)]

    drawn = [draw(Many(), 3, seed) for seed in range(20)]  # type: ignore[arg-type]
    assert all(len({item.target for item in items}) == 3 for items in drawn)
    assert {item.target for items in drawn for item in items} == set("abcdefghij")
    assert sorted(item.target for item in draw(Many(), 20, 0)) == sorted("abcdefghij" * 2)  # type: ignore[arg-type]
