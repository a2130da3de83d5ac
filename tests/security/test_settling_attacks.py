"""Members that would have the coordinator show the federation's log for ever: nobody waits longer than one deadline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.gate.errors import ApprovalError
from hansa.ledger import Abort, Gate, SignedEntry
from hansa.ledger.signed import statement_of
from hansa.protocol import Word, approved_reply
from hansa.protocol.exchange import witnessed_reply
from hansa.wire import Message
from hansa_server.journal import InMemoryJournal
from hansa_server.publication.approvals import Approvals
from support.federations import Between, Federation, honest, kinds
from support.gates import HOLDS
from support.leagues import frozen_league

NAMES, LIAR = "abcde", "e"
AGREEMENT, BUILT = frozen_league(
    members=[{"name": name, "units": 30} for name in NAMES], training={"rounds": 2}
)
DEADLINE = AGREEMENT.terms.training.deadline_s
Lie = Callable[[int], dict[str, Any]]


class Waits(Federation):
    """Time passes while members are waited for: whoever is slow answers just before the deadline."""

    now = 0.0
    slow = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.waited: list[tuple[set[str], float]] = []

    def clock(self) -> float:
        return self.now

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        replies = super().exchange(requests, deadline_s)
        took = 0.99 * deadline_s if self.slow and LIAR in requests else 0.0
        self.now += took
        self.waited.append((self.exchanges[-1], took))
        return replies

    def showings(self) -> list[list[float]]:
        """How long each exchange of each showing took, one after another without a sum in between."""
        groups = itertools.groupby(self.waited, key=lambda one: one[0] == {"witness"})
        return [[seconds for _, seconds in group] for witness, group in groups if witness]


def nonces(number: int) -> dict[str, Any]:
    """Another process each time, whose mirror has one entry more than the last one had."""
    return {"nonce": f"{number:032x}", "mirrored": number}


def unmirrored(number: int) -> dict[str, Any]:
    """Another process each time, and a mirror that was lost each other time."""
    return {"nonce": f"{number:032x}", "mirrored": 5 * (number % 2)}


def false_cosignatures(number: int) -> dict[str, Any]:
    """Another process each time, in a word that is not taken to its end."""
    return {"nonce": f"{number:032x}", "cosignature": "none"}


class Lies:
    """A member that answers as it must, but for what it says of logs."""

    def __init__(self, lie: Lie) -> None:
        self._lie, self._numbers = lie, itertools.count()

    def __call__(self, name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        reply = answer(request)
        log = reply.body.get("log")
        if name != LIAR or not isinstance(log, dict):
            return reply
        body = {**reply.body, "log": {**log, **self._lie(next(self._numbers))}}
        return Message(reply.kind, body, reply.arrays)


class SaysMore:
    """A member that has something new to say, under its own signature, whenever it is shown the log."""

    def __init__(self) -> None:
        self.federation: Federation | None = None
        self._numbers = itertools.count(1000)

    def __call__(self, name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name != LIAR or request.kind != "witness" or self.federation is None:
            return answer(request)
        number = next(self._numbers)
        entry = Abort(
            at="2026-01-01T00:00:00Z", agreement_id=AGREEMENT.agreement_id, run="other", party=LIAR,
            round=number, manifest_sha256=None, code="none", missing=(),
        )  # fmt: skip
        signed = SignedEntry.sign(entry, self.federation.keys.signer(LIAR))
        return witnessed_reply(request, Word(number % 1000, (signed.encoded,)))


def league(between: Between, **more: Any) -> Waits:
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
    return Waits(AGREEMENT, BUILT.initial_vector(), updates, between, **more)


@pytest.mark.parametrize("lie", [nonces, unmirrored, false_cosignatures])
def test_a_member_that_starts_anew_with_each_answer_costs_a_round_one_deadline_at_most(lie: Lie) -> None:
    lying = league(Lies(lie))
    lying.slow = True
    outcome = lying.run(house=replace(lying.house, clock=lying.clock))
    assert outcome.stopped_because is None
    assert [set(one.present) - {LIAR} for one in outcome.rounds] == [set("abcd")] * 2
    *before_manifests, _at_the_end = lying.showings()
    assert before_manifests  # it was shown to it
    for showing in before_manifests:
        assert sum(showing) <= DEADLINE
        assert len(showing) <= 4


def test_who_has_more_to_say_whenever_it_is_shown_the_log_waits_with_it_for_the_next_round() -> None:
    says = SaysMore()
    federation = league(says)

    def restarts_late(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == "c" and "secagg.unmask-request" in kinds(request) and not restarted:
            restarted.append(name)
            federation.restart("c")
            answer = federation.nodes["c"].handle
        return says(name, request, answer)

    restarted: list[str] = []
    federation.between, says.federation, federation.slow = restarts_late, federation, True
    outcome = federation.run(house=replace(federation.house, clock=federation.clock))
    assert restarted
    assert outcome.stopped_because is None
    assert [set(one.present) - {LIAR} for one in outcome.rounds] == [set("abcd")] * 2  # c was shown it
    before, _at_the_end = federation.showings()
    assert len(before) <= 3
    assert sum(before) <= DEADLINE


class TestBeforeAGate:
    """A gate and a publication rest on a log that is cosigned as a whole."""

    def approvals(self, federation: Waits) -> Approvals:
        house = federation.house
        assert federation.run(house=house).stopped_because is None
        assert house.history is not None
        federation.waited.clear()
        federation.slow = True
        house.history.abort("other", 1, "none", ())  # something that is not cosigned yet
        return Approvals(AGREEMENT, "r", federation, InMemoryJournal(), house.history, clock=federation.clock)

    def test_who_has_more_to_say_whenever_it_is_shown_the_log_keeps_nobody_from_publishing(self) -> None:
        says = SaysMore()
        federation = league(says)
        approvals = self.approvals(federation)
        says.federation = federation
        approvals.shown()
        assert approvals.history.covered
        (showing,) = federation.showings()
        assert len(showing) <= 3
        assert sum(showing) <= DEADLINE

    def test_who_was_away_when_an_approval_was_asked_for_is_asked_again_by_a_run_that_is_called_again(
        self,
    ) -> None:
        federation = league(honest)
        approvals, away = self.approvals(federation), set("cde")
        gate = Gate(
            at="2026-01-01T00:00:00Z", agreement_id=AGREEMENT.agreement_id, run="r", artifact_sha256="0" * 64,
            evaluation_sha256="0" * 64, conditions=(HOLDS,), decision="open",
        )  # fmt: skip

        def approves(name: str, request: Message, _: Callable[[Message], Message]) -> Message | None:
            signed = statement_of(gate, federation.keys.signer(name))
            return None if name in away else approved_reply(request, signed.signature)

        federation.between = approves
        with pytest.raises(ApprovalError, match="2 members approve"):
            approvals.of(gate, {}, approvals.history.sign(gate))
        away.clear()
        for _ in range(2):  # what is enough is kept
            signed = approvals.of(gate, {}, approvals.history.sign(gate))
            assert {one.signer for one in signed.statements} == {*NAMES, "coordinator"}
        assert [kind for kind, _ in federation.waited] == [{"approve"}] * 2

    def test_who_was_away_when_the_log_was_shown_is_shown_it_by_a_run_that_is_called_again(self) -> None:
        federation = league(honest)
        approvals = self.approvals(federation)
        federation.between = lambda name, request, answer: None if name in "de" else answer(request)
        with pytest.raises(ApprovalError, match="too few members have cosigned"):
            approvals.shown()
        federation.between = honest
        approvals.shown()
        assert approvals.history.covered
