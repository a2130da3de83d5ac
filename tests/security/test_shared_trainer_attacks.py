"""What an attack sees of one member alone under distributed noise: rotated sums turned back, and of noise in parts what always stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hansa.privacy.randomness import SecretRandomness
from hansa_client.attack import attack_gradients, attack_units, claim_of
from hansa_client.attack.trainers import Moves, seen_alone
from hansa_client.training import TrainingPlan
from hansa_client.training.gradients import GradientEngine
from support.leagues import table
from support.pooling import Silent, contributor, league_of

BOTH = {"rotation": "randomized-hadamard", "noise_in_parts": True}
WIDE = {"features": [{"kind": "number", "name": f"x{i}", "range": [-1, 1]} for i in range(40)]}


class Drawn(Silent):
    """Ones for noise, and a list of what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmas: list[float] = []

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        self.sigmas.append(sigma)
        return np.ones(size, dtype=np.int64)


def seen(**privacy: Any) -> tuple[Moves, TrainingPlan, npt.NDArray[np.float64]]:
    """A member of four as it is seen alone, its plan, and the weights it starts from."""
    agreement, built = league_of(4, privacy=privacy)
    plan = TrainingPlan.of(agreement, "m0")
    return (
        seen_alone(contributor(agreement, built, "m0", table(40, 1)), plan),
        plan,
        built.initial_vector().astype(np.float64),
    )


def test_a_rotated_sum_is_turned_back_to_the_sum() -> None:
    plain, plan, weights = seen()
    rotated, turned, _ = seen(rotation="randomized-hadamard")
    assert (plan.rotated, turned.rotated) == (False, True)
    assert plan.grid is not None
    assert turned.grid is not None
    for _ in range(2):  # two steps have two rotations
        moved, back = plain.train(weights, Silent()), rotated.train(weights, Silent())
        rounding = np.sqrt(len(weights)) * (1 / plan.grid.scale + 1 / turned.grid.scale) / 2
        assert np.linalg.norm(moved) > 100 * plan.learning_rate * rounding / plan.divisor
        assert np.linalg.norm(moved - back) <= plan.learning_rate * rounding / plan.divisor * (1 + 1e-9)


@pytest.mark.parametrize("rotation", ["none", "randomized-hadamard"])
def test_only_noise_that_always_stays_is_seen(rotation: str) -> None:
    attacked, plan, weights = seen(noise_in_parts=True, rotation=rotation)
    assert plan.lasting is not None
    assert plan.sigma is not None
    assert plan.lasting < plan.sigma
    source = Drawn()
    attacked.train(weights, source)
    assert source.sigmas == [plan.lasting]


def test_all_noise_is_seen_where_nothing_is_opened() -> None:
    attacked, plan, weights = seen()
    source = Drawn()
    attacked.train(weights, source)
    assert (source.sigmas, plan.lasting) == ([plan.sigma], None)


def test_a_trainer_that_draws_less_than_stays_is_seen_with_less() -> None:
    attacked, plan, weights = seen(noise_in_parts=True)
    assert plan.lasting is not None
    attacked._trainer._sigma = plan.lasting / 4  # type: ignore[attr-defined]
    source = Drawn()
    attacked.train(weights, source)
    assert source.sigmas == [plan.lasting / 4]


@pytest.mark.parametrize("privacy", [{}, {"rotation": "randomized-hadamard"}, BOTH])
def test_who_keeps_its_word_is_not_accused_and_who_adds_no_noise_is(
    privacy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    agreement, built = league_of(
        4,
        privacy={"sampling_rate": 1.0, "steps": 1, **privacy},
        training={"rounds": 1},
        data={"features": WIDE["features"]},
    )
    engine = GradientEngine(built)
    assert not attack_gradients(agreement, "m0", 500, seed=1).verdict.contradicts
    assert not attack_units(agreement, engine, "m0", 40, seed=1, confidence=0.999).verdict.contradicts
    monkeypatch.setattr(SecretRandomness, "noise", lambda _, _sigma, size: np.ones(size, dtype=np.int64))
    assert attack_gradients(agreement, "m0", 500, seed=1).verdict.contradicts
    found = attack_units(agreement, engine, "m0", 40, seed=1).verdict
    assert found.correct >= 0.8 * found.design.guesses


def test_the_claim_is_of_what_stays() -> None:
    """Against everyone a member of four keeps a third of the promised variance, and a half where nothing is opened."""
    multipliers = []
    for privacy in ({}, {"noise_in_parts": True}):
        agreement, _ = league_of(4, privacy=privacy)
        ((event, _),) = [(one.event, one.count) for one in claim_of(agreement, "m0").spends]
        multipliers.append(event["event"]["noise_multiplier"])
    assert multipliers[1] / multipliers[0] == pytest.approx(np.sqrt(2 / 3), rel=1e-6)
