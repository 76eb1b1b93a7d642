"""Measure what one token can make a trained model write: hard tokens beside trained virtual tokens.

The model's input is its beginning-of-sequence token, if it has one, and one token more. A hard token is followed by one
greedy continuation, so V hard tokens reach at most V of the V^L continuations of length L. A virtual token is one free
input embedding, which is trained for a target drawn at random; its hit rate is how often the model then writes that
target exactly. For LLaMA-7B and L = 10 the source reports 24,426 distinct continuations of 32,000 hard tokens, and
46,812 hits of 48,218 trained virtual tokens.

The work is kept in records of 500 hard or 16 virtual tokens, so an interrupted run goes on where its last record ended.

Source: Petrov, Torr, Bibi, ICLR 2024 (arXiv 2310.19698), section 3.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from elicitable.diagnosis.distinct import distinct
from elicitable.diagnosis.shares import wilson
from elicitable.durations import seconds_of
from elicitable.errors import BudgetError, InputError, UnknownNameError
from elicitable.lab.parts import Parts
from elicitable.lab.targets import TARGETS, drawn_targets
from elicitable.models.capture import start_token
from elicitable.models.model import as_model
from elicitable.models.speed.precision import undisturbed
from elicitable.records.lock import alone_in_out
from elicitable.records.provenance import versions
from elicitable.records.reach import HardReach, ReachExample, TokenReach, VirtualReach
from elicitable.records.store import Record, Store
from elicitable.rng import torch_generator
from elicitable.training.virtual_tokens import FittedTokens, continue_greedily, fit_virtual_tokens

if TYPE_CHECKING:
    from elicitable.models.model import Model

HARD_CHUNK = 500
VIRTUAL_CHUNK = 16
RATES = (0.01, 0.03, 0.1)
SWEEP_TARGETS = 4  # for each rate; all rates train in one batch
SWEEP_STEPS = 60
SWEEP_SHARE = 0.15  # of the time left, under a time limit
HARD_WORK, SWEEP_WORK, VIRTUAL_WORK = 0.15, 0.1, 0.75  # of the whole, about
STEPS = 300
SHOWN = 5  # examples of a kind

Progress = Callable[[str, float], None]  # what runs now, and the share of the whole work that is done


@alone_in_out
@undisturbed()
def token_reach(
    model: Any,
    *,
    hard_tokens: int | Literal["all"] = 2000,
    virtual_tokens: int = 64,
    length: int = 10,
    targets: str = "model",
    steps: int = STEPS,
    with_start: bool = True,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    time_limit: float | str | None = None,
) -> TokenReach:
    """Count the distinct greedy continuations of single hard tokens, and the hits of single trained virtual tokens.

    Both are run free, greedily, in the model's own precision; only the training uses bfloat16 where that is fast. The
    learning rate is swept on targets of its own.

    Args:
        model: what :func:`elicitable.load` returns, or a transformers model.
        hard_tokens: how many are drawn from the vocabulary, without replacement (all of it where it is smaller), or
            ``"all"``. A larger number continues a smaller one.
        virtual_tokens: how many are trained, each for its own target.
        length: L, tokens of a continuation and of a target.
        targets: ``"random"``, each token uniform over the vocabulary; or ``"model"``, what the model itself writes at
            temperature 1 after a token drawn uniformly.
        steps: the most steps of Adam a virtual token gets.
        with_start: the token stands after the model's beginning-of-sequence token, where it has one. Without it the
            token is the very first, which many models treat as an attention sink and hardly read: SmolLM2 then starts
            its answer with "-" after 1,999 of 2,000 tokens.
        seed: of the sample, the targets and the starts.
        out: folder of the records; in memory only when None.
        progress: told what runs and how much of the work is done, without what is kept in ``out`` from before.
        time_limit: seconds for the whole, or ``"15m"``. Hard tokens come first; what is left is shared evenly by the
            virtual ones.

    Raises:
        InputError: a size that is not a positive number, or more tokens than the model has positions.
        UnknownNameError: ``targets`` is neither.
        BudgetError: the time limit ended before the virtual tokens began.
        StoreError: ``out`` cannot be written to or is in use, or holds a record that cannot be read.

    Example:
        >>> import elicitable as el
        >>> found = token_reach(el.load("toy:ascending"), virtual_tokens=2, length=2, steps=20)
        >>> found.hard.distinct.sampled, found.virtual.tried
        (10, 2)
    """
    limit = seconds_of(time_limit)
    check_sizes(hard_tokens, virtual_tokens, targets, length=length, steps=steps, time_limit=limit)
    model = as_model(model)
    start = start_token(model) if with_start else None
    plan = _Plan(length, targets, steps, () if start is None else (start,), seed, limit)
    _check_positions(model, plan)
    sitting = _Sitting(model, plan, Parts(Store(out), model.device), progress or _say_nothing, time.monotonic())
    hard = sitting.hard_reach(model.anatomy.vocab if hard_tokens == "all" else hard_tokens)
    virtual = sitting.virtual_reach(virtual_tokens)
    sitting.tell("done", 1.0)
    return TokenReach(
        model=model.name,
        vocab=model.anatomy.vocab,
        d_model=model.anatomy.d_embedding,
        start=sitting.text(plan.after) if plan.after else "",
        length=length,
        seed=seed,
        hard=hard,
        virtual=virtual,
        seconds=hard.seconds + virtual.seconds,
        provenance={"fingerprint": model.fingerprint, "versions": versions(), **sitting.parts.made_on()},
    )


@dataclass(frozen=True)
class _Plan:
    """Say what can change a result, apart from the model and the sample sizes."""

    length: int
    targets: str
    steps: int
    after: tuple[int, ...]
    seed: int
    time_limit: float | None


def check_sizes(
    hard_tokens: int | str,
    virtual_tokens: int,
    targets: str = "model",
    *,
    length: int = 10,
    steps: int = STEPS,
    time_limit: float | None = None,
) -> None:
    """Raise InputError with the argument's name where one is not what :func:`token_reach` asks for on any model.

    >>> check_sizes(2000, 64, "random")
    """
    sizes: dict[str, Any] = {"virtual_tokens": virtual_tokens, "length": length, "steps": steps}
    if hard_tokens != "all":
        sizes["hard_tokens"] = hard_tokens
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            what = "a positive whole number or 'all'" if name == "hard_tokens" else "a positive whole number"
            raise InputError(f"{name} must be {what}, got {size!r}.")
    if targets not in TARGETS:
        raise UnknownNameError("targets", targets, TARGETS)
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time_limit must be a positive number of seconds, got {time_limit!r}.")


def _check_positions(model: Model, plan: _Plan) -> None:
    """Raise InputError where the model cannot read so many tokens."""
    positions = model.anatomy.trained_positions
    most = None if positions is None else positions - len(plan.after)
    if most is not None and plan.length > most:  # the last token written is not read
        raise InputError(f"length must be at most {most}, what {model.name} has positions for, got {plan.length}.")


def _say_nothing(what: str, share: float) -> None:
    """Show no progress."""


@dataclass
class _Sitting:
    """Run once: take what the store has and add what is missing."""

    model: Model
    plan: _Plan
    parts: Parts
    progress: Progress
    began: float

    def tell(self, what: str, share: float) -> None:
        """Show what runs, and how much is done of the work that was not kept; ``share`` is that of the whole."""
        kept = self.parts.kept_share
        self.progress(what, (share - kept) / (1 - kept) if kept < 1 else 1.0)

    def _spec(self, kind: str, **more: Any) -> dict[str, Any]:
        plan = self.plan
        shared = {"model": self.model.fingerprint, "length": plan.length, "after": plan.after, "seed": plan.seed}
        return {"kind": f"token-reach/{kind}", **shared, **more}

    def _training(self) -> dict[str, Any]:
        return {"targets": self.plan.targets, "time_limit": self.plan.time_limit}

    def _left(self) -> float | None:
        """Return the seconds left, None without a limit.

        Raises:
            BudgetError: none are left.
        """
        if self.plan.time_limit is None:
            return None
        left = self.plan.time_limit - (time.monotonic() - self.began)
        if left <= 0:
            raise BudgetError(
                f"the time limit of {self.plan.time_limit:g} s ended before all tokens had their turn; allow more "
                "time or take fewer tokens. With an output folder, what was done is kept."
            )
        return left

    # hard tokens

    def hard_reach(self, wanted: int) -> HardReach:
        """Return the continuations of the first ``wanted`` tokens of a shuffled vocabulary."""
        vocab = self.model.anatomy.vocab
        wanted = min(wanted, vocab)
        order = torch.randperm(vocab, generator=torch_generator(self.plan.seed, "reach", "hard"))
        ids: list[int] = []
        written: list[tuple[int, ...]] = []
        seconds = 0.0
        for first in range(0, wanted, HARD_CHUNK):
            self.tell(f"hard tokens: {first:,} of {wanted:,}", HARD_WORK * first / wanted)
            record = self._hard_chunk(order[first : min(first + HARD_CHUNK, wanted)], wanted)
            ids += record["ids"]
            written += map(tuple, record["written"])
            seconds += record["seconds"]
        return HardReach(
            distinct=distinct(written, vocab),
            shared=tuple((self.text(tokens), count) for tokens, count in Counter(written).most_common(3) if count > 1),
            examples=tuple(
                ReachExample(self.text([i]), self.text(w)) for i, w in zip(ids[:SHOWN], written, strict=False)
            ),
            seconds=seconds,
        )

    def _hard_chunk(self, ids: Tensor, wanted: int) -> Record:
        spec = self._spec("hard", ids=ids.tolist())
        known = self.parts.known(spec, HARD_WORK * len(ids) / wanted)
        if known is not None:
            return known
        self._left()
        began = time.monotonic()
        written = continue_greedily(self.model, ids.to(self.model.device), self.plan.length, self.plan.after)
        seconds = round(time.monotonic() - began, 3)
        return self.parts.keep(spec, {"ids": ids.tolist(), "written": written.tolist(), "seconds": seconds})

    # virtual tokens

    def virtual_reach(self, wanted: int) -> VirtualReach:
        """Measure the hit rate of ``wanted`` virtual tokens at the best learning rate of the sweep."""
        swept = self._sweep()
        records = [self._virtual_chunk(first, wanted, swept["rate"]) for first in range(0, wanted, VIRTUAL_CHUNK)]
        targets, written, steps = (
            [row for record in records for row in record[name]] for name in ("targets", "written", "steps")
        )
        reached = sum(step > 0 for step in steps)
        low, high = wilson(reached / wanted, wanted)
        right = [_right(*pair) / self.plan.length for pair in zip(targets, written, strict=True)]
        return VirtualReach(
            targets=self.plan.targets,
            tried=wanted,
            reached=reached,
            low=min(low, reached / wanted),
            high=max(high, reached / wanted),
            distinct=len({tuple(tokens) for tokens in written}),
            tokens_right=sum(right) / wanted,
            learning_rate=swept["rate"],
            steps=self.plan.steps,
            sweep=tuple(swept["sweep"]),
            examples=tuple(self._examples(targets, written, steps)),
            seconds=sum(record["seconds"] for record in (swept, *records)),
        )

    def _sweep(self) -> Record:
        """Find the best learning rate, on targets that are not scored."""
        steps = min(SWEEP_STEPS, self.plan.steps)
        spec = self._spec("sweep", rates=RATES, rows=SWEEP_TARGETS, steps=steps, **self._training())
        known = self.parts.known(spec, SWEEP_WORK)
        if known is not None:
            return known
        left, began = self._left(), time.monotonic()
        targets, start = self._draw("sweep", SWEEP_TARGETS)
        rates = torch.tensor(RATES).repeat_interleave(SWEEP_TARGETS)

        def tell(taken: int, reached: int) -> None:
            what = f"learning rate: step {taken} of {steps}, {len(RATES)} rates on {SWEEP_TARGETS} targets each"
            self.tell(what, HARD_WORK + SWEEP_WORK * taken / steps)

        fitted = fit_virtual_tokens(
            self.model,
            targets.repeat(len(RATES), 1),
            start.repeat(len(RATES), 1),
            rates,
            steps,
            after=self.plan.after,
            seconds=left and SWEEP_SHARE * left,
            progress=tell,
        )
        sweep = by_rate(fitted, RATES)
        seconds = round(time.monotonic() - began, 3)
        return self.parts.keep(spec, {"rate": best_rate(sweep), "sweep": sweep, "seconds": seconds})

    def _virtual_chunk(self, first: int, wanted: int, rate: float) -> Record:
        chunk, rows = first // VIRTUAL_CHUNK, min(VIRTUAL_CHUNK, wanted - first)
        spec = self._spec("virtual", chunk=chunk, rows=rows, rate=rate, steps=self.plan.steps, **self._training())
        known = self.parts.known(spec, VIRTUAL_WORK * rows / wanted)
        if known is not None:
            return known
        left, began = self._left(), time.monotonic()
        chunks_left = -(-(wanted - first) // VIRTUAL_CHUNK)
        targets, start = (part[:rows] for part in self._draw(f"chunk {chunk}", VIRTUAL_CHUNK))

        def tell(taken: int, reached: int) -> None:
            what = f"virtual tokens {first + 1}-{first + rows} of {wanted}: step {taken}, {reached} write their target"
            share = max(reached / rows, taken / self.plan.steps)
            self.tell(what, HARD_WORK + SWEEP_WORK + VIRTUAL_WORK * (first + share * rows) / wanted)

        tell(0, 0)
        fitted = fit_virtual_tokens(
            self.model,
            targets,
            start,
            torch.full((rows,), rate),
            self.plan.steps,
            after=self.plan.after,
            seconds=left and left / chunks_left,
            progress=tell,
        )
        record = {
            "targets": targets.tolist(),
            "written": fitted.written.tolist(),
            "steps": fitted.steps.tolist(),
            "losses_nats": [round(loss, 6) if loss < float("inf") else None for loss in fitted.losses.tolist()],
            "seconds": round(time.monotonic() - began, 3),
        }
        return self.parts.keep(spec, record, {"vectors": fitted.vectors.cpu()})

    def _draw(self, name: str, rows: int) -> tuple[Tensor, Tensor]:
        """Draw targets (row, length) and starts (row, d_model): the embeddings of tokens drawn uniformly."""
        generator = torch_generator(self.plan.seed, "reach", "virtual", name)
        model = self.model
        ids = torch.randint(model.anatomy.vocab, (rows,), generator=generator).to(model.device)
        targets = drawn_targets(model, self.plan.targets, rows, self.plan.length, generator, self.plan.after)
        with torch.no_grad():
            return targets, model.embed(ids)

    # what is shown

    def text(self, ids: list[int] | tuple[int, ...]) -> str:
        """Write token ids as text; as numbers where there is no tokenizer."""
        if self.model.tokenizer is None:
            return " ".join(map(str, ids))
        text: str = self.model.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text

    def _examples(self, targets: list[list[int]], written: list[list[int]], steps: list[int]) -> Iterator[ReachExample]:
        """Return the first few that write their target and the first few that do not, in their order."""
        shown = {True: 0, False: 0}
        for number, (target, tokens, step) in enumerate(zip(targets, written, steps, strict=True), start=1):
            is_reached = step > 0
            shown[is_reached] += 1
            if shown[is_reached] <= SHOWN:
                yield ReachExample(f"virtual token {number}", self.text(tokens), self.text(target), is_reached, step)


def _right(target: list[int], written: list[int]) -> int:
    """Count the tokens that are right before the first wrong one."""
    wrong = (place for place, (a, b) in enumerate(zip(target, written, strict=True)) if a != b)
    return next(wrong, len(target))


def by_rate(fitted: FittedTokens, rates: Sequence[float]) -> list[dict[str, float]]:
    """Say what each rate of a sweep did: targets reached and tried, mean loss in nats. Rows are grouped by rate."""
    reached, losses = fitted.reached.view(len(rates), -1), fitted.losses.view(len(rates), -1).double()
    return [
        {
            "rate": rate,
            "reached": int(reached[i].sum()),
            "tried": reached.shape[1],
            "loss_nats": round(float(losses[i].clamp(max=1e9).mean()), 6),  # a record holds no infinity
        }
        for i, rate in enumerate(rates)
    ]


def best_rate(sweep: Sequence[Mapping[str, float]]) -> float:
    """Return the rate that reached most targets; of those, the one of lowest mean loss."""
    return min(sweep, key=lambda entry: (-entry["reached"], entry["loss_nats"]))["rate"]
