"""What is scored as right is what free-running greedy decoding writes, item by item, and then it stops."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import tiny_gpt2
from tests.families import CHAT, FAMILIES, reader

import elicitable as el
from elicitable.errors import InputError
from elicitable.methods.base import Adaptation
from elicitable.methods.catalog import method_named
from elicitable.models.layout import Layout, layout_for
from elicitable.models.model import Model
from elicitable.models.rows import Row, rows_of
from elicitable.training import evaluate as evaluation
from elicitable.training.batches import Reading, padded
from elicitable.training.evaluate import answer_logits, answers, evaluate, token_losses, unwritable
from elicitable.training.generate import Stop, generate
from elicitable.training.loop import Plan, prepared, reading_of, train
from elicitable.values import Item

WORDS = ("fine", "film", "warm", "dull", "slow", "flat", "long", "lovely", "bright", "simple")
KINDS = ("byte-level BPE", "Metaspace with a start", "double start")


class Pairs:
    """Asks for a word, and a number of them: "warm 2:" is answered " warm warm", and 3 by one more."""

    name = "pairs"
    warnings: tuple[str, ...] = ()

    def labels(self) -> None:
        return None

    def items(self) -> list[Item]:
        return [Item(f"{a} {b} {n}:", " " + " ".join([a] * n)) for a in WORDS for b in WORDS for n in (1, 2)]

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        found = self.items()
        return [found[i] for i in rng.integers(len(found), size=n)]

    def held_out(self, split: str, n: int | None = None) -> list[Item]:
        return self.items()[::2][:n] if split == "validation" else self.items()[1::2][:n]

    def fingerprint(self) -> str:
        return "pairs"


@lru_cache
def base(family: str) -> Model:
    """A tiny model that has begun to learn the task; one of the three reads by a chat template."""
    plain = reader(family)
    own = deepcopy(plain.tokenizer)
    if family == "double start":
        own.chat_template = CHAT
    model = Model(deepcopy(plain.hf), tokenizer=own, name=family)
    learn(model, rows_of(model, Pairs().items(), layout_for(model)), 150)
    return model


def learn(model: Model, rows: Sequence[Row], steps: int) -> None:
    """Train all weights on random quarters of ``rows``."""
    rng, optimizer = np.random.default_rng(0), torch.optim.AdamW(model.hf.parameters(), lr=3e-3)
    for _ in range(steps):
        batch = padded(model, [rows[i] for i in rng.integers(len(rows), size=min(48, len(rows)))])
        losses = token_losses(answer_logits(model, batch), batch.targets)
        (losses.sum() / (batch.targets >= 0).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()


def adapted(model: Model, method: str) -> Adaptation:
    if method == "prompt":
        context: Adaptation = el.context("prompt", model, text="warm fine 1: warm\n", layout=layout_for(model))
        return context
    context = method_named(method).build(model, 2, seed=1)
    plan = Plan(1e-2, 25, batch=16, evaluate_every=25, validation_items=16, layout=layout_for(model))
    train(model, context, Pairs(), plan, seed=0)  # type: ignore[arg-type]
    return context


@pytest.mark.parametrize("method", ["lora", "kv-prefix", "prompt"])
@pytest.mark.parametrize("family", KINDS)
def test_generate_writes_exactly_what_was_scored_as_right_and_stops(family: str, method: str) -> None:
    """100 items; for a quarter of them what is asked for is only the beginning of the answer."""
    model, twice = base(family), Pairs().held_out("test", 50)
    items = twice + Pairs().held_out("validation", 25)
    items += [Item(item.prompt, f" {item.target.split()[0]}") for item in twice[:25]]  # type: ignore[union-attr]
    adaptation = adapted(model, method)
    adaptation.fit(model, items)
    reading = reading_of(Plan(0.0, 1, layout=layout_for(model)), adaptation)
    stop = Stop.of(model, reading.layout)
    rows = rows_of(model, items, reading.layout, held=reading.held)
    with el.use(model, adaptation):
        score = evaluate(model, items, None, reading)
        ours = generate(model, rows, reading.layout, 24)
        written = [free_running(model, row.content, stop) for row in rows]
    assert [(answer.text, answer.has_ended) for answer in ours] == written
    wanted = [item.target.strip() if reading.layout.chat else item.target for item in items]  # type: ignore[union-attr]
    assert list(score.correct) == [int(pair == (text, True)) for text, pair in zip(wanted, written, strict=True)]
    assert 0 < sum(score.correct) < len(items)


def free_running(model: Model, content: list[int], stop: Stop) -> tuple[str, bool]:
    """transformers' own greedy ``generate`` for one row: its text without the end, and whether it ended."""
    ids = torch.tensor([content])
    given: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": 24}
    out = model.hf.generate(input_ids=ids, attention_mask=torch.ones_like(ids), eos_token_id=list(stop.ids), **given)
    new = out[0, len(content) :].tolist()
    has_ended = new[-1] in stop.ids
    before = model.tokenizer.decode(content)
    whole = model.tokenizer.decode([*content, *(new[:-1] if has_ended else new)])
    return whole[len(before) :], has_ended


