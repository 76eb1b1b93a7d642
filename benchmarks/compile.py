"""What compiling a context keeps on a language model: divergence, agreement, score in pairs, forgetting, seconds.

    python benchmarks/compile.py [--model smollm2] [--device cuda] [--out compile.jsonl] [--parts grid,shares,rates]

grid    two tasks × a prompt, 12 worked examples, a trained kv-prefix × three draws. Each is compiled as the command
        does, into a LoRA of rank 32, weights and a short prefix, and set beside the context cut to its last keys,
        distillation alone for as long as the LoRA took, and the control. ``--draws``, ``--tasks`` and ``--kinds``
        share it out over processes with files of their own, whose lines belong together.
shares  16 contexts: the mean shareability over layers against what the closed form loses, and the same layer by layer.
starts  distillation after the closed form and from no change: rates, ranks, and few and more texts.
rates   one context: the rates of distillation, λ, the rank, how often the places that are asked at count, and whether
        a block is given the context's own input.

Every line of the file is one result; what is there is not run again, so the same command goes on where it stopped.
Parts of a cell are kept beside it (``.parts.jsonl``): on a GPU that six cells share, one takes more than four minutes.
``--summary`` prints the tables of what is there and runs nothing. Movie reviews are sentences of film reviews; the
topics are sentences put together from word lists (this file), written to a CSV beside the results.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from kept import Kept

import elicitable as el
from elicitable.compiling.compile import Recipe, _Job
from elicitable.compiling.distil import Distilling, distil
from elicitable.compiling.fidelity import NOTHING, _outcomes, elsewhere_scores, forgetting, likeness
from elicitable.compiling.matching import fit_short_prefix
from elicitable.compiling.pairs import bare
from elicitable.compiling.patch import Patch, fresh
from elicitable.compiling.static import Fitting, fit_patch
from elicitable.diagnosis.intervals import gap
from elicitable.methods.catalog import method_named
from elicitable.methods.instructions import bank as instructions
from elicitable.microscope.shareability import shareability
from elicitable.models.model import Model
from elicitable.models.prefixes import keep_tokens, prefix_length
from elicitable.models.sites import sites_of
from elicitable.models.speed.processor import made_on
from elicitable.rng import generator
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import Reading
from elicitable.training.loop import Plan, train

RIDGES = (1e-3, 1e-2, 1e-1)
RANK, KEYS = 32, 16
STARTS = (  # start, rank, rate, texts
    ("closed", 32, 3e-4, 140), ("nothing", 32, 1e-3, 140), ("nothing", 32, 1e-3, 700), ("nothing", 32, 3e-3, 700),
    ("nothing", 64, 1e-3, 700), ("closed", None, 1e-5, 140), ("nothing", 32, 3e-4, 700), ("closed", 32, 3e-4, 700),
)  # fmt: skip
TOPICS = {
    "sport": ("the match", "our goalkeeper", "the second half", "the relay team", "a late penalty", "the coach"),
    "food": ("the soup", "our cook", "the second course", "fresh bread", "a late supper", "the baker"),
    "travel": ("the train", "our guide", "the second bridge", "the night ferry", "a late flight", "the pilot"),
    "money": ("the loan", "our banker", "the second quarter", "the pension fund", "a late payment", "the lender"),
}
VERBS = ("surprised everyone", "was worth the wait", "made the news", "came as a relief", "was talked about for days")
PLACES = ("in Lisbon", "on Sunday", "last winter", "near the harbour", "as we had hoped", "against all odds")


def topics_csv(folder: Path) -> Path:
    """Sentences of four topics, one row each, in random order."""
    rows = [
        (f"{what[0].upper()}{what[1:]} {verb} {place}.", topic)
        for topic, subjects in TOPICS.items()
        for what in subjects
        for verb in VERBS
        for place in PLACES
    ]
    order = generator(0, "topics").permutation(len(rows))
    path = folder / "topics.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *(rows[place] for place in order)])
    return path


class Bench:
    """The model, the tasks, and the lines that are there already."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.out = asked, Path(asked.out)
        self.judges: dict[tuple[str, str], _Scored] = {}
        self.contexts_made: dict[tuple[str, str], Any] = {}
        self.lines, self.parts = Kept(self.out), Kept(self.out.with_suffix(".parts.jsonl"))

    def load(self) -> None:
        """Load the model and the tasks; float32, as ridge and divergence need its digits."""
        self.model: Model = el.load(self.asked.model, device=self.asked.device, dtype="float32")
        self.where = made_on(self.model.device)
        self.sites = sites_of(self.model)
        self.tasks = {"movie-reviews": task_from("movie-reviews")}
        self.tasks["topics"] = task_from(topics_csv(self.out.parent))

    def keep(self, id_: list[Any], make: Callable[[], dict[str, Any]]) -> None:
        """Run ``make`` unless its line is there, and write the line."""
        if self.lines.has(id=id_):
            return
        started = time.monotonic()
        self.lines.add({"id": id_, **make(), **self.where, "wall_seconds": time.monotonic() - started})
        print(json.dumps(self.lines[-1]), flush=True)

    def part(self, id_: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A part of a result that takes minutes: kept in a file beside the results until the whole is there."""
        if not self.parts.has(id=id_):
            self.parts.add({"id": id_, "part": make(), **self.where})
        part: dict[str, Any] = next(line["part"] for line in self.parts if line["id"] == id_)
        return part

    def context(self, task: str, kind: str, draw: int) -> Any:
        """A context of one kind; another for every draw."""
        own = self.tasks[task]
        if kind == "prompt":
            return el.context("prompt", self.model, text=list(instructions(own))[draw % 3])
        if kind == "examples":
            return el.context("examples", self.model, task=own, k=12, seed=draw)
        built = method_named("kv-prefix").build(self.model, KEYS, seed=draw)
        plan = Plan(
            learning_rate=3e-2, steps=self.asked.prefix_steps, batch=16, warmup=10, validation_items=64,
            evaluate_every=max(1, self.asked.prefix_steps // 2), patience_steps=10_000,
        )  # fmt: skip
        train(self.model, built, own, plan, draw)
        return built

    def job(self, task: str, context: Any, draw: int, texts: int | None = None, to: str = "lora") -> _Job:
        how = Recipe(to=to, rank=RANK, steps=self.asked.steps, batch=self.asked.batch, seed=draw)
        count = texts or self.asked.texts
        return _Job.of(self.model, context, None, self.tasks[task], count, None, how, lambda line: None)

    # --- the grid ------------------------------------------------------------------------------------------------

    def grid(self) -> None:
        """Every cell of the grid."""
        for draw in map(int, self.asked.draws.split(",")):
            for task, kind in product(self.asked.tasks.split(","), self.asked.kinds.split(",")):
                self.keep(["grid", task, kind, draw], lambda t=task, k=kind, d=draw: self.cell(t, k, d))

    def cell(self, task: str, kind: str, draw: int) -> dict[str, Any]:
        """Everything about one context."""
        context = self.context(task, kind, draw)
        job = self.job(task, context, draw)
        scored = _Scored(self, task, context, draw)
        name, keys = ["grid", task, kind, draw], prefix_length(job.prefix)
        short = min(KEYS, max(1, keys // 2))
        found: dict[str, Any] = {"keys": keys, "neither": self.said(job, NOTHING, scored)}
        found["context"] = {"forgetting": asdict(forgetting(self.model, job.prefix, 4)), "score": scored.context}
        for form in ("lora", "weights", "short-prefix"):
            own = self.job(task, context, draw, to=form)
            own = replace(own, how=replace(own.how, keys=short))
            found[form] = self.part([*name, form], lambda o=own, f=form: self.formed(o, f, job, scored, task, draw))
        found["control"] = found["lora"]["control"]
        found["distilled alone"] = self.part(
            [*name, "distilled alone"], lambda: self.distilled_alone(job, found["lora"]["seconds"], scored, draw)
        )
        cut = keep_tokens(job.prefix, range(keys - short, keys))
        return found | {"truncated": {"keys": short} | self.said(job, cut, scored)}

    def formed(self, own: _Job, form: str, job: _Job, scored: _Scored, task: str, draw: int) -> dict[str, Any]:
        """One form of a context: how long it took, what was chosen, and all that is said of it."""
        started = time.monotonic()
        made, chosen = own.made()
        found = {"seconds": time.monotonic() - started, **chosen} | self.said(job, made, scored)
        if form == "lora":
            found["elsewhere"] = self.elsewhere(task, made, draw)
        return found

    def distilled_alone(self, job: _Job, seconds: float, scored: _Scored, draw: int) -> dict[str, Any]:
        """Distillation from no change for as many seconds."""
        alone, how = fresh(self.model, self.sites, RANK, draw), Distilling(10_000, 1e-3, seconds=seconds, seed=draw)
        steps = distil(job.teacher, alone, job.fitted, job.held, how)
        return {"seconds": seconds, "steps": steps} | self.said(job, alone, scored)

    def best(self, job: _Job, rank: int | None) -> tuple[float, Patch]:
        """The patch of the λ that is best on held-out texts."""
        tried = {
            strength: fit_patch(
                self.model, job.prefix, job.fitted, Fitting(strength, rank, asked=self.asked.count_asked), self.sites
            )
            for strength in RIDGES
        }
        kl = {one: likeness(job.teacher, patch, job.held).kl_nats for one, patch in tried.items()}
        strength = min(kl, key=lambda one: kl[one])
        return strength, tried[strength]

    def said(self, job: _Job, what: Any, scored: _Scored) -> dict[str, Any]:
        """Likeness, forgetting and score of one thing."""
        return asdict(likeness(job.teacher, what, job.reported)) | {
            "forgetting": asdict(forgetting(self.model, what, 4)),
            **scored.lost(what),
        }

    def elsewhere(self, task: str, patch: Patch, draw: int) -> dict[str, Any]:
        other = next(name for name in self.tasks if name != task)
        return elsewhere_scores(self.model, self.tasks[other], patch, self.asked.test_items, draw)

    # --- starts ---------------------------------------------------------------------------------------------------

    def starts(self) -> None:
        """Distillation after the closed form and from no change, at several rates, on few and on more texts."""
        for task, kind, made in product(self.asked.tasks.split(","), self.asked.kinds.split(","), STARTS):
            self.keep(["starts", task, kind, *made], lambda t=task, k=kind, m=made: self.started(t, k, *m))

    def started(self, task: str, kind: str, start: str, rank: int | None, rate: float, texts: int) -> dict[str, Any]:
        """One distillation: what it leaves, costs and forgets."""
        context = self.cached(task, kind)
        job, scored = self.job(task, context, 0, texts), self.judges[task, kind]
        began = time.monotonic()
        patch = self.best(job, rank)[1] if start == "closed" else fresh(self.model, self.sites, rank or 64, 0)
        steps = distil(job.teacher, patch, job.fitted, job.held, Distilling(self.asked.steps, rate))
        return {"seconds": time.monotonic() - began, "steps": steps} | self.said(job, patch, scored)

    def cached(self, task: str, kind: str) -> Any:
        """The first draw of a context, and its test split, once."""
        if (task, kind) not in self.judges:
            self.contexts_made[task, kind] = context = self.context(task, kind, 0)
            self.judges[task, kind] = _Scored(self, task, context, 0)
        return self.contexts_made[task, kind]

    # --- shareability --------------------------------------------------------------------------------------------

    def shares(self) -> None:
        """Sixteen contexts of every kind: how shared each layer is, and what the closed form loses."""
        for name, make in self.contexts():
            self.keep(["shares", name], lambda make=make: self.shared(make()))

    def contexts(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        own = self.tasks["movie-reviews"]
        for k in (1, 2, 4, 8, 12):
            for draw in range(1 if k < 8 else 2):
                yield (
                    f"examples {k} {draw}",
                    lambda k=k, d=draw: el.context("examples", self.model, task=own, k=k, seed=d),
                )
        texts = (
            *instructions(own),
            "Answer like a pirate.\n\n",
            "Translate to French.\n\n",
            "def f(x):\n    return x\n",
        )
        for nth, text in enumerate(texts):
            yield f"prompt {nth}", lambda text=text: el.context("prompt", self.model, text=text)
        for kind in ("soft-prompt", "kv-prefix", "layer-prefix"):
            yield f"{kind} vocabulary", lambda kind=kind: el.context(kind, self.model, length=16, init="vocabulary")

    def shared(self, context: Any) -> dict[str, Any]:
        job = self.job("movie-reviews", context, 0)
        batches = [(batch.taught.ids, batch.taught.mask) for batch in job.fitted]
        layers = shareability(self.model, job.prefix, batches, self.sites)
        patch = fit_patch(self.model, job.prefix, job.fitted, Fitting(1e-2), self.sites)
        low = fit_patch(self.model, job.prefix, job.fitted, Fitting(1e-2, RANK), self.sites)
        kl = {
            name: likeness(job.teacher, what, job.reported).kl_nats
            for name, what in (("neither", NOTHING), ("weights", patch), ("lora", low))
        }
        return {
            "keys": prefix_length(job.prefix),
            "share": [one.shareability for one in layers],
            "rank": [one.rank for one in layers],
            "heads": [mean(one.heads) for one in layers],
            "token_residual": max(one.token_residual or 0.0 for one in layers),
            "odds_residual": max(max(one.odds_residual) for one in layers),
            **kl,
        }

    # --- rates ---------------------------------------------------------------------------------------------------

    def rates(self) -> None:
        """One context, 12 examples of movie reviews: what the choices inside compile do."""
        context = self.context("movie-reviews", "examples", 0)
        job = self.job("movie-reviews", context, 0)

        def fitted(fitting: Fitting) -> tuple[Patch, dict[str, Any]]:
            started = time.monotonic()
            patch = fit_patch(self.model, job.prefix, job.fitted, fitting, self.sites)
            seconds = time.monotonic() - started
            return patch, {"seconds": seconds} | asdict(likeness(job.teacher, patch, job.held))

        for rank in (None, 8, 32, 64):
            for strength in RIDGES:
                self.keep(["rates", "ridge", rank, strength], lambda r=rank, s=strength: fitted(Fitting(s, r))[1])
            for often in (5.0, 20.0):
                counted = Fitting(1e-2, rank, asked=often)
                self.keep(["rates", "asked", rank, often], lambda counted=counted: fitted(counted)[1])
            late = Fitting(1e-2, rank, is_cut_late=True)
            self.keep(["rates", "cut late", rank, 1e-2], lambda late=late: fitted(late)[1])
            forced = Fitting(1e-2, rank, is_forced=True)
            self.keep(["rates", "forced", rank, 1e-2], lambda forced=forced: fitted(forced)[1])
        for rate in (1e-4, 3e-4, 1e-3, 3e-3):
            self.keep(
                ["rates", "lora", rate], lambda rate=rate: self.trained(job, fitted(Fitting(1e-2, RANK))[0], rate)
            )
        for rate in (3e-3, 1e-2, 3e-2):
            self.keep(["rates", "short", rate], lambda rate=rate: self.trained(job, self.matched(job), rate))

    def matched(self, job: _Job) -> Any:
        return fit_short_prefix(self.model, job.prefix, job.fitted, KEYS, self.asked.match_steps)

    def trained(self, job: _Job, what: Any, rate: float) -> dict[str, Any]:
        before = likeness(job.teacher, what, job.held).kl_nats
        started = time.monotonic()
        distil(job.teacher, what, job.fitted, job.held, Distilling(self.asked.steps, rate))
        after = asdict(likeness(job.teacher, what, job.held))
        return {"before": before, "seconds": time.monotonic() - started} | after


class _Scored:
    """The test split with the context, once, to compare others with in pairs."""

    def __init__(self, bench: Bench, task: str, context: Any, draw: int) -> None:
        self.model, self.task, self.draw = bench.model, bench.tasks[task], draw
        self.items = self.task.held_out("test", bench.asked.test_items)
        layout, held = context.layout, tuple(context.held())
        self.plain = Reading(64, layout=bare(layout))
        self.behind = Reading(64, layout=layout or self.plain.layout, held=held)
        self.outcomes = _outcomes(self.model, self.task, context, self.items, self.behind)
        self.context = mean(self.outcomes[0])

    def lost(self, what: Any) -> dict[str, Any]:
        """Its score, and what it loses against the context: difference, low, high."""
        own = _outcomes(self.model, self.task, what, self.items, self.plain)
        return {"score": mean(own[0]), "lost": list(gap(self.outcomes, own, self.draw))}


def summary(lines: list[dict[str, Any]]) -> None:
    """Print what the lines say."""
    grid = [line for line in lines if line["id"][0] == "grid"]
    forms = ("neither", "truncated", "distilled alone", "control", "weights", "lora", "short-prefix")
    for kind in dict.fromkeys((line["id"][1], line["id"][2]) for line in grid):
        own = [line for line in grid if tuple(line["id"][1:3]) == kind]
        print(f"\n{kind[0]}, {kind[1]} ({own[0]['keys']} keys), {len(own)} draws; score with it "
              f"{mean(line['context']['score'] for line in own if 'context' in line):.3f}")  # fmt: skip
        for form in forms:
            drawn = [line[form] for line in own if form in line]
            print("  " + _form(form, drawn) + (f"  ({len(drawn)} draws)" if len(drawn) < len(own) else ""))
    correlations([line for line in lines if line["id"][0] == "shares"])
    for line in lines:
        if line["id"][0] == "starts":
            print("  " + _form(" ".join(map(str, line["id"][1:])), [line]))
        if line["id"][0] == "rates":
            print(
                line["id"][1:], f"{line['kl_nats']:.4f}", f"(before {line['before']:.4f})" if "before" in line else ""
            )


def _form(name: str, found: list[dict[str, Any]]) -> str:
    said = (
        f"{name:16} KL {mean(one['kl_nats'] for one in found):7.4f}  same {mean(one['agreement'] for one in found):.3f}"
    )
    if "score" not in found[0]:
        return said
    lost = [one["lost"] for one in found]
    said += f"  score {mean(one['score'] for one in found):.3f}  lost " + ", ".join(
        f"{a:+.3f} [{b:+.3f}, {c:+.3f}]" for a, b, c in lost
    )
    said += f"  forgets {mean(one['forgetting']['lost_nats'] for one in found):+.3f} nats"
    return said + (f"  {mean(one['seconds'] for one in found):.1f} s" if "seconds" in found[0] else "")


def correlations(lines: list[dict[str, Any]]) -> None:
    """Print the correlation over contexts of shareability with what the closed form loses, with its 95 % interval."""
    if len(lines) < 4:
        return
    table = np.array([line["share"] for line in lines], dtype=float)
    for form in ("weights", "lora"):
        lost = np.log([line[form] for line in lines])
        share = np.array([line[form] / line["neither"] for line in lines])
        for what, values in (("log KL", lost), ("KL over that without", share)):
            r, low, high = correlation(table.mean(axis=1), values)
            print(
                f"\n{len(lines)} contexts, {form}: mean shareability against {what}: "
                f"r = {r:+.2f} [{low:+.2f}, {high:+.2f}]"
            )
        by_layer = [correlation(column, lost)[0] for column in table.T]
        print("  by layer, against log KL:", " ".join(f"{r:+.2f}" for r in by_layer))


def correlation(a: np.ndarray, b: np.ndarray, count: int = 4000) -> tuple[float, float, float]:
    """Spearman's correlation with the percentile interval of a bootstrap over contexts."""

    def ranks(x: np.ndarray) -> np.ndarray:
        return x.argsort().argsort().astype(float)

    def one(place: np.ndarray) -> float:
        pair = ranks(a[place]), ranks(b[place])
        return float(np.corrcoef(*pair)[0, 1]) if len(set(place.tolist())) > 2 else 0.0

    drawn = generator(0, "correlation").integers(len(a), size=(count, len(a)))
    low, high = np.quantile([one(place) for place in drawn], [0.025, 0.975])
    return one(np.arange(len(a))), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="elicitable-runs/compile/compile.jsonl")
    parser.add_argument("--parts", default="grid,shares,rates")
    parser.add_argument("--draws", default="0,1,2", help="of the grid")
    parser.add_argument("--texts", type=int, default=140)
    parser.add_argument("--test-items", type=int, default=240)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--steps", type=int, default=60, help="of distillation")
    parser.add_argument("--match-steps", type=int, default=100, help="of attention matching, a layer")
    parser.add_argument("--prefix-steps", type=int, default=60, help="of training the kv-prefix that is compiled")
    parser.add_argument("--count-asked", type=float, default=1.0, help="how often a token that is asked at counts")
    parser.add_argument("--kinds", default="examples,prompt,kv-prefix", help="of context, in the grid and the starts")
    parser.add_argument("--tasks", default="movie-reviews,topics", help="of the grid and the starts")
    parser.add_argument("--summary", action="store_true")
    bench = Bench(parser.parse_args())
    if not bench.asked.summary:
        bench.load()
        for part in bench.asked.parts.split(","):
            getattr(bench, part)()
    summary(bench.lines)


if __name__ == "__main__":
    main()
