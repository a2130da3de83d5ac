"""Noise that was shared, as an auditor sees it: false shares in the logs, and false claims in a report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hansa.ledger import Charging
from hansa.privacy.charges import Charge
from hansa.privacy.events import poisson_gaussian
from hansa_simulations import simulate
from hansa_simulations.simulation import MemberData
from support.auditing import audited, failure_of
from support.audits import CHARGE, EVENT, MEMBERS, changed, entry_of, story
from support.cli import Called, hansa
from support.leagues import table, tables
from support.pooling import league_of, pooled_league

TRUTH = story()  # five members; the smallest sum is over four, so that three shares are left against one
OWN = 2.0


def reserving(
    folder: Path, shares: Callable[[str], float], parts: Callable[[str], int] = lambda _: 0
) -> Called:
    """An audit of the story with reservations that count on so many shares, in parts of so many members, by member."""

    def told(data: bytes) -> bytes:
        entry = entry_of(data)
        if entry.type != "reservation":
            return data
        shared = poisson_gaussian(0.1, OWN * math.sqrt(shares(entry.member)))
        charge = Charge("training", EVENT, CHARGE.count, shared, 1, parts(entry.member))
        return changed(data, charges=(Charging.of(charge),))

    entries = tuple(told(data) for data in TRUTH.federation)
    ledgers = replace(TRUTH, federation=entries, own={}, records=()).write(folder)
    (ledgers / "rounds.jsonl").unlink()
    return audited(ledgers)


def test_as_many_shares_as_the_smallest_sum_leaves_are_fine(tmp_path: Path) -> None:
    called = reserving(tmp_path, lambda _: 3.0)
    assert called.status == 0, called.stdout
    passed = called.data["passed"]
    assert passed["reservations that count on no more shares of noise than there were"] == len(MEMBERS)


def test_more_shares_than_there_were_are_a_false_reservation(tmp_path: Path) -> None:
    failure = failure_of(reserving(tmp_path, lambda _: 4.0), "federation")
    assert failure["type"] == "reservation"
    assert "counts on 4 shares of noise against 1 that collude" in failure["what"]
    assert "4 members, which leaves 3" in failure["what"]


def test_members_of_one_run_count_on_the_same_shares(tmp_path: Path) -> None:
    called = reserving(tmp_path, lambda name: 2.0 if name == MEMBERS[3] else 3.0)
    assert "counts on other shares of noise than" in failure_of(called, "federation")["what"]


@pytest.mark.parametrize(
    ("shares", "parts", "what"),
    [
        (4.0, lambda _: 5, None),  # what stays of each, where all five contribute
        (5.0, lambda _: 5, "counts on 5 shares"),
        (4.0, lambda _: 6, "noise in parts of 6 members"),
        (3.0, lambda name: 5 if name == MEMBERS[3] else 0, "counts on other shares of noise than"),
    ],
)
def test_noise_in_parts_counts_on_what_stays(
    tmp_path: Path, shares: float, parts: Callable[[str], int], what: str | None
) -> None:
    called = reserving(tmp_path, lambda _: shares, parts)
    if what is None:
        assert called.status == 0, called.stdout
    else:
        assert what in failure_of(called, "federation")["what"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real run left."""
    out = tmp_path_factory.mktemp("run") / "out"
    agreement = replace(pooled_league()[0], frozen=None).with_performance(evaluate_every=2)
    data = {name: MemberData(held, table(12, 9)) for name, held in tables().items()}
    report = simulate(agreement, members=data, out=out)
    assert report.shared_noise is not None
    assert report.members[0].epsilon_colluding is not None
    return out


