"""The bench of noise measures what it says."""

from __future__ import annotations

import pytest

from hansa_simulations.bench import noise
from hansa_simulations.bench.noise import GOAL_PER_S, noise_figures


def test_the_headline_is_the_slowest_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, int]] = []
    whole = noise.discrete_gaussian

    def counted(stream: object, sigma: float, size: int) -> object:
        asked.append((sigma, size))
        return whole(stream, sigma, size)  # type: ignore[arg-type]

    monkeypatch.setattr(noise, "discrete_gaussian", counted)
    monkeypatch.setattr(noise, "SIZES", (1000, 3000))
    headline, *others = noise_figures(2)
    assert headline.name == "noise_draws_per_s"
    assert headline.goal == GOAL_PER_S == 20e6
    assert headline.value == min(figure.value for figure in others)
    assert len(others) == len({figure.name for figure in others}) == 8
    assert all(len(figure.samples) == 2 and figure.unit == "per_s" for figure in others)
    assert set(asked) == {(sigma, size) for sigma in noise.SIGMAS for size in (1000, 3000)}


def test_a_rate_is_draws_by_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def draws(stream: object, sigma: float, size: int) -> None:
        clock[0] += size / 50e6 if sigma > 20 else size / 80e6

    monkeypatch.setattr("hansa_simulations.bench.sampling.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(noise, "discrete_gaussian", draws)
    headline, *others = noise_figures(1)
    assert headline.value == pytest.approx(50e6)
    assert {round(figure.value / 1e6) for figure in others} == {50, 80}
    assert headline.met
