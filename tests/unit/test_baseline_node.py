"""The door of a baseline's one member: who gets an answer, what it says, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.errors import DataSourceError, PrivacyParameterError, TrainingError, WireError
from hansa.privacy.randomness import SecretRandomness
from hansa.protocol import (
    PolicyCode,
    close_request,
    hello_request,
    public_weights,
    read_hello,
    refusal,
    update_encoding,
)
from hansa.wire import Message
from hansa_client.training import TrainingPlan
from hansa_simulations.baseline import BaselineNode, budget_book, read_update, train_request
from hansa_simulations.baseline.state import FileStore, MemoryStore, NodeState, StateStore
from support.leagues import DoesNothing, frozen_league, table

ALONE = {"baseline": "local-only"}
AGREEMENT, BUILT = frozen_league(**ALONE)
D = BUILT.flat.size
START = np.zeros(D)


def node(
    update: Callable[[np.ndarray], np.ndarray] = lambda weights: weights + 0.25,
    store: StateStore | None = None,
    agreement: Agreement = AGREEMENT,
    member: str = "b",
) -> tuple[BaselineNode, DoesNothing]:
    training = DoesNothing(update)
    spend = TrainingPlan.of(agreement, member).spend()
    made = BaselineNode(
        agreement, member, training, spend, store or MemoryStore(), lambda run, number: SecretRandomness()
    )
    return made, training


def ask(number: int = 1, run: str = "r", weights: np.ndarray = START) -> Message:
    return train_request(AGREEMENT, run, number, weights)


def code(request: Message, reply: Message) -> object:
    return read_update(request, reply, D)


def test_an_update_is_weighted_encoded_and_charged() -> None:
    member, _ = node()
    request = ask()
    got = read_update(request, member.handle(request), D)
    assert not isinstance(got, PolicyCode)
    encoding, weight = update_encoding(AGREEMENT), public_weights(AGREEMENT.terms)["b"]
    decoded = encoding.to_units(encoding.decode(got, 1)) / weight
    assert np.abs(decoded - 0.25).max() <= 0.5 / encoding.scale / weight < 1e-6
    book = budget_book(AGREEMENT.terms.privacy, member.state())
    assert book.released("r") == AGREEMENT.terms.local_steps


def test_the_same_request_gets_the_same_bytes_and_is_paid_once() -> None:
    member, training = node()
    first, second = member.handle(ask()), member.handle(ask())
    assert first.header == second.header
    assert training.calls == 1
    assert budget_book(AGREEMENT.terms.privacy, member.state()).released("r") == 2


def test_a_round_is_answered_for_one_model_only() -> None:
    member, training = node()
    member.handle(ask(2))
    for request in (ask(2, weights=START + 1), ask(1)):
        assert code(request, member.handle(request)) is PolicyCode.ROUND
    assert training.calls == 1


def test_a_model_that_is_not_the_one_named_is_refused() -> None:
    member, training = node()
    honest = ask()
    forged = Message(honest.kind, honest.body, {"weights": START + 1})
    assert code(forged, member.handle(forged)) is PolicyCode.MODEL
    assert training.calls == 0
    assert member.state().last_round("r") == 0


def test_another_agreement_is_refused() -> None:
    other, _ = frozen_league(**ALONE, privacy={"epsilon": 6.0})
    member, _ = node()
    request = train_request(other, "r", 1, START)
    assert code(request, member.handle(request)) is PolicyCode.AGREEMENT


@pytest.mark.parametrize("weights", [np.zeros(D + 1), np.zeros((D, 1)), np.zeros(D, dtype="<f4")])
def test_a_malformed_model_is_refused_without_a_change_of_state(weights: np.ndarray) -> None:
    member, training = node()
    request = ask(weights=weights)
    assert code(request, member.handle(request)) is PolicyCode.MESSAGE
    assert (training.calls, member.state()) == (0, NodeState())


def test_an_unknown_request_is_refused() -> None:
    member, _ = node()
    request = Message("tell-me-everything", ask().body)
    assert code(request, member.handle(request)) is PolicyCode.MESSAGE


@pytest.mark.parametrize("missing", ["agreement_id", "run", "round"])
def test_a_request_about_nothing_cannot_be_answered(missing: str) -> None:
    member, _ = node()
    body = {key: value for key, value in ask().body.items() if key != missing}
    with pytest.raises(WireError):
        member.handle(Message("train", body, {"weights": START}))


def test_what_goes_wrong_inside_leaves_as_absence_and_stays_paid(caplog: pytest.LogCaptureFixture) -> None:
    def fails(weights: np.ndarray) -> np.ndarray:
        raise ValueError("patient 4711 has a blood pressure of 900")

    member, _ = node(fails)
    request = ask()
    reply = member.handle(request)
    assert code(request, reply) is PolicyCode.ABSENT
    assert b"patient" not in reply.header
    assert "4711" in caplog.text  # the member's own log
    assert budget_book(AGREEMENT.terms.privacy, member.state()).released("r") == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_a_number_leaves_as_absence(
    bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    member, _ = node(lambda weights: np.full_like(weights, bad))
    request = ask()
    reply = member.handle(request)
    assert code(request, reply) is PolicyCode.ABSENT
    assert reply == refusal(request, PolicyCode.ABSENT)  # what a member says that fails in any other way
    assert "NaN or infinities" in caplog.text  # the member's own log
    assert budget_book(AGREEMENT.terms.privacy, member.state()).released("r") == 2


def test_a_second_run_is_refused_once_the_budget_is_reserved() -> None:
    member, training = node()
    member.handle(ask(1, "first"))
    request = ask(1, "second")
    assert code(request, member.handle(request)) is PolicyCode.BUDGET
    assert training.calls == 1
    assert member.state().last_round("second") == 0


def test_more_rounds_than_agreed_are_refused() -> None:
    member, training = node()
    for number in range(1, 5):
        member.handle(ask(number))
    request = ask(5)
    assert code(request, member.handle(request)) is PolicyCode.BUDGET
    assert training.calls == 4


def test_closing_frees_the_unused_rest() -> None:
    member, _ = node()
    member.handle(ask(1, "first"))
    assert member.handle(close_request(AGREEMENT, "first")).kind == "closed"
    book = budget_book(AGREEMENT.terms.privacy, member.state())
    assert sum(spend.count for spend in book.spent()) == 2
    request = ask(2, "first")
    assert code(request, member.handle(request)) is PolicyCode.BUDGET


def test_a_federation_has_no_such_node() -> None:
    federated, _ = frozen_league()
    with pytest.raises(PrivacyParameterError, match="without masks"):
        node(agreement=federated)


def test_who_a_node_is() -> None:
    member, _ = node()
    request = hello_request(AGREEMENT, "r")
    assert read_hello(request, member.handle(request)) == "b"
    with pytest.raises(WireError):
        read_hello(request, member.handle(ask()))


def test_a_reply_to_another_request_is_not_believed() -> None:
    member, _ = node()
    reply = member.handle(ask(1))
    with pytest.raises(WireError, match="another request"):
        read_update(ask(2), reply, D)
    with pytest.raises(WireError, match="release"):
        read_update(ask(1), Message("refusal", {**reply.body, "code": "because"}), D)


def test_a_later_agreement_does_not_raise_the_limit() -> None:
    store = MemoryStore()
    node(store=store)[0].handle(ask(1, "first"))
    generous, _ = frozen_league(**ALONE, privacy={"epsilon": 8.0})
    member, training = node(store=store, agreement=generous)
    request = train_request(generous, "second", 1, START)
    assert code(request, member.handle(request)) is PolicyCode.BUDGET
    assert training.calls == 0
    assert budget_book(generous.terms.privacy, store.load()).limit().epsilon == 5.0


def test_an_agreement_at_another_delta_is_refused() -> None:
    store = MemoryStore()
    node(store=store)[0].handle(ask(1, "first"))
    other, _ = frozen_league(**ALONE, privacy={"delta": 1e-5})
    member, _ = node(store=store, agreement=other)
    request = train_request(other, "second", 1, START)
    assert code(request, member.handle(request)) is PolicyCode.BUDGET


def test_data_with_a_budget_take_part_in_no_run_without_privacy() -> None:
    store = MemoryStore()
    node(store=store)[0].handle(ask(1, "first"))
    plain, _ = frozen_league(**ALONE, privacy={"mechanism": "none", "epsilon": None, "delta": None})
    member, training = node(store=store, agreement=plain)
    request = train_request(plain, "second", 1, START)
    assert code(request, member.handle(request)) is PolicyCode.BUDGET
    assert training.calls == 0


def test_training_that_is_not_what_is_accounted_ends_the_run_at_this_member() -> None:
    def moved(weights: np.ndarray) -> np.ndarray:
        raise TrainingError("a weight that is not trained was changed")

    member, training = node(moved)
    for number in (1, 2, 3):
        request = ask(number)
        assert code(request, member.handle(request)) is PolicyCode.ABSENT
    assert training.calls == 1
    assert budget_book(AGREEMENT.terms.privacy, member.state()).released("r") == 2


def test_a_model_of_nan_from_the_coordinator_is_not_trained_on() -> None:
    from hansa_client.training import Trainer
    from hansa_client.training.gradients import GradientEngine

    plan = TrainingPlan.of(AGREEMENT, "b")
    trainer = Trainer(GradientEngine(BUILT), table(10, 1), plan)
    member = BaselineNode(
        AGREEMENT, "b", trainer, plan.spend(), MemoryStore(), lambda run, number: SecretRandomness()
    )
    request = ask(weights=np.full(D, np.nan))
    assert code(request, member.handle(request)) is PolicyCode.ABSENT


class TestFileStore:
    """State on disk."""

    def test_a_restarted_node_remembers_rounds_and_budget(self, tmp_path: Path) -> None:
        store = FileStore(tmp_path / "b.json")
        node(store=store)[0].handle(ask(3))
        again, training = node(store=FileStore(tmp_path / "b.json"))
        request = ask(3)
        assert code(request, again.handle(request)) is PolicyCode.ROUND
        assert training.calls == 0
        assert not isinstance(code(ask(4), again.handle(ask(4))), PolicyCode)

    def test_the_round_is_on_disk_before_training_begins(self, tmp_path: Path) -> None:
        path = tmp_path / "b.json"
        seen: list[dict[str, object]] = []

        def looks(weights: np.ndarray) -> np.ndarray:
            seen.append(json.loads(path.read_text()))
            return weights

        node(looks, FileStore(path))[0].handle(ask(1))
        assert seen[0]["rounds"] == {"r": 1}
        assert seen[0]["book"]["r"]["confirmed"] == {"round 1": 2}  # type: ignore[index]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b'{"version": 1, "rounds": {}}',
            b'{"version": 2, "rounds": {}, "book": {}, "limit": null}',
        ],
    )
    def test_a_damaged_state_is_never_an_empty_one(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "b.json"
        path.write_bytes(content)
        with pytest.raises(DataSourceError, match="cannot be read"):
            FileStore(path).load()
        member, training = node(store=FileStore(path))
        request = ask()
        assert code(request, member.handle(request)) is PolicyCode.ABSENT
        assert training.calls == 0
