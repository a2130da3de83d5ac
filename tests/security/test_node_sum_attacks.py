"""Attacks on a member through the one door that a real coordinator has: `Node.handle`.

The machine's own attack tests are in `test_secagg_*`; these show that nothing around it opens a second road.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hansa.errors import TrainingError
from hansa.identity import COORDINATOR, Signer, Statement
from hansa.identity.statement import pack
from hansa.ledger import SignedNote
from hansa.protocol import (
    Aggregate,
    Asked,
    Derivation,
    PolicyCode,
    close_request,
    public_weights,
    read_sum_reply,
    sum_request,
    sum_terms,
    update_encoding,
)
from hansa.secagg import Coordinator, MemoryStore, SumOutcome, follows, verify_sum
from hansa.secagg import messages as m
from hansa.secagg.bundle import bundle
from hansa.secagg.errors import QuorumError, SumVerificationError
from hansa.server_step import initial_state
from hansa.wire import Message, array_sha256
from hansa_client.node import MAX_RUNS
from hansa_client.summing import SumParty
from hansa_simulations.baseline import train_request
from hansa_simulations.identities import VERIFIER, Identities
from support.federations import Federation, kinds, over_the_wire, parts
from support.leagues import frozen_league

NO_PRIVACY = {"mechanism": "none", "epsilon": None, "delta": None}
MEMBERS = [{"name": name, "units": 40} for name in "abcde"]
AGREEMENT, BUILT = frozen_league(members=MEMBERS)
D, START = BUILT.flat.size, BUILT.initial_vector()


class Attacker:
    """A coordinator with the real keys that says whatever it likes, to each member something else.

    Attributes:
        league: real nodes.
        machine: the honest machine, to get as far as the attack.
        history: the federation's log, kept honestly.
    """

    def __init__(self, league: Federation, run: str = "r") -> None:
        self.league, self.run = league, run
        self.signer = league.keys.signer(COORDINATOR)
        self.terms = sum_terms(league.agreement, league.keys.roster)
        self.machine = Coordinator(self.terms, run, self.signer, spool=MemoryStore())
        self.history = league.house.history
        self.number = 0
        self.replies: dict[str, Message] = {}

    def message(self, name: str, request: Message, *aggregates: Aggregate) -> Message:
        """A request for one member, with news of the log."""
        self.number += 1
        news = None if self.history is None else self.history.news(name)
        asked = Asked(request, aggregates, news)
        return over_the_wire(sum_request(self.league.agreement, self.run, self.number, asked))

    def ask(self, name: str, request: Message, *aggregates: Aggregate) -> Message:
        """Through the door, over the wire and back."""
        message = self.message(name, request, *aggregates)
        reply = over_the_wire(self.league.nodes[name].handle(message))
        said = read_sum_reply(message, reply)
        if self.history is not None and not isinstance(said, PolicyCode):
            self.history.take(name, said.word)
        return reply

    def exchange(
        self, change: Callable[[str, Message], Message | None] = lambda name, request: request
    ) -> None:
        """One exchange of the honest machine, with changed requests."""
        for name, request in self.machine.requests().items():
            changed = change(name, request)
            if changed is None:
                continue
            self.replies[name] = self.ask(name, changed)
            self.machine.receive(name, bundle(parts(self.replies[name])))
        self.machine.close()

    def prepared(self) -> Attacker:
        """Keys and shares are exchanged, so that a round can begin."""
        while not self.machine.ready:
            self.exchange()
        return self

    def begin(self, model: str = "", step: int = 0) -> int:
        """An honest manifest, unless told otherwise."""
        checkpoint = "" if self.history is None else self.history.cosigned
        return self.machine.begin("update", step, model or array_sha256(START), checkpoint)

    def codes(self, name: str) -> set[str]:
        """What a member's last reply refuses, by error code."""
        return {part.text("code") for part in parts(self.replies[name]) if part.kind == "secagg.refusal"}


def league(agreement: object = AGREEMENT, **more: object) -> Federation:
    updates = {name: lambda w: np.full_like(w, 0.1) for name in "abcde"}
    return Federation(agreement, START, updates, **more)  # type: ignore[arg-type]


