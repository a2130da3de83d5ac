"""What a trainer may show of one unit, by name: the real one shows nothing, a broken one is caught by the same test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from hansa.privacy.sampling import PoissonSampling
from hansa_client.data import Dataset
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.clipping import ClippedSum
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.sampling import KeyedDraws, Units
from support.leagues import frozen_league, table
from support.violations import Build, ViolationError, check_neighbours, with_features, with_unit

AGREEMENT, BUILT = frozen_league(privacy={"steps": 16})  # four steps a round
ENGINE = GradientEngine(BUILT)
PLAN = TrainingPlan.of(AGREEMENT, "a")
D = table(24, 1)
PLACES = [0, 11, 24]


def one_unit(seed: int = 5, records: int = 1) -> Dataset:
    return table(records, seed, units=np.zeros(records, dtype=np.int64))


def two_minds(value: float = 1e3) -> Dataset:
    """A unit of two equal records with different labels: whatever the model believes, one gradient is long."""
    return replace(with_features(one_unit(records=2), value), labels=np.array([0, 1]))


def neighbours(unit: Dataset | None = None, place: int = 11, of: Dataset = D) -> tuple[Dataset, Dataset]:
    return of, with_unit(of, one_unit() if unit is None else unit, min(place, len(of)))


def caught(build: Build, pair: tuple[Dataset, Dataset], why: str, plan: TrainingPlan = PLAN) -> None:
    """The check finds the broken trainer, and finds nothing in the real one on the very same data."""
    check_neighbours(Trainer, ENGINE, pair, plan)
    with pytest.raises(ViolationError, match=why):
        check_neighbours(build, ENGINE, pair, plan)


# --- the real trainer -------------------------------------------------------------------------------------

SAMPLINGS = {
    "poisson": {},
    "truncated-poisson": {"sampling": "truncated-poisson", "max_batch_units": 31},
    "fixed-batches": {"sampling": "fixed-batches"},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_unit_shows_only_within_the_sensitivity(sampling: str, place: int) -> None:
    """Under each way of drawing, whoever is added and wherever, on a dataset that is often cut."""
    agreement = AGREEMENT.derive(privacy=SAMPLINGS[sampling])
    plan = replace(PLAN, sampling=TrainingPlan.of(_frozen_like(agreement), "a").sampling)
    data = table(58, 2)
    moved = []
    for seed in range(3):
        moved += check_neighbours(Trainer, ENGINE, neighbours(one_unit(seed), place, data), plan, seed)
    assert max(moved) > 0.01 * PLAN.grid.sensitivity  # the unit was drawn: the check could have failed
    assert 0 < sum(distance > 0 for distance in moved) <= len(moved)


def _frozen_like(agreement):
    return replace(agreement, frozen=AGREEMENT.frozen)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 1e4, 1e38, 3.4e38, np.inf, -np.inf, np.nan])
def test_gradients_of_any_size_stay_within_the_sensitivity(value: float) -> None:
    """Zero, denormal, huge, infinite and NaN features, which no encoder lets through and a model may make."""
    check_neighbours(Trainer, ENGINE, neighbours(with_features(one_unit(), value)), PLAN)


@pytest.mark.parametrize("records", [2, 7])
def test_all_records_of_a_patient_are_one_contribution(records: int) -> None:
    data = table(24, 3, units=np.arange(24) // 3)
    moved = check_neighbours(Trainer, ENGINE, neighbours(one_unit(4, records), 12, data), PLAN)
    assert max(moved) > 0


def test_a_whole_run_takes_the_steps_that_are_charged() -> None:
    """FLamby counted epochs where it ran steps: 15 instead of 1,500."""
    from support.recorders import Recorder

    spend, recorder = PLAN.spend(), Recorder()
    assert spend is not None
    trainer = Trainer(ENGINE, D, PLAN)
    for _ in range(AGREEMENT.terms.training.rounds):
        trainer.train(np.zeros(BUILT.flat.size), recorder)
    assert sum(call[0] == "noise" for call in recorder.asked) == spend.count == 16


# --- normalisers ------------------------------------------------------------------------------------------


class Broken(Trainer):
    """A trainer whose step a test replaces."""

    def _step(self, descent, drawn: Units, randomness) -> None:
        descent.weights -= self._plan.learning_rate * self._mean_gradient(drawn, randomness)
        built = self._engine.built
        built.flat.load(built.module, descent.weights)

    def _noisy(self, drawn: Units, randomness) -> npt.NDArray[np.float64]:
        clipped, plan = self.clipped_sum(drawn), self._plan
        return (clipped.values + randomness.noise(plan.sigma, plan.grid.dimension)) / plan.grid.scale


class DividesByItsData(Broken):
    """Opacus 1.6, issues 571 and 819: the expected batch size from len(dataset)."""

    def _mean_gradient(self, drawn, randomness):
        return self._noisy(drawn, randomness) / (self._plan.sampling_rate * self._data.number_of_units)


def test_data_dependent_normaliser() -> None:
    caught(DividesByItsData, neighbours(), "update")


class DividesByItsBatch(Broken):
    """The mean over the realised batch."""

    def _mean_gradient(self, drawn, randomness):
        return self._noisy(drawn, randomness) / max(1, len(drawn))


def test_batch_size_leak() -> None:
    caught(DividesByItsBatch, neighbours(), "update")


class StandardisesItsData(Trainer):
    """Features scaled by the member's own mean, as FLamby's centres do: every record follows every other."""

    def __init__(self, engine, dataset, plan):
        table_ = dataset.inputs["table"]
        super().__init__(engine, replace(dataset, inputs={"table": table_ - table_.mean(0)}), plan)


def test_statistics_of_the_data_in_the_inputs() -> None:
    caught(StandardisesItsData, neighbours(with_features(one_unit(), 300.0)), "sensitivity")


# --- what a gradient can hold -----------------------------------------------------------------------------


class ClipsByHand(Trainer):
    """min(1, C / ‖g‖) without a look at what is not finite: 1 for NaN, as in Opacus and in Flower."""

    def clipped_sum(self, drawn):
        total = np.zeros(self._plan.grid.dimension)
        for records, _ in self._microbatches(drawn):
            parts = [g.flatten(1).double() for g in self._engine.per_record(*self._batch(records))]
            rows = torch.cat(parts, 1).numpy()
            norms = np.linalg.norm(rows, axis=1)
            factors = np.array([min(1.0, 1.0 / norm) if norm else 1.0 for norm in norms])
            total += (rows * factors[:, None]).sum(0)
        with np.errstate(invalid="ignore"):
            return ClippedSum(np.rint(total * self._plan.grid.scale).astype(np.int64), self._plan.grid)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_injection(value: float) -> None:
    caught(ClipsByHand, neighbours(with_features(one_unit(), value)), "sensitivity")


class RefusesNan(Trainer):
    """An assertion that stops the round: the member's absence tells that somebody is there."""

    def clipped_sum(self, drawn):
        found = super().clipped_sum(drawn)
        if self.observed.non_finite_units:
            raise ArithmeticError("a gradient is not finite")
        return found


