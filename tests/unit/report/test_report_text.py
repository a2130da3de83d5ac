"""The table at the end of `hansa simulate`."""

from __future__ import annotations

import re

import pytest

from hansa.report import Repeat, render_text, words


def lines_with(text, *parts):
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def test_the_main_numbers_are_there(cases):
    report = cases["normal"]
    text = render_text(report, width=120)
    assert text.splitlines()[0] == report.title
    assert lines_with(text, "Accuracy", words.quality(report.quality.mean_over_members), "mean over members")
    assert lines_with(text, words.quality(report.quality.pooled), "all test records pooled")
    assert lines_with(text, words.quality(report.initial_quality.mean_over_members), "model 0")
    assert lines_with(text, "ε ≤ 7.999 at δ = 1e-5", "Budget: ε = 8.")
    assert lines_with(text, "noise multiplier 0.8731", "unit: patient")
    for identifier in (report.agreement_id, report.terms_id, report.model_sha256):
        assert identifier in text


def test_each_member_has_one_line_with_everything(cases):
    report = cases["normal"]
    text = render_text(report, width=120)
    for member in report.members:
        (line,) = lines_with(text, member.name)
        low, high = report.quality.intervals.by_member[member.name]
        for part in (
            "7.999 / 8",
            "1e-5",
            f"{report.quality.by_member[member.name]:.3f}",
            f"{low:.3f}–{high:.3f}",
            str(report.quality.counts.by_member[member.name]),
            "20/20",
            "8.24 MB",
            "7.96 MB",
            words.duration(member.train_seconds),
        ):
            assert part in line


def test_what_was_released_is_not_called_spent(cases):
    for name in ("normal", "partial"):
        text = render_text(cases[name], width=120)
        assert "ε released / budget" in text
        assert "ε spent" not in text
        assert ("reserved as spent" in " ".join(text.split())) == (name == "partial")


def test_groups_have_intervals_counts_and_a_gap(cases):
    quality = cases["normal"].quality
    text = render_text(cases["normal"])
    for attribute, values in quality.by_group.items():
        assert f"By {attribute}" in text
        for name, value in values.items():
            low, high = quality.intervals.by_group[attribute][name]
            pattern = rf"^{re.escape(name)} +{value:.3f} +{low:.3f}–{high:.3f} +{quality.counts.by_group[attribute][name]}$"
            assert re.search(pattern, text, flags=re.MULTILINE)
    assert "Gap 0.102 between F and M; their intervals do not overlap." in text


def test_notes_changes_and_what_is_not_in_force_are_told(cases):
    text = " ".join(render_text(cases["no-privacy"]).split())
    for note in (*cases["no-privacy"].notes, *cases["no-privacy"].changes, *cases["no-privacy"].not_in_force):
        assert note in text
    assert "No privacy is claimed for this run." in text
    assert cases["no-privacy"].derived_from in text
    for claim in ("ε ≤", "1e-5", "/ 8"):
        assert claim not in text


def test_sections_without_content_are_left_out(make_report):
    text = render_text(make_report(notes=(), not_in_force=()))
    for absent in (
        "What to know",
        "not in force",
        "Changed on",
        "repeat",
        "What federation",
        "derived from",
        "Partial",
    ):
        assert absent not in text


def test_a_partial_run_says_why(cases):
    text = render_text(cases["partial"])
    assert "Partial: a person stopped the run after round 14 (Ctrl-C)" in text
    assert "14 of 20 rounds" in text
    assert lines_with(text, "Kiel", "5.142 / 8", "9/14")


def test_references_are_shown_as_differences(cases):
    text = render_text(cases["references"], width=120)
    assert lines_with(text, "federated, no privacy", "0.816", "−0.067", "what privacy costs")
    assert lines_with(text, "local only, same privacy", "+0.195", "what training together brings")
    assert "5 repeats, seeds 7, 8, 9, 10 and 11" in text
    assert lines_with(text, "mean over members", "0.749", "0.018")


def test_one_repeat_has_a_dash_for_its_deviation(make_report):
    text = render_text(make_report(repeats=(Repeat(seed=3, pooled=0.5, mean_over_members=0.4),)))
    assert re.search(r"mean over members +0\.400 +– +0\.400", text)
    assert "1 repeat, seeds 3" in text


def test_who_has_test_records_without_being_a_member_is_listed(cases):
    text = render_text(cases["pool"], width=120)
    assert lines_with(text, "pool ", "7.999 / 8", "–")
    assert lines_with(text, "Kiel", "0.667", "–")


@pytest.mark.parametrize("width", [72, 80, 100, 130, 200])
@pytest.mark.parametrize("name", ["normal", "long-names", "references", "pool"])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut(cases, name, width):
    report = cases[name]
    text = render_text(report, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    squeezed = re.sub(r"\s", "", text)
    assert re.sub(r"\s", "", report.title) in squeezed
    assert text.count("7.999 / 8") == len(report.members)
    for value, (low, high) in (
        (v, report.quality.intervals.by_member[n]) for n, v in report.quality.by_member.items()
    ):
        assert re.search(rf"{value:.3f} +{low:.3f}–{high:.3f} +\d+", text)


def test_a_terminal_that_is_too_narrow_gets_the_least_width(cases):
    assert render_text(cases["normal"], width=10) == render_text(cases["normal"], width=72)


def test_colour_only_when_asked_and_then_the_same_words(cases):
    plain = render_text(cases["partial"])
    coloured = render_text(cases["partial"], colour=True)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()


def test_the_shell_s_environment_changes_nothing(cases, monkeypatch):
    before = render_text(cases["normal"]), render_text(cases["normal"], colour=True)
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "40", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    assert (render_text(cases["normal"]), render_text(cases["normal"], colour=True)) == before


def test_text_is_never_read_as_markup(make_report):
    text = render_text(make_report(title="[bold]a[/bold] :smile: [/]", notes=("[red]note[/red]",)))
    assert "[bold]a[/bold] :smile: [/]" in text
    assert "[red]note[/red]" in text


def test_no_blank_line_stands_twice_and_none_at_the_ends(cases):
    assert cases
    for report in cases.values():
        text = render_text(report)
        assert "\n\n\n" not in text
        assert text == text.strip() + "\n"
        assert not re.search(r"[ \t]$", text, flags=re.MULTILINE)
