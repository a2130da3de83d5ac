"""What a malicious coordinator can try within a round, each attack tried through the members' own door.

The coordinator signs whatever it likes with its own key, shows different members different things, and reads
everything that passes. Members under its control answer it as it wishes. What it cannot do is sign for honest members.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
import pytest

from hansa.errors import WireError
from hansa.identity import COORDINATOR, Roster, Signer, Statement
from hansa.identity.errors import RevokedError, RosterError, SignatureError
from hansa.identity.statement import pack, unpack
from hansa.merkle import path_length
from hansa.secagg import Coordinator, MemoryStore
from hansa.secagg import messages as m
from hansa.secagg.dealing import ENVELOPE_BYTES, read_parcels
from hansa.secagg.errors import (
    AlreadyAnsweredError,
    ExcludedError,
    PhaseError,
    QuorumError,
    SumOutOfRangeError,
    SumTermsError,
    TranscriptError,
)
from hansa.secagg.keys import self_mask_key
from hansa.secagg.masks import add_masks
from hansa.wire import Message
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, RUN, SumLeague, make_league


def begun(league: SumLeague, step: int = 0) -> SumLeague:
    """A league that is about to be asked for its masked vectors."""
    league.prepare()
    league.coordinator.begin(PURPOSE, step, MODEL)
    return league


def masked(league: SumLeague) -> SumLeague:
    """A league whose masked vectors are in, about to confirm."""
    begun(league).exchange()
    return league


def confirmed(league: SumLeague) -> SumLeague:
    """A league whose survivors are confirmed, about to unmask."""
    masked(league).exchange()
    return league


def statement_of(message: Message) -> Statement:
    return Statement.parse(message.text(m.SIGNED))


def self_seeds(league: SumLeague) -> dict[str, bytes]:
    """Every member's self-mask seed of the current round, read out of its memory: more than any attacker has."""
    return {
        name: next(iter(member._state.rounds.values())).own_secrets.self_seed
        for name, member in league.members.items()
    }


class TestModelInconsistency:
    """Two members are shown different models (Pasquini et al., CCS 2022)."""

    def test_the_sum_is_useless_even_with_every_self_mask_opened(self) -> None:
        league = begun(make_league(5, 200))
        seeds = self_seeds(league)
        total = np.zeros(200, dtype=np.uint32)
        opened = []
        for name, member in league.members.items():
            honest = league.pending(name, m.Manifest)
            shown = league.as_coordinator(honest, model_sha256="1" * 64) if name == "member-1" else honest
            reply = member.handle(shown)
            total += reply.array("y", "<u4", 200)
            opened.append(self_mask_key(seeds[name], name, statement_of(reply).value["binding"]))
        add_masks(total, [], opened)
        with pytest.raises(SumOutOfRangeError):
            league.terms.vectors[PURPOSE].quantiser.decode(total, 5)
        wrong = total.view(np.int32) != league.expected(tuple(league.members))
        assert wrong.mean() > 0.99

    def test_members_with_one_model_learn_of_the_other_and_the_run_aborts(self) -> None:
        league = begun(make_league(5, 20))
        replies = {}
        for name, member in league.members.items():
            honest = league.pending(name, m.Manifest)
            shown = league.as_coordinator(honest, model_sha256="1" * 64) if name == "member-1" else honest
            replies[name] = statement_of(member.handle(shown))
        everyone = league.as_coordinator(
            league.pending("member-2", m.Manifest), {"masked": pack(replies.values())}
        )
        binding = replies["member-2"].value["binding"]
        fields = {"binding": binding, "arrays": {}}
        value = {
            k: v for k, v in statement_of(everyone).value.items() if k in {"terms", "run", "round"}
        } | fields
        survivors = forged(league, m.Survivors, value, {"masked": pack(replies.values())})
        for name in league.members:
            with pytest.raises(TranscriptError, match="manifest"):
                league.members[name].handle(survivors)

    def test_an_honest_coordinator_refuses_a_vector_under_another_manifest(self) -> None:
        league = begun(make_league(4, 20))
        other = league.as_coordinator(league.pending("member-1", m.Manifest), model_sha256="1" * 64)
        reply = league.members["member-1"].handle(other)
        said, statement = m.Context(league.terms, RUN).read(reply, m.Masked, "member-1")
        with pytest.raises(TranscriptError):
            league.coordinator._current.accept(said, statement, reply)  # type: ignore[union-attr]


