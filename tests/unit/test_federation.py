"""A whole run over members made of functions: what is summed, who may be missing, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.errors import EngineError, WireError
from hansa.privacy.randomness import PublicSampling
from hansa.protocol import PolicyCode, public_weights
from hansa.server_step import initial_state, published_weights, step
from hansa.wire import Message
from hansa_client.node import Node
from hansa_client.state import MemoryStore
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal
from support.leagues import DoesNothing, frozen_league

PLAIN, BUILT = frozen_league(privacy={"mechanism": "none", "epsilon": None, "delta": None})
D = BUILT.flat.size
START = BUILT.initial_vector()

UPDATES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "a": lambda w: np.full_like(w, 0.5),
    "b": lambda w: 0.1 * (1 - w),
    "c": lambda w: -0.2 * w - 0.1,
}


class Direct:
    """Members that are called, with a place to interfere."""

    def __init__(
        self, agreement: Agreement, between: Callable[[str, Message, Message], Message | None] | None = None
    ) -> None:
        self.nodes = {
            name: Node(
                agreement, name, DoesNothing(update), None, MemoryStore(), lambda r, n: PublicSampling(0)
            )
            for name, update in UPDATES.items()
        }
        self.between = between or (lambda name, request, reply: reply)
        self.exchanges: list[str] = []

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        self.exchanges.append(next(iter(requests.values())).kind)
        replies = {
            name: self.between(name, request, self.nodes[name].handle(request))
            for name, request in requests.items()
        }
        return {name: reply for name, reply in replies.items() if reply is not None}


def run(agreement: Agreement, members: Direct, **more: object) -> Outcome:
    return run_federation(agreement, START, members, InMemoryJournal(), run="r", **more)  # type: ignore[arg-type]


def expected(agreement: Agreement, present: Callable[[int], set[str]]) -> np.ndarray:
    weights = public_weights(agreement.terms)
    rule, training = agreement.terms.training.server, agreement.terms.training
    state = initial_state(rule, START, average_tail=training.average_tail, rounds=training.rounds)
    for number in range(1, training.rounds + 1):
        here = present(number)
        total = sum(weights[n] * UPDATES[n](state.weights) for n in here)
        state = step(rule, state, total / sum(weights[n] for n in here))
    return published_weights(state)


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_a_run_is_the_weighted_mean_and_the_server_rule(rule: str) -> None:
    agreement, _ = frozen_league(
        privacy={"mechanism": "none", "epsilon": None, "delta": None},
        training={"server": {"rule": rule, "tau": 0.1}, "average_tail": 0.5},
    )
    outcome = run(agreement, Direct(agreement))
    assert outcome.stopped_because is None
    assert [r.number for r in outcome.rounds] == [1, 2, 3, 4]
    assert np.allclose(published_weights(outcome.state), expected(agreement, lambda n: set("abc")), atol=1e-5)


def four_members() -> Agreement:
    """With a fourth member that never answers, three remain: enough."""
    members = [{"name": n, "units": u} for n, u in (("a", 60), ("b", 40), ("c", 20), ("d", 10))]
    return frozen_league(members=members, privacy={"mechanism": "none", "epsilon": None, "delta": None})[0]


class WithSilent(Direct):
    """As `Direct`, and member d is silent."""

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        return super().exchange({n: r for n, r in requests.items() if n in self.nodes}, deadline_s)


def test_the_run_goes_on_without_a_silent_member() -> None:
    agreement = four_members()
    outcome = run(agreement, WithSilent(agreement))
    assert outcome.stopped_because is None
    assert all(r.absent == {"d": PolicyCode.ABSENT} and r.present == ("a", "b", "c") for r in outcome.rounds)
    assert np.allclose(published_weights(outcome.state), expected(agreement, lambda n: set("abc")), atol=1e-5)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (None, PolicyCode.ABSENT),
        (
            Message(
                "update", {"agreement_id": "x", "run": "r", "round": 1}, {"update": np.zeros(D, dtype="<u4")}
            ),
            PolicyCode.MESSAGE,
        ),
        (Message("gossip", {}), PolicyCode.MESSAGE),
    ],
)
def test_too_few_members_end_the_run_and_are_named(reply: Message | None, told: PolicyCode) -> None:
    members = Direct(
        PLAIN, lambda name, request, honest: reply if (name, request.body["round"]) == ("b", 2) else honest
    )
    outcome = run(PLAIN, members)
    assert (len(outcome.rounds), outcome.state.round, outcome.stopped_by) == (2, 1, "rule")
    assert outcome.rounds[-1].absent == {"b": told}
    assert outcome.stopped_because is not None
    assert f"b ({told.value})" in outcome.stopped_because
    assert "2 members of at least 3" in outcome.stopped_because
    assert members.exchanges == ["train", "train", "close"]


def test_an_update_of_the_wrong_length_is_an_absence() -> None:
    def shorter(name: str, request: Message, reply: Message) -> Message:
        if name == "a" and reply.kind == "update":
            return Message("update", reply.body, {"update": np.zeros(D - 1, dtype="<u4")})
        return reply

    outcome = run(PLAIN, Direct(PLAIN, shorter))
    assert outcome.stopped_because is not None
    assert "a (message-malformed)" in outcome.stopped_because


def test_a_person_may_stop_a_run_and_keep_what_was_done() -> None:
    def stops(outcome: Outcome) -> None:
        if len(outcome.rounds) == 2:
            raise KeyboardInterrupt

    members = Direct(PLAIN)
    outcome = run(PLAIN, members, after_round=stops)
    assert len(outcome.rounds) == 2
    assert outcome.stopped_because == "stopped by a person after round 2"
    assert outcome.stopped_by == "person"
    assert outcome.state.round == 2
    assert members.exchanges[-1] == "close"


def test_calling_again_with_the_same_journal_repeats_no_exchange() -> None:
    journal, members = InMemoryJournal(), Direct(PLAIN)
    first = run_federation(PLAIN, START, members, journal, run="r")
    asked = len(members.exchanges)
    second = run_federation(PLAIN, START, members, journal, run="r")
    assert len(members.exchanges) == asked == 5
    assert second.state.digest() == first.state.digest()


def test_a_broken_exchange_can_be_resumed() -> None:
    class BreaksOnce(Direct):
        broken = False

        def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
            if len(self.exchanges) == 2 and not self.broken:
                self.broken = True
                raise EngineError("the carrier failed")
            return super().exchange(requests, deadline_s)

    journal, members = InMemoryJournal(), BreaksOnce(PLAIN)
    with pytest.raises(EngineError):
        run_federation(PLAIN, START, members, journal, run="r")
    resumed = run_federation(PLAIN, START, members, journal, run="r")
    assert resumed.state.digest() == run(PLAIN, Direct(PLAIN)).state.digest()
    assert all(node._training.calls == 4 for node in members.nodes.values())  # type: ignore[attr-defined]  # nothing redone


def test_a_run_starts_from_model_zero_only() -> None:
    with pytest.raises(WireError, match="model 0"):
        run_federation(PLAIN, START + 1, Direct(PLAIN), InMemoryJournal(), run="r")


def test_a_vector_outside_the_encoding_ends_the_run_and_keeps_what_was_done() -> None:
    def cheats(name: str, request: Message, reply: Message) -> Message:
        if reply.kind == "update" and request.body["round"] == 3:
            return Message("update", reply.body, {"update": np.full(D, 2**31 - 1, dtype="<u4")})
        return reply

    members = Direct(PLAIN, cheats)
    outcome = run(PLAIN, members)
    assert outcome.stopped_because == f"{D} of {D} coordinates of a sum are out of range"
    assert (outcome.stopped_by, outcome.state.round) == ("rule", 2)
    assert members.exchanges[-1] == "close"


def test_a_journal_forgets_the_oldest_first() -> None:
    journal = InMemoryJournal(keep=2)
    for key in "abc":
        assert journal.once(key, lambda key=key: key * 2) == key * 2  # type: ignore[misc]
    assert journal.once("c", lambda: "new") == "cc"
    assert journal.once("a", lambda: "new") == "new"


def test_an_effect_that_raises_is_not_kept() -> None:
    journal = InMemoryJournal()
    with pytest.raises(ValueError, match="once"):
        journal.once("k", lambda: (_ for _ in ()).throw(ValueError("once")))
    assert journal.once("k", lambda: 1) == 1
