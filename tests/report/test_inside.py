"""The microscope's part of the report: its conclusion, its axes, its colours, and the attention of every head."""

from __future__ import annotations

import base64
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tests.conftest import tiny_gpt2

import elicitable as el
from elicitable.attention.patterns import joint_pattern
from elicitable.microscope.inspect import inspect
from elicitable.microscope.patterns import LEVELS
from elicitable.microscope.prune import Ablation
from elicitable.microscope.watch import watch
from elicitable.models.load import load
from elicitable.report.conclusion import conclusion
from elicitable.report.html import write_page
from elicitable.report.microscope import (
    attention_heatmaps,
    drift_by_depth,
    mass_map,
    microscope_section,
    position_use,
    spectra,
)
from elicitable.report.shareability import shared_summary

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROMPT = [7, 2, 5]


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(10)


@pytest.fixture(scope="module")
def found(model):
    return inspect(model, el.context("prompt", model, token_ids=PROMPT), [[3, 1, 2, 6], [5, 6]], heatmap=(1, 0))


def test_three_sentences_say_what_was_found(found):
    takes, does, by_what = conclusion(found)
    masses = [head.prefix_mass for head in found.heads]
    assert takes.startswith(f"The context takes {np.mean(masses):.0%} of all attention, most in layer ")
    assert f"{sum(mass > 0.5 for mass in masses)} of 4 heads give it more than half." in takes
    moved = np.mean([np.mean([head.drift for head in found.heads if head.layer == layer]) for layer in (0, 1)])
    assert f"{moved:.2f} of 1" in does
    assert "of the 3 directions that theory allows" in does
    totals = np.sum([layer.position_mass for layer in found.layers], axis=0)
    first = PROMPT[int(np.argmax(totals))]
    assert by_what.startswith(f"Of its 3 tokens, “{first}” ({max(totals) / sum(totals):.0%})")


def test_what_was_left_out_is_the_third_sentence(found):
    parts = (Ablation("token 0", 0.5, 0.25), Ablation("layer 1", 0.8, -0.05))
    assert conclusion(replace(found, ablations=parts))[2] == (
        "Left out one at a time, token 0 costs the most (25.0 points), and 1 of 2 parts cost nothing."
    )
    assert "none of 1 parts costs anything" in conclusion(replace(found, ablations=parts[1:]))[2]


def test_without_a_context_nothing_is_concluded_of_one(model):
    takes, does = conclusion(inspect(model, [], [[3, 1, 2]]))
    assert "no attention goes to a context" in takes
    assert does == "Attention over the text itself stays as it was (it moves by 0.00 of 1)."


def test_both_maps_have_layers_from_left_to_right(found):
    heads = mass_map(found).axes[0]
    assert (heads.get_xlabel(), heads.get_ylabel()) == ("layer", "head")
    for head in found.heads:
        assert heads.images[0].get_array()[head.head, head.layer] == pytest.approx(head.prefix_mass)
    tokens = position_use(found).axes[0]
    assert (tokens.get_xlabel(), tokens.get_ylabel()) == ("layer", "context token")
    assert tokens.images[0].get_array().shape == (3, 2)
    assert tokens.images[0].get_array()[2, 1] == pytest.approx(found.layers[1].position_mass[2])
    assert [label.get_text() for label in tokens.get_yticklabels()] == ["7", "2", "5"]  # the prompt, as it reads


def test_every_letter_and_line_has_a_colour_of_the_page(found):
    for draw in (mass_map, drift_by_depth, spectra, position_use, attention_heatmaps):
        for axis in draw(found).axes:  # colour bars are axes too
            assert {label.get_color() for label in (*axis.get_xticklabels(), *axis.get_yticklabels())} <= {"#777777"}
    page = microscope_section(found).html
    drawn = re.findall(r"<text [^>]*>", page.partition("Every head on")[0])
    assert len(drawn) > 40
    assert all("fill: var(--soft, #777777)" in text for text in drawn)
    assert not re.search(r"stroke: #(?!none)", page)
    assert page.index("The context takes") < page.index("<svg")


def test_every_head_is_kept_in_36_levels(model, found):
    rows = torch.tensor([[3, 1, 2, 6]])
    with watch(model, el.context("prompt", model, token_ids=PROMPT), drift=False, keep=[0, 1]) as scope:
        model.hf(input_ids=rows)
    assert [(layer, head) for layer, head, _ in found.patterns.heads] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for layer, head, pattern in found.patterns.heads:
        joint = joint_pattern(scope.raw[layer][0][0])
        weights = torch.cat([joint.prefix, joint.content], dim=-1)[0, head]
        kept = torch.tensor([[LEVELS.index(letter) for letter in row] for row in pattern]) / 35
        assert kept.shape == (4, 7)
        assert (kept - weights).abs().max() <= 0.5 / 35 + 1e-9


def test_a_thumbnail_is_the_pattern(found):
    page = microscope_section(found).html
    pictures = re.findall(r"data:image/png;base64,([^\"]+)\" style=\"image-rendering", page)
    assert len(pictures) == len(found.heads)
    for picture, (_, _, rows) in zip(pictures, found.patterns.heads, strict=True):
        alpha = imread(io.BytesIO(base64.b64decode(picture)))[..., 3]
        wanted = np.array([[LEVELS.index(letter) for letter in row] for row in rows]) / 35
        assert alpha == pytest.approx(wanted, abs=1 / 255)
    assert microscope_section(found).html == page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser; runs where chromium or google-chrome is on the PATH")
def test_a_thumbnail_opens_and_closes_by_keys(found, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, noise = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark"), []
        page.on("console", lambda message: noise.append(message.text))
        page.on("pageerror", lambda error: noise.append(str(error)))
        page.goto(write_page("Inside", [microscope_section(found)], tmp_path / "report.html").as_uri())
        assert not page.is_visible("#open-1-0")
        page.focus('button[popovertarget="open-1-0"]')
        page.keyboard.press("Enter")
        assert page.is_visible("#open-1-0")
        assert "layer 1, head 0" in page.inner_text("#open-1-0")
        page.keyboard.press("Escape")
        assert not page.is_visible("#open-1-0")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.pdf().startswith(b"%PDF")
        assert noise == []
        browser.close()


def test_of_one_layer_one_head_and_one_token_no_range_is_told():
    model = load("toy:ascending")
    found = inspect(model, el.context("prompt", model, token_ids=[7]), [[3, 1, 2], [5, 5, 1]])
    takes, _, by_what = conclusion(found)
    assert takes == f"The context takes {found.heads[0].prefix_mass:.0%} of all attention."
    assert by_what == "It is one token, “7”."
    assert re.search(r"gives back \d+% of what the context changes in a layer", shared_summary(found))


def test_a_single_layer_is_a_single_tick():
    model = load("toy:ascending")
    found = inspect(model, el.context("prompt", model, token_ids=[7, 2]), [[3, 1, 2]])
    for figure in (mass_map(found), drift_by_depth(found), position_use(found)):
        axis = figure.axes[0]
        low, high = sorted(axis.get_xlim())
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [0]