def spent(attacked: Federation, name: str) -> int:
    return attacked.book(name).released("r")


def test_model_inconsistency_a_model_that_does_not_follow_is_refused_and_costs_nothing() -> None:
    attacker = Attacker(league()).prepared()
    attacker.begin(model="ab" * 32)
    with pytest.raises(QuorumError):
        attacker.exchange()
    assert all(attacker.codes(name) == {"HANSA-505"} for name in "abcde")
    assert all(spent(attacker.league, name) == 0 for name in "abcde")
    assert all(training.calls == 0 for training in attacker.league.trainings.values())


def test_model_inconsistency_two_manifests_for_two_halves_give_no_confirmation() -> None:
    """With two models of which both follow (one by a sum that half of them was never shown) masks do not cancel."""
    attacked = league()
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    (honest,) = {
        part.text("signed") for part in parts_of(attacker, "a") if part.kind == m.Manifest.purpose_name
    }
    said = m.Manifest.model_validate_json(Statement.parse(honest).data)
    context = m.Context(attacker.terms, "r")
    other = context.state(
        attacker.signer, m.Manifest, said.round,
        **{**said.model_dump(exclude={"terms", "run", "round"}), "checkpoint": another_view(said.checkpoint)},
    )[1]  # fmt: skip
    forged = Message(m.Manifest.purpose_name, {m.SIGNED: other.line})

    def half(name: str, request: Message) -> Message:
        return bundle([forged]) if name in "de" else request

    masked = {
        name: parts(attacker.ask(name, half(name, request)))
        for name, request in attacker.machine.requests().items()
    }
    kept = {name: next(p for p in got if p.kind == m.Masked.purpose_name) for name, got in masked.items()}
    ring = sum(part.array("y", "<u4", D).astype(np.uint64) for part in kept.values()).astype(np.uint32)
    encoding = update_encoding(attacked.agreement)
    plain = sum(
        encoding.encode(np.full(D, 0.1 * weight)).astype(np.uint64)
        for weight in public_weights(attacked.agreement.terms).values()
    ).astype(np.uint32)
    assert not np.array_equal(ring, plain)
    # no member signs survivors of which some masked under another manifest, so nothing is ever unmasked
    statements = {name: Statement.parse(part.text(m.SIGNED)) for name, part in kept.items()}
    for name, statement in statements.items():
        binding = m.Masked.model_validate_json(statement.data).binding
        survivors = context.write(
            attacker.signer,
            m.Survivors,
            said.round,
            {"masked": pack(statements.values())},
            binding=binding,
        )
        assert refused(attacker.ask(name, bundle([survivors]))) == {"HANSA-718"}
    # and each half alone is below the floor
    for half_of in ("abc", "de"):
        listed = {name: statements[name] for name in half_of}
        binding = m.Masked.model_validate_json(listed[half_of[0]].data).binding
        survivors = context.write(
            attacker.signer, m.Survivors, said.round, {"masked": pack(listed.values())}, binding=binding
        )
        assert refused(attacker.ask(half_of[0], bundle([survivors]))) == {"HANSA-719"}


def another_view(checkpoint: str) -> str:
    """The same checkpoint with one cosignature fewer: as good, and other bytes."""
    note = SignedNote.parse(checkpoint)
    return replace(note, signatures=note.signatures[:-1]).encoded


def parts_of(attacker: Attacker, name: str) -> list[Message]:
    """What the honest machine would send now."""
    from hansa.secagg.bundle import unbundle

    return unbundle(attacker.machine.requests()[name])


def refused(reply: Message) -> set[str]:
    """Codes of a reply's refusals."""
    return {part.text("code") for part in parts(reply) if part.kind == "secagg.refusal"}