def forged(league: SumLeague, model: type[m.Said], value: dict, arrays: dict | None = None) -> Message:
    """A message of any content, signed by the coordinator."""
    start = Message(
        model.purpose_name,
        {m.SIGNED: Statement.sign(league.signers[COORDINATOR], model.purpose_name, value).line},
    )
    return league.as_coordinator(start, arrays)


class TestForgedSetOfWhoShared:
    """U2 is told differently to different members, so that a victim's partners can be declared dropped later."""

    def test_members_told_different_contributors_never_confirm_the_same_bytes(self) -> None:
        league = begun(make_league(4, 50))  # t = 3; with one colluder a single vector would be open
        sets = {
            "member-1": ("member-1", "member-2", "member-4"),
            "member-2": ("member-1", "member-2", "member-3", "member-4"),
            "member-3": ("member-2", "member-3", "member-4"),
            "member-4": ("member-1", "member-2", "member-4"),
        }
        replies = {}
        for name, contributors in sets.items():
            shown = league.as_coordinator(league.pending(name, m.Manifest), contributors=contributors)
            replies[name] = statement_of(league.members[name].handle(shown))
        bindings = {name: reply.value["binding"] for name, reply in replies.items()}
        assert len(set(bindings.values())) == 3
        common = {"terms": league.terms.sha256, "run": RUN, "round": 1, "arrays": {}}
        for victim in ("member-1", "member-3"):
            for claimed in (sets[victim], sets["member-2"]):
                listed = pack(replies[name] for name in claimed)
                survivors = forged(
                    league, m.Survivors, common | {"binding": bindings[victim]}, {"masked": listed}
                )
                with pytest.raises((TranscriptError, ExcludedError, QuorumError)):
                    league.members[victim].handle(survivors)
        for name in league.members:  # and without a confirmation nobody opens anything
            unmask = forged(
                league, m.UnmaskRequest, common | {"binding": bindings[name]}, {"confirmations": pack([])}
            )
            with pytest.raises(PhaseError):
                league.members[name].handle(unmask)

    def test_a_confirmation_names_the_contributors_and_counts_for_no_other_set(self) -> None:
        league = confirmed(make_league(5, 20))
        honest = league.pending("member-1", m.UnmaskRequest)
        current = league.coordinator._current
        assert current is not None
        value = json.loads(current.confirm)
        value["contributors"] = value["contributors"][:-1]
        colluders = [
            Statement.sign(league.signers[f"member-{i}"], m.Confirm.purpose_name, value) for i in (2, 3, 4, 5)
        ]
        request = league.as_coordinator(honest, {"confirmations": pack(colluders)})
        with pytest.raises(TranscriptError, match="confirmation"):
            league.members["member-1"].handle(request)
        bare = [dataclasses.replace(statement, data=b"") for statement in colluders]
        with pytest.raises(SignatureError):
            league.members["member-1"].handle(league.as_coordinator(honest, {"confirmations": pack(bare)}))

    def test_contributors_whose_shares_never_came_are_refused(self) -> None:
        league = make_league(5, 20)
        league.exchange()
        league.away = {"member-5"}
        league.exchange()
        league.away = set()
        league.exchange()
        begun(league)
        everyone = tuple(league.members)
        shown = league.as_coordinator(league.pending("member-1", m.Manifest), contributors=everyone)
        with pytest.raises(TranscriptError, match="no good shares"):
            league.members["member-1"].handle(shown)
        assert league.contributors["member-1"].asked == []


