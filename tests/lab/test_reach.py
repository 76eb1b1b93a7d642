"""One token as the whole input: what it writes, what it can be trained to write, and records that go on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import elicitable as el
from elicitable.errors import BudgetError, InputError, StoreError, UnknownNameError
from elicitable.lab import reach
from elicitable.lab.reach import best_rate, by_rate, token_reach
from elicitable.lab.targets import sampled_targets
from elicitable.models.architectures import tiny_model
from elicitable.models.model import Model
from elicitable.models.speed import processor
from elicitable.records.reach import TokenReach
from elicitable.records.store import Store
from elicitable.rng import torch_generator
from elicitable.training.virtual_tokens import FittedTokens, continue_greedily, fit_virtual_tokens

VOCAB, WIDTH = 64, 32


@pytest.fixture(scope="module")
def model() -> Model:
    """A random llama, in float64 so that no two logits are near enough for rounding to choose between them."""
    tiny = Model(tiny_model("llama"), name="tiny")
    assert (tiny.anatomy.vocab, tiny.anatomy.d_model) == (VOCAB, WIDTH)
    return tiny


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several records of each kind, and a sweep of moments."""
    for name, value in {"HARD_CHUNK": 20, "VIRTUAL_CHUNK": 2, "SWEEP_TARGETS": 2, "SWEEP_STEPS": 10}.items():
        monkeypatch.setattr(reach, name, value)


@torch.no_grad()
def rerun(model: Model, first: torch.Tensor, length: int, after: tuple[int, ...] = ()) -> torch.Tensor:
    """(row, length) greedy ids, the whole text read anew for every token: no cache, one row at a time."""
    rows = []
    start = model.hf.get_input_embeddings()(torch.tensor(after, dtype=torch.long))[None]
    for token in first:
        text = token[None, None] if token.ndim else model.hf.get_input_embeddings()(token)[None, None]
        text = torch.cat([start, text], dim=1)
        written: list[torch.Tensor] = []
        for _ in range(length):
            written.append(model.hf(inputs_embeds=text, use_cache=False).logits[0, -1].argmax())
            text = torch.cat([text, model.hf.get_input_embeddings()(written[-1])[None, None]], dim=1)
        rows.append(torch.stack(written))
    return torch.stack(rows)


def test_a_batch_with_a_cache_writes_what_single_rows_write_without_one(model: Model) -> None:
    ids = torch.arange(VOCAB)
    written = continue_greedily(model, ids, 5)
    assert torch.equal(written, rerun(model, ids, 5))
    virtual = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(continue_greedily(model, virtual, 5), rerun(model, virtual, 5))
    after = (9, 3)
    assert torch.equal(continue_greedily(model, ids, 5, after), rerun(model, ids, 5, after))
    assert torch.equal(continue_greedily(model, virtual, 5, after), rerun(model, virtual, 5, after))


def test_a_virtual_token_that_is_a_hard_token_writes_the_same(model: Model) -> None:
    embeddings = model.hf.get_input_embeddings().weight.detach()
    assert torch.equal(continue_greedily(model, embeddings, 5), continue_greedily(model, torch.arange(VOCAB), 5))


def test_trained_tokens_write_their_targets_and_the_model_is_as_it_was(model: Model) -> None:
    targets = torch.randint(VOCAB, (8, 2), generator=torch.Generator().manual_seed(3))
    start = model.hf.get_input_embeddings().weight.detach()[:8]
    before = copy.deepcopy(model.hf.state_dict())
    rounds: list[tuple[int, int]] = []
    tell = lambda *seen: rounds.append(seen)  # noqa: E731
    fitted = fit_virtual_tokens(model, targets, start, torch.full((8,), 0.1), steps=200, after=(1,), progress=tell)
    assert fitted.reached.sum() >= 6
    written = rerun(model, fitted.vectors, 2, (1,))
    assert torch.equal(written, fitted.written)
    assert torch.equal(fitted.reached, (written == targets).all(dim=1))
    assert rounds[-1] == (rounds[-1][0], int(fitted.reached.sum()))
    assert all(torch.equal(before[name], weight) for name, weight in model.hf.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in model.hf.parameters())


def test_rows_do_not_see_each_other_and_each_has_its_own_rate(model: Model) -> None:
    targets = torch.tensor([[1, 2, 3], [4, 5, 6]])
    start = model.hf.get_input_embeddings().weight.detach()[:2]
    both = fit_virtual_tokens(model, targets, start, torch.tensor([0.01, 0.1]), steps=5)
    alone = fit_virtual_tokens(model, targets[1:], start[1:], torch.tensor([0.1]), steps=5)
    # products of one and of two rows may be summed in another order: 1e-9 is far above float64's rounding
    torch.testing.assert_close(both.vectors[1:], alone.vectors, rtol=1e-9, atol=1e-9)
    moved = (both.vectors - start).abs().amax(dim=1)
    assert 5 * moved[0] < moved[1]


