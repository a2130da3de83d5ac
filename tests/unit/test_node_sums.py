"""A node in a secure sum: what it charges, what it derives, what it tells, and what it forgets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hansa.errors import HansaError, ModelMismatchError, TrainingError, WireError
from hansa.ledger import LogView, Release, SignedEntry
from hansa.ledger.errors import LogStoreError
from hansa.protocol import (
    MAX_AGGREGATES,
    Aggregate,
    Asked,
    Derivation,
    PolicyCode,
    close_request,
    read_sum_reply,
    read_sum_request,
    sum_request,
    sum_terms,
    update_encoding,
)
from hansa.secagg import FolderStore, MemoryStore
from hansa.secagg import messages as m
from hansa.secagg.bundle import bundle
from hansa.secagg.errors import StateError
from hansa.server_step import initial_state
from hansa.vectors import Mapped
from hansa.wire import Message, array_sha256
from hansa_client.model import DerivedModel
from hansa_simulations.baseline import train_request
from hansa_simulations.identities import VERIFIER, Identities
from hansa_simulations.league import SharedDerivation
from support.federations import Federation, kinds, parts
from support.leagues import frozen_league

AGREEMENT, BUILT = frozen_league()
D, START = BUILT.flat.size, BUILT.initial_vector()
STEPS = AGREEMENT.terms.local_steps


def federation(**more: object) -> Federation:
    updates = {name: lambda w: np.full_like(w, 0.125) for name in "abc"}
    return Federation(AGREEMENT, START, updates, **more)  # type: ignore[arg-type]


def released(league: Federation, name: str, run: str = "r") -> int:
    return league.book(name).released(run)


def root_of(array: object) -> object:
    """What an array is a view of, in the end."""
    while isinstance(array, np.ndarray | memoryview):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return array


class TestBudget:
    """Charged once for every masked round, before anything is drawn, and never for one that was not masked."""

    def test_every_member_is_charged_for_every_round(self) -> None:
        league = federation()
        assert league.run().stopped_because is None
        assert {name: released(league, name) for name in "abc"} == dict.fromkeys("abc", 4 * STEPS)

    def test_the_whole_run_is_reserved_before_anything_is_trained(self) -> None:
        seen: list[tuple[int, int]] = []
        league = federation()

        def looks(weights: np.ndarray) -> np.ndarray:
            (reserved,) = league.book("b").spent()
            seen.append((reserved.count, released(league, "b")))
            return np.zeros_like(weights)

        league.trainings["b"]._update = looks
        league.run()
        # all of it counts as spent from the first round on; a round is on record once its vector is masked
        assert seen == [(4 * STEPS, done * STEPS) for done in range(4)]

    def test_a_vector_is_on_record_before_it_leaves(self) -> None:
        seen: list[bool] = []

        def carries(name: str, request: Message, answer: Callable[[Message], Message]) -> Message:
            reply = answer(request)
            if name == "b" and "secagg.masked" in kinds(reply):
                masked = next(part for part in parts(reply) if part.kind == "secagg.masked")
                log = LogView(league.stores["b"].log)
                entries = [SignedEntry.parse(data).entry for data in log.entries()]
                seen.append(
                    masked.array_hashes["y"] in {e.y_sha256 for e in entries if isinstance(e, Release)}
                )
            return reply

        league = federation(between=carries)
        league.run()
        assert seen == [True] * 4

    def test_a_spent_budget_is_a_refusal_and_nothing_is_trained(self) -> None:
        league = federation()
        league.run(run="first")
        again = Federation(
            AGREEMENT, START, league.updates, stores=league.stores, identities=league.identities
        )
        outcome = again.run(run="second")
        assert outcome.stopped_because is not None
        assert outcome.stopped_because.count(PolicyCode.BUDGET) == 3
        assert all(training.calls == 0 for training in again.trainings.values())

    def test_retries_are_reserved_with_the_run(self) -> None:
        agreement, _ = frozen_league(secure_sum={"retries": 2})
        plain = AGREEMENT.require_frozen().noise_multiplier
        dearer = agreement.require_frozen().noise_multiplier
        assert plain is not None
        assert dearer is not None
        assert dearer > plain
        league = Federation(agreement, START, federation().updates)
        league.run()
        (reserved,) = league.book("a").spent()
        assert reserved.count == 4 * STEPS  # what was not needed is free again once the run is closed


class TestSilence:
    """What goes wrong inside looks like absence, and says nothing."""

    @pytest.mark.parametrize(
        "fails",
        [
            lambda w: (_ for _ in ()).throw(ValueError("patient 4711 has a blood pressure of 900")),
            lambda w: (_ for _ in ()).throw(TrainingError("patient 4711: a weight moved")),
            lambda w: np.full_like(w, np.nan),
            lambda w: np.full_like(w, -np.inf),
            lambda w: w[:-1],
            lambda w: (_ for _ in ()).throw(MemoryError()),
        ],
        ids=["exception", "training", "nan", "inf", "short", "memory"],
    )
    def test_a_failure_is_an_absence_and_stays_paid(
        self, fails: Callable[[np.ndarray], np.ndarray], caplog: pytest.LogCaptureFixture
    ) -> None:
        replies: list[Message] = []

        def listens(name: str, request: Message, answer: Callable[[Message], Message]) -> Message:
            reply = answer(request)
            if name == "b" and "secagg.manifest" in kinds(request):
                replies.append(reply)
            return reply

        league = federation(between=listens)
        league.trainings["b"]._update = fails
        with caplog.at_level(logging.WARNING):
            outcome = league.run()
        assert outcome.rounds[0].absent["b"] == PolicyCode.ABSENT
        assert replies
        for reply in replies:
            assert b"patient" not in reply.header
            # neither a masked vector nor a refusal that would tell one failure from another
            assert not {"secagg.masked", "secagg.refusal"} & kinds(reply)
        # nothing left, and all that was reserved stays spent: nobody counts what the absence told
        (spent,) = league.book("b").spent()
        assert spent.count == 4 * STEPS
        assert "release" not in league.entries("b")
        assert caplog.records

    @pytest.mark.parametrize("kind", [LogStoreError, StateError])
    def test_a_disk_that_takes_no_more_is_an_absence_and_the_members_own_log_says_why(
        self, kind: type[HansaError], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(*_: object) -> None:
            raise kind("cannot use ledger.sqlite: database or disk is full", remedy="Make room.")

        league = federation()
        monkeypatch.setattr(league.nodes["b"]._records, "hear", full)
        outcome = league.run()
        assert outcome.rounds[0].absent["b"] == PolicyCode.ABSENT
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert told
        assert all("disk is full\n  Make room." in line for line in told)
        assert "release" not in league.entries("b")

    def test_training_that_is_not_what_is_accounted_ends_the_run_at_this_member(self) -> None:
        def moved(weights: np.ndarray) -> np.ndarray:
            raise TrainingError("a weight that is not trained was changed")

        league = federation()
        league.trainings["b"]._update = moved
        league.run()
        assert league.trainings["b"].calls == 1  # and not again when it is asked again


class TestDoor:
    """What a node of a federation answers to, and what not."""

    def test_an_update_never_leaves_unmasked(self) -> None:
        league = federation()
        request = train_request(AGREEMENT, "r", 1, START)
        reply = league.nodes["a"].handle(request)
        assert (reply.kind, reply.text("code")) == ("refusal", PolicyCode.MESSAGE)
        assert league.trainings["a"].calls == 0
        assert "reservation" not in league.entries("a")

    def test_a_run_under_a_mechanism_without_a_log_gets_nothing(self) -> None:
        league = federation()
        outcome = league.run(house=replace(league.house, history=None))
        assert (outcome.state.round, outcome.stopped_by) == (0, "rule")
        assert all(training.calls == 0 for training in league.trainings.values())
        for name in "abc":
            assert not {"reservation", "release"} & set(league.entries(name))

    def test_a_closed_run_is_never_taken_up_again(self) -> None:
        league = federation()
        league.run()
        for name in "abc":
            assert league.nodes[name].handle(close_request(AGREEMENT, "r")).kind == "closed"
            league.restart(name)
        outcome = league.run()
        assert outcome.state.round == 0
        assert all(training.calls == 4 for training in league.trainings.values())

    def test_closing_forgets_the_secrets(self) -> None:
        league = federation()
        league.run()
        assert all(set(store._data) == {"r.state"} for store in league.states.values())

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"bundle": {"parts": []}},
            {"aggregates": []},
            {"bundle": [], "aggregates": [], "log": None},
            {"bundle": {"parts": []}, "aggregates": {}, "log": None},
            {"bundle": {"parts": []}, "aggregates": [{}], "log": None},
            {"bundle": {"parts": []}, "aggregates": [{"step": -1, "survivors": []}], "log": None},
            {"bundle": {"parts": []}, "aggregates": [{"step": True, "survivors": []}], "log": None},
            {"bundle": {"parts": []}, "aggregates": [{"step": 0, "survivors": ["a", "a"]}], "log": None},
            {"bundle": {"parts": []}, "aggregates": [{"step": 0, "survivors": [1]}], "log": None},
            {"bundle": {"parts": []}, "aggregates": [{"step": 0, "survivors": ["a"]}], "log": None},
            {"bundle": {"parts": []}, "aggregates": [], "log": None, "extra": 1},
            {"bundle": {"parts": [{"kind": "secagg.manifest"}]}, "aggregates": []},
            {"bundle": {}, "aggregates": []},
        ],
    )
    def test_a_malformed_request_is_a_refusal_and_changes_nothing(self, body: dict[str, object]) -> None:
        league = federation()
        common = {"agreement_id": AGREEMENT.agreement_id, "run": "r", "round": 1}
        reply = league.nodes["a"].handle(Message("sum", {**common, **body}))  # type: ignore[dict-item]
        assert (reply.kind, reply.text("code")) == ("refusal", PolicyCode.MESSAGE)
        assert not league.states["a"]._data

    def test_a_sum_of_another_length_is_malformed(self) -> None:
        totals = Aggregate(0, ("a", "b", "c"), np.zeros(D + 1, dtype=np.int32))
        request = sum_request(AGREEMENT, "r", 1, Asked(bundle([]), (totals,)))
        reply = federation().nodes["a"].handle(request)
        assert reply.text("code") == PolicyCode.MESSAGE

    def test_too_many_sums_at_once_are_malformed(self) -> None:
        totals = [
            Aggregate(k, ("a", "b", "c"), np.zeros(D, dtype=np.int32)) for k in range(MAX_AGGREGATES + 1)
        ]
        with pytest.raises(WireError, match="not too many"):
            read_sum_request(sum_request(AGREEMENT, "r", 1, Asked(bundle([]), tuple(totals))), D)

    def test_a_reply_to_another_request_is_not_believed(self) -> None:
        league = federation()
        history = league.house.history
        assert history is not None
        asked = Asked(bundle([]), (), history.news("a"))
        first, second = (sum_request(AGREEMENT, "r", number, asked) for number in (1, 2))
        reply = league.nodes["a"].handle(first)
        said = read_sum_reply(first, reply)
        assert not isinstance(said, PolicyCode)
        assert (said.model_round, said.word.mirrored) == (0, 0)
        assert said.word.nonce is not None
        with pytest.raises(WireError, match="another request"):
            read_sum_reply(second, reply)


class TestDerivedModel:
    """The model follows from model 0 and the sums, at every member to the bit."""

    IDENTITIES = Identities.ephemeral("abc")
    TERMS = sum_terms(AGREEMENT, IDENTITIES.roster)

    def verified(self, aggregate: Aggregate, signer: str = VERIFIER, run: str = "r") -> Aggregate:
        context = m.Context(self.TERMS, run)
        said, number = {"aggregate_sha256": aggregate.sha256}, aggregate.step + 1
        _, statement = context.state(self.IDENTITIES.signer(signer), m.Verified, number, **said)
        return replace(aggregate, verified=statement.line, round=number)

    def sums(self, count: int) -> list[Aggregate]:
        rng = np.random.default_rng(1)
        scale = update_encoding(AGREEMENT).scale
        return [
            self.verified(Aggregate(step, ("a", "b", "c"), (scale * rng.normal(0, 0.1, D)).astype(np.int32)))
            for step in range(count)
        ]

    def model(self, store: MemoryStore | None = None, *, audited: bool = True) -> DerivedModel:
        roster = self.IDENTITIES.roster if audited else replace(self.IDENTITIES.roster, auditors={})
        terms = sum_terms(AGREEMENT, roster)
        return DerivedModel(AGREEMENT, terms, "r", START, Derivation(AGREEMENT), store)

    def manifest(self, model: DerivedModel, **changes: object) -> m.Manifest:
        said: dict[str, object] = {
            "terms": "0" * 64, "run": "r", "round": 9, "arrays": {}, "transcript": "0" * 64,
            "contributors": ("a", "b", "c"), "purpose": "update", "step": model.round,
            "model_sha256": array_sha256(model.weights), "previous_round": 0, "previous_manifest_sha256": None,
            "previous_aggregate_sha256": None, "checkpoint": "", "artifacts": (),
        }  # fmt: skip
        return m.Manifest.model_validate(said | changes)

    def test_it_is_the_coordinators(self) -> None:
        model, derive = self.model(), Derivation(AGREEMENT)
        training = AGREEMENT.terms.training
        state = initial_state(training.server, START, average_tail=0.0, rounds=training.rounds)
        for aggregate in self.sums(3):
            state = derive(state, aggregate)
        model.follow(self.sums(3))
        assert model.round == 3
        assert np.array_equal(model.weights, state.weights)

    def test_known_sums_and_gaps_are_passed_over(self) -> None:
        model, sums = self.model(), self.sums(4)
        model.follow([sums[1]])
        assert model.round == 0
        model.follow([sums[1], sums[0]])
        model.follow(sums[:2])
        assert model.round == 2
        model.follow([sums[3]])
        assert model.round == 2

    def test_a_stored_model_survives_and_goes_when_the_run_does(self) -> None:
        store, sums = MemoryStore(), self.sums(2)
        first = self.model(store)
        first.follow(sums)
        second = self.model(store)
        assert second.round == 2
        assert np.array_equal(second.weights, first.weights)
        second.check(self.manifest(second, previous_aggregate_sha256=sums[-1].sha256))
        second.forget()
        assert self.model(store).round == 0

    def test_a_large_stored_model_lies_in_its_file_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is the same model, in no memory, aligned, and stays so when the next one takes its place."""
        monkeypatch.setattr("hansa_client.model.IN_FILES_FROM", 0)
        store, sums, small = FolderStore(tmp_path), self.sums(3), self.model(MemoryStore())
        model = self.model(store)
        for aggregate in sums:
            before, had = model.weights, model.weights.copy()
            model.follow([aggregate])
            assert np.array_equal(before, had)
        small.follow(sums)
        assert np.array_equal(model.weights, small.weights)
        assert isinstance(root_of(model.weights), Mapped)
        assert model.weights.flags.aligned
        model.check(self.manifest(model, previous_aggregate_sha256=sums[-1].sha256))
        again = self.model(store)
        assert again.round == 3
        again.check(self.manifest(model, previous_aggregate_sha256=sums[-1].sha256))

    def test_a_model_that_could_not_be_kept_is_not_told_and_its_sum_comes_again(self) -> None:
        class Full(MemoryStore):
            full = True

            def put_pieces(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
                if self.full:
                    raise StateError("cannot write: No space left on device")
                super().put_pieces(name, pieces)

        store, sums = Full(), self.sums(2)
        model = self.model(store)
        with pytest.raises(StateError):
            model.follow(sums[:1])
        assert model.round == 0
        store.full = False
        model.follow(sums)
        assert model.round == self.model(store).round == 2

    @pytest.mark.parametrize("damage", [b"", b"x" * 80, bytes([255]) * 80, b" " * 64 + bytes(40)])
    def test_a_kept_model_that_is_damaged_is_told(self, damage: bytes) -> None:
        store = MemoryStore()
        store.put("r.model", damage)
        with pytest.raises(HansaError):
            self.model(store)

    def test_a_model_that_an_earlier_release_has_kept_is_read(self) -> None:
        store, sums = MemoryStore(), self.sums(1)
        self.model(store).follow(sums)
        kept = store.get("r.model") or b""
        store.put("r.model", kept[:64] + kept[kept.index(0) :])  # no room between the hash and the state
        model = self.model(store)
        assert model.round == 1
        model.check(self.manifest(model, previous_aggregate_sha256=sums[-1].sha256))

    def test_another_model_zero_is_refused(self) -> None:
        with pytest.raises(ModelMismatchError, match="model 0"):
            DerivedModel(AGREEMENT, self.TERMS, "r", START + 1, Derivation(AGREEMENT))

    @pytest.mark.parametrize(
        "survivors", [(), ("a", "b"), ("a", "b", "stranger"), ("a", "b", "c", "stranger")]
    )
    def test_a_sum_over_too_few_or_of_strangers_is_not_followed(self, survivors: tuple[str, ...]) -> None:
        model = self.model()
        model.follow([self.verified(Aggregate(0, survivors, np.zeros(D, dtype=np.int32)))])
        assert model.round == 0

    @pytest.mark.parametrize("value", [2**31 - 1, -(2**31), 2**30])
    def test_a_sum_that_honest_members_cannot_add_up_to_is_not_followed(self, value: int) -> None:
        model = self.model()
        model.follow([self.verified(Aggregate(0, ("a", "b", "c"), np.full(D, value, dtype=np.int32)))])
        assert model.round == 0

    def test_a_sum_that_no_auditor_has_recomputed_is_not_followed(self) -> None:
        (sound,) = self.sums(1)
        other = replace(sound, total=sound.total + 1)
        foreign = self.verified(sound, run="another-run")
        by_member, by_coordinator = (self.verified(sound, signer=name) for name in ("a", "coordinator"))
        for false in (
            replace(sound, verified=""),
            replace(sound, verified="nonsense"),
            replace(other, verified=sound.verified),
            foreign,
            by_member,
            by_coordinator,
        ):
            model = self.model()
            model.follow([false])
            assert model.round == 0
            model.follow([sound])  # and it heals
            assert model.round == 1

    def test_where_no_auditor_is_named_nobody_is_waited_for(self) -> None:
        model = self.model(audited=False)
        model.follow([replace(one, verified="") for one in self.sums(2)])
        assert model.round == 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"previous_aggregate_sha256": None},
            {"previous_aggregate_sha256": "ab" * 32},
            {"model_sha256": "ab" * 32},
            {"step": 0},
        ],
        ids=["no-sum", "another-sum", "another-model", "an-older-step"],
    )
    def test_a_manifest_names_the_model_and_the_sum_that_led_to_it(self, changes: dict[str, object]) -> None:
        model, sums = self.model(), self.sums(1)
        model.follow(sums)
        honest = {"previous_aggregate_sha256": sums[0].sha256}
        model.check(self.manifest(model, **honest))
        with pytest.raises(ModelMismatchError):
            model.check(self.manifest(model, **honest | changes))
        assert model.round == 0  # it asks for all sums again
        model.follow(sums)
        model.check(self.manifest(model, **honest))

    def test_a_manifest_of_a_later_model_waits(self) -> None:
        model, sums = self.model(), self.sums(1)
        model.follow(sums)
        with pytest.raises(ModelMismatchError, match="has followed 1 sums"):
            model.check(self.manifest(model, step=2))
        assert model.round == 1

    def test_a_shared_derivation_computes_once_and_the_same(self) -> None:
        shared, derive = SharedDerivation(AGREEMENT), Derivation(AGREEMENT)
        training = AGREEMENT.terms.training
        state = initial_state(training.server, START, average_tail=0.0, rounds=training.rounds)
        one, other = self.sums(1)[0], Aggregate(0, ("a",), self.sums(1)[0].total)
        assert shared(state, one) is shared(state, one)
        assert shared(state, one) == derive(state, one)
        assert shared(state, other) == derive(state, other) != derive(state, one)