def test_a_crash_on_one_unit_is_a_leak_as_well() -> None:
    caught(RefusesNan, neighbours(with_features(one_unit(), np.nan)), "control flow")


class ForgetsToClip(Trainer):
    """Sums as they are."""

    def clipped_sum(self, drawn):
        total = self._plain_sum(drawn) * self._plan.grid.scale
        return ClippedSum(np.rint(total).astype(np.int64), self._plan.grid)


def test_forgotten_clipping() -> None:
    caught(ForgetsToClip, neighbours(two_minds()), "sensitivity")


# --- how often ---------------------------------------------------------------------------------------------


class TakesTheMeanOfTwo(Broken):
    """Two noisy sums of one batch under the charge of one."""

    def _mean_gradient(self, drawn, randomness):
        both = [self._noisy(drawn, randomness) for _ in range(2)]
        return sum(both) / 2 / self._plan.divisor


class NoisesOnce(Broken):
    """The same noise in every step: two steps' difference holds none."""

    kept = None

    def _mean_gradient(self, drawn, randomness):
        plan = self._plan
        if self.kept is None:
            self.kept = randomness.noise(plan.sigma, plan.grid.dimension)
        return (self.clipped_sum(drawn).values + self.kept) / plan.grid.scale / plan.divisor


class LooksAgain(Broken):
    """The noisy sum, and a little of the sum itself."""

    def _mean_gradient(self, drawn, randomness):
        noisy = self._noisy(drawn, randomness) / self._plan.divisor
        return noisy + 1e-9 * self._plain_sum(drawn)


