"""The engine bench: real nodes and rounds on Hansa's side, and no figure from a run that lost something."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hansa.errors import EngineError, TrainingError, WireError
from hansa.wire import array_sha256
from hansa_simulations.baseline import BaselineNode
from hansa_simulations.bench import engine, measure_engines
from hansa_simulations.bench.engine import IdleTraining, NoDraws, idle_agreement


def peer_that_measured(**measured: Any) -> Any:
    def run_peer(module: str, arguments: Sequence[str], *, timeout_s: float) -> dict[str, Any]:
        assert module == "hansa_simulations.bench.peers.flower_ray"
        assert list(arguments) == ["--clients", "4", "--floats", "20", "--rounds", "3"]
        assert timeout_s > 60
        return measured

    return run_peer


def test_figures_of_both_sides_and_their_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run_peer", peer_that_measured(start_s=8.0, round_s=[0.04, 0.08, 0.4]))
    bench = measure_engines(clients=4, floats=20, rounds=3)
    figures = {figure.name: figure for figure in bench.figures}
    assert figures["ray_ms_per_client"].samples == (10.0, 20.0, 100.0)
    assert figures["ray_start_s"].value == 8.0
    assert len(figures["local_ms_per_client"].samples) == 3
    assert min(figures["local_ms_per_client"].samples) > 0
    assert figures["local_ms_per_client"].goal == 1.0
    # a ring vector of 4 bytes per entry, and a header
    assert all(80 < upload < 80 + 2000 for upload in figures["upload_bytes_per_client"].samples)
    ratios = {ratio.name: ratio.value for ratio in bench.ratios}
    assert ratios["ms_per_client"] == 20.0 / figures["local_ms_per_client"].value
    assert ratios["start_s"] == 8.0 / figures["local_start_s"].value
    assert bench.settings == {"clients": 4, "floats": 20, "rounds": 3}


def test_the_idle_agreement_is_frozen_for_its_model() -> None:
    agreement, model = idle_agreement(clients=5, floats=7, rounds=2)
    assert len(agreement.terms.members) == 5
    assert model.tolist() == [0.0] * 7
    assert agreement.require_frozen().model.parameters == 7
    assert agreement.require_frozen().model.initial_sha256 == array_sha256(model)
    assert not agreement.terms.private
    assert agreement.agreement_id != idle_agreement(clients=5, floats=8, rounds=2)[0].agreement_id


class LosesOneRound(IdleTraining):
    """Answers all rounds but its third, as a member that crashes once would."""

    calls = 0

    def train(
        self, weights: Any, _randomness: object, _rotation: object = None, _adapted: object = None
    ) -> Any:
        LosesOneRound.calls += 1
        if LosesOneRound.calls == 9:
            raise RuntimeError("gone")
        return super().train(weights, _randomness)


def test_a_run_that_lost_a_client_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LosesOneRound, "calls", 0)
    monkeypatch.setattr(engine, "IdleTraining", LosesOneRound)
    monkeypatch.setattr(engine, "run_peer", peer_that_measured(start_s=1.0, round_s=[1.0]))
    with pytest.raises(EngineError, match=r"clients summed by round were \[4, 4, 3, 4\], not 4 in each of 4"):
        measure_engines(clients=4, floats=20, rounds=3)


class MovesTwice(IdleTraining):
    """Updates by twice as much as the bench counts on."""

    def train(
        self, weights: Any, _randomness: object, _rotation: object = None, _adapted: object = None
    ) -> Any:
        return 2.0 * super().train(weights, _randomness)


def test_a_run_that_led_elsewhere_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "IdleTraining", MovesTwice)
    monkeypatch.setattr(engine, "run_peer", peer_that_measured(start_s=1.0, round_s=[1.0]))
    with pytest.raises(EngineError, match=r"4 rounds led to .*, not 0\.04"):
        measure_engines(clients=4, floats=20, rounds=3)


def test_what_is_measured_are_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is worth something only if every reply comes out of the member's one door."""
    handled: list[str] = []
    handle = BaselineNode.handle

    def counted(self: BaselineNode, request: Any) -> Any:
        handled.append(request.kind)
        return handle(self, request)

    monkeypatch.setattr(BaselineNode, "handle", counted)
    monkeypatch.setattr(engine, "run_peer", peer_that_measured(start_s=1.0, round_s=[1.0, 1.0, 1.0]))
    measure_engines(clients=4, floats=20, rounds=3)
    assert handled.count("train") == 4 * 4  # one round is not measured


def test_idle_members_return_a_fresh_update_and_draw_nothing() -> None:
    training = IdleTraining()
    first, second = training.train(np.zeros(3), None), training.train(np.ones(3), None)
    assert first.tolist() == second.tolist() == [0.01] * 3
    assert not np.shares_memory(first, second)
    with pytest.raises(TrainingError, match="draw units"):
        NoDraws().key()
    with pytest.raises(TrainingError, match="draw 3 numbers"):
        NoDraws().noise(1.0, 3)


def test_a_model_of_other_weights_is_not_run() -> None:
    from hansa_server.federation import run_federation
    from hansa_server.journal import InMemoryJournal
    from hansa_simulations.baseline import PlainSummation

    agreement, model = idle_agreement(clients=3, floats=2, rounds=1)
    changed = np.where(np.arange(2) == 1, 1e-9, model)
    members, journal = dataclasses.make_dataclass("NoMembers", [])(), InMemoryJournal()
    summation = PlainSummation(agreement, members, journal, "x")
    with pytest.raises(WireError, match="model 0"):
        run_federation(agreement, changed, members, journal, run="x", summation=summation)