def test_a_second_road_an_unmasked_update_is_refused_in_the_middle_of_a_round() -> None:
    attacker = Attacker(league()).prepared()
    attacker.begin()
    attacker.exchange()
    reply = attacker.league.nodes["a"].handle(train_request(AGREEMENT, "r", 1, START))
    assert (reply.kind, reply.text("code")) == ("refusal", PolicyCode.MESSAGE)
    assert attacker.league.trainings["a"].calls == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": {"epsilon": 50.0}},
        {"privacy": {"clipping_norm": 100.0}},
        {"privacy": NO_PRIVACY},
        {"secure_sum": {"threat_model": "honest-but-curious"}},
        {"training": {"learning_rate": 50.0}},
    ],
    ids=["weaker-noise", "other-clip", "no-noise", "trusting", "other-steps"],
)
def test_a_manifest_under_other_parameters_than_the_agreements_is_refused(changes: dict[str, object]) -> None:
    """All parameters are behind one hash that every statement names; another agreement has another."""
    weaker, _ = frozen_league(members=MEMBERS, **changes)
    attacked = league()
    attacker = Attacker(attacked)
    attacker.terms = sum_terms(weaker, attacked.keys.roster)
    attacker.machine = Coordinator(attacker.terms, "r", attacker.signer, spool=MemoryStore())
    for name, request in attacker.machine.requests().items():
        assert refused(attacker.ask(name, request)) == {"HANSA-718"}
    # nor does saying so openly help
    openly = sum_request(weaker, "r", 1, Asked(bundle([])))
    assert attacked.nodes["a"].handle(openly).text("code") == PolicyCode.AGREEMENT
    assert not any(store._data for store in attacked.states.values())


def test_a_coordinator_without_the_pinned_key_is_refused() -> None:
    attacked = league()
    attacker = Attacker(attacked)
    attacker.machine = Coordinator(attacker.terms, "r", Signer.generate(COORDINATOR), spool=MemoryStore())
    for name, request in attacker.machine.requests().items():
        assert refused(attacker.ask(name, request)) == {"HANSA-701"}


def test_differencing_by_retries_is_capped_by_the_agreement_and_by_the_member() -> None:
    """The same step again with somebody missing: each try is a new round, charged anew, and they are few."""
    for agreed, own, allowed in ((2, 10, 2), (5, 1, 1), (0, 10, 0)):
        agreement, _ = frozen_league(members=MEMBERS, secure_sum={"retries": agreed})
        attacked = league(agreement, max_retries=own)
        attacker = Attacker(attacked)
        for attempt in range(1 + allowed):
            attacker.prepared().begin()
            attacker.exchange(lambda name, request: None if name == "e" else request)
            attacker.machine.abandon()
            assert attacked.trainings["a"].calls == attempt + 1  # a fresh batch and fresh noise each time
        book = attacked.book("a")
        assert book.released("r") == (1 + allowed) * agreement.terms.local_steps
        attacker.prepared().begin()
        with pytest.raises(QuorumError):
            attacker.exchange(lambda name, request: None if name == "e" else request)
        assert attacker.codes("a") == {"HANSA-717"}
        assert attacked.trainings["a"].calls == 1 + allowed


def test_restart_under_the_same_keys_a_crash_while_masking_forfeits_the_round() -> None:
    """A member killed after its mask was taken never masks a second vector with it, and goes on with the next."""
    attacked = league()
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    store, put = attacked.states["a"], attacked.states["a"].put

    def dies(name: str, data: bytes | memoryview) -> None:
        if name.endswith(".y"):
            raise RuntimeError("killed before the vector was on disk")
        put(name, data)

    store.put = dies  # type: ignore[method-assign]
    requests = attacker.machine.requests()
    before = attacker.ask("a", requests["a"])
    assert before.kind == "refusal"  # the node's own log has the rest
    store.put = put  # type: ignore[method-assign]
    attacked.restart("a")
    again = attacker.ask("a", requests["a"])
    assert "HANSA-720" in refused(again)
    assert "secagg.masked" not in kinds(again)
    assert attacked.trainings["a"].calls == 1
    assert spent(attacked, "a") == AGREEMENT.terms.local_steps


