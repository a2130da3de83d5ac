"""Attacks on the federation's log while a run goes on: what members that train make of a coordinator that lies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hansa.ledger import Checkpoint, Log, MemoryLogStore, Release, SignedEntry, SignedNote
from hansa.protocol import News, Word
from hansa.wire import Message
from hansa_server.federation import Outcome
from hansa_server.history import History
from hansa_simulations.seat import history_of
from support.federations import Federation, kinds
from support.leagues import frozen_league

MEMBERS = [{"name": name, "units": 30} for name in "abcde"]
AGREEMENT, BUILT = frozen_league(members=MEMBERS)
START = BUILT.initial_vector()


def league(**more: object) -> Federation:
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in "abcde"}
    return Federation(AGREEMENT, START, updates, **more)  # type: ignore[arg-type]


def run_under(federation: Federation, lying: type[History]) -> tuple[Outcome, History]:
    """A run whose coordinator keeps the log its own way."""
    history = history_of(federation.log, AGREEMENT, federation.keys, lying)
    return federation.run(house=replace(federation.house, history=history)), history


def releases(federation: Federation, name: str) -> int:
    return federation.entries(name).count("release")


def test_an_honest_coordinators_log_shows_every_release() -> None:
    federation = league()
    outcome, history = run_under(federation, History)
    assert outcome.stopped_because is None
    for name in "abcde":
        assert releases(federation, name) == 4
        assert all(history.released(name, "r", number) is not None for number in range(1, 5))
    logged = [SignedEntry.parse(data).entry.type for data in federation.log.entries()]
    assert (logged.count("release"), logged.count("aggregate"), logged.count("abort")) == (20, 4, 0)


class DropsOneRelease(History):
    """Shows e a log of its own, in which a's releases are missing; the same key signs both."""

    def news(self, member: str) -> News:
        if member != "e":
            return super().news(member)
        told = Checkpoint.parse(SignedNote.parse(super().news(member).checkpoint).text)
        other = Log(MemoryLogStore(), self.log._signer)
        kept = [
            data
            for data in self.log.entries()
            if (entry := SignedEntry.parse(data).entry).type != "release" or entry.writer != "a"
        ]
        other.append(kept)
        start = min(self._mirrored.get(member, 0), other.size)
        return News(
            start, tuple(other.entries(start, other.size)), other.checkpoint(*told.extensions).encoded
        )


def test_a_forked_view_shown_to_one_member_gets_nothing_more_from_it() -> None:
    federation = league()
    outcome, _ = run_under(federation, DropsOneRelease)
    # up to the first missing release both are one history; then e has seen another than the manifests rest on
    assert ["e" in record.present for record in outcome.rounds] == [True, False, False, False]
    assert releases(federation, "e") == 1
    assert outcome.state.round == 4


class HidesOneMember(History):
    """Takes a's vectors and logs no word of a: who is put back to an old state would find nothing of what it released."""

    def take(self, member: str, word: Word, *, new: bool = True) -> bool:
        if member == "a":
            self.aside = getattr(self, "aside", {})
            for entry in (SignedEntry.parse(data).entry for data in word.entries):
                if isinstance(entry, Release):
                    self.aside[entry.run, entry.round] = entry.y_sha256
            word = replace(word, entries=())
        return super().take(member, word, new=new)

    def released(self, member: str, run: str, number: int) -> str | None:
        return self.aside.get((run, number)) if member == "a" else super().released(member, run, number)

    def shows(self, member: str, run: str, number: int, **said: str) -> bool:
        return member == "a" or super().shows(member, run, number, **said)


def test_no_sum_is_opened_that_holds_a_vector_whose_release_the_log_does_not_show() -> None:
    federation = league()
    outcome, history = run_under(federation, HidesOneMember)
    assert isinstance(history, HidesOneMember)
    assert history.aside  # the coordinator holds a's vector, and a's own log says so
    assert releases(federation, "a") >= 1
    assert outcome.state.round == 0
    assert outcome.stopped_by == "rule"
    types = [SignedEntry.parse(data).entry.type for data in federation.log.entries()]
    assert types.count("aggregate") == 0


