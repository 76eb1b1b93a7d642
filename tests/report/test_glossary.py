"""The words of a report are explained inside it, by the texts of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import records
from elicitable.methods.catalog import METHODS
from elicitable.report.glossary import PAGE, entries, linked
from elicitable.report.html import report_html

DOCS = Path(__file__).parents[2] / "docs" / "glossary.md"


def test_the_page_of_the_documentation_is_the_one_source():
    assert DOCS.read_text("utf-8") == PAGE.read_text("utf-8"), "cp src/elicitable/report/templates/glossary.md docs/"


def test_every_entry_of_the_page_is_read_and_has_a_place_of_its_own():
    text = PAGE.read_text("utf-8")
    assert len(entries()) == text.count("\n:   ") >= 25
    assert len({entry.place for entry in entries()}) == len(entries())
    assert all(entry.html.endswith((".", ".</code>")) for entry in entries())
    titles = [entry.title.lower() for entry in entries()]
    assert titles == sorted(titles)


def test_every_built_in_method_is_a_word():
    assert {method.name for method in METHODS} <= {name.lower() for entry in entries() for name in entry.names}


def test_a_word_is_a_link_where_it_first_stands_and_only_as_a_word():
    first, second = linked(["kv-prefix and a prefix; <b>LoRA</b> & my-lora, loras", "lora again"])
    links = re.findall(r'href="#([^"]+)">([^<]+)<', first)
    assert links == [("word-kv-prefix", "kv-prefix"), ("word-lora", "LoRA")]  # a prefix has been explained by then
    assert "&lt;b&gt;" in first
    assert second == "lora again"


def test_why_says_every_arm_once_and_leads_to_the_words():
    verdict = records.verdict()
    page = report_html(verdict)
    why = re.search(r"<h2>Why</h2><ul class=\"plain\">(.*?)</ul>", page, flags=re.DOTALL).group(1)
    lines = [re.sub(r"<[^>]+>", "", line) for line in re.findall(r"<li>(.*?)</li>", why)]
    assert len(lines) == len(verdict.arms)
    for arm in verdict.arms:
        assert sum(line.startswith((f"{arm.method} ", f"The control, {arm.method},")) for line in lines) == 1
    assert {"word-margin", "word-lora", "word-value-bias"} <= set(re.findall(r'href="#(word-[^"]+)"', why))
    assert set(re.findall(r'href="#(word-[^"]+)"', page)) <= set(re.findall(r'id="(word-[^"]+)"', page))


def test_why_an_arm_took_no_part_is_said_once():
    page = report_html(records.with_failures())
    assert page.count("the examples do not fit in 32 positions") == 1
