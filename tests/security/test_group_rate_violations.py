"""Rates by group, done right and done as they are often done: what one unit more shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hansa.privacy.sampling import GroupSampling
from hansa_client.data import Dataset
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.clipping import ClippedSum
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.sampling import KeyedDraws, Units
from support.leagues import frozen_league, table
from support.violations import ViolationError, check_neighbours, with_features, with_unit

AGREEMENT, BUILT = frozen_league(privacy={"steps": 16})  # four steps a round
ENGINE = GradientEngine(BUILT)
AGREED = TrainingPlan.of(AGREEMENT, "a")
PLAN = replace(AGREED, sampling=GroupSampling(AGREED.sampling_rate, "sex", (("female", 1.0), ("male", 0.4))))


def of_sex(records: Dataset, *codes: int) -> Dataset:
    """Records of these groups, in turn."""
    return replace(records, groups={"sex": np.resize(np.array(codes, dtype=np.int16), len(records))})


D = of_sex(table(24, 1), 0, 1, 1)


def neighbours(code: int, place: int = 11) -> tuple[Dataset, Dataset]:
    """With and without a patient of two records: whatever the model believes, one of the two gradients is long."""
    records = with_features(table(2, 5, units=np.zeros(2, dtype=np.int64)), 1e3)
    unit = replace(records, labels=np.array([0, 1]))
    return D, with_unit(D, of_sex(unit, code), place)


@pytest.mark.parametrize("code", [0, 1, -1])
def test_a_unit_of_any_group_or_none_shows_only_within_the_sensitivity(code):
    """Control flow, divisor and every other unit's draw are the same with it and without it."""
    moved = []
    for seed in range(4):
        moved += check_neighbours(Trainer, ENGINE, neighbours(code, place=seed * 6), PLAN, seed)
    assert max(moved) > 0.01 * PLAN.grid.sensitivity  # the unit was drawn: the check could have failed
    assert sum(distance > 0 for distance in moved) < len(moved) or code != 1


def caught(build, pair: tuple[Dataset, Dataset], why: str) -> None:
    for seed in range(4):
        check_neighbours(Trainer, ENGINE, pair, PLAN, seed)

    def run() -> None:
        for seed in range(4):
            check_neighbours(build, ENGINE, pair, PLAN, seed)

    with pytest.raises(ViolationError, match=why):
        run()


class Balanced:
    """Rates that make the groups of a batch equally large: one unit more changes how often all of its group are drawn."""

    def __init__(self, data: Dataset) -> None:
        codes = data.groups["sex"]
        share = np.bincount(codes + 1, minlength=3)[codes + 1] / len(codes)
        self._draws = KeyedDraws(
            data.unit_ids, PLAN.sampling, np.minimum(1 / share / 8, 1) * PLAN.sampling.rate
        )

    def batches(self, randomness, steps: int) -> Iterator[Units]:
        return self._draws.batches(randomness, steps)


def test_rates_that_follow_the_data():
    many = replace(D, groups={"sex": np.array([0] * 23 + [1], dtype=np.int16)})
    pair = many, with_unit(many, of_sex(table(1, 5, units=np.zeros(1, dtype=np.int64)), 1), 3)

    def build(engine, data, plan):
        return Trainer(engine, data, plan, Balanced(data))

    caught(build, pair, "sensitivity")


class WeighsAfterClipping(Trainer):
    """A weight on the gradients of the rarer group where their rate should be: the weight is in the sum after clipping."""

    def clipped_sum(self, drawn):
        found = super().clipped_sum(drawn)
        rare = super().clipped_sum(drawn[self._data.groups["sex"][self._records(drawn)] == 0])
        return ClippedSum(found.values + 3 * rare.values, found.grid)

    def _records(self, drawn):
        return np.array([self._records_of_unit[unit][0] for unit in drawn], dtype=np.int64)


def test_weights_on_clipped_gradients():
    caught(WeighsAfterClipping, neighbours(0), "sensitivity")


class DividesByTheDrawn(Trainer):
    """The mean over who was drawn of the rarer group: the divisor tells how many there were."""

    def train(self, weights, randomness):
        rare = int((self._data.groups["sex"] == 0).sum())
        self._plan = replace(self._plan, divisor=self._plan.divisor * 8 / rare)
        return super().train(weights, randomness)


def test_a_divisor_that_follows_the_sizes_of_groups():
    caught(DividesByTheDrawn, neighbours(0), "update")
