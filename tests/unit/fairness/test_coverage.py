"""Intervals hold as often as they say: 10,000 simulations of drawing records and noise, for each case.

Noise of 3.73 rows a cell is ε = 1 at δ = 1e-5 with shared noise; 8.34 is five members' own noise together. The stream is fixed,
so these tests pass always or never.
"""

from __future__ import annotations

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from hansa.fairness.calibration import calibration_error
from hansa.fairness.intervals import Estimate, difference, paired_bounds, ratio, share_bounds
from hansa.fairness.metrics import quantile
from hansa.fairness.ranking import area, area_bounds

TIMES = 10_000
Z = quantile(0.05, 1)
BINS = 10
ONE, OWN = 3.73, 8.34
NORMAL = NormalDist()


def noisy(rng, counts, entries, sd):
    return counts + (np.rint(rng.normal(0, sd * np.sqrt(entries), counts.shape)) if sd else 0)


def covered(low, high, truth):
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize(("records", "prevalence"), list(product((500, 2000, 10_000), (0.2, 0.5))))
@pytest.mark.parametrize("sd", [0.0, ONE, OWN])
def test_of_shares(records, prevalence, sd):
    """A true-positive rate of 10 bins: half of them hits, half misses; the number of positives is drawn too."""
    rng = np.random.default_rng(20)
    for rate in (0.5, 0.8, 0.95):
        positives = rng.binomial(records, prevalence, TIMES)
        right = rng.binomial(positives, rate)
        hits, misses = (noisy(rng, x, BINS / 2, sd) for x in (right, positives - right))
        low, high = share_bounds(hits, misses, BINS / 2 * sd**2, BINS / 2 * sd**2, Z)
        assert 0.94 <= covered(low, high, rate) <= 0.97


@pytest.mark.parametrize(
    ("sd", "sizes", "rates"),
    [(0.0, (300, 900), (0.8, 0.7)), (ONE, (500, 500), (0.9, 0.9)), (OWN, (2000, 250), (0.95, 0.6))],
)
def test_of_a_gap_and_a_ratio_of_two_groups(sd, sizes, rates):
    rng = np.random.default_rng(21)
    ends = []
    for size, rate in zip(sizes, rates, strict=True):
        right = rng.binomial(size, rate, TIMES)
        hits, misses = (noisy(rng, x, BINS / 2, sd) for x in (right, size - right))
        low, high = share_bounds(hits, misses, BINS / 2 * sd**2, BINS / 2 * sd**2, Z)
        ends.append((np.clip(hits / (hits + misses), low, high), low, high))
    pairs = [[Estimate.of(*map(float, x)) for x in zip(*end, strict=True)] for end in ends]
    apart = [difference(a, b) for a, b in zip(*pairs, strict=True)]
    low, high = (np.array([getattr(x, end) for x in apart]) for end in ("low", "high"))
    assert 0.94 <= covered(low, high, rates[0] - rates[1]) <= 0.97
    over = [ratio(a, b) for a, b in zip(*pairs, strict=True)]
    low, high = (np.array([getattr(x, end) for x in over]) for end in ("low", "high"))
    assert 0.94 <= covered(low, high, rates[0] / rates[1]) <= 0.97


@pytest.mark.parametrize("sd", [0.0, ONE, OWN])
def test_of_a_loss_on_pairs(sd):
    rng = np.random.default_rng(22)
    entries = (10, 10, 20)
    for records, lost, won in product((500, 2000, 10_000), (0.02, 0.1), (0.02, 0.05)):
        drawn = rng.multinomial(records, [lost, won, 1 - lost - won], TIMES).T
        b, c, rest = (noisy(rng, x, e, sd) for x, e in zip(drawn, entries, strict=True))
        low, high = paired_bounds(b, c, b + c + rest, Z, entries, sd**2)
        assert 0.94 <= covered(low, high, lost - won) <= 0.97


def binned(auc):
    """Bin probabilities of positives and negatives whose calibrated scores have about this AUC."""
    d = 2**0.5 * NORMAL.inv_cdf(auc)
    cuts = [np.log(edge / (1 - edge)) / d for edge in np.arange(1, BINS) / BINS]
    return [np.diff([0, *(NORMAL.cdf(cut - shift) for cut in cuts), 1]) for shift in (d / 2, -d / 2)]


@pytest.mark.parametrize(("records", "prevalence"), [(1000, 0.5), (4000, 0.1), (10_000, 0.3)])
@pytest.mark.parametrize("sd", [0.0, ONE, OWN])
def test_of_an_area(records, prevalence, sd):
    rng = np.random.default_rng(23)
    for auc in (0.65, 0.8, 0.93):
        of_p, of_n = binned(auc)
        positives = rng.binomial(records, prevalence, TIMES)
        p, n = (rng.multinomial(k, q) for k, q in ((positives, of_p), (records - positives, of_n)))
        _, low, high = area_bounds(noisy(rng, p, 1, sd), noisy(rng, n, 1, sd), sd**2, Z)
        assert 0.94 <= covered(low, high, float(area(of_p, of_n))) <= 0.97


@pytest.mark.parametrize("sd", [ONE, OWN])
def test_of_an_area_where_noise_drowns_a_class_is_never_too_narrow(sd):
    rng = np.random.default_rng(24)
    of_p, of_n = binned(0.8)
    p, n = (rng.multinomial(k, q, TIMES) for k, q in ((60, of_p), (440, of_n)))
    _, low, high = area_bounds(noisy(rng, p, 1, sd), noisy(rng, n, 1, sd), sd**2, Z)
    assert covered(low, high, float(area(of_p, of_n))) >= 0.94


@pytest.mark.parametrize("sd", [0.0, ONE, OWN])
def test_of_a_calibration_error_at_least(sd):
    rng = np.random.default_rng(25)
    edges = tuple(np.arange(1, BINS) / BINS)
    centres = (np.arange(BINS) + 0.5) / BINS
    for off in (0.0, 0.08):
        rate, times = np.clip(centres + off, 0, 1), 1000
        truth = float(np.abs(rate - centres).mean())
        rows = rng.multinomial(3000, np.full(BINS, 1 / BINS), times)
        hits = rng.binomial(rows, rate)
        found = [
            calibration_error(h, m, edges, sd**2, Z).estimate
            for h, m in zip(noisy(rng, hits, 1, sd), noisy(rng, rows - hits, 1, sd), strict=True)
        ]
        low, high = (np.array([getattr(x, end) for x in found]) for end in ("low", "high"))
        assert covered(low, high, truth) >= 0.94
        assert np.median(high - low) < 0.2