def test_a_replayed_manifest_gets_the_same_bytes_also_after_a_restart() -> None:
    attacked = league()
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    request = attacker.machine.requests()["b"]
    first = parts(attacker.ask("b", request))
    attacked.restart("b")
    second = parts(attacker.ask("b", request))
    assert [part.header for part in first] == [part.header for part in second]
    assert attacked.trainings["b"].calls == 1


def test_a_run_name_used_again_after_closing_gets_nothing() -> None:
    attacked = league()
    attacked.run()
    attacked.restart("a")
    attacker = Attacker(attacked)
    assert parts(attacker.ask("a", attacker.machine.requests()["a"])) == []


def settled(attacker: Attacker) -> SumOutcome:
    """The round in hand, carried to its end by honest messages."""
    for _ in range(3):
        for name, request in attacker.machine.requests().items():
            reply = attacker.ask(name, request)
            attacker.machine.receive(name, bundle(parts(reply)))
        outcome = attacker.machine.close()
        if outcome is not None:
            return outcome
    raise AssertionError("three exchanges did not end the round")


def crafted(attacked: Federation, total: np.ndarray, verified: str = "") -> tuple[Aggregate, str]:
    """A sum of the coordinator's choice, and the hash of the model that would follow from it."""
    terms = attacked.agreement.terms.training
    state = initial_state(terms.server, START, average_tail=terms.average_tail, rounds=terms.rounds)
    aggregate = Aggregate(0, tuple("abcde"), total.astype(np.int32), verified)
    return aggregate, Derivation(attacked.agreement)(state, aggregate).message.array_hashes["weights"]


@pytest.mark.parametrize(
    "total",
    [np.full(D, 2**31 - 1), np.full(D, 1000), np.zeros(D)],
    ids=["beyond-the-range", "another-model", "the-same-model-again"],
)
@pytest.mark.parametrize("said_by", ["nobody", "the-coordinator", "an-auditor-of-another-sum"])
def test_a_false_aggregate_told_to_all_members_alike_is_followed_by_none(
    total: np.ndarray, said_by: str
) -> None:
    """The same lie to everyone, with a manifest that fits it: also the way to sum one model twice without a retry."""
    attacked = league()
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    first = settled(attacker)
    signer = {"the-coordinator": COORDINATOR}.get(said_by, VERIFIER)
    digest = (
        first.record.aggregate_sha256
        if said_by.startswith("an-auditor")
        else array_sha256(total.astype("<i4"))
    )
    context = m.Context(attacker.terms, "r")
    statement = context.state(attacked.keys.signer(signer), m.Verified, first.round, aggregate_sha256=digest)[
        1
    ]
    lie, model = crafted(attacked, total, "" if said_by == "nobody" else statement.line)
    number, manifest, _ = attacker.machine._previous
    attacker.machine._previous = number, manifest, lie.sha256
    assert attacker.history is not None
    attacker.machine.begin("update", 1, model, attacker.history.cosigned)
    for name, request in attacker.machine.requests().items():
        reply = attacker.ask(name, request, lie)
        assert "HANSA-505" in refused(reply)
        assert "secagg.masked" not in kinds(reply)
    assert all(training.calls == 1 for training in attacked.trainings.values())
    assert all(spent(attacked, name) == AGREEMENT.terms.local_steps for name in "abcde")


def test_a_false_aggregate_is_found_by_whoever_recomputes_the_rounds() -> None:
    """Where no auditor is asked before use, the lie is signed in the next manifest, and the next record shows it."""
    keys = Identities.ephemeral("abcde")
    attacked = league(identities=replace(keys, roster=replace(keys.roster, auditors={})))
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    first = settled(attacker)
    lie, model = crafted(attacked, np.full(D, 1000))
    number, manifest, _ = attacker.machine._previous
    attacker.machine._previous = number, manifest, lie.sha256
    assert attacker.history is not None
    attacker.machine.begin("update", 1, model, attacker.history.cosigned)
    for name, request in attacker.machine.requests().items():
        reply = attacker.ask(name, request, lie)
        attacker.machine.receive(name, bundle(parts(reply)))
    attacker.machine.close()
    second = settled(attacker)
    # each round by itself is sound …
    for outcome in (first, second):
        verify_sum(attacker.terms, outcome.record, partial(attacker.machine.masked, outcome.round))
    follows(first.record, None)
    # … and the second does not follow from the first
    with pytest.raises(SumVerificationError, match="another sum"):
        follows(second.record, first.record)
    # naming no sum at all is refused by the members themselves
    attacker.machine._previous = second.round, second.record.manifest and attacker.machine._previous[1], None
    attacker.prepared().machine.begin("update", 2, "ab" * 32)
    with pytest.raises(QuorumError):
        attacker.exchange()


