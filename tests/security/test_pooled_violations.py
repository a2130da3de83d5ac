"""What a member's part of a pooled step may show of one unit: the real one shows nothing, broken ones are caught.

As `test_training_violations`, for the release of the distributed mechanism: the noise is replaced by what turns the clamped
sum into an output that was fixed beforehand, the same for two neighbouring datasets. Whatever then differs has come by
another way than through a noisy sum of bounded sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hansa.errors import PrivacyParameterError, TrainingError
from hansa.privacy.rotation import Rotation
from hansa.privacy.sampling import TruncatedSampling
from hansa.privacy.truncation import LONGEST_STEP
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, TrainingPlan
from hansa_client.training.adapting import AdaptedStep
from hansa_client.training.clipping import ClippedSum
from hansa_client.training.gradients import GradientEngine
from support.leagues import table
from support.pooling import frozen, pooled_league
from support.recorders import Recorder
from support.violations import ViolationError, output, with_features, with_unit

AGREEMENT, BUILT = pooled_league()
ENGINE = GradientEngine(BUILT)
PLAN = TrainingPlan.of(AGREEMENT, "a")
ADAPTED = TrainingPlan.of(
    frozen(mitigation={"clipping": {"smallest": 0.1, "largest": 2.0, "quantile": 0.4, "noise_share": 0.3}})[
        0
    ],
    "a",
)
WEIGHTED = TrainingPlan.of(
    frozen(
        mitigation={
            "clipping": {"smallest": 0.1, "largest": 2.0, "noise_share": 0.1},
            "weights": {"attribute": "side", "smallest": 0.2, "largest_loss": 0.5, "noise_share": 0.3},
        }
    )[0],
    "a",
)
ROTATED = TrainingPlan.of(frozen(privacy={"rotation": "randomized-hadamard"})[0], "a")
D = table(24, 1)
Build = Callable[[GradientEngine, Dataset, TrainingPlan], PooledTrainer]


def one_unit(seed: int = 5, records: int = 1) -> Dataset:
    return table(records, seed, units=np.zeros(records, dtype=np.int64))


def neighbours(unit: Dataset | None = None, place: int = 11, of: Dataset = D) -> tuple[Dataset, Dataset]:
    return of, with_unit(of, one_unit() if unit is None else unit, place)


@dataclass
class Trace:
    """Every call of the mechanism with shapes and public numbers; the sums before noise; what came out."""

    flow: list[tuple[Any, ...]] = field(default_factory=list)
    sums: list[npt.NDArray[np.int64]] = field(default_factory=list)
    made: npt.NDArray[np.int64] | None = None


class _Mechanism(Recorder):
    """Adds what turns the clamped sum into the fixed output, which lies beyond the clamp."""

    def __init__(self, trace: Trace, plan: TrainingPlan, seed: int) -> None:
        super().__init__(seed)
        self._trace, self._plan = trace, plan

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        self._trace.flow.append(("noise", sigma, size))
        clamp = self._plan.clamp or 0
        last = self._trace.sums[-1] if self._trace.sums else np.zeros(size, dtype=np.int64)
        return fixed(self._plan, self.seed, size) - np.clip(last, -clamp, clamp)


def fixed(plan: TrainingPlan, seed: int, size: int) -> npt.NDArray[np.int64]:
    """The output of a step: some of it far beyond the clamp, as noise may carry it."""
    return output(seed, 0, size) * (1 + (plan.clamp or 0))


def traced(
    build: Build, data: Dataset, plan: TrainingPlan, seed: int, adapted: Sequence[float] = ()
) -> Trace:
    trace = Trace()
    trainer = build(ENGINE, data, plan)
    real = trainer._sums.clipped_sum

    def watched(drawn: npt.NDArray[np.int64], rotation: Rotation | None, adapted: Any) -> Any:
        found = real(drawn, rotation, adapted)
        trace.flow.append(("sum", found.values.shape, str(found.values.dtype), found.grid))
        trace.sums.append(found.values)
        return found

    trainer._sums.clipped_sum = watched  # type: ignore[method-assign]
    rotation = Rotation(BUILT.flat.size, f"{seed}".encode()) if plan.rotated else None
    weights = np.linspace(-0.5, 0.5, BUILT.flat.size)
    now = None if plan.adapts is None else np.array(adapted or plan.adapts.first)
    trace.made = trainer.train(weights, _Mechanism(trace, plan, seed), rotation, now)
    return trace


def check_neighbours(
    build: Build,
    pair: tuple[Dataset, Dataset],
    plan: TrainingPlan,
    seed: int = 0,
    adapted: Sequence[float] = (),
) -> float:
    """Hold two runs against each other; the distance of the sums that were noised, in grid units."""
    one, two = (traced(build, data, plan, seed, adapted) for data in pair)
    if one.flow != two.flow:
        raise ViolationError(f"control flow: {one.flow} on one and {two.flow} on the other")
    if [call[0] for call in one.flow] != ["sum", "noise"]:
        raise ViolationError("steps: not one sum and one share")
    assert plan.grid is not None
    if one.flow[1][1:] != (plan.sigma, plan.grid.dimension):
        raise ViolationError("noise: not of the size that is charged, or not on every coordinate")
    for trace in (one, two):
        if (
            trace.made is None
            or trace.made.dtype != np.int64
            or not np.array_equal(trace.made, fixed(plan, seed, plan.grid.dimension))
        ):
            raise ViolationError("release: not the clamped sum and the noise, added up")
    assert plan.clamp is not None
    clamped = [np.clip(trace.sums[0], -plan.clamp, plan.clamp).tolist() for trace in (one, two)]
    distance = math.dist(*clamped)
    bound = plan.grid.sensitivity * (LONGEST_STEP if isinstance(plan.sampling, TruncatedSampling) else 1.0)
    if distance > bound:
        raise ViolationError(f"sensitivity: {distance:.6g} is above the stated {bound:.6g}")
    return distance


# --- the real one -----------------------------------------------------------------------------------------


PLANS = pytest.mark.parametrize(
    "plan", [PLAN, ROTATED, ADAPTED, WEIGHTED], ids=["plain", "rotated", "adapted", "weighted"]
)


@PLANS
@pytest.mark.parametrize("place", [0, 11, 24])
def test_a_unit_shows_only_within_the_sensitivity(place: int, plan: TrainingPlan) -> None:
    moved = [
        check_neighbours(PooledTrainer, neighbours(one_unit(seed), place), plan, seed) for seed in range(8)
    ]
    assert PLAN.grid is not None
    assert max(moved) > 0.01 * PLAN.grid.sensitivity  # the unit was drawn: the check could have failed
    assert min(moved) == 0  # and it was not always


def test_batches_that_are_cut_keep_within_their_event() -> None:
    sampling = {"sampling": "truncated-poisson", "max_batch_units": 31}
    terms = replace(AGREEMENT.derive(privacy=sampling), frozen=AGREEMENT.frozen)
    plan = replace(PLAN, sampling=TrainingPlan.of(terms, "a").sampling)
    data = table(58, 2)
    assert (
        max(check_neighbours(PooledTrainer, neighbours(one_unit(s), 9, data), plan, s) for s in range(6)) > 0
    )


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e4, 3.4e38, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("clamp", [None, 3])
@PLANS
def test_gradients_of_any_size_stay_within_the_sensitivity(
    value: float, clamp: int | None, plan: TrainingPlan
) -> None:
    """Also where coordinates are cut: cutting brings two sums no further apart."""
    plan = plan if clamp is None else replace(plan, clamp=clamp)
    check_neighbours(PooledTrainer, neighbours(with_features(one_unit(), value)), plan)


def test_all_records_of_a_patient_are_one_contribution() -> None:
    data = table(24, 3, units=np.arange(24) // 3)
    moved = [check_neighbours(PooledTrainer, neighbours(one_unit(4, 7), 12, data), PLAN, s) for s in range(4)]
    assert max(moved) > 0


# --- broken ones ------------------------------------------------------------------------------------------


class Broken(PooledTrainer):
    """One whose step a test replaces."""

    def _step(self, weights: Any, randomness: Any, rotation: Any, adapted: Any) -> Any:
        (drawn,) = self._draws.batches(randomness, 1)
        return self.spoilt(drawn, self._clamped(drawn, weights, rotation, adapted), randomness)

    def spoilt(self, drawn: Any, clamped: Any, randomness: Any) -> Any:
        raise NotImplementedError


class ClampsAfterTheNoise(Broken):
    """A ring that saturates: what is cut depends on the sum, and the noise is no Gaussian any more."""

    def spoilt(self, drawn, clamped, randomness):
        return np.clip(clamped + randomness.noise(self._sigma, self._size), -self._clamp, self._clamp)


class DividesByItsBatch(Broken):
    def spoilt(self, drawn, clamped, randomness):
        return (clamped + randomness.noise(self._sigma, self._size)) // max(1, len(drawn))


class SkipsEmptyAndSmallBatches(Broken):
    def spoilt(self, drawn, clamped, randomness):
        return clamped if len(drawn) % 2 else clamped + randomness.noise(self._sigma, self._size)


class AddsNoNoise(Broken):
    def spoilt(self, drawn, clamped, randomness):
        return clamped


class AddsTheShareOfAnOptimist(Broken):
    """Calibrated to all who are expected, and not to those who are promised."""

    def spoilt(self, drawn, clamped, randomness):
        return clamped + randomness.noise(self._sigma * math.sqrt(2 / 3), self._size)


class NoisesWhereThereIsSomething(Broken):
    def spoilt(self, drawn, clamped, randomness):
        return clamped + np.where(clamped != 0, randomness.noise(self._sigma, self._size), 0)


class RoundsInFloat(Broken):
    def spoilt(self, drawn, clamped, randomness):
        return (clamped + randomness.noise(self._sigma, self._size)).astype(np.float32)


class SumsTheBatchTwice(PooledTrainer):
    """Each unit counts double: what is noised moves by twice the sensitivity."""

    def __init__(self, engine, dataset, plan, draws=None):
        super().__init__(engine, dataset, plan, draws)
        once = self._sums.clipped_sum

        def twice(drawn, rotation, adapted):
            found = once(drawn, rotation, adapted)
            return ClippedSum(found.values * 2, found.grid)

        self._sums.clipped_sum = twice


class StretchesInsteadOfRotating(PooledTrainer):
    """A transform that is not orthonormal, as without its factor."""

    def _clamped(self, drawn, weights, rotation, adapted):
        class Stretched(Rotation):
            def forward(self, values):
                return super().forward(values) * math.sqrt(self.dimension)

        return super()._clamped(drawn, weights, Stretched(self._size, b"stretched"), adapted)


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (ClampsAfterTheNoise, "release"),
        (DividesByItsBatch, "release"),
        (SkipsEmptyAndSmallBatches, "control flow|steps"),
        (AddsNoNoise, "steps"),
        (AddsTheShareOfAnOptimist, "size that is charged"),
        (NoisesWhereThereIsSomething, "release"),
        (RoundsInFloat, "release"),
        (SumsTheBatchTwice, "sensitivity"),
        (StretchesInsteadOfRotating, "sensitivity"),
    ],
)
def test_a_broken_one_is_caught(build: Build, why: str) -> None:
    # a wrong answer about everything: its gradient is as long as the clipping norm
    liar = replace(with_features(one_unit(records=1), 1e3), labels=np.array([0]))
    pair = neighbours(liar, 0, table(0, 0)) if build is NoisesWhereThereIsSomething else neighbours(liar)
    on_many_seeds(PooledTrainer, pair)
    with pytest.raises(ViolationError, match=why):
        on_many_seeds(build, pair)


def on_many_seeds(
    build: Build, pair: tuple[Dataset, Dataset], plan: TrainingPlan = PLAN, adapted: Sequence[float] = ()
) -> None:
    for seed in range(4):
        check_neighbours(build, pair, plan, seed, adapted)


# --- what adapts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [0.1, 0.37, 2.0])
@pytest.mark.parametrize("value", [1e-3, 0.3, 1.0, 1e3, np.nan])
def test_gradient_and_count_together_stay_within_the_sensitivity_whatever_the_norm_is(
    norm: float, value: float
) -> None:
    """Also of a member that was told another norm than all others: the grid is in units of it."""
    moved = [
        check_neighbours(
            PooledTrainer, neighbours(with_features(one_unit(seed), value)), ADAPTED, seed, [norm]
        )
        for seed in range(4)
    ]
    assert (max(moved) == 0) == bool(
        np.isnan(value)
    )  # what is not finite counts for nothing, in no coordinate


BY_GROUP = {"weights": (0.2, 1.0), "rest": (3.0, -1.0, 40.0, 0.5, 60.0)}
WEIGHED = [0.37, *BY_GROUP["weights"], *BY_GROUP["rest"]]


@pytest.mark.parametrize("value", [1e-3, 0.3, 1e3, np.inf, np.nan])
@pytest.mark.parametrize("code", [0, 1, -1])
def test_gradient_losses_and_counts_together_stay_within_the_sensitivity(value: float, code: int) -> None:
    """Of a unit of any group or none, under weights that have moved; its loss may be beyond all bounds."""
    moved = []
    for seed in range(4):
        unit = with_features(one_unit(seed, 2), value)
        unit = replace(unit, labels=np.array([0, 1]), groups={"side": np.full(2, code, dtype=np.int16)})
        moved.append(check_neighbours(PooledTrainer, neighbours(unit), WEIGHTED, seed, WEIGHED))
    assert (max(moved) == 0) == (not np.isfinite(value))


def test_a_patient_of_two_groups_counts_in_none_and_weighs_as_the_heaviest() -> None:
    unit = replace(one_unit(1, 2), groups={"side": np.array([0, 1], dtype=np.int16)})
    data = replace(table(0, 0), unit_ids=())
    for seed in range(8):
        trace = traced(PooledTrainer, with_unit(data, unit, 0), WEIGHTED, seed, WEIGHED)
        other = traced(
            PooledTrainer,
            with_unit(data, replace(unit, groups={"side": np.array([-1, -1], dtype=np.int16)}), 0),
            WEIGHTED,
            seed,
            WEIGHED,
        )
        assert np.array_equal(trace.sums[0], other.sums[0])
        assert not trace.sums[0][-4:].any()
        if trace.sums[0].any():
            return
    raise AssertionError("the unit was never drawn")


class KeepsAllForTheGradient(AdaptedStep):
    """Counts beside a gradient that is as long as the grid allows: together they are longer."""

    def factors(self, norms, margin, units=None):
        return super().factors(norms, margin, units) / self._adapts.gradient_part


class ClipsToTheNormItself(AdaptedStep):
    """Forgets that the grid is in units of the step's norm: at a norm above the agreed one gradients are too long."""

    def factors(self, norms, margin, units=None):
        return super().factors(norms, margin, units) * self._clip / self._norm


