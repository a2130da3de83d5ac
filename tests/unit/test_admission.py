"""The roster in force follows the federation's log, also where reading it fails in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from hansa.identity import Amendment
from hansa.ledger import AmendmentMade
from hansa.ledger.errors import LogStoreError
from hansa_server.admission import RosterInForce
from support.audits import AGREEMENT, FEDERATION_SIGNER, MEMBERS, SIGNERS, at, signed
from support.services import READERS


def revoking(member: str) -> bytes:
    """The entry of an amendment that four of the five members approved."""
    change = Amendment(AGREEMENT, 1, READERS.roster.sha256, "revoke", member, None, "its key was lost")
    return signed(
        AmendmentMade.of(change, {name: change.sign(SIGNERS[name]) for name in MEMBERS[:4]}, at(99))
    )


class Breaking:
    """A federation's log that can be read as far as the entry that is bad, while there is one."""

    origin = FEDERATION_SIGNER.key.name

    def __init__(self, entries: list[bytes]) -> None:
        self._entries, self.bad = entries, len(entries)

    @property
    def size(self) -> int:
        return len(self._entries)

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        for index in range(start, end):
            if index == self.bad:
                raise LogStoreError("cannot read the log: disk I/O error")
            yield self._entries[index]

    def reading(self) -> AbstractContextManager[Any]:
        return nullcontext(self)


def test_reading_that_breaks_behind_an_amendment_costs_that_question_alone() -> None:
    other = b'{"type":"release"}'  # nobody looks at what else stands there
    log = Breaking([other, revoking(MEMBERS[4]), other])
    roster = RosterInForce(READERS, [log])
    log.bad = log.size - 1
    for _ in range(3):
        with pytest.raises(LogStoreError, match="disk"):
            roster()
    log.bad = log.size
    assert roster().revoked == {MEMBERS[4]}
    assert roster().revoked == {MEMBERS[4]}
