"""What malicious members can try: bad shares, false complaints, garbage vectors. Each is named, or does no harm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest

from hansa.errors import HansaError
from hansa.identity import Statement
from hansa.secagg import messages as m
from hansa.secagg.commitments import merkle_root
from hansa.secagg.errors import BadShareError, QuorumError, SumOutOfRangeError, TranscriptError
from hansa.secagg.record import SumOutcome
from hansa.wire import Array, Message, array_sha256
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, SumLeague, make_league

Change = Callable[[dict, dict[str, Array]], None]


class Liar:
    """A member whose replies of some kinds are changed and signed anew with its own key."""

    def __init__(self, league: SumLeague, name: str, changes: dict[type[m.Said], Change]) -> None:
        self.league, self.name = league, name
        self.inner = league.members[name]
        self.changes = {model.purpose_name: change for model, change in changes.items()}
        league.members[name] = self  # type: ignore[assignment]

    def together(self) -> AbstractContextManager[None]:
        return self.inner.together()

    def handle(self, request: Message) -> Message:
        reply = self.inner.handle(request)
        change = self.changes.get(reply.kind)
        if change is None:
            return reply
        value = dict(Statement.parse(reply.text(m.SIGNED)).value)
        arrays = {name: array.copy() for name, array in reply.arrays.items()}
        change(value, arrays)
        value["arrays"] = {name: array_sha256(array) for name, array in arrays.items()}
        line = Statement.sign(self.league.signers[self.name], reply.kind, value).line
        if reply.kind == m.Keys.purpose_name:  # the liar takes its lie for its own
            number = value["round"]
            record = self.inner._state.rounds[number].model_copy(update={"offer": line})
            self.inner._state = self.inner._state.with_round(number, record)
        return Message(reply.kind, {m.SIGNED: line}, arrays)


def bad_envelopes(*places: int) -> Change:
    """Envelopes to some holders are garbage, and the rows and the root say so."""

    def change(value: dict, arrays: dict[str, Array]) -> None:
        others = [row for row in range(len(arrays["rows"])) if row != 1]  # the liar is the second member
        for place in places:
            seat = others.index(place)
            arrays["envelopes"][seat] ^= 1
            digest = hashlib.sha256(arrays["envelopes"][seat].tobytes()).digest()
            arrays["rows"][place, 2] = np.frombuffer(digest, np.uint8)
        value["root"] = merkle_root([row.tobytes() for row in arrays["rows"]]).hex()

    return change


def finish(league: SumLeague, step: int = 0) -> SumOutcome:
    outcome = league.sum(step)
    assert (outcome.total == league.expected(outcome.survivors)).all()
    return outcome


class TestBadShare:
    def test_an_envelope_that_does_not_open_leaves_the_pair_out_before_masking(self) -> None:
        league = make_league(7, 20)
        Liar(league, "member-2", {m.Shares: bad_envelopes(3)})
        outcome = finish(league)
        assert outcome.survivors == ("member-1", "member-3", "member-5", "member-6", "member-7")
        assert outcome.dropped == {"member-2": "complaint", "member-4": "complaint"}
        assert set(outcome.blamed) == {"member-2", "member-4"}
        assert league.contributors["member-4"].asked == []

    def test_a_dealer_of_bad_envelopes_goes_alone(self) -> None:
        league = make_league(7, 20)
        Liar(league, "member-2", {m.Shares: bad_envelopes(0, 2, 3, 4, 5, 6)})
        assert finish(league).survivors == tuple(n for n in league.members if n != "member-2")

    def test_a_holder_that_complains_of_everyone_goes_alone(self) -> None:
        league = make_league(7, 20)

        def complain(value: dict, arrays: dict[str, Array]) -> None:
            value["complaints"] = [name for name in league.members if name != "member-2"]

        Liar(league, "member-2", {m.Received: complain})
        assert finish(league).survivors == tuple(n for n in league.members if n != "member-2")

    @pytest.mark.parametrize("complaints", [["stranger"], ["member-2"], ["member-1", "member-9"]])
    def test_a_complaint_about_nobody_is_refused(self, complaints: list[str]) -> None:
        league = make_league(5, 20)
        Liar(league, "member-2", {m.Received: lambda value, arrays: value.update(complaints=complaints)})
        league.exchange()
        league.exchange()
        with pytest.raises(TranscriptError, match="member-2"):
            league.exchange()

    def test_complaints_that_leave_too_few_end_the_round_and_say_who(self) -> None:
        league = make_league(4, 20)
        Liar(league, "member-2", {m.Shares: bad_envelopes(3)})
        with pytest.raises(QuorumError, match="member-2, member-4"):
            league.prepare()

    def test_with_a_trusted_coordinator_the_holder_of_a_bad_envelope_sits_the_round_out(self) -> None:
        league = make_league(5, 20, threat_model="honest-but-curious")
        Liar(league, "member-2", {m.Shares: bad_envelopes(3)})
        outcome = finish(league)
        assert outcome.survivors == ("member-1", "member-2", "member-3", "member-5")
        assert set(outcome.blamed) == {"member-2", "member-4"}

    def test_a_share_that_its_dealer_did_not_sign_for_is_a_complaint(self) -> None:
        league = make_league(7, 20)

        def other_hash(value: dict, arrays: dict[str, Array]) -> None:
            arrays["rows"][3, 0] ^= 1
            value["root"] = merkle_root([row.tobytes() for row in arrays["rows"]]).hex()

        Liar(league, "member-2", {m.Shares: other_hash})
        assert set(finish(league).blamed) == {"member-2", "member-4"}

    @pytest.mark.parametrize("array", ["rows", "envelopes"])
    def test_shares_that_do_not_fit_their_own_root_are_refused_by_the_coordinator(self, array: str) -> None:
        league = make_league(5, 20)

        def break_it(value: dict, arrays: dict[str, Array]) -> None:
            arrays[array][2] ^= 1

        Liar(league, "member-2", {m.Shares: break_it})
        league.exchange()
        with pytest.raises(TranscriptError, match="member-2"):
            league.exchange()

    @pytest.mark.parametrize("array", ["envelopes", "rows", "paths"])
    def test_what_the_coordinator_alters_on_the_way_is_no_complaint_about_a_dealer(self, array: str) -> None:
        league = make_league(5, 20)
        league.exchange()
        league.exchange()
        honest = league.pending("member-1", m.Delivery)
        altered = honest.arrays[array].copy()
        altered[2] ^= 1
        with pytest.raises(TranscriptError):
            league.members["member-1"].handle(league.as_coordinator(honest, {array: altered}))
        reply = league.members["member-1"].handle(honest)
        assert Statement.parse(reply.text(m.SIGNED)).value["complaints"] == []

    def test_a_dealer_that_shared_something_else_than_it_committed_to_is_named(self) -> None:
        league = make_league(5, 20)
        Liar(league, "member-2", {m.Keys: lambda value, arrays: value.update(seed_commitment="0" * 64)})
        with pytest.raises(BadShareError, match="committed") as caught:
            league.sum(0)
        assert caught.value.blamed == ("member-2",)

    def test_a_holder_that_opens_other_shares_is_named_and_not_needed(self) -> None:
        league = make_league(5, 20)

        def lie(value: dict, arrays: dict[str, Array]) -> None:
            arrays["shares"][:, 65] ^= 1

        Liar(league, "member-2", {m.Unmask: lie})
        outcome = finish(league)
        assert outcome.survivors == tuple(league.members)
        assert list(outcome.blamed) == ["member-2"]

    def test_too_many_lying_holders_are_named_and_end_the_round(self) -> None:
        league = make_league(5, 20)

        def lie(value: dict, arrays: dict[str, Array]) -> None:
            arrays["shares"][3] ^= 1  # of one dealer only

        for name in ("member-2", "member-5"):
            Liar(league, name, {m.Unmask: lie})
        with pytest.raises(BadShareError) as caught:
            league.sum(0)
        assert set(caught.value.blamed) == {"member-2", "member-5"}


class TestGarbageVector:
    """A member masks what it likes; only where the sum shows it can anyone tell."""

    def swapped(self, league: SumLeague, values: np.ndarray) -> None:
        league.contributors["member-2"].values = values

    def test_random_garbage_is_noticed(self) -> None:
        league = make_league(5, 200)
        rng = np.random.default_rng(4)
        Liar(
            league,
            "member-2",
            {m.Masked: lambda v, arrays: arrays.update(y=rng.integers(0, 2**32, 200, dtype="<u4"))},
        )
        with pytest.raises(SumOutOfRangeError) as caught:
            league.sum(0)
        assert caught.value.cause.endswith("of 200 coordinates of a sum are out of range")

    def test_a_sum_out_of_range_is_noticed(self) -> None:
        league = make_league(5, 20)
        reach = league.terms.vectors[PURPOSE].quantiser.reach(5)
        values = np.zeros(20, dtype=np.int64)
        values[7] = 2 * reach + 1  # whatever the others add, beyond what five honest members reach
        self.swapped(league, values)
        with pytest.raises(SumOutOfRangeError, match="1 of 20"):
            league.sum(0)

    def test_a_shift_within_the_range_is_not_noticed_and_this_is_its_size(self) -> None:
        league = make_league(5, 20)
        quantiser = league.terms.vectors[PURPOSE].quantiser
        others = league.expected(("member-1", "member-3", "member-4", "member-5"))
        self.swapped(league, quantiser.reach(5) - others)
        outcome = league.sum(0)
        mean = quantiser.to_units(outcome.total) / 5
        assert np.allclose(
            mean, quantiser.clip, rtol=1e-6
        )  # a liar can put the mean anywhere in [-clip, clip]

    def test_everyone_at_the_edge_neither_wraps_nor_is_refused(self) -> None:
        for sign in (1.0, -1.0):
            league = make_league(5, 20)
            for contributor in league.contributors.values():
                contributor.values = np.full(20, sign * 1e9, dtype=np.float32)
            outcome = finish(league)
            assert (outcome.total == sign * 5 * league.terms.vectors[PURPOSE].quantiser.magnitude).all()

    def test_integers_that_wrap_round_the_ring_come_out_modulo_its_size(self) -> None:
        league = make_league(4, 20)
        for contributor in league.contributors.values():
            contributor.values = np.full(20, 2**30, dtype=np.int64)  # no honest member makes such a vector
        assert not league.sum(0).total.any()

    def test_a_round_whose_sum_is_refused_is_over_and_the_next_one_works(self) -> None:
        league = make_league(5, 20)
        self.swapped(league, np.full(20, 2**31 - 1, dtype=np.int64))
        with pytest.raises(SumOutOfRangeError):
            league.sum(0)
        self.swapped(league, np.zeros(20, dtype=np.float32))
        assert finish(league, step=1).round == 2


class TestOneIdentityTwice:
    def test_a_second_answer_of_one_member_is_refused(self) -> None:
        league = make_league(5, 20)
        league.prepare()
        league.coordinator.begin(PURPOSE, 0, MODEL)
        reply = league.members["member-1"].handle(league.pending("member-1", m.Manifest))
        value = dict(Statement.parse(reply.text(m.SIGNED)).value)
        other = np.zeros(20, dtype="<u4")
        value["arrays"] = {"y": array_sha256(other)}
        second = Message(
            reply.kind,
            {m.SIGNED: Statement.sign(league.signers["member-1"], reply.kind, value).line},
            {"y": other},
        )
        current = league.coordinator._current
        assert current is not None
        for message, refused in ((reply, False), (reply, False), (second, True)):
            said, statement = m.Context(league.terms, "run-1").read(message, m.Masked, "member-1")
            if refused:
                with pytest.raises(HansaError, match="differently"):
                    current.accept(said, statement, message)
            else:
                current.accept(said, statement, message)
        outcome = None
        while outcome is None:
            outcome = league.exchange()
        assert (outcome.total == league.expected(outcome.survivors)).all()

    def test_a_reply_in_another_members_name_is_refused(self) -> None:
        league = make_league(5, 20)
        reply = league.members["member-1"].handle(league.pending("member-1", m.KeysRequest))
        with pytest.raises(TranscriptError, match="'member-2' was expected"):
            m.Context(league.terms, "run-1").read(reply, m.Keys, "member-2")