class CountsLengths(AdaptedStep):
    """A mean of lengths instead of a share: one unit moves it as far as it likes."""

    def counted(self, norms, sound, margin, units=None):
        return super().counted(norms, sound, margin, units) + norms.sum() * self._norm


class DividesByTheBatch(AdaptedStep):
    """What one unit more moves depends on how many others there are."""

    def counted(self, norms, sound, margin, units=None):
        return super().counted(norms, sound, margin, units) / (0.02 * len(norms)) ** 2


class WeighsTheRareMore(AdaptedStep):
    """Weights that are a mean of one, as in the paper: the heaviest group's are above the clipping norm."""

    def factors(self, norms, margin, units=None):
        return super().factors(norms, margin, units) * (1.6 if self._weights else 1.0)


class CountsLossesAsTheyAre(AdaptedStep):
    """A loss that nothing cuts: a confident model's mistake has any."""

    def counted(self, norms, sound, margin, units=None):
        found = super().counted(norms, sound, margin, units)
        return found if units is None else found + units.losses[sound].sum()


@pytest.mark.parametrize(
    ("broken", "weighted"),
    [
        (KeepsAllForTheGradient, False), (KeepsAllForTheGradient, True), (ClipsToTheNormItself, False), (CountsLengths, False),
        (DividesByTheBatch, False), (DividesByTheBatch, True), (WeighsTheRareMore, True), (CountsLossesAsTheyAre, True),
    ],
)  # fmt: skip
def test_a_broken_adapted_step_is_caught(
    broken: type[AdaptedStep], weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = replace(
        with_features(one_unit(), 1e3), labels=np.array([0]), groups={"side": np.array([1], dtype=np.int16)}
    )
    pair, plan = neighbours(unit), WEIGHTED if weighted else ADAPTED
    now = [2.0, *WEIGHED[1:]] if weighted else [2.0]
    on_many_seeds(PooledTrainer, pair, plan, now)
    monkeypatch.setattr("hansa_client.training.trainer.AdaptedStep", broken)
    with pytest.raises(ViolationError, match="sensitivity"):
        on_many_seeds(PooledTrainer, pair, plan, now)


@pytest.mark.parametrize("norm", [0.0999, 2.001, 0.0, -1.0, math.inf, math.nan])
def test_no_member_clips_to_a_norm_outside_the_agreed_bounds(norm: float) -> None:
    trainer = PooledTrainer(ENGINE, D, ADAPTED)
    with pytest.raises(PrivacyParameterError, match="between the agreed"):
        trainer.train(BUILT.initial_vector(), Recorder(0), None, np.array([norm]))


@pytest.mark.parametrize("weight", [0.19, 1.01, -1.0, math.inf, math.nan])
def test_no_member_weighs_a_group_beyond_the_agreed_bounds(weight: float) -> None:
    trainer = PooledTrainer(ENGINE, D, WEIGHTED)
    with pytest.raises(PrivacyParameterError, match="between the agreed"):
        trainer.train(
            BUILT.initial_vector(), Recorder(0), None, np.array([1.0, weight, 1.0, *BY_GROUP["rest"]])
        )


@pytest.mark.parametrize(("plan", "adapted"), [(ADAPTED, None), (PLAN, np.array([1.0]))])
def test_something_adapts_exactly_where_that_is_agreed(
    plan: TrainingPlan, adapted: npt.NDArray[np.float64] | None
) -> None:
    with pytest.raises(TrainingError, match="exactly where the agreement says so"):
        PooledTrainer(ENGINE, D, plan).train(BUILT.initial_vector(), Recorder(0), None, adapted)


def test_records_without_the_attribute_are_a_local_error_that_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="'side'") as refused:
        PooledTrainer(ENGINE, replace(D, groups={}), WEIGHTED)
    assert "columns" in refused.value.what_to_do