def test_what_a_hard_token_writes_is_reached_from_it_at_the_first_look(model: Model) -> None:
    targets = continue_greedily(model, torch.arange(4), 5)
    start = model.hf.get_input_embeddings().weight.detach()[:4]
    fitted = fit_virtual_tokens(model, targets, start, torch.full((4,), 1e-3), steps=1)
    assert fitted.steps.tolist() == [1] * 4


def test_no_steps_worth_the_name_reach_nothing(model: Model) -> None:
    targets = torch.randint(VOCAB, (4, 10), generator=torch.Generator().manual_seed(4))
    fitted = fit_virtual_tokens(model, targets, torch.zeros(4, WIDTH), torch.full((4,), 1e-3), steps=2)
    assert fitted.steps.tolist() == [0] * 4
    assert torch.equal(fitted.written, rerun(model, fitted.vectors, 10))


def test_all_hard_tokens_are_counted(model: Model) -> None:
    whole = token_reach(model, hard_tokens="all", virtual_tokens=1, length=3, steps=1)
    assert (whole.start, model.hf.config.bos_token_id) == ("1", 1)
    found = whole.hard
    written = [tuple(row) for row in rerun(model, torch.arange(VOCAB), 3, (1,)).tolist()]
    assert (found.distinct.sampled, found.distinct.population) == (VOCAB, VOCAB)
    assert found.distinct.distinct == len(set(written)) == found.distinct.high
    assert found.shared[0][1] == max(map(written.count, written)) > 1


def without_time(found: TokenReach) -> TokenReach:
    return replace(
        found, seconds=0.0, hard=replace(found.hard, seconds=0.0), virtual=replace(found.virtual, seconds=0.0)
    )


