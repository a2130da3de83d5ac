"""Replays, restarts and retries: nothing is answered twice, and no key masks two vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hansa.errors import HansaError
from hansa.identity import COORDINATOR, Statement
from hansa.secagg import Coordinator, FolderStore, Member, MemoryStore, Seal
from hansa.secagg import messages as m
from hansa.secagg.errors import (
    AlreadyAnsweredError,
    MaskForfeitedError,
    PhaseError,
    QuorumError,
    RoundRefusedError,
    StateError,
    TranscriptError,
)
from hansa.secagg.member_state import MAX_AHEAD
from hansa.wire import Message
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, RUN, SumLeague, make_league, over_the_wire

REQUESTS = (m.KeysRequest, m.SharesRequest, m.Delivery, m.Manifest, m.Survivors, m.UnmaskRequest)


def recorded(league: SumLeague, name: str, steps: int = 1) -> list[tuple[Message, Message]]:
    """Every request to a member and its reply, over some rounds."""
    seen: list[tuple[Message, Message]] = []
    handle = league.members[name].handle

    def watched(request: Message) -> Message:
        reply = handle(request)
        seen.append((request, reply))
        return reply

    league.members[name].handle = watched  # type: ignore[method-assign]
    for step in range(steps):
        league.sum(step)
    league.members[name].handle = handle  # type: ignore[method-assign]
    return seen


class TestReplayedOrReorderedRounds:
    def test_every_request_again_gets_the_same_bytes_again(self) -> None:
        league = make_league(4, 20)
        seen = recorded(league, "member-1")
        assert {request.kind for request, _ in seen} >= {model.purpose_name for model in REQUESTS}
        for restarted in (False, True):
            if restarted:
                league.restart("member-1")
            for request, reply in seen:
                again = league.members["member-1"].handle(over_the_wire(request))
                assert again.header == reply.header
                assert all((again.arrays[name] == array).all() for name, array in reply.arrays.items())

    def test_no_request_of_an_old_round_is_answered_anew(self) -> None:
        league = make_league(4, 20)
        seen = recorded(league, "member-1", steps=4)
        contributed = len(league.contributors["member-1"].asked)
        first = [
            request for request, _ in seen if Statement.parse(request.text(m.SIGNED)).value["round"] == 1
        ]
        assert len(first) == 7
        for request in first:
            with pytest.raises((RoundRefusedError, PhaseError, TranscriptError)):
                league.members["member-1"].handle(request)
        assert len(league.contributors["member-1"].asked) == contributed

    @pytest.mark.parametrize("done", range(6))
    def test_only_the_request_that_is_due_is_answered(self, done: int) -> None:
        league = make_league(4, 20)
        requests = {r.kind: r for r, _ in recorded(make_twin(league), "member-1") if round_of(r) == 1}
        for model in REQUESTS[:done]:
            league.members["member-1"].handle(requests[model.purpose_name])
        before = league.members["member-1"]._state
        for model in REQUESTS[done + 1 :]:
            with pytest.raises((PhaseError, TranscriptError)):
                league.members["member-1"].handle(requests[model.purpose_name])
        assert league.members["member-1"]._state == before

    def test_a_round_that_leaves_out_a_completed_one_is_refused(self) -> None:
        league = make_league(4, 20)
        league.sum(0)
        league.prepare()
        league.coordinator.begin(PURPOSE, 1, MODEL)
        honest = league.pending("member-1", m.Manifest)
        for change in (
            {"previous_round": 0, "previous_manifest_sha256": None, "previous_aggregate_sha256": None},
            {"previous_manifest_sha256": "0" * 64},
        ):
            with pytest.raises(RoundRefusedError, match="does not follow"):
                league.members["member-1"].handle(league.as_coordinator(honest, **change))
        assert league.members["member-1"].handle(honest).kind == m.Masked.purpose_name

    def test_keys_lie_ready_for_a_few_rounds_only(self) -> None:
        league = make_league(4, 20)
        request = league.pending("member-1", m.KeysRequest)
        for number in range(1, 50):
            league.members["member-1"].handle(league.as_coordinator(request, round=number))
        assert sorted(league.members["member-1"]._state.rounds) == list(range(50 - MAX_AHEAD, 50))


def make_twin(league: SumLeague) -> SumLeague:
    """A league of the same identities, whose messages fit."""
    twin = make_league(len(league.members), 20, signers=league.signers, rands=fixed_rands(league))
    league.rands = fixed_rands(league)
    for name in league.members:
        league.restart(name)
    return twin


def fixed_rands(league: SumLeague) -> dict:
    """Streams that two leagues draw alike."""
    return {name: np.random.default_rng(index).bytes for index, name in enumerate(league.members)}


def round_of(message: Message) -> int:
    return int(Statement.parse(message.text(m.SIGNED)).value["round"])


class CrashError(Exception):
    """The process dies here."""


class CrashingStore(MemoryStore):
    """Dies before a chosen write, or right after it."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = ""
        self.states_until_crash = -1

    def put(self, name: str, data: bytes | memoryview) -> None:
        kind = name.rsplit(".", 1)[1]
        if kind == self.before:
            raise CrashError
        super().put(name, data)
        if kind == "state" and self.states_until_crash > 0:
            self.states_until_crash -= 1
            if self.states_until_crash == 0:
                raise CrashError
        if kind == self.after:
            raise CrashError


