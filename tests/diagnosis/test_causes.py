"""Why a context falls short, from experiments made by hand: every cause, and what must not be taken for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from elicitable.diagnosis.causes import NO_TIME, Cause, Diagnosis, Experiment, Kind, experiment_of
from elicitable.diagnosis.explaining import explain
from elicitable.diagnosis.sizes import size_curve
from elicitable.diagnosis.verdict import Terms, compare, is_near_the_floor

from .test_verdict import arm

BEST = arm("full", 950)
SHORT = replace(arm("kv-prefix", 500), learning_rate=0.1)
GAP = 0.45
SAID_FOR_SURE = ("does it", "exists", "can do it,")


def tried(kind: Kind, right: int, of: str = "kv-prefix", what: str = "", **more: object) -> Experiment:
    """An experiment that has so many of 1,000 items right, compared as the race compares."""
    compared = compare(BEST, arm("kv-prefix", right), 0.02, Terms(0))
    return experiment_of(of, kind, what or f"{kind} {right}", compared, GAP, **more)


def ended(right: int, stopped: str = "plateau") -> Experiment:
    """The unbounded context, trained until nothing got better."""
    return replace(tried("unbounded", right, ""), stopped=stopped, is_exact=True)


def why(*found: Experiment, floor: float = 0.1, **more: Any) -> Diagnosis:
    return explain(SHORT, BEST, found, margin=0.02, floor=floor, **more)


@pytest.mark.parametrize(
    ("kind", "of", "cause"),
    [
        ("reading", "", "reading"),
        ("rate", "kv-prefix", "optimisation"),
        ("longer", "kv-prefix", "optimisation"),
        ("start", "kv-prefix", "optimisation"),
        ("size", "kv-prefix", "capacity"),
    ],
)
def test_what_closes_the_gap_is_the_cause(kind: Kind, of: str, cause: Cause) -> None:
    found = why(tried(kind, 945, of), tried("unbounded", 940, ""))
    assert (found.cause, found.is_sure) == (cause, True)
    assert found.remedy is not None
    assert found.remedy.kind == kind
    assert why(tried(kind, 560, of)).cause != cause  # an eighth of the gap


def test_a_context_that_is_enough_after_all_overrules_a_verdict_that_asks_for_weights() -> None:
    enough = tried("rate", 948)
    assert enough.is_enough
    assert "they can stay" in why(enough, asks_for_weights=True).sentences[-1]
    assert "can stay" not in why(enough).sentences[-1]
    assert "can stay" not in why(tried("rate", 760), asks_for_weights=True).sentences[-1]  # a part of the gap


def test_a_remedy_that_passes_the_best_arm_is_said_beside_what_that_one_scores() -> None:
    """With 1.00 it closed "100% of its gap to full", which had 0.21."""
    assert "of its gap to full (0.95)" in why(tried("size", 990)).sentences[0]


def test_the_remedy_that_costs_a_person_least_is_named() -> None:
    everything = [tried("size", 950), tried("longer", 945), tried("reading", 946, "")]
    assert why(*everything).cause == "reading"
    assert why(*everything[:2]).cause == "optimisation"
    assert why(*everything[:1]).cause == "capacity"


def test_where_another_rate_more_steps_and_another_start_do_nothing_and_more_tokens_do_it_is_capacity() -> None:
    nothing = [tried("rate", 505), tried("longer", 510), tried("start", 500)]
    found = why(*nothing, tried("size", 700, what="with 4 tokens"), tried("size", 948, what="with 16 tokens"))
    assert (found.cause, found.is_sure) == ("capacity", True)
    assert found.remedy is not None
    assert found.remedy.what == "with 16 tokens"
    assert "too few virtual tokens" in found.sentences[1]
    likely = why(*nothing, tried("size", 760, what="with 4 tokens"), tried("size", 800, what="with 16 tokens"))
    assert (likely.cause, likely.is_sure) == ("capacity", False)  # two thirds of the gap


def test_where_even_the_unbounded_context_falls_short_it_is_structure_for_sure() -> None:
    found = why(tried("rate", 510), tried("size", 520), ended(590), ended(600), tried("weights", 948, "", "the MLP"))
    assert (found.cause, found.is_sure) == ("structure", True)
    assert "no context can give" in " ".join(found.sentences)
    assert "the MLP alone is enough" in " ".join(found.sentences)


def test_an_unbounded_context_that_still_gets_better_makes_it_likely_and_no_more() -> None:
    found = why(tried("size", 520), ended(600, "steps"))
    assert (found.cause, found.is_sure) == ("structure", False)
    assert "still gets better" in " ".join(found.sentences)


def test_an_unbounded_context_that_is_worse_than_the_context_itself_was_not_trained_and_says_nothing() -> None:
    found = why(tried("size", 520), tried("unbounded", 300, ""))
    assert (found.cause, found.is_sure) == ("structure", False)
    assert "no context can give" not in " ".join(found.sentences)


def test_where_the_unbounded_context_does_it_the_context_is_too_small_or_not_found() -> None:
    assert why(tried("size", 700), tried("longer", 510), tried("unbounded", 948, "")).cause == "capacity"
    assert why(tried("size", 400), tried("longer", 510), tried("unbounded", 948, "")).cause == "optimisation"


def test_most_of_a_gap_is_a_likely_cause() -> None:
    found = why(tried("longer", 850), tried("size", 510))
    assert (found.cause, found.is_sure) == ("optimisation", False)
    assert "78%" in found.sentences[0]  # (0.45 − 0.10) / 0.45
    assert found.remedy is not None
    assert found.remedy.closed == pytest.approx((GAP - 0.1) / GAP)


def test_where_nothing_beats_one_answer_it_is_the_data() -> None:
    low = arm("full", 110)
    assert is_near_the_floor(low, 0.1, 1.0, 0.02)
    learned = Experiment("", "by-heart", "full on its rows", mean=1.0)
    found = explain(arm("kv-prefix", 100), low, [learned, tried("size", 950)], margin=0.02, floor=0.1)
    assert (found.cause, found.is_sure) == ("data", True)
    assert "by heart" in found.sentences[1]
    alone = explain(arm("kv-prefix", 100), low, [], margin=0.02, floor=0.1, had_weights=False)
    assert alone.cause == "unknown"  # nothing was there to tell the data by


def test_rows_that_are_not_learned_by_heart_are_the_datas_fault_only_where_they_contradict_each_other() -> None:
    """It was called the data, for sure, whether or not any text had several answers."""
    low, learned = arm("full", 110), Experiment("", "by-heart", "full on its rows", mean=0.2, ceiling=1.0)
    found = explain(arm("kv-prefix", 100), low, [learned], margin=0.02, floor=0.1)
    assert (found.cause, found.is_sure) == ("optimisation", False)
    assert "Not even a few rows" in found.sentences[1]
    assert "though each text has one answer" in found.sentences[1]
    several = explain(arm("kv-prefix", 100), low, [replace(learned, ceiling=0.5)], margin=0.02, floor=0.1)
    assert (several.cause, several.is_sure) == ("data", True)
    assert "no more than 0.50 of these rows can be right" in several.sentences[1]


def test_what_closes_a_gap_only_as_far_as_noise_goes_is_no_more_than_likely() -> None:
    """An arm of .77, the best .80, a margin of .02, and a reading of .785 with an interval of .06: it was sure."""
    far, best = arm("kv-prefix", 77, items=100), arm("full", 80, items=100)
    asked = Experiment("", "reading", "asked otherwise", 0.785, 0.725, 0.845, (0.015, -0.07, 0.10), closed=0.5)
    found = explain(far, best, [asked], margin=0.02, floor=0.1)
    assert (found.cause, found.is_sure) == ("reading", False)
    nearly = replace(asked, mean=0.80, low=0.78, high=0.82, behind=(0.0, -0.03, 0.03))
    assert explain(far, best, [nearly], margin=0.02, floor=0.1).is_sure  # all of it, from where the arm cannot be
    sure = Experiment("kv-prefix", "size", "larger", 0.80, 0.7, 0.9, (0.0, -0.01, 0.01), is_enough=True, closed=1.0)
    both = explain(far, best, [asked, sure], margin=0.02, floor=0.1)
    assert (both.cause, both.is_sure) == ("capacity", True)  # what is sure comes before what may be chance


def test_one_failed_try_is_no_structure_where_the_time_was_up() -> None:
    given = [tried("longer", 520), replace(tried("rate", 0), mean=None, behind=(), reason=NO_TIME)]
    assert (why(*given).cause, why(*given, was_asked_all=False).cause) == ("structure", "unknown")
    told = why(*given, ended(600), ended(600), was_asked_all=False)
    assert (told.cause, told.is_sure) == ("structure", True)  # the unbounded context told
    cut = why(*given, ended(600, "time"), was_asked_all=False)
    assert cut.cause == "unknown"
    another = replace(tried("context", 945, "prompt", "kv-prefix"), of="kv-prefix")
    assert why(*given, another, was_asked_all=False).cause == "unknown"


def test_an_unbounded_context_whose_first_layer_is_a_network_tells_no_more_than_likely() -> None:
    rough = [replace(ended(600), is_exact=False)] * 2
    found = why(tried("size", 520), *rough)
    assert (found.cause, found.is_sure) == ("structure", False)
    assert "any context of any length" not in " ".join(found.sentences)
    assert "gets no better from either start: most likely" in " ".join(found.sentences)


def test_an_unbounded_context_that_the_clock_cut_off_is_not_said_to_get_better() -> None:
    half = " ".join(why(tried("size", 520), ended(740, "time")).sentences)
    assert "scores 0.74 when the time was up, so nothing in the form of a context" in half
    assert "gets better" not in half
    short = " ".join(why(tried("size", 520), ended(600), ended(520, "time")).sentences)
    assert "one of its starts cut off by the clock: most likely" in short


@pytest.mark.parametrize(
    ("right", "stopped", "words"),
    [
        (945, "plateau", "it needs no new patterns"),
        (600, "plateau", "it needs new patterns"),
        (600, "behind", "it needs new patterns"),
        (600, "steps", "whether it needs new patterns is not told"),
        (600, "time", "whether it needs new patterns is not told"),
    ],
)
def test_new_patterns_are_needed_only_where_frozen_ones_ended_worse(right: int, stopped: str, words: str) -> None:
    found = why(ended(600), ended(600), replace(tried("frozen-patterns", right, ""), stopped=stopped))
    assert words in " ".join(found.sentences)


def test_frozen_patterns_that_are_not_seen_to_be_worse_tell_nothing() -> None:
    """0.99 beside 1.00, and a difference of −0.01 to 0.03: that was said to need new patterns."""
    near = Experiment("", "frozen-patterns", "frozen", 0.94, 0.92, 0.96, (0.01, -0.01, 0.03), stopped="plateau")
    assert "is not told" in " ".join(why(ended(600), ended(600), near).sentences)


def test_weights_are_said_to_do_it_at_the_budget_of_the_context_only_where_they_do() -> None:
    told = [ended(600), ended(600)]
    large = replace(BEST, budget=replace(BEST.budget, numbers_trained=50_000))
    given = {"margin": 0.02, "floor": 0.1}
    alone = explain(SHORT, large, told, **given)
    assert alone.advice == (
        "Change the weights: full does it, with 500 times the numbers of the context, and nothing with fewer was tried."
    )
    weak = replace(arm("lora", 700), budget=replace(BEST.budget, numbers_trained=104))
    few = tried("subspace", 700, "", "100 numbers anywhere in the weights")
    for more in ({"found": [*told, few]}, {"weights": [weak]}):
        beside = explain(SHORT, large, **{"found": told, **given, **more})
        assert beside.advice.endswith("and nothing that ran does it with fewer.")
    part = replace(tried("weights", 948, "", "the feed-forward layers"), numbers_trained=30_000)
    assert explain(SHORT, large, [*told, part], **given).advice.endswith(
        "full does it. What does it with the fewest numbers is the feed-forward layers: 300 times the numbers of the "
        "context."
    )
    lora = replace(arm("lora", 945), budget=replace(BEST.budget, numbers_trained=104))
    frugal = explain(SHORT, large, told, **given, weights=[lora]).advice
    assert frugal.endswith(
        "full does it. What does it with the fewest numbers is lora: no more numbers than the context."
    )
    few = tried("subspace", 948, "", "100 numbers anywhere in the weights")
    assert "is 100 numbers anywhere" in explain(SHORT, large, [*told, few], **given).advice
    assert explain(SHORT, BEST, told, **given).advice.endswith("full does it, with no more numbers than the context.")


def test_where_the_verdict_is_open_nothing_is_said_of_the_data() -> None:
    low, learned = arm("full", 110), Experiment("", "by-heart", "full on its rows", mean=1.0)
    found = explain(arm("kv-prefix", 100), low, [learned], margin=0.02, floor=0.1, is_open=True)
    assert (found.cause, found.is_sure) == ("unknown", False)
    assert "still open" in found.sentences[1]
    alone = explain(arm("kv-prefix", 100), low, [], margin=0.02, floor=0.1, had_weights=False, is_open=True)
    assert "No method that changes the weights" in alone.sentences[1]


def test_an_unbounded_context_half_way_there_rules_nothing_out_while_it_gets_better() -> None:
    rising, stuck = ended(740, "steps"), ended(740)  # from 500, half of the gap to 950 is at 725
    assert why(tried("size", 520), rising).cause == "optimisation"
    assert "still gets better, so nothing in the form of a context" in " ".join(why(rising).sentences)
    assert (why(tried("size", 520), stuck).cause, why(stuck, stuck).is_sure) == ("structure", True)
    assert why(tried("size", 520), ended(720, "steps")).cause == "structure"


def test_of_two_starts_of_the_unbounded_context_the_better_counts_and_both_must_have_ended() -> None:
    found = why(ended(520), ended(600))
    assert (found.cause, found.is_sure) == ("structure", True)
    assert "scores 0.60" in " ".join(found.sentences)
    assert not why(ended(520, "steps"), ended(600)).is_sure
    assert why(ended(520), ended(948)).cause == "optimisation"


def test_one_of_the_two_starts_of_the_unbounded_context_makes_it_likely_and_no_more() -> None:
    lost = replace(ended(0), mean=None, reason="no time was left for it")
    for found in (why(tried("size", 520), ended(600)), why(tried("size", 520), ended(600), lost)):
        assert (found.cause, found.is_sure) == ("structure", False)
        assert "from one of two starts: most likely" in " ".join(found.sentences)


def test_what_is_about_the_task_closes_each_contexts_own_gap() -> None:
    asked = tried("reading", 720, "")  # of a gap of 0.45 it leaves 0.23: half
    far = replace(arm("soft-prompt", 200), learning_rate=0.1)
    found = explain(far, BEST, [asked], margin=0.02, floor=0.1)
    assert (found.cause, found.is_sure) == ("reading", False)
    assert "69% of its gap" in found.sentences[0]  # 0.52 of 0.75
    assert why(tried("reading", 720, "")).remedy is None  # 0.22 of 0.45


def test_a_context_that_falls_short_of_the_model_as_it_is_asks_for_no_weights() -> None:
    base = arm("zero-shot", 950)
    found = explain(SHORT, base, [tried("size", 520), ended(600), ended(600)], margin=0.02, floor=0.1)
    assert (found.cause, found.is_sure, found.advice) == ("optimisation", False, "Use the model as it is.")
    assert "weights" not in " ".join(found.sentences)


def test_where_another_reading_beats_what_nothing_beat_it_is_the_reading() -> None:
    low, asked = arm("full", 110), tried("reading", 800, "")
    found = explain(arm("kv-prefix", 100), low, [replace(asked, behind=(-0.69, -0.72, -0.66))], margin=0.02, floor=0.1)
    assert (found.cause, found.remedy is not None) == ("reading", True)
    hardly = replace(asked, behind=(-0.02, -0.05, 0.01))
    assert explain(arm("kv-prefix", 100), low, [hardly], margin=0.02, floor=0.1).cause == "data"


def test_another_context_that_suffices_explains_a_text_by_its_search_and_a_trained_one_by_its_kind() -> None:
    another = tried("context", 945, "prompt", "kv-prefix")
    text = explain(arm("prompt", 500), BEST, [another], margin=0.02, floor=0.1)
    assert (text.cause, text.is_sure) == ("optimisation", False)
    assert "--prompt" in text.advice
    assert "skill is there" not in text.sentences[1]  # what the best arm does may be little
    other = replace(another, of="soft-prompt")
    trained = replace(arm("soft-prompt", 500), learning_rate=0.3)
    size = tried("size", 510, of="soft-prompt")
    assert explain(trained, BEST, [other, size], margin=0.02, floor=0.1).cause == "structure"
    assert explain(trained, BEST, [other], margin=0.02, floor=0.1).cause == "unknown"  # nothing was changed about it
    found = explain(trained, BEST, [other, size], margin=0.02, floor=0.1, can_be_another=True)
    assert (found.cause, found.is_sure) == ("optimisation", False)  # a context of its kind does it
    assert "no context" not in " ".join(found.sentences)


@pytest.mark.parametrize(("kind", "cause"), [("rate", "optimisation"), ("size", "capacity"), ("reading", "reading")])
def test_a_remedy_of_part_of_the_gap_is_not_said_to_do_the_task(kind: Kind, cause: Cause) -> None:
    of = "" if kind == "reading" else "kv-prefix"
    sure, likely = why(tried(kind, 945, of)), why(tried(kind, 760, of))
    assert (sure.cause, sure.is_sure, likely.cause, likely.is_sure) == (cause, True, cause, False)
    assert sure.sentences[1] != likely.sentences[1]
    said = [any(words in found.sentences[1] for words in SAID_FOR_SURE) for found in (sure, likely)]
    assert said == [True, False]


def test_experiments_that_did_not_run_say_nothing() -> None:
    lost = [replace(tried("size", 950), reason="no time"), replace(tried("unbounded", 600, ""), reason="no time")]
    assert why(*lost).cause == "unknown"
    assert why(tried("size", 950, of="soft-prompt")).cause == "unknown"  # it is about another context


def test_half_of_a_gain_is_found_on_the_curve_it_came_from() -> None:
    half, slope = 300.0, 1.7
    points = {n: 0.1 + 0.8 / (1 + (half / n) ** slope) for n in (50, 200, 800, 3_200)}
    found = size_curve("a", points, base=0.1, best=0.9)
    assert found.half == pytest.approx(half, rel=0.05)
    assert found.slope == pytest.approx(slope, rel=0.1)
    assert size_curve("a", {10: 0.1, 40: 0.1}, base=0.1, best=0.9).half is None  # nowhere near
    assert size_curve("a", {10: 0.5}, base=0.1, best=0.9).half is None


@pytest.mark.parametrize(("is_open", "cause", "advice"), [(True, "unknown", "Settle"), (False, "optimisation", "Use")])
def test_a_bare_model_that_is_ahead_in_an_open_race_does_not_do_the_task(
    is_open: bool, cause: Cause, advice: str
) -> None:
    found = explain(arm("prompt", 60), arm("zero-shot", 134), (), margin=0.02, floor=0.01, is_open=is_open)
    assert (found.cause, found.advice.split()[0]) == (cause, advice)
    assert found.sentences[0] == "prompt scores 0.06; zero-shot, with no context at all, scores 0.13."
    assert ("An empty context would do" in found.sentences[1]) != is_open
