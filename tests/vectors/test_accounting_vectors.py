"""ε against published values, against another accountant, and against what a restarted accountant would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.events import Spend, event_from_json, event_to_json, poisson_gaussian
from hansa.privacy.sampling import PoissonSampling

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "dp_accounting.json"


def epsilon(multiplier: float, rate: float, steps: int, delta: float) -> float:
    return epsilon_spent([Spend(poisson_gaussian(rate, multiplier), steps)], delta)


def published() -> dict[str, Any]:
    if not VECTORS.exists():
        pytest.skip("the published accounting vectors are not beside this checkout")
    vectors: dict[str, Any] = json.loads(VECTORS.read_text())
    return vectors


def test_poisson_gaussian_rows() -> None:
    rows = published()["poisson_gaussian"]
    assert len(rows) >= 10
    for row in rows:
        ours = epsilon(row["noise_multiplier"], row["sampling_rate"], row["steps"], row["delta"])
        assert ours == pytest.approx(row["epsilon_pld"], abs=1e-3)
        assert ours <= row["epsilon_prv_upper"] + 1e-6
        assert ours <= row["epsilon_rdp"]


def test_a_restarted_accountant_reports_a_tenth_of_the_truth() -> None:
    """Flower's Opacus example makes a new engine each round: n = 2000, batch 32, sigma 1, one epoch a round."""
    rate, steps_per_round = 32 / 2000, 62
    one_round = epsilon(1.0, rate, steps_per_round, 1e-5)
    assert one_round == pytest.approx(0.98, abs=0.03)
    assert epsilon(1.0, rate, 100 * steps_per_round, 1e-5) == pytest.approx(8.17, abs=0.05)


def test_equal_events_compose_by_count_in_any_order() -> None:
    a, b = poisson_gaussian(0.1, 2.0), poisson_gaussian(0.05, 1.5)
    together = epsilon_spent([Spend(a, 30), Spend(b, 20)], 1e-5)
    apart = epsilon_spent([Spend(b, 5), Spend(a, 10), Spend(b, 15), Spend(a, 20)], 1e-5)
    assert apart == together
    assert epsilon_spent([Spend(a, 30)], 1e-5) < together


@pytest.mark.parametrize(
    "spends",
    [
        [Spend(poisson_gaussian(0.1, 0.94), 100)],
        [Spend(poisson_gaussian(0.5, 16.0), 7), Spend(poisson_gaussian(0.1, 2.0), 30)],
        [Spend({"type": "Gaussian", "noise_multiplier": 5.0}, 4), Spend(poisson_gaussian(0.1, 2.0), 3)],
    ],
)
def test_epsilon_is_that_of_the_pld_accountant(spends: list[Spend]) -> None:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4)
    for spend in spends:
        accountant.compose(event_from_json(spend.event), spend.count)
    assert epsilon_spent(spends, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-9)


def test_nothing_costs_nothing_and_no_privacy_costs_everything() -> None:
    assert epsilon_spent([], 1e-5) == 0.0
    assert epsilon_spent([Spend({"type": "NonPrivate"}, 1)], 1e-5) == float("inf")


@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps"),
    [
        (8.0, 1e-5, 0.1, 100),
        (1.0, 1e-4, 0.5, 100),
        (0.1, 1e-4, 0.5, 100),
        (1.0, 1e-5, 1.0, 1),
        (2.0, 1e-6, 0.01, 2000),
    ],
)
def test_calibrated_noise_keeps_the_promise_and_is_not_wasteful(
    target: float, delta: float, rate: float, steps: int
) -> None:
    multiplier = calibrated_noise_multiplier(target, delta, PoissonSampling(rate), steps)
    assert epsilon(multiplier, rate, steps, delta) <= target
    assert epsilon(multiplier * 0.995, rate, steps, delta) > target


def test_calibration_agrees_with_published_noise() -> None:
    row = next(row for row in published()["more"] if row["mechanism"] == "calibration")
    steps = round(row["epochs"] / row["sampling_rate"])
    ours = calibrated_noise_multiplier(
        row["target_epsilon"], row["delta"], PoissonSampling(row["sampling_rate"]), steps
    )
    assert ours == pytest.approx(row["noise_multiplier_prv"], rel=2e-3)


def test_a_promise_that_no_noise_can_keep_is_refused() -> None:
    with pytest.raises(PrivacyParameterError, match="no noise up to"):
        calibrated_noise_multiplier(1e-7, 1e-9, PoissonSampling(1.0), 10**8)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_rates_outside_the_unit_interval_are_refused(rate: float) -> None:
    with pytest.raises(PrivacyParameterError, match="sampling rate"):
        poisson_gaussian(rate, 1.0)


def test_events_survive_serialisation() -> None:
    for event in (
        poisson_gaussian(0.25, 1.5),
        {"type": "Gaussian", "noise_multiplier": 2.0},
        {"type": "NonPrivate"},
    ):
        assert event_to_json(event_from_json(event)) == event


@pytest.mark.parametrize(
    "event",
    [
        {"type": "Laplace", "noise_multiplier": 1.0},
        {"type": "Gaussian"},
        {"type": "Gaussian", "noise_multiplier": 1.0, "more": 1},
        {"type": "PoissonSampled", "sampling_probability": 0.1},
        {"noise_multiplier": 1.0},
    ],
)
def test_unknown_events_are_refused_never_skipped(event: dict[str, object]) -> None:
    with pytest.raises(PrivacyParameterError, match="not known"):
        epsilon_spent([Spend(event, 1)], 1e-5)  # type: ignore[arg-type]
