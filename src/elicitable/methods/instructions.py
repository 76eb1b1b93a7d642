"""Instructions to choose from: a bank that is filled in from the task, what a model proposes, and edits of the best.

A model proposes by reading worked examples and saying which instruction they follow (Zhou et al., ICLR 2023, "Large
Language Models Are Human-Level Prompt Engineers", arXiv 2211.01910). Small models mostly propose something else; what
their proposals were worth stands beside the others' in the record.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from elicitable.errors import InputError
from elicitable.models.layout import has_template
from elicitable.models.load import load
from elicitable.models.restoring import evaluating
from elicitable.models.templates import render
from elicitable.rng import generator
from elicitable.values import Message

if TYPE_CHECKING:
    import numpy as np

    from elicitable.models.model import Model
    from elicitable.tasks.base import Task
    from elicitable.values import Item

END = "\n\n"
OF_LABELS = (  # {labels}: "a, b or c"; {quoted}: '"a", "b" or "c"'; {lines}: one a line
    "Decide which label fits the text. The labels are: {labels}.",
    "Classify each text as {labels}.",
    "Read the text and answer with one of {labels}.",
    "Label the text as {quoted}.",
    "Choose the right label: {labels}. Answer with the label only.",
    "The possible answers are:\n{lines}",
    "Options:\n{lines}\n\nPick the option that fits best.",
    "Every text below is followed by its label, which is {labels}.",
    "Here is a text. Is it {labels}?",
    "You are an expert annotator. Annotate the text with {labels}.",
    "Answer in one word: {labels}.",
    "What follows is a text with the right one of the labels {labels} written behind it.",
    "Task: text classification\nLabels: {labels}",
    "Think about what the text is really saying, then answer {labels}.",
    "Read carefully. Reply with exactly one of these words and nothing else: {labels}.",
    "The following are texts that experts have sorted into {labels}.",
    "Is this {labels}? Say which.",
    "Answer with {quoted}, whichever is true of the text.",
    "Each of {labels} is the right answer about equally often. Judge only by the text.",
)
OF_ANSWERS = (
    "Answer the question.",
    "Complete the task with the right answer only.",
    "Give the answer and nothing else.",
    "Write the exact answer, as short as it can be.",
    "Read carefully and answer correctly.",
    "You are an expert. Answer precisely.",
    "Below is a task with its correct answer.",
    "The following are questions, each with its right answer.",
    "Continue the text with what comes next.",
    "Follow the instruction in the text. Write the result only.",
    "Do not explain. Write only the answer.",
    "Question and correct answer:",
)
OF_COLUMNS = ("Read the {columns} and give the {answer}.", "Given the {columns}, what is the {answer}?")
ADDITIONS = (
    "Answer with one word.",
    "Be careful.",
    "Do not explain.",
    "Judge by the whole text.",
    "Only the answer counts.",
    "Read it twice.",
)
PROPOSALS, SHOTS, MOST_TOKENS, MOST_CHARACTERS = 8, 5, 48, 400
PROPOSED_PASSES = PROPOSALS * SHOTS + MOST_TOKENS  # a written token costs about as much as a short item that is read
ASKED = (
    "I gave a friend an instruction and {count} inputs. The friend read the instruction and wrote an output for every "
    "one of the inputs. Here are the pairs of input and output:\n\n{pairs}\n\n"
)
IN_TURN, IN_TEXT = "What was the instruction? Write the instruction only.", "The instruction was:"


def of_answers() -> Iterator[str]:
    """Instructions that name no label, for free answers, and where the names of labels have no room."""
    for text in OF_ANSWERS:
        yield text + END


def bank(task: Task) -> Iterator[str]:
    """Instructions for a task, the plainest first: with its labels by name, where it has them, and its columns."""
    labels = task.labels()
    if labels:
        named = [label.strip() for label in labels]
        words = {
            "labels": _or(named),
            "quoted": _or([f'"{name}"' for name in named]),
            "lines": "\n".join(f"- {name}" for name in named),
        }
        for form in OF_LABELS:
            yield form.format(**words) + END
    else:
        yield from of_answers()
    columns = _columns(task)
    if columns:
        for form in OF_COLUMNS:
            yield form.format(**columns) + END


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def _columns(task: Task) -> dict[str, str]:
    """The names of what is read and of what is answered, where the task came from a table that names them."""
    used = getattr(getattr(task, "reading", None), "used", ())
    read = [name for name, role in used if role.startswith("read")]
    answer = [name for name, role in used if role.startswith(("label", "target"))]
    return {"columns": " and the ".join(read), "answer": answer[0]} if read and answer else {}


def proposals(
    model: Model, proposer: str | None, task: Task, seed: int, seconds: float = math.inf
) -> tuple[list[str], int]:
    """Instructions that a model writes after reading worked examples, and how many items were read for them.

    Args:
        model: which proposes where no ``proposer``, a name for :func:`elicitable.load`, is given.
        proposer: another model, a stronger one.
        task: whose training items are shown, :data:`SHOTS` at a time.
        seed: of the items that are drawn.
        seconds: that writing may take; what is not written then is left out.

    What is no sentence, or is far too long, is left out; so small models may propose nothing.
    """
    writer = model if proposer is None else proposing(proposer)
    drawn = [task.sample(SHOTS, generator(seed, "proposals", nth)) for nth in range(PROPOSALS)]
    said = _written(writer, [_question(items, has_template(writer)) for items in drawn], seconds)
    found = dict.fromkeys(text + END for text in map(sentence, said) if text)
    return list(found), PROPOSED_PASSES


@lru_cache(maxsize=1)
def proposing(name: str) -> Model:
    """The model ``name`` that proposes, loaded once.

    Raises:
        InputError: it has no tokenizer, so it can write no text; or as :func:`elicitable.load`.
    """
    model = load(name)
    if model.tokenizer is None:
        raise InputError(f"{name} has no tokenizer, so it cannot propose a prompt; give a language model.")
    return model


def _question(items: Sequence[Item], in_turn: bool) -> str:
    pairs = "\n\n".join(
        f"Input: {plain(item)[:MOST_CHARACTERS]}\nOutput: {str(item.target).strip()[:MOST_CHARACTERS]}"
        for item in items
    )
    return ASKED.format(count=len(items), pairs=pairs) + (IN_TURN if in_turn else IN_TEXT)


def plain(item: Item) -> str:
    """An item's prompt as one text; the turns of a conversation stand below one another."""
    if isinstance(item.prompt, str):
        return item.prompt
    return "\n".join(str(turn.shown if isinstance(turn, Message) else turn) for turn in item.prompt)


