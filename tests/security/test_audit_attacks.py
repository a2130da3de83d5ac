"""Entries about attacks in a stranger's log: those that contradict their claim, and those that are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.ledger import AttackMade, Spending, real
from hansa.privacy.attack import CONFIDENCE, MOST_CANARIES, Claim, Design
from hansa.privacy.events import Spend, Truncation, gaussian, truncated_poisson_gaussian
from support.auditing import audited, failure_of
from support.audits import AGREEMENT, MEMBERS, Story, at, opening, signed, story

TRUTH = story()
VICTIM = MEMBERS[1]
CLAIM = Claim((Spend(gaussian(4.0), 1),), 1e-5)  # ε of about 1
DESIGN = Design(CLAIM, 1000, 50, 50)


def entry(**said: Any) -> AttackMade:
    words: dict[str, Any] = {
        "at": at(1),
        "agreement_id": AGREEMENT,
        "member": VICTIM,
        "kind": "gradients",
        "canaries": DESIGN.canaries,
        "guessed_in": DESIGN.guessed_in,
        "guessed_out": DESIGN.guessed_out,
        "correct": 60,
        "confidence": real(CONFIDENCE),
        "delta": real(CLAIM.delta),
        "spends": tuple(Spending.of(spend) for spend in CLAIM.spends),
    }
    return AttackMade(**{**words, **said})


def begun(*more: AttackMade) -> Story:
    """The victim's log alone, with attacks at its end."""
    grant, agreement, reservation = map(signed, opening(VICTIM))
    own = (grant, agreement, reservation, *(signed(one) for one in more))
    return replace(TRUTH, own={VICTIM: own}, federation=(agreement, reservation), records=())


def spending(event: dict[str, Any], count: int = 1) -> tuple[Spending, ...]:
    return (Spending.model_validate({"event": event, "count": count}, strict=False),)


def test_one_that_contradicts_nothing_is_told_as_checked(tmp_path: Path) -> None:
    called = audited(begun(entry()).write(tmp_path))
    assert called.status == 0, called.stdout
    assert called.data["passed"]["attacks that contradict no claim"] == 1


def test_one_that_contradicts_its_claim_is_a_failure(tmp_path: Path) -> None:
    """From the very number of right guesses on that the design names."""
    needed = DESIGN.needed
    assert needed is not None
    innocent = audited(begun(entry(correct=needed - 1)).write(tmp_path / "innocent"))
    assert innocent.status == 0
    called = audited(begun(entry(), entry(at=at(2), correct=needed)).write(tmp_path / "refuted"))
    failure = failure_of(called, f"members/{VICTIM}")
    assert (failure["entry"], failure["type"]) == (4, "attack")
    assert "contradicts" in failure["what"]
    assert f"{needed} of 100 guesses" in failure["what"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "Guessed"},
        {"type": "Gaussian", "noise_multiplier": real(-1.0)},
        {"type": "PoissonSampled", "sampling_probability": real(2.0), "event": {"type": "Gaussian"}},
    ],
    ids=["unknown", "negative noise", "rate above one"],
)
def test_one_of_no_events_is_a_failure(tmp_path: Path, event: dict[str, Any]) -> None:
    called = audited(begun(entry(spends=spending(event))).write(tmp_path))
    failure = failure_of(called, f"members/{VICTIM}")
    assert (failure["entry"], failure["type"]) == (3, "attack")
    assert "tells of no attack" in failure["what"]


@pytest.mark.parametrize(
    "said",
    [
        {"canaries": 2**52, "guessed_in": 2**51, "correct": 2**50},
        {"canaries": MOST_CANARIES + 1},
        {"spends": spending({"type": "Gaussian", "noise_multiplier": real(1e6)}, 2**40)},
        {"spends": (Spending.of(Spend(truncated_poisson_gaussian(0.1, 1.0, Truncation(100, 20)), 2)),)},
    ],
    ids=["no memory", "too many", "no end", "cut samples"],
)
def test_what_would_take_hours_is_told_and_not_computed(tmp_path: Path, said: dict[str, Any]) -> None:
    called = audited(begun(entry(**said)).write(tmp_path))
    assert called.status == 0, called.stdout
    assert any("an attack of" in one["what"] for one in called.data["not_checked"])


def test_of_very_many_the_first_are_looked_at(tmp_path: Path) -> None:
    called = audited(
        begun(*(entry(at=at(number), correct=number % 60) for number in range(103))).write(tmp_path)
    )
    assert called.status == 0, called.stdout
    assert called.data["passed"]["attacks that contradict no claim"] == 100
    assert any("3 attacks" in one["what"] for one in called.data["not_checked"])


def test_one_in_the_federations_log_does_not_stand_there(tmp_path: Path) -> None:
    told = begun()
    told = told.with_federation([*told.federation, signed(entry())])
    failure = failure_of(audited(told.write(tmp_path)), "federation")
    assert failure["entry"] == 2


def test_the_report_leaves_out_what_the_audit_calls_wrong(tmp_path: Path) -> None:
    from support.audit_reports import report_on

    ledgers = begun(entry(spends=spending({"type": "Guessed"})), entry(at=at(2))).write(tmp_path)
    told = report_on([ledgers])
    assert [one.correct for one in told.empirical.attacks] == [60]
    assert told.empirical.measured is True