class TestKeySubstitution:
    """The coordinator puts its own keys in a member's place to read the shares that are sent there."""

    def test_a_key_under_the_old_signature_is_refused(self) -> None:
        league = make_league(4, 10)
        league.exchange()
        honest = league.pending("member-1", m.SharesRequest)
        listed = list(unpack(honest.arrays["keys"]))
        key = listed[2].value["envelope_key"].encode()
        listed[2] = dataclasses.replace(listed[2], data=listed[2].data.replace(key, b"ab" * 32))
        with pytest.raises(SignatureError, match="member-3"):
            league.members["member-1"].handle(league.as_coordinator(honest, {"keys": pack(listed)}))

    @pytest.mark.parametrize("signer", [COORDINATOR, "member-4"])
    def test_a_key_signed_by_somebody_else_is_refused(self, signer: str) -> None:
        league = make_league(4, 10)
        league.exchange()
        honest = league.pending("member-1", m.SharesRequest)
        listed = list(unpack(honest.arrays["keys"]))
        value = listed[2].value | {"envelope_key": "ab" * 32}
        forged_keys = Statement.sign(league.signers[signer], m.Keys.purpose_name, value)
        for claimed in (signer, "member-3"):
            listed[2] = dataclasses.replace(forged_keys, signer=claimed)
            with pytest.raises((SignatureError, TranscriptError)):
                league.members["member-1"].handle(league.as_coordinator(honest, {"keys": pack(listed)}))

    def test_members_that_were_shown_different_keys_have_no_transcript_in_common(self) -> None:
        league = make_league(4, 10)
        league.exchange()
        # a colluding member-4 signs two sets of keys; member-1 sees the one, the others the other
        honest = league.pending("member-1", m.SharesRequest)
        listed = list(unpack(honest.arrays["keys"]))
        second = Statement.sign(
            league.signers["member-4"], m.Keys.purpose_name, listed[3].value | {"mask_key": "ab" * 32}
        )
        shown = {"member-1": pack([*listed[:3], second]), "member-2": pack(listed), "member-3": pack(listed)}
        dealt = {
            name: statement_of(league.members[name].handle(league.as_coordinator(honest, {"keys": keys})))
            for name, keys in shown.items()
        }
        assert dealt["member-1"].value["transcript"] != dealt["member-2"].value["transcript"]
        assert dealt["member-3"].value["transcript"] == dealt["member-2"].value["transcript"]
        for name in ("member-2", "member-3"):
            said = m.Context(league.terms, RUN).said(dealt["member-1"], m.Shares)
            parties = league.members[name]._parties(league.members[name]._state.rounds[1])
            place = list(parties.x).index(name)
            arrays = {
                "envelopes": np.zeros((1, 2, ENVELOPE_BYTES), np.uint8),
                "rows": np.zeros((1, 3, 32), np.uint8),
                "paths": np.zeros((1, path_length(place, 4), 32), np.uint8),
            }
            delivery = Message(m.Delivery.purpose_name, {}, arrays)
            with pytest.raises(TranscriptError, match="another transcript"):
                list(read_parcels(delivery, parties, {"member-1": said}))

    def test_a_members_own_keys_must_be_the_ones_it_sent(self) -> None:
        league = make_league(4, 10)
        league.exchange()
        honest = league.pending("member-1", m.SharesRequest)
        rest = pack(unpack(honest.arrays["keys"])[1:])
        with pytest.raises(TranscriptError, match="own"):
            league.members["member-1"].handle(league.as_coordinator(honest, {"keys": rest}))

    def test_a_point_of_small_order_is_refused_by_the_coordinator(self) -> None:
        league = make_league(4, 10)
        reply = league.members["member-4"].handle(league.pending("member-4", m.KeysRequest))
        value = statement_of(reply).value | {"mask_key": "00" * 32}
        statement = Statement.sign(league.signers["member-4"], m.Keys.purpose_name, value)
        message = Message(reply.kind, {m.SIGNED: statement.line})
        said, read = m.Context(league.terms, RUN).read(message, m.Keys, "member-4")
        with pytest.raises(WireError, match="member-4"):
            league.coordinator._upcoming.accept(said, read, message)


