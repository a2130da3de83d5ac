"""A whole run over members made of functions: what is summed, who may be missing, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.errors import EngineError, WireError
from hansa.identity import Statement
from hansa.privacy.randomness import PublicSampling
from hansa.protocol import PolicyCode, public_weights, update_encoding
from hansa.server_step import initial_state, published_weights, step
from hansa.wire import Message
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal
from hansa_server.summation import ASKED_AGAIN
from hansa_simulations.baseline import BaselineNode, PlainSummation
from hansa_simulations.baseline.state import MemoryStore as StateMemory
from support.federations import Federation, kinds, parts
from support.leagues import DoesNothing, frozen_league

NO_PRIVACY = {"mechanism": "none", "epsilon": None, "delta": None}
PLAIN, BUILT = frozen_league(privacy=NO_PRIVACY)
D = BUILT.flat.size
START = BUILT.initial_vector()

UPDATES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "a": lambda w: np.full_like(w, 0.5),
    "b": lambda w: 0.1 * (1 - w),
    "c": lambda w: -0.2 * w - 0.1,
}
FIVE = {**UPDATES, "d": lambda w: 0.05 * w + 0.02, "e": lambda w: np.full_like(w, -0.3)}
UNITS = {"a": 60, "b": 40, "c": 20, "d": 10, "e": 30}


def league(agreement: Agreement = PLAIN, **more: object) -> Federation:
    updates = {m.name: FIVE[m.name] for m in agreement.terms.members}
    return Federation(agreement, START, updates, **more)  # type: ignore[arg-type]


def of(names: str, **changes: object) -> Agreement:
    members = [{"name": name, "units": UNITS[name]} for name in names]
    return frozen_league(members=members, privacy=NO_PRIVACY, **changes)[0]


def expected(agreement: Agreement, present: Callable[[int], set[str]]) -> np.ndarray:
    weights = public_weights(agreement.terms)
    rule, training = agreement.terms.training.server, agreement.terms.training
    state = initial_state(rule, START, average_tail=training.average_tail, rounds=training.rounds)
    for number in range(1, training.rounds + 1):
        here = present(number)
        total = sum(weights[n] * FIVE[n](state.weights) for n in here)
        state = step(rule, state, total / sum(weights[n] for n in here))
    return published_weights(state)


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "adamw"])
def test_a_run_is_the_weighted_mean_and_the_server_rule(rule: str) -> None:
    agreement, _ = frozen_league(
        privacy=NO_PRIVACY, training={"server": {"rule": rule, "tau": 0.1}, "average_tail": 0.5}
    )
    outcome = league(agreement).run()
    assert outcome.stopped_because is None
    assert [r.number for r in outcome.rounds] == [1, 2, 3, 4]
    assert np.allclose(published_weights(outcome.state), expected(agreement, lambda n: set("abc")), atol=1e-5)


def test_the_decoded_sum_is_within_n_grid_steps_of_the_float_sum() -> None:
    federation = league(of("abcde"))
    seen: list[np.ndarray] = []
    outcome = federation.run(after_round=lambda outcome: seen.append(outcome.state.weights))
    encoding, weights = update_encoding(federation.agreement), public_weights(federation.agreement.terms)
    before = START
    for after in seen:
        exact = sum(weights[name] * FIVE[name](before) for name in "abcde")
        assert np.abs((after - before) - exact).max() <= len("abcde") / encoding.scale
        before = after
    assert outcome.rounds[-1].sum is not None
    assert outcome.rounds[-1].sum.verified_by == "simulation-verifier"


def test_a_steady_round_takes_three_exchanges_and_two_with_a_trusted_coordinator() -> None:
    first, steady = 3 + 3, 3
    federation = league()
    federation.run()
    assert len(federation.exchanges) == first + 3 * steady + 1  # and the closing
    trusted = league(frozen_league(privacy=NO_PRIVACY, secure_sum={"threat_model": "honest-but-curious"})[0])
    outcome = trusted.run()
    assert len(trusted.exchanges) == 2 + 2 + 3 * 2 + 1
    assert np.allclose(
        published_weights(outcome.state), expected(trusted.agreement, lambda n: set("abc")), atol=1e-5
    )


def test_the_last_round_prepares_no_other() -> None:
    federation = league()
    federation.run()
    assert federation.exchanges[-1] == {"close"}
    assert federation.exchanges[-2] == {"secagg.unmask-request"}


@pytest.mark.parametrize("phase", ["keys", "shares", "delivery", "masked", "confirm", "unmask"])
@pytest.mark.parametrize("victim", list("abcde"))
def test_killing_any_one_of_five_members_in_any_phase_still_ends_the_run(victim: str, phase: str) -> None:
    asked = {
        "keys": "secagg.keys-request", "shares": "secagg.shares-request", "delivery": "secagg.delivery",
        "masked": "secagg.manifest", "confirm": "secagg.survivors", "unmask": "secagg.unmask-request",
    }[phase]  # fmt: skip
    dead: set[str] = set()
    seen: list[int] = []

    def kills(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == victim and asked in kinds(request):
            seen.append(1)
            # the second time: in a steady round, while the next one is prepared in the same exchange
            if len(seen) == 2:
                dead.add(name)
        return None if name in dead else answer(request)

    federation = league(of("abcde"), between=kills)
    outcome = federation.run()
    assert dead == {victim}
    assert outcome.stopped_because is None
    assert outcome.state.round == 4
    present = {record.number: set(record.present) for record in outcome.rounds}
    assert present[4] == set("abcde") - {victim}
    assert np.allclose(
        published_weights(outcome.state), expected(federation.agreement, lambda n: present[n]), atol=1e-5
    )
    last = outcome.rounds[-1].sum
    assert last is not None
    assert set(last.dropped) == {victim}
    assert outcome.rounds[-1].absent == {victim: PolicyCode.ABSENT}
    first = next(r.sum.dropped for r in outcome.rounds if r.sum is not None and r.sum.dropped)
    # the next round's keys, shares and delivery travel with this one's manifest, confirmation and unmasking
    with_it = {"keys": "masked", "shares": "confirm", "delivery": "unmask"}
    assert first == {victim: with_it.get(phase, phase)}


def test_who_missed_a_round_contributes_to_the_next_with_the_model_it_missed() -> None:
    away = {"on": False}

    def misses(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == "b" and "secagg.manifest" in kinds(request):
            away["round"] = away.get("round", 0) + 1
            if away["round"] == 2:
                return None
        return answer(request)

    federation = league(of("abcde"), between=misses)
    outcome = federation.run()
    present = {record.number: set(record.present) for record in outcome.rounds}
    assert present == {1: set("abcde"), 2: set("acde"), 3: set("abcde"), 4: set("abcde")}
    assert outcome.rounds[1].sum is not None
    assert outcome.rounds[1].sum.dropped == {"b": "masked"}
    assert np.allclose(
        published_weights(outcome.state), expected(federation.agreement, lambda n: present[n]), atol=1e-5
    )


def test_a_member_that_starts_again_is_sent_every_sum_and_goes_on() -> None:
    """Its state between phases lies in its store; its model it derives anew."""
    federation = league(of("abcde"))
    turns: list[str] = []

    def restarts(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == "c":
            turns.append(name)
            if len(turns) == 8:  # in the middle of round 2
                federation.restart(name)
                return federation.nodes[name].handle(request)
        return answer(request)

    federation.between = restarts
    outcome = federation.run()
    assert outcome.stopped_because is None
    present = {record.number: set(record.present) for record in outcome.rounds}
    assert present[1] == present[4] == set("abcde")
    assert np.allclose(
        published_weights(outcome.state), expected(federation.agreement, lambda n: present[n]), atol=1e-5
    )


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (None, PolicyCode.ABSENT),
        (Message("summed", {"agreement_id": "x", "run": "r", "round": 1}), PolicyCode.MESSAGE),
        (Message("gossip", {}), PolicyCode.MESSAGE),
    ],
)
def test_too_few_members_end_the_run_and_are_named(reply: Message | None, told: PolicyCode) -> None:
    asked: list[str] = []

    def silenced(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == "b" and "secagg.manifest" in kinds(request):
            asked.append(name)
            if len(asked) > 1:
                return reply
        return answer(request)

    federation = league(between=silenced)
    outcome = federation.run()
    assert (len(outcome.rounds), outcome.state.round, outcome.stopped_by) == (2, 1, "rule")
    assert outcome.rounds[-1].absent["b"] == told
    assert outcome.stopped_because is not None
    assert f"b ({told.value})" in outcome.stopped_because
    assert "2 members of at least 3" in outcome.stopped_because
    assert len(asked) == 1 + 1 + ASKED_AGAIN
    assert federation.exchanges[-1] == {"close"}


def test_a_member_that_never_answers_is_named_before_anything_is_summed() -> None:
    outcome = league(between=lambda name, request, answer: None if name == "c" else answer(request)).run()
    assert (len(outcome.rounds), outcome.state.round) == (1, 0)
    assert outcome.stopped_because is not None
    assert "c (absent)" in outcome.stopped_because


def test_an_update_of_the_wrong_length_is_an_absence() -> None:
    """The member refuses its own vector, and from outside that looks like absence."""
    federation = Federation(PLAIN, START, {**UPDATES, "a": lambda w: np.zeros(len(w) - 1)})
    outcome = federation.run()
    assert outcome.stopped_because is not None
    assert "a (absent)" in outcome.stopped_because


def retrying(retries: int) -> Agreement:
    return of("abc", secure_sum={"retries": retries})


def failing_once(failing: int) -> Callable[[str, Message, Callable[[Message], Message]], Message | None]:
    """Member b misses the manifest of one of the secure sum's rounds, however often it is asked for it."""

    def between(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        return None if name == "b" and failing == manifest_round(request) else answer(request)

    return between


def manifest_round(request: Message) -> int | None:
    """The round whose manifest a request brings."""
    if "secagg.manifest" not in kinds(request):
        return None
    (manifest,) = (part for part in parts(request) if part.kind == "secagg.manifest")
    number: int = Statement.parse(manifest.text("signed")).value["round"]
    return number


def test_a_failed_round_is_summed_again_as_a_new_one_if_the_agreement_pays_for_it() -> None:
    federation = league(retrying(1), between=failing_once(2))
    outcome = federation.run()
    assert outcome.stopped_because is None
    assert [r.sum.rounds for r in outcome.rounds if r.sum is not None] == [(1,), (2, 3), (4,), (5,)]
    assert all(set(r.present) == set("abc") for r in outcome.rounds)
    assert federation.trainings["a"].calls == 5  # trained anew, not sent again
    assert np.allclose(
        published_weights(outcome.state), expected(federation.agreement, lambda n: set("abc")), atol=1e-5
    )


def test_without_retries_a_failed_round_ends_the_run() -> None:
    outcome = league(retrying(0), between=failing_once(2)).run()
    assert (outcome.stopped_by, outcome.state.round) == ("rule", 1)


def test_survivors_that_may_be_signed_are_asked_for_again_and_never_summed_again() -> None:
    asked: list[str] = []

    def silent_in_confirm(
        name: str, request: Message, answer: Callable[[Message], Message]
    ) -> Message | None:
        if name == "b" and "secagg.survivors" in kinds(request):
            asked.append(name)
            return None if len(asked) == 1 else answer(request)
        return answer(request)

    federation = league(retrying(1), between=silent_in_confirm)
    outcome = federation.run()
    assert outcome.stopped_because is None
    assert [r.sum.rounds for r in outcome.rounds if r.sum is not None] == [(1,), (2,), (3,), (4,)]
    dead = league(
        retrying(1),
        between=lambda name, request, answer: (
            None if name == "b" and "secagg.survivors" in kinds(request) else answer(request)
        ),
    )
    ended = dead.run()
    assert (ended.stopped_by, ended.state.round) == ("rule", 0)
    assert dead.trainings["a"].calls == 1


def test_a_person_may_stop_a_run_and_keep_what_was_done() -> None:
    def stops(outcome: object) -> None:
        if len(outcome.rounds) == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    federation = league()
    outcome = federation.run(after_round=stops)
    assert len(outcome.rounds) == 2
    assert outcome.stopped_because == "stopped by a person after round 2"
    assert outcome.stopped_by == "person"
    assert outcome.state.round == 2
    assert federation.exchanges[-1] == {"close"}


def test_calling_again_with_the_same_journal_repeats_no_exchange() -> None:
    journal, federation = InMemoryJournal(), league()
    first = federation.run(journal)
    asked = len(federation.exchanges)
    second = federation.run(journal)
    assert len(federation.exchanges) == asked
    assert second.state.digest() == first.state.digest()
    assert all(training.calls == 4 for training in federation.trainings.values())


@pytest.mark.parametrize("at", range(0, 15, 2))
def test_a_broken_exchange_is_resumed_in_the_same_phase(at: int) -> None:
    class BreaksOnce(Federation):
        broken = False

        def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
            if len(self.exchanges) == at and not self.broken:
                self.broken = True
                raise EngineError("the carrier failed")
            return super().exchange(requests, deadline_s)

    journal, federation = InMemoryJournal(), BreaksOnce(PLAIN, START, UPDATES)
    house = federation.house
    with pytest.raises(EngineError):
        federation.run(journal, house=house)
    resumed = federation.run(journal, house=house)
    assert resumed.state.digest() == league().run().state.digest()
    assert all(training.calls == 4 for training in federation.trainings.values())  # nothing redone


def test_a_run_starts_from_model_zero_only() -> None:
    federation = league()
    federation.start = START + 1
    with pytest.raises(WireError, match="model 0"):
        federation.run()


def test_a_sum_that_leaves_the_range_ends_the_run_and_keeps_what_was_done() -> None:
    """A member that masks what it likes can spoil a sum; that it did shows, and who did does not."""
    federation = league()
    # what a tampered client would do: integers as large as the ring, straight past the quantiser
    federation.nodes["c"]._update = lambda run, manifest, weights, adapted, seeds: (  # type: ignore[method-assign]
        np.full(D, 2**30 - 1 if manifest.step == 2 else 0, dtype=np.int64)
    )
    outcome = federation.run()
    assert outcome.stopped_because is not None
    assert "coordinates of a sum are out of range" in outcome.stopped_because
    assert (outcome.stopped_by, outcome.state.round) == ("rule", 2)
    assert federation.exchanges[-1] == {"close"}


class TestBaseline:
    """One member, no sum to hide in: the plain door, which is the simulator's."""

    AGREEMENT = frozen_league(baseline="pooled", members=[{"name": "a", "units": 120}], privacy=NO_PRIVACY)[0]

    def run(self, change: Callable[[Message], Message | None] = lambda reply: reply) -> Outcome:
        agreement, self.exchanges = self.AGREEMENT, list[str]()
        training = DoesNothing(UPDATES["a"])
        node = BaselineNode(agreement, "a", training, None, StateMemory(), lambda r, n: PublicSampling(0))
        case = self

        class One:
            def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
                case.exchanges.append(requests["a"].kind)
                reply = change(node.handle(requests["a"]))
                return {} if reply is None else {"a": reply}

        journal = InMemoryJournal()
        summation = PlainSummation(agreement, One(), journal, "r")
        return run_federation(agreement, START, One(), journal, run="r", summation=summation)

    def test_it_trains_as_it_is(self) -> None:
        outcome = self.run()
        assert outcome.stopped_because is None
        assert self.exchanges == ["train"] * 4 + ["close"]
        assert np.allclose(outcome.state.weights, START + 4 * 0.5)
        assert all(record.sum is None for record in outcome.rounds)

    def test_its_absence_ends_the_run(self) -> None:
        outcome = self.run(lambda reply: None)
        assert outcome.stopped_because is not None
        assert "a (absent)" in outcome.stopped_because
        assert self.run(lambda reply: Message("gossip", {})).rounds[0].absent == {"a": PolicyCode.MESSAGE}


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
