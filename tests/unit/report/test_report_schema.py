"""A report cannot be made with numbers that do not fit together."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from hansa.report import Counts, EventCount, Intervals, Quality, Report


def a_small_quality(**changes):
    values = {
        "metric": "auc",
        "pooled": 0.7,
        "mean_over_members": 0.6,
        "by_member": {"a": 0.6},
        "by_group": {"sex": {"F": 0.5}},
        "intervals": Intervals(
            pooled=(0.6, 0.8),
            mean_over_members=(0.5, 0.7),
            by_member={"a": (0.5, 0.7)},
            by_group={"sex": {"F": (0.4, 0.6)}},
        ),
        "counts": Counts(pooled=9, by_member={"a": 5, "b": 4}, by_group={"sex": {"F": 4, "M": 5}}),
    }
    return Quality.model_validate(values | changes)


def test_a_count_without_a_value_is_what_could_not_be_measured():
    quality = a_small_quality()
    assert "b" not in quality.by_member
    assert quality.counts.by_member["b"] == 4


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"by_member": {"a": 0.6, "b": 0.6}}, "by_member: intervals"),
        ({"by_member": {"c": 0.6}}, "without a count"),
        ({"by_group": {"sex": {"F": 0.5, "M": 0.6}}}, "by_group.sex: intervals"),
        ({"by_group": {"age": {"F": 0.5}}}, "by_group"),
        ({"pooled": math.nan}, "finite"),
        ({"mean_over_members": math.inf}, "finite"),
        ({"metric": "f1"}, "accuracy"),
    ],
)
def test_a_quality_whose_parts_differ_is_refused(changes, what):
    with pytest.raises(ValidationError, match=what):
        a_small_quality(**changes)


def test_an_interval_that_runs_down_is_refused():
    with pytest.raises(ValidationError, match="runs from"):
        Intervals(pooled=(0.8, 0.6), mean_over_members=(0, 1), by_member={}, by_group={})
    with pytest.raises(ValidationError, match="runs from"):
        Intervals(pooled=(0, 1), mean_over_members=(0, 1), by_member={}, by_group={"g": {"v": (1, 0)}})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"status": "partial"}, "must say why"),
        ({"agreement_id": "0" * 63}, "agreement_id"),
        ({"seconds": math.nan}, "seconds"),
        ({"seconds": -1.0}, "seconds"),
        ({"surprise": 1}, "surprise"),
        ({"mechanism": "magic"}, "mechanism"),
        ({"events": (EventCount(member="stranger", event={"type": "NonPrivate"}, count=1),)}, "stranger"),
    ],
)
def test_a_report_that_does_not_fit_together_is_refused(make_report, changes, what):
    with pytest.raises(ValidationError, match=what):
        make_report(**changes)


def test_everything_that_is_wrong_is_told_at_once(make_report):
    tree = make_report().model_dump()
    tree["members"] = (tree["members"][0], *tree["members"])
    tree["events"] = ({"member": "x", "event": {}, "count": 0},)
    with pytest.raises(ValidationError) as raised:
        Report.model_validate({**tree, "status": "partial"})
    text = str(raised.value)
    assert "'Charite-Berlin' stands twice" in text
    assert "'x' is no member" in text
    assert "must say why" in text


def test_a_report_is_frozen(make_report):
    report = make_report()
    with pytest.raises(ValidationError, match="frozen"):
        report.seed = 8
    with pytest.raises(ValidationError, match="frozen"):
        report.quality.pooled = 1.0


def test_owners_of_test_records_need_not_be_members(cases: dict[str, Report]):
    pool = cases["pool"]
    assert [member.name for member in pool.members] == ["pool"]
    assert "pool" not in pool.quality.counts.by_member
