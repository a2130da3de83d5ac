"""Amendments in the federation's log: the coordinator logs them, and goes by them from their place on."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.agreement.amendments import Proposal
from hansa.identity import COORDINATOR, Amendment, Signer
from hansa.identity.errors import AmendmentError, RevokedError, SignatureError
from hansa.ledger import AmendmentMade, SignedEntry
from hansa.protocol import Word
from hansa.secagg import MemoryStore
from hansa_server.history import History
from hansa_server.summation import SumHouse
from support import members
from support.ledgers import AGREEMENT, MEMBERS, ROSTER, SIGNERS, amendment, keyring, release, signed
from support.members import WITNESSES, Clock
from support.mirrors import QUORUM, League

GONE = MEMBERS[3]  # whose key is revoked, or replaced


def proposal(approving: tuple[str, ...] = MEMBERS[:3], **changes: Any) -> Proposal:
    """An amendment, by default one that revokes a key, with approvals."""
    said: dict[str, Any] = {"change": "revoke", "member": GONE, "reason": "its key was lost"}
    change = Amendment(AGREEMENT, 1, ROSTER.sha256, **{**said, **changes})
    return Proposal(change, tuple(change.sign(SIGNERS[name]) for name in approving))


def opened(league: League, *amendments: Proposal) -> History:
    """The coordinator's end of the league's log, as a process opens it that starts."""
    witnesses = {name: WITNESSES[name].key for name in MEMBERS}
    return History(
        league.log, SIGNERS[COORDINATOR], AGREEMENT, keyring(), witnesses, QUORUM, Clock(), amendments
    )


@pytest.fixture
def league() -> League:
    """A league whose members have reserved a run."""
    made = League()
    made.begin()
    made.spread()
    return made


def shown(league: League) -> None:
    """Every member takes what stands in the log."""
    for party in league.parties.values():
        league.news(party)


class TestInTheLog:
    def test_a_revoked_key_signs_nothing_more_also_for_a_coordinator_that_starts_again(
        self, league: League
    ) -> None:
        league.log.append([signed(amendment()).encoded])
        history, size = opened(league), league.log.size
        evil = members.release(league.ledger(3), 1)
        with pytest.raises(RevokedError):
            history.take(GONE, Word(0, (evil.encoded,)))
        assert league.log.size == size
        good = members.release(league.ledger(0), 1)
        history.take(MEMBERS[0], Word(0, (good.encoded,)))
        shown(league)  # and no mirror has anything against this log

    def test_what_was_signed_before_stays(self, league: League) -> None:
        before = members.release(league.ledger(3), 1)
        league.log.append([before.encoded, signed(amendment()).encoded])
        history, size = opened(league), league.log.size
        history.take(GONE, Word(0, (before.encoded,)))  # said again, and known
        assert league.log.size == size
        assert history.released(GONE, members.RUN, 1) == before.entry.y_sha256
        assert history.roster.revoked == {GONE}

    def test_a_replaced_key_counts_from_its_place_on(self, league: League) -> None:
        new = Signer.generate(GONE)
        opened(league, proposal(change="replace-key", public_key=new.public_key))
        history = opened(league)
        entry = release(1, GONE)
        with pytest.raises(SignatureError):
            history.take(GONE, Word(0, (signed(entry).encoded,)))
        history.take(GONE, Word(0, (SignedEntry.sign(entry, new).encoded,)))
        assert history.released(GONE, entry.run, 1) == entry.y_sha256

    def test_who_is_revoked_does_not_count_as_a_witness(self, league: League) -> None:
        opened(league, proposal())
        history = opened(league)
        for name in (*MEMBERS[1:], MEMBERS[0]):
            text = history.news(name).checkpoint.split("\n\n")[0] + "\n"
            line = WITNESSES[name].sign(text, at=1_800_000_000).line
            before = history.cosigned
            history.take(name, Word(league.log.size, (), line))
            assert (history.cosigned != before) is (name == MEMBERS[0])  # the third that counts


class TestWhoLogsThem:
    def test_a_coordinator_that_is_opened_with_an_amendment_logs_it_once(self, league: League) -> None:
        size = league.log.size
        for _ in range(2):
            history = opened(league, proposal())
            assert history.roster.revoked == {GONE}
        assert league.log.size == size + 1
        entry = SignedEntry.parse(league.log.entry(size)).entry
        assert isinstance(entry, AmendmentMade)
        assert set(entry.approvals) == set(MEMBERS[:3])
        shown(league)
        assert all(
            party.mirror.keys.agreements[AGREEMENT].roster_at(size + 1).revoked == {GONE}
            for party in league.parties.values()
        )

    def test_a_log_that_is_ahead_of_the_files_is_believed(self, league: League) -> None:
        opened(league, proposal())
        assert opened(league).roster.revoked == {GONE}

    def test_another_amendment_than_the_logs_is_refused(self, league: League) -> None:
        opened(league, proposal())
        size = league.log.size
        with pytest.raises(AmendmentError, match="other amendments"):
            opened(league, proposal(reason="another one"))
        assert league.log.size == size

    def test_an_amendment_that_too_few_approve_is_not_logged(self, league: League) -> None:
        size = league.log.size
        with pytest.raises(AmendmentError, match="2 members approved, 3 are needed"):
            opened(league, proposal(MEMBERS[:2]))
        assert league.log.size == size


def test_a_run_is_not_begun_with_other_keys_than_the_log_has_in_force(league: League) -> None:
    history = opened(league, proposal())
    with pytest.raises(AmendmentError, match="in force"):
        SumHouse(SIGNERS[COORDINATOR], ROSTER, MemoryStore(), history=history)
    house = SumHouse(SIGNERS[COORDINATOR], ROSTER.revoke(GONE), MemoryStore(), history=history)
    assert house.roster.active == MEMBERS[:3]