class TestDuplicateAndSybilMembers:
    """One party counts as several."""

    def test_a_member_listed_twice_is_refused(self) -> None:
        league = make_league(4, 10)
        league.exchange()
        honest = league.pending("member-1", m.SharesRequest)
        listed = unpack(honest.arrays["keys"])
        doubled = league.as_coordinator(honest, {"keys": pack([*listed, listed[3]])})
        with pytest.raises(TranscriptError, match="one per member"):
            league.members["member-1"].handle(doubled)

    def test_two_members_with_one_round_key_are_refused(self) -> None:
        league = make_league(4, 10)
        league.exchange()
        honest = league.pending("member-1", m.SharesRequest)
        listed = list(unpack(honest.arrays["keys"]))
        value = listed[3].value | {"mask_key": listed[2].value["mask_key"]}
        listed[3] = Statement.sign(league.signers["member-4"], m.Keys.purpose_name, value)
        with pytest.raises(TranscriptError, match="same round key"):
            league.members["member-1"].handle(league.as_coordinator(honest, {"keys": pack(listed)}))

    def test_somebody_outside_the_roster_is_refused(self) -> None:
        league = make_league(4, 10)
        league.exchange()
        honest = league.pending("member-1", m.SharesRequest)
        listed = unpack(honest.arrays["keys"])
        stranger = Statement.sign(Signer.generate("stranger"), m.Keys.purpose_name, listed[3].value)
        with pytest.raises(TranscriptError, match="not by a member"):
            league.members["member-1"].handle(
                league.as_coordinator(honest, {"keys": pack([*listed, stranger])})
            )

    def test_a_revoked_member_takes_no_part(self) -> None:
        league = make_league(5, 10)
        revoked = dataclasses.replace(league.terms, roster=league.terms.roster.revoke("member-5"))
        coordinator = Coordinator(revoked, RUN, league.signers[COORDINATOR], spool=MemoryStore())
        assert "member-5" not in coordinator.requests()
        league.exchange()
        keys = unpack(league.pending("member-1", m.SharesRequest).arrays["keys"])
        with pytest.raises(RevokedError):
            m.Context(revoked, RUN).said(keys[4], m.Keys)

    def test_a_roster_with_one_key_for_two_names_cannot_be_made(self) -> None:
        key, other = Signer.generate("a").public_key, Signer.generate("c").public_key
        with pytest.raises(RosterError, match="cannot be used") as caught:
            Roster({"a": key, "b": key}, other)
        assert "a, b have the same key" in str(caught.value.problems[0])


class TestBothSharesAsked:
    """A holder that gave both shares of one contributor would open its vector."""

    def test_a_reply_holds_one_share_of_each_contributor_of_the_kind_that_the_survivors_call_for(
        self,
    ) -> None:
        league = begun(make_league(5, 20))
        league.away = {"member-5"}
        league.exchange()
        league.exchange()
        holder = league.members["member-1"]
        held = dict(holder._state.rounds[1].held)
        reply = holder.handle(league.pending("member-1", m.UnmaskRequest))
        assert reply.arrays["shares"].shape == (5, 66)
        for place, name in enumerate(league.members):
            kind = held[name].mask_key if name == "member-5" else held[name].self_mask
            assert reply.arrays["shares"][place].tobytes() == kind[:66]
        assert holder._state.rounds[1].held == {}  # the other halves are gone

    def test_a_second_request_with_other_survivors_is_refused(self) -> None:
        league = confirmed(make_league(5, 20))
        honest = league.pending("member-1", m.UnmaskRequest)
        league.members["member-1"].handle(honest)
        second = league.as_coordinator(
            honest, {"confirmations": pack(unpack(honest.arrays["confirmations"])[:4])}
        )
        with pytest.raises(AlreadyAnsweredError):
            league.members["member-1"].handle(second)

    def test_a_sum_that_it_does_not_allow_is_neither_signed_nor_opened(self) -> None:
        """It is told of every vector that would be summed; a refusal leaves the round as it was."""
        league = masked(make_league(4, 20))
        request = league.pending("member-1", m.Survivors)
        told: list[tuple[int, Mapping[str, str]]] = []

        class Refuses:
            def summed(self, number: int, vectors: Mapping[str, str]) -> None:
                told.append((number, vectors))
                raise QuorumError("not these vectors")

        member = league.members["member-1"]
        before, honest = member._state, member._contributor
        member._contributor = Refuses()  # type: ignore[assignment]
        with pytest.raises(QuorumError, match="not these vectors"):
            member.handle(request)
        assert member._state == before
        ((number, vectors),) = told
        assert number == 1
        assert set(vectors) == set(league.members)
        member._contributor = honest
        assert member.handle(request).kind == m.Confirm.purpose_name

    def test_survivors_are_confirmed_once(self) -> None:
        league = masked(make_league(5, 20))
        honest = league.pending("member-1", m.Survivors)
        first = league.members["member-1"].handle(honest)
        fewer = league.as_coordinator(honest, {"masked": pack(unpack(honest.arrays["masked"])[:4])})
        with pytest.raises(AlreadyAnsweredError):
            league.members["member-1"].handle(fewer)
        again = league.members["member-1"].handle(honest)
        assert again.header == first.header

    def test_a_request_that_says_more_than_it_may_is_refused(self) -> None:
        league = confirmed(make_league(5, 20))
        honest = league.pending("member-1", m.UnmaskRequest)
        with pytest.raises(WireError):
            league.members["member-1"].handle(league.as_coordinator(honest, also_reveal=["member-2"]))