class TestRestartUnderTheSameKeys:
    """A member is killed around the moment in which its mask is used (two vectors under one mask give themselves away)."""

    def crashed(self, before: str = "", after: str = "", states: int = -1) -> tuple[SumLeague, Message]:
        league = make_league(4, 20)
        league.stores["member-1"] = CrashingStore()
        league.restart("member-1")
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        request = league.pending("member-1", m.Manifest)
        store = league.stores["member-1"]
        assert isinstance(store, CrashingStore)
        store.before, store.after, store.states_until_crash = before, after, states
        with pytest.raises(CrashError):
            league.members["member-1"].handle(request)
        store.before, store.after, store.states_until_crash = "", "", -1
        league.restart("member-1")
        return league, request

    def test_before_the_mask_is_marked_as_used_the_keys_are_still_good(self) -> None:
        league, request = self.crashed(before="state")
        assert league.members["member-1"].handle(request).kind == m.Masked.purpose_name

    @pytest.mark.parametrize(
        "when",
        [{"states": 1}, {"before": "y"}, {"after": "y"}],
        ids=["right after the mark", "before the vector is durable", "vector durable, reply not recorded"],
    )
    def test_after_the_mark_the_round_is_forfeited(self, when: dict) -> None:
        league, request = self.crashed(**when)
        for shown in (request, league.as_coordinator(request, model_sha256="1" * 64)):
            with pytest.raises(MaskForfeitedError):
                league.members["member-1"].handle(shown)
        record = league.members["member-1"]._state.rounds[1]
        assert record.secrets is None  # no key is left that could mask anything
        assert len(league.contributors["member-1"].asked) == 1

    def test_after_the_reply_is_recorded_the_same_bytes_are_given(self) -> None:
        league, request = self.crashed(states=2)
        reply = league.members["member-1"].handle(request)
        assert len(league.contributors["member-1"].asked) == 1
        assert league.members["member-1"].handle(request).header == reply.header
        with pytest.raises(AlreadyAnsweredError):
            league.members["member-1"].handle(league.as_coordinator(request, model_sha256="1" * 64))

    def test_the_others_finish_without_the_member_that_forfeits(self) -> None:
        league, _ = self.crashed(before="y")
        outcome = None
        while outcome is None:
            outcome = league.exchange()
        assert outcome.survivors == ("member-2", "member-3", "member-4")
        assert (outcome.total == league.expected(outcome.survivors)).all()
        assert league.coordinator.refusals == [("member-1", m.Manifest.purpose_name, MaskForfeitedError.code)]
        assert "member-1" in league.sum(1).survivors

    def test_a_lost_vector_is_not_made_again(self) -> None:
        league = make_league(4, 20)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        request = league.pending("member-1", m.Manifest)
        league.members["member-1"].handle(request)
        for damage in (b"", b"\x00" * 80):
            league.stores["member-1"].put(f"{RUN}.1.y", damage)
            with pytest.raises(MaskForfeitedError):
                league.members["member-1"].handle(request)

    def test_state_is_sealed_and_bound_to_its_key(self) -> None:
        league = make_league(4, 20)
        league.prepare()
        member = league.members["member-1"]
        secrets = next(iter(member._state.rounds.values())).own_secrets
        stored = league.stores["member-1"].get(f"{RUN}.state") or b""
        for secret in (secrets.self_seed, secrets.mask_seed, secrets.envelope_seed):
            assert secret not in stored
            assert secret.hex().encode() not in stored
        league.seals["member-1"] = Seal(b"\x99" * 32)
        with pytest.raises(StateError, match="cannot be opened"):
            league.restart("member-1")

    def test_two_processes_cannot_share_a_state_folder(self, tmp_path: Path) -> None:
        first = FolderStore(tmp_path / "state")
        with pytest.raises(StateError, match="in use"):
            FolderStore(tmp_path / "state")
        first.close()
        FolderStore(tmp_path / "state").close()