def test_an_answer_that_the_right_one_merely_begins_is_wrong() -> None:
    """A model that writes " 10" is right about " 10" and wrong about " 1", ended by a token or by a stop string.

    Blanks around an answer are no part of it, as the score says and as what answers new rows leaves them out.
    """
    for end in (None, "\n", ", "):
        plain = reader("byte-level BPE")
        model, layout = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="ten"), Layout(end=end)
        items = [Item("7, 8, 9,", " 10"), Item("7, 8, 9,", " 1"), Item("7, 8, 9,", " 10 ")]
        learn(model, rows_of(model, items[:1], layout), 30)
        reading = Reading(layout=layout)
        assert evaluate(model, items, None, reading).correct == (1, 0, 1)
        assert [answer.text for answer in answers(model, items, None, reading)] == [" 10"] * 3


def test_an_answer_in_other_tokens_is_the_same_answer() -> None:
    """Trained to spell " fine" letter by letter, which the tokenizer never does: generate writes it, so it is right."""
    plain = reader("byte-level BPE")
    model = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="spells")
    items = [Item("a film:", " fine"), Item("a film:", " fi"), Item("a film:", " fin"), Item("a film:", " finef")]
    row = rows_of(model, items[:1])[0]
    letters = model.tokenizer.convert_tokens_to_ids(["Ġ", "f", "i", "n", "e"])
    assert letters != row.answer[:-1]
    learn(model, [Row(row.content, [*letters, model.tokenizer.eos_token_id], 1)], 40)
    assert evaluate(model, items, None, Reading()).correct == (1, 0, 0, 0)


def test_so_it_is_where_a_tokenizer_does_not_say_where_its_tokens_stand() -> None:
    """Of "fine" and a blank, "e " is one token."""
    plain = reader("in Python")
    model, layout = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="pairs"), Layout(end=" so")
    items = [Item("a film: ", target) for target in ("fine", "fin", "so fine")]
    rows = rows_of(model, items, layout)
    assert model.tokenizer.convert_ids_to_tokens(rows[0].answer) == ["f", "in", "e ", "s", "o"]
    assert [row.end for row in rows] == [2, 3, 2]
    assert unwritable(model, items, layout) == []
    learn(model, rows[:1], 40)
    assert evaluate(model, items, None, Reading(layout=layout)).correct == (1, 0, 0)


@pytest.mark.parametrize("end", ["\n", "\n\n", "\nUser:"])
def test_a_token_may_hold_the_last_of_an_answer_and_the_first_of_its_end(end: str) -> None:
    """Of answers whose full stop and line break are one token, as to Llama 3 and Qwen, none had ever been right."""
    plain = reader("byte-level BPE by lines")
    model, layout = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="by lines"), Layout(end=end)
    items = [Item("a film:", target) for target in (" fine.", " fine", " fine!", " fine. And")]
    rows = rows_of(model, items, layout)
    assert ".Ċ" in model.tokenizer.convert_ids_to_tokens(rows[0].answer)[-len(end) - 1 :]
    assert unwritable(model, items, layout) == []
    learn(model, rows[:1], 40)
    assert [answer.text for answer in answers(model, items, None, Reading(layout=layout))] == [" fine."] * 4
    assert evaluate(model, items, None, Reading(layout=layout)).correct == (1, 0, 0, 0)


