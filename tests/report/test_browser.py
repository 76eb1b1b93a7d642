"""A real browser opens the report without a complaint; a request to the network would be one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import records
from elicitable.report.html import Section, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser; runs where chromium or google-chrome is on the PATH"),
]


def opened(page, tmp_path):
    """The page's document as the browser built it, and the complaints on its console."""
    done = subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("name", ["nine arms", "hostile"])
def test_the_browser_has_nothing_to_complain_about(name, tmp_path):
    document, complaints = opened(write_report(records.ALL[name](), tmp_path / "report.html"), tmp_path)
    assert complaints == []
    assert "How to reproduce" in document


def test_a_request_would_be_blocked_and_seen(tmp_path):
    section = Section(
        "Outside", '<img src="https://example.invalid/x.png" alt=""><script>document.title = "ran"</script>'
    )
    document, complaints = opened(write_report(records.verdict(), tmp_path / "report.html", [section]), tmp_path)
    assert any("example.invalid" in line for line in complaints)
    assert "<title>ran</title>" not in document