class TestClaims:
    """A report of a real run, with one word changed."""

    def verdict(self, run: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Called:
        tree = json.loads((run / "report.json").read_text())
        change(tree)
        path = folder / "claimed.json"
        path.write_text(json.dumps(tree))
        keys = run / "ledgers" / "keys.json"
        return hansa("audit", "verify", run / "ledgers", "--keys", keys, "--report", path, "--format", "json")

    def test_the_truth_is_verified_and_both_losses_are_recomputed(self, run: Path, tmp_path: Path) -> None:
        called = self.verdict(run, tmp_path, lambda _: None)
        assert called.status == 0, called.stdout
        assert called.data["passed"]["claims: ε of members"] == 2 * 3
        against = {one["against"] for one in called.data["spent"]}
        assert against == {"everyone", "any 1 other member and all outside"}

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda t: t["members"][0].update(epsilon_colluding=0.9), "members.a.epsilon_colluding is 0.9"),
            (lambda t: t["members"][0].update(epsilon=t["members"][0]["epsilon_colluding"]), "members.a.epsilon"),
            (lambda t: t["members"][0].update(epsilon_colluding=None), "is not claimed"),
            (lambda t: t["members"][1].update(budget_epsilon_colluding=9.0), "budget_epsilon_colluding"),
            (lambda t: t["events"][0].update(shared=None), "against few that collude"),
            (lambda t: t["events"][0].update(shared=t["events"][0]["event"]), "against few that collude"),
            (lambda t: t.update(noise_multiplier=t["shared_noise"]["share_multiplier"]), "noise_multiplier"),
            (lambda t: t.update(shared_noise=None), "epsilon_colluding is claimed"),
            (lambda t: t["shared_noise"].update(honest=3), "shared_noise.honest"),
            (lambda t: t["shared_noise"].update(surplus=9.0), "shared_noise.surplus"),
            (lambda t: t["shared_noise"].update(most=9), "shared_noise.most"),
            (lambda t: t["shared_noise"].update(share_multiplier=9.0), "shared_noise.share_multiplier"),
            (lambda t: t["history"][0].update(epsilon_colluding=0.01), "epsilon_colluding"),
            (lambda t: t.update(mechanism="local"), "members reserved shared noise"),
        ],
    )  # fmt: skip
    def test_a_false_claim(
        self, run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], what: str
    ) -> None:
        assert what in failure_of(self.verdict(run, tmp_path, change), "report.json")["what"]


@pytest.fixture(scope="module")
def opened_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a real run of four left that rotated its sums and opened its surplus of noise."""
    out = tmp_path_factory.mktemp("opened") / "out"
    options = {"rotation": "randomized-hadamard", "noise_in_parts": True, "steps": 2}
    made, _ = league_of(4, privacy=options, training={"rounds": 2})
    agreement = replace(made, frozen=None).with_performance(evaluate_every=2)
    data = {f"m{i}": MemberData(table(40, i), table(12, 9)) for i in range(4)}
    report = simulate(agreement, members=data, out=out)
    assert report.status == "done"
    told = report.shared_noise
    assert told is not None
    assert (told.rotation, told.in_parts, told.most) == ("randomized-hadamard", True, 4)
    assert (told.surplus, told.remaining) == (2.0, pytest.approx(4 / 3))
    assert told.share_multiplier == pytest.approx(report.noise_multiplier / math.sqrt(3))
    return out


class TestOpenedNoise:
    """Logs, records and a report of a run whose members opened what its sums need not keep."""

    def audit(self, run: Path, report: Path) -> Called:
        keys = run / "ledgers" / "keys.json"
        return hansa(
            "audit", "verify", run / "ledgers", "--keys", keys, "--report", report, "--format", "json"
        )

    def test_the_truth_is_verified(self, opened_run: Path) -> None:
        called = self.audit(opened_run, opened_run / "report.json")
        assert called.status == 0, called.stdout
        record = json.loads((opened_run / "ledgers" / "rounds.jsonl").read_text().splitlines()[0])
        assert set(record["noise_seeds"]) == {"m0", "m1", "m2", "m3"}

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ({"remaining": 1.0}, "shared_noise.remaining"),
            ({"in_parts": False}, "shared_noise.in_parts"),
            ({"share_multiplier": 9.0}, "shared_noise.share_multiplier"),
        ],
    )
    def test_a_false_claim(self, opened_run: Path, tmp_path: Path, change: dict[str, Any], what: str) -> None:
        tree = json.loads((opened_run / "report.json").read_text())
        tree["shared_noise"].update(change)
        (tmp_path / "claimed.json").write_text(json.dumps(tree))
        assert what in failure_of(self.audit(opened_run, tmp_path / "claimed.json"), "report.json")["what"]
