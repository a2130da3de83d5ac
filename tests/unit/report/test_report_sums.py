"""What a report says of its secure sums, and that it does not promise more than the terms do."""

from __future__ import annotations

import json

import pytest

from hansa.report import Report, render_html, render_text, sums


@pytest.fixture(scope="module")
def report(cases):
    return cases["secure-sum"]


def test_the_promise_names_the_adversary_and_the_smallest_sum(report):
    said = sums.promise(report.secure_sum)
    assert "a coordinator that does anything at all, and up to 1 member on its side" in said
    assert "at least 4 of 5 members, 3 of them honest" in said
    assert "X25519." in said


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"threat_model": "honest-but-curious"}, "follows the protocol and reads all it can"),
        ({"post_quantum": True}, "X25519 with ML-KEM-768"),
        ({"members": 3, "threshold": 3, "smallest_sum": 3, "honest": 3}, "and no other member"),
        ({"members": 3, "threshold": 3, "smallest_sum": 3, "honest": 3}, "sums over all 3 members"),
        ({"members": 7, "threshold": 5, "smallest_sum": 6, "honest": 4}, "up to 2 members on its side"),
    ],
)
def test_the_promise_follows_the_terms(make_report, sums_added, terms, words):
    assert words in sums.promise(sums_added(make_report(), **terms).secure_sum)


def test_who_recomputed_and_what_failed_is_counted(report, make_report, sums_added):
    said = sums.checked(report)
    assert said.startswith("20 of 20 sums recomputed by simulation-verifier")
    assert said.endswith("; 1 begun sum failed.")
    unverified = report.model_copy(
        update={
            "round_log": tuple(
                entry.model_copy(
                    update={"secure_sum": entry.secure_sum.model_copy(update={"verified_by": None})}
                )
                for entry in report.round_log
            )
        }
    )
    assert sums.checked(unverified).startswith("None of 20 sums recomputed by anyone yet")


def test_costs_are_means_over_rounds_in_the_order_of_the_protocol(report):
    phases = sums.phases(report)
    assert tuple(phase.name for phase in phases) == sums.PHASES
    assert (phases[2].sent_bytes, phases[2].received_bytes) == (3000, 1500)
    assert phases[2].seconds == pytest.approx(0.012)


def test_drops_are_told_by_member_and_phase(report):
    (drop,) = sums.drops(report)
    assert (drop.member, drop.phase, drop.rounds) == ("Kiel", "masked", (3, 4))
    assert sums.drop_in_words(drop) == "Kiel: masked, in rounds 3, 4"
    many = sums.Drop("Kiel", "keys", tuple(range(1, 12)))
    assert sums.drop_in_words(many) == "Kiel: keys, in rounds 1, 2, 3, 4, 5, 6 and 5 more"


def test_a_terminal_and_a_page_say_all_of_it(report):
    text, page = " ".join(render_text(report).split()), render_html(report)
    for words in (
        "recomputed by simulation-verifier",
        "does anything at all",
        "Kiel: masked, in rounds 3, 4",
    ):
        assert words in text
        assert words in page
    assert "Round 5: Aachen opened shares" in text
    assert "they sign who survived" in page
    assert "proves no identity" in page


def test_a_baseline_says_nothing_of_a_secure_sum(make_report):
    plain: Report = make_report(members=("pool",), history=())
    assert plain.secure_sum is None
    assert "Secure sum" not in render_text(plain)
    assert 'id="sum"' not in render_html(plain)


def test_a_stranger_in_a_sum_is_refused(report):
    values = report.model_dump(mode="json")
    values["round_log"][0]["secure_sum"]["dropped"] = {"nobody": "keys"}
    with pytest.raises(ValueError, match="'nobody' is no member"):
        Report.model_validate_json(json.dumps(values))
