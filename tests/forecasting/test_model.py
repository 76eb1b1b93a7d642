"""The forecast as numbers: what scikit-learn says from the same coefficients, a file that is held to its digest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from elicitable.errors import InputError, StoreError
from elicitable.forecasting.evaluate import CONTENDERS, auc, results, said
from elicitable.forecasting.model import FARTHEST, Forecaster, read_forecaster, shipped
from elicitable.forecasting.names import READ_OFF, SIGNALS
from elicitable.forecasting.records import Known, read_known
from elicitable.forecasting.train import fit_chance, left_out, logit, ridge, train, write
from elicitable.rng import generator

CONSTANT = ("is_text", "labels")


def known(count: int = 48, seed: int = 0) -> list[Known]:
    """Cases in which two signals tell the truth apart, and scores follow it."""
    rng, found = generator(seed, "known"), []
    for nth in range(count):
        truth = ("nothing", "context", "weights")[nth % 3]
        signals = {name: float(x) for name, x in zip(SIGNALS, rng.normal(size=len(SIGNALS)), strict=True)}
        signals |= dict.fromkeys(CONSTANT, 0.0) | {"base_score": float(truth == "nothing")}
        signals["context_score"] += 5.0 * (truth != "weights")
        level = 0.9 if truth != "weights" else 0.2
        by_rows = {n: (level - 4 / n, 0.95 - 8 / n) for n in (16, 128, 1_024)}
        family, model = f"family {nth % 8}", f"model {nth % 4}"
        found.append(Known(f"case {nth}", model, family, truth, signals, 8.0, "x86", by_rows, steps=60))
    return found


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return train(known(), tuple(SIGNALS))


def test_probabilities_are_those_of_scikit_learn_from_the_same_coefficients(forecaster: Forecaster) -> None:
    cases = known(seed=1)
    x = np.array([[one.signals[name] for name in forecaster.signals] for one in cases])
    z = np.clip((x - forecaster.means) / forecaster.scales, -FARTHEST, FARTHEST)
    theirs = LogisticRegression().fit(z[:4], [0, 1, 0, 1])
    theirs.coef_ = forecaster.slope * np.array([forecaster.chance.weights])
    theirs.intercept_ = np.array([forecaster.slope * forecaster.chance.intercept + forecaster.offset])
    ours = [forecaster.predict(one.signals).probability for one in cases]
    assert ours == pytest.approx(theirs.predict_proba(z)[:, 1], abs=1e-12)
    assert max(ours) > 0.8 > 0.2 > min(ours)
    for one, probability in zip(cases, ours, strict=True):
        pushes = forecaster.predict(one.signals).pushes
        whole = sum(pushes.values()) + forecaster.slope * forecaster.chance.intercept + forecaster.offset
        assert 1 / (1 + np.exp(-whole)) == pytest.approx(probability, abs=1e-12)


def test_expected_scores_are_those_of_the_ridge_regression(forecaster: Forecaster) -> None:
    cases = known()
    x = np.array([[one.signals[name] for name in forecaster.signals] for one in cases])
    z = np.clip((x - forecaster.means) / forecaster.scales, -FARTHEST, FARTHEST)
    at = [(n, rows, (np.log2(rows) - 8) / 4) for n in range(len(cases)) for rows in (16, 128, 1_024)]
    inputs = np.array([[*z[n], *(z[n] * t), t] for n, _, t in at])
    for arm in (0, 1):
        y = logit(np.array([cases[n].by_rows[rows][arm] for n, rows, _ in at]))
        growth = (forecaster.context, forecaster.weights)[arm]
        coefficients = [*growth.level.weights, *growth.rise.weights, growth.rise.intercept]
        theirs = min((Ridge(alpha=a).fit(inputs, y) for a in (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)),
                     key=lambda one: float(np.abs(one.coef_ - coefficients).max()))  # fmt: skip
        assert theirs.coef_ == pytest.approx(coefficients, abs=1e-9)
        for n, rows, _ in at[:9]:
            growing = forecaster.predict(cases[n].signals).growth
            expected = {one.rows: one for one in (growing.context, growing.weights)[arm]}[rows]
            said = 1 / (1 + np.exp(-theirs.predict(inputs[[at.index((n, rows, (np.log2(rows) - 8) / 4))]])[0]))
            assert expected.mean == pytest.approx(said, abs=1e-9)
            assert 0 <= expected.low <= expected.high <= 1


def test_weights_get_ahead_where_the_curves_cross(forecaster: Forecaster) -> None:
    cases = {one.truth: one for one in known()}
    found = forecaster.predict(cases["weights"].signals).growth
    assert found.overtaken > 0.5
    middle, low, high = found.crossing
    assert 16 <= low <= middle <= high <= 1_024
    never = replace(forecaster, residuals=((5.0, -5.0),)).predict(cases["context"].signals).growth
    assert (never.overtaken, never.crossing) == (0.0, ())


def test_a_case_far_away_is_outside_and_those_of_the_training_are_not(forecaster: Forecaster) -> None:
    inside = [forecaster.predict(one.signals).is_known for one in known()]
    assert np.mean(inside) > 0.9
    far = {**known()[0].signals, "width": 40.0}
    found = forecaster.predict(far)
    assert (found.is_known, found.reasons) == (False, ("width",))
    assert found.distance > found.threshold
    text = forecaster.predict({**known()[0].signals, "is_text": 1.0})
    assert (text.is_known, text.reasons) == (False, ("is_text",))
    assert forecaster.border.refused <= 0.07


def test_a_signal_that_is_missing_is_named(forecaster: Forecaster) -> None:
    with pytest.raises(InputError, match="'width'"):
        forecaster.predict({name: value for name, value in known()[0].signals.items() if name != "width"})
    with pytest.raises(InputError, match="'width'"):
        forecaster.predict({**known()[0].signals, "width": float("nan")})
    border = replace(forecaster.border, constant={"unheard of": 0.0})
    with pytest.raises(InputError, match="'unheard of'"):
        replace(forecaster, border=border).predict(known()[0].signals)


def test_a_file_gives_back_what_was_written_and_the_same_records_the_same_bytes(
    forecaster: Forecaster, tmp_path: Path
) -> None:
    write(forecaster, tmp_path / "one.json")
    write(train(known(), tuple(SIGNALS)), tmp_path / "other.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()
    assert read_forecaster(tmp_path / "one.json") == forecaster


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"slope": ', '"slope": 1', "altered"),
        ('"digest": "', '"digest": "0', "altered"),
        ("{", "", "cannot be read"),
    ],
)
def test_an_altered_file_is_refused(forecaster: Forecaster, tmp_path: Path, old: str, new: str, words: str) -> None:
    write(forecaster, tmp_path / "one.json")
    text = (tmp_path / "one.json").read_text(encoding="utf-8")
    (tmp_path / "one.json").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StoreError, match=words):
        read_forecaster(tmp_path / "one.json")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("form", 1, "form must be 2"),
        ("means", [0.0], "parts of"),
        ("slope", "steep", "slope must be a number"),
        ("surprise", 1, "surprise is no key"),
        ("scales", None, "scales must be a list"),
        ("residuals", [], "there must be residuals"),
        ("rows", [], "numbers of rows of at least 1"),
        ("rows", [0], "numbers of rows of at least 1"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_name(
    forecaster: Forecaster, tmp_path: Path, key: str, value: object, words: str
) -> None:
    from elicitable.cache import digest_of_json
    from elicitable.records.schema import to_plain

    plain = {**to_plain(forecaster), key: value}
    (tmp_path / "one.json").write_text(json.dumps({**plain, "digest": digest_of_json(plain)}), encoding="utf-8")
    with pytest.raises(StoreError, match=words):
        read_forecaster(tmp_path / "one.json")


def test_what_is_left_out_is_not_seen() -> None:
    groups = np.array([one.model for one in known()])
    families = np.array([one.family for one in known()])
    ours = replace(CONTENDERS[0], signals=("base_score", "context_score", "width", "bias_share"))
    x = np.array([[one.signals[name] for name in ours.signals] for one in known()])
    truth = np.array([one.suffices for one in known()])
    foretold = said(known(), ours, groups)
    for others, own in left_out(groups):
        alone = ours.fit(x[others], truth[others], families[others])(x[own])
        assert foretold[own] == pytest.approx(alone, abs=1e-12)
        assert not set(groups[others]) & set(groups[own])
    shuffled = [replace(one, truth=("nothing", "weights")[n % 7 % 2]) for n, one in enumerate(known())]
    nonsense = results(shuffled, groups, [ours])[0]
    assert nonsense.auc[1] < 0.6  # no truth in them that a signal could tell
    honest = results(known(), groups, [ours])[0]
    assert honest.auc[0] > 0.75 > nonsense.auc[0]


def test_the_area_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = generator(0, "area")
    scores, truth = rng.integers(0, 5, size=60) / 5, rng.random(60) < 0.4
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_signals_that_tell_nothing_get_no_weight_and_a_line_is_found_again() -> None:
    z = generator(0, "z").normal(size=(30, 3))
    line, _, _ = fit_chance(np.concatenate([z, z]), np.repeat([True, False], 30), np.repeat(["a", "b"], 30))
    assert line.weights == pytest.approx((0.0,) * 3, abs=1e-6)  # every fold has one class alone; the two are alike
    assert ridge(z, z @ [1.0, 2.0, 3.0], 1e-9).weights == pytest.approx((1.0, 2.0, 3.0), abs=1e-6)


def test_the_shipped_forecast_is_read_and_says_what_it_was_trained_on() -> None:
    found = shipped()
    assert set(found.signals) | set(found.border.constant) == set(READ_OFF)
    assert len(found.provenance["cases"]) >= 60
    assert found.border.constant["is_text"] == 0.0
    assert set(found.provenance) >= {"cases", "families", "models", "kind", "versions", "processor", "trained"}


def test_the_shipped_forecast_is_what_its_training_gives() -> None:
    found = shipped()
    again = train(read_known(Path(__file__).parents[2] / "records" / "forecast"))
    assert again.provenance["cases"] == found.provenance["cases"]
    # the products of another processor's BLAS differ in their last digits
    assert again.chance.weights == pytest.approx(found.chance.weights, abs=1e-6)
    assert again.border.threshold == pytest.approx(found.border.threshold, rel=1e-6)
