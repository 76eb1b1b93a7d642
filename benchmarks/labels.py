"""What 77 labels of several tokens cost behind a text: passes, peak memory, and the largest difference.

    python benchmarks/labels.py [--model smollm2] [--items 64] [--labels 77] [--check 1] [--device cpu]

A pass is a plain forward of the model over the same contents, in the same groups, by transformers' own attention and
with all its logits; seconds are processor time. "all" prices every label. The others decide by a rule, and price what
that takes: the sum, a mean per token, and the prior-corrected sum. Their decisions are compared with those on all
costs. Every eighth label of the first items is compared with the plain computation (a row for one item and label), and
both with float64: two float32 computations cannot agree better than that. The contents are bank customers' questions of
about 16 and about 65 tokens, such questions behind worked examples (about 360), and film reviews. More than 77 labels
are made by putting numbers behind the same ones.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence

from kept import say_where

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

import elicitable as el
from elicitable.models.model import Model
from elicitable.tasks.movie_reviews import movie_reviews
from elicitable.training import label_scores
from elicitable.training.decision_rules import DecisionRule, Lengths, by_length, prior_corrected
from elicitable.training.label_scores import label_costs
from elicitable.training.label_search import Wanted
from elicitable.training.label_trie import LabelIds, Trie

TOPICS = {
    "card": "arrival, delivery estimate, linking, not working, swallowed, payment fee charged, payment not recognised, "
    "payment wrong exchange rate, acceptance, about to expire, lost or stolen, compromised, virtual not working",
    "top up": "by bank transfer charge, by card charge, by cash or cheque, failed, limits, reverted, pending, auto",
    "transfer": "fee charged, into account, not received by recipient, timing, declined, failed, cancel, pending",
    "cash withdrawal": "charge, not recognised, declined, pending, wrong amount received, wrong exchange rate",
    "verify": "my identity, source of funds, top up, unable to, why",
    "PIN": "blocked, change, forgotten, not received",
    "account": "terminate, balance not updated, age limit, country support, supported currencies, personal details",
    "exchange": "rate, charge, via app, unsupported currency",
    "refund": "not showing up, request, pending, wrong amount",
    "direct debit": "payment not recognised, cancel, declined",
    "getting": "spare card, virtual card, physical card, disposable virtual card, disposable card limits",
    "order": "physical card, status, international delivery",
    "payment": "balance after reverted, pending, declined, twice charged",
    "phone": "lost or stolen, number changed",
    "passcode": "forgotten, reset",
}
QUESTIONS = (
    "I am still waiting for my card, is it lost",
    "Why was I charged a fee when I paid abroad",
    "My transfer has not arrived yet, what should I do",
    "The machine gave me less money than I asked for",
    "How do I change the number that I type at the till",
    "The rate that you used for my euros looks wrong to me",
    "Can my daughter, who is fifteen, open an account with you",
    "I topped up this morning and the money is not there",
)


def labels_of(count: int) -> list[str]:
    base = [f" {topic} {rest.strip()}" for topic, more in TOPICS.items() for rest in more.split(",")]
    assert len(base) == 77, len(base)
    return [base[k % 77] + (f" {k // 77}" if k >= 77 else "") for k in range(count)]


def texts_of(items: int, sentences: int, examples: int) -> list[str]:
    shots = "".join(f"{QUESTIONS[k % 8]}?\nIntent:{labels_of(77)[7 * k % 77]}\n\n" for k in range(examples))
    return [
        shots + ". ".join(QUESTIONS[(item * 3 + k) % 8] for k in range(sentences)) + "?\nIntent:"
        for item in range(items)
    ]


def reviews(items: int) -> list[str]:
    return [str(item.prompt) for item in movie_reviews().held_out("test", items)]


@torch.no_grad()
def one_pass(model: Model, contents: Sequence[Sequence[int]]) -> None:
    """A plain forward over the contents, padded on the left, in groups of similar length."""
    for group in label_scores._together(contents, label_scores.CONTENT_TOKENS):
        forward(model, [list(contents[row]) for row in group])


def forward(model: Model, rows: Sequence[Sequence[int]]) -> Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits: Tensor = model.hf(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return logits


@torch.no_grad()
def plain_costs(model: Model, contents: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> Tensor:
    """One item and one label at a time."""
    costs = torch.zeros(len(contents), len(labels), dtype=torch.float64)
    for item, content in enumerate(contents):
        for k, label in enumerate(labels):
            logs = torch.log_softmax(forward(model, [[*content, *label.ids[:-1]]])[0], dim=-1)
            picked = logs[-len(label.ids) :].cpu().gather(1, torch.tensor(label.ids)[:, None])
            costs[item, k] = -picked.double().sum()
    return costs


def seconds(work: Callable[[], object], device: str, repeats: int) -> float:
    clock, taken = (time.process_time if device == "cpu" else time.perf_counter), []
    for _ in range(repeats):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return statistics.median(taken)


def peak_mib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def distance(one: Tensor, other: Tensor) -> float:
    return float(f"{float((one - other).abs().max()):.1e}")


def rules(names: Sequence[str], labels: Sequence[LabelIds], costs: Tensor) -> dict[str, DecisionRule]:
    lengths = Lengths.of(names, [len(label.ids) for label in labels])
    found = (by_length("sum", lengths), by_length("per token", lengths), prior_corrected(costs))
    return {rule.name: rule for rule in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--labels", type=int, default=77)
    parser.add_argument("--check", type=int, default=1, help="items whose numbers are compared")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    model = el.load(asked.model, device=asked.device, dtype="float32")
    names = labels_of(asked.labels)
    labels = [LabelIds(tuple(ids)) for ids in model.tokenizer(names)["input_ids"]]
    facts = {"model": model.name, "labels": len(labels), "inner_nodes": len(Trie(labels))}
    say_where(model.device)
    print(json.dumps(facts | {"loaded_mib": round(peak_mib())}), flush=True)
    kinds = [
        texts_of(asked.items, 1, 0),
        texts_of(asked.items, 5, 0),
        texts_of(asked.items, 1, 16),
        reviews(asked.items),
    ]
    for texts in kinds:
        contents = model.tokenizer(texts)["input_ids"]
        one_pass(model, contents[:2])
        whole = seconds(lambda c=contents: one_pass(model, c), asked.device, asked.repeats)  # type: ignore[misc]
        tokens = round(sum(map(len, contents)) / len(contents), 1)
        print(
            json.dumps({"tokens": tokens, "pass_s": round(whole, 2)} | equality(model, contents, labels, asked.check))
        )
        passes(model, contents, labels, names, whole, asked)


def passes(
    model: Model,
    contents: Sequence[Sequence[int]],
    labels: list[LabelIds],
    names: list[str],
    whole: float,
    asked: argparse.Namespace,
) -> None:
    """Print what all costs, and the decisions of each rule, take in passes of ``whole`` seconds."""
    behind = [labels] * len(contents)
    costs = label_costs(model, contents, behind)
    for name, rule in {"all": None, **rules(names, labels, costs)}.items():
        wanted = rule and [Wanted(np.array([rule.divisors]), np.array([rule.offsets]))] * len(contents)
        found = label_costs(model, contents, behind, wanted)

        def read(wanted: list[Wanted] | None = wanted) -> object:
            return label_costs(model, contents, behind, wanted)

        row: dict[str, object] = {"rule": name, "passes": round(seconds(read, asked.device, asked.repeats) / whole, 2)}
        row |= {"priced": round(float(found.isfinite().float().mean()), 3), "peak_mib": round(peak_mib())}
        if rule is not None:
            row["other_decisions"] = int((rule.decide(found) != rule.decide(costs)).sum())
        print(json.dumps(row), flush=True)


def equality(
    model: Model, contents: Sequence[Sequence[int]], labels: list[LabelIds], check: int
) -> dict[str, float | None]:
    """Compare with the plain computation, and both with float64; distances in nats, and of the cost."""
    few, some = contents[:check], labels[::8]
    found, plain = label_costs(model, few, [some] * len(few)), plain_costs(model, few, some)
    relative = ((found - plain).abs() / plain).max()
    model.hf.double()
    exact = label_costs(model, few, [some] * len(few))
    model.hf.float()
    return {
        "largest_difference": distance(found, plain),
        "of_the_cost": float(f"{float(relative):.1e}"),
        "ours_from_float64": distance(found, exact),
        "plain_from_float64": distance(plain, exact),
        "largest_nats": round(float(plain.max()), 1),
    }


if __name__ == "__main__":
    main()
