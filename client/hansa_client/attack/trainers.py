"""The member's trainer as an attack sees it: weights in, weights moved out, whatever the mechanism."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hansa.errors import TrainingError
from hansa.privacy.randomness import Randomness
from hansa.privacy.rotation import Rotation
from hansa.privacy.sampling import GroupSampling
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, Trainer, TrainingPlan

Vector = npt.NDArray[np.float64]


class Moves(Protocol):
    """What is attacked."""

    def train(self, weights: Vector, randomness: Randomness) -> Vector:
        """What a round moves the weights by, float64 [d]."""


class _WhatStays:
    """Of noise in parts only what is never taken off: the rest may have been opened."""

    def __init__(self, below: Randomness, lasting: float) -> None:
        self._below, self._lasting = below, lasting

    def key(self) -> bytes:
        return self._below.key()

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        return self._below.noise(min(sigma, self._lasting), size)


class _OwnSteps:
    """A pooled step of one member alone: what somebody sees from whom every mask has been taken, with its own share of noise."""

    def __init__(
        self, trainer: PooledTrainer, factor: float, rotated: int | None, lasting: float | None
    ) -> None:
        self._trainer, self._factor, self._rotated, self._lasting = trainer, factor, rotated, lasting
        self._steps = 0

    def train(self, weights: Vector, randomness: Randomness) -> Vector:
        self._steps += 1
        if self._lasting is not None:
            randomness = _WhatStays(randomness, self._lasting)
        if self._rotated is None:
            made = self._trainer.train(weights, randomness).astype(np.float64)
        else:  # a rotation is public, and whoever looks turns back what it sees
            rotation = Rotation(self._rotated, f"attack {self._steps}".encode())
            seen = self._trainer.train(weights, randomness, rotation)
            made = rotation.inverse(seen.astype(np.float64))
        moved: Vector = self._factor * made
        return moved


def seen_alone(trainer: Trainer | PooledTrainer, plan: TrainingPlan) -> Moves:
    """A member's trainer as somebody sees it who sees this member alone.

    Under distributed noise its contributions are seen one by one, which the secure sum is there to prevent: the attack is
    on the claim against everyone.

    Args:
        trainer: of the member.
        plan: that the trainer follows.

    Raises:
        TrainingError: a pooled trainer, and a plan without its grid.
    """
    if isinstance(trainer, Trainer):
        return trainer
    if plan.grid is None:
        raise TrainingError("a plan without shared noise is not that of a pooled trainer")
    factor = -plan.learning_rate / (plan.grid.scale * plan.divisor)
    return _OwnSteps(trainer, factor, plan.grid.dimension if plan.rotated else None, plan.lasting)


def of_no_group(canaries: Dataset, plan: TrainingPlan) -> Dataset:
    """Canaries as records without a value of the attribute whose groups have rates: drawn at the largest, which is claimed."""
    if not isinstance(plan.sampling, GroupSampling):
        return canaries
    return replace(canaries, groups={plan.sampling.attribute: np.full(len(canaries), -1, dtype=np.int16)})
