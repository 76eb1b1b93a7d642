"""The tables of a reproduction: a mark per claim, ours beside the source's, and no text that is taken as markup."""

from __future__ import annotations

from typing import Any

from elicitable.report.reproduction import reproduction_markdown, reproduction_sections


def claim(outcome: str, **given: Any) -> dict[str, Any]:
    return {
        "text": "LoRA <does> | it",
        "unit": "%",
        "source": 92.38,
        "bound": {"relation": "at least", "value": 75.0},
        "outcome": outcome,
        "refuted": "it did not",
        "reason": "",
        "mean": 97.5,
        "sd": None,
        "low": 95.0,
        "high": 99.0,
        "values": [97.5],
    } | given


def results() -> dict[str, Any]:
    lost = claim("not testable here", mean=None, low=None, high=None, source=None, reason="untestable: no model")
    swept = [
        {"seed": 0, "rate": rate, "restart": 0, "validation": 0.5, "steps": 1200, "stopped": "steps"}
        for rate in (0.01, 0.1)
    ]
    experiment = {
        "name": "same-budget",
        "title": "The same numbers",
        "source": "section 5.3",
        "deviations": ["no <b>dropout</b>"],
        "claims": [claim("reproduced"), claim("differs"), lost],
        "trials": [{"name": "rank-1 LoRA", "sweep": swept, "recorded": 2, "planned": 3}],
        "figures": [],
        "seconds": 90.0,
        "seeds_whole": 0,
        "companion_seconds": 28_200.0,
    }
    outcomes = {"reproduced": 1, "differs": 1, "not testable here": 1}
    return {"preset": "quick", "seeds": 1, "seconds": 90.0, "outcomes": outcomes, "experiments": [experiment]}


def test_markdown_has_a_mark_a_claim_and_the_whole_sweep() -> None:
    page = reproduction_markdown(results())
    assert page.startswith("Preset quick, 1 seed, 1.5 min of trials on one core each: 1 reproduced, 1 differs, ")
    assert (
        "| ✓ reproduced | LoRA <does> \\| it | 97.50 % [95.00, 99.00] | 92.38 % | at least 75 | it did not |  |" in page
    )
    assert "| ✗ differs |" in page
    assert (
        "| – not testable here | LoRA <does> \\| it | — | in words | at least 75 | it did not | untestable: no model |"
        in page
    )
    assert "| rank-1 LoRA | 0.1 | 0 | 1 | 50.00 % | 1,200 | steps 1 |" in page


def test_the_kinds_of_processor_are_named_where_the_records_say_them() -> None:
    told = reproduction_markdown(results() | {"processors": ["avx2", "avx512-bf16"]}).splitlines()[0]
    assert "1.5 min of trials on one core each (avx2, avx512-bf16): 1 reproduced" in told
    assert reproduction_markdown(results() | {"processors": []}) == reproduction_markdown(results())


def test_html_escapes_every_text() -> None:
    glance, section = reproduction_sections(results())
    assert glance.title == "At a glance"
    assert section.title == "The same numbers"
    assert "LoRA &lt;does&gt;" in section.html
    assert "no &lt;b&gt;dropout" in section.html
    assert "<does>" not in section.html


def test_the_overview_counts_claims_and_recorded_trials() -> None:
    page = reproduction_markdown(results())
    assert "| same-budget | 1 | 1 | 0 | 1 | 0 | 2 of 3 | 0 of 1 | 1.5 min | 7.8 h |" in page
    assert "together" not in page


def test_the_overview_ends_with_the_sum_in_which_what_is_shared_counts_once() -> None:
    two = results() | {"trials_recorded": 3, "trials": 5}
    two["experiments"].append(
        two["experiments"][0] | {"name": "token-reach", "companion_seconds": None, "seeds_whole": 1}
    )
    assert "| together | 2 | 2 | 0 | 2 | 0 | 3 of 5 | 0 of 1 | 1.5 min | 7.8 h |" in reproduction_markdown(two)


def test_fewer_seeds_than_planned_are_said() -> None:
    whole = results()
    whole["seeds"] = 10
    assert "97.50 % [95.00, 99.00] (1 of 10 seeds)" in reproduction_markdown(whole)
