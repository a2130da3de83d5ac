"""The member's trainer as an attack sees it: weights in, weights moved out, whatever the mechanism."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hansa.privacy.randomness import Randomness
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine

Vector = npt.NDArray[np.float64]


class Moves(Protocol):
    """What is attacked."""

    def train(self, weights: Vector, randomness: Randomness) -> Vector:
        """What a round moves the weights by, float64 [d]."""


class _OwnSteps:
    """A pooled step of one member alone: what somebody sees from whom every mask has been taken, with its own share of noise."""

    def __init__(self, trainer: PooledTrainer, factor: float) -> None:
        self._trainer, self._factor = trainer, factor

    def train(self, weights: Vector, randomness: Randomness) -> Vector:
        moved: Vector = self._factor * self._trainer.train(weights, randomness).astype(np.float64)
        return moved


def trainer_of(engine: GradientEngine, data: Dataset, plan: TrainingPlan) -> Moves:
    """The trainer that a member under this plan runs.

    Under distributed noise its contributions are seen one by one, which the secure sum is there to prevent: the attack is
    on the claim against everyone.
    """
    if plan.clamp is None or plan.grid is None:
        return Trainer(engine, data, plan)
    return _OwnSteps(
        PooledTrainer(engine, data, plan), -plan.learning_rate / (plan.grid.scale * plan.divisor)
    )