class TestDifferencingByRetries:
    """The same step summed again over other members: the difference is somebody's vector, but for its fresh noise."""

    def aborted(self, league: SumLeague, step: int) -> None:
        """A round that is masked and then given up."""
        league.prepare()
        league.coordinator.begin(PURPOSE, step, MODEL)
        league.away = set(list(league.members)[-2:])
        with pytest.raises(QuorumError):
            league.exchange()
        league.away = set()
        league.coordinator.abandon()

    def test_a_retry_is_a_new_round_with_new_masks(self) -> None:
        league = make_league(5, 20)
        self.aborted(league, 0)
        first = league.stores["member-1"].get(f"{RUN}.1.y")
        outcome = league.sum(0)
        assert outcome.round == 2
        assert outcome.survivors == tuple(league.members)
        assert league.stores["member-1"].get(f"{RUN}.2.y") != first
        assert [manifest.round for manifest in league.contributors["member-1"].asked] == [
            1,
            2,
        ]  # charged twice

    def test_retries_are_capped_for_the_whole_run(self) -> None:
        league = make_league(5, 20)
        self.aborted(league, 0)
        league.sum(0)  # the first retry
        self.aborted(league, 1)
        self.aborted(league, 1)  # the second: as many as a member allows
        with pytest.raises(QuorumError):
            league.sum(1)
        refused = [error for error in league.refused["member-1"] if isinstance(error, RoundRefusedError)]
        assert "retry 3" in refused[-1].cause
        assert len(league.contributors["member-1"].asked) == 4

    def test_a_step_whose_survivors_are_signed_is_never_summed_again(self) -> None:
        league = make_league(5, 20)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        league.exchange()
        league.exchange()  # signed; a malicious coordinator now pretends that the round failed
        league.coordinator.abandon()
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        with pytest.raises(QuorumError):
            league.exchange()
        assert all(isinstance(errors[-1], RoundRefusedError) for errors in league.refused.values())
        assert all("settled" in errors[-1].cause for errors in league.refused.values())
        league.coordinator.abandon()
        outcome = league.sum(1)  # the run goes on with the next step
        assert outcome.survivors == tuple(league.members)
        acknowledged = league.contributors["member-1"].asked[-1]
        assert (acknowledged.previous_round, acknowledged.previous_aggregate_sha256) == (1, None)

    def test_an_earlier_step_is_not_summed_again_either(self) -> None:
        league = make_league(5, 20)
        for step in (0, 1):
            league.sum(step)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        with pytest.raises(QuorumError):
            league.exchange()

    def test_two_runs_share_nothing(self) -> None:
        league = make_league(4, 20)
        other = Coordinator(league.terms, "run-2", league.signers[COORDINATOR], spool=MemoryStore())
        for name, bundle in other.requests().items():
            for part in bundle.body["parts"]:  # type: ignore[union-attr]
                with pytest.raises(TranscriptError, match="another run"):
                    league.members[name].handle(Message(part["kind"], part["body"]))  # type: ignore[index,call-overload]