@pytest.mark.parametrize(
    ("broken", "why"), [(TakesTheMeanOfTwo, "steps"), (NoisesOnce, "steps"), (LooksAgain, "update")]
)
def test_double_spending(broken: Build, why: str) -> None:
    caught(broken, neighbours(), why)


class StopsWhenItIsGood(Trainer):
    """As many steps as the data ask for."""

    def train(self, weights, randomness):
        self._plan = replace(self._plan, steps_per_round=1 + self._data.number_of_units % 2)
        return super().train(weights, randomness)


def test_the_number_of_steps_follows_the_data() -> None:
    caught(StopsWhenItIsGood, neighbours(), "control flow")


class SkipsEmptyBatches(Trainer):
    """Opacus' distributed sampler: a batch without a unit is no step."""

    def __init__(self, engine, dataset, plan):
        super().__init__(engine, dataset, plan)
        self._draws = _Full(self._draws)


class _Full:
    def __init__(self, draws: KeyedDraws) -> None:
        self._draws = draws

    def batches(self, randomness, steps: int) -> Iterator[Units]:
        return (batch for batch in self._draws.batches(randomness, steps) if len(batch))


def test_skipped_empty_batches() -> None:
    nobody = table(0, 1)
    caught(SkipsEmptyBatches, neighbours(of=nobody, place=0), "control flow")


class NoNoiseOnNothing(Broken):
    """An empty batch has nothing to hide."""

    def _mean_gradient(self, drawn, randomness):
        if not len(drawn):
            return np.zeros(self._plan.grid.dimension)
        return self._noisy(drawn, randomness) / self._plan.divisor


def test_empty_batches_without_noise() -> None:
    caught(NoNoiseOnNothing, neighbours(of=table(0, 1), place=0), "control flow")


# --- who is drawn ------------------------------------------------------------------------------------------


class Weighted:
    """WeightedRandomSampler, Opacus issues 600 and 813: rates that sum to one over the data, charged as Poisson."""

    def __init__(self, dataset: Dataset) -> None:
        rare = np.bincount(dataset.labels, minlength=2)[dataset.labels]
        self._weights = (1 / rare) / (1 / rare).sum()

    def batches(self, randomness, steps: int) -> Iterator[Units]:
        for _ in range(steps):
            generator = np.random.default_rng(list(randomness.key()))
            yield np.unique(generator.choice(len(self._weights), 12, p=self._weights))


def test_weighted_sampling() -> None:
    caught(
        lambda engine, data, plan: Trainer(engine, data, plan, Weighted(data)), neighbours(), "sensitivity"
    )


class Shuffled:
    """A shuffled loader, as FLamby and many trainers run while they charge Poisson: every batch follows every unit."""

    def __init__(self, units: int) -> None:
        self._units = units

    def batches(self, randomness, steps: int) -> Iterator[Units]:
        order = np.random.default_rng(list(randomness.key())).permutation(self._units)
        randomness.key(), randomness.key(), randomness.key()
        return iter(np.array_split(order, steps))


def test_shuffled_batches() -> None:
    caught(
        lambda engine, data, plan: Trainer(engine, data, plan, Shuffled(data.number_of_units)),
        neighbours(),
        "sensitivity",
    )


class FixedByPlace:
    """Fixed batches by row: one record more at the front moves every batch."""

    def __init__(self, units: int) -> None:
        self._units = units

    def batches(self, randomness, steps: int) -> Iterator[Units]:
        for step in range(steps):
            if step % 2 == 0:
                randomness.key()
            yield np.arange(self._units)[step % 2 :: 2]


