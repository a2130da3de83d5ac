"""Whatever a coordinator logs of what it was given, and in whatever order: what a member accepts is its own account.

The log is signed over exactly what is shown, so that nothing but its content can betray it.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.errors import HansaError
from hansa.ledger import Log, MemoryLogStore, SignedEntry
from hansa.ledger.entry import OfRun
from hansa.ledger.errors import CheckpointRefusedError
from support import members
from support.ledgers import AGREEMENT, LOG_SIGNER, MEMBERS
from support.members import PROTECTION, TRAINING, WITNESSES
from support.mirrors import League, played

RUNS = ("run-1", "run-2")


def busy() -> tuple[League, list[bytes]]:
    """Two members with two runs, of which the log shows nothing but the beginning."""
    league = played(0)
    for number in (0, 1):
        ledger = league.ledger(number)
        ledger.reserve(AGREEMENT, "run-2", [TRAINING.with_count(6)], PROTECTION)
        for round_number in (1, 2, 3):
            members.release(ledger, round_number)
            members.release(ledger, round_number, run="run-2")
        ledger.close(AGREEMENT, "run-2")
    pending = [data for number in (0, 1) for data in league[number].mirror.outstanding()]
    assert len(pending) == 16
    return league, pending


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_member_accepts_its_entries_whole_and_in_order_or_not_at_all(data: st.DataObject) -> None:
    league, pending = busy()
    party = league[0]
    kept = [one for one in pending if data.draw(st.integers(0, 9)) > 0]
    for _ in range(data.draw(st.integers(0, 3))):
        if len(kept) > 1:
            left, right = (data.draw(st.integers(0, len(kept) - 1)) for _ in range(2))
            kept[left], kept[right] = kept[right], kept[left]
    log = Log(MemoryLogStore(), LOG_SIGNER)
    log.append([*league.log.entries(), *kept])

    shown: dict[str, list[bytes]] = {run: [] for run in RUNS}
    for one in log.entries():
        entry = SignedEntry.parse(one).entry
        if isinstance(entry, OfRun) and entry.writer == MEMBERS[0]:
            shown[entry.run].append(one)
    truth = {run: list(party.ledger.entries_of(run))[1:] for run in RUNS}
    honest = all(truth[run][: len(shown[run])] == shown[run] for run in RUNS)

    before = party.mirror.size, party.mirror.view.root, party.mirror.outstanding()
    note = log.checkpoint()
    try:
        cosignature = party.mirror.news(list(log.entries(before[0])), note)
    except HansaError:
        assert not honest
        assert (party.mirror.size, party.mirror.view.root, party.mirror.outstanding()) == before
        return
    assert honest
    assert party.mirror.view.root == log.root
    assert party.mirror.outstanding() == tuple(
        one for one in pending if one in truth["run-1"] + truth["run-2"] and one not in kept
    )
    note = log.add_cosignature(note, cosignature, WITNESSES[party.name].key)
    for name in MEMBERS[2:]:
        note = log.add_cosignature(note, WITNESSES[name].sign(note.text, 1), WITNESSES[name].key)
    if all(len(shown[run]) == len(truth[run]) for run in RUNS):
        party.mirror.verify_manifest_checkpoint(note)
    elif any(b'"type":"release"' in one for one in party.mirror.outstanding()):
        with pytest.raises(CheckpointRefusedError, match="does not show the release"):
            party.mirror.verify_manifest_checkpoint(note)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(0, 3))
def test_news_in_any_portions_make_the_same_copy(portions: list[int], overlap: int) -> None:
    league, pending = busy()
    party = league[0]
    league.log.append(pending)
    end = party.mirror.size
    for portion in portions:
        start, end = max(end - overlap, 0), min(end + portion, league.log.size)
        log = Log(MemoryLogStore(), LOG_SIGNER)
        log.append(league.log.entries(0, end))
        party.mirror.news(list(log.entries(start)), log.checkpoint())
        assert party.mirror.view.root == log.root
        party.start()
    league.news(party)
    assert party.mirror.view.root == league.log.root
    assert party.mirror.outstanding() == ()
