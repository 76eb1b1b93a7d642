"""Rows against the plain text's own tokens, on every family of tokenizers and texts of several scripts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.families import FAMILIES, STARTS, reader, tokenizer

import elicitable as el
from elicitable.errors import InputError
from elicitable.models.layout import Layout
from elicitable.models.model import Model
from elicitable.models.rows import common_context, context_ids, label_rows, rows_of
from elicitable.models.tokens import common_beginning, tokenize
from elicitable.training.batches import Reading
from elicitable.training.evaluate import _rows
from elicitable.values import Item

SCRIPTS = (
    "abcdefilmnorstvw",
    "AEIRS",
    "привет мир",
    "漢字と仮名を読む",
    "مرحبا",
    "0123456789",
    " \n\n\t.,:;!?-'()",
    "👍🏽é",
)
WORDS = st.text(st.sampled_from("".join(SCRIPTS)), max_size=24)
ANSWERS = st.tuples(st.sampled_from(["", " ", "\n"]), st.sampled_from("aeinrsт漢2"), WORDS).map("".join)


def plain(model: Model, text: str) -> list[int]:
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def start_of(model: Model, family: str) -> list[int]:
    found: list[int] = model.tokenizer.convert_tokens_to_ids(STARTS.get(family, []))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40)
@given(prompt=WORDS, answer=ANSWERS)
def test_a_row_is_the_tokens_of_its_whole_text(family: str, prompt: str, answer: str) -> None:
    model, prompt = reader(family), f"x{prompt}"
    row = rows_of(model, [Item(prompt, answer)])[0]
    start, whole, alone = start_of(model, family), plain(model, prompt + answer), plain(model, prompt)
    assert row.content + row.answer == [*start, *whole, model.tokenizer.eos_token_id]
    assert (row.end, row.cut) == (1, 0)
    if model.tokenizer.unk_token_id in alone:  # a word that is unknown, with the answer's letters or without
        return
    assert len(row.content) >= len(start) + common_beginning([whole, alone])
    if whole[: len(alone)] == alone:  # nothing is joined across the border
        assert row.content == [*start, *alone]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40)
@given(
    before=st.sampled_from(["x", "x a fine and lovely film, too: ", "Привет, мир a dull film; flat\n and long\n\nx"]),
    prompt=WORDS,
    labels=st.lists(ANSWERS, min_size=2, max_size=6, unique_by=lambda x: "".join(x.split()).lower()),
)
def test_a_label_is_the_tokens_that_it_has_in_the_text(
    family: str, before: str, prompt: str, labels: list[str]
) -> None:
    """Also behind words that are tokenized once for all labels."""
    model, prompt = reader(family), f"{before}{prompt}"
    wholes = [[*start_of(model, family), *plain(model, prompt + label)] for label in labels]
    if len(set(map(tuple, wholes))) < len(labels):  # unknown letters are one token
        with pytest.raises(InputError, match="are the same tokens to"):
            label_rows(model, [Item(prompt, labels[0])], labels)
        return
    row = label_rows(model, [Item(prompt, labels[0])], labels)[0]
    ends = any(a != b and b[: len(a)] == a for a in wholes for b in wholes)
    end = [model.tokenizer.eos_token_id] if ends else []
    assert [row.content + ids for ids in row.labels] == [whole + end for whole in wholes]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_is_tokenized_once_for_all_its_labels(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand labels behind three hundred words were three hundred thousand words to tokenize for each item."""
    from elicitable.models import rows, tokens

    model, read = reader(family), []
    given = tokens.tokenize
    for room in (rows, tokens):
        monkeypatch.setattr(room, "tokenize", lambda m, texts: read.extend(map(len, texts)) or given(m, texts))
    words = ("fine", "film", "warm", "dull", "slow", "flat", "long")
    prompt, labels = "a fine and lovely film " * 60 + "x", [f" {a} {b}" for a in words for b in words]
    found = label_rows(model, [Item(prompt, labels[0])], labels)[0]
    wholes = [[*start_of(model, family), *plain(model, prompt + label)] for label in labels]
    assert [found.content + ids for ids in found.labels] == wholes
    by_words = family not in ("SentencePiece with Prepend", "in Python")  # a mark before each text; no offsets
    assert (sum(read) < 10 * len(prompt)) == by_words


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40)
@given(
    head=WORDS, shown=st.lists(st.tuples(WORDS, ANSWERS), max_size=2), prompts=st.lists(WORDS, min_size=1, max_size=3)
)
def test_a_context_and_the_row_behind_it_are_the_text(
    family: str, head: str, shown: list[tuple[str, str]], prompts: list[str]
) -> None:
    """Whatever a tokenizer joins across the border, what the context holds and what the row holds are the text."""
    model = reader(family)
    examples = tuple(Item(prompt, answer) for prompt, answer in shown)
    items = [Item(f"{prompt}x", " a") for prompt in prompts]
    for separator in ("\n\n", "\n", " ### "):
        layout = Layout(head=f"x{head}", examples=examples, separator=separator)
        before = f"x{head}" + "".join(f"{p}{a}{separator}" for p, a in shown)
        assert context_ids(model, layout) == [*start_of(model, family), *plain(model, before)]
        held = common_context(model, items, layout, context_ids(model, layout))
        for item, row in zip(items, rows_of(model, items, layout, held=held), strict=True):
            text = plain(model, f"{before}{item.prompt}{item.target}")
            assert held + row.content + row.answer == [
                *start_of(model, family), *text, model.tokenizer.eos_token_id
            ]  # fmt: skip
            assert row.content


