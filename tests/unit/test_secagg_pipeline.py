"""Whole rounds: how many exchanges they take, what they report, and that a coordinator resumes by replaying."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from hansa.errors import BudgetRefusedError, HansaError, WireError
from hansa.gate.errors import GateMismatchError
from hansa.identity import COORDINATOR, Roster, Signer
from hansa.ledger import errors as ledger_errors
from hansa.quorum import threshold
from hansa.secagg import Coordinator, MemoryStore, Quantiser, SumTerms, VectorTerms, verify_sum
from hansa.secagg import messages as m
from hansa.secagg.bundle import BUNDLE, MAX_PARTS, REFUSAL, bundle, unbundle
from hansa.secagg.errors import PhaseError, QuorumError, SumTermsError
from hansa.secagg.pipeline import MAX_REFUSALS
from hansa.secagg.record import Phase, RoundRecord
from hansa.wire import Message
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, RUN, make_league, over_the_wire


def exchanges(threat_model: str, rounds: int) -> list[int]:
    league = make_league(5, 20, threat_model=threat_model)  # type: ignore[arg-type]
    counts = []
    for step in range(rounds):
        taken = count()
        while not league.coordinator.ready:
            league.exchange()
            next(taken)
        league.coordinator.begin(PURPOSE, step, MODEL)
        outcome = None
        while outcome is None:
            outcome = league.exchange()
            next(taken)
        counts.append(next(taken))
        assert (outcome.total == league.expected(tuple(league.members))).all()
    return counts


def test_a_steady_round_takes_three_exchanges() -> None:
    assert exchanges("malicious", 4) == [6, 3, 3, 3]


def test_with_a_trusted_coordinator_it_takes_two() -> None:
    assert exchanges("honest-but-curious", 4) == [4, 2, 2, 2]


def test_a_member_sends_four_bytes_for_each_parameter() -> None:
    length = 100_000
    league = make_league(5, length)
    league.sum(0)
    outcome = league.sum(1)
    assert outcome.costs["masked"].received_bytes / 5 < 4 * length + 2000
    assert outcome.costs["masked"].received_bytes / 5 >= 4 * length


def test_the_outcome_says_what_each_phase_cost() -> None:
    league = make_league(4, 20)
    ticks = count()
    league.coordinator = Coordinator(
        league.terms, RUN, league.signers[COORDINATOR], spool=league.spool, clock=lambda: float(next(ticks))
    )
    outcome = league.sum(0)
    assert set(outcome.costs) == {"keys", "shares", "delivery", "masked", "confirm", "unmask"}
    assert all(cost.sent_bytes > 0 and cost.received_bytes > 0 for cost in outcome.costs.values())
    assert all(cost.seconds == 1.0 for cost in outcome.costs.values())
    assert outcome.threshold == 3
    assert (outcome.purpose, outcome.step, outcome.round) == (PURPOSE, 0, 1)
    assert outcome.dropped == {}
    assert outcome.blamed == {}


def test_manifests_chain_from_round_to_round() -> None:
    league = make_league(4, 20)
    outcomes = [league.sum(step) for step in range(3)]
    manifests = league.contributors["member-1"].asked
    assert [one.previous_round for one in manifests] == [0, 1, 2]
    assert manifests[0].previous_aggregate_sha256 is None
    assert manifests[2].previous_aggregate_sha256 == outcomes[1].record.aggregate_sha256
    assert len({one.previous_manifest_sha256 for one in manifests}) == 3


def test_a_killed_coordinator_resumes_by_replaying_its_journal() -> None:
    league = make_league(4, 20)
    journal: list[list[tuple[str, Message]]] = []

    def exchange(coordinator: Coordinator) -> object:
        entries = []
        for name, request in coordinator.requests().items():
            parts = [league.members[name].handle(part) for part in unbundle(over_the_wire(request))]
            entries.append((name, bundle(parts)))
            coordinator.receive(name, over_the_wire(entries[-1][1]))
        journal.append(entries)
        return coordinator.close()

    def replayed() -> Coordinator:
        again = Coordinator(league.terms, RUN, league.signers[COORDINATOR], spool=MemoryStore())
        for number, entries in enumerate(journal):
            if number == 3:
                again.begin(PURPOSE, 0, MODEL)
            for name, reply in entries:
                again.receive(name, reply)
            again.close()
        return again

    coordinator = league.coordinator
    outcome = None
    for index in range(6):
        if index == 3:
            coordinator.begin(PURPOSE, 0, MODEL)
        asked = {name: request.header for name, request in coordinator.requests().items()}
        coordinator = replayed()  # killed before every exchange
        if index == 3:
            coordinator.begin(PURPOSE, 0, MODEL)
        assert {name: request.header for name, request in coordinator.requests().items()} == asked
        outcome = exchange(coordinator)
    assert outcome is not None
    assert (outcome.total == league.expected(tuple(league.members))).all()  # type: ignore[attr-defined]


def test_a_record_survives_json() -> None:
    league = make_league(4, 20)
    outcome = league.sum(0)
    record = RoundRecord.model_validate_json(outcome.record.model_dump_json())
    assert record == outcome.record

    def masked(name: str) -> np.ndarray:
        return np.frombuffer(league.spool.get(f"{RUN}.1.{name}.y") or b"", dtype="<u4")

    assert (verify_sum(league.terms, record, masked).total == outcome.total).all()
    assert "secret" not in json.dumps(json.loads(record.model_dump_json()))


class TestCalls:
    def test_a_round_cannot_begin_before_it_is_prepared_nor_twice(self) -> None:
        league = make_league(4, 20)
        with pytest.raises(PhaseError):
            league.coordinator.begin(PURPOSE, 0, MODEL)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        with pytest.raises(PhaseError):
            league.coordinator.begin(PURPOSE, 0, MODEL)

    def test_only_what_the_agreement_names_can_be_summed(self) -> None:
        league = make_league(4, 20)
        league.prepare()
        with pytest.raises(PhaseError, match="gradient"):
            league.coordinator.begin("gradient", 0, MODEL)
        assert league.coordinator.ready

    def test_phases_are_told_by_round(self) -> None:
        league = make_league(4, 20)
        assert league.coordinator.phases == {1: Phase.KEYS, 2: Phase.KEYS}
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        assert league.coordinator.phases == {1: Phase.MASKED, 2: Phase.KEYS, 3: Phase.KEYS}

    def test_a_round_that_is_prepared_can_be_given_up_too(self) -> None:
        league = make_league(4, 20)
        league.exchange()
        assert league.coordinator.abandon() == 1
        assert league.sum(0).round == 2

    def test_answers_of_a_round_that_is_not_in_hand_are_refused(self) -> None:
        league = make_league(4, 20)
        reply = league.members["member-1"].handle(league.pending("member-1", m.KeysRequest))
        league.coordinator.abandon()
        with pytest.raises(PhaseError, match="round 1"):
            league.coordinator.receive("member-1", bundle([reply]))

    def test_a_member_that_refuses_is_told_by_its_code_alone(self) -> None:
        league = make_league(5, 20)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)

        def withheld(_: m.Manifest, _seeds: object = None) -> np.ndarray:
            raise BudgetRefusedError("the run asks for ε = 3 and 1 is left")

        league.contributors["member-2"].contribute = withheld  # type: ignore[method-assign]
        league.exchange()
        assert league.coordinator.refusals == [("member-2", m.Manifest.purpose_name, "HANSA-401")]
        assert "is left" in league.refused["member-2"][0].cause  # the text stays with the member

    def test_a_refusal_that_could_depend_on_data_is_an_absence(self) -> None:
        league = make_league(5, 20)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        league.contributors["member-2"].values = np.full(20, np.nan)
        league.exchange()
        assert league.coordinator.refusals == []
        assert "NaN" in league.refused["member-2"][0].cause
        outcome = None
        while outcome is None:
            outcome = league.exchange()
        assert outcome.dropped == {"member-2": "masked"}

    def test_only_errors_that_follow_from_messages_travel(self) -> None:
        def tree(root: type[HansaError]) -> Iterator[type[HansaError]]:
            yield root
            for child in root.__subclasses__():
                yield from tree(child)

        assert {ledger_errors.NewsRefusedError, GateMismatchError} <= set(tree(HansaError))
        travelling = {error.code for error in tree(HansaError) if error.travels and "code" in error.__dict__}
        assert travelling == {
            "HANSA-401", "HANSA-501", "HANSA-505", "HANSA-701", "HANSA-702", "HANSA-703",
            "HANSA-715", "HANSA-716", "HANSA-717", "HANSA-718", "HANSA-719", "HANSA-720", "HANSA-721",
            *("HANSA-752", "HANSA-754", "HANSA-755", "HANSA-756", "HANSA-760", "HANSA-842"),
        }  # fmt: skip


class TestBundles:
    def test_parts_come_out_as_they_went_in(self) -> None:
        parts = [
            Message("a", {"x": 1}, {"y": np.arange(3, dtype="<u4")}),
            Message("b", {}),
            Message("c", {}, {"y": np.zeros(0, "<f8")}),
        ]
        again = unbundle(over_the_wire(bundle(parts)))
        assert [part.header for part in again] == [part.header for part in parts]

    @pytest.mark.parametrize(
        ("kind", "body", "arrays"),
        [
            ("other", {"parts": []}, {}),
            (BUNDLE, {}, {}),
            (BUNDLE, {"parts": [], "more": 1}, {}),
            (BUNDLE, {"parts": {}}, {}),
            (BUNDLE, {"parts": [1]}, {}),
            (BUNDLE, {"parts": [{"kind": "a", "body": {}}]}, {}),
            (BUNDLE, {"parts": [{"kind": 1, "body": {}, "arrays": []}]}, {}),
            (BUNDLE, {"parts": [{"kind": "a", "body": [], "arrays": []}]}, {}),
            (BUNDLE, {"parts": [{"kind": "a", "body": {}, "arrays": ["y"]}]}, {}),
            (BUNDLE, {"parts": [{"kind": "a", "body": {}, "arrays": [1]}]}, {}),
            (BUNDLE, {"parts": []}, {"0.y": np.zeros(1, "<u4")}),
            (BUNDLE, {"parts": [{"kind": "a", "body": {}, "arrays": []}] * (MAX_PARTS + 1)}, {}),
        ],
    )
    def test_malformed_bundles_are_refused(self, kind: str, body: dict, arrays: dict) -> None:
        with pytest.raises(WireError):
            unbundle(Message(kind, body, arrays))

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"of": "secagg.keys-request"},
            {"of": "secagg.keys-request", "code": 5},
            {"of": [], "code": "HANSA-712"},
            {"of": "secagg.keys-request", "code": "HANSA-1"},
            {"of": "secagg.keys-request", "code": "HANSA-712" + "x" * 1_000_000},
            {"of": "secagg.keys", "code": "HANSA-712"},  # a reply, not a request
        ],
    )
    def test_malformed_refusals_are_refused(self, body: dict) -> None:
        league = make_league(4, 20)
        with pytest.raises(WireError):
            league.coordinator.receive("member-1", bundle([Message(REFUSAL, body)]))
        assert league.coordinator.refusals == []

    def test_of_a_member_that_refuses_for_ever_the_last_refusals_are_kept(self) -> None:
        league = make_league(4, 20)
        for code in ("HANSA-712", "HANSA-715"):
            refusal = bundle([Message(REFUSAL, {"of": m.KeysRequest.purpose_name, "code": code})])
            for _ in range(MAX_REFUSALS):
                league.coordinator.receive("member-1", refusal)
        assert (
            league.coordinator.refusals
            == [("member-1", m.KeysRequest.purpose_name, "HANSA-715")] * MAX_REFUSALS
        )

    def test_an_unknown_kind_is_refused_on_either_side(self) -> None:
        league = make_league(4, 20)
        with pytest.raises(WireError):
            league.coordinator.receive("member-1", bundle([Message("secagg.other", {})]))
        with pytest.raises(WireError):
            league.members["member-1"].handle(Message("secagg.other", {}))


class TestTerms:
    def roster(self, n: int) -> Roster:
        return Roster(
            {f"m{i}": Signer.generate("x").public_key for i in range(n)}, Signer.generate("x").public_key
        )

    def test_everything_that_is_wrong_is_told_at_once(self) -> None:
        with pytest.raises(SumTermsError) as caught:
            SumTerms("a" * 64, self.roster(2), {"a": VectorTerms(0, Quantiser(1.0, 2.0, 1))}, min_members=2)
        assert [problem.place for problem in caught.value.problems] == [
            "members", "min_members", "vectors.a.length", "vectors.a.quantiser.members",
        ]  # fmt: skip

    @pytest.mark.parametrize("min_members", [2, 6])
    def test_a_minimum_that_cannot_be_is_refused(self, min_members: int) -> None:
        with pytest.raises(SumTermsError):
            SumTerms(
                "a" * 64,
                self.roster(5),
                {"a": VectorTerms(1, Quantiser(1.0, 2.0, 5))},
                min_members=min_members,
            )

    def test_nothing_to_sum_is_refused(self) -> None:
        with pytest.raises(SumTermsError, match="no secure sum"):
            SumTerms("a" * 64, self.roster(3), {})

    def test_too_many_revocations_are_refused(self) -> None:
        roster = self.roster(4).revoke("m0").revoke("m1")
        with pytest.raises(SumTermsError) as caught:
            SumTerms("a" * 64, roster, {"a": VectorTerms(1, Quantiser(1.0, 2.0, 4))})
        assert [problem.place for problem in caught.value.problems] == ["revoked"]

    def test_a_revoked_member_is_done_without(self) -> None:
        league = make_league(5, 20)
        terms = SumTerms("a" * 64, league.terms.roster.revoke("member-2"), league.terms.vectors)
        league.terms = terms
        league.coordinator = Coordinator(terms, RUN, league.signers[COORDINATOR], spool=league.spool)
        for name in ("member-1", "member-3", "member-4", "member-5"):
            league.restart(name)
        with pytest.raises(HansaError):
            league.restart("member-2")
        outcome = league.sum(0)
        assert outcome.survivors == ("member-1", "member-3", "member-4", "member-5")
        assert (outcome.total == league.expected(outcome.survivors)).all()

    @pytest.mark.parametrize("n", range(3, 101))
    def test_two_quorums_share_an_honest_member(self, n: int) -> None:
        t = threshold(n)
        colluders = n - t
        assert 2 * t - n > colluders
        assert 2 * (t - 1) - n <= n - (t - 1)  # and no smaller threshold does

    def test_the_smallest_honest_sum_in_the_documentation(self) -> None:
        expected = {
            3: (3, 3),
            4: (3, 2),
            5: (4, 3),
            6: (5, 4),
            7: (5, 3),
            8: (6, 4),
            9: (7, 5),
            10: (7, 4),
            50: (34, 18),
            100: (67, 34),
        }
        assert {n: (threshold(n), 2 * threshold(n) - n) for n in expected} == expected


def test_nine_of_thirty_may_be_away_and_a_tenth_may_not() -> None:
    league = make_league(30, 10)
    league.away = {f"member-{i}" for i in range(1, 11)}
    with pytest.raises(QuorumError, match="20 members answered in KEYS, 21 are needed"):
        league.prepare()
    league.away.discard("member-10")
    outcome = league.sum(0)
    assert len(outcome.survivors) == 21
    assert (outcome.total == league.expected(outcome.survivors)).all()
