"""One member's local steps, from the round's weights to its update."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from hansa.errors import TrainingError
from hansa.privacy.noise_ahead import NoiseAhead
from hansa.privacy.randomness import Randomness, SecretRandomness
from hansa.privacy.rotation import Rotation
from hansa_client.data import Dataset
from hansa_client.training.adapting import AdaptedStep, unit_groups
from hansa_client.training.clipping import ClippedSum, ClippedSumBuilder
from hansa_client.training.descent import Descent, Noise
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.kept import KeptActivations, KeptRecords
from hansa_client.training.plan import UNMEASURED, TrainingPlan
from hansa_client.training.sampling import Draws, Units, keyed_draws

Vector: TypeAlias = npt.NDArray[np.float64]

_FIRST = 64  # weights of a tensor that are looked at before all of them: of a tensor that moved they did nearly surely
_LOG = logging.getLogger("hansa.node")  # the member's own


@dataclass
class LocalObservations:
    """What only the member's own log may know of its training.

    Attributes:
        steps: taken so far.
        empty_batches: steps that drew no unit.
        non_finite_units: gradients that counted as zero because they were not finite.
    """

    steps: int = 0
    empty_batches: int = 0
    non_finite_units: int = 0


class Trainer:
    """Runs the local steps of a plan on a member's data.

    Args:
        engine: for the plan's model.
        dataset: of the member.
        plan: of the agreement.
        draws: makes the batches; by default by keyed hashes of unit ids, as the plan says.
        kept: of the dataset's records, from the engine; what is kept there is not computed again.

    Guarantees: with a mechanism, everything that `train` returns is a function of noisy sums, `plan.steps_per_round`
        of them, each of which is the Gaussian mechanism on a sample that `plan.sampling` describes, whatever the data
        hold: the number of steps, the divisor and the noise do not depend on data, an empty batch is a step, a batch
        that was cut keeps the divisor, all records of a unit are drawn together, and a gradient that is not finite
        counts as zero.
    Assumes: the randomness is secret and fresh for every call; the dataset holds at most the agreement's cap of
        records of each unit (the clipped sum is bounded without it).
    Leaks: how long it took, and with `kept` how many records were met for the first time. A dataset with more units than a cut sample is charged for takes no part, which shows.

    Raises:
        TrainingError: the plan is for another model, or for fewer units.
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
        if plan.grid is not None and plan.grid.dimension != engine.built.flat.size + plan.counted:
            raise TrainingError("the plan's grid has another dimension than the model")
        self._draws = keyed_draws(dataset, plan.sampling) if draws is None else draws
        self._engine = engine
        self._data = dataset
        self._plan = plan
        self._ahead = engine.parameters[0].device.type != "cpu"
        self._kept = kept
        self._group_of_unit = unit_groups(dataset, plan.adapts)
        self._records_of_unit = _records_by_unit(dataset.units, dataset.number_of_units)
        self.observed = LocalObservations()

    def train(
        self,
        weights: Vector,
        randomness: Randomness,
        rotation: Rotation | None = None,
        adapted: Vector | None = None,
    ) -> Vector:
        """Take the round's local steps.

        Args:
            weights: float64 [d], the round's global weights.
            randomness: fresh for this call, and drawn from by nobody else meanwhile.
            rotation: none: updates are no sums of gradients.
            adapted: none: what adapts follows from sums of single steps.

        Returns:
            float64 [d], local weights minus `weights`.

        Raises:
            TrainingError: weights moved that must not, or did not move that must; or updates were to be rotated.
        """
        if rotation is not None:
            raise TrainingError("the sum of one pooled step is rotated, not what local steps come to")
        if adapted is not None or self._plan.adapts is not None:
            raise TrainingError(
                "what adapts follows from sums of pooled steps, not from what local steps come to"
            )
        with self._noise_ahead(randomness) as source, self._descent(weights) as descent:
            for drawn in self._draws.batches(source, self._plan.steps_per_round):
                with self._engine.untrained_weights_kept():
                    self._step(descent, drawn, source)
            local = descent.weights
        if self._plan.grid is not None:
            self._check_moved(weights, local)
        _LOG.info("trained: %s", self.observed)
        local -= weights
        return local

    def clipped_sum(
        self, drawn: Units, rotation: Rotation | None = None, adapted: Vector | None = None
    ) -> ClippedSum:
        """Add the clipped gradients of some units at the weights that the model holds now.

        Args:
            drawn: int64, places of units in the dataset, each once.
            rotation: of the sum before it is rounded.
            adapted: float64 [k], what has adapted to the sums so far, exactly where the plan says so.

        Raises:
            TrainingError: the plan has no mechanism, or what adapts is missing, or too much.
            PrivacyParameterError: it is outside the agreed bounds.
        """
        if self._plan.grid is None:
            raise TrainingError("a plan without a mechanism has no clipped sums")
        builder = ClippedSumBuilder(self._plan.grid, self._plan.clipping_rule(), self._adapted(adapted))
        for records, units in self._microbatches(drawn):
            below, groups = self._below(records), self._groups(records, units)
            self._engine.add_clipped(builder, *self._batch(records), units, below, groups)
        self.observed.non_finite_units += builder.non_finite_units
        return builder.finish(rotation)

    def _adapted(self, quantities: Vector | None) -> AdaptedStep | None:
        adapts = self._plan.adapts
        if (quantities is None) != (adapts is None):
            raise TrainingError("something adapts to the sums exactly where the agreement says so")
        if quantities is None or adapts is None:
            return None
        return AdaptedStep(adapts, quantities.tolist())

    def _groups(
        self, records: npt.NDArray[np.int64], units: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64] | None:
        """Of the units of a pass, in its order; `None` where groups have no weights."""
        if self._group_of_unit is None:
            return None
        _, first = np.unique(units, return_index=True)
        return self._group_of_unit[self._data.units[records[first]]]

    def _noise_ahead(self, randomness: Randomness) -> AbstractContextManager[Randomness]:
        """On a GPU secret noise is made while the step before computes, for the round's steps and no more.

        Processors that compute the step have no time to spare: they make its noise when they are done with its sum.
        Any other source is asked for noise when the step has its sum, in the same thread: what it gives may depend on when.
        """
        plan = self._plan
        secret = isinstance(randomness, SecretRandomness)
        if plan.grid is None or plan.sigma is None or not secret or not self._ahead:
            return nullcontext(randomness)
        return NoiseAhead(randomness, plan.sigma, plan.grid.dimension, plan.steps_per_round)

    def _descent(self, weights: Vector) -> Descent:
        plan = self._plan
        unit = plan.divisor if plan.grid is None else plan.grid.scale * plan.divisor
        return Descent(self._engine.built, weights, unit, plan.learning_rate, torch.get_num_threads())

    def _step(self, descent: Descent, drawn: Units, randomness: Randomness) -> None:
        plan = self._plan
        self.observed.steps += 1
        self.observed.empty_batches += not len(drawn)
        if plan.grid is None or plan.sigma is None:
            descent.plain_step(self._plain_sum(drawn))
            return
        descent.step(self.clipped_sum(drawn), self._noise(randomness, plan.sigma, plan.grid.dimension))

    @staticmethod
    def _noise(randomness: Randomness, sigma: float, size: int) -> Noise:
        """Secret noise is drawn piece by piece, where and when a piece needs it; all other noise as one vector, now."""
        if isinstance(randomness, SecretRandomness):
            return lambda first, last: randomness.noise(sigma, last - first)
        vector = randomness.noise(sigma, size)
        return lambda first, last: vector[first:last]

    def _plain_sum(self, drawn: Units) -> Vector:
        total = np.zeros(self._engine.built.flat.size)
        for records, _ in self._microbatches(drawn):
            parts = self._engine.summed(*self._batch(records), self._below(records))
            total += np.concatenate([part.double().flatten().cpu().numpy() for part in parts])
        return total

    def _batch(self, records: npt.NDArray[np.int64]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return {name: array[records] for name, array in self._data.inputs.items()}, self._data.labels[records]

    def _below(self, records: npt.NDArray[np.int64]) -> KeptRecords | None:
        return None if self._kept is None else KeptRecords(self._kept, records)

    def _microbatches(self, drawn: Units) -> Iterator[tuple[Units, Units]]:
        """The drawn units' records, cut into passes of whole units; pairs of records and their units."""
        records: list[npt.NDArray[np.int64]] = []
        held = 0
        most = self._plan.physical_batch_size or UNMEASURED
        for unit in drawn:
            of_unit = self._records_of_unit[unit]
            if records and held + len(of_unit) > most:
                yield _joined(records)
                records, held = [], 0
            records.append(of_unit)
            held += len(of_unit)
        if records:
            yield _joined(records)

    def _check_moved(self, before: Vector, after: Vector) -> None:
        """Under noise every trained tensor moves; one that did not was never written."""
        flat = self._engine.built.flat
        for name, start, size in zip(flat.names, flat.offsets, flat.sizes, strict=True):
            places = [slice(start, start + min(size, _FIRST)), slice(start, start + size)]
            if all(np.array_equal(before[place], after[place]) for place in places):
                raise TrainingError(f"the trained weight {name!r} did not move")


def _joined(records: list[Units]) -> tuple[Units, Units]:
    units = np.repeat(np.arange(len(records), dtype=np.int64), [len(r) for r in records])
    return np.concatenate(records), units


def _records_by_unit(units: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    order = np.argsort(units, kind="stable").astype(np.int64)
    return np.split(order, np.searchsorted(units[order], np.arange(1, count))) if count else []