class TestForkedSurvivors:
    """Different members are told different survivors."""

    def test_neither_half_of_a_fork_reaches_the_quorum(self) -> None:
        league = masked(make_league(5, 20))
        honest = league.pending("member-1", m.Survivors)
        everyone = unpack(honest.arrays["masked"])
        forks = {
            ("member-1", "member-2"): pack(everyone),
            ("member-3", "member-4", "member-5"): pack(everyone[1:]),
        }
        confirmations = {}
        for names, listed in forks.items():
            request = league.as_coordinator(honest, {"masked": listed})
            for name in names:
                confirmations[name] = statement_of(league.members[name].handle(request))
        assert len({statement.data for statement in confirmations.values()}) == 2
        common = {"terms": league.terms.sha256, "run": RUN, "round": 1, "arrays": {}}
        binding = statement_of(honest).value["binding"]
        for names in forks:
            some = pack(confirmations[name] for name in names)
            request = forged(league, m.UnmaskRequest, common | {"binding": binding}, {"confirmations": some})
            every = pack(confirmations.values())
            mixed = forged(league, m.UnmaskRequest, common | {"binding": binding}, {"confirmations": every})
            for name in names:
                with pytest.raises(QuorumError, match="4 are needed"):
                    league.members[name].handle(request)
                with pytest.raises(TranscriptError):
                    league.members[name].handle(mixed)


class TestQuorumOneShort:
    """t - 1 confirmations, or t - 1 members, made to look like t."""

    def test_one_confirmation_too_few_opens_nothing(self) -> None:
        league = confirmed(make_league(5, 20))
        honest = league.pending("member-1", m.UnmaskRequest)
        listed = unpack(honest.arrays["confirmations"])
        assert league.terms.threshold == 4
        for some in (listed[:3], [*listed[:3], listed[0]], [*listed[:3], listed[2], listed[1]]):
            with pytest.raises(QuorumError, match="3 members confirmed"):
                league.members["member-1"].handle(
                    league.as_coordinator(honest, {"confirmations": pack(some)})
                )
        assert league.members["member-1"].handle(honest).kind == m.Unmask.purpose_name

    @pytest.mark.parametrize("model", [m.SharesRequest, m.Survivors])
    def test_one_member_too_few_is_refused(self, model: type[m.Said]) -> None:
        league = make_league(5, 20)
        league.exchange() if model is m.SharesRequest else masked(league)
        name = "keys" if model is m.SharesRequest else "masked"
        honest = league.pending("member-1", model)
        fewer = league.as_coordinator(honest, {name: pack(unpack(honest.arrays[name])[:3])})
        with pytest.raises(QuorumError, match="3 members"):
            league.members["member-1"].handle(fewer)

    def test_a_manifest_over_too_few_is_refused_before_anything_is_made(self) -> None:
        league = begun(make_league(5, 20))
        honest = league.pending("member-1", m.Manifest)
        for size in (1, 2, 3):
            few = league.as_coordinator(honest, contributors=list(league.members)[:size])
            with pytest.raises(QuorumError):
                league.members["member-1"].handle(few)
        assert league.contributors["member-1"].asked == []

    def test_the_agreements_own_minimum_counts_where_it_is_higher(self) -> None:
        league = begun(make_league(5, 20, min_members=5))
        honest = league.pending("member-1", m.Manifest)
        with pytest.raises(QuorumError, match="5 are needed"):
            league.members["member-1"].handle(
                league.as_coordinator(honest, contributors=list(league.members)[:4])
            )

    def test_two_members_have_no_secure_sum(self) -> None:
        with pytest.raises(SumTermsError, match="no secure sum"):
            make_league(2, 20)
        with pytest.raises(SumTermsError):
            make_league(3, 20, min_members=2)
