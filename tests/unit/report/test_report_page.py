"""The page: self-contained, sound HTML, accessible, escaped, readable in light and dark."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import resources
from itertools import pairwise

import pytest

from hansa.report import Reference, render_html, words
from hansa.report.statement import still_reserved
from support.pages import Page


@pytest.fixture(scope="module")
def read(pages):
    return {name: Page(text) for name, text in pages.items()}


def test_every_case_is_sound_html(pages, read):
    assert len(read) >= 6
    for name, page in read.items():
        assert page.wrong == [], name
        assert pages[name].startswith("<!doctype html>\n")
        assert pages[name].endswith("</html>\n")
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids)), name
        for _, attrs in page.tags:
            for key in ("aria-labelledby", "aria-describedby"):
                assert set((attrs.get(key) or "").split()) <= set(ids)
            if (attrs.get("href") or "").startswith("#"):
                assert attrs["href"][1:] in ids


def test_the_page_needs_nothing_from_elsewhere(pages, read):
    for name, page in read.items():
        assert not {"script", "link", "img", "iframe", "object", "image", "base"} & {
            tag for tag, _ in page.tags
        }
        for _, attrs in page.tags:
            assert not any(key.startswith("on") or key in {"src", "srcset", "action"} for key in attrs)
            assert all((attrs.get(key) or "#").startswith("#") for key in ("href", "xlink:href"))
        outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", pages[name])
        assert not re.search(r"https?://|//[a-z]|@import|@font-face|url\((?!#)", outside), name
        (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
        assert "default-src 'none'" in policy


def test_tables_figures_and_headings_can_be_read_aloud(read):
    for page in read.values():
        assert page.all("html")[0]["lang"] == "en"
        tags = [tag for tag, _ in page.tags]
        assert tags.count("h1") == tags.count("main") == 1
        assert tags.count("table") == tags.count("caption") >= 6
        assert all(attrs.get("scope") in {"col", "row"} for attrs in page.all("th"))
        assert tags.count("figure") == tags.count("figcaption") == tags.count("svg") >= 3
        assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in page.all("svg"))
        levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
        assert all(b - a <= 1 for a, b in pairwise(levels))


def test_the_main_numbers_are_on_the_page(cases, read):
    report, text = cases["normal"], read["normal"].text()
    for number in (
        f"{report.quality.mean_over_members:.3f}",
        f"{report.quality.pooled:.3f}",
        words.interval(report.quality.intervals.mean_over_members),
        "7.999",
        "of 8",
        "at δ = 1e-5, per patient",
        "all present in 20 rounds",
        "52 s",
        report.agreement_id,
        report.terms_id,
        report.model_sha256,
        "Gap 0.102 between F and M; their intervals do not overlap.",
        "Each patient drawn with probability 0.05",
        "AES-256-CTR keyed from the operating system",
        "2.13.0",
    ):
        assert number in text, number
    for member in report.members:
        assert words.interval(report.quality.intervals.by_member[member.name]) in text
    for note in report.notes:
        assert note in text


def test_what_was_released_is_not_called_spent(cases, read):
    for name, page in read.items():
        assert "ε spent" not in page.text(), name
    assert "ε released, largest of any member" in read["normal"].text()
    assert "a budget counts all that the run reserved as spent" in read["normal"].text()
    assert still_reserved(cases["partial"]) in read["partial"].text()


def test_only_a_private_run_that_ended_early_leaves_anything_reserved(make_report, cases):
    assert "ended early" in still_reserved(cases["partial"])
    assert still_reserved(cases["normal"]) == ""
    tree = cases["partial"].model_dump()
    tree["mechanism"] = "none"
    assert still_reserved(type(cases["partial"]).model_validate(tree)) == ""


def test_what_is_not_protected_is_said(read):
    for name in ("normal", "no-privacy", "single-point"):
        text = read[name].text()
        assert "What is not protected" in text
        assert "measured by the simulator on test records of its own" in text
    assert "k records" in read["single-point"].text()


def test_a_run_without_privacy_cannot_be_taken_for_a_private_one(read):
    text = read["no-privacy"].text()
    assert "No privacy is claimed for this run." in text
    assert "no ε is claimed" in text
    assert "Released without any noise: no privacy" in text
    assert "ε ≤" not in text
    assert "of 8" not in text
    assert "1e-5" not in text
    assert re.findall(r"none claimed (\S+) (\S+) 100", text) == [("–", "–")] * 5
    assert "privacy.mechanism = none" in text


def test_a_partial_run_says_so_first(read):
    text = read["partial"].text()
    assert "a person stopped the run after round 14 (Ctrl-C)" in text
    assert "absent 9 times in 14 rounds" in text
    assert "Leipzig (HANSA-401)" in text
    assert "14 of 20" in text
    assert "partial" in read["partial"].text("span")


def test_references_and_repeats_are_shown(read):
    text = read["references"].text()
    assert "what federation and privacy cost" in text
    assert "−0.067" in text
    assert "+0.195" in text
    assert "seeds 7, 8, 9, 10 and 11" in text
    assert "What federation and privacy cost" not in read["normal"].text()


def test_a_history_too_short_for_a_curve_is_said(read):
    assert "measured once only, after round 1" in read["single-point"].text()
    assert "not measured while the run went on" in read["pool"].text()
    assert "no curve" not in read["normal"].text()


def test_everything_not_measurable_is_said(make_report, make_quality):
    tree = make_quality().model_dump()
    for part in (tree["by_group"], tree["intervals"]["by_group"]):
        part["sex"].clear()
    for part in (tree["by_member"], tree["intervals"]["by_member"]):
        del part["Kiel"]
    quality = type(make_quality()).model_validate(tree)
    page = Page(render_html(make_report(quality=quality, history=())))
    assert page.wrong == []
    assert page.text().count("not measurable") == 3


def test_a_report_without_groups_or_rounds_can_be_drawn(make_report, make_quality):
    tree = make_quality().model_dump()
    for part in (tree["by_group"], tree["intervals"]["by_group"], tree["counts"]["by_group"]):
        part.clear()
    report = make_report(
        quality=type(make_quality()).model_validate(tree),
        history=(),
        round_log=(),
        events=(),
        notes=(),
        not_in_force=(),
        rounds=0,
        seconds_by_part={},
        versions={},
    )
    page = Page(render_html(report))
    assert page.wrong == []
    assert "groups" not in [attrs.get("id") for _, attrs in page.tags]
    assert "took part in every round" not in page.text()


def test_long_logs_of_rounds_are_folded(make_report, read):
    assert "open" in read["normal"].all("details")[0]
    page = Page(render_html(make_report(rounds=31, history=())))
    assert "open" not in page.all("details")[0]


HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}{% raw %}"


def test_text_of_a_report_never_becomes_markup(make_report, make_quality):
    report = make_report(
        title=HOSTILE,
        notes=(HOSTILE,),
        not_in_force=(HOSTILE,),
        changes=(HOSTILE,),
        engine=HOSTILE,
        randomness=HOSTILE,
        created=HOSTILE,
        versions={HOSTILE: HOSTILE},
        seconds_by_part={HOSTILE: 1.0},
        status="partial",
        stopped_because=HOSTILE,
        absent={1: {"Kiel": HOSTILE}},
        references=(Reference(kind=HOSTILE, agreement_id=64 * "0", quality=make_quality()),),
    )
    tree = report.model_dump()
    for event in tree["events"]:
        event["event"] = {"type": HOSTILE}
    for part in (tree["quality"][key]["by_group"] for key in ("counts", "intervals")):
        part[HOSTILE] = {HOSTILE: part.pop("sex")["F"]}
    groups = tree["quality"]["by_group"]
    groups[HOSTILE] = {HOSTILE: groups.pop("sex")["F"]}
    page = Page(render_html(type(report).model_validate(tree)))

    assert page.wrong == []
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert page.text().count("alert(1)") >= 11
    assert "{{ 7*7 }}" in page.text()
    assert page.text("h1") == HOSTILE


def test_the_same_report_gives_the_same_page(cases, pages):
    assert render_html(cases["partial"]) == pages["partial"]


def test_pages_stay_small(pages):
    assert max(len(page.encode()) for page in pages.values()) < 150_000


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_stands_out_from_what_it_stands_on(theme):
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    style = resources.files("hansa.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(themes) == 3
    colours = themes[theme]
    for text, grounds in {
        "ink": ("page", "card", "faint", "caution-page"),
        "quiet": ("page", "card"),
        "accent": ("page", "card"),
        "caution": ("page", "card", "caution-page"),
    }.items():
        for ground in grounds:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_the_template_and_its_style_are_in_the_package():
    names = {item.name for item in resources.files("hansa.report").joinpath("templates").iterdir()}
    assert {"report.html.j2", "report.css"} <= names


def test_importing_the_report_is_light():
    heavy = "matplotlib jinja2 rich numpy pandas torch flwr dp_accounting".split()
    code = f"import sys, hansa.report; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