class TestContributorRefuses:
    """The member's own policy says no: model, step, checkpoint, budget."""

    def test_nothing_is_used_and_the_same_manifest_may_come_again(self) -> None:
        league = make_league(4, 20)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        request = league.pending("member-1", m.Manifest)

        class Refuses:
            def contribute(self, manifest: m.Manifest, seeds: object = None) -> np.ndarray:
                raise RoundRefusedError("not this model")

        before = league.members["member-1"]._state
        honest = league.contributors["member-1"]
        league.members["member-1"]._contributor = Refuses()
        with pytest.raises(RoundRefusedError, match="not this model"):
            league.members["member-1"].handle(request)
        assert league.members["member-1"]._state == before
        league.members["member-1"]._contributor = honest
        assert league.members["member-1"].handle(request).kind == m.Masked.purpose_name

    @pytest.mark.parametrize(
        "values",
        [np.zeros(19), np.zeros(21), np.zeros((20, 1)), np.full(20, np.nan), np.zeros(20, dtype="<i2")],
        ids=["short", "long", "matrix", "nan", "int16"],
    )
    def test_a_vector_that_cannot_be_encoded_uses_no_key(self, values: np.ndarray) -> None:
        league = make_league(4, 20)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        request = league.pending("member-1", m.Manifest)
        good = league.contributors["member-1"].values
        league.contributors["member-1"].values = values
        with pytest.raises(HansaError):
            league.members["member-1"].handle(request)
        league.contributors["member-1"].values = good
        assert league.members["member-1"].handle(request).kind == m.Masked.purpose_name


def test_a_member_outside_the_roster_cannot_start() -> None:
    league = make_league(4, 20)
    stranger = league.signers[COORDINATOR].__class__.generate("stranger")
    with pytest.raises(HansaError):
        Member(
            league.terms,
            RUN,
            stranger,
            league.contributors["member-1"],
            store=MemoryStore(),
            seal=Seal(bytes(32)),
        )


def vectors_of(store: MemoryStore) -> list[str]:
    """Names of the masked vectors that lie in a member's store."""
    return sorted(name for name in store._data if name.endswith(".y"))


class TestWhatIsKept:
    """A member keeps a masked vector to repeat it, and no more of them than it may be asked for."""

    def test_of_many_rounds_the_vectors_of_the_last_two_are_kept(self) -> None:
        league = make_league(4, 20)
        for step in range(5):
            league.sum(step)
        assert vectors_of(league.stores["member-1"]) == [f"{RUN}.4.y", f"{RUN}.5.y"]  # type: ignore[arg-type]
        assert len(league.members["member-1"]._state.rounds) <= 2 + MAX_AHEAD

    @pytest.mark.parametrize("when", [{"before": "state"}, {"states": 1}, {"before": "y"}, {"after": "y"}])
    def test_no_crash_leaves_a_vector_behind(self, when: dict) -> None:
        league = make_league(4, 20)
        league.stores["member-1"] = store = CrashingStore()
        league.restart("member-1")
        for step in range(2):
            league.sum(step)
        league.prepare()
        league.coordinator.begin(PURPOSE, 2, MODEL)
        store.before, store.after = when.get("before", ""), when.get("after", "")
        store.states_until_crash = when.get("states", -1)
        with pytest.raises(CrashError):
            league.members["member-1"].handle(league.pending("member-1", m.Manifest))
        store.before, store.after, store.states_until_crash = "", "", -1
        league.restart("member-1")
        while league.exchange() is None:
            pass
        for step in range(3, 6):
            assert "member-1" in league.sum(step).survivors
        assert vectors_of(store) == [f"{RUN}.5.y", f"{RUN}.6.y"]

    def test_after_the_run_the_vectors_are_let_go_and_the_state_stays(self) -> None:
        league = make_league(4, 20)
        seen = recorded(league, "member-1", steps=2)
        member = league.members["member-1"]
        member.forget_vectors()
        member.forget_vectors()
        assert sorted(league.stores["member-1"]._data) == [f"{RUN}.state"]  # type: ignore[attr-defined]
        masked = [request for request, _ in seen if request.kind == m.Manifest.purpose_name]
        assert masked
        for request in masked:
            with pytest.raises((MaskForfeitedError, RoundRefusedError, PhaseError)):
                member.handle(request)
