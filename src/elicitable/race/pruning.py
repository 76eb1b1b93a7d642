"""Prune an adapter folder: drop the virtual tokens and heads that do nothing, within a margin; write what is left."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicitable.cache import output_folder
from elicitable.deploy.artefact import read, write_artefact
from elicitable.errors import InputError
from elicitable.methods.kv_prefix import KVPrefix, KVPrefixContext
from elicitable.methods.pruned_prefix import PrunedPrefix, PrunedPrefixContext
from elicitable.microscope.prune import Pruned, pair_use, prune
from elicitable.models.inject import room_in
from elicitable.models.load import load
from elicitable.models.prefixes import keep_tokens, prefix_length
from elicitable.models.rows import rows_of
from elicitable.models.speed.precision import undisturbed
from elicitable.models.speed.processor import made_on
from elicitable.race.inside import reading_with, score_with
from elicitable.race.keeping import artefact_alone
from elicitable.race.measuring import measured
from elicitable.race.standard import Standard
from elicitable.records.folder import RECORD, written_whole
from elicitable.records.store import Store, identity
from elicitable.tasks.base import checked_count, identity_of
from elicitable.tasks.catalog import task_from
from elicitable.training.batches import layout_without_record, padded
from elicitable.training.loop import Plan, train
from elicitable.values import Item, PrefixKV

if TYPE_CHECKING:
    from elicitable.deploy.artefact import Artefact as Read
    from elicitable.deploy.record import Record
    from elicitable.models.model import Model
    from elicitable.tasks.base import Task

RATES = (3e-1, 1e-1)  # the two hottest of kv-prefix: half a prefix has to find its place anew
Left = PrunedPrefixContext | KVPrefixContext


@undisturbed()
def prune_adapter(
    model: Any,
    adapter: str | os.PathLike[str],
    task: Any,
    out: str | os.PathLike[str],
    *,
    margin: float = 0.01,
    items: int = 1000,
    test_items: int = 1000,
    steps: int = 1000,
    peft: bool = False,
    seed: int = 0,
    score: Any = None,
) -> dict[str, Any]:
    """Prune the prefix in ``adapter`` on the validation split and write the smaller one to ``out``.

    First whatever does nothing is dropped, and nothing is trained. Where more than half of the virtual tokens are
    left, the stronger half alone is trained on for ``steps``; if that keeps the score it is what is pruned instead,
    and the record says so. The search runs on one half of ``items``; what it found is confirmed on the other half, on
    each of which half of ``margin`` may be lost: the rest is kept back for texts that had no part in the choice.

    Args:
        model: the adapter's model, as for :func:`elicitable.verdict`.
        adapter: the folder of a prefix: of a run, of an artefact, or of an adapter of PEFT's. Items are read as its
            record says, where it has one.
        task: as for :func:`elicitable.verdict`; whose validation split decides, and whose test split is reported.
        out: where the smaller adapter is written.
        margin: the most the score may lose: that of the run, as the adapter's record has it.
        items: of the validation split.
        test_items: of the test split.
        steps: of training at most, for each of two rates; 0 never trains.
        peft: drop whole virtual tokens alone, so that PEFT loads what is left.
        seed: of the training data.
        score: what is scored by instead, as for :func:`elicitable.verdict`; needed where the run was scored by a
            function of one's own.

    Returns:
        The record that is written beside the adapter: what was kept, and the scores before and after. The folder is an
        artefact like any other.

    Raises:
        InputError: the adapter holds no prefix, or an argument is out of range.
        StoreError: ``out`` cannot be written to.
    """
    checked_count(items, "items")
    checked_count(test_items, "test items")
    if not 0 <= margin < 1:
        raise InputError(f"the margin is a share of the score from 0 to 1 (0.01 is 1 point), got {margin}.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise InputError(f"steps must be a whole number of at least 0, which never trains, got {steps!r}.")
    model, task, adapter, out = load(model), task_from(task), Path(adapter), output_folder(out)
    artefact = read(adapter)
    whole = artefact.adaptation(model)
    if not isinstance(whole, KVPrefixContext):
        raise InputError(f"{adapter} holds no prefix (it is {whole.kind}); only virtual tokens can be pruned.")
    Store(out)
    pruning = _Pruning(model, task, items, whole, peft, artefact, Standard.of(model, task, artefact.record, score))
    prefix = whole.prefix(model)
    before, length = pruning.confirmed(prefix), prefix_length(prefix)
    chosen, trained = tuple(range(length)), 0
    left, done = pruning.search(prefix, margin / 2)
    if steps and len(done.kept) > length // 2:
        strongest = pruning.strongest(prefix, length // 2)
        for rate in RATES:
            half = pruning.trained(keep_tokens(prefix, strongest, moves=peft), rate, steps, seed).prefix(model)
            spare = pruning.confirmed(half) - (before - margin / 2)
            if spare >= 0:
                left, done = pruning.search(half, min(spare, margin / 2))
                chosen, trained = strongest, steps
                break
    record = _record(done, chosen, length, whole, left)
    test = task.held_out("test", test_items)
    record |= {
        "score_before": before,
        "test_before": pruning.score(prefix, test),
        "test_after": pruning.score(left.prefix(model), test),
        "test_items": len(test),
        "trained_steps": trained,
        "peft": peft,
        "margin": margin,
        "score": pruning.standard.marking.scorer.name,
        "adapter": str(out),
        **made_on(model.device),
    }
    kept = pruning.artefact(left, test_items, seed, margin=margin, items=items, steps=steps, peft=peft)
    with written_whole(out) as folder:
        write_artefact(model, left, kept, folder)
        (folder / RECORD).write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    return record


class _Pruning:
    """Score, search and train a prefix for one model and task, read as ``record`` says where there is one."""

    def __init__(
        self,
        model: Model,
        task: Task,
        items: int,
        whole: KVPrefixContext,
        peft: bool,
        source: Read,
        standard: Standard,
    ) -> None:
        self.model, self.task, self.peft, self.source, self.standard = model, task, peft, source, standard
        held = task.held_out("validation", items)
        if len(held) < 2:
            raise InputError(
                f"pruning needs two validation items, one to search on and one to confirm, and {task.name} gives "
                f"{len(held)} of the {items:,} asked for."
            )
        self.seen, self.unseen = held[: len(held) // 2], held[len(held) // 2 :]
        self.reading = reading_with(model, whole, source.record)
        if source.record is None:
            self.reading = replace(self.reading, layout=layout_without_record(model, task))
        room = room_in(model, self.reading.max_tokens, whole.keys_per_layer())
        batch = padded(model, rows_of(model, held[:64], self.reading.layout, limit=room))
        masked = {} if batch.attention_mask is None else {"attention_mask": batch.attention_mask}
        self.batches = [{"input_ids": batch.input_ids, **masked}]

    def score(self, prefix: PrefixKV, items: Sequence[Item]) -> float:
        """Return what the answers to ``items`` are worth with ``prefix``."""
        return score_with(self.model, prefix, self.task, items, self.reading, self.standard)

    def confirmed(self, prefix: PrefixKV) -> float:
        """Return the score on items that no search and no training has seen."""
        return self.score(prefix, self.unseen)

    def search(self, prefix: PrefixKV, margin: float) -> tuple[Left, Pruned]:
        """Return what is left of ``prefix`` without whatever does nothing."""
        smaller, done = prune(
            self.model,
            prefix,
            lambda candidate: self.score(candidate, self.seen),
            self.batches,
            confirm=self.confirmed,
            margin=margin,
            whole_tokens=self.peft,
        )
        return self.packed(smaller), done

    def strongest(self, prefix: PrefixKV, count: int) -> tuple[int, ...]:
        """Return the ``count`` virtual tokens that add the most to the heads' outputs, in their order."""
        use = pair_use(self.model, prefix, self.batches).sum(dim=(0, 1))
        return tuple(sorted(use.argsort(descending=True)[:count].tolist()))

    def trained(self, prefix: PrefixKV, rate: float, steps: int, seed: int) -> Left:
        """Train ``prefix`` as it stands; return its best state on items that the search has seen."""
        left = self.packed(prefix)
        train(self.model, left, self.task, self._plan(rate, steps), seed)
        return left

    def _plan(self, rate: float = 0.0, steps: int = 0) -> Plan:
        return Plan(
            rate,
            steps,
            16 if self.model.tokenizer else 64,
            warmup=max(steps // 15, 1),
            evaluate_every=50,
            validation_items=len(self.seen),
            max_tokens=self.reading.max_tokens,
            layout=self.reading.layout,
        )

    def packed(self, prefix: PrefixKV) -> Left:
        """Pack it as PEFT has it, or head by head."""
        source = str(self.source.folder)
        if not self.peft:
            return PrunedPrefixContext.of(prefix, pruned_from=source)
        keys, values = ([x[0].detach().clone() for x in part if x is not None] for part in (prefix.keys, prefix.values))
        return KVPrefixContext(keys, values, length=keys[0].shape[1], pruned_from=source)

    def artefact(self, left: Left, test_items: int, seed: int, **asked: Any) -> Record:
        """Measure what is left as what is tuned is measured, and return what is kept beside its tensors.

        ``asked`` is what else the result hangs on.
        """
        model, task, before = self.model, self.task, self.source.record
        plan = replace(self._plan(), validation_items=len(self.seen) + len(self.unseen))
        found = measured(model, task, self.standard.marking, plan, left, test_items, seed)
        made = KVPrefix() if self.peft else PrunedPrefix()
        of = {"pruned": before.identity if before else str(self.source.folder), "task": identity_of(task)}
        return artefact_alone(
            model,
            task,
            plan,
            left,
            found,
            method=made.name,
            role="pruned",
            rung=made.rung.label,
            deployment=made.deployment,
            identity=identity(of | dict(asked) | {"model": model.identity}),
            size=left.size(),
            seed=seed,
            setting=left.setting,
        )


def _record(done: Pruned, chosen: tuple[int, ...], length: int, whole: KVPrefixContext, left: Left) -> dict[str, Any]:
    """Record what was done, with tokens and numbers counted in the prefix that was given."""
    kept = [chosen[i] for i in done.kept]
    return asdict(done) | {
        "kept": kept,
        "dropped": [i for i in range(length) if i not in kept],
        "numbers_before": sum(x.numel() for x in whole.parameters()),
        "pairs_before": done.pairs_before * length // len(chosen),
        "bytes_before": whole.bytes_stored(),
        "bytes_after": left.bytes_stored(),
    }


def pruning_summary(record: dict[str, Any]) -> str:
    """Say what was saved and what it cost, in a few lines for a person."""
    tokens, lost = len(record["kept"]) + len(record["dropped"]), record["test_before"] - record["test_after"]
    lines = [
        f"dropped {len(record['dropped'])} of {tokens} virtual tokens, and {len(record['silent'])} of "
        f"{record['heads']} heads see none: {record['numbers_before']:,} numbers are now "
        f"{record['numbers_after']:,} ({1 - record['numbers_after'] / record['numbers_before']:.0%} saved).",
        f"{record['score']}: validation {record['score_before']:.3f} -> {record['score_after']:.3f}, "
        f"test {record['test_before']:.3f} -> {record['test_after']:.3f} on {record['test_items']:,} items.",
    ]
    if record["trained_steps"]:
        lines.append(
            f"Half could not be dropped as it was; what is left was trained on for {record['trained_steps']} steps."
        )
    if lost > record["margin"]:
        lines.append(f"The test split loses more than the margin of {record['margin']:g}: give more --items.")
    if not record["peft"]:
        lines.append("PEFT cannot load this one (heads keep different tokens); --peft drops whole tokens only.")
    return "\n".join([*lines, f"adapter: {record['adapter']}"])