def test_fixed_batches_by_row() -> None:
    agreement = _frozen_like(AGREEMENT.derive(privacy={"sampling": "fixed-batches"}))
    plan = replace(PLAN, sampling=TrainingPlan.of(agreement, "a").sampling)
    first = with_unit(D, one_unit(), 0)
    order = np.argsort(first.units != D.number_of_units, kind="stable")  # the added one is unit 0
    moved = first.take(order)
    moved = replace(moved, units=np.arange(25), unit_ids=("the added one", *D.unit_ids))
    caught(
        lambda engine, data, plan: Trainer(engine, data, plan, FixedByPlace(data.number_of_units)),
        (D, moved),
        "sensitivity",
        plan,
    )


class TreatsRecordsAsUnits(Trainer):
    """Each record of a patient is drawn and clipped by itself, and the patient is what is promised."""

    def __init__(self, engine, dataset, plan):
        rows = tuple(map(str, range(len(dataset))))
        super().__init__(engine, replace(dataset, units=np.arange(len(dataset)), unit_ids=rows), plan)


def test_duplicate_unit_ids() -> None:
    """One patient with twelve encounters: one contribution here, up to twelve where each is a unit of its own."""
    records = with_features(one_unit(4, 12), 1.0)
    unit = replace(records, labels=np.zeros(12, dtype=np.int64))
    caught(TreatsRecordsAsUnits, neighbours(unit, place=24), "sensitivity")
    with pytest.raises(ValueError, match="same id"):
        replace(D, unit_ids=("0", *D.unit_ids[:-1]))


class KeyedByContent:
    """Draws by what a record holds: two records of the same content are drawn together for ever."""

    def __init__(self, dataset: Dataset, sampling: PoissonSampling) -> None:
        self._draws = KeyedDraws([str(i) for i in range(len(dataset))], sampling)
        content = [row.tobytes() for row in dataset.inputs["table"]]
        self._first = np.array([content.index(one) for one in content])

    def batches(self, randomness, steps: int) -> Iterator[Units]:
        for batch in self._draws.batches(randomness, steps):
            yield np.flatnonzero(np.isin(self._first, batch))


def test_units_of_equal_content_are_drawn_independently() -> None:
    """Twins' draws: a sum in which one shows would show the other; found by counting, not by a distance."""
    twins = with_features(table(2, 1), 0.5)
    from support.recorders import Recorder

    def together(draws) -> float:
        return float(np.mean([len(batch) in (0, 2) for batch in draws.batches(Recorder(), 400)]))

    assert together(KeyedByContent(twins, PoissonSampling(0.5))) == 1.0
    assert 0.4 < together(KeyedDraws(twins.unit_ids, PoissonSampling(0.5))) < 0.6


# --- passes over the data ----------------------------------------------------------------------------------

SMALL_PASSES = replace(PLAN, physical_batch_size=3)


class DropsTheLast(Trainer):
    """A loader with drop_last: whether two other units count depends on one."""

    def _microbatches(self, drawn):
        return (
            each for each in super()._microbatches(drawn) if len(each[0]) == self._plan.physical_batch_size
        )


class ClipsPasses(Trainer):
    """Clips the mean of each pass: one unit in a pass of three turns the others' mean with it."""

    def clipped_sum(self, drawn):
        total = np.zeros(self._plan.grid.dimension)
        for records, _ in self._microbatches(drawn):
            parts = self._engine.summed(*self._batch(records))
            mean = np.concatenate([g.double().flatten().numpy() for g in parts]) / len(records)
            total += len(records) * mean / max(1.0, float(np.linalg.norm(mean)))
        return ClippedSum(np.rint(total * self._plan.grid.scale).astype(np.int64), self._plan.grid)


@pytest.mark.parametrize(
    ("broken", "unit"),
    [(DropsTheLast, with_features(one_unit(), 1e3)), (ClipsPasses, two_minds())],
    ids=["drop_last", "clips the mean of a pass"],
)
def test_data_dependent_microbatching(broken: Build, unit: Dataset) -> None:
    caught(broken, neighbours(unit), "sensitivity", SMALL_PASSES)