class Calls:
    """Counts what is really computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hard: list[int] = []
        self.virtual: list[int] = []
        monkeypatch.setattr(reach, "continue_greedily", self._hard)
        monkeypatch.setattr(reach, "fit_virtual_tokens", self._virtual)

    def _hard(self, model: Model, first: torch.Tensor, *given: Any) -> torch.Tensor:
        self.hard.append(len(first))
        return continue_greedily(model, first, *given)

    def _virtual(self, model: Model, targets: torch.Tensor, *given: Any, **more: Any) -> Any:
        self.virtual.append(len(targets))
        return fit_virtual_tokens(model, targets, *given, **more)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def test_a_run_that_is_cut_off_goes_on_after_its_last_record(model: Model, calls: Calls, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"hard_tokens": 50, "virtual_tokens": 5, "length": 2, "steps": 20}
    whole = token_reach(model, **asked)
    first, swept = [20, 20, 10], 2 * len(reach.RATES)
    assert (calls.hard, calls.virtual) == (first, [swept, 2, 2, 1])

    def cut(what: str, share: float) -> None:
        if what.startswith("virtual tokens 3-4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        token_reach(model, **asked, out=tmp_path, progress=cut)
    calls.hard, calls.virtual, told = [], [], list[tuple[str, float]]()
    resumed = token_reach(model, **asked, out=tmp_path, progress=lambda what, share: told.append((what, share)))
    assert (calls.hard, calls.virtual) == ([], [2, 1])
    begun = [share for what, share in told if what.startswith("virtual") and "step 0" in what]
    assert begun == pytest.approx([0.0, 2 / 3])  # of what was not kept
    assert told[-1] == ("done", 1.0)
    assert without_time(resumed) == without_time(whole)
    assert token_reach(model, **asked, out=tmp_path) == resumed
    assert calls.virtual == [2, 1]


def test_a_larger_sample_continues_a_smaller_one(model: Model, calls: Calls, tmp_path: Path) -> None:
    token_reach(model, hard_tokens=40, virtual_tokens=2, length=2, steps=2, out=tmp_path)
    calls.hard, calls.virtual = [], []
    token_reach(model, hard_tokens="all", virtual_tokens=4, length=2, steps=2, out=tmp_path)
    assert (calls.hard, calls.virtual) == ([20, 4], [2])


def test_what_changes_a_result_is_computed_anew(model: Model, calls: Calls, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"hard_tokens": 20, "virtual_tokens": 2, "length": 2, "steps": 2, "out": tmp_path}
    token_reach(model, **asked)
    for change in (
        {"seed": 1},
        {"length": 3},
        {"steps": 3},
        {"targets": "random"},
        {"time_limit": 600.0},
        {"with_start": False},
    ):
        calls.virtual = []
        token_reach(model, **{**asked, **change})
        assert calls.virtual[-1] == 2, change


def test_the_rate_is_chosen_on_targets_that_are_not_scored(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def watched(model: Model, targets: torch.Tensor, *given: Any, **more: Any) -> Any:
        seen.append(targets)
        return fit_virtual_tokens(model, targets, *given, **more)

    monkeypatch.setattr(reach, "fit_virtual_tokens", watched)
    found = token_reach(model, virtual_tokens=4, length=10, steps=2, targets="random").virtual
    swept = {tuple(row) for row in seen[0].tolist()}
    scored = {tuple(row) for targets in seen[1:] for row in targets.tolist()}
    assert (len(swept), len(scored)) == (reach.SWEEP_TARGETS, 4)
    assert not swept & scored
    assert found.learning_rate == best_rate(found.sweep)


def test_a_rate_that_reaches_more_wins_over_a_lower_loss() -> None:
    steps, losses = torch.tensor([20, 20, 40, 0, 0, 0]), torch.tensor([0.9, 0.9, 0.1, 0.1, 0.5, torch.inf])
    fitted = FittedTokens(torch.zeros(6, 4), torch.zeros(6, 2), steps, losses)
    swept = by_rate(fitted, (0.01, 0.03, 0.1))
    assert [entry["reached"] for entry in swept] == [2, 1, 0]
    assert best_rate(swept) == 0.01
    assert best_rate(swept[1:]) == 0.03
    assert best_rate([{**swept[0], "reached": 1}, swept[1]]) == 0.03


def test_the_hit_rate_counts_exact_answers_and_has_an_interval(model: Model) -> None:
    found = token_reach(model, virtual_tokens=6, length=2, steps=60).virtual
    assert found.low <= found.share <= found.high
    assert 0 < min(found.reached, reach.SHOWN) == sum(one.reached for one in found.examples)
    for one in found.examples:
        assert one.reached == (one.continuation == one.target)
    assert found.reached / found.tried <= found.tokens_right <= 1


def test_without_a_start_the_token_is_the_whole_input(model: Model) -> None:
    found = token_reach(model, hard_tokens="all", virtual_tokens=1, length=3, steps=1, with_start=False)
    written = {tuple(row) for row in rerun(model, torch.arange(VOCAB), 3).tolist()}
    assert (found.start, found.hard.distinct.distinct) == ("", len(written))


def test_targets_of_the_model_follow_its_probabilities(model: Model) -> None:
    drawn = sampled_targets(model, 4000, 1, torch_generator(0, "test"))[:, 0]
    with torch.no_grad():
        shares = model.hf(input_ids=torch.arange(VOCAB)[:, None]).logits[:, -1].softmax(-1).mean(dim=0)
    observed = torch.bincount(drawn, minlength=VOCAB) / 4000
    # the largest of 64 binomial deviations: 5 standard deviations of the widest
    assert float((observed - shares).abs().max()) < 5 * float((shares * (1 - shares)).max() / 4000) ** 0.5
    again = sampled_targets(model, 4000, 1, torch_generator(0, "test"))[:, 0]
    assert torch.equal(drawn, again)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hard_tokens": 0}, "hard_tokens must be a positive whole number or 'all', got 0"),
        ({"hard_tokens": "some"}, "hard_tokens must be a positive whole number or 'all', got 'some'"),
        ({"virtual_tokens": True}, "virtual_tokens must be a positive whole number, got True"),
        ({"length": 1.5}, "length must be a positive whole number, got 1.5"),
        ({"steps": -1}, "steps must be a positive whole number, got -1"),
        ({"time_limit": 0.0}, "time_limit must be a positive number of seconds, got 0.0"),
        ({"length": 10**6}, "length must be at most [0-9]+, what tiny has positions for, got 1000000"),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_name(model: Model, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        token_reach(model, **given)


def test_names_places_and_times_that_cannot_be_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        token_reach(model, targets="randon")
    with pytest.raises(BudgetError, match="ended before all tokens had their turn"):
        token_reach(model, time_limit=1e-9)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written to"):
        token_reach(model, out=tmp_path / "file")


def test_a_time_limit_ends_the_training_and_what_is_there_is_scored(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Iterator[float] = iter(range(10**6))
    monkeypatch.setattr("elicitable.lab.reach.time.monotonic", lambda: float(next(clock)))
    found = token_reach(model, virtual_tokens=2, length=10, steps=10**6, time_limit=60.0, targets="random")
    assert found.virtual.tried == 2


@pytest.mark.slow
def test_smollm2_can_be_made_to_write_what_it_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "SWEEP_STEPS", 20)
    found = token_reach(el.load("smollm2"), hard_tokens=40, virtual_tokens=2, length=3, steps=150)
    assert found.hard.distinct.distinct > 20
    assert found.virtual.reached == 2
    assert all(one.target == one.continuation for one in found.virtual.examples)


def test_every_part_says_on_which_kind_of_processor_it_was_made(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provenance named the kind of the last sitting alone, and the parts none."""
    own = processor.kind()
    asked: dict[str, Any] = {"virtual_tokens": 2, "length": 2, "steps": 10, "targets": "random", "out": tmp_path}
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(processor, "kind", lambda device=None: "avx2")
        first = token_reach(model, hard_tokens=20, **asked)
    found = token_reach(model, hard_tokens=40, **asked)
    assert first.provenance["processor"] == "avx2"
    assert found.provenance["processor"] == f"avx2, {own}"
    parts = list(Store(tmp_path))
    assert sorted(one["processor"] for one in parts) == sorted(["avx2"] * 3 + [own])
    assert {one["device"] for one in parts} == {"cpu"}
