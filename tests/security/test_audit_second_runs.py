"""A run that the federation's log does not show: only a reservation that names another log excuses it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.ledger import Charging, NoteSigner, Release, Reservation, RunClosed, Spending
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend
from support.auditing import audited, failure_of, failures, named
from support.audits import (
    AGREEMENT,
    DATASETS,
    DELTA,
    EVENT,
    KEYS,
    MEMBERS,
    ROUNDS,
    STEPS,
    Story,
    at,
    changed,
    signed,
    story,
)
from support.published import report_of

TRUTH = story()
OTHER = NoteSigner.generate("hansa.example/another-league").key.text
VICTIM = MEMBERS[1]
SECOND = "run-2"


def second_run(
    name: str, federation_log: str | None, releases: int = 4, *, close: bool = True
) -> list[bytes]:
    """What a member writes in another run under the agreement."""
    base: dict[str, Any] = {"agreement_id": AGREEMENT, "run": SECOND, "member": name}
    base["dataset_id"] = DATASETS[name]
    about: dict[str, Any] = {"unit": "patient", "adjacency": "add-or-remove-one"}
    charge = Charging.of(Charge("training", EVENT, ROUNDS * STEPS))
    entries = [
        signed(Reservation(at=at(100), **base, **about, charges=(charge,), federation_log=federation_log))
    ]
    for number in range(1, releases + 1):
        release = Release(
            at=at(100 + number),
            **base,
            **about,
            purpose="training",
            round=number,
            step=number - 1,
            spends=(Spending.of(Spend(EVENT, STEPS)),),
            y_sha256=f"{number:064x}",
            manifest_sha256="d4" * 32,
            software={"hansa": "0.1.0"},
            lock_sha256="c3" * 32,
            rng="the operating system's",
        )
        entries.append(signed(release))
    if close:
        entries.append(signed(RunClosed(at=at(120), **base, released={"training": releases * STEPS})))
    return entries


def with_second(federation_log: str | None, *, shown: bool) -> Story:
    """All members have run a second time; the federation's log shows it, or was cut before it."""
    more = {name: second_run(name, federation_log) for name in MEMBERS}
    told = replace(TRUTH, own={name: (*TRUTH.own[name], *more[name]) for name in MEMBERS})
    extra = [data for entries in more.values() for data in entries]
    return told.with_federation([*TRUTH.federation, *extra]) if shown else told


def claimed(folder: Path, count: int) -> Path:
    """A report that claims so many steps of every member, and the ε that follows."""
    tree = report_of(TRUTH).model_dump(mode="json")
    for member, event in zip(tree["members"], tree["events"], strict=True):
        member["noisy_steps"] = event["count"] = event["count"] + count
        member["epsilon"] = epsilon_spent([Spend(EVENT, event["count"])], DELTA)
    path = folder / "claimed.json"
    path.write_text(json.dumps(tree))
    return path


class TestALogThatWasCutBeforeAWholeRun:
    @pytest.mark.parametrize("federation_log", [None, KEYS.federation_log], ids=["unnamed", "named"])
    def test_is_caught_by_what_members_released(self, tmp_path: Path, federation_log: str | None) -> None:
        """The log was cosigned as it stood before the second run, and nobody has anything later of it."""
        called = audited(with_second(federation_log, shown=False).write(tmp_path))
        first = {(f"members/{name}", len(TRUTH.own[name]), "reservation") for name in MEMBERS}
        assert named(called) == first
        assert "left it out" in failure_of(called, f"members/{VICTIM}")["what"]

    def test_is_caught_with_a_report_that_claims_the_rest(self, tmp_path: Path) -> None:
        told = with_second(None, shown=False)
        found = failures(audited(told.write(tmp_path), "--report", claimed(tmp_path, 0)))
        assert "events of" in next(one["what"] for one in found if one["log"] == "report.json")

    def test_leaves_a_claim_of_the_rest_false_where_one_release_may_be_on_its_way(
        self, tmp_path: Path
    ) -> None:
        """One release may not have reached anybody; it is spent all the same."""
        more = second_run(VICTIM, None, 1, close=False)
        told = TRUTH.with_own(VICTIM, [*TRUTH.own[VICTIM], *more])
        called = audited(told.write(tmp_path))
        assert called.status == 0, called.stdout
        assert any("reached the coordinator" in one["what"] for one in called.data["not_checked"])
        called = audited(told.write(tmp_path / "again"), "--report", claimed(tmp_path, 0))
        assert failure_of(called, "report.json")["what"].startswith(f"events of {VICTIM}")

    def test_is_no_excuse_for_a_run_of_that_name_elsewhere(self, tmp_path: Path) -> None:
        """Whoever reserves a run here has to show it here, also if it reserves one of that name for another log."""
        grant = changed(TRUTH.own[VICTIM][0], dataset_id="ab" * 16)
        twice = changed(second_run(VICTIM, OTHER)[0], dataset_id="ab" * 16)
        told = TRUTH.with_own(VICTIM, [*TRUTH.own[VICTIM], *second_run(VICTIM, None), grant, twice])
        failure = failure_of(audited(told.write(tmp_path)), f"members/{VICTIM}")
        assert failure["entry"] == len(TRUTH.own[VICTIM])


class TestARunForAnotherLog:
    def test_is_told_and_accepted(self, tmp_path: Path) -> None:
        called = audited(with_second(OTHER, shown=False).write(tmp_path))
        assert called.status == 0, called.stdout
        said = [one for one in called.data["not_checked"] if SECOND in one["what"]]
        assert len(said) == len(MEMBERS)
        assert all(OTHER in one["why"] for one in said)

    @pytest.mark.parametrize("count", [0, ROUNDS * STEPS], ids=["this log's runs", "all runs"])
    def test_may_be_claimed_or_left_to_its_own_report(self, tmp_path: Path, count: int) -> None:
        told = with_second(OTHER, shown=False)
        called = audited(told.write(tmp_path), "--report", claimed(tmp_path, count))
        assert called.status == 0, called.stdout

    def test_stands_in_no_log_but_that_one(self, tmp_path: Path) -> None:
        failure = failure_of(audited(with_second(OTHER, shown=True).write(tmp_path)), "federation")
        assert (failure["entry"], failure["type"]) == (len(TRUTH.federation), "reservation")
        assert "another log" in failure["what"]


def test_a_second_run_that_both_logs_show_is_accepted(tmp_path: Path) -> None:
    called = audited(with_second(KEYS.federation_log, shown=True).write(tmp_path))
    assert called.status == 0, called.stdout
