"""One member's local steps, from the round's weights to its update."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.errors import TrainingError
from hansa.privacy.noise_ahead import NoiseAhead
from hansa.privacy.randomness import Randomness, SecretRandomness
from hansa_client.data import Dataset
from hansa_client.training.clipping import ClippedSum, ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.kept import KeptActivations, KeptRecords
from hansa_client.training.plan import UNMEASURED, TrainingPlan
from hansa_client.training.sampling import Draws, KeyedDraws, Units

Vector: TypeAlias = npt.NDArray[np.float64]

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
        if plan.grid is not None and plan.grid.dimension != engine.built.flat.size:
            raise TrainingError("the plan's grid has another dimension than the model")
        self._draws = KeyedDraws(dataset.unit_ids, plan.sampling) if draws is None else draws
        self._engine = engine
        self._data = dataset
        self._plan = plan
        self._kept = kept
        self._records_of_unit = _records_by_unit(dataset.units, dataset.number_of_units)
        self.observed = LocalObservations()

    def train(self, weights: Vector, randomness: Randomness) -> Vector:
        """Take the round's local steps.

        Args:
            weights: float64 [d], the round's global weights.
            randomness: fresh for this call, and drawn from by nobody else meanwhile.

        Returns:
            float64 [d], local weights minus `weights`.

        Raises:
            TrainingError: weights moved that must not, or did not move that must.
        """
        flat, module = self._engine.built.flat, self._engine.built.module
        local = np.array(weights, dtype=np.float64)
        with self._noise_ahead(randomness) as source:
            for drawn in self._draws.batches(source, self._plan.steps_per_round):
                flat.load(module, local)
                with self._engine.untrained_weights_kept():
                    gradient = self._mean_gradient(drawn, source)
                gradient *= self._plan.learning_rate
                local -= gradient
        if self._plan.grid is not None:
            self._check_moved(weights, local)
        _LOG.info("trained: %s", self.observed)
        return local - weights

    def clipped_sum(self, drawn: Units) -> ClippedSum:
        """Add the clipped gradients of some units at the weights that the model holds now.

        Args:
            drawn: int64, places of units in the dataset, each once.
        """
        if self._plan.grid is None:
            raise TrainingError("a plan without a mechanism has no clipped sums")
        builder = ClippedSumBuilder(self._plan.grid, self._plan.clipping_rule())
        for records, units in self._microbatches(drawn):
            self._engine.add_clipped(builder, *self._batch(records), units, self._below(records))
        self.observed.non_finite_units += builder.non_finite_units
        return builder.finish()

    def _noise_ahead(self, randomness: Randomness) -> AbstractContextManager[Randomness]:
        """Secret noise is made while the step before computes, for the round's steps and no more.

        Any other source is asked for noise when the step has its sum, in the same thread: what it gives may depend on when.
        """
        plan = self._plan
        if plan.grid is None or plan.sigma is None or not isinstance(randomness, SecretRandomness):
            return nullcontext(randomness)
        return NoiseAhead(randomness, plan.sigma, plan.grid.dimension, plan.steps_per_round)

    def _mean_gradient(self, drawn: Units, randomness: Randomness) -> Vector:
        plan = self._plan
        self.observed.steps += 1
        self.observed.empty_batches += not len(drawn)
        if plan.grid is None or plan.sigma is None:
            return self._plain_sum(drawn) / plan.divisor
        clipped = self.clipped_sum(drawn)
        noise = randomness.noise(plan.sigma, plan.grid.dimension)
        noise += clipped.values
        return noise / (plan.grid.scale * plan.divisor)

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
            if np.array_equal(before[start : start + size], after[start : start + size]):
                raise TrainingError(f"the trained weight {name!r} did not move")


def _joined(records: list[Units]) -> tuple[Units, Units]:
    units = np.repeat(np.arange(len(records), dtype=np.int64), [len(r) for r in records])
    return np.concatenate(records), units


def _records_by_unit(units: npt.NDArray[np.int64], count: int) -> list[npt.NDArray[np.int64]]:
    order = np.argsort(units, kind="stable").astype(np.int64)
    return np.split(order, np.searchsorted(units[order], np.arange(1, count))) if count else []
