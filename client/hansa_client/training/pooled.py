"""One member's part of a step of DP-SGD on everybody's records: its clipped sum and its share of the noise.

The sum over members, taken under masks, is the noisy gradient sum of the pooled records. Nobody steps here: the model
follows from the sum (`hansa.protocol.Derivation`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.errors import TrainingError
from hansa.privacy.noise_ahead import NoiseAhead
from hansa.privacy.randomness import Randomness, SecretRandomness
from hansa.privacy.rotation import Rotation
from hansa_client.data import Dataset
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.kept import KeptActivations
from hansa_client.training.plan import TrainingPlan
from hansa_client.training.sampling import Draws, Units, keyed_draws
from hansa_client.training.trainer import Trainer

Vector: TypeAlias = npt.NDArray[np.float64]
GridVector: TypeAlias = npt.NDArray[np.int64]

_LOG = logging.getLogger("hansa.node")  # the member's own


@dataclass
class ClampObservations:
    """What only the member's own log may know of its sums.

    Attributes:
        steps: sums made so far.
        empty_batches: steps that drew no unit.
        clamped_coordinates: coordinates beyond the agreed clamp before noise. Their gradients are cut: training suffers,
            privacy does not.
    """

    steps: int = 0
    empty_batches: int = 0
    clamped_coordinates: int = 0


class PooledTrainer:
    """Makes a member's contribution to each step.

    Args:
        engine: for the plan's model.
        dataset: of the member.
        plan: of an agreement with ``mechanism = "distributed"``.
        draws: makes the batches; by default by keyed hashes of unit ids, as the plan says.
        kept: as of `Trainer`.

    Guarantees: what `train` returns is clamp(clipped sum) + share: a function of one sample that `plan.sampling` describes, whose
        L2 sensitivity on the grid is s·C + √d, gradient and counts together, with a discrete Gaussian of parameter `plan.sigma` added last and nothing
        cut after it. By itself it is the Gaussian mechanism of the share's own multiplier; in a sum with h − 1 other shares
        that an observer does not know it is that of the agreement. An empty batch is a step, and every step takes the
        same path whatever the data hold.
    Assumes: as `Trainer`.
    Leaks: how long it took.

    Raises:
        TrainingError: the plan is for another model or another mechanism.
    """

    def __init__(
        self,
        engine: GradientEngine,
        dataset: Dataset,
        plan: TrainingPlan,
        draws: Draws | None = None,
        *,
        kept: KeptActivations | None = None,
    ) -> None:
        if plan.grid is None or plan.sigma is None or plan.clamp is None:
            raise TrainingError("a plan without shared noise makes no contribution to a pooled step")
        self._sums = Trainer(engine, dataset, plan, kept=kept)
        self._ahead = engine.parameters[0].device.type != "cpu"
        self._draws = keyed_draws(dataset, plan.sampling) if draws is None else draws
        self._engine = engine
        self._sigma, self._clamp, self._size = plan.sigma, plan.clamp, plan.grid.dimension
        self._rotated = plan.rotated
        self.observed = ClampObservations()

    def train(
        self,
        weights: Vector,
        randomness: Randomness,
        rotation: Rotation | None = None,
        adapted: Vector | None = None,
    ) -> GridVector:
        """The noisy clipped sum of one step, never weighted: every record counts the same.

        Args:
            weights: float64 [d], the step's global weights.
            randomness: fresh for this call, and drawn from by nobody else meanwhile.
            rotation: of the round, where the plan has any. The sum is rotated before it is rounded and clamped.
            adapted: float64 [k], what has adapted to the sums so far, where the plan has any of it.

        Returns:
            int64 [d], in grid units; what is counted beside gradients comes behind the model's coordinates.

        Raises:
            TrainingError: weights moved that must not; or a rotation or what adapts is missing, or one too many.
            PrivacyParameterError: what adapts is outside the agreed bounds.
        """
        if (rotation is not None) != self._rotated:
            raise TrainingError(
                "a sum is rotated exactly where the agreement says so: the members' grids would differ"
            )
        if not (self._ahead and isinstance(randomness, SecretRandomness)):
            return self._step(weights, randomness, rotation, adapted)
        with NoiseAhead(
            randomness, self._sigma, self._size, 1
        ) as source:  # while a GPU computes the gradient
            return self._step(weights, source, rotation, adapted)

    def _step(
        self, weights: Vector, randomness: Randomness, rotation: Rotation | None, adapted: Vector | None
    ) -> GridVector:
        (drawn,) = self._draws.batches(randomness, 1)
        clamped = self._clamped(drawn, weights, rotation, adapted)
        noise = randomness.noise(self._sigma, self._size)
        noise += clamped
        self.observed.steps += 1
        self.observed.empty_batches += not len(drawn)
        _LOG.info("summed: %s", self.observed)
        return noise

    def _clamped(
        self, drawn: Units, weights: Vector, rotation: Rotation | None, adapted: Vector | None
    ) -> GridVector:
        """The clipped sum, each coordinate cut to the clamp: two neighbours' sums come no further apart by it."""
        self._engine.built.flat.load(self._engine.built.module, weights)
        with self._engine.untrained_weights_kept():
            values = self._sums.clipped_sum(drawn, rotation, adapted).values
        clamped = np.clip(values, -self._clamp, self._clamp)
        self.observed.clamped_coordinates += int(np.count_nonzero(clamped != values))
        return clamped