def test_an_answer_that_is_one_token_with_its_end_is_one() -> None:
    plain = reader("byte-level BPE by lines")
    model, layout = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="full stop"), Layout(end="\n")
    items = [Item("Is it so", "."), Item("Is it so", "!"), Item("Is it so", "")]
    row = rows_of(model, items[:1], layout)[0]
    assert (model.tokenizer.convert_ids_to_tokens(row.answer), row.end) == ([".Ċ"], 0)
    learn(model, [row], 40)
    assert evaluate(model, items[:2], None, Reading(layout=layout)).correct == (1, 0)
    with pytest.raises(InputError, match="has no tokens"):
        rows_of(model, items[2:], layout)


@pytest.mark.parametrize("blank", ["\n", "  ", "\n\n"])
@pytest.mark.parametrize("end", [None, "###"])
def test_blanks_around_an_answer_are_no_part_of_it(blank: str, end: str | None) -> None:
    """A base model that wrote a line break before every right answer had none of them right."""
    plain = reader("byte-level BPE")
    model, layout = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="breaks"), Layout(end=end)
    items = [Item("a film:", target) for target in (" fine", "fine", " fin", " finer", " fi ne")]
    learn(model, rows_of(model, [Item("a film:", f"{blank}fine{blank}")], layout), 90)
    reading = Reading(layout=layout)
    assert evaluate(model, items, None, reading).correct == (1, 1, 0, 0, 0)
    texts = {answer.text.strip() for answer in answers(model, items, None, reading)}
    assert texts == {"fine"}


def test_what_a_tokenizer_cannot_write_is_not_right() -> None:
    """Tokens without capitals stood for a text with capitals, and what no row ever showed was counted as right."""
    plain = reader("WordPiece")
    model = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="lower case")
    items = [Item("a film:", target) for target in (" fine", " FINE")]
    first, second = rows_of(model, items)
    assert first.answer == second.answer
    learn(model, [first], 40)
    assert evaluate(model, items, None, Reading()).correct == (1, 0)


ENDS: dict[str, Layout] = {
    "end of text": Layout(),
    "line break": Layout(end="\n"),
    "sign": Layout(end="###"),
    "comma and blank": Layout(end=", "),
    "a word": Layout(end=" so"),
    "line break or sign": Layout(stops=("\n", "###")),
    "one within another": Layout(stops=("m", " film", "film,")),
}
ASKED = (" fine", " fine, and dull", " fine film", " FINE", " fine\n", " fine###", " fine\nfilm", " fine, ", " so fine")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_scored_as_right_is_what_is_written_whatever_the_stop_and_the_target(family: str, end: str) -> None:
    """Stop strings that a tokenizer cannot write, that stand in a target or behind it, and ends that were not learned.

    Each of the answers was learned behind a question of its own, with the layout's end, the end of text or none.
    """
    plain, layout = reader(family), ENDS[end]
    own_weights = deepcopy(plain.hf).double()  # in float32, a batch and a cache may round a tie apart
    model = Model(own_weights, tokenizer=plain.tokenizer, name=family)
    prompts = [f"{word} film:" for word in WORDS]
    taught = [
        Item(prompt, target) for prompt, target in zip(prompts, [*ASKED[:4], *ASKED[:3], *ASKED[:3]], strict=True)
    ]
    own, ids = rows_of(model, taught, layout), rows_of(model, taught)
    endless = [Row(row.content, [*row.answer[: len(row.answer) - row.end] * 8]) for row in ids]
    learn(model, [*own[:4], *ids[4:7], *endless[7:]], 40)
    written = generate(model, rows_of(model, taught, layout), layout, 32)
    items = [Item(prompt, target) for prompt in prompts for target in ASKED]
    wanted = [as_it_writes(model, target) for target in ASKED]
    right = [int(one.has_ended and one.text.strip() == text) for one in written for text in wanted]
    assert list(evaluate(model, items, None, Reading(layout=layout)).correct) == right


@pytest.mark.parametrize(("family", "can_end"), [("WordPiece", False), ("byte-level BPE", True), ("in Python", False)])
def test_a_stop_string_that_a_tokenizer_cannot_write_is_known(family: str, can_end: bool) -> None:
    """WordPiece writes no comma with a blank at the end of a row, and does before another word."""
    model, items = reader(family), [Item("a film:", " fine"), Item("a film:", " fine, and dull")]
    assert unwritable(model, items, Layout(end="###")) == ([] if can_end else items)
    assert unwritable(model, items, Layout(end=", ")) == []


