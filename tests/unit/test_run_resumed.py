"""A coordinator that is killed and called again with its journal and its log: the run goes on where it stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from hansa.canonical import canonical_json
from hansa.errors import EngineError
from hansa.identity import Statement
from hansa.ledger import LogPolicy, SignedEntry
from hansa.protocol import Word
from hansa.vectors import InFiles
from hansa.wire import Message
from hansa_server.history import History
from hansa_server.journal import InMemoryJournal
from hansa_simulations.seat import history_of
from support.federations import Federation
from support.leagues import frozen_league

T = TypeVar("T")
NAMES = "abcde"
AGREEMENT, BUILT = frozen_league(members=[{"name": name, "units": 30} for name in NAMES])


class Dies(InMemoryJournal):
    """Kills the coordinator right after an effect was kept, before anything is made of what it gave."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after

    def once(self, key: str, effect: Callable[[], T]) -> T:
        known = key in self._results
        kept = super().once(key, effect)
        self._left -= not known
        if not self._left and not known:
            raise EngineError("killed")
        return kept


def league(**more: object) -> Federation:
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
    return Federation(AGREEMENT, BUILT.initial_vector(), updates, **more)  # type: ignore[arg-type]


def logged(federation: Federation) -> Counter[str]:
    """How many entries of each type stand in the federation's log."""
    return Counter(SignedEntry.parse(data).entry.type for data in federation.log.entries())


@pytest.mark.parametrize("after", range(1, 22, 2))  # up to the last
def test_a_coordinator_that_is_called_again_resumes_wherever_it_was_killed(after: int) -> None:
    federation, journal = league(), Dies(after)
    with pytest.raises(EngineError):
        federation.run(journal)
    outcome = federation.run(journal)  # another History over the same log
    assert outcome.stopped_because is None
    assert [one.present for one in outcome.rounds] == [tuple(NAMES)] * 4
    assert all(federation.entries(name).count("release") == 4 for name in NAMES)
    kinds = logged(federation)
    assert (kinds["release"], kinds["aggregate"], kinds["abort"], kinds["closed"]) == (20, 4, 0, 5)


@pytest.mark.parametrize("after", [5, 14, 20])
def test_a_history_that_lives_on_takes_what_was_said_before(after: int) -> None:
    federation, journal = league(), Dies(after)
    house = federation.house
    with pytest.raises(EngineError):
        federation.run(journal, house=house)
    outcome = federation.run(journal, house=house)
    assert outcome.stopped_because is None
    assert [len(one.present) for one in outcome.rounds] == [5] * 4


def test_a_coordinator_that_is_killed_twice_resumes_twice() -> None:
    federation, journal = league(), Dies(9)
    with pytest.raises(EngineError):
        federation.run(journal)
    journal._left = 7
    with pytest.raises(EngineError):
        federation.run(journal)
    assert federation.run(journal).stopped_because is None
    assert logged(federation)["aggregate"] == 4


def test_a_run_whose_vectors_lie_in_files_resumes_to_the_same_bits(tmp_path: Path) -> None:
    federation, journal, vectors = league(), Dies(9), InFiles(tmp_path, from_bytes=1)
    with pytest.raises(EngineError):
        federation.run(journal, house=replace(federation.house, vectors=vectors), vectors=vectors)
    house = replace(federation.house, vectors=vectors)
    outcome = federation.run(journal, house=house, vectors=vectors)
    assert outcome.stopped_because is None
    assert outcome.state.round == 4
    assert outcome.state.digest() == league().run().state.digest()
    assert list(tmp_path.iterdir()) == []


def test_a_signed_line_that_says_too_much_costs_its_member_a_round_and_nobody_else_anything() -> None:
    """It lies in the journal: what could not be taken once could not be taken after a resume either."""

    def talks(name: str, request: Message, handle: Callable[[Message], Message]) -> Message:
        reply = handle(request)
        if name != "e" or reply.kind != "summed":
            return reply
        parts = json.loads(json.dumps(reply.body["bundle"]))["parts"]
        for part in parts:
            if part["kind"] == "secagg.masked":
                line = Statement.parse(part["body"]["signed"])
                data = canonical_json({**json.loads(line.data), "more": 1})
                part["body"]["signed"] = Statement(line.purpose, "e", data, line.signature).line
        return Message(reply.kind, {**reply.body, "bundle": {"parts": parts}}, reply.arrays)

    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
    federation, journal = Federation(AGREEMENT, BUILT.initial_vector(), updates, talks), InMemoryJournal()
    outcome = federation.run(journal)
    assert outcome.stopped_because is None
    assert [one.present for one in outcome.rounds] == [tuple("abcd")] * 4


def history(federation: Federation) -> History:
    return history_of(federation.log, AGREEMENT, federation.keys)


def test_a_new_history_knows_the_newest_checkpoint_that_enough_have_cosigned() -> None:
    federation = league()
    assert history(federation).cosigned == ""
    assert federation.run().stopped_because is None
    policy = LogPolicy(federation.log.key, tuple(federation.keys.witness_keys.values()), 4)
    history(federation).abort("r", 9, "too-few", ())
    federation.log.checkpoint()  # the newest, which nobody has cosigned
    again = history(federation)
    assert policy.verify(again.cosigned).checkpoint.size == federation.log.size - 1
    assert all(map(again.due, NAMES))  # what it knows of mirrors is of another process


def test_a_cosignature_of_an_older_checkpoint_is_passed_over_and_the_rest_is_taken() -> None:
    federation = league()
    assert federation.run().stopped_because is None
    again = history(federation)
    old = again.news("a").checkpoint
    line = federation.keys.witness_signer("a").sign(old.split("\n\n")[0] + "\n", at=1_800_000_000).line
    again.abort("r", 9, "too-few", ())
    before = again.cosigned
    newest = again.news("a").checkpoint
    again.take("a", Word(federation.log.size, (), line, "7" * 32))
    assert again.cosigned == before != newest
    assert f"fresh a {'7' * 32}" in again.news("b").checkpoint
    shown = next(note for note in federation.log.checkpoints() if note.encoded == newest)
    assert len(shown.signatures) == 1  # by the log alone
