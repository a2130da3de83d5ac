"""The Flower carrier: what passes through it, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.errors import EngineError, UsageError
from hansa.privacy.randomness import PublicSampling
from hansa.wire import Message
from hansa_client.flower_node import AnswersRequests
from hansa_flower import from_records, to_records
from hansa_server.flower_app import GridMembers
from hansa_simulations.baseline import BaselineNode, train_request
from hansa_simulations.baseline.state import MemoryStore
from hansa_simulations.engines import engine_named
from hansa_simulations.engines.local import run_in_process
from support.leagues import DoesNothing, frozen_league


def nodes(agreement: Agreement, fails: str | None = None) -> list[AnswersRequests]:
    made: list[AnswersRequests] = []
    for member in agreement.terms.members:
        training = DoesNothing(lambda w: w + 1)
        node: AnswersRequests = BaselineNode(
            agreement, member.name, training, None, MemoryStore(), lambda r, n: PublicSampling(0)
        )
        made.append(_Raises() if member.name == fails else node)
    return made


class _Raises:
    def handle(self, request: Message) -> Message:
        raise RuntimeError("patient 4711 broke it")


def test_what_a_node_raises_reaches_nobody(caplog: pytest.LogCaptureFixture) -> None:
    agreement, built = frozen_league(
        baseline="local-only", privacy={"mechanism": "none", "epsilon": None, "delta": None}
    )
    seen: list[dict[str, Message]] = []

    def coordinate(members: GridMembers) -> None:
        request = train_request(agreement, "r", 1, built.initial_vector())
        seen.append(dict(members.exchange(dict.fromkeys("abc", request), 10.0)))

    run_in_process(agreement, nodes(agreement, fails="b"), "r", coordinate)
    assert sorted(seen[0]) == ["a", "c"]
    assert all(b"patient" not in reply.header for reply in seen[0].values())


def test_two_nodes_of_one_name_stop_the_run() -> None:
    agreement, _ = frozen_league(
        baseline="local-only", privacy={"mechanism": "none", "epsilon": None, "delta": None}
    )
    twice = nodes(agreement)
    with pytest.raises(EngineError, match="two nodes"):
        run_in_process(agreement, [*twice, twice[0]], "r", lambda members: None)


def test_messages_survive_serialisation_through_flower() -> None:
    """The carrier by reference is a shortcut; the one that serialises gives the same message."""
    arrays = {"u": np.arange(5, dtype="<u4"), "w": np.linspace(0, 1, 3), "none": np.zeros(0, dtype="<f4")}
    message = Message("update", {"run": "r", "round": 3, "agreement_id": "x"}, arrays)
    for known in (None, {}):
        got = from_records(to_records(message, known))
        assert got.header == message.header
        assert all(np.array_equal(got.arrays[name], array) for name, array in arrays.items())


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="no engine"):
        engine_named("teleport")


def test_an_answer_that_took_longer_than_the_deadline_and_is_there_counts() -> None:
    """The local engine works while it pushes: what is done when it returns was done, and charged."""
    agreement, built = frozen_league(
        baseline="local-only", privacy={"mechanism": "none", "epsilon": None, "delta": None}
    )
    seen: list[dict[str, Message]] = []

    def coordinate(members: GridMembers) -> None:
        request = train_request(agreement, "r", 1, built.initial_vector())
        seen.append(dict(members.exchange(dict.fromkeys("abc", request), deadline_s=1e-9)))

    run_in_process(agreement, nodes(agreement), "r", coordinate)
    assert sorted(seen[0]) == ["a", "b", "c"]
