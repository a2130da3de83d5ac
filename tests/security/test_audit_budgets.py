"""Budgets of a stranger's log: counts that no accountant can compose, grants that bound nothing, rules out of place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.ledger import Charging, real
from hansa.privacy.charges import Charge
from support.auditing import audited, failure_of
from support.audits import EVENT, MEMBERS, Story, changed, opening, reworded, signed, story

TRUTH = story()
VICTIM = MEMBERS[1]


def begun(*more: bytes, granted: dict[str, Any] | None = None, **reserved: Any) -> Story:
    """The victim's log alone: a grant, the agreement, a reservation, and what is added."""
    grant, agreement, reservation = map(signed, opening(VICTIM))
    entries = [signed(reworded(grant, **(granted or {}))), agreement, changed(reservation, **reserved), *more]
    return replace(TRUTH, own={VICTIM: tuple(entries)}, federation=(agreement, entries[2]), records=())


def other_grants(count: int, delta: float) -> list[bytes]:
    """Budgets of other datasets of the victim's."""
    grant = opening(VICTIM)[0]
    ids = (f"{number:032x}" for number in range(count))
    return [signed(grant.model_copy(update={"dataset_id": one, "delta": real(delta)})) for one in ids]


class TestCountsThatPldCannotCompose:
    @pytest.mark.parametrize("count", [2**40, 2**52], ids=["no memory", "no end"])
    def test_are_a_failure_where_rdp_shows_no_limit_that_holds(self, tmp_path: Path, count: int) -> None:
        charges = (Charging.of(Charge("training", EVENT, count)),)
        failure = failure_of(audited(begun(charges=charges).write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (2, "reservation")
        assert "by RDP" in failure["what"]

    def test_are_told_where_rdp_shows_that_the_limit_holds(self, tmp_path: Path) -> None:
        quiet = {"type": "Gaussian", "noise_multiplier": 1e7}
        charges = (Charging.of(Charge("training", quiet, 2**30)),)
        called = audited(begun(charges=charges).write(tmp_path))
        assert called.status == 0, called.stdout
        assert any("within its limit by RDP" in one["what"] for one in called.data["not_checked"])
        total = next(one for one in called.data["spent"] if not one["run"])
        assert 0 < total["epsilon"] <= total["limit"]


class TestGrants:
    def test_whose_deltas_add_up_to_one_bound_nothing(self, tmp_path: Path) -> None:
        told = begun(*other_grants(2, 0.6))
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (4, "budget")
        assert "bound nothing" in failure["what"]

    def test_in_any_number_add_up(self, tmp_path: Path) -> None:
        called = audited(begun(*other_grants(1200, 1e-9)).write(tmp_path))
        assert called.status == 0, called.stdout
        assert any("1201 budgets together" in one["what"] for one in called.data["remarks"])

    def test_at_a_delta_that_pld_cannot_tell_beside_a_broken_last_entry(self, tmp_path: Path) -> None:
        told = begun(granted={"delta": real(1e-12)}, unit="record")
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (0, "budget")
        assert "PLD cannot tell" in failure["what"]

    def test_for_runs_fixed_in_advance_hold_runs_of_one_agreement(self, tmp_path: Path) -> None:
        reservation = signed(opening(VICTIM)[2])
        later = changed(reservation, agreement_id="9" * 64, run="another")
        failure = failure_of(audited(begun(later).write(tmp_path)), f"members/{VICTIM}")
        assert (failure["entry"], failure["type"]) == (3, "reservation")
        assert "fixed in advance" in failure["what"]
