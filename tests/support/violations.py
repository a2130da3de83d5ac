"""A trainer on two neighbouring datasets, its noise replaced by a recorder, and what must be the same on both.

After Ghosh, Desfontaines and others' grey-box audits (arXiv 2602.17454): the outputs of the mechanism are fixed
beforehand, the same for both datasets. What a trainer computes from them is then a public function, so that anything that
still differs between the two runs has come by another way than through a noisy sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.errors import HansaError
from hansa.privacy.sampling import FixedBatches, TruncatedSampling
from hansa.privacy.truncation import LONGEST_STEP
from hansa_client.data import Dataset
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine
from support.recorders import Recorder

Build: TypeAlias = Callable[[GradientEngine, Dataset, TrainingPlan], Trainer]
_REACH = 1000.0  # grid units: of the fixed outputs


class ViolationError(AssertionError):
    """What a neighbour's run shows beside noisy sums of bounded sensitivity."""


@dataclass
class Trace:
    """What one run did, as far as the mechanism sees it.

    Attributes:
        flow: every call of the mechanism in order, with shapes and public numbers, and how it ended.
        sums: clipped sums, in order.
        update: what `train` returned; `None` if it raised.
    """

    flow: list[tuple[Any, ...]] = field(default_factory=list)
    sums: list[npt.NDArray[np.int64]] = field(default_factory=list)
    update: npt.NDArray[np.float64] | None = None


class _Mechanism(Recorder):
    """Adds what turns the last sum into the output that was fixed for this step."""

    def __init__(self, trace: Trace, seed: int) -> None:
        super().__init__(seed)
        self._trace = trace

    def key(self) -> bytes:
        self._trace.flow.append(("key",))
        return super().key()

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        step = sum(call[0] == "noise" for call in self._trace.flow)
        self._trace.flow.append(("noise", sigma, size))
        last = self._trace.sums[-1] if self._trace.sums else np.zeros(size, dtype=np.int64)
        return output(self.seed, step, size) - last


def output(seed: int, step: int, size: int) -> npt.NDArray[np.int64]:
    """The fixed output of a step: never zero, so that every weight moves."""
    values = np.random.default_rng([seed, step]).normal(0, _REACH, size)
    return (np.rint(values) * 2 + 1).astype(np.int64)


def traced(
    build: Build, engine: GradientEngine, dataset: Dataset, plan: TrainingPlan, seed: int = 0
) -> Trace:
    """Run one round."""
    trace = Trace()
    try:
        trainer = build(engine, dataset, plan)
        real = trainer.clipped_sum

        def watched(drawn: npt.NDArray[np.int64]) -> Any:
            found = real(drawn)
            trace.flow.append(("sum", found.values.shape, str(found.values.dtype), found.grid))
            trace.sums.append(found.values)
            return found

        trainer.clipped_sum = watched  # type: ignore[method-assign]  # of this one object
        start = np.linspace(-0.5, 0.5, engine.built.flat.size)
        trace.update = trainer.train(start, _Mechanism(trace, seed))
    except (HansaError, ArithmeticError, RuntimeError, ValueError) as error:
        trace.flow.append(("raised", type(error).__name__))
    return trace


def check_neighbours(
    build: Build, engine: GradientEngine, datasets: tuple[Dataset, Dataset], plan: TrainingPlan, seed: int = 0
) -> list[float]:
    """Hold the runs on two neighbouring datasets against each other and against the plan.

    Returns:
        The distance of the two sums in each step, in grid units, for a test that wants them not to be zero.

    Raises:
        ViolationError: something shows of which dataset it was.
    """
    one, two = (traced(build, engine, dataset, plan, seed) for dataset in datasets)
    if one.flow != two.flow:
        raise ViolationError(f"control flow: {_difference(one.flow, two.flow)}")
    for trace in (one, two):
        _check_plan(trace, plan, seed)
    distances = [math.dist(a.tolist(), b.tolist()) for a, b in zip(one.sums, two.sums, strict=True)]
    _check_distances(distances, plan)
    return distances


def _check_plan(trace: Trace, plan: TrainingPlan, seed: int) -> None:
    """One noisy sum for each step that is charged, and nothing in the update but those."""
    assert plan.grid is not None
    kinds = [call[0] for call in trace.flow if call[0] != "key"]
    if kinds != ["sum", "noise"] * plan.steps_per_round:
        raise ViolationError(f"steps: {kinds} are not the {plan.steps_per_round} steps that are charged")
    if {call[1:] for call in trace.flow if call[0] == "noise"} != {(plan.sigma, plan.grid.dimension)}:
        raise ViolationError("noise: not of the size that is charged, or not on every coordinate")
    start = np.linspace(-0.5, 0.5, plan.grid.dimension)
    local = start.copy()
    for step in range(plan.steps_per_round):
        noisy = output(seed, step, plan.grid.dimension)
        local -= plan.learning_rate * (noisy / (plan.grid.scale * plan.divisor))
    if trace.update is None or not np.array_equal(trace.update, local - start):
        raise ViolationError("update: not a public function of the noisy sums")


def _check_distances(distances: list[float], plan: TrainingPlan) -> None:
    assert plan.grid is not None
    bound = plan.grid.sensitivity
    if isinstance(plan.sampling, FixedBatches):  # an epoch is one release: all its steps together
        size = plan.sampling.batches
        distances = [math.hypot(*distances[i : i + size]) for i in range(0, len(distances), size)]
    elif isinstance(plan.sampling, TruncatedSampling):
        bound *= LONGEST_STEP
    if max(distances, default=0.0) > bound:
        raise ViolationError(f"sensitivity: {max(distances):.6g} is above the stated {bound:.6g}")


def _difference(one: list[tuple[Any, ...]], two: list[tuple[Any, ...]]) -> str:
    place = next(
        (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
    )
    shown = [flow[place] if place < len(flow) else "nothing" for flow in (one, two)]
    return f"call {place} is {shown[0]} on one and {shown[1]} on the other"


def with_unit(dataset: Dataset, unit: Dataset, place: int) -> Dataset:
    """A neighbour: the records of one more unit, put in before the record at `place`."""
    if unit.number_of_units != 1:
        raise ValueError("one unit is added")

    def put(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([a[:place], b, a[place:]])

    last = dataset.number_of_units
    return Dataset(
        inputs={name: put(array, unit.inputs[name]) for name, array in dataset.inputs.items()},
        labels=put(dataset.labels, unit.labels),
        units=put(dataset.units, np.full(len(unit), last)),
        unit_ids=(*dataset.unit_ids, "the added one"),
        groups={name: put(array, unit.groups[name]) for name, array in dataset.groups.items()},
    )


def with_features(unit: Dataset, value: float) -> Dataset:
    """The same unit with every feature of that value."""
    table = np.full_like(unit.inputs["table"], value)
    return replace(unit, inputs={"table": table})
