"""The page of an audit report: sound, self-contained, escaped, printable; a failure cannot be overlooked."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.audit.report import AuditReport, pictures, render_html, words
from hansa.audit.report.evidence import History
from hansa.audit.report.page import PAGE_RELEASES, _shortened
from hansa.privacy.composition import Adding
from hansa.report import words as plain
from support.audit_reports import published, report_on
from support.audits import LATE, MEMBERS, RUN, Story, changed, edited, story
from support.pages import Page
from support.published import report_of

TRUTH = story()


def broken() -> Story:
    own = list(TRUTH.own[MEMBERS[1]])
    place = TRUTH.find(MEMBERS[1], "release", round=2)
    own[place] = edited(own[place], step=7)
    return TRUTH.with_own(MEMBERS[1], own)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AuditReport]:
    def folder(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    truth = TRUTH.write(folder("truth"))
    return {
        "verified": report_on([truth]),
        "claimed": report_on([truth], report_of(TRUTH)),
        "federation alone": report_on([truth / "federation"]),
        "one member alone": report_on([truth / "members" / MEMBERS[0]]),
        "published": report_on([published(TRUTH).write(folder("published"))]),
        "failed": report_on([broken().write(folder("failed"))]),
        "keys beside": report_on([truth], keys_beside=True),
    }


@pytest.fixture(scope="module")
def pages(reports: dict[str, AuditReport]) -> dict[str, str]:
    return {name: render_html(report) for name, report in reports.items()}


@pytest.fixture(scope="module")
def read(pages: dict[str, str]) -> dict[str, Page]:
    return {name: Page(text) for name, text in pages.items()}


def test_every_case_is_sound_html(pages: dict[str, str], read: dict[str, Page]) -> None:
    assert len(read) == 7
    for name, page in read.items():
        assert page.wrong == [], name
        assert pages[name].startswith("<!doctype html>\n")
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids)), name
        for _, attrs in page.tags:
            assert set((attrs.get("aria-labelledby") or "").split()) <= set(ids)
            if (attrs.get("href") or "").startswith("#"):
                assert (attrs["href"] or "")[1:] in ids
        tags = [tag for tag, _ in page.tags]
        assert tags.count("table") == tags.count("caption")
        assert all(attrs.get("scope") in {"col", "row"} for attrs in page.all("th"))
        levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
        assert all(b - a <= 1 for a, b in pairwise(levels)), name


def test_the_page_needs_nothing_from_elsewhere(pages: dict[str, str], read: dict[str, Page]) -> None:
    for name, page in read.items():
        assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
        assert all(
            (attrs.get(key) or "#").startswith("#")
            for _, attrs in page.tags
            for key in ("href", "xlink:href")
        )
        outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", pages[name])
        assert not re.search(r"https?://|@import|@font-face|url\((?!#)", outside), name
        (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
        assert "default-src 'none'" in policy


def test_nine_groups_in_their_order(pages: dict[str, str], read: dict[str, Page]) -> None:
    wanted = ["Identity", "Guarantee", "Mechanism", "Coverage, and what is not protected", "Composition and history",
              "Trust", "Attacks: the empirical lower bound", "Utility and fairness", "Integrity"]  # fmt: skip
    for name, page in read.items():
        headings = [text for tag, text in page.texts if tag == "h2"]
        assert headings[1:] == wanted, name
        assert re.findall(r'<span class="number">(\d)</span>', pages[name]) == list("123456789")
        assert page.text("h3").count("What the logs cannot tell") == 7


def test_the_main_numbers_are_on_the_page(reports: dict[str, AuditReport], read: dict[str, Page]) -> None:
    report, text = reports["verified"], read["verified"].text()
    for said in (
        "Verified: nothing that was checked is wrong",
        report.integrity.keys,
        report.identity.agreement_id,
        report.guarantee.statement,
        "board of 1 March",
        "all runs were fixed before the first",
        "Not measured.",
        "1 release in no sum",
        "hansa audit verify LOGS",
        *(log.root for log in report.integrity.logs),
        *(party.fingerprint for party in report.identity.parties),
    ):
        assert said in text, said


def test_what_is_not_known_is_not_made_up(read: dict[str, Page]) -> None:
    text = read["federation alone"].text()
    assert "No grant was given of" in text
    assert "no ε could be recomputed" in text
    assert "nobody has signed how good or how fair the model is" in text
    assert "Budgets" not in text.split()
    alone = read["one member alone"].text()
    assert "nobody, or no copy of the federation's log was given" in alone


def test_quality_of_a_run_s_report_is_its_claim_alone(read: dict[str, Page]) -> None:
    text = read["claimed"].text()
    assert "The run's report claims accuracy 0.800" in text
    assert "No log says so" in text
    assert "claims" not in read["verified"].text("p")


def test_sums_may_be_in_another_federation_s_log(
    reports: dict[str, AuditReport], read: dict[str, Page]
) -> None:
    text = read["one member alone"].text()
    assert reports["one member alone"].coverage.elsewhere == (RUN,)
    assert "4 releases in no sum that was given" in text
    assert f"No sum of run {RUN} is in a federation's log that was given." in text
    assert "may be in another federation's log" in text
    assert "No model that follows from a sum" in text
    assert "Every one of them may be kept" not in text
    assert reports["verified"].coverage.elsewhere == ()
    whole = read["verified"].text()
    assert "another federation's log" not in whole
    assert "1 release in no sum of the federation's log" in whole
    assert "4 models followed from these sums. Every one of them may be kept" in whole
    assert words.models(1) == "1 model followed from these sums; the ε above covers it."


def test_a_gate_says_who_let_what_through(read: dict[str, Page]) -> None:
    text = read["published"].text()
    for said in ("1 private evaluation, 1 gate, 1 override and 1 publication", "Gate: open", "exempted by the agreement",
                 "a named person took the responsibility", "Dr. Ada Example", "model.onnx",
                 f"the key of {LATE} was revoked"):  # fmt: skip
        assert said in text, said


def test_a_failure_cannot_be_overlooked(pages: dict[str, str], read: dict[str, Page]) -> None:
    page, text = read["failed"], read["failed"].text()
    assert page.text("title").startswith("FAILED")
    headings = [said for tag, said in page.texts if tag == "h2"]
    assert re.match(r"FAILED: \d+ things? (is|are) wrong", headings[0])
    assert f"members/{MEMBERS[1]}, entry 4 (release)" in text
    assert "No guarantee is stated, because this audit failed." in text
    assert "Every patient" not in text
    assert "Verified" not in text
    assert pages["failed"].index("FAILED: ") < pages["failed"].index('id="identity"')
    assert read["published"].text().startswith("FAILED")  # the evaluation of this story has no sum
    for name in set(read) - {"failed", "published"}:
        assert "FAILED" not in read[name].text(), name


def test_keys_that_nobody_compared_verify_nothing(pages: dict[str, str], read: dict[str, Page]) -> None:
    page, text = read["keys beside"], read["keys beside"].text()
    assert words.KEYS_BESIDE in text
    assert page.text("title").startswith("Keys not compared")
    assert "verified" not in text.lower()
    assert text.count("under keys that nobody has compared") == 2
    assert '<span class="badge caution">keys not compared</span>' in pages["keys beside"]
    for name in set(read) - {"keys beside"}:
        assert words.KEYS_BESIDE not in read[name].text(), name
        assert "nobody has compared" not in read[name].text(), name


def test_a_failure_under_keys_that_nobody_compared_is_a_failure(tmp_path: Path) -> None:
    page = Page(render_html(report_on([broken().write(tmp_path)], keys_beside=True)))
    assert page.text("title").startswith("FAILED")
    assert words.KEYS_BESIDE in page.text()


def test_methods_that_looked_at_an_epsilon_are_explained(
    reports: dict[str, AuditReport], read: dict[str, Page]
) -> None:
    for name in ("verified", "claimed"):
        report = reports[name]
        assert set(report.guarantee.checks) == {"rdp", "sum-attack"} < set(words.METHODS)
        passed = cast("dict[str, int]", report.integrity.findings["passed"])
        lines = words.methods(report.guarantee.checks, passed)
        assert len(lines) == 2
        for line, (method, count) in zip(lines, report.guarantee.checks.items(), strict=True):
            assert line in read[name].text()
            assert f"It looked at {count} ε of runs" in line
            everywhere = passed[f"ε cross-checked by {method}"]
            more = f"; {everywhere} with those that the run's report claims."
            assert line.endswith(more) == (name == "claimed") == (everywhere > count)


def test_a_method_without_words_is_named_all_the_same() -> None:
    assert words.methods({"new": 2}, {}) == ("new: another accountant. It looked at 2 ε of runs.",)
    assert "Opacus" in words.methods({"prv": 1}, {})[0]
    assert words.methods({}, {"ε cross-checked by rdp": 4}) == ()


def test_words_of_others_are_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    own = list(TRUTH.own[MEMBERS[0]])
    own[0] = changed(own[0], reason=evil)
    page = render_html(report_on([TRUTH.with_own(MEMBERS[0], own).write(tmp_path)]))
    assert evil not in page
    assert "&lt;script&gt;" in page
    assert "script" not in {tag for tag, _ in Page(page).tags}


def test_the_same_report_gives_the_same_bytes(reports: dict[str, AuditReport], pages: dict[str, str]) -> None:
    assert render_html(reports["published"]) == pages["published"]


def test_it_is_made_for_paper(pages: dict[str, str]) -> None:
    style = pages["verified"].partition("<style>")[2].partition("</style>")[0]
    paper = style[style.index("@page { size: A4") :]
    assert "counter(page)" in paper
    assert "thead { display: table-header-group; }" in paper
    assert re.search(r"@media print \{.*\.table \{ overflow: visible", style, flags=re.DOTALL)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser to print with")
def test_a_browser_prints_it_with_no_line_cut_off(pages: dict[str, str], tmp_path: Path) -> None:
    """Everything on the page is as wide as the paper at most."""
    page = tmp_path / "page.html"
    page.write_text(pages["published"])
    pdf = tmp_path / "page.pdf"
    subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=600,
    )  # fmt: skip
    data = pdf.read_bytes()
    assert data.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 4


def test_a_title_is_the_run_s_own_word(read: dict[str, Page]) -> None:
    assert "but for the title, which is the run's own" in read["claimed"].text()
    assert "title, which is the run's own" not in read["verified"].text()


def test_a_run_costs_what_was_reserved_and_the_page_says_so(read: dict[str, Page]) -> None:
    assert "by a rule under which a run costs what was reserved" in read["verified"].text()
    assert "where a run costs what was reserved, its budget shows more" in read["verified"].text()
    assert "it costs what was reserved, finished or not" in words.rule(Adding(1))


def test_no_cell_of_a_history_is_blank_and_none_repeats_its_heading(pages: dict[str, str]) -> None:
    assert "<td></td>" not in pages["verified"]
    assert pages["verified"].count(f"History of {MEMBERS[0]}, dataset") == 1


def test_a_unit_is_not_said_twice(reports: dict[str, AuditReport], read: dict[str, Page]) -> None:
    budget = reports["verified"].guarantee.budgets[0]
    for unit, most, told in (("record", 1, "record"), ("patient", 1, "patient, at most 1 record"),
                             ("record", 3, "record, at most 3 records")):  # fmt: skip
        other = budget.model_copy(update={"unit": unit, "max_records_per_unit": most})
        assert words.unit(other) == told
    assert f"{words.unit(budget)}, {budget.adjacency}" in read["verified"].text("td")


def test_runs_of_one_agreement_are_told_apart() -> None:
    one, other = (plain.short_id(f"{'a1' * 8}-{end * 6}") for end in ("0b", "0c"))
    assert one != other
    assert one == "a1a1a1a1a1a1…-0b0b0b0b0b0b"
    assert plain.short_id("a1" * 32) == "a1a1a1a1a1a1…"


class TestHistories:
    def test_a_page_shows_a_few_releases_and_says_how_many_it_leaves_out(self, tmp_path: Path) -> None:
        report = report_on([TRUTH.write(tmp_path)])
        history = report.composition.histories[0]
        release = history.lines[2]
        many = [
            release.model_copy(update={"round": n, "spot": release.spot.model_copy(update={"entry": 2 + n})})
            for n in range(40)
        ]
        long = history.model_copy(update={"lines": (*history.lines[:2], *many, history.lines[-1])})
        short = _shortened(long)
        assert len(short.lines) == 3 + PAGE_RELEASES
        assert short.left_out == 40 - PAGE_RELEASES
        assert short.lines[2].round == 0
        assert short.lines[-2].round == 39
        assert _shortened(history) == history


class TestPictures:
    def test_budgets_over_time(self, reports: dict[str, AuditReport]) -> None:
        drawn = pictures.budgets_over_time(reports["verified"])
        assert drawn is not None
        assert "has spent most of its budget" in drawn.description
        assert all(f">{name}<" in drawn.svg for name in MEMBERS)
        assert "time, UTC" in drawn.svg
        assert pictures.budgets_over_time(reports["federation alone"]) is None

    def test_a_clock_that_went_back_does_not_draw_backwards(self, reports: dict[str, AuditReport]) -> None:
        history = reports["verified"].composition.histories[0]
        lines = list(history.lines)
        lines[-1] = lines[-1].model_copy(update={"at": "2020-01-01T00:00:00Z"})
        steps = pictures._steps(history.model_copy(update={"lines": tuple(lines)}), [history])
        times = [at for at, _ in steps.points]
        assert times == sorted(times)
        assert times[-1].year == 2026

    def test_datasets_of_one_member_are_told_apart(self, reports: dict[str, AuditReport]) -> None:
        history = reports["verified"].composition.histories[0]
        assert pictures._steps(history, [history]).name == MEMBERS[0]
        assert pictures._steps(history, [history, history]).name == f"{MEMBERS[0]} {history.dataset[:8]}"

    def test_epsilon_by_round(self, reports: dict[str, AuditReport]) -> None:
        (drawn,) = pictures.epsilon_by_round(reports["verified"])
        assert "after round 4" in drawn.description
        assert "limit 3" in drawn.svg
        assert pictures.epsilon_by_round(reports["federation alone"]) == ()

    def test_who_took_part(self, reports: dict[str, AuditReport]) -> None:
        (drawn,) = pictures.participation(reports["verified"])
        assert drawn.description == f"4 sums in 4 rounds; {LATE} is in 2 of 4."
        assert RUN in drawn.title
        assert all(share in drawn.svg for share in ("4/4", "2/4"))

    def test_no_sum_is_told_as_none_and_not_as_every(self, reports: dict[str, AuditReport]) -> None:
        (drawn,) = pictures.participation(reports["one member alone"])
        assert drawn.description == (
            "No sum of 4 rounds is in a federation's log that was given; they may be in another federation's log."
        )
        assert "every member" not in drawn.description.lower()

    def test_words_of_attendance(self) -> None:
        assert words.attendance(3, 3, 0, []) == "Every member is in every one of 3 rounds."
        assert words.attendance(2, 3, 1, []) == "2 sums in 3 rounds; every member is in every sum."
        assert words.attendance(2, 2, 0, ["a is in 1 of 2"]) == "2 sums in 2 rounds; a is in 1 of 2."
        assert words.attendance(0, 2, 2, []).endswith("that was given; 2 of them failed.")

    def test_ticks_of_a_short_run_are_times_of_the_clock(self, reports: dict[str, AuditReport]) -> None:
        report = reports["verified"]
        drawn = pictures.budgets_over_time(at_once(report, seconds=14))
        assert drawn is not None
        ticks = re.findall(r">(\d\d:\d\d:\d\d)<", drawn.svg)
        assert 2 <= len(ticks) <= 5
        assert set(ticks) & {"14:53:36", "14:53:40", "14:53:45"}
        assert ">01 Mar 2026<" in drawn.svg

    @pytest.mark.parametrize("seconds", [0, 1, 14])
    def test_what_counts_is_no_thin_bar_however_short_the_run(
        self, reports: dict[str, AuditReport], seconds: int
    ) -> None:
        """The grant was made a month before; what counts fills at least half of what is drawn."""
        histories = at_once(reports["verified"], seconds=seconds).composition.histories
        shown = [pictures._steps(one, histories) for one in histories]
        begin, end = pictures._window(shown)
        for one in shown:
            first = next(at for at, spent in one.points if spent)
            assert begin < first
            assert 2 * (end - first) >= end - begin
            assert end > one.released[-1][-1][0]

    def test_only_the_newest_runs_are_drawn(self, reports: dict[str, AuditReport]) -> None:
        report = reports["verified"]
        rounds = tuple(
            one.model_copy(update={"run": f"run-{n}"}) for n in range(9) for one in report.coverage.rounds
        )
        coverage = report.coverage.model_copy(update={"rounds": rounds})
        drawn = pictures.participation(report.model_copy(update={"coverage": coverage}))
        assert [one.title.rpartition(" ")[2] for one in drawn] == ["run-6", "run-7", "run-8"]
        assert len({one.name for one in drawn}) == 3


def at_once(report: AuditReport, seconds: int) -> AuditReport:
    """The report, had all that is not a grant happened within so many seconds, a month after the grant."""

    def moved(history: History) -> History:
        count = len(history.lines) - 1
        lines = tuple(
            line.model_copy(update={"at": f"2026-03-01T14:53:{32 + seconds * place // count:02d}Z"})
            if place
            else line.model_copy(update={"at": "2026-02-01T09:00:00Z"})
            for place, line in enumerate(history.lines)
        )
        return history.model_copy(update={"lines": lines})

    histories = tuple(map(moved, report.composition.histories))
    composition = report.composition.model_copy(update={"histories": histories})
    return report.model_copy(update={"composition": composition})


class TestReleasedIsNeverDrawnBelowTheTruth:
    @given(st.lists(st.booleans(), min_size=1, max_size=80), st.data())
    def test_by_time(self, computed: list[bool], data: st.DataObject) -> None:
        """Truth: ε grows by 1 with each release; some are listed, of some of those ε was computed, as of the last."""
        start = datetime(2026, 3, 1, tzinfo=UTC)
        known = [*computed[:-1], True]
        listed = [data.draw(st.booleans()) or known[i] for i in range(len(known))]
        lines = [
            (start + timedelta(seconds=i), float(i + 1) if known[i] else None)
            for i in range(len(known))
            if listed[i]
        ]
        drawn = pictures._never_below(lines, hidden=not all(listed))
        assert len(drawn) == len(lines)
        for i in range(len(known)):
            now = start + timedelta(seconds=i)
            values = [value for at, value in drawn if at <= now]
            if values:  # nothing is drawn before the first that is listed
                assert values[-1] >= i + 1
        assert drawn[-1][1] == len(known)
        if all(known):
            assert [value for _, value in drawn] == [float(i + 1) for i in range(len(known))]

    def test_nothing_is_drawn_after_the_last_that_is_known(self) -> None:
        start = datetime(2026, 3, 1, tzinfo=UTC)
        assert pictures._never_below([(start, None)], hidden=False) == ()
        assert pictures._never_below([(start, 1.0), (start, None)], hidden=True) == ((start, 1.0),)

    def test_by_round_between_two_points_stands_the_later_one(self, reports: dict[str, AuditReport]) -> None:
        """Points at rounds 0, 1 and 4 alone: the line rises before it goes right, and never slants."""
        report = reports["verified"]
        curve = report.composition.curves[0]
        sparse = curve.model_copy(update={"points": (curve.points[0], curve.points[-1])})
        composition = report.composition.model_copy(update={"curves": (sparse,)})
        (drawn,) = pictures.epsilon_by_round(report.model_copy(update={"composition": composition}))
        lines = [
            [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
            for path in re.findall(r'<path d="([^"]+)"[^>]*stroke: #0072b2[^>]*>', drawn.svg)
        ]
        line = next(points for points in lines if len(points) > 2)  # the legend's follows it
        assert len(line) == 5  # up, right, up, right
        for (x, y), (right, up) in pairwise(line):
            assert (x == right) != (y == up)
        assert line[1][0] == line[0][0]
        assert line[1][1] < line[0][1]  # an SVG counts down from above


def test_a_page_is_drawn_by_the_one_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import UndefinedError

    from hansa.report.page import environment

    made: Callable[..., object] = environment("hansa.audit.report").from_string("{{ nobody.gave }}").render
    with pytest.raises(UndefinedError):
        made()
    assert environment().list_templates() == ["macros.html.j2", "report.css", "report.html.j2"]