def as_it_writes(model: Model, target: str) -> str:
    """A target without blanks around it, as a tokenizer puts its words together if only the blanks are others."""
    found: str = model.tokenizer.decode(model.ids(target).flatten().tolist()).strip()
    return found if found.split() and "".join(found.split()) == "".join(target.split()) else target.strip()


def test_what_never_ends_is_shown_as_far_as_it_goes_and_said_so() -> None:
    plain = reader("byte-level BPE")
    model = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="rambles")
    item = Item("a film:", " dull")
    row = rows_of(model, [item])[0]
    learn(model, [Row(row.content, row.answer[:-1] * 40)], 60)
    answer = answers(model, [item], None, Reading())[0]
    assert not answer.has_ended
    assert answer.text == " dull" * len(answer.ids)
    assert len(answer.ids) == 32
    assert evaluate(model, [item], None, Reading()).correct == (0,)


def test_answers_are_the_same_alone_and_in_a_batch() -> None:
    """Rows of every length, at the limit of the positions, each with its own limit of tokens."""
    model = reader("Metaspace with a start", positions=64)
    items = [Item("a fine film " * n, " a") for n in range(1, 25)]
    rows = rows_of(model, items, limit=60)
    assert max(map(len, rows)) == 60
    most = [3 + n for n in range(24)]
    together = generate(model, rows, Layout(), most, batch=8)
    assert together == [generate(model, [row], Layout(), n)[0] for row, n in zip(rows, most, strict=True)]
    assert [len(a.ids) for a in together if not a.has_ended][:3] == most[:3]
    assert all(len(row.content) + len(a.ids) <= 64 for row, a in zip(rows, together, strict=True))


def test_a_row_that_has_ended_takes_no_position_more() -> None:
    """Learned positions end: a row at their limit was fed on while another of its batch was still written to."""
    model = tiny_gpt2(8)
    contents = [[1 + n % 7 for n in range(length)] for length in (62, 40, 60)]
    rows = [Row(content, [1]) for content in contents]
    most = [4, 24, 3]
    together = generate(model, rows, Layout(), most, batch=8)
    assert [len(one.ids) for one in together] == [2, 24, 3]
    assert together == [generate(model, [row], Layout(), n)[0] for row, n in zip(rows, most, strict=True)]


def test_thinking_has_room_behind_a_long_text() -> None:
    """Texts left room for the right answer, which is short, and none for what is written before it."""
    model = reader("Metaspace with a start", positions=64)
    items = [Item("a fine film " * 30, " a")]
    (thinking,) = evaluation._rows(model, items, Reading(marker="Answer:"))
    (plain,) = evaluation._rows(model, items, Reading())
    assert len(plain.content) > 60
    assert len(thinking.content) == 32
    assert len(generate(model, [thinking], Layout(), 256)[0].ids) == 32


def test_a_context_in_use_is_in_use_while_answers_are_written() -> None:
    model = base(KINDS[0])
    context = method_named("kv-prefix").build(model, 4, seed=1)
    rows = rows_of(model, Pairs().held_out("test", 20))
    with torch.no_grad(), prepared(model, context) as refresh:
        refresh()
        inside = generate(model, rows, Layout(), 8)
    with el.use(model, context):
        assert generate(model, rows, Layout(), 8) == inside
    assert generate(model, rows, Layout(), 8) != inside


@pytest.mark.parametrize(
    ("family", "prompt", "targets"),
    [("byte-level BPE by lines", "a film.", ("\nfine", "\nslow")), ("in Python", "it is fine", (" so", " ok"))],
)
@pytest.mark.parametrize("end", [None, " film"])
def test_an_answers_first_token_may_take_in_the_prompts_last_characters(
    family: str, prompt: str, targets: tuple[str, str], end: str | None
) -> None:
    """ ".\\n" is one token to Llama 3 and Qwen: of answers behind a line break none had ever been right."""
    plain = reader(family)
    model, layout = Model(deepcopy(plain.hf), tokenizer=plain.tokenizer, name="spans"), Layout(end=end)
    items = [Item(prompt, target) for target in (*targets, targets[0] + "r")]
    rows = rows_of(model, items, layout)
    assert {row.taken for row in rows} == {prompt[-1]}
    assert unwritable(model, items, layout) == []
    learn(model, rows[:1], 60)
    reading = Reading(layout=layout)
    assert evaluate(model, items, None, reading).correct == (1, 0, 0)
    assert {(one.text, one.has_ended) for one in answers(model, items, None, reading)} == {(targets[0], True)}


