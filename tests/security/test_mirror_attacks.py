"""A coordinator that lies in the federation's log, and a member whose own log is not what it was.

After every attack the member's copy is as it was, and the honest news is still taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from hansa.errors import HansaError
from hansa.identity import COORDINATOR, Signer
from hansa.identity.keys import ORDER
from hansa.ledger import (
    Checkpoint,
    InMemoryWitness,
    Log,
    MemoryLogStore,
    NoteSigner,
    Release,
    SignedEntry,
    SignedNote,
)
from hansa.ledger.errors import CheckpointRefusedError, ForkError, NewsRefusedError, OldCopyError
from hansa.merkle import Frontier, leaf_hash
from support import ledgers, members
from support.ledgers import AGREEMENT, HASH, LOG_SIGNER, MEMBERS, SIGNERS, amendment, one_of_each, signed
from support.members import PROTECTION, RUN, TRAINING, WITNESSES
from support.mirrors import League, aggregate, copied, picture, played

ROUNDS = 2


def forked(entries: list[bytes]) -> Log:
    """Another log under the same key."""
    log = Log(MemoryLogStore(), LOG_SIGNER)
    log.append(entries)
    return log


def show(league: League, entries: list[bytes], start: int | None = None) -> None:
    """Show member 1 a log of these entries, signed by the log, from where its copy ends."""
    mirror = league[0].mirror
    mirror.news(entries[mirror.size if start is None else start :], forked(entries).checkpoint())


def truth(league: League) -> list[bytes]:
    return list(league.log.entries())


def invented(number: int, member: str = MEMBERS[1], signer: str = COORDINATOR) -> bytes:
    """A release that the member has not made."""
    return SignedEntry.sign(ledgers.release(number, member), SIGNERS[signer]).encoded


def twin(data: bytes) -> bytes:
    """The same entry with the other signature that ECDSA accepts, which takes no key to make."""
    head, line, rest = data.split(b"\n", 2)
    name, signature = line.split(b" ")
    r, s = decode_dss_signature(bytes.fromhex(signature.decode()))
    return b"\n".join((head, name + b" " + encode_dss_signature(r, ORDER - s).hex().encode(), rest))


def own_release(league: League, number: int) -> bytes:
    """The next release of member 1."""
    return members.release(league.ledger(0), number).encoded


# attack: what the coordinator shows, by what the log holds in truth
LIES: dict[str, tuple[Callable[[League], list[bytes]], str]] = {
    "invented release": (
        lambda league: [*truth(league), invented(9)],
        "'hospital-2' has not signed its release",
    ),
    "invented release of this member": (
        lambda league: [*truth(league), invented(9, MEMBERS[0])],
        "'hospital-1' has not signed its release",
    ),
    "invented reservation": (
        lambda league: [
            *truth(league),
            SignedEntry.sign(one_of_each()["reservation"], SIGNERS[COORDINATOR]).encoded,
        ],
        "has not signed its reservation",
    ),
    "foreign signature": (
        lambda league: [
            *truth(league),
            SignedEntry.sign(ledgers.release(9, MEMBERS[1]), Signer.generate(MEMBERS[1])).encoded,
        ],
        "is not by 'hospital-2'",
    ),
    "a release once more with the other s of its signature": (
        lambda league: [
            *truth(league),
            twin(
                next(
                    data
                    for data in truth(league)
                    if isinstance(entry := SignedEntry.parse(data).entry, Release)
                    and entry.member == MEMBERS[0]
                )
            ),
        ],
        "is not by 'hospital-1'",
    ),
    "a stranger's entry": (
        lambda league: [
            *truth(league),
            SignedEntry.sign(ledgers.release(9, "stranger"), Signer.generate("stranger")).encoded,
        ],
        "whom the agreement does not name",
    ),
    "entry after revocation": (
        lambda league: [
            *truth(league),
            signed(amendment()).encoded,
            members.release(league.ledger(3), 3).encoded,
        ],
        "entry 19: the key of 'hospital-4' is revoked",
    ),
    "amendment that too few approved": (
        lambda league: [
            *truth(league),
            signed(
                type(amendment())(
                    **{
                        **{name: getattr(amendment(), name) for name in type(amendment()).model_fields},
                        "approvals": dict(list(amendment().approvals.items())[:2]),
                    }
                )
            ).encoded,
        ],
        "2 members approved, 3 are needed",
    ),
    "an entry doubled": (lambda league: [*truth(league), truth(league)[9]], "it stands in the log already"),
    "an entry doubled at once": (
        lambda league: [*truth(league), *[members.release(league.ledger(1), 3).encoded] * 2],
        "entry 19: it stands in the log already",
    ),
    "what is no entry": (lambda league: [*truth(league), b"{}\n"], "cannot be read"),
    "a sum with a vector that was not released": (
        lambda league: [
            *truth(league),
            aggregate(9, [], released={MEMBERS[0]: HASH, MEMBERS[1]: HASH}).encoded,
        ],
        "entry 18: the aggregate of run run-1, round 9 counts a vector that this member has not released",
    ),
    "a sum with another vector than was released": (
        lambda league: [*truth(league), aggregate(2, [], released={MEMBERS[0]: HASH}).encoded],
        "counts a vector",
    ),
    "another agreement's entry": (
        lambda league: [
            *truth(league),
            signed(ledgers.release(9, MEMBERS[1], agreement_id="ee" * 32)).encoded,
        ],
        "the agreement eeeeeeeeeeee",
    ),
}


def refused(league: League, attack: Callable[[], Any], error: type[HansaError], match: str) -> HansaError:
    """The attack is refused, nothing has changed, and the honest log goes on."""
    before = picture(league[0].mirror)
    last = league[0].memory.last(LOG_SIGNER.key.name)
    with pytest.raises(error, match=match) as caught:
        attack()
    assert picture(league[0].mirror) == before
    assert league[0].memory.last(LOG_SIGNER.key.name) == last
    league[0].start()
    assert picture(league[0].mirror) == before
    return caught.value


class TestLies:
    @pytest.mark.parametrize("attack", list(LIES))
    def test_it_is_refused_and_nothing_was_taken(self, attack: str) -> None:
        league = played(ROUNDS)
        lie, match = LIES[attack]
        entries = lie(league)
        refused(league, lambda: show(league, entries), NewsRefusedError, match)
        league.spread()

    def test_dropped_release_before_a_later_one(self) -> None:
        """Member 1 released in rounds 3 and 4; the coordinator logs the second alone."""
        league = played(ROUNDS)
        own_release(league, 3)
        fourth = own_release(league, 4)
        refused(
            league,
            lambda: show(league, [*truth(league), fourth]),
            NewsRefusedError,
            "round 4 comes before the release of run run-1, round 3",
        )

    def test_dropped_release_under_a_manifest(self) -> None:
        """The coordinator logs nothing of the last release and asks for another."""
        league = played(ROUNDS)
        own_release(league, 3)
        note = league.spread()
        error = refused(
            league,
            lambda: league[0].mirror.verify_manifest_checkpoint(note),
            CheckpointRefusedError,
            "does not show the release of run run-1, round 3",
        )
        assert error.travels
        league.collect()
        league[0].mirror.verify_manifest_checkpoint(league.spread())

    def test_release_that_is_shown_behind_the_checkpoint_of_the_manifest(self) -> None:
        league = played(ROUNDS)
        before = league.spread()
        own_release(league, 3)
        league.collect()
        after = league.spread()
        refused(
            league,
            lambda: league[0].mirror.verify_manifest_checkpoint(before),
            CheckpointRefusedError,
            "does not show the release",
        )
        league[0].mirror.verify_manifest_checkpoint(after)

    def test_reordered_entries_of_this_member(self) -> None:
        league = played(ROUNDS)
        third, fourth = own_release(league, 3), own_release(league, 4)
        refused(
            league, lambda: show(league, [*truth(league), fourth, third]), NewsRefusedError, "comes before"
        )
        show(league, [*truth(league), third, fourth])

    def test_reordered_entries_that_were_shown(self) -> None:
        league = played(ROUNDS)
        entries = truth(league)
        entries[9], entries[10] = entries[10], entries[9]
        third = own_release(league, 3)
        refused(league, lambda: show(league, [*entries, third]), NewsRefusedError, "do not lead to the root")
        entries = [*entries, third]
        log = forked(entries)
        refused(
            league,
            lambda: league[0].mirror.news(entries, log.checkpoint()),
            NewsRefusedError,
            "shown before have changed",
        )

    @pytest.mark.parametrize("data", [b"", b"x" * 65_536])
    def test_an_entry_that_no_log_may_hold(self, data: bytes) -> None:
        league = played(ROUNDS)
        frontier = Frontier()
        for one in [*truth(league), data]:
            frontier.append(leaf_hash(one))
        text = Checkpoint(LOG_SIGNER.key.name, 19, frontier.root).text
        note = SignedNote(text, (LOG_SIGNER.sign(text),))
        refused(
            league, lambda: league[0].mirror.news([data], note), NewsRefusedError, f"18 has {len(data)} bytes"
        )


class TestHistories:
    def test_truncated_log(self) -> None:
        league = played(ROUNDS)
        short = truth(league)[:-3]
        error = refused(league, lambda: show(league, short, 15), NewsRefusedError, "older than the 18 here")
        assert isinstance(error, NewsRefusedError)
        assert error.size == 18

    def test_truncated_log_that_grows_another_way(self) -> None:
        league = played(ROUNDS)
        other = [*truth(league)[:-1], members.release(league.ledger(1), 3).encoded]
        error = refused(league, lambda: show(league, other, 18), ForkError, "another log of 18 entries")
        assert isinstance(error, ForkError)
        assert league[0].mirror.forks == (error.notes,)
        known, shown = (SignedNote.parse(note) for note in error.notes)
        assert known.text != shown.text
        for note in (known, shown):
            note.verify((LOG_SIGNER.key,))

    def test_forked_view_of_the_same_size(self) -> None:
        league = played(ROUNDS)
        other = [*truth(league)[:-1], aggregate(2, [], released={MEMBERS[1]: HASH}).encoded]
        refused(league, lambda: show(league, other), ForkError, "another log of 18 entries")

    def test_forked_view_that_is_shorter(self) -> None:
        league = played(ROUNDS)
        other = [*truth(league)[:10], members.release(league.ledger(1), 3).encoded]
        refused(league, lambda: show(league, other, 0), ForkError, "another log of 11 entries")

    def test_forked_view_that_is_longer_keeps_the_note(self) -> None:
        """The entries that come do not lead to the note: who compares copies will want to see it."""
        league = played(ROUNDS)
        other = forked([*truth(league)[:-1], invented(8), invented(9), own_release(league, 3)])
        note = other.checkpoint()
        refused(
            league,
            lambda: league[0].mirror.news(list(other.entries(18)), note),
            NewsRefusedError,
            "do not lead to the root of 20 entries",
        )
        assert [shown for _, shown in league[0].mirror.forks] == [note.encoded]

    def test_a_flood_of_forks_is_kept_once(self) -> None:
        league = played(ROUNDS)
        for number in range(5):
            other = [*truth(league)[:-1], invented(20 + number)]
            with pytest.raises(ForkError):
                show(league, other)
        assert len(league[0].mirror.forks) == 1

    def test_forked_view_shown_to_a_member_that_lost_its_copy(self) -> None:
        """What it has cosigned tells it, even if its copy of the log is gone."""
        league = played(ROUNDS)
        other = [*truth(league)[:17], members.release(league.ledger(1), 3).encoded, invented(9)]
        party = league[0]
        party.copy = MemoryLogStore()
        party.start()
        log = forked(other[:18])
        with pytest.raises(ForkError):
            party.mirror.news(list(log.entries()), log.checkpoint())
        assert party.mirror.size == 0
        with pytest.raises(NewsRefusedError, match="a checkpoint of 18 entries was cosigned before"):
            party.mirror.news(truth(league)[:12], forked(truth(league)[:12]).checkpoint())
        league.news(party)
        assert party.mirror.size == 18

    def test_forked_view_shown_to_a_member_whose_memory_went_with_the_power(self) -> None:
        """Its copy of the log is on disk before it cosigns; what it remembers of its cosignatures may not be."""
        league = played(ROUNDS)
        party = league[0]
        entries, size = truth(league), party.mirror.size
        party.memory = InMemoryWitness()
        party.start()
        for other in (entries[: size - 1], [*entries[: size - 1], invented(9)], [invented(9), *entries]):
            with pytest.raises(NewsRefusedError):
                show(league, other, 0)
        assert party.mirror.size == size
        assert party.memory.last(LOG_SIGNER.key.name) is None
        league.news(party)
        assert party.memory.last(LOG_SIGNER.key.name) is not None

    def test_no_two_histories_get_a_quorum(self) -> None:
        league = played(ROUNDS)
        left = members.release(league.ledger(1), 3).encoded
        right = members.release(league.ledger(2), 3).encoded
        logs = [forked([*truth(league), one]) for one in (left, right)]
        gathered = []
        for log in logs:
            note = log.checkpoint()
            for party in league.parties.values():
                try:
                    cosignature = party.mirror.news(list(log.entries(18)), note)
                except HansaError:
                    continue
                note = log.add_cosignature(note, cosignature, WITNESSES[party.name].key)
            gathered.append(len(note.signatures) - 1)
        assert gathered == [4, 0]

    def test_replayed_older_checkpoint_as_news(self) -> None:
        league = played(1)
        old = league.log.checkpoint()
        league.round(2)
        refused(league, lambda: league[0].mirror.news([], old), NewsRefusedError, "older than the 18 here")

    def test_replayed_older_checkpoint_in_a_manifest(self) -> None:
        league = played(1)
        old = league.spread()
        league.round(2)
        mirror = league[0].mirror
        mirror.verify_manifest_checkpoint(league.spread())
        refused(
            league,
            lambda: league[0].mirror.verify_manifest_checkpoint(old),
            CheckpointRefusedError,
            "older than that of 18",
        )

    def test_checkpoint_of_a_fork_with_a_quorum_of_liars(self) -> None:
        """Three members collude with the coordinator: whoever holds another history still refuses it."""
        league = played(ROUNDS)
        fork = forked([*truth(league)[:-1], invented(9)])
        note = fork.checkpoint()
        for name in MEMBERS[1:]:
            cosignature = WITNESSES[name].sign(note.text, 1)
            note = fork.add_cosignature(note, cosignature, WITNESSES[name].key)
        refused(
            league,
            lambda: league[0].mirror.verify_manifest_checkpoint(note),
            CheckpointRefusedError,
            "of another log than is mirrored here",
        )

    @pytest.mark.parametrize("origin", [LOG_SIGNER.key.name, "hansa.example/another"])
    def test_another_logs_checkpoint(self, origin: str) -> None:
        league = played(ROUNDS)
        stranger = Log(MemoryLogStore(), NoteSigner.generate(origin))
        stranger.append(truth(league))
        refused(
            league,
            lambda: league[0].mirror.news([], stranger.checkpoint()),
            NewsRefusedError,
            "signed by nobody who is known|of the log",
        )
        refused(
            league,
            lambda: league[0].mirror.verify_manifest_checkpoint(stranger.checkpoint()),
            CheckpointRefusedError,
            "signed by nobody who is known|of the log",
        )

    def test_signatures_that_were_checked_stand_for_no_others(self) -> None:
        """What was verified once is remembered; another text, or another signature, is verified anew."""
        league = played(1)
        party, note = league[0], league.spread("first")
        assert party.mirror.verify_manifest_checkpoint(note) == party.mirror.verify_manifest_checkpoint(note)
        for line in note.signatures:
            flipped = replace(line, data=line.data[:-1] + bytes([line.data[-1] ^ 1]))
            with pytest.raises(CheckpointRefusedError, match="not by its key"):
                party.mirror.verify_manifest_checkpoint(note.with_signatures(flipped))
        moved = SignedNote(league.log.checkpoint("another text").text, note.signatures)
        with pytest.raises(CheckpointRefusedError, match="not by its key"):
            party.mirror.verify_manifest_checkpoint(moved)

    def test_cosignatures_that_were_forged_do_not_count(self) -> None:
        league = played(ROUNDS)
        note = league.log.checkpoint("forged")
        for name in MEMBERS:
            imposter = NoteSigner.generate(WITNESSES[name].key.name, WITNESSES[name].key.kind)
            note = note.with_signatures(imposter.sign(note.text, 1))
        refused(
            league,
            lambda: league[0].mirror.verify_manifest_checkpoint(note),
            CheckpointRefusedError,
            "0 members have cosigned",
        )


class TestOldCopies:
    """A member whose own log was put back from a backup."""

    def backed_up(self, rounds: int = 1, later: int = 2) -> tuple[League, MemoryLogStore]:
        league = played(rounds)
        backup = copied(league[0].own)
        for number in range(rounds + 1, rounds + later + 1):
            league.round(number)
        return league, backup

    def test_rolled_back_member_with_its_copy_of_the_log(self) -> None:
        league, backup = self.backed_up()
        party = league[0]
        party.own = backup
        party.start()
        with pytest.raises(OldCopyError) as caught:
            league.news(party)
        assert caught.value.missing == (
            "the release of run run-1, round 2, entry 13 of the log",
            "the release of run run-1, round 3, entry 18 of the log",
        )
        assert "hansa node recover" in caught.value.what_to_do
        assert "round 2, entry 13 of the log and 1 more" in caught.value.cause
        note = league.log.checkpoint()
        for name in MEMBERS[1:]:
            note = league.log.add_cosignature(
                note, league.news(league.parties[name], note), WITNESSES[name].key
            )
        with pytest.raises(OldCopyError):
            party.mirror.verify_manifest_checkpoint(note)

    def test_rolled_back_member_without_it(self) -> None:
        """Everything was restored: own log, copy, memory of what it cosigned."""
        league = played(1)
        party = league[0]
        own, copy = copied(party.own), copied(party.copy)
        memory = InMemoryWitness()
        memory._last = dict(party.memory._last)  # type: ignore[attr-defined]
        league.round(2)
        party.own, party.copy, party.memory = own, copy, memory
        party.start()
        error = refused(league, lambda: league.news(party), OldCopyError, "release of run run-1, round 2")
        assert error.travels

    def test_rolled_back_member_that_has_lost_everything_but_its_key(self) -> None:
        league = played(1)
        party = league[0]
        party.own, party.copy, party.memory = MemoryLogStore(), MemoryLogStore(), InMemoryWitness()
        party.start()
        with pytest.raises(OldCopyError) as caught:
            league.news(party)
        assert len(caught.value.missing) == 3
        party.ledger.grant(members.budget())
        with pytest.raises(OldCopyError):
            league.news(party)

    def test_cloned_member(self) -> None:
        """Two processes with the same key and a copy of the same log: the second one is found at its next news."""
        league = played(1)
        party = league[0]
        clone = members.opened(copied(party.own))
        theirs = members.release(clone, 2, y_sha256="99" * 32)
        league.log.append([theirs.encoded])
        with pytest.raises(OldCopyError, match="release of run run-1, round 2"):
            league.news(party)

    def test_forged_words_of_this_member_are_no_sign_of_an_old_copy(self) -> None:
        league = played(1)
        lie = SignedEntry.sign(ledgers.release(9, MEMBERS[0]), Signer.generate(MEMBERS[0])).encoded
        refused(
            league, lambda: show(league, [*truth(league), lie]), NewsRefusedError, "is not by 'hospital-1'"
        )

    def test_a_closed_run_that_the_member_forgot_is_told(self) -> None:
        league = played(1)
        party = league[0]
        backup = copied(party.own)
        party.ledger.close(AGREEMENT, RUN)
        league.collect()
        party.own = backup
        party.start()
        with pytest.raises(OldCopyError, match="the closed of run run-1"):
            league.news(party)

    def test_a_run_that_the_member_forgot_is_told(self) -> None:
        league = played(1)
        party = league[0]
        backup = copied(party.own)
        party.ledger.reserve(AGREEMENT, "run-2", [TRAINING], PROTECTION)
        league.collect()
        party.own = backup
        party.start()
        with pytest.raises(OldCopyError, match="the reservation of run run-2"):
            league.news(party)
