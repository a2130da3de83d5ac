"""An evaluation as a release: what it is charged, how much noise it has, and the way through the ring."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hansa.errors import PrivacyParameterError
from hansa.fairness.counting import count
from hansa.fairness.layout import Table, equal_edges
from hansa.fairness.release import EvaluationPlan, evaluation_noise
from hansa.fairness.views import view
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend, numbers_of
from hansa.privacy.randomness import SecretRandomness
from hansa.protocol import table_encoding
from hansa.secagg.errors import SumTermsError
from support.fairness import layout, scored


@pytest.mark.parametrize(
    ("epsilon", "delta", "evaluations"), [(1, 1e-5, 1), (1, 1e-5, 3), (0.5, 1e-6, 2), (2, 1e-5, 1)]
)
def test_the_noise_is_the_smallest_that_keeps_the_budget(epsilon, delta, evaluations):
    plan = EvaluationPlan(layout(), evaluation_noise(epsilon, delta, evaluations), 100, evaluations)
    charge = plan.charge()
    assert epsilon_spent([charge.against(None)], delta) <= epsilon
    less = Spend(charge.with_more_noise(0.998).event, evaluations)
    assert epsilon_spent([less], delta) > epsilon


@pytest.mark.parametrize(("epsilon", "evaluations"), [(0, 1), (51, 1), (math.inf, 1), (math.nan, 1), (1, 0)])
def test_budgets_without_a_meaning_are_refused(epsilon, evaluations):
    with pytest.raises(PrivacyParameterError):
        evaluation_noise(epsilon, 1e-5, evaluations)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize(("honest", "colluding"), [(1, 0), (3, 1)])
def test_the_noise_of_a_release_is_what_is_charged(rows, honest, colluding):
    form = layout(rows_per_unit=rows, tables=(Table(("sex",), 1), Table((), 1)))
    plan = EvaluationPlan(form, 3.73, 500, 2, honest, colluding)
    own = numbers_of(plan.charge().event).multiplier
    assert plan.sigma >= 20
    charged = math.sqrt(plan.sigma**2 - 4) / (plan.scale * form.l2_sensitivity)
    assert charged == pytest.approx(own, rel=1e-12)
    if colluding:
        shared = plan.charge().against(colluding)
        assert numbers_of(shared.event).multiplier == pytest.approx(own * math.sqrt(honest))
    draws = plan.release(np.zeros(form.size, dtype=np.int64), SecretRandomness())
    assert abs(np.std(draws) / plan.sigma - 1) < 0.6
    assert np.unique(draws % plan.scale).size > 1  # noise is on the grid, finer than rows


def test_five_members_add_up_in_the_ring():
    rng, plan = np.random.default_rng(5), EvaluationPlan(layout(), 3.73, 400)
    tables = [count(plan.layout, scored(rng, 1000)) for _ in range(5)]
    quantiser = table_encoding(plan, 5)
    total = np.zeros(plan.layout.size, dtype=np.uint32)
    for table in tables:
        total += quantiser.encode(plan.release(table, SecretRandomness()))
    read = plan.read(quantiser.decode(total, 5), 5)
    assert read.noise_sd == pytest.approx(3.73 * math.sqrt(5), rel=1e-3)
    off = read.counts - np.sum(tables, axis=0)
    assert abs(off.std() / read.noise_sd - 1) < 0.25  # 240 cells: 5 standard deviations
    everybody = view(read)
    assert everybody.noise_variance == pytest.approx(12 * read.noise_sd**2)
    assert everybody.counts.sum() == pytest.approx(5000, abs=6 * read.noise_sd * math.sqrt(240))


def test_a_member_is_clamped_before_the_noise():
    plan = EvaluationPlan(layout(), 3.73, 10)
    tables = np.full(plan.layout.size, 10**9, dtype=np.int64)
    tables[0] = -(10**9)
    sent = plan.release(tables, SecretRandomness())
    assert sent.max() <= 10 * plan.scale + 20 * plan.sigma
    assert sent.min() >= -20 * plan.sigma


def test_caps_beyond_the_ring_are_refused():
    with pytest.raises(SumTermsError):
        table_encoding(EvaluationPlan(layout(), 3.73, 2**26), 100)


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.0},
        {"cell_cap": 0},
        {"evaluations": 0},
        {"honest": 2},
        {"honest": 0},
    ],
)
def test_plans_without_a_meaning_are_refused(changes):
    with pytest.raises(PrivacyParameterError):
        EvaluationPlan(**{"layout": layout(), "noise_multiplier": 3.73, "cell_cap": 10} | changes)


def test_vectors_of_another_layout_are_refused():
    plan = EvaluationPlan(layout(), 3.73, 10)
    with pytest.raises(ValueError, match="no tables"):
        plan.release(np.zeros(3, dtype=np.int64), SecretRandomness())
    with pytest.raises(ValueError, match="none of"):
        plan.read(np.zeros(3, dtype=np.int64), 5)


@pytest.mark.parametrize(("bins", "rate"), [(10, 0.5), (10, 0.8), (10, 1.0), (20, 0.8)])
def test_noise_alone_moves_a_groups_true_positive_rate_little(bins, rate):
    """500 positives at ε = 1, δ = 1e-5, one table: 95 % of draws are within 0.04. Real draws, and a fixed table."""
    form = layout(
        attributes={"sex": ("female", "male")}, tables=(Table(("sex",), 1),), edges=equal_edges(bins)
    )
    plan = EvaluationPlan(form, evaluation_noise(1.0, 1e-5, 1), 1000)
    draws = SecretRandomness().noise(plan.sigma, 20_000 * 2 * bins).reshape(-1, 2, bins) / plan.scale
    hits, misses = (
        500 * rate + draws[:, 0, : bins // 2].sum(-1),
        500 * (1 - rate) + draws[:, 1, : bins // 2].sum(-1),
    )
    seen = hits / (hits + misses)
    assert np.quantile(np.abs(seen - rate), 0.95) <= 0.04
    spread = (
        plan.noise_sd(1) * math.sqrt(bins / 2 * ((1 - rate) ** 2 + rate**2)) / 500
    )  # the formula of docs/fairness.md
    assert np.quantile(np.abs(seen - rate), 0.95) == pytest.approx(1.96 * spread, rel=0.05)
