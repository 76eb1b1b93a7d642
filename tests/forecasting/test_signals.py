"""The signals: each against a computation of its own, nothing of the test split, the same numbers every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from elicitable.forecasting import steps
from elicitable.forecasting.answers import batch_of, plan_for, read_base, vector_signals
from elicitable.forecasting.names import SIGNALS
from elicitable.forecasting.pace import Pace
from elicitable.forecasting.reads import OUTPUT, States, read, read_plainly, states_of
from elicitable.forecasting.signals import signals_of
from elicitable.forecasting.steps import Look, Run, arms, first_steps, size_of, step_signals
from elicitable.methods.base import Adaptation
from elicitable.models.inject import use
from elicitable.models.layout import PLAIN
from elicitable.models.model import Model
from elicitable.models.speed import processor
from elicitable.rng import torch_generator
from elicitable.tasks.catalog import task_from
from elicitable.training.evaluate import answer_logits
from elicitable.training.loop import Plan, reading_of, train
from elicitable.values import Item

QUICK = Pace(16, 6, 40, 3, 8, (1, 2), 4, 1, (1, 2, 3))
PLAN = plan_for(PLAIN, 4, None)


class Watched:
    """A task that gives no test item and notes what it is asked for."""

    name = "watched"
    vocab_size = 10

    def __init__(self) -> None:
        self.task = task_from("add-1")
        self.asked: list[str] = []

    def labels(self) -> None:
        return None

    def sample(self, n: int, rng: np.random.Generator) -> list[Item]:
        return self.task.sample(n, rng)

    def held_out(self, split: Any, n: int | None = None) -> list[Item]:
        self.asked.append(split)
        assert split != "test", "a forecast has read the test split"
        return self.task.held_out(split, n)

    def fingerprint(self) -> str:
        return "watched"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elicitable.forecasting.signals.pace_for", lambda model: QUICK)


@pytest.mark.usefixtures("quick")
def test_signals_are_the_same_every_time_and_read_no_test_item(digits_model: Callable[..., Model]) -> None:
    model, task = digits_model(10, dtype=torch.float32), Watched()
    before = model.fingerprint
    one = signals_of(model, task)
    assert set(task.asked) == {"validation"}
    assert list(one.values) == list(SIGNALS)
    assert all(math.isfinite(value) for value in one.values.values())
    assert dict(signals_of(model, Watched()).values) == dict(one.values)
    assert dict(signals_of(model, Watched(), seed=1).values) != dict(one.values)
    assert model.fingerprint == before
    with pytest.raises(AssertionError, match="test split"):
        Watched().held_out("test")


@pytest.mark.usefixtures("quick")
def test_signals_are_there_where_bfloat16_is_quicker_too(
    digits_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "kind", lambda device=None: "amx")  # any other processor computes the same, slowly
    found = signals_of(digits_model(10, dtype=torch.float32), Watched()).values
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.usefixtures("quick")
def test_signals_of_a_text_task_with_labels(letters_model: Callable[..., Model]) -> None:
    rows = [{"text": f"a {word} thing", "label": label} for word, label in (("good", "yes"), ("bad", "no")) * 40]
    task = task_from([{**row, "text": f"{row['text']} {nth}".translate({48 + d: 97 + d for d in range(10)})}
                      for nth, row in enumerate(rows)])  # fmt: skip
    model = letters_model(dtype=torch.float32)
    found = signals_of(model, task).values
    assert found["is_text"] == 1.0
    assert found["labels"] == pytest.approx(math.log2(3))
    assert all(math.isfinite(value) for value in found.values())


def test_the_base_is_what_every_token_by_itself_says(digits_model: Callable[..., Model]) -> None:
    model, items = digits_model(10), task_from("add-1").held_out("validation", 20)
    base = read_base(model, task_from("add-1"), items, PLAN)
    nats, hits, ranks = [], [], []
    for item in items:
        ids = torch.tensor([[*item.prompt, *item.target]])
        log = model.hf(input_ids=ids).logits[0, 9:-1].log_softmax(-1).detach()
        for row, token in zip(log, item.target, strict=True):
            nats.append(-float(row[token]))
            place = 1 + int((row > row[token]).sum())
            hits.append(place == 1)
            ranks.append(1 / place)
    assert base.nats == pytest.approx(np.mean(nats), rel=1e-12)
    assert base.token_score == pytest.approx(np.mean(hits), rel=1e-12)
    assert base.rank == pytest.approx(np.mean(ranks), rel=1e-12)
    assert base.score == pytest.approx(np.mean([all(hits[10 * n : 10 * n + 10]) for n in range(20)]))


def test_the_calibrated_likelihood_takes_its_temperature_from_the_other_half(
    digits_model: Callable[..., Model],
) -> None:
    model, items = digits_model(10, spread=2.0), task_from("add-1").held_out("validation", 20)
    base = read_base(model, task_from("add-1"), items, PLAN)
    batch = batch_of(model, items, reading_of(PLAN, Adaptation()))
    with torch.no_grad():
        logits = answer_logits(model, batch).double()
    right = batch.targets[..., None]
    table = {t: -(logits / t).log_softmax(-1).gather(2, right)[..., 0] for t in (2 ** (s / 2) for s in range(-6, 9))}
    halves = [{t: float(nats[half::2].sum()) for t, nats in table.items()} for half in (0, 1)]
    best = [min(half, key=half.__getitem__) for half in halves]
    assert base.calibrated_nats == pytest.approx((halves[1][best[0]] + halves[0][best[1]]) / 200, rel=1e-12)
    assert base.calibrated_nats < base.nats  # the weights are large, so the model is far too sure


def test_a_vector_that_is_the_same_for_all_items_is_seen_as_one(digits_model: Callable[..., Model]) -> None:
    class Moved(Adaptation):
        def __init__(self, vectors: Sequence[torch.Tensor]) -> None:
            super().__init__()
            self.vectors = vectors

        def weights(self, model: Model) -> Any:
            def add(module: Any, args: Any, output: Any) -> Any:
                moved = torch.stack(list(self.vectors))[:, None]
                return (output[0] + moved, *output[1:]) if isinstance(output, tuple) else output + moved

            return model.anatomy.blocks[-1].register_forward_hook(add)

    model, items = digits_model(10), task_from("add-1").held_out("validation", 8)
    one = torch.ones(16, dtype=torch.float64)
    alike = vector_signals(model, items, Moved([one] * 8), PLAN)
    assert alike["vector_share"] == pytest.approx(1.0)
    apart = vector_signals(model, items, Moved([one * 0 + torch.eye(16)[n] for n in range(8)]), PLAN)
    assert apart["vector_share"] == pytest.approx(0.0, abs=1e-12)
    assert apart["vector_rank"] == pytest.approx(math.log(8) / 2)  # eight directions in one layer, none in the other
    assert vector_signals(model, items, None, PLAN) == {"vector_share": 0.0, "vector_rank": 0.0}


def test_the_first_steps_are_those_of_one_run(digits_model: Callable[..., Model]) -> None:
    model, task = digits_model(10, dtype=torch.float32), task_from("add-1")
    for method in arms().values():
        runs = first_steps(model, task, method, (2, 5, 7), 2, PLAN, 0)
        assert [len(run.looks) for run in runs].count(3) == 1  # behind the second look the better one goes on
        for run in runs:
            built = method.build(model, size_of(model, method), seed=0, **method.start(model))
            leg = {"steps": run.looks[-1].steps, "batch": 4, "warmup": steps.WARMUP, "evaluate_every": steps.NEVER}
            decay = method.schedule.weight_decay if method.schedule else 0.0
            plan = Plan(run.learning_rate, cooldown=0.0, weight_decay=decay, **leg)
            fit = train(model, built, task, plan, 0)
            assert fit.latest is not None
            assert fit.latest.loss_nats == run.looks[-1].nats
        longest = max(runs, key=lambda run: len(run.looks))
        assert longest.looks[1].nats == min(run.looks[1].nats for run in runs)


def test_a_run_that_diverges_counts_as_what_it_was_before() -> None:
    fine, lost = Run(0.1, (Look(8, 1.0, 0.1), Look(32, 0.5, 0.2))), Run(1.0, ())
    found = step_signals("arm", 2.0, [fine, lost], 2)
    assert (found["arm_gone_1"], found["arm_gone_2"], found["arm_score"]) == (0.5, 0.75, 0.2)
    nothing = step_signals("arm", 2.0, [lost], 2)
    assert (nothing["arm_gone_1"], nothing["arm_gone_2"], nothing["arm_score"]) == (-1.0, -1.0, 0.0)
    assert all(math.isfinite(value) for value in nothing.values())


def states(x: torch.Tensor, targets: torch.Tensor, steps_of_each: int) -> States:
    count = len(targets)
    owners, places = torch.arange(count) // steps_of_each, torch.arange(count) % steps_of_each
    return States({OUTPUT: x, "heads": x}, targets, owners, places)


def test_what_is_in_a_state_is_read_and_what_is_not_is_not() -> None:
    drawn = torch_generator(0, "states")
    x = torch.randn(600, 6, generator=drawn, dtype=torch.float64)
    there = (x[:, 0] > 0).long()  # linear in x
    chance = torch.randint(0, 2, (600,), generator=drawn)
    assert read_plainly(states(x[:400], there[:400], 2), states(x[400:], there[400:], 2)).tokens > 0.93
    assert abs(read_plainly(states(x[:400], chance[:400], 2), states(x[400:], chance[400:], 2)).tokens - 0.5) < 0.12
    by_step = torch.where(torch.arange(600) % 2 == 0, there, chance)  # the second step is nowhere in x
    found = read(states(x[:400], by_step[:400], 2), states(x[400:], by_step[400:], 2), "heads")
    assert found.worst < 0.65
    assert 0.65 < found.tokens < 0.85
    assert found.answers < 0.7


def test_the_states_are_those_of_the_model(digits_model: Callable[..., Model]) -> None:
    model, items = digits_model(10), task_from("add-1").held_out("validation", 3)
    found = states_of(model, items, reading_of(PLAN, Adaptation()))
    ids = torch.tensor([[*items[1].prompt, *items[1].target[:-1]]])
    seen: list[torch.Tensor] = []
    hooks = [
        block.attn.c_proj.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        for block in model.hf.transformer.h
    ]
    with torch.no_grad(), use(model, []):
        last = model.hf(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    for hook in hooks:
        hook.remove()
    own = found.owners == 1
    assert found.targets[own].tolist() == list(items[1].target)
    assert torch.allclose(found.places[OUTPUT][own], last[0, 9:], atol=1e-12)
    for layer in (0, 1):
        assert torch.allclose(found.places[f"layer {layer}"][own], seen[layer][0, 9:], atol=1e-12)
