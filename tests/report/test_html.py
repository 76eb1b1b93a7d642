"""The report: one file, whole or absent, the same bytes every time, and nothing in it that a text could start."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser

import pytest

import records
from elicitable.errors import StoreError, UnknownNameError
from elicitable.report import phrases
from elicitable.report.html import Section, compared_answers, flat, report_html, write_report
from elicitable.report.script import SCRIPT
from elicitable.report.tried import setting_text

VOID = {"meta", "link", "img", "br", "hr", "input"}
LOADS = {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """Collects tags, visible text and loads; fails on a tag that is closed out of order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.ids, self.texts, self.scripts = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in LOADS]
        self.ids += [value for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def assert_only_the_own_script(page, text):
    """The page runs its own script, which its policy names by hash; any other script element holds data."""
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert page.scripts[-1] == SCRIPT
    assert [json.loads(data).keys() >= {"arms"} for data in page.scripts[:-1]] == [True] * (len(page.scripts) - 1)
    assert page.tags.count("script") == len(page.scripts)


@pytest.fixture(scope="module")
def pages():
    """Every made-up verdict's page, rendered once."""
    return {name: report_html(make()) for name, make in records.ALL.items()}


@pytest.mark.parametrize("name", records.ALL)
def test_every_page_is_well_formed_and_loads_nothing(pages, name):
    page = Page(pages[name])
    assert_only_the_own_script(page, pages[name])
    assert "img" not in page.tags
    assert all(load.startswith("#") or load == "data:," for load in page.loads)
    assert {load[1:] for load in page.loads if load.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "@import" not in pages[name]
    assert "url(" not in pages[name]


@pytest.mark.parametrize("name", records.ALL)
def test_no_number_on_the_page_is_not_a_number(pages, name):
    drawn = re.findall(r'\s(?:points|x|y|cx|cy|x1|x2|y1|y2|d|style|viewBox)="([^"]*)"', pages[name])
    assert not any(re.search("nan|inf|None", value) for value in drawn)
    assert "None" not in Page(pages[name]).text


def test_the_page_says_what_the_issue_asks_for(pages):
    text = Page(pages["nine arms"]).text
    assert phrases.answer(records.verdict()) in text
    for heading in (
        "What to do with it", "What kv-prefix costs to deploy", "Why", "The race", "Score against numbers trained",
        "Learning curves", "Attention on the context", "What was tried", "Sample answers", "Side effects",
        "Three budgets, apart", "How to reproduce",
    ):  # fmt: skip
        assert heading in text
    assert "elicitable verdict --model toy:mixed --task ascending-add-1" in text
    assert "prompt was searched up to 6 tokens only" in text
    for arm in records.verdict().arms:
        assert f"{arm.mean:.3f} [{arm.low:.3f}, {arm.high:.3f}]" in text


def test_the_page_says_why_each_arm_stopped():
    first, *others = records.verdict().arms
    arms = (replace(first, stopped=""), *(replace(arm, stopped="settled") for arm in others))
    cells = re.findall(r'<td data-head="stopped">([^<]*)</td>', report_html(records.verdict(arms=arms)))
    assert sorted(cells) == ["-", *("settled" for _ in others)]


def test_arms_without_a_score_say_why(pages):
    text = Page(pages["with failures"]).text
    assert "took no part: diverged (the loss became NaN at step 50)" in text
    assert "took no part: skipped (the examples do not fit in 32 positions)" in text


def test_texts_from_files_stay_texts(pages):
    page = Page(pages["hostile"])
    assert_only_the_own_script(page, pages["hostile"])
    assert page.text.count("<script>alert('x')</script>") >= 8
    assert "\x00" not in pages["hostile"]
    assert "\x1b" not in pages["hostile"]


def test_a_race_without_arms_has_a_page(pages):
    text = Page(pages["empty"]).text
    assert "No arm that could be the answer ran through." in text
    assert "Learning curves" not in text


def test_further_sections_keep_their_markup_and_not_that_of_their_title():
    text = report_html(records.verdict(), [Section("Inside <b>", "<svg id='mine'><title>x</title></svg>")])
    assert "<svg id='mine'>" in text
    assert "<h2>Inside &lt;b&gt;</h2>" in text
    assert 'href="#part-1"' in text


def test_a_section_that_leads_stands_before_the_race():
    """The causes were said to open the report, and stood behind eleven other sections."""
    text = report_html(records.verdict(), [Section("Later", "x"), Section("First of all", "y", leads=True)])
    places = [text.index(part) for part in ("<h2>First of all", "<h2>The race", "<h2>Later")]
    assert places == sorted(places)
    assert text.count("<h2>First of all") == text.count('href="#part-2"') == text.count('id="part-2"') == 1
    assert text.index('href="#part-2"') < text.index('href="#race"') < text.index('href="#part-1"')


def test_the_same_record_gives_the_same_bytes(tmp_path):
    first = write_report(records.verdict(), tmp_path / "a.html").read_bytes()
    assert write_report(records.verdict(), tmp_path / "b.html").read_bytes() == first


def test_the_file_appears_whole_in_a_new_folder_with_the_usual_rights(tmp_path):
    path = write_report(records.hostile(), tmp_path / "new" / "report.html")
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "other").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write the report to '.*file/report.html'"):
        write_report(records.empty(), tmp_path / "file" / "report.html")


def test_a_failed_rename_leaves_nothing_behind(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StoreError, match="cannot write the report"):
        write_report(records.empty(), tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_an_unknown_label_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'weights'"):
        report_html(records.verdict(label="weight"))


@pytest.mark.parametrize("label", [*phrases.ANSWERS, *records.ANSWER_OF])
def test_every_label_has_its_words(label):
    text = Page(report_html(records.verdict(label=label))).text
    assert phrases.answer(records.verdict(label=label)) in text
    assert "impossible" not in text
    assert all(step in text for step in phrases.next_steps(records.verdict(label=label)))


def test_a_race_without_weights_says_that_nobody_asked_for_more():
    """A model that had a third of the items right "already does it; nothing has to be added", as no arm was better."""
    whole = records.verdict(label="already-there")
    few = replace(whole, arms=tuple(arm for arm in whole.arms if arm.rung.group in ("nothing", "context")))
    low = replace(few, arms=tuple(replace(arm, mean=arm.mean and arm.mean / 3) for arm in few.arms))
    assert "whether anything does better was not asked" in phrases.answer(low)
    for done in (whole, replace(low, margin=0.999)):
        assert phrases.answer(done).endswith("nothing has to be added.")


def test_a_race_without_contexts_says_nothing_of_what_they_cannot_do():
    whole = records.verdict(label="weights")
    assert "No context that was tried" in phrases.answer(whole)
    weights_only = replace(whole, arms=tuple(arm for arm in whole.arms if arm.method in ("zero-shot", "lora", "full")))
    assert phrases.answer(weights_only).endswith("; no context was tried.")
    assert [step for step in phrases.next_steps(whole) if "Contexts may not" in step]
    assert not [step for step in phrases.next_steps(weights_only) if "Contexts may not" in step]


@pytest.mark.parametrize("lost", ["failed", "skipped", "diverged"])
def test_arms_that_did_not_run_through_took_no_part(lost):
    def without(verdict, group):
        arms = (replace(arm, status=lost, mean=None) if arm.rung.group == group else arm for arm in verdict.arms)
        return replace(verdict, arms=tuple(arms))

    there = records.verdict(label="already-there")
    low = replace(there, arms=tuple(replace(arm, mean=arm.mean and arm.mean / 3) for arm in there.arms))
    assert "whether anything does better was not asked" in phrases.answer(without(low, "weights"))
    alone = without(records.verdict(label="weights"), "context")
    assert phrases.answer(alone).endswith("; no context was tried.")
    assert not [step for step in phrases.next_steps(alone) if "Contexts may not" in step]


def test_answers_to_one_item_stand_together():
    items = compared_answers(records.verdict().arms)
    assert len(items) == 2
    assert [method for method, _, _ in items[0].answers] == list(records.METHODS)
    assert all(is_right == (answer == items[0].target) for _, answer, is_right in items[0].answers)


def test_long_settings_are_cut_and_records_flattened():
    assert len(setting_text({"token_ids": list(range(5000))})) == 240
    assert flat({"a": {"b": [1, 2]}, "c": None}) == [("a.b", "1, 2"), ("c", "None")]


def test_what_a_record_holds_nothing_of_has_no_row():
    assert flat({"open": [], "seed": 0}) == [("seed", "0")]


def test_the_band_of_the_margin_is_not_drawn_behind_an_arm_without_a_score():
    page = report_html(records.with_failures())
    race = page[page.index('id="race"') : page.index('id="decides"')]
    scored, without = race.count('class="dot"'), race.count('class="trouble"')
    assert without > 0
    assert race.count('class="band"') == scored
