"""The paper's figures from plain data: each kind is drawn, none where there are no records, and the plane is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicitable.report.experiment_figures import FIGURES, bias_plane, experiment_figure
from elicitable.report.microscope import figure_svg
from elicitable.report.reproduction import reproduction_markdown, reproduction_sections, write_reproduction

KINDS = list(FIGURES)
RNG = np.random.default_rng(0)


def activations(alpha: float | None) -> dict[str, Any]:
    """Ten outputs; a context of mass ``alpha`` pulls each towards one point."""
    before, bias = RNG.normal(size=(10, 6)), RNG.normal(size=6)
    if alpha is None:
        return {"before": before.tolist(), "after": (before + RNG.normal(size=(10, 6))).tolist(), "bias": None}
    return {"before": before.tolist(), "after": ((1 - alpha) * before + alpha * bias).tolist(), "bias": bias.tolist()}


PICTURES: dict[str, list[Any]] = {
    "attention": [{"prefix": 1, "tokens": [3, 1], "weights": [[0.2, 0.8, 0.0], [0.1, 0.5, 0.4]]}],
    "activations": [activations(0.3)],
    "position shares": [{"shares": [[0.9, 0.1], [0.2, 0.8]], "spreads": [0.1, 0.2]}] * 2,
    "residuals": [
        {"attention residual": [1e-7, 2e-7], "output residual": [1e-6, 1e-6], "drift": [0.0, 0.5], "mass": [0.1, 0.2]}
    ],
}


def drawn(kind: str, is_empty: bool = False) -> dict[str, Any]:
    curves = [] if is_empty else [[[50, 1.5, 0.5], [75, 1.4, None], [100, 1.0, 0.75]]]
    series = {"trial": "a <trial>", "pictures": [] if is_empty else PICTURES.get(kind, []), "curves": curves}
    return {"kind": kind, "caption": 'what "this" <is>', "series": [series]}


def experiment(is_empty: bool = False) -> dict[str, Any]:
    claim = {
        "trial": "a <trial>", "text": "it $does$", "unit": "%", "source": 90.0, "mean": 95.0, "sd": None, "low": 93.0,
        "high": 97.0, "values": [95.0], "bound": {"relation": "at least", "value": 1.0}, "outcome": "reproduced",
        "refuted": "no", "reason": "",
    }  # fmt: skip
    sweep = [{"seed": 0, "rate": r, "restart": 0, "validation": r, "steps": 5, "stopped": "steps"} for r in (0.01, 0.1)]
    trial = {"name": "a <trial>", "sweep": [] if is_empty else sweep, "recorded": 2, "planned": 2}
    return {
        "name": "tiny", "title": "Tiny", "source": "nowhere", "deviations": [], "seconds": 1.0, "trials": [trial],
        "seeds_whole": 1, "companion_seconds": None,
        "claims": [] if is_empty else [claim], "figures": [drawn(kind, is_empty) for kind in KINDS],
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_to_the_same_bytes_and_nothing_from_nothing(kind: str) -> None:
    figures = [experiment_figure(drawn(kind), experiment()) for _ in range(2)]
    assert figures[0] is not None
    assert figures[1] is not None
    first, again = map(figure_svg, (figures[0], figures[1]))
    assert first == again
    assert first.startswith(b"<?xml")
    assert experiment_figure(drawn(kind, is_empty=True), experiment(is_empty=True)) is None


def test_a_context_moves_outputs_only_along_its_bias() -> None:
    """On its plane the part across the bias shrinks by 1 − α and is not moved otherwise."""
    found = activations(0.3)
    before, after, bias = (np.asarray(found[key]) for key in ("before", "after", "bias"))
    plane = bias_plane(before, bias)
    assert np.allclose(plane @ plane.T, np.eye(2), atol=1e-12)  # float64
    assert np.allclose((after @ plane.T)[:, 1], 0.7 * (before @ plane.T)[:, 1], atol=1e-12)
    assert np.allclose(after - 0.7 * before, np.outer(np.ones(10), 0.3 * bias), atol=1e-12)


def test_changed_weights_are_shown_on_the_first_context_s_plane() -> None:
    both = drawn("activations")
    both["series"].append({"trial": "full", "pictures": [activations(None)]})
    figure = experiment_figure(both, experiment())
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == ["along the bias", "along the first prefix's bias"]
    assert experiment_figure({**both, "series": both["series"][1:]}, experiment()) is None


def test_the_report_holds_every_figure_and_the_folder_its_file(tmp_path: Path) -> None:
    results = {"preset": "quick", "seeds": 1, "seconds": 1.0, "outcomes": {"reproduced": 1}}
    whole = {**results, "experiments": [experiment()]}
    _, section = reproduction_sections(whole)
    assert section.html.count("data:image/svg+xml;base64,") == len(KINDS)
    assert "what &quot;this&quot; &lt;is&gt;" in section.html
    assert "<is>" not in section.html
    write_reproduction(whole, tmp_path)
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text == reproduction_markdown(whole, "figures")
    for path in (tmp_path / "figures").iterdir():
        assert f"(figures/{path.name})" in text
    assert len(list((tmp_path / "figures").iterdir())) == len(KINDS)
