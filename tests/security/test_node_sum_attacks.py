"""Attacks on a member through the one door that a real coordinator has: `Node.handle`.

The machine's own attack tests are in `test_secagg_*`; these show that nothing around it opens a second road.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hansa.identity import COORDINATOR, Signer, Statement
from hansa.identity.statement import pack
from hansa.protocol import PolicyCode, public_weights, sum_request, sum_terms, train_request, update_encoding
from hansa.secagg import Coordinator, MemoryStore
from hansa.secagg import messages as m
from hansa.secagg.bundle import bundle
from hansa.secagg.errors import QuorumError
from hansa.wire import Message, array_sha256
from hansa_client.node import budget_book
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
    """

    def __init__(self, league: Federation, run: str = "r") -> None:
        self.league, self.run = league, run
        self.signer = league.identities.signer(COORDINATOR)
        self.terms = sum_terms(league.agreement, league.identities.roster)
        self.machine = Coordinator(self.terms, run, self.signer, spool=MemoryStore())
        self.number = 0
        self.replies: dict[str, Message] = {}

    def ask(self, name: str, request: Message) -> Message:
        """Through the door, over the wire and back."""
        self.number += 1
        message = sum_request(self.league.agreement, self.run, self.number, request)
        return over_the_wire(self.league.nodes[name].handle(over_the_wire(message)))

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
        return self.machine.begin("update", step, model or array_sha256(START))

    def codes(self, name: str) -> set[str]:
        """What a member's last reply refuses, by error code."""
        return {part.text("code") for part in parts(self.replies[name]) if part.kind == "secagg.refusal"}


def league(agreement: object = AGREEMENT, **more: object) -> Federation:
    updates = {name: lambda w: np.full_like(w, 0.1) for name in "abcde"}
    return Federation(agreement, START, updates, **more)  # type: ignore[arg-type]


def spent(attacked: Federation, name: str) -> int:
    return budget_book(AGREEMENT.terms.privacy, attacked.nodes[name].state()).released("r")


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
        **{**said.model_dump(exclude={"terms", "run", "round"}), "checkpoint": "another view"},
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
    assert (reply.kind, reply.text("code")) == ("refusal", PolicyCode.UNMASKED)
    assert attacker.league.trainings["a"].calls == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": {"epsilon": 500.0}},
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
    attacker.terms = sum_terms(weaker, attacked.identities.roster)
    attacker.machine = Coordinator(attacker.terms, "r", attacker.signer, spool=MemoryStore())
    for name, request in attacker.machine.requests().items():
        assert refused(attacker.ask(name, request)) == {"HANSA-718"}
    # nor does saying so openly help
    openly = sum_request(weaker, "r", 1, bundle([]))
    assert attacked.nodes["a"].handle(openly).text("code") == PolicyCode.AGREEMENT
    assert not any(store._data for store in attacked.stores.values())


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
        book = budget_book(agreement.terms.privacy, attacked.nodes["a"].state())
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
    store, put = attacked.stores["a"], attacked.stores["a"].put

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
    assert refused(attacker.ask("a", attacker.machine.requests()["a"])) == {"HANSA-717"}


def test_false_sums_that_a_member_is_shown_lead_to_no_training() -> None:
    """A crafted sum makes another model; the signed manifest must name it, and then the others do not follow."""
    from hansa.protocol import Aggregate

    attacked = league()
    attacker = Attacker(attacked).prepared()
    attacker.begin()
    forged = Aggregate(0, tuple("abcde"), np.full(D, 1000, dtype=np.int32))
    request = attacker.machine.requests()["a"]
    poisoned = sum_request(attacked.agreement, "r", 99, request, [forged])
    reply = attacked.nodes["a"].handle(over_the_wire(poisoned))
    assert refused(reply) == {"HANSA-505"}
    assert attacked.trainings["a"].calls == 0
    # it has gone back to model 0 by itself, and the honest request is answered
    honest = attacker.ask("a", request)
    assert "secagg.masked" in kinds(honest)
