"""A member's process that starts again must be shown a newer log first; no round is lost for it, to anybody."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.ledger import Log, SignedEntry, officer_of, utc
from hansa.ledger.budgets import granted
from hansa.privacy.composition import Adding
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant, Limit, new_dataset_id
from hansa.protocol import Word
from hansa.wire import Message
from hansa_client.ledger import MemberLedger, Software
from hansa_server.history import History
from hansa_simulations.identities import Identities
from hansa_simulations.ledgers import MemberStores
from hansa_simulations.seat import history_of
from support.federations import Federation, honest, kinds
from support.leagues import frozen_league

HASH = "c3" * 32


def granted_for_two_runs(agreement: Agreement, name: str, identities: Identities) -> MemberStores:
    """A member's stores with a budget that two runs fit in."""
    stores, privacy = MemberStores(), agreement.terms.privacy
    assert privacy.delta is not None
    limit = Grant(new_dataset_id(), Limit(PrivacyLoss(100.0, privacy.delta), Adding(4)))
    said = {"member": name, "unit": privacy.unit, "max_records_per_unit": privacy.max_records_per_unit}
    entry = granted(limit, at=utc(datetime.now(UTC)), **said)  # type: ignore[arg-type]
    ledger = MemberLedger(
        Log(stores.log, identities.log_signer(name)),
        identities.signer(name),
        identities.officer_keys[name],
        Software({"hansa": "0"}, HASH),
    )
    ledger.grant(SignedEntry.sign(entry, identities.signer(officer_of(name))))
    return stores


def league(names: str, **more: object) -> Federation:
    members = [{"name": name, "units": 30} for name in names]
    agreement, built = frozen_league(members=members, training={"rounds": 2})
    identities = Identities.ephemeral(list(names))
    stores = {name: granted_for_two_runs(agreement, name, identities) for name in names}
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in names}
    return Federation(
        agreement, built.initial_vector(), updates, stores=stores, identities=identities, **more
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(("names", "away"), [("abc", ""), ("abcd", "d"), ("abcde", "e")])
def test_a_member_that_restarts_between_two_runs_costs_nobody_a_round(names: str, away: str) -> None:
    federation = league(names)
    for name in away:  # no more are there than it takes
        del federation.nodes[name]
    there = tuple(name for name in names if name not in away)
    assert federation.run(run="first").stopped_because is None
    federation.restart("c")
    outcome = federation.run(run="second")
    assert outcome.stopped_because is None
    assert [one.present for one in outcome.rounds] == [there] * 2
    assert [federation.entries(name).count("release") for name in there] == [4] * len(there)


def test_a_member_that_restarts_right_before_a_manifest_is_shown_the_log_first() -> None:
    """Its nonce comes with the last answer before the manifest: no exchange of the sum is left to gather in."""
    restarted: list[str] = []

    def between(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if name == "c" and "secagg.unmask-request" in kinds(request) and not restarted:
            restarted.append(name)
            federation.restart("c")
            answer = federation.nodes["c"].handle
        return honest(name, request, answer)

    federation = league("abc", between=between)
    outcome = federation.run()
    assert restarted == ["c"]
    assert outcome.stopped_because is None
    assert [one.present for one in outcome.rounds] == [("a", "b", "c")] * 2
    assert {"witness"} in federation.exchanges[:-1]  # once more than at the end


def test_a_league_that_nobody_leaves_needs_no_exchange_more() -> None:
    federation = league("abc")
    assert federation.run().stopped_because is None
    assert federation.exchanges.count({"witness"}) == 1  # at the end


def test_who_is_away_is_not_waited_for_again() -> None:
    """The nonce of a member that restarts is shown to those who answered last, and to nobody else."""
    asked: list[str] = []

    def between(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if request.kind == "witness":
            asked.append(name)
        if name == "d":
            return None
        if name == "c" and "secagg.unmask-request" in kinds(request) and not asked:
            federation.restart("c")
            answer = federation.nodes["c"].handle
        return honest(name, request, answer)

    federation = league("abcd", between=between)
    outcome = federation.run()
    assert outcome.stopped_because is None
    assert asked == [*"abc", *"abcd"]  # before the second manifest, and at the end


class TestWhoIsDue:
    @pytest.fixture
    def history(self) -> History:
        federation = league("abc")
        assert federation.run().stopped_because is None
        history = history_of(federation.log, federation.agreement, federation.keys)
        self.federation = federation
        self.cosigned(history)
        return history

    def cosigned(self, history: History) -> None:
        for name in "abc":
            signer = self.federation.keys.witness_signer(name)
            text = history.news(name).checkpoint.split("\n\n")[0] + "\n"
            nonce = history._nonces.get(name)
            history.take(name, Word(history.log.size, (), signer.sign(text, at=1_800_000_000).line, nonce))

    def test_everybody_until_a_nonce_is_cosigned_then_its_member_alone(self, history: History) -> None:
        assert history.settled
        assert not any(map(history.due, "abc"))
        history.take("c", Word(history.log.size, (), None, "5" * 32))
        assert not history.settled
        assert all(map(history.due, "abc"))
        self.cosigned(history)
        assert history.settled
        assert f"fresh c {'5' * 32}" in history.cosigned
        assert list(filter(history.due, "abc")) == ["c"]
        history.take("c", Word(history.log.size))
        assert not any(map(history.due, "abc"))

    def test_a_nonce_that_replaces_another_is_shown_to_all_again(self, history: History) -> None:
        for digit in "56":
            history.take("c", Word(history.log.size, (), None, digit * 32))
            assert all(map(history.due, "abc"))
            self.cosigned(history)
            assert history.settled


def test_a_member_that_restarts_while_the_log_is_shown_is_shown_it_once_more() -> None:
    restarted: list[str] = []

    def between(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        before, now = {"b": "", "c": "b"}.get(name), "".join(restarted)
        asked = {"b": "secagg.unmask-request", "c": "witness"}.get(name, "")
        if before == now and asked in kinds(request):
            restarted.append(name)
            federation.restart(name)
            answer = federation.nodes[name].handle
        return honest(name, request, answer)

    federation = league("abcd", between=between)
    outcome = federation.run()
    assert restarted == ["b", "c"]
    assert outcome.stopped_because is None
    assert [one.present for one in outcome.rounds] == [tuple("abcd")] * 2
    assert federation.exchanges[:-1].count({"witness"}) == 2