def test_a_member_put_back_to_before_a_summed_round_is_told_of_it_by_those_who_helped_to_open_it() -> None:
    federation = league()
    backup = copy.deepcopy(federation.stores["a"]), copy.deepcopy(federation.states["a"])
    federation.run()
    assert releases(federation, "a") == 4
    federation.stores["a"], federation.states["a"] = backup
    federation.restart("a")
    again = federation.run(run="r2", house=federation.house)
    assert all("a" not in record.present for record in again.rounds)
    assert releases(federation, "a") == 0


def test_a_member_that_starts_again_between_vector_and_opening_still_knows_what_was_released() -> None:
    """It reads the last releases from its copy of the log, and helps to open the round."""
    federation = league()
    restarted: list[str] = []

    def between(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == "b" and "secagg.survivors" in kinds(request) and not restarted:
            answer(request)  # its reply is lost with the process
            restarted.append(name)
            federation.restart("b")
            return federation.nodes["b"].handle(request)
        return answer(request)

    federation.between = between
    outcome = federation.run()
    assert restarted
    assert outcome.state.round == 4
    assert all("b" in record.present for record in outcome.rounds[:1])
    mirror = federation.nodes["b"]._records._mirror  # type: ignore[attr-defined]
    shown = dict(mirror._latest)
    federation.restart("b")
    assert federation.nodes["b"]._records._mirror._latest == shown  # type: ignore[attr-defined]
    assert {name for _, name in shown} == set("abcde")


class NamesTooFewCosigners(History):
    """Lets manifests rest on checkpoints with one cosignature."""

    @property
    def cosigned(self) -> str:
        note = SignedNote.parse(super().cosigned)
        by_log = next(line for line in note.signatures if line.name == self.log.key.name)
        one = next(line for line in note.signatures if line.name != self.log.key.name)
        return SignedNote(note.text, (by_log, one)).encoded


class NamesAnOldCheckpoint(History):
    """Lets every manifest rest on the first checkpoint that enough had cosigned."""

    first = ""

    @property
    def cosigned(self) -> str:
        self.first = self.first or super().cosigned
        return self.first


@pytest.mark.parametrize(("lying", "rounds"), [(NamesTooFewCosigners, 0), (NamesAnOldCheckpoint, 1)])
def test_a_manifest_on_a_checkpoint_that_is_not_enough_gets_no_vector(
    lying: type[History], rounds: int
) -> None:
    federation = league()
    outcome, _ = run_under(federation, lying)
    assert outcome.state.round == rounds
    assert outcome.stopped_by == "rule"
    assert {name: releases(federation, name) for name in "abcde"} == dict.fromkeys("abcde", rounds)


class HidesARelease(History):
    """Says nothing of b's releases in the log, though its vectors are summed."""

    def take(self, member: str, word: Word, *, new: bool = True) -> bool:
        if member == "b":
            word = replace(
                word,
                entries=tuple(
                    data for data in word.entries if SignedEntry.parse(data).entry.type != "release"
                ),
            )
        return super().take(member, word, new=new)


def test_a_dropped_release_keeps_the_vector_out_and_the_member_out_of_later_rounds() -> None:
    federation = league()
    outcome, _ = run_under(federation, HidesARelease)
    assert all("b" not in record.present for record in outcome.rounds)
    assert releases(federation, "b") == 1  # it is charged, and waits in vain to see it shown
    assert outcome.state.round == 4


def test_a_member_restored_from_an_old_backup_refuses_to_go_on() -> None:
    federation = league()
    backups: list[MemoryLogStore] = []

    def restores(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == "c" and "secagg.manifest" in kinds(request):
            if releases(federation, "c") == 0 and not backups:
                backups.append(copy.deepcopy(federation.stores["c"].log))  # type: ignore[arg-type]
            elif releases(federation, "c") == 2:
                federation.stores["c"].log = backups[0]
                federation.restart("c")
                return federation.nodes["c"].handle(request)
        return answer(request)

    federation.between = restores
    outcome = federation.run()
    assert outcome.state.round == 4
    assert ["c" in record.present for record in outcome.rounds] == [True, True, False, False]
    assert releases(federation, "c") == 0  # nothing was added to the old copy
    shown = [SignedEntry.parse(data).entry for data in federation.log.entries()]
    assert sum(entry.type == "release" and entry.writer == "c" for entry in shown) == 2
