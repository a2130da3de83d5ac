"""The nine groups of an audit report, as values: what they say follows from the entries, and from nothing else."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.audit import Failure, audit, read_sources
from hansa.audit.report import AuditReport, report_text
from hansa.audit.report.chronicle import chronicles
from hansa.audit.report.composition import Spent, spaced
from hansa.audit.report.promises import Mechanism
from hansa.audit.report.words import sample
from hansa.identity.keys import fingerprint
from hansa.ledger import BudgetGranted, Charging, Reservation, RunClosed, SignedEntry, real
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend, poisson_gaussian
from support.audit_reports import HASH, MADE, published, report_on
from support.audits import (
    AGREEMENT,
    CHARGE,
    DATASETS,
    DELTA,
    EPSILON,
    EVENT,
    KEYS,
    LATE,
    LOG_SIGNERS,
    MEMBERS,
    RUN,
    STEPS,
    TERMS,
    Story,
    edited,
    entry_of,
    model,
    opening,
    signed,
    story,
    write_log,
)
from support.published import report_of

TRUTH = story()


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TRUTH.write(tmp_path_factory.mktemp("truth"))


@pytest.fixture(scope="module")
def told(ledgers: Path) -> AuditReport:
    return report_on([ledgers])


def epsilon(steps: int) -> float:
    return epsilon_spent([Spend(EVENT, steps)], DELTA)


class TestIdentity:
    def test_ids_parties_and_times(self, told: AuditReport) -> None:
        identity = told.identity
        assert (identity.agreement_id, identity.terms_id) == (AGREEMENT, TERMS)
        assert [party.name for party in identity.parties] == ["coordinator", *MEMBERS]
        assert identity.parties[1].fingerprint == fingerprint(KEYS.members[MEMBERS[0]])
        assert [party.own_log for party in identity.parties] == [False, True, True, True, True, True]
        assert (identity.first, identity.last) == ("2026-03-01T12:00:00Z", "2026-03-01T12:50:00Z")
        assert identity.title is None

    def test_the_run_and_its_model(self, told: AuditReport) -> None:
        (run,) = told.identity.runs
        assert (run.run, run.sums, run.failed, run.members) == (RUN, 4, 0, MEMBERS)
        assert run.model_sha256 == model(4)

    def test_software_by_member(self, told: AuditReport) -> None:
        (software,) = told.identity.software
        assert software.versions == {"hansa": "0.1.0"}
        assert software.releases == {**dict.fromkeys(MEMBERS, 4), LATE: 3}

    def test_a_title_is_the_claim_of_a_report(self, ledgers: Path) -> None:
        assert report_on([ledgers], report_of(TRUTH)).identity.title == "Readmission"


class TestGuarantee:
    def test_spent_and_left_are_what_the_audit_recomputed(self, told: AuditReport) -> None:
        for budget in told.guarantee.budgets:
            steps = STEPS * (3 if budget.member == LATE else 4)
            (limit,) = budget.limits
            assert (limit.epsilon, limit.delta, limit.against) == (EPSILON, DELTA, "everyone")
            assert limit.spent == pytest.approx(epsilon(steps))
            assert limit.remaining == pytest.approx(EPSILON - epsilon(steps))
            assert (budget.unit, budget.max_records_per_unit, budget.reason) == (
                "patient",
                4,
                "board of 1 March",
            )
        assert [budget.member for budget in told.guarantee.budgets] == list(MEMBERS)

    def test_the_statement_is_the_limit(self, told: AuditReport) -> None:
        assert (
            "Every patient at every member whose log was given: ε ≤ 3.000 at δ ≤ 1e-5"
            in told.guarantee.statement
        )

    def test_members_with_the_same_events_stand_together(self, told: AuditReport) -> None:
        one, other = told.guarantee.charged
        assert (one.members, other.members) == (MEMBERS[:4], (LATE,))
        assert one.event == EVENT
        assert (one.reserved, one.released, one.counted) == (CHARGE.count, 20, 20)
        assert (other.released, other.counted) == (15, 15)
        assert (
            one.words
            == "each patient drawn with probability 0.1, then Gaussian noise of 2 times the sensitivity"
        )

    def test_the_profile_falls_with_delta_and_meets_the_limit_s_delta(self, told: AuditReport) -> None:
        for profile in told.guarantee.profiles:
            known = dict(profile.points)
            assert all(a[1] < b[1] for a, b in pairwise(profile.points))  # type: ignore[operator]
            assert known[DELTA] == pytest.approx(epsilon(15 if profile.members == (LATE,) else 20))

    def test_accountants_that_looked(self, told: AuditReport) -> None:
        assert told.guarantee.accountant.startswith("PLD of dp_accounting 0.6")
        assert told.guarantee.checks == {"rdp": 5, "sum-attack": 5}

    def test_without_grants_no_epsilon_is_stated(self, ledgers: Path) -> None:
        told = report_on([ledgers / "federation"])
        assert told.guarantee.budgets == ()
        assert told.guarantee.without_limit == MEMBERS
        assert told.composition.histories == told.composition.curves == ()
        assert "no limit can be stated" in told.guarantee.statement
        assert [one.counted for one in told.guarantee.charged] == [20, 15]  # from the federation's copies

    def test_shared_noise_has_two_limits_and_two_events(self, tmp_path: Path) -> None:
        told = report_on([distributed(tmp_path)])
        (budget,) = told.guarantee.budgets
        assert [limit.against for limit in budget.limits] == [
            "everyone",
            "any 1 other member and all outside",
        ]
        alone, together = budget.limits
        assert alone.spent is not None
        assert together.spent is not None
        assert together.spent < alone.spent
        (charged,) = told.guarantee.charged
        assert (charged.coalition, charged.shared) == (1, poisson_gaussian(0.1, 4.0))
        (mechanism,) = told.mechanisms.mechanisms
        assert (mechanism.noise_multiplier, mechanism.shared_noise_multiplier) == (2.0, 4.0)
        assert "at most 1 other member collude" in mechanism.noise


def distributed(folder: Path) -> Path:
    """A member's own log under the distributed mechanism, with a run that was closed after 3 releases' worth."""
    name = MEMBERS[0]
    granted, agreed, reserved = opening(name)
    assert isinstance(granted, BudgetGranted)
    assert isinstance(reserved, Reservation)
    charge = Charge("training", EVENT, 30, poisson_gaussian(0.1, 4.0), 1)
    entries = [
        BudgetGranted.model_validate(
            {**granted.model_dump(), "colluding": 1, "epsilon_colluding": real(1.5)}
        ),
        agreed,
        Reservation.model_validate({**reserved.model_dump(), "charges": (Charging.of(charge),)}),
    ]
    write_log([signed(entry) for entry in entries], LOG_SIGNERS[name], folder / name)
    return folder / name


class TestMechanism:
    def test_numbers_are_those_of_the_events(self, told: AuditReport) -> None:
        (mechanism,) = told.mechanisms.mechanisms
        assert (mechanism.sampling_rate, mechanism.noise_multiplier, mechanism.steps) == (0.1, 2.0, (STEPS,))
        assert mechanism.noise == "by each member for itself, before masking"
        assert told.mechanisms.rng == ("AES-CTR keyed by the operating system",)

    def test_a_clipping_norm_is_only_claimed(self, told: AuditReport, ledgers: Path) -> None:
        assert told.mechanisms.clipping_norm is None
        assert any("clipping norm" in line for line in told.mechanisms.untold)
        assert report_on([ledgers], report_of(TRUTH)).mechanisms.clipping_norm == 1.0


class TestCoverage:
    def test_who_took_part(self, told: AuditReport) -> None:
        rounds = {one.round: one for one in told.coverage.rounds}
        assert set(rounds) == {1, 2, 3, 4}
        assert rounds[1].summed == MEMBERS
        assert (rounds[2].summed, rounds[2].left_out) == (MEMBERS[:4], ())
        assert (rounds[3].summed, rounds[3].left_out) == (MEMBERS[:4], (LATE,))
        assert told.coverage.left_out == 1
        assert told.coverage.models == 4

    def test_releases_that_are_in_no_sum_are_counted_too(self, told: AuditReport) -> None:
        (access,) = told.coverage.accesses
        assert (access.purpose, access.releases, access.summed, access.steps) == ("training", 19, 18, 95)

    def test_a_round_that_the_coordinator_gave_up(self, tmp_path: Path) -> None:
        from hansa.ledger import Abort

        ended = Abort(
            at="2026-03-01T13:00:00Z",
            agreement_id=AGREEMENT,
            run=RUN,
            party="coordinator",
            round=5,
            manifest_sha256=None,
            code="too-few",
            missing=MEMBERS[:2],
        )
        told = report_on([TRUTH.with_federation([*TRUTH.federation, signed(ended)]).write(tmp_path)])
        last = told.coverage.rounds[-1]
        assert (last.round, last.failed, last.summed, last.left_out) == (5, True, (), ())
        assert told.identity.runs[0].failed == 1

    def test_what_is_not_protected_fits_the_unit(self, told: AuditReport) -> None:
        said = " ".join(told.coverage.unprotected)
        assert "A patient with records at k members has up to k times the ε." in said
        assert "The unit is a record" not in said


class TestComposition:
    def test_a_history_is_the_log(self, told: AuditReport) -> None:
        history = told.composition.histories[0]
        own = TRUTH.own[MEMBERS[0]]
        assert [line.what for line in history.lines] == ["granted", "reserved", *["released"] * 4, "closed"]
        for line in history.lines:
            entry = entry_of(own[line.spot.entry])
            assert line.what.startswith({"budget": "grant"}.get(entry.type, entry.type)[:5])
            assert line.at == entry.at
            if line.peer is not None:
                assert TRUTH.federation[line.peer.entry] == own[line.spot.entry]
                assert line.peer.leaf == line.spot.leaf
        assert [line.peer is None for line in history.lines] == [True, *[False] * 6]
        assert history.lines[0].by == f"{MEMBERS[0]}#privacy-officer"
        assert history.lines[2].asked_by == entry_of(own[history.lines[2].spot.entry]).manifest_sha256
        assert history.left_out == 0

    def test_all_is_spent_while_a_run_is_open_and_what_was_released_once_it_is_closed(
        self, told: AuditReport
    ) -> None:
        spent = {line.what: line.spent for line in told.composition.histories[0].lines}
        assert spent["granted"] == 0.0
        assert spent["reserved"] == pytest.approx(epsilon(CHARGE.count))
        assert spent["closed"] == pytest.approx(epsilon(20))
        assert spent["released"] is None

    def test_epsilon_by_round(self, told: AuditReport) -> None:
        curves = {curve.member: curve for curve in told.composition.curves}
        assert [number for number, _ in curves[MEMBERS[0]].points] == [1, 2, 3, 4]
        assert [number for number, _ in curves[LATE].points] == [1, 3, 4]
        for curve in curves.values():
            assert [value for _, value in curve.points] == pytest.approx(
                [epsilon(STEPS * k) for k in range(1, len(curve.points) + 1)]
            )

    def test_an_open_run_counts_in_full(self, tmp_path: Path) -> None:
        told = report_on([story(close=False).write(tmp_path)])
        assert told.guarantee.budgets[0].limits[0].spent == pytest.approx(epsilon(CHARGE.count))
        assert told.composition.histories[0].lines[-1].what == "released"

    def test_several_budgets_of_one_member_are_added_for_a_person(self, tmp_path: Path) -> None:
        name = MEMBERS[0]
        granted, *_ = opening(name)
        assert isinstance(granted, BudgetGranted)
        second = BudgetGranted.model_validate({**granted.model_dump(), "dataset_id": "f" * 32})
        own = [*TRUTH.own[name], signed(second)]
        told = report_on([TRUTH.with_own(name, own).write(tmp_path)])
        assert any(
            "2 budgets together allow ε = 6.000 at δ = 2e-5" in line for line in told.composition.per_person
        )
        assert [history.dataset for history in told.composition.histories][:2] == [DATASETS[name], "f" * 32]
        assert told.composition.histories[1].lines[-1].spent == 0.0

    def test_the_last_release_of_each_run_is_listed_however_few_are(
        self, ledgers: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sources = read_sources([ledgers])
        told = chronicles(sources, audit(sources, KEYS), KEYS)
        name = MEMBERS[0]
        monkeypatch.setattr("hansa.audit.report.composition.MAX_RELEASES", 2)
        spent = Spent(told.own[name], name, told.own[name].grants[0], told.federation)
        made = spent._made[RUN]
        spent.__dict__["_made"] = {"one": made[:2], "other": made[2:]}
        history = spent.history()
        listed = [(line.run, line.round) for line in history.lines if line.what == "released"]
        assert listed == [("one", 1), ("one", 2), ("other", 4)]
        assert history.left_out == 1

    @given(st.integers(0, 500), st.integers(2, 60))
    def test_places_are_spaced(self, count: int, most: int) -> None:
        places = spaced(count, most)
        assert len(places) == min(count, most)
        assert places == sorted(set(places))
        if count:
            assert (places[0], places[-1]) == (0, count - 1)


class TestTrustAttacksAndUtility:
    def test_whom_it_rests_on(self, told: AuditReport) -> None:
        trust = told.trust
        assert (trust.members, trust.quorum, trust.tolerated, trust.cosigned) == (5, 4, 1, MEMBERS)
        assert trust.changes == ()
        assert not any("simulation" in line for line in trust.limits)

    def test_no_attack_is_made_up(self, told: AuditReport) -> None:
        assert told.empirical.measured is False
        assert told.empirical.why.startswith("Not measured.")

    def test_nothing_about_quality_unless_somebody_said_it(self, told: AuditReport, ledgers: Path) -> None:
        utility = told.utility
        assert (utility.evaluations, utility.gates, utility.overrides, utility.publications) == (0, (), (), 0)
        assert utility.claimed is None
        claimed = report_on([ledgers], report_of(TRUTH)).utility.claimed
        assert claimed is not None
        assert (claimed.metric, claimed.value, claimed.low, claimed.high) == ("accuracy", 0.8, 0.7, 0.9)

    def test_bands_of_a_claim_are_in_the_order_of_their_numbers(self, ledgers: Path) -> None:
        report = report_of(TRUTH)
        bands = {"50-60": 4, "<50": 3, ">=60": 2, "100-110": 1}
        counts = report.quality.counts.model_copy(update={"by_group": {"age": bands}})
        quality = report.quality.model_copy(update={"counts": counts})
        claimed = report_on([ledgers], report.model_copy(update={"quality": quality})).utility.claimed
        assert claimed is not None
        assert [(group[1], group[5]) for group in claimed.groups] == [
            ("<50", 3),
            ("50-60", 4),
            (">=60", 2),
            ("100-110", 1),
        ]

    def test_gates_overrides_publications_and_changes_of_keys(self, tmp_path: Path) -> None:
        told = report_on([published(TRUTH).write(tmp_path)])
        (only,) = told.integrity.findings["failures"]  # the evaluation of this story has no sum
        assert only["what"] == "it is of round 9, and no sum of tables of that round stands before it"
        utility = told.utility
        assert (utility.evaluations, utility.publications) == (1, 1)
        (gate,) = utility.gates
        assert (gate.decision, gate.artifact_sha256) == ("open", HASH)
        assert [(one.verdict, one.low, one.excused) for one in gate.conditions] == [
            ("pass", 0.71, ""),
            ("inconclusive", 0.41, "a named person took the responsibility"),
            ("inconclusive", None, "exempted by the agreement"),
        ]
        (override,) = utility.overrides
        assert (override.name, override.party) == ("Dr. Ada Example", MEMBERS[1])
        assert told.identity.published["model.onnx"] == HASH
        joined, revoked = told.trust.changes
        assert (joined.what, joined.by) == (f"{MEMBERS[0]} joins", (MEMBERS[0],))
        assert revoked.what == f"the key of {LATE} was revoked: its key was lost"
        assert revoked.by == MEMBERS[:4]
        assert entry_of(published(TRUTH).federation[revoked.spot.entry]).type == "amendment"


class TestIntegrity:
    def test_findings_stand_in_it_whole(self, told: AuditReport) -> None:
        integrity = told.integrity
        assert integrity.verified is True
        assert integrity.keys == KEYS.fingerprint
        findings: Any = integrity.findings
        assert findings["failures"] == []
        assert findings["passed"]["signatures of entries"] > 50
        assert len(findings["not_checked"]) >= 4

    def test_roots_are_those_of_the_logs(self, told: AuditReport) -> None:
        from hansa.merkle import leaf_hash, tree_root

        roots = {log.log: log.root for log in told.integrity.logs}
        assert roots["federation"] == tree_root([leaf_hash(data) for data in TRUTH.federation]).hex()
        assert (
            roots[f"members/{MEMBERS[2]}"]
            == tree_root([leaf_hash(data) for data in TRUTH.own[MEMBERS[2]]]).hex()
        )

    def test_of_a_broken_log_only_what_stands_before_is_told(self, tmp_path: Path) -> None:
        name = MEMBERS[1]
        own = list(TRUTH.own[name])
        broken = TRUTH.find(name, "release", round=3)
        own[broken] = edited(own[broken], step=9)
        told = report_on([TRUTH.with_own(name, own).write(tmp_path)])
        assert told.integrity.verified is False
        findings: Any = told.integrity.findings
        assert {(one["log"], one["entry"]) for one in findings["failures"]} >= {(f"members/{name}", broken)}
        assert told.guarantee.statement.startswith("No guarantee is stated, because this audit failed.")
        (log,) = [log for log in told.integrity.logs if log.log == f"members/{name}"]
        assert log.entries == broken
        history = next(one for one in told.composition.histories if one.member == name)
        assert max(line.spot.entry for line in history.lines) < broken
        assert [line.round for line in history.lines if line.what == "released"] == [1, 2]

    def test_a_false_claim_fails_the_report(self, ledgers: Path) -> None:
        claims = report_of(TRUTH)
        lowered = claims.members[0].model_copy(update={"epsilon": 0.01})
        told = report_on([ledgers], claims.model_copy(update={"members": (lowered, *claims.members[1:])}))
        assert told.integrity.verified is False
        findings: Any = told.integrity.findings
        assert findings["failures"][0]["log"] == "report.json"

    def test_the_best_copy_of_a_log_is_read(self, ledgers: Path, tmp_path: Path) -> None:
        name = MEMBERS[0]
        shorter = TRUTH.own[name][:4]
        write_log(shorter, LOG_SIGNERS[name], tmp_path / "old")
        told = report_on([ledgers, tmp_path / "old"])
        (log,) = [log for log in told.integrity.logs if log.log == f"members/{name}"]
        assert log.entries == len(TRUTH.own[name])
        assert log.place == str(ledgers / "members" / name)


def test_json_is_strict_and_reads_back(told: AuditReport) -> None:
    text = report_text(told, ".json")
    tree = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert tree["made"] == MADE
    assert list(tree) == [
        "schema_version", "made", "identity", "guarantee", "mechanisms", "coverage", "composition", "trust",
        "empirical", "utility", "integrity",
    ]  # fmt: skip
    assert AuditReport.model_validate_json(text) == told
    assert text == report_text(told, ".json")


def test_every_group_with_untold_things_says_so(told: AuditReport) -> None:
    for name in ("identity", "guarantee", "mechanisms", "coverage", "composition", "trust", "utility"):
        assert getattr(told, name).untold, name


def test_the_closed_count_beyond_what_was_recorded_is_what_counts(tmp_path: Path) -> None:
    """A run that is closed with more than is on record: a crash between reserving and writing a release."""
    name = MEMBERS[0]
    own = list(TRUTH.own[name])
    closed = entry_of(own[-1])
    assert isinstance(closed, RunClosed)
    more = signed(RunClosed.model_validate({**closed.model_dump(), "released": {"training": 25}}))
    federation = [more if data == own[-1] else data for data in TRUTH.federation]
    changed = Story(tuple(federation), {**TRUTH.own, name: (*own[:-1], more)}, TRUTH.records, TRUTH.sizes)
    told = report_on([changed.write(tmp_path)])
    spent = told.guarantee.budgets[0].limits[0].spent
    assert spent is not None
    assert math.isclose(spent, epsilon(25))
    assert SignedEntry.parse(more).entry == entry_of(more)


def test_a_failure_is_drawn_as_the_audit_words_it(told: AuditReport) -> None:
    from hansa.audit.report.page import _failures

    one = Failure("federation", 3, "release", "it is wrong", "copy", None)
    integrity = told.integrity.model_copy(update={"findings": {"failures": [one.as_dict()]}})
    (read,) = _failures(told.model_copy(update={"integrity": integrity}))
    assert read == one


@pytest.mark.parametrize(
    ("rate", "batch", "units", "told"),
    [
        (None, None, None, "all records"),
        (0.1, None, None, "0.1"),
        (0.1, 1200, 9000, "0.1, cut to 1,200 of at most 9,000 units"),
    ],
)
def test_how_a_release_drew_is_told_in_words(rate, batch, units, told):
    mechanism = Mechanism(
        purpose="training", run="r", members=("a",), sampling_rate=rate, largest_batch=batch, most_units=units,
        noise_multiplier=1.0, shared_noise_multiplier=None, steps=(1,), noise="at each member",
    )  # fmt: skip
    assert sample(mechanism) == told
