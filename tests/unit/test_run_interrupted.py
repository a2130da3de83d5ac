"""What fails of the coordinator's own machine interrupts a run and never ends it: called again, it goes on where it stood."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from errno import ENOSPC
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hansa.cli.simulate import status_of
from hansa.errors import EngineError, ExitStatus, HansaError
from hansa.ledger import Log, MemoryLogStore, NoteSignature, SignedEntry
from hansa.ledger.errors import LogDamagedError, LogStoreError
from hansa.ledger.store import Head, Row
from hansa.secagg import MaskWorkers, MemoryStore
from hansa.secagg.errors import MaskWorkersError, QuorumError, StateError
from hansa.secagg.masks import MaskKey
from hansa.secagg.ring import RingVector
from hansa.server_step import ServerState
from hansa.wire import Message
from hansa_server.federation import Outcome
from hansa_server.journal import InMemoryJournal
from hansa_server.publication.publishing import Publisher
from hansa_server.summation import SecureSummation, SumHouse
from hansa_simulations.simulation import MemberData, simulate
from support.federations import Federation, kinds
from support.leagues import frozen_league, tables, terms_of

NAMES = "abcd"
AGREEMENT, BUILT = frozen_league(
    members=[{"name": name, "units": 30} for name in NAMES], training={"rounds": 2}
)


class Fails:
    """Fails at one of its calls, as a full disk does until somebody makes room."""

    def __init__(self, at: int, error: HansaError) -> None:
        self._left, self._error = at, error

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            raise self._error


class FailingLog(MemoryLogStore):
    """A log's store whose writes may fail."""

    def __init__(self, fails: Fails) -> None:
        super().__init__()
        self._fails = fails

    def append(self, before: Head, rows: Sequence[Row], root: bytes) -> None:
        self._fails()
        super().append(before, rows, root)

    def add_cosignatures(self, text: str, signatures: Iterable[NoteSignature]) -> None:
        self._fails()
        super().add_cosignatures(text, signatures)


class FailingSpool(MemoryStore):
    """A spool whose writes may fail."""

    def __init__(self, fails: Fails) -> None:
        super().__init__()
        self._fails = fails

    def put_together(self, items: Mapping[str, bytes | memoryview], forget: Sequence[str] = ()) -> None:
        if items:
            self._fails()
        super().put_together(items, forget)


class FailingWorkers(MaskWorkers):
    """Workers of which one is killed."""

    def __init__(self, fails: Fails) -> None:
        super().__init__()
        self._fails = fails

    def add_masks(self, vector: RingVector, plus: Sequence[MaskKey], minus: Sequence[MaskKey] = ()) -> None:
        self._fails()
        super().add_masks(vector, plus, minus)


def league() -> Federation:
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
    return Federation(AGREEMENT, BUILT.initial_vector(), updates)


def on(store: MemoryLogStore, federation: Federation) -> None:
    federation.log = Log(store, federation.federation_log)


@cache
def uninterrupted() -> str:
    """The state that the run leads to."""
    return league().run().state.digest()


def interrupted_and_resumed(
    federation: Federation, error: type[HansaError], house: Callable[[], SumHouse]
) -> Outcome:
    """A run that is interrupted once, and called again."""
    journal = InMemoryJournal()
    with pytest.raises(error):
        federation.run(journal, house=house())
    assert {"close"} not in federation.exchanges  # nobody was told that the run is over
    outcome = federation.run(journal, house=house())
    assert outcome.stopped_because is None
    assert outcome.state.digest() == uninterrupted()
    assert [one.present for one in outcome.rounds] == [tuple(NAMES)] * 2
    assert all(training.calls == 2 for training in federation.trainings.values())  # nothing redone
    return outcome


@pytest.mark.parametrize(
    ("at", "kind"),
    [(1, LogStoreError), (2, LogDamagedError), (5, LogStoreError), (6, LogDamagedError), (11, LogStoreError)],
)
def test_a_log_that_cannot_be_written_interrupts_a_run_which_goes_on_in_the_same_phase(
    at: int, kind: type[HansaError]
) -> None:
    federation, fails = league(), Fails(at, kind("database or disk is full"))
    on(FailingLog(fails), federation)
    interrupted_and_resumed(federation, kind, lambda: federation.house)
    entries = [SignedEntry.parse(data).entry.type for data in federation.log.entries()]
    assert (entries.count("release"), entries.count("aggregate"), entries.count("abort")) == (8, 2, 0)


