"""Numbers as a person reads them, and the sentences about privacy."""

from __future__ import annotations

import pytest

from hansa.report import words
from hansa.report.statement import largest_loss, statement


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.1, "0.1"), (0.148346, "0.149"), (1.4892, "1.490"), (1e-5, "1e-5"), (None, words.ABSENT)],
)
def test_a_budget_is_no_smaller_than_what_it_allows(value, text):
    assert words.budget(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7.9981, "7.999"),
        (7.998, "7.998"),
        (8.0, "8.000"),
        (0.1 + 0.2, "0.300"),
        (0.00001, "0.001"),
        (0.0, "0.000"),
        (23.40001, "23.401"),
        (1234567.0, "1234567.000"),
        (None, "none claimed"),
    ],
)
def test_an_epsilon_is_never_rounded_down(value, text):
    assert words.epsilon(value) == text
    if value is not None:
        assert float(text) >= value - 1e-9


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-5"),
        (1e-4, "1e-4"),
        (0.00025, "2.5e-4"),
        (0.001, "0.001"),
        (200000.0, "200000"), (8.0, "8"), (0.05, "0.05"), (0.8731, "0.8731"), (None, "–"), (2e6, "2e6"), (0.0, "0"), (1.5e-10, "1.5e-10")],
)  # fmt: skip
def test_numbers_of_the_agreement_are_written_plainly(value, text):
    assert words.plain(value) == text
    if value is not None:
        assert float(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0312, "+0.031"),
        (-0.0312, "−0.031"),
        (0.0, "0.000"),
        (-0.0004, "0.000"),
        (0.0006, "+0.001"),
        (None, "–"),
    ],
)
def test_differences_have_a_sign_unless_they_are_zero(value, text):
    assert words.difference(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (412_000, "412 kB"),
        (999_600, "1 MB"),
        (8_240_000, "8.24 MB"),
        (912_345_678, "912 MB"),
        (3_100_000_000, "3.1 GB"),
        (2_500_000_000_000, "2.5 TB"),
    ],
)
def test_bytes(value, text):
    assert words.amount_bytes(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.21, "4.2 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (252, "4 min 12 s"),
        (3599.6, "1 h 0 min"),
        (3780, "1 h 3 min"),
    ],
)
def test_durations(seconds, text):
    assert words.duration(seconds) == text


def test_small_words():
    assert words.quality(0.73649) == "0.736"
    assert words.quality(None) == words.interval(None) == "–"
    assert words.interval((0.7, 0.8)) == "0.700–0.800"
    assert [words.counted(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert words.counted(2, "entry", "entries") == "2 entries"
    assert [words.joined(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [words.percent(share) for share in (0, 0.004, 0.0996, 0.2, 1)] == [
        "0 %",
        "0.4 %",
        "10 %",
        "20 %",
        "100 %",
    ]
    assert words.sentence_start("balanced accuracy") == "Balanced accuracy"
    assert words.sentence_start("AUC") == "AUC"
    assert [words.metric(name) for name in ("auc", "balanced-accuracy")] == ["AUC", "balanced accuracy"]


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2026-03-01T12:30:00+00:00", "2026-03-01 12:30 UTC"),
        ("2026-03-01T12:30:00.5+02:00", "2026-03-01 10:30 UTC"),
        ("2026-03-01T12:30:00", "2026-03-01T12:30:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_moments(created, text):
    assert words.clock(created) == text


def test_events_are_told_in_words():
    gaussian = {"type": "Gaussian", "noise_multiplier": 0.8731}
    assert words.event(gaussian, "record") == "Gaussian noise of 0.8731 times the sensitivity"
    sampled = {"type": "PoissonSampled", "sampling_probability": 0.05, "event": gaussian}
    told = words.event(sampled, "patient")
    assert (
        told
        == "each patient drawn with probability 0.05, then Gaussian noise of 0.8731 times the sensitivity"
    )
    assert "no privacy" in words.event({"type": "NonPrivate"}, "record")


def test_an_event_of_an_unknown_kind_is_shown_as_it_is():
    assert words.event({"type": "Laplace", "scale": 2}, "record") == '{"scale":2,"type":"Laplace"}'
    nested = {"type": "PoissonSampled", "sampling_probability": 0.1, "event": {"type": "Laplace"}}
    assert words.event(nested, "record").endswith('{"type":"Laplace"}')


def test_events_of_the_privacy_package_are_all_told_in_words():
    events = pytest.importorskip("hansa.privacy.events")
    dp = pytest.importorskip("dp_accounting")
    made = [
        events.poisson_gaussian(0.05, 0.9),
        events.event_to_json(dp.GaussianDpEvent(1.5)),
        events.event_to_json(dp.NonPrivateDpEvent()),
        events.truncated_poisson_gaussian(0.05, 0.9, events.Truncation(2000, 150)),
    ]
    assert (
        "each of at most 2,000 records drawn with probability 0.05, of more than 150 only 150 at random"
        in (words.event(made[-1], "record"))
    )
    assert not any(words.event(event, "record").count("{") for event in made)


def test_the_lead_says_how_many_rounds_were_planned(cases):
    assert "in 20 rounds with local noise" in words.lead(cases["normal"])
    assert "in 14 of 20 rounds" in words.lead(cases["partial"])
    assert "model 0 had 0.569" in words.lead(cases["normal"])
    assert "model 0" not in words.lead(cases["single-point"])
    assert words.lead(cases["pool"]).startswith("1 member trained")


def test_the_promise_is_that_of_the_member_that_released_most(make_report):
    report = make_report(absent={3: {"Charite-Berlin": "absent"}, 4: {"Charite-Berlin": "absent"}})
    loss = largest_loss(report)
    assert loss is not None
    assert loss.epsilon == max(member.epsilon for member in report.members) > report.members[0].epsilon
    assert loss.share == loss.epsilon / 8
    assert "ε ≤ 7.999 at δ = 1e-5, add-or-remove-one" in statement(report).headline


@pytest.mark.parametrize(
    ("unit", "neighbours"), [("patient", "all records of one patient"), ("record", "one record")]
)
def test_the_statement_names_unit_adjacency_observer_and_limits(make_report, unit, neighbours):
    told = statement(make_report(unit=unit))
    assert f"differ by {neighbours}" in told.meaning[0]
    assert "coordinator" in told.meaning[1]
    limits = " ".join(told.unprotected)
    for what in ("took part", "k members", "bounded amount", "simulator"):
        assert what in limits
    assert ("k records" in limits) == (unit == "record")


def test_distributed_noise_does_not_claim_to_hold_alone(make_report):
    told = statement(make_report(mechanism="distributed"))
    assert "own noise alone" not in " ".join(told.meaning)
    assert "the others adding their shares" in told.meaning[1]


def test_without_a_mechanism_nothing_is_promised(make_report):
    for report in (make_report(epsilon=None), make_report(mechanism="none")):
        told = statement(report)
        assert largest_loss(report) is None
        assert told.headline == "No privacy is claimed for this run."
        assert "ε ≤" not in " ".join((told.headline, *told.meaning))


def test_a_member_without_a_budget_has_no_share(make_report):
    tree = make_report().model_dump()
    for member in tree["members"]:
        member["budget_epsilon"] = None
    loss = largest_loss(type(make_report()).model_validate(tree))
    assert loss is not None
    assert loss.share is None
