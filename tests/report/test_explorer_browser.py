"""In a real browser: the numbers of the table lead to their items, and texts from files stay texts."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

import records
from elicitable.report.explorer import explorer
from elicitable.report.html import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser; runs where chromium or google-chrome is on the PATH"),
]
HOSTILE = '</script><img src=x onerror="document.title=1">\u202eabc\u200b'


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["wide and light", "narrow and dark"])
def page(request, browser, tmp_path):
    width, scheme = request.param
    verdict = records.verdict()
    verdict = replace(verdict, items=tuple((f"{HOSTILE} {i}", HOSTILE) for i in range(1000)))
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened.noise = []
    opened.on("console", lambda message: opened.noise.append(message.text))
    opened.on("pageerror", lambda error: opened.noise.append(str(error)))
    opened.on("request", lambda asked: opened.noise.append(asked.url) if "file:" not in asked.url else None)
    opened.goto(write_report(verdict, tmp_path / "report.html").as_uri())
    yield opened
    opened.close()


def test_a_number_leads_to_its_items(page):
    arms = [strip.method for strip in explorer(records.verdict()).strips]
    won, lost = arms.index("full"), arms.index("soft-prompt")
    button = page.locator(f'button[data-won="{won}"][data-lost="{lost}"]')
    count = int(button.inner_text())
    button.focus()
    page.keyboard.press("Enter")  # reachable without a mouse
    assert page.inner_text("#items-says").startswith(f"{count} items that full got right and soft-prompt did not")
    assert page.locator("#items-list .item").count() == min(count, 25)
    assert "\\u202e" in page.locator("#items-list pre").first.inner_text()
    assert page.locator("#items-list img").count() == 0
    assert page.title() != "1"
    assert page.noise == []


def test_nothing_is_wider_than_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.noise == []


def test_it_prints_dark_on_white_and_within_the_page(page, tmp_path):
    """On a dark screen it printed light grey on white, and tables lost their last columns."""
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 695, "height": 900})  # A4 within its margins
    ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert (ink, paper) == ("rgb(25, 27, 30)", "rgb(255, 255, 255)")
    wider = "[...document.querySelectorAll('.table-scroll, .table-scroll table')].filter(one => one.scrollWidth > 695)"
    assert page.evaluate(f"{wider}.length") == 0
    assert page.locator(".table-scroll table").count() > 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 695
    assert page.pdf(path=str(tmp_path / "report.pdf")).startswith(b"%PDF")
