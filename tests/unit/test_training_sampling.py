"""Draws by keyed hashes: each unit's is its own, and what is drawn has the distribution that is charged."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hansa.errors import PrivacyParameterError, TrainingError
from hansa.privacy.events import Truncation
from hansa.privacy.randomness import PublicSampling, SecretRandomness
from hansa.privacy.sampling import (
    FixedBatches,
    PoissonSampling,
    Sampling,
    TruncatedSampling,
    batches_of,
    sampling_of,
)
from hansa_client.training.sampling import KeyedDraws
from support.leagues import terms_of
from support.recorders import Recorder


def cut(rate: float, most: int, batch: int) -> TruncatedSampling:
    return TruncatedSampling(rate, Truncation(most, batch))


KINDS: dict[str, Sampling] = {
    "poisson": PoissonSampling(0.3),
    "everyone": PoissonSampling(1.0),
    "truncated": cut(0.4, 1000, 9),
    "fixed": FixedBatches(4),
}


def ids(count: int) -> list[str]:
    return [f"patient-{number}" for number in range(count)]


def drawn(units: list[str], sampling: Sampling, steps: int, seed: int = 0) -> list[set[str]]:
    """The batches by id, under a public stream."""
    batches = KeyedDraws(units, sampling).batches(Recorder(seed), steps)
    return [{units[place] for place in batch} for batch in batches]


# --- what is the same on every dataset --------------------------------------------------------------------


@pytest.mark.parametrize("sampling", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("units", [0, 1, 40])
def test_there_are_as_many_batches_as_steps_whatever_the_data(sampling, units):
    recorder = Recorder()
    batches = list(KeyedDraws(ids(units), sampling).batches(recorder, 8))
    assert len(batches) == 8
    assert all(batch.dtype == np.int64 for batch in batches)
    assert all((np.diff(batch) > 0).all() for batch in batches)  # ascending, none twice
    keys = 2 if isinstance(sampling, FixedBatches) else 8
    assert recorder.asked == [("key",)] * keys


@settings(max_examples=60)
@given(
    units=st.lists(st.text(max_size=5), unique=True, max_size=30),
    place=st.integers(0, 30),
    sampling=st.sampled_from([PoissonSampling(0.3), PoissonSampling(0.9), FixedBatches(3)]),
    seed=st.integers(0, 99),
)
def test_a_unit_put_in_anywhere_moves_no_other_units_draw(units, place, sampling, seed):
    """At the end, in the middle or at the front: the others are drawn as before, in each batch."""
    more = [*units[:place], "the added one", *units[place:]]
    before, after = (drawn(each, sampling, 6, seed) for each in (units, more))
    assert [batch - {"the added one"} for batch in after] == before


@settings(max_examples=60)
@given(
    units=st.lists(st.text(max_size=5), unique=True, max_size=20), order=st.randoms(), seed=st.integers(0, 99)
)
def test_the_order_of_records_moves_no_draw(units, order, seed):
    shuffled = list(units)
    order.shuffle(shuffled)
    for sampling in KINDS.values():
        assert drawn(units, sampling, 5, seed) == drawn(shuffled, sampling, 5, seed)


@settings(max_examples=60)
@given(number=st.integers(0, 40), place=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_unit_added_to_a_cut_sample_takes_at_most_one_other_units_place(number, place, seed):
    units = ids(number)
    more = [*units[:place], "the added one", *units[place:]]
    sampling = cut(0.5, 100, 8)
    for before, after in zip(*(drawn(each, sampling, 6, seed) for each in (units, more)), strict=True):
        assert len(after) <= 8
        assert after - before <= {"the added one"}
        assert len(before - after) <= ("the added one" in after)


def test_a_draw_is_of_the_key_and_the_id_alone():
    first, again, other = (drawn(ids(200), PoissonSampling(0.5), 2, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[0] != first[1]  # each step has a key of its own
    public = [
        list(KeyedDraws(ids(200), PoissonSampling(0.5)).batches(PublicSampling(1, "a", r), 1))
        for r in (1, 1, 2)
    ]
    assert np.array_equal(public[0][0], public[1][0])
    assert not np.array_equal(public[0][0], public[2][0])


# --- the distributions that are charged -------------------------------------------------------------------


def test_poisson_sampling_takes_each_unit_with_the_public_rate_and_independently():
    rate, units, steps = 0.3, 400, 600
    draws = np.zeros((steps, units), dtype=bool)
    for step, batch in enumerate(
        KeyedDraws(ids(units), PoissonSampling(rate)).batches(SecretRandomness(), steps)
    ):
        draws[step, batch] = True
    assert abs(draws.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / draws.size)
    sizes = draws.sum(1)
    assert (
        abs(sizes.var() / (units * rate * (1 - rate)) - 1) < 0.4
    )  # a fixed batch size would have variance 0
    assert (
        stats.kstest(sizes + np.random.default_rng(1).random(steps), lambda x: _smooth(x, units, rate)).pvalue
        > 1e-4
    )
    between = np.corrcoef(draws[:, ::8].T)[~np.eye(50, dtype=bool)]
    assert abs(between.mean()) < 0.01  # units
    steps_apart = [np.corrcoef(draws[k], draws[k + 1])[0, 1] for k in range(0, steps - 1, 10)]
    assert abs(np.mean(steps_apart)) < 0.05


def _smooth(x, units, rate):
    """The distribution of a binomial plus a uniform."""
    whole = np.floor(x)
    return stats.binom.cdf(whole - 1, units, rate) + (x - whole) * stats.binom.pmf(whole, units, rate)


@pytest.mark.parametrize("rate", [1.0, 1 - 2**-53, 2**-60, 0.5])
def test_rates_at_the_ends(rate):
    sizes = [len(batch) for batch in KeyedDraws(ids(200), PoissonSampling(rate)).batches(Recorder(), 20)]
    if rate > 0.9:
        assert set(sizes) == {200}
    elif rate < 0.1:
        assert set(sizes) == {0}
    else:
        assert 60 < min(sizes) <= max(sizes) < 140


def test_of_a_sample_that_is_cut_every_part_is_equally_likely():
    """Five units, all drawn but rarely, three places: each of the ten choices as often as any other."""
    sampling = cut(1 - 1e-9, 5, 3)
    seen = Counter(
        tuple(batch.tolist()) for batch in KeyedDraws(ids(5), sampling).batches(SecretRandomness(), 5000)
    )
    assert set(seen) == set(itertools.combinations(range(5), 3))
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


def test_a_sample_that_is_cut_has_the_largest_batch_and_others_are_left_alone():
    sampling = cut(0.4, 100, 9)
    whole = drawn(ids(20), PoissonSampling(0.4), 200)
    short = drawn(ids(20), sampling, 200)
    assert {len(batch) for batch in whole} >= {9, 10, 11}
    for full, left in zip(whole, short, strict=True):
        assert left == full if len(full) <= 9 else (left < full and len(left) == 9)


def test_fixed_batches_hold_each_unit_once_in_an_epoch_and_anew_in_the_next():
    epochs = drawn(ids(100), FixedBatches(5), 15)
    for start in (0, 5, 10):
        epoch = epochs[start : start + 5]
        assert sum(map(len, epoch)) == 100
        assert set.union(*epoch) == set(ids(100))
    assert epochs[:5] != epochs[5:10] != epochs[10:]


def test_fixed_batches_spread_units_evenly():
    sizes = [len(b) for b in KeyedDraws(ids(1000), FixedBatches(10)).batches(SecretRandomness(), 100)]
    assert stats.chisquare(np.reshape(sizes, (10, 10)).sum(0)).pvalue > 1e-4


# --- what is refused --------------------------------------------------------------------------------------


def test_two_units_of_one_id_are_refused():
    with pytest.raises(TrainingError, match="same id"):
        KeyedDraws(["a", "b", "a"], PoissonSampling(0.5))


def test_more_units_than_the_charge_holds_for_are_refused():
    KeyedDraws(ids(10), cut(0.5, 10, 8))
    with pytest.raises(TrainingError, match="more units") as told:
        KeyedDraws(ids(11), cut(0.5, 10, 8))
    assert "11" not in told.value.diagnostics()  # what is said may be seen: how many there are is not


@pytest.mark.parametrize(
    ("rate", "batches"),
    [(1.0, 1), (0.5, 2), (0.1, 10), (1 / 3, 3), (0.3, None), (0.0, None), (1.5, None), (0.99, None)],
)
def test_batches_of_a_share(rate, batches):
    assert batches_of(rate) == batches


def test_an_epoch_is_what_is_counted():
    assert FixedBatches(4).events_in(12) == 3
    assert FixedBatches(4).rate == 0.25
    with pytest.raises(PrivacyParameterError, match="no whole epochs"):
        FixedBatches(4).events_in(10)
    assert PoissonSampling(0.5).events_in(10) == cut(0.5, 10, 8).events_in(10) == 10


def test_terms_say_how_batches_are_drawn():
    assert sampling_of(terms_of().terms) == PoissonSampling(0.5)
    truncated = terms_of(privacy={"sampling": "truncated-poisson", "max_batch_units": 45}).terms
    assert sampling_of(truncated) == cut(0.5, 60, 45)  # the largest member has 60
    fixed = terms_of(privacy={"sampling": "fixed-batches"}).terms
    assert sampling_of(fixed) == FixedBatches(2)
    for broken in (
        truncated.model_copy(
            update={"privacy": truncated.privacy.model_copy(update={"max_batch_units": None})}
        ),
        fixed.model_copy(update={"privacy": fixed.privacy.model_copy(update={"sampling_rate": 0.3})}),
    ):
        with pytest.raises(PrivacyParameterError):
            sampling_of(broken)
