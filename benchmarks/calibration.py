"""How much of an answer is calibration: decision rules × ways of asking, SmolLM2, movie-reviews, the whole test split.

    python benchmarks/calibration.py FOLDER [--validation 500] [--test 2016] [--device cuda] [--margin 0.02] [--table]

Every way of asking (an arm) reads validation and test once; what the labels cost is kept in FOLDER, 128 items at a
time, and a second run goes on where the first stopped. The rules are then chosen and fitted on validation and applied
to test. ``--table`` prints the table of what is there.

Below the table stands how often calibration changes a verdict: for every pair of arms whether the first is enough
beside the second (at most ``--margin`` behind, by the 95 % interval), by the plain sum and by each arm's chosen rule.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import elicitable as el
from elicitable.diagnosis.intervals import gap
from elicitable.models.capture import capture_tokens
from elicitable.models.model import Model
from elicitable.rng import generator
from elicitable.tasks.movie_reviews import movie_reviews
from elicitable.training.decision_rules import Lengths, candidates, choose
from elicitable.training.label_scores import label_costs
from elicitable.training.label_trie import LabelIds, part
from elicitable.values import Item

CHUNK = 128
SPOKEN = "negative or positive"
INSTRUCTIONS = (
    f"Decide which label fits the text. The labels are: {SPOKEN}.\n\n",
    f"Classify each text as {SPOKEN}.\n\n",
    f"Read the text and answer with one of {SPOKEN}.\n\n",
)
Ask = Callable[[Model, str], str]


def chat(model: Model, text: str) -> str:
    turn = {"role": "user", "content": INSTRUCTIONS[0] + text.removesuffix("\nSentiment:")}
    asked: str = model.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    return asked


@functools.cache
def shown() -> str:
    """Two short reviews of each label, from the training split."""
    items = sorted(movie_reviews().sample(200, generator(0, "worked examples")), key=lambda item: len(str(item.prompt)))
    chosen = [one for label in (" negative", " positive") for one in [i for i in items if i.target == label][:2]]
    return "".join(f"{item.prompt}{item.target}\n\n" for item in (chosen[0], chosen[2], chosen[1], chosen[3]))


ARMS: dict[str, tuple[Ask, tuple[str, str]]] = {
    "zero-shot": (lambda model, text: text, (" negative", " positive")),
    "instruction 1": (lambda model, text: INSTRUCTIONS[0] + text, (" negative", " positive")),
    "chat, capital labels": (chat, ("Negative", "Positive")),
    "zero-shot after the start token": (
        lambda model, text: model.tokenizer.bos_token + text,
        (" negative", " positive"),
    ),
    "worked examples": (lambda model, text: shown() + text, (" negative", " positive")),
    "instruction 2": (lambda model, text: INSTRUCTIONS[1] + text, (" negative", " positive")),
    "instruction 3": (lambda model, text: INSTRUCTIONS[2] + text, (" negative", " positive")),
}


def rows_of(model: Model, ask: Ask, labels: tuple[str, ...], items: list[Item]) -> list[tuple[tuple[int, ...], ...]]:
    """Each item's content ids, then each label's ids behind it, as the tokenizer cuts the whole text."""
    found = []
    for item in items:
        text = ask(model, str(item.prompt))
        whole = model.tokenizer(
            [text + label for label in labels], add_special_tokens=False, return_offsets_mapping=True
        )
        ends = [[end for _, end in offsets] for offsets in whole["offset_mapping"]]
        borders = [next(i for i, end in enumerate(row) if end > len(text)) for row in ends]
        content, behind = part(whole["input_ids"], borders)
        assert all(label.given == 0 for label in behind)
        found.append((content, *(label.ids for label in behind)))
    return found


def measure(model: Model, name: str, items: list[Item], folder: Path) -> None:
    ask, labels = ARMS[name]
    rows = rows_of(model, ask, labels, items)
    columns = zip(*(row[0][:-1] for row in rows), strict=False)  # at least one token of every item is left
    shared = [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns)]
    context = [capture_tokens(model, torch.tensor([shared], device=model.device))] if shared else []
    for first in range(0, len(items), CHUNK):
        path = folder / f"{name.replace(' ', '-').replace(',', '')}-{len(items)}-{first:05d}.npy"
        if path.exists():
            continue
        some = rows[first : first + CHUNK]
        with el.use(model, context):
            contents = [row[0][len(shared) :] for row in some]
            costs = label_costs(model, contents, [[LabelIds(ids) for ids in row[1:]] for row in some])
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, costs.numpy())
        unfinished.rename(path)
        print(path.name, flush=True)


def kept(folder: Path, name: str, count: int) -> np.ndarray | None:
    stem = name.replace(" ", "-").replace(",", "")
    parts = [folder / f"{stem}-{count}-{first:05d}.npy" for first in range(0, count, CHUNK)]
    return np.concatenate([np.load(path) for path in parts]) if all(path.exists() for path in parts) else None


def table(folder: Path, validation: list[Item], test: list[Item], margin: float) -> None:
    names = (" negative", " positive")
    truths = [np.array([names.index(str(item.target)) for item in split]) for split in (validation, test)]
    outcomes: dict[str, list[tuple[int, ...]]] = {}  # of every arm, by the plain sum and by its chosen rule
    for name in ARMS:
        nats = kept(folder, name, len(validation) + len(test))
        if nats is None:
            print(f"| {name} | not measured |")
            continue
        here, there = nats[: len(validation)], nats[len(validation) :]
        lengths = Lengths.of(ARMS[name][1], (1, 1))
        chosen = choose(here, truths[0], lengths).rule
        rules = candidates(here, truths[0], lengths)
        cells = [f"{rule.name} {np.mean(rule.decide(there) == truths[1]):.3f}" for rule in rules]
        right = [tuple((rule.decide(there) == truths[1]).astype(int).tolist()) for rule in (rules[0], chosen)]
        outcomes[name] = right
        print(f"| {name} | {' | '.join(cells)} | chosen: {chosen.name} {np.mean(right[1]):.3f} |")
    verdicts(outcomes, margin)


def verdicts(outcomes: dict[str, list[tuple[int, ...]]], margin: float) -> None:
    """Print for how many pairs of arms the rule changes whether the first is enough, worse, or open."""
    changed, raised, pairs = 0, 0, list(itertools.permutations(outcomes, 2))
    for one, other in pairs:
        plain, ruled = (standing(outcomes[other][nth], outcomes[one][nth], margin) for nth in (0, 1))
        changed += plain != ruled
        raised += plain == "worse" != ruled
    print(
        f"{len(pairs)} pairs of arms: {changed} stand otherwise by their rules than by the sum, {raised} are not worse"
    )


def standing(best: tuple[int, ...], arm: tuple[int, ...], margin: float) -> str:
    _, low, high = gap((best,), (arm,), 0)
    return "enough" if high <= margin else "worse" if low > margin else "open"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--validation", type=int, default=500)
    parser.add_argument("--test", type=int, default=2016)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--margin", type=float, default=0.02)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    task = movie_reviews()
    validation, test = task.held_out("validation", asked.validation), task.held_out("test", asked.test)
    if not asked.table:
        asked.folder.mkdir(parents=True, exist_ok=True)
        model = el.load(asked.model, device=asked.device, dtype="float32")
        say_where(model.device)
        for name in ARMS:
            measure(model, name, [*validation, *test], asked.folder)
    table(asked.folder, validation, test, asked.margin)


if __name__ == "__main__":
    main()