def test_two_requests_at_once_are_worked_on_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a node that has just started would build its machine twice over one store, and mask twice with one key."""
    noise = np.random.default_rng(0)
    attacked = league()
    attacked.updates = {name: lambda w: noise.normal(0, 0.05, w.shape) for name in "abcde"}
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    request = attacker.machine.requests()["a"]
    attacked.nodes["a"]._parties.clear()  # as in a process that has just started over the same stores
    attacked.trainings["a"]._update = lambda w: (time.sleep(0.05), noise.normal(0, 0.05, w.shape))[1]

    built: list[SumParty] = []

    def slowly(*arguments: object) -> SumParty:
        party = SumParty(*arguments)  # type: ignore[arg-type]
        built.append(party)
        time.sleep(0.05)  # as long as it may take: every thread that comes meanwhile finds none
        return party

    monkeypatch.setattr("hansa_client.node.SumParty", slowly)
    asked = [attacker.message("a", request) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(attacked.nodes["a"].handle, asked))
    vectors = {
        part.header for reply in replies for part in parts(reply) if part.kind == m.Masked.purpose_name
    }
    assert len(built) == len(vectors) == 1
    assert attacked.trainings["a"].calls == 1
    assert spent(attacked, "a") == AGREEMENT.terms.local_steps


def test_a_round_and_its_retry_are_never_both_signed() -> None:
    """Else the difference of the two sums is the vector of whoever missed the second."""
    agreement, _ = frozen_league(members=MEMBERS, secure_sum={"retries": 1})
    attacked = league(agreement, max_retries=5)
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    attacker.exchange()
    first = attacker.machine._current
    assert first is not None
    attacker.machine._current, attacker.machine._preparing = None, True
    attacker.prepared().begin()
    attacker.exchange(lambda name, request: None if name == "e" else request)
    for name, messages in first.requests().items():
        reply = attacker.ask(name, bundle(messages))
        if name != "e":
            assert "HANSA-715" in refused(reply)
            assert "secagg.confirm" not in kinds(reply)
    assert settled(attacker).survivors == tuple("abcd")
    state = attacked.nodes["a"]._parties["r"]._machine._state
    assert (state.settled_round, state.settled_step) == (state.masked_round, 0)


def test_a_settled_step_stays_settled() -> None:
    """An older round that is asked about again does not open a later step once more."""
    agreement, _ = frozen_league(members=MEMBERS, secure_sum={"retries": 1})
    attacked = league(agreement, max_retries=5)
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    settled(attacker)
    machine = attacked.nodes["a"]._parties["r"]._machine
    before = machine._state.settled_step, machine._state.settled_round
    older = machine._state.rounds[machine._state.settled_round]
    asked = m.Survivors.model_construct(round=0)
    assert machine._settled(asked, older) == {}
    assert (machine._state.settled_step, machine._state.settled_round) == before


def test_a_lost_store_gets_no_second_training_of_a_round_that_is_on_record() -> None:
    attacked = league()
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    attacker.ask("a", attacker.machine.requests()["a"])
    assert attacked.trainings["a"].calls == 1
    attacked.states["a"]._data.clear()
    attacked.restart("a")
    again = Attacker(attacked)  # new keys, shares and manifest for round 1 of the same run
    for name in "bcde":
        attacked.states[name]._data.clear()
        attacked.restart(name)
    again.prepared().begin()
    reply = again.ask("a", again.machine.requests()["a"])
    assert "HANSA-401" in refused(reply)
    assert attacked.trainings["a"].calls == 1
    assert spent(attacked, "a") == AGREEMENT.terms.local_steps


def test_key_substitution_a_useless_key_costs_nobody_a_round() -> None:
    """A point of small order is refused when shares are dealt, by every member and not by the coordinator alone."""
    attacked = league()
    attacker = Attacker(attacked)
    for name, request in attacker.machine.requests().items():
        attacker.replies[name] = attacker.ask(name, request)
    context = m.Context(attacker.terms, "r")
    offers = {
        name: next(
            Statement.parse(part.text(m.SIGNED)) for part in parts(reply) if part.kind == m.Keys.purpose_name
        )
        for name, reply in attacker.replies.items()
    }
    said = m.Keys.model_validate_json(offers["e"].data)
    number = said.round
    useless = said.model_dump(exclude={"terms", "run", "round"}) | {"mask_key": "00" * 32}
    offers["e"] = context.state(attacked.keys.signer("e"), m.Keys, number, **useless)[1]
    asked = context.write(
        attacker.signer, m.SharesRequest, number, {"keys": pack(offers[name] for name in "abcde")}
    )
    for name in "abcd":
        assert refused(attacker.ask(name, bundle([asked]))) == {"HANSA-501"}
        assert attacked.trainings[name].calls == 0
        assert spent(attacked, name) == 0


def test_a_failed_contribution_is_not_made_again_for_the_same_round() -> None:
    attacked = league()

    def fails(weights: np.ndarray) -> np.ndarray:
        raise ValueError("patient 4711")

    attacked.trainings["a"]._update = fails
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    for _ in range(3):
        reply = attacker.ask("a", attacker.machine.requests()["a"])
        assert "secagg.masked" not in kinds(reply)
    assert attacked.trainings["a"].calls == 1


def test_a_run_that_was_broken_off_stays_so_after_a_restart() -> None:
    attacked = league()

    def moved(weights: np.ndarray) -> np.ndarray:
        raise TrainingError("a weight that is not trained was changed")

    attacked.trainings["a"]._update = moved
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    attacker.ask("a", attacker.machine.requests()["a"])
    attacked.restart("a")
    attacked.trainings["a"]._update = lambda w: np.full_like(w, 0.1)
    assert parts(attacker.ask("a", attacker.machine.requests()["a"])) == []
    assert attacked.trainings["a"].calls == 1


def test_invented_runs_leave_nothing_behind() -> None:
    attacked = league()
    node = attacked.nodes["a"]
    for i in range(20):
        stranger = Coordinator(
            Attacker(attacked).terms, f"run-{i}", Signer.generate(COORDINATOR), spool=MemoryStore()
        )
        assert refused(Attacker(attacked, f"run-{i}").ask("a", stranger.requests()["a"])) == {"HANSA-701"}
        assert node.handle(close_request(attacked.agreement, f"closed-{i}")).kind == "closed"
    assert len(node._parties) <= MAX_RUNS
    assert not attacked.states["a"]._data


def test_survivors_who_are_no_contributors_do_not_fill_up_a_sum() -> None:
    """Colluders outside U2 could otherwise pad the survivors to the floor around one victim."""
    attacked = league()
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    attacker.exchange()
    current = attacker.machine._current
    assert current is not None
    context = m.Context(attacker.terms, "r")
    statements = {name: current.answers[m.Masked][name][1] for name in "abcde"}
    record = attacked.nodes["a"]._parties["r"]._machine._state.rounds[current.number]
    narrowed = record.model_copy(update={"contributors": ("a", "b", "c", "d")})
    machine = attacked.nodes["a"]._parties["r"]._machine
    machine._state = machine._state.with_round(current.number, narrowed)
    asked = context.write(
        attacker.signer,
        m.Survivors,
        current.number,
        {"masked": pack(statements.values())},
        binding=current.binding,
    )
    assert refused(attacker.ask("a", bundle([asked]))) == {"HANSA-718"}