def test_what_cannot_be_logged_of_a_round_that_failed_interrupts_it_too() -> None:
    """The abort is written once there is room; the round is over all the same, and with it the run."""

    class FullAtAborts(MemoryLogStore):
        full = True

        def append(self, before: Head, rows: Sequence[Row], root: bytes) -> None:
            if self.full and any(b'"party":"coordinator"' in row.data for row in rows):
                raise LogStoreError("database or disk is full")
            super().append(before, rows, root)

    def two_are_silent(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        return None if name in "cd" and "secagg.manifest" in kinds(request) else answer(request)

    federation, journal, store = league(), InMemoryJournal(), FullAtAborts()
    federation.between = two_are_silent
    on(store, federation)
    with pytest.raises(LogStoreError):
        federation.run(journal)
    assert {"close"} not in federation.exchanges
    store.full = False
    outcome = federation.run(journal)
    assert (outcome.state.round, outcome.stopped_by) == (0, "rule")
    entries = [SignedEntry.parse(data).entry for data in federation.log.entries()]
    assert [entry.writer for entry in entries if entry.type == "abort"] == ["coordinator"]


@pytest.mark.parametrize("at", [1, 2])
def test_a_mask_worker_that_is_killed_interrupts_a_run(at: int) -> None:
    workers = FailingWorkers(Fails(at, MaskWorkersError("a mask worker failed: BrokenProcessPool")))
    federation = league()
    interrupted_and_resumed(federation, MaskWorkersError, lambda: replace(federation.house, workers=workers))


@pytest.mark.parametrize("at", [1, 2])
def test_a_spool_that_is_full_is_no_word_of_the_member_whose_vector_it_cannot_take(at: int) -> None:
    spool = FailingSpool(Fails(at, StateError("cannot write: No space left on device")))
    federation = league()
    interrupted_and_resumed(federation, StateError, lambda: replace(federation.house, spool=spool))


class TestWhatFollowsTraining:
    """It is interrupted likewise, so that a publication is not lost for want of room."""

    def run(self, error: HansaError, *, resumable: bool = True) -> tuple[Federation, Callable[[], Outcome]]:
        federation, journal, fails = league(), InMemoryJournal(), Fails(1, error)
        house = federation.house
        return federation, lambda: federation.run(
            journal, house=house, conclude=lambda _: fails(), resumable=resumable
        )

    @pytest.mark.parametrize("error", [EngineError("x"), LogStoreError("x"), MaskWorkersError("x")])
    def test_a_machine_that_fails_interrupts_it(self, error: HansaError) -> None:
        federation, run = self.run(error)
        with pytest.raises(type(error)):
            run()
        assert {"close"} not in federation.exchanges
        outcome = run()
        assert (outcome.stopped_because, outcome.not_concluded) == (None, None)

    def test_what_members_said_ends_it(self) -> None:
        outcome = self.run(QuorumError("too few"))[1]()
        assert (outcome.stopped_because, outcome.not_concluded) == (None, "too few")

    def test_a_package_that_the_disk_does_not_take_interrupts_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(ENOSPC, os.strerror(ENOSPC))

        federation = league()
        publisher = Publisher(federation.keys.signer("coordinator"), None, tmp_path / "publication")  # type: ignore[arg-type]
        monkeypatch.setattr(Publisher, "_write", full)
        with pytest.raises(EngineError, match="publication: No space left on device"):
            publisher.publish(None, None, None)  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []


class TestNobodyCallsAgain:
    """A simulation keeps no journal: what interrupts it ends it, and what was done is told and freed."""

    def test_it_ends_with_what_was_done_and_says_why(self) -> None:
        workers = FailingWorkers(Fails(2, MaskWorkersError("a mask worker failed")))
        federation = league()
        outcome = federation.run(house=replace(federation.house, workers=workers), resumable=False)
        assert (outcome.state.round, outcome.stopped_by) == (1, "machine")
        assert outcome.stopped_because == "a mask worker failed"
        assert {"close"} in federation.exchanges  # members free what they had reserved

    def test_what_fails_after_training_is_told(self) -> None:
        federation, run = TestWhatFollowsTraining().run(LogStoreError("full"), resumable=False)
        assert (run().not_concluded, federation.exchanges.count({"close"})) == ("full", 1)

    def test_a_carrier_that_is_gone_cannot_tell_members_that_the_run_is_over(self) -> None:
        class Gone(Federation):
            def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
                if len(self.exchanges) == 8:
                    raise EngineError("the carrier failed")
                return super().exchange(requests, deadline_s)

        updates = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
        outcome = Gone(AGREEMENT, BUILT.initial_vector(), updates).run(resumable=False)
        assert (outcome.stopped_by, outcome.stopped_because) == ("machine", "the carrier failed")

    def test_a_simulation_tells_it_in_a_partial_report(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def followed(summation: SecureSummation, state: ServerState) -> None:
            if state.round == 2:
                raise MaskWorkersError("a mask worker failed")
            real(summation, state)

        real = SecureSummation.followed
        monkeypatch.setattr(SecureSummation, "followed", followed)
        privacy = {"mechanism": "none", "epsilon": None, "delta": None}
        members = {name: MemberData(held, held) for name, held in tables().items()}
        report = simulate(terms_of(privacy=privacy), members=members)
        assert (report.status, report.stopped_by, report.rounds) == ("partial", "machine", 2)
        assert report.stopped_because == "a mask worker failed"
        assert status_of(report) is ExitStatus.FAILED
        assert status_of(report.model_copy(update={"stopped_by": "rule"})) is ExitStatus.REFUSED
