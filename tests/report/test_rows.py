"""The curves over training rows as they are shown: every number is there, and texts are escaped."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

from elicitable.diagnosis.rows import Crossing, Estimate, Growth
from elicitable.report.rows import rows_json, rows_lines, rows_section

GROWTHS = tuple(
    Growth(
        method=method,
        scores={16: Estimate(0.4, 0.35, 0.45), 64: Estimate(0.6, 0.5, 0.7)},
        curve={16: Estimate(0.41, 0.3, 0.5), 64: Estimate(0.59, 0.5, 0.7), 256: Estimate(0.7, 0.5, 0.9)},
        next_rows=200,
        gain=Estimate(0.021, -0.001, 0.05),
    )
    for method in ("kv-prefix", "<lora>")
)
CROSSING = Crossing("kv-prefix", "<lora>", 0.8, Estimate(120.0, 60.0, 250.0))


def test_what_is_shown_has_every_score_the_gain_and_the_crossing() -> None:
    text = "\n".join(rows_lines(GROWTHS, CROSSING))
    assert text.count("0.60 [0.50, 0.70]") == 2
    assert "200 labels more than 64 bring kv-prefix +2.1 points (95 % interval -0.1 to +5.0)" in text
    assert "In 80 % of the resampled curves <lora> is ahead of kv-prefix, from about 120 rows on" in text
    assert "Nowhere up to four times" in rows_lines(GROWTHS, Crossing("a", "b", 0.0, None))[-1]
    again = json.loads(json.dumps(rows_json(GROWTHS, CROSSING), allow_nan=False))
    assert again["methods"][0]["scores"][1] == {"rows": 64, "mean": 0.6, "low": 0.5, "high": 0.7}
    assert again["crossing"]["rows"]["mean"] == 120.0
    assert rows_json(GROWTHS[:1], None)["crossing"] is None


def test_the_section_draws_every_point_and_escapes_names() -> None:
    section = rows_section(GROWTHS, CROSSING)
    assert "<lora>" not in section.html
    [svg] = re.findall(r"<svg.*?</svg>", section.html, re.DOTALL)
    drawn = ElementTree.fromstring(svg)
    circles = [element for element in drawn.iter() if element.tag == "circle"]
    assert len(circles) == 4
    heights = [float(circle.attrib["cy"]) for circle in circles]
    assert heights[1] < heights[0], "a higher score stands higher"
    fills = [element.attrib["style"] for element in drawn.iter() if element.tag == "text" and element.text == "<lora>"]
    assert fills == ["fill:var(--weights)"]  # the page's style of texts would go before an attribute
