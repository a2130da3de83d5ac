"""A member has its ε looked at by other accountants before it reserves anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hansa.privacy.crosscheck import UpperBound, Within
from hansa.privacy.errors import AccountantFailedError
from hansa.wire import Message
from hansa_client import recording
from support.federations import Federation
from support.leagues import frozen_league

AGREEMENT, BUILT = frozen_league()


class Says:
    """An accountant with one answer."""

    name = "oracle"

    def __init__(self, epsilon: float | None) -> None:
        self._epsilon = epsilon

    def epsilon(self, _spends: object, _delta: float) -> float:
        if self._epsilon is None:
            raise AccountantFailedError("the oracle is silent")
        return self._epsilon


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    recording._checked.cache_clear()
    yield
    recording._checked.cache_clear()


def league() -> Federation:
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in "abc"}
    return Federation(AGREEMENT, BUILT.initial_vector(), updates)


@pytest.mark.parametrize("check", [UpperBound(Says(0.5)), Within(Says(9.0), 0.02)])
def test_a_contradicted_epsilon_stops_the_run_before_anything_is_reserved(
    check: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "member_checks", lambda: (check,))
    federation = league()
    outcome = federation.run()
    assert (outcome.state.round, outcome.stopped_by) == (0, "rule")
    for name in "abc":
        assert not {"reservation", "release"} & set(federation.entries(name))


def test_a_check_that_cannot_be_made_is_told_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "member_checks", lambda: (Within(Says(None), 0.02),))
    with caplog.at_level(logging.WARNING, "hansa.node"):
        assert league().run().stopped_because is None
    assert "not checked by oracle: the oracle is silent" in caplog.text


def test_opacus_is_asked_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    real = recording.checked_epsilon

    def counted(spends: object, delta: float, checks: object) -> object:
        found = real(spends, delta, checks)  # type: ignore[arg-type]
        asked.append([(finding.accountant, finding.verdict.value) for finding in found.findings])
        return found

    monkeypatch.setattr(recording, "checked_epsilon", counted)
    assert league().run().stopped_because is None
    assert asked == [[("rdp", "agrees"), ("sum-attack", "agrees"), ("prv", "agrees")]]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_with_a_failed_contribution_is_closed_in_full_also_after_a_restart(*, restarted: bool) -> None:
    """That a contribution failed may follow from data, and nobody counts what its absence told."""
    federation = league()

    def fails(weights: np.ndarray) -> np.ndarray:
        if releases(federation, "c") == 2:
            raise RuntimeError("of the data")
        return np.zeros_like(weights)

    def restarts(name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
        if restarted and name == "c" and request.kind == "close":
            federation.restart("c")
            return federation.nodes["c"].handle(request)
        return answer(request)

    federation.trainings["c"]._update = fails
    federation.between = restarts
    assert federation.run().state.round == 2
    assert federation.entries("c").count("closed") == 1
    (spent,) = federation.book("c").spent()
    (others,) = federation.book("b").spent()
    assert (spent.count, others.count) == (8, 4 + 2)


def releases(federation: Federation, name: str) -> int:
    return federation.entries(name).count("release")