@pytest.mark.parametrize("family", FAMILIES)
def test_the_start_is_the_tokenizers_own_and_never_stands_twice(family: str) -> None:
    model, names = reader(family), STARTS.get(family, [])
    start = start_of(model, family)
    assert model.start_ids() == start
    written = "".join(names)
    for text in ("a fine film", f"{written}a fine film", f"{''.join(names[1:])}a fine film"):
        row = rows_of(model, [Item(text, " a")])[0]
        ids = row.content + row.answer
        assert ids[: len(start)] == start
        assert not set(ids[len(start) :]) & set(start)
    none = rows_of(model, [Item("a fine film", " a")], Layout(start="none"))[0]
    assert none.content + none.answer[:-1] == plain(model, "a fine film a")


@pytest.mark.parametrize("name", ["prompt", "examples"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_context_begins_as_the_tokenizer_begins(family: str, name: str) -> None:
    model = reader(family)
    given: dict[str, Any] = {"text": "a fine"} if name == "prompt" else {"items": [Item("a", " film"), Item("b", " c")]}
    text = "a fine" if name == "prompt" else "a film\n\nb c\n\n"
    assert el.context(name, model, **given).ids[0].tolist() == [*start_of(model, family), *plain(model, text)]


def test_a_token_across_the_border_belongs_to_the_answer() -> None:
    model = reader("byte-level BPE")
    assert model.tokenizer.tokenize("a fine film") == ["a", "Ġfine", "Ġfilm"]
    row = rows_of(model, [Item("a fi", "ne film")])[0]
    assert model.tokenizer.decode(row.content) == "a"
    assert model.tokenizer.decode(row.answer) == " fine film</s>"


def test_labels_that_are_the_same_tokens_are_named() -> None:
    with pytest.raises(InputError, match=r"the labels ' Good' and ' good' are the same tokens to tiny, WordPiece"):
        label_rows(reader("WordPiece"), [Item("a film", " good")], [" bad", " Good", " good"])


def test_token_ids_are_not_for_a_model_that_reads_texts() -> None:
    with pytest.raises(InputError, match="digit tasks are for the toy models"):
        rows_of(reader("Unigram"), [Item((1, 2), (3,))])
    for run in (el.verdict, el.tune):
        with pytest.raises(InputError, match="digit tasks are for the toy models"):
            run(reader("Unigram"), "ascending")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_text_loses_tokens_on_one_side_and_nothing_else_does(family: str, side: Any) -> None:
    model = reader(family)
    prompt = "Review: " + "a fine film " * 40 + "\nSentiment:"
    item = Item(prompt, " positive", ((8, 8 + 12 * 40),))
    layout = Layout(cut=side)
    whole = rows_of(model, [item], layout)[0]
    row = rows_of(model, [item], layout, limit=60)[0]
    assert len(row) == 60
    assert row.cut == len(whole) - 60
    assert row.answer == whole.answer
    head = plain(model, "Review:")
    at = len(model.start_ids()) + len(head)
    assert row.content[:at] == whole.content[:at]
    assert row.content[-2:] == whole.content[-2:]
    kept = set(range(len(whole.content))) - set(_lost(whole.content, row.content, side))
    assert [whole.content[place] for place in sorted(kept)] == row.content
    labels = label_rows(model, [item], [" positive", " negative"], layout, limit=60)[0]
    assert len(labels) == 60
    with pytest.raises(InputError, match=r"room for .* tokens before an answer here"):
        rows_of(model, [item], layout, limit=len(row.answer) + 4)


def test_what_is_read_of_a_text_hangs_on_no_answer_that_nobody_knows() -> None:
    """A long text was cut by the length of its own right answer, and where rows are new by that of the longest."""
    model, text = reader("byte-level BPE"), "a fine film " * 40
    items = [Item(text, " dull"), Item(text, " dull" * 12)]
    short, long = _rows(model, items, Reading(max_tokens=60))
    assert short.content == long.content
    assert len(long) == 60
    alone = rows_of(model, items[:1], Layout(), limit=60, room=len(long.answer))[0]
    assert alone == short


def _lost(whole: list[int], kept: list[int], side: str) -> range:
    """The places that were left out: right behind the longest common beginning, or before the longest common end."""
    excess = len(whole) - len(kept)
    if side == "right":
        end = len(whole) - common_beginning([whole[::-1], kept[::-1]])
        return range(end - excess, end)
    first = common_beginning([whole, kept])
    return range(first, first + excess)


def test_nothing_before_an_answer_is_refused() -> None:
    with pytest.raises(InputError, match="nothing stands before the answer ' a'"):
        rows_of(reader("byte-level BPE"), [Item("", " a")])


def test_the_tokenizers_are_as_different_as_they_should_be() -> None:
    """The families split one text in different ways; the in-Python one has no offsets."""
    ids = {family: tokenizer(family)("a fine film\n\nПривет")["input_ids"] for family in FAMILIES}
    assert len({tuple(tokenizer(family).convert_ids_to_tokens(own)) for family, own in ids.items()}) >= 7
    assert tokenize(reader("in Python"), ["a"])[0].spans is None
    assert all(tokenize(reader(family), ["a"])[0].spans for family in FAMILIES if family != "in Python")