def test_the_terms_of_the_sum_are_the_agreements() -> None:
    identities = federation().keys
    agreement, _ = frozen_league(
        secure_sum={"threat_model": "honest-but-curious", "post_quantum": True, "min_members": 3}
    )
    terms = sum_terms(agreement, identities.roster)
    assert (terms.agreement_id, terms.threshold, terms.floor) == (agreement.agreement_id, 3, 3)
    assert (terms.confirmed, terms.post_quantum) == (False, True)
    assert terms.vectors["update"].length == D
    assert terms.sha256 != sum_terms(AGREEMENT, identities.roster).sha256


def test_a_run_in_hybrid_mode_is_the_same_run() -> None:
    agreement, _ = frozen_league(
        secure_sum={"post_quantum": True}, privacy={"mechanism": "none", "epsilon": None, "delta": None}
    )
    league = Federation(agreement, START, federation().updates)
    outcome = league.run()
    assert outcome.stopped_because is None
    assert np.allclose(outcome.state.weights, START + 4 * 0.125, atol=1e-6)


def test_requests_carry_only_the_sums_that_a_member_lacks() -> None:
    seen: list[tuple[int, int]] = []

    def counts(name: str, request: Message, answer: Callable[[Message], Message]) -> Message:
        if name == "a" and request.kind == "sum":
            asked = read_sum_request(request, D)
            if "secagg.manifest" in kinds(request):
                seen.append((len(parts(request)), len(asked.aggregates)))
            else:
                assert not asked.aggregates or seen
        return answer(request)

    federation(between=counts).run()
    assert [aggregates for _, aggregates in seen] == [0, 1, 1, 1]
