"""In a real browser: at any margin the report shows what Python decides, to the last bit of every edge."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from decimal import Decimal

import pytest
from tests.random_races import margins_of, race

import records
from elicitable.diagnosis.margins import stretches
from elicitable.report.html import write_report
from elicitable.report.margins import in_points, margins
from elicitable.report.pictures.differences import STANDINGS, difference_chart
from elicitable.report.script import SCRIPT
from elicitable.values import Verdict

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser; runs where chromium or google-chrome is on the PATH"),
]
RACES = 1_000
# For every race: its rows, its table, then the page's own script, to which each margin is typed.
ASK = """([script, races]) => races.map(([data, points]) => {
  document.getElementById("margin-data").textContent = data;
  const fresh = (at) => { const made = at.cloneNode(true); at.replaceWith(made); return made; };
  const slide = fresh(document.getElementById("margin-slide"));
  const typed = fresh(document.getElementById("margin-points"));
  const rows = [...document.querySelectorAll("#decides .row")];
  const arms = JSON.parse(data).arms;
  for (const row of rows.slice(1)) row.remove();
  for (let nth = 1; nth < arms.length; nth++) rows[0].parentNode.append(rows[0].cloneNode(true));
  for (const row of document.querySelectorAll("#decides .row .standing")) row.textContent = "?";
  (0, eval)(script);
  return points.map((one) => {
    typed.value = one;
    typed.dispatchEvent(new Event("input"));
    const text = (name) => document.getElementById(`margin-${name}`).textContent;
    const shown = [...document.querySelectorAll("#decides .row")];
    const standings = shown.map((row) => row.querySelector(".standing").textContent);
    const answer = shown.findIndex((row) => row.classList.contains("answer"));
    return [text("label"), text("answer"), text("reason"), standings, answer];
  });
})"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, tmp_path):
    opened = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="dark")
    opened.noise = []
    opened.on("console", lambda message: opened.noise.append(message.text))
    opened.on("pageerror", lambda error: opened.noise.append(str(error)))
    opened.on("request", lambda asked: opened.noise.append(asked.url) if "file:" not in asked.url else None)
    opened.goto(write_report(records.verdict(), tmp_path / "report.html").as_uri())
    yield opened
    opened.close()


def judged(evidence):
    """A verdict that holds the race's table, with every judged arm's difference from the best."""
    behind = {gap.arm.method: (gap.mean, gap.low, gap.high) for gap in evidence.gaps}
    arms = tuple(replace(arm, behind=behind.get(arm.method, ())) for arm in evidence.arms)
    return Verdict("", (), arms, "", "", 0.02, margins=stretches(evidence))


def expected(evidence, margin, arms):
    decision = evidence.decide(margin)
    standings = {one.arm.method: STANDINGS[one.standing] for one in decision.compared}
    answer = arms.index(decision.answer) if decision.answer else -1
    because = decision.because if decision.because.endswith(".") else f"{decision.because}."
    return [decision.label, decision.answer, because, [standings[arm] for arm in arms], answer]


def test_the_browser_and_python_decide_a_thousand_races_alike(page):
    asked, wanted, seed = [], [], 0
    while len(asked) < RACES:
        seed += 1
        evidence = race(seed)
        verdict = judged(evidence)
        shown = margins(verdict, difference_chart(verdict))
        if shown is None:  # one arm alone is compared with nobody
            continue
        arms = json.loads(shown.data)["arms"]
        places = margins_of(evidence, tuple(one.start for one in verdict.margins), seed)
        asked.append((shown.data, [f"{Decimal(margin).scaleb(2):f}" for margin in places]))
        wanted.append([expected(evidence, margin, arms) for margin in places])
    found = page.evaluate(ASK, [SCRIPT, asked])
    assert found == wanted
    assert sum(map(len, wanted)) > 20 * RACES
    assert page.noise == []


def test_the_slider_is_reached_and_moved_by_keys_and_goes_back(page):
    own = records.verdict()
    assert page.inner_text("#margin-label") == own.label
    page.focus("#margin-slide")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    assert page.input_value("#margin-points") == "1.4"
    assert page.inner_text("#margin-shown") == "1.4 points"
    assert page.inner_text("#margin-label") == "inconclusive"  # 1.1 to 1.9 points behind: holds the margin
    assert "not settled" in page.inner_text("#decides .row:has-text('kv-prefix')")
    assert page.locator("#decides .row.answer").count() == 0
    bands = page.eval_on_selector_all("#decides .band", "found => found.map((one) => one.style.left)")
    assert {round(float(left.removesuffix("%")), 6) for left in bands} == {63.0}  # 6/14 of 70 percent, and 3 more
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert page.inner_text("#margin-label") == "weights"
    assert page.get_attribute("#margin-slide", "aria-valuetext") == "1 point: weights"
    assert "full" in page.inner_text("#decides .row.answer")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.inner_text("#margin-label") == own.label
    assert page.input_value("#margin-points") == "2"
    assert page.noise == []


@pytest.mark.parametrize("typed", ["", "0", "-1", "100", "1e9"])
def test_what_is_no_margin_changes_nothing_and_is_marked(page, typed):
    page.fill("#margin-points", typed)
    assert page.get_attribute("#margin-points", "aria-invalid") == "true"
    assert page.inner_text("#margin-label") == records.verdict().label


def test_a_moved_margin_is_printed_without_its_controls(page):
    page.fill("#margin-points", "1")
    page.emulate_media(media="print")
    assert not page.is_visible("#margin-slide")
    assert "At a margin of 1 point: weights" in page.inner_text(".what-if")
    assert page.pdf().startswith(b"%PDF")
    assert page.noise == []


def test_points_are_the_share_with_its_point_moved():
    assert [in_points(share) for share in (0.02, 0.023, 0.1, 0.0125)] == ["2", "2.3", "10", "1.25"]


@pytest.mark.parametrize("width", [320, 375, 390])
def test_no_name_reaches_into_the_score_beside_it_on_a_telephone(browser, tmp_path, width):
    """The answer's mark lay under the score of a method whose name is long."""
    opened = browser.new_page(viewport={"width": width, "height": 900})
    for nth, name in enumerate(("lora", "lora-behind-examples", "random-subspace")):
        arms = tuple(replace(arm, method=name) if arm.method == "lora" else arm for arm in records.verdict().arms)
        opened.goto(
            write_report(records.verdict(arms=arms, answer=name, label="weights"), tmp_path / f"{nth}.html").as_uri()
        )
        names = opened.locator(".row .name").evaluate_all("all => all.map((one) => [one.scrollWidth, one.clientWidth])")
        assert len(names) > 10
        assert all(needed <= there for needed, there in names), name
    opened.close()
