"""Which arms can still change a label that stands, and whose turn it is."""

from types import SimpleNamespace
from typing import Any

import pytest

from elicitable.methods.catalog import method_named
from elicitable.race import seeds, stakes


def arm(method: str, low: float = 0.0, mean: float = 0.0) -> Any:
    return SimpleNamespace(
        method=method, rung=method_named(method).rung, low=low, mean=mean, raw_mean=None, is_control=False
    )


def standing(monkeypatch: pytest.MonkeyPatch, label: str, *compared: Any, answer: str = "") -> None:
    decision = SimpleNamespace(
        compared=compared, answer=answer, is_open=label in ("inconclusive", "context"), label=label
    )
    monkeypatch.setattr(stakes, "_decided", lambda race, entries: decision)
    monkeypatch.setattr(stakes, "_scored", lambda race, entries: [one.arm for one in compared])
    monkeypatch.setattr(stakes, "is_out_of_reach", lambda race, entry, entries: False)


def behind(method: str, high: float, low: float, mean: float) -> Any:
    return SimpleNamespace(arm=arm(method, low, mean), high=high, standing="enough")


def racing(method: str, steps: int = 32) -> Any:
    return SimpleNamespace(
        method=method_named(method), is_racing=True, is_tested=False, line=SimpleNamespace(steps=steps)
    )


def matters(monkeypatch: pytest.MonkeyPatch, method: str, ceiling: float = 1.0) -> bool:
    monkeypatch.setattr(stakes, "_highest", lambda race, entry, entries: ceiling)
    return stakes.can_matter(SimpleNamespace(margin=0.02), racing(method), [])  # type: ignore[arg-type]


def test_another_arm_of_the_answers_rung_changes_a_label_only_where_it_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer-prefix was trained to its end beside a kv-prefix that had everything right."""
    compared = behind("kv-prefix", 0.018, 0.97, 0.985), behind("lora", 0.0, 0.98, 0.99)
    standing(monkeypatch, "prefix", *compared, answer="kv-prefix")
    assert [matters(monkeypatch, name) for name in ("soft-prompt", "layer-prefix", "full")] == [True, False, True]
    standing(monkeypatch, "context", *compared, answer="kv-prefix")
    assert matters(monkeypatch, "layer-prefix"), "were it the best, the open one below might be worse"


@pytest.mark.parametrize(
    ("low", "ceiling", "expected"),
    [
        (0.985, 1.0, False),  # 1.5 points are left above the answer, whatever the best arm's own errors add
        (0.975, 1.0, True),  # 2.5 points
        (0.975, 0.994, False),  # 1.9 points
    ],
)
def test_no_arm_leaves_an_answer_behind_that_is_within_the_margin_of_all_there_is(
    monkeypatch: pytest.MonkeyPatch, low: float, ceiling: float, expected: bool
) -> None:
    compared = behind("kv-prefix", 0.0195, low, 0.99), behind("lora", 0.0, 0.99, 0.993)
    standing(monkeypatch, "prefix", *compared, answer="kv-prefix")
    assert matters(monkeypatch, "full", ceiling) is expected


@pytest.mark.parametrize(("low", "expected"), [(0.005, False), (0.015, True)])
def test_an_arm_matters_that_may_settle_that_an_open_context_is_worse(
    monkeypatch: pytest.MonkeyPatch, low: float, expected: bool
) -> None:
    """The prefix cannot be left behind. A point beyond LoRA, full training would leave the soft prompt behind."""
    soft = SimpleNamespace(arm=arm("soft-prompt", 0.95, 0.965), low=low, high=0.035, standing="open")
    compared = soft, behind("kv-prefix", 0.018, 0.985, 0.989), behind("lora", 0.0, 0.98, 0.99)
    standing(monkeypatch, "context", *compared, answer="kv-prefix")
    assert [matters(monkeypatch, name) for name in ("layer-prefix", "full")] == [expected, expected]
    assert not matters(monkeypatch, "full", ceiling=0.99)


def test_once_the_task_is_solved_what_is_no_context_waits_for_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A steering vector was trained beside a kv-prefix that made it needless."""
    standing(monkeypatch, "weights", behind("lora", 0.0, 0.99, 1.0), answer="lora")
    monkeypatch.setattr(stakes, "is_ready", lambda race, entry: False)
    steering, prefix, full = racing("steering", 16), racing("kv-prefix", 64), racing("full", 16)
    for quickest, expected in ((None, ["steering", "kv-prefix", "full"]), (32, ["kv-prefix", "steering", "full"])):
        race: Any = SimpleNamespace(quickest=quickest)
        turns = sorted((prefix, full, steering), key=lambda one: stakes.urgency(race, one, []))
        assert [one.method.name for one in turns] == expected


def test_no_seed_of_the_best_arm_is_run_where_the_answer_is_within_the_margin_of_all_there_is() -> None:
    best, answer = arm("lora", 0.99, 0.997), arm("kv-prefix", 0.985, 0.992)
    entries: Any = [SimpleNamespace(method=method_named(name), records=[None]) for name in ("lora", "kv-prefix")]
    race: Any = SimpleNamespace(margin=0.02, marking=SimpleNamespace(scorer=SimpleNamespace(highest=1.0)))
    for low, expected in ((0.985, ["kv-prefix"]), (0.975, ["lora", "kv-prefix"])):
        answer.low = low
        compared = [SimpleNamespace(arm=one, standing="enough") for one in (best, answer)]
        decision: Any = SimpleNamespace(compared=compared, answer="kv-prefix", about="kv-prefix", is_open=False)
        best.rung = SimpleNamespace(depth=3)
        answer.rung = SimpleNamespace(depth=1)
        assert [one.method.name for one in seeds._rivals(race, decision, entries)] == expected