@torch.no_grad()
def _written(model: Model, questions: Sequence[str], seconds: float = math.inf) -> list[str]:
    """What ``model`` writes by greedy decoding when it is asked; nothing where its positions do not reach."""
    is_chat = has_template(model)
    texts = [render(model.tokenizer, [Message("user", one)]) if is_chat else one for one in questions]
    start = [] if is_chat else model.start_ids()
    rows = [[*start, *model.ids(text).flatten().tolist()] for text in texts]
    width, room = max(map(len, rows)), model.anatomy.trained_positions
    if room is not None and width + MOST_TOKENS > room:
        return []
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    eos: Any = getattr(model.tokenizer, "eos_token_id", None)
    with evaluating(model.hf):
        out = model.hf.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=MOST_TOKENS,
            max_time=seconds if math.isfinite(seconds) else None,
            do_sample=False,
            pad_token_id=eos or 0,
        )
    return [str(model.tokenizer.decode(row[width:], skip_special_tokens=True)) for row in out]


def sentence(text: str) -> str:
    """The instruction in what a model wrote; "" where there is none.

    >>> sentence(' "Say whether the review is good."\\n\\nInput: more')
    'Say whether the review is good.'
    >>> sentence("positive")
    ''
    """
    first = text.strip().split("\n\n")[0].strip().strip("\"'“”").strip()
    first = re.sub(r"^(The instruction (was|is)( to)?|Instruction)\s*:?\s*", "", first)
    is_one = 3 <= len(first.split()) <= 60 and first.isprintable()
    return first[:1].upper() + first[1:] if is_one else ""


def edits(text: str, rng: np.random.Generator, count: int) -> list[str]:
    """At most ``count`` different edits of an instruction: words left out, parts exchanged, a short sentence added."""
    body = text.rstrip()
    end, found = text[len(body) :] or END, dict[str, None]()
    for _ in range(4 * count):
        edited = (_dropped, _exchanged, _added)[int(rng.integers(3))](body, rng).strip()
        if edited and edited != body:
            found[edited + end] = None
        if len(found) == count:
            break
    return list(found)


def _dropped(text: str, rng: np.random.Generator) -> str:
    words = text.split(" ")
    at, length = int(rng.integers(len(words))), int(rng.integers(1, 4))
    return " ".join(words[:at] + words[at + length :])


def _exchanged(text: str, rng: np.random.Generator) -> str:
    words = text.split(" ")
    first, middle, last = sorted(int(x) for x in rng.integers(0, len(words) + 1, 3))
    return " ".join(words[:first] + words[middle:last] + words[first:middle] + words[last:])


def _added(text: str, rng: np.random.Generator) -> str:
    sentence_ = ADDITIONS[int(rng.integers(len(ADDITIONS)))]
    return f"{sentence_} {text}" if rng.integers(2) else f"{text} {sentence_}"