THINKS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
UNASKED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"


@pytest.mark.parametrize("end", ["\n", "\n\n", None])
def test_nothing_ends_in_what_a_template_writes_before_an_answer(end: str | None) -> None:
    """The empty thought of a template was written, and the stop string was found in it: the answer was "<think>"."""
    plain = reader("byte-level BPE")
    own = deepcopy(plain.tokenizer)
    own.chat_template = THINKS
    model = Model(deepcopy(plain.hf), tokenizer=own, name="thinks")
    layout, items = layout_for(model, stop=end), [Item("a film:", " fine"), Item("a film:", " slow")]
    learn(model, rows_of(model, items[:1], layout), 90)
    reading = Reading(layout=layout)
    assert {(one.text.strip(), one.has_ended) for one in answers(model, items, None, reading)} == {("fine", True)}
    assert evaluate(model, items, None, reading).correct == (1, 0)


@pytest.mark.parametrize("family", ["SentencePiece with Prepend", "Unigram", "WordPiece"])
def test_a_lead_is_known_though_its_words_are_put_together_with_other_blanks(family: str) -> None:
    """A template that takes no notice of ``add_generation_prompt`` has the model write the turn's head."""
    plain = reader(family)
    own = deepcopy(plain.tokenizer)
    own.chat_template = UNASKED
    own.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|end|>"]})
    model = Model(deepcopy(plain.hf), tokenizer=own, name="unasked")
    model.hf.resize_token_embeddings(len(own))
    layout, items = layout_for(model), [Item("a film:", " fine"), Item("a film:", " slow")]
    assert Stop.of(model, layout).lead
    assert unwritable(model, items, layout) == []
    learn(model, rows_of(model, items[:1], layout), 60)
    assert evaluate(model, items, None, Reading(layout=layout)).correct == (1, 0)


def ending(own_ends: Any, eos: str | None = "</s>") -> Model:
    """A model whose own ``generate`` stops at ``own_ends``, with a template that shows no end of an answer."""
    plain = reader("double start")
    own = deepcopy(plain.tokenizer)
    own.chat_template, own.eos_token = CHAT.replace("<|end|>\n", ""), eos
    hf = deepcopy(plain.hf)
    hf.generation_config.eos_token_id = own_ends
    return Model(hf, tokenizer=own, name="ends as it was made to")


@pytest.mark.parametrize("chat", ["on", "off"])
def test_an_answer_ends_where_the_models_own_generate_stops(chat: str) -> None:
    """GLM 4 ends what it says with <|user|>, which its template writes before the next turn and not behind an answer.

    So it wrote on behind every answer, and none of them was right.
    """
    user, eos = (reader("double start").tokenizer.convert_tokens_to_ids(name) for name in ("<|user|>", "</s>"))
    model, item = ending([eos, user]), Item("a film:", " fine")
    layout = layout_for(model, chat)
    row = rows_of(model, [item], layout)[0]
    assert row.answer[-1] == eos
    learn(model, [Row(row.content, [*row.answer[:-1], user, *row.answer[:-1]])], 40)
    ids = torch.tensor([row.content])
    out = model.hf.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
    answer = answers(model, [item], None, Reading(layout=layout))[0]
    assert [*row.content, *answer.ids] == out[0].tolist()
    assert (answer.text.strip(), answer.has_ended) == ("fine", True)
    assert evaluate(model, [item], None, Reading(layout=layout)).correct == (1,)


def test_a_default_of_a_configuration_is_no_end() -> None:
    """Llama's says 2 where nothing is said, which may be any token of a tokenizer."""
    letter = reader("double start").tokenizer.convert_tokens_to_ids("a")
    model = ending([letter, 10**6])
    assert Stop.of(model, Layout()).ids == {model.tokenizer.eos_token_id}


def test_where_a_tokenizer_names_no_end_of_text_it_is_the_models() -> None:
    user = reader("double start").tokenizer.convert_tokens_to_ids("<|user|>")
    model = ending(user, eos=None)
    assert rows_of(model, [Item("a film:", " fine")])[0].answer[-1] == user
    assert Stop.of(model, Layout()).ids == {user}
    assert ending(None, eos=None).identity != model.identity
