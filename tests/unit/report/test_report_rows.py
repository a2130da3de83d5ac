"""What tables and pictures show: order, gaps, differences, spreads, charges."""

from __future__ import annotations

import statistics

import pytest

from hansa.report import EventCount, Repeat, rows


def test_members_keep_the_agreement_s_order_and_others_follow_by_name(cases):
    assert [item.name for item in rows.members(cases["normal"])] == [m.name for m in cases["normal"].members]
    pool = [item.name for item in rows.members(cases["pool"])]
    assert pool == sorted(pool)
    assert "pool" not in pool


def test_a_member_without_test_records_stays_in_the_table(make_report, make_quality):
    report = make_report(quality=make_quality(members=("Aachen", "Kiel")))
    found = {item.name: item for item in rows.members(report)}
    assert list(found) == [member.name for member in report.members]
    assert found["Leipzig"] == rows.Estimate("Leipzig", None, None, 0)
    assert found["Kiel"].value == report.quality.by_member["Kiel"]


def test_bands_are_in_the_order_of_their_numbers():
    names = [">=60", "45-60", "<5", "5-45", "unknown", "F", "-5-0", "1e+06-2e+06"]
    assert sorted(names, key=rows.band_order) == [
        "-5-0",
        "<5",
        "5-45",
        "45-60",
        ">=60",
        "1e+06-2e+06",
        "F",
        "unknown",
    ]


def test_groups_have_their_gap(make_quality):
    age, sex = rows.groups(make_quality())
    assert (age.attribute, sex.attribute) == ("age", "sex")
    assert [item.name for item in age.estimates] == ["<45", "45-65", ">=65"]
    values = [item.value for item in sex.estimates]
    assert sex.gap == max(values) - min(values)
    assert (sex.worst.value, sex.best.value) == (min(values), max(values))
    assert sex.overlap == (sex.worst.interval[1] >= sex.best.interval[0])
    assert rows.gap_in_words(sex) == "Gap 0.102 between F and M; their intervals do not overlap."
    assert "intervals overlap" in rows.gap_in_words(age)


def test_one_measured_group_has_no_gap(make_quality):
    tree = make_quality().model_dump()
    for part in (tree["by_group"], tree["intervals"]["by_group"]):
        del part["sex"]["M"]
    _, sex = rows.groups(type(make_quality()).model_validate(tree))
    assert (sex.gap, sex.best, sex.worst) == (None, None, None)
    assert [item.value is None for item in sex.estimates] == [False, True]
    assert rows.gap_in_words(sex) == "No gap: fewer than two groups could be measured."


@pytest.mark.parametrize(
    ("kind", "mechanism", "meaning"),
    [
        ("federated, no privacy", "local", "what privacy costs"),
        ("pooled, same privacy", "local", "what federation costs"),
        ("pooled, no privacy", "local", "what federation and privacy cost"),
        ("pooled, no privacy", "none", "what federation costs"),
        ("pooled, same privacy", "none", "what federation costs"),
        ("local only, same privacy", "local", "what training together brings"),
        ("local only, no privacy", "local", "what training together brings and what privacy changes"),
        ("federated, same privacy", "local", "difference"),
        ("something else", "local", "difference"),
        ("a published strategy, no privacy", "local", "difference"),
    ],
)
def test_what_a_difference_stands_for(kind, mechanism, meaning):
    assert rows.meaning_of(kind, mechanism) == meaning


def test_differences_are_this_run_minus_the_reference(cases):
    report = cases["references"]
    found = rows.comparisons(report)
    assert [item.kind for item in found] == [reference.kind for reference in report.references]
    for item, reference in zip(found, report.references, strict=True):
        expected = report.quality.mean_over_members - reference.quality.mean_over_members
        assert item.mean_difference == pytest.approx(expected)
        assert item.pooled_difference == pytest.approx(report.quality.pooled - reference.quality.pooled)
        assert item.agreement_id == reference.agreement_id
    assert found[0].mean_difference < 0 < found[3].mean_difference


def test_spreads_over_repeats(cases):
    mean, pooled = rows.spreads(cases["references"])
    values = [repeat.mean_over_members for repeat in cases["references"].repeats]
    assert mean.mean == pytest.approx(statistics.fmean(values))
    assert mean.deviation == pytest.approx(statistics.stdev(values))
    assert (mean.low, mean.high) == (min(values), max(values))
    assert pooled.what == "all test records"
    assert rows.spreads(cases["normal"]) == ()


def test_one_repeat_has_no_deviation(make_report):
    (mean, _) = rows.spreads(make_report(repeats=(Repeat(seed=1, pooled=0.5, mean_over_members=0.4),)))
    assert (mean.mean, mean.deviation) == (0.4, None)


def test_equal_charges_of_several_members_share_a_row(cases):
    (charge,) = rows.charges(cases["normal"])
    assert charge.count == 100
    assert rows.everyone(charge.members, cases["normal"]) == "every member"
    found = rows.charges(cases["partial"])
    assert [(item.members, item.count) for item in found] == [
        (("Charite-Berlin", "Heidelberg"), 70),
        (("Aachen",), 65),
        (("Leipzig",), 55),
        (("Kiel",), 45),
    ]
    assert rows.everyone(found[0].members, cases["partial"]) == "Charite-Berlin, Heidelberg"


def test_different_charges_of_one_member_are_kept_apart(make_report):
    events = [
        EventCount(member="Kiel", event={"type": "Gaussian", "noise_multiplier": sigma}, count=3)
        for sigma in (1.0, 2.0)
    ]
    assert [item.members for item in rows.charges(make_report(events=tuple(events)))] == [
        ("Kiel",),
        ("Kiel",),
    ]


def test_the_only_member_is_named(cases):
    assert rows.everyone(["pool"], cases["pool"]) == "pool"


def test_absences_are_counted(cases):
    assert rows.absences(cases["normal"]) == 0
    assert rows.absences(cases["partial"]) == 9
