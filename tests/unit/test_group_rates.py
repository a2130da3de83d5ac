"""Rates of drawing by group: what an agreement may say, who is drawn how often, and what is charged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hansa.errors import AgreementError, PrivacyParameterError, TrainingError, UsageError
from hansa.planning.mitigation import rates_planned
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import charges_of
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.privacy.group_rates import epsilon_at_rate
from hansa.privacy.randomness import SecretRandomness
from hansa.privacy.sampling import GroupSampling, PoissonSampling, sampling_of
from hansa_client.attack.trainers import of_no_group
from hansa_client.data import Dataset
from hansa_client.training import TrainingPlan
from hansa_client.training.sampling import KeyedDraws, keyed_draws, unit_rates
from hansa_simulations import Derivation
from support.leagues import frozen_league, terms_of
from support.recorders import Recorder

SAMPLING = GroupSampling(0.4, "sex", (("female", 0.25), ("male", 1.0)))


def held(codes: list[int], units: list[int] | None = None) -> Dataset:
    """Records of these groups, -1 for none; each a unit of its own unless told."""
    of = np.arange(len(codes)) if units is None else np.array(units)
    return Dataset(
        inputs={"table": np.zeros((len(codes), 1), dtype=np.float32)},
        labels=np.zeros(len(codes), dtype=np.int64),
        units=of.astype(np.int64),
        unit_ids=tuple(f"unit-{i}" for i in range(len(set(of.tolist())))),
        groups={"sex": np.array(codes, dtype=np.int16)},
    )


def agreed(**rates: float):
    """An agreement that draws by sex."""
    base = terms_of()
    data = {
        **base.terms.data.tree(),
        "groups": [{"kind": "category", "name": "sex", "values": ["female", "male"]}],
    }
    return base.derive(
        data={k: v for k, v in data.items() if v is not None},
        mitigation={"sampling": {"attribute": "sex", "rates": rates}},
    )


# --- what an agreement may say -----------------------------------------------------------------------------


def test_the_agreed_rate_is_the_largest_and_the_one_that_is_charged():
    terms = agreed(female=0.25, male=1.0).terms
    sampling, rate = sampling_of(terms), terms.privacy.sampling_rate
    assert isinstance(sampling, GroupSampling)
    assert sampling.rates == {"female": 0.25 * rate, "male": rate}
    plain = terms_of().terms
    assert charges_of(terms, 2.0) == charges_of(plain, 2.0)
    assert sampling.event(2.0) == PoissonSampling(rate).event(2.0)


def test_rates_are_terms_and_their_order_is_not():
    one, other = agreed(female=0.25, male=1.0), agreed(male=1.0, female=0.25)
    assert one.terms_id == other.terms_id
    assert one.terms_id != agreed(female=0.5, male=1.0).terms_id
    assert "mitigation" not in terms_of().terms.tree()  # ids of agreements without it stay what they were


@pytest.mark.parametrize(
    ("rates", "place"),
    [
        ({"female": 0.5, "male": 0.5}, "mitigation.sampling.rates"),  # nobody at the accounted rate
        ({"male": 1.0}, "mitigation.sampling.rates"),
        ({"female": 0.5, "male": 1.0, "unknown": 1.0}, "mitigation.sampling.rates.unknown"),
        ({"female": 0.0, "male": 1.0}, "mitigation.sampling.rates.female"),
        ({"female": 1.5, "male": 1.0}, "mitigation.sampling.rates.female"),
        ({"female": float("nan"), "male": 1.0}, "mitigation.sampling.rates.female"),
        ({}, "mitigation.sampling.rates"),
    ],
)
def test_wrong_rates_are_told_with_their_place(rates, place):
    with pytest.raises(AgreementError) as refused:
        agreed(**rates)
    assert any(problem.place == place for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"privacy": {"sampling": "fixed-batches"}}, "mitigation.sampling"),
        ({"privacy": {"sampling": "truncated-poisson", "max_batch_units": 45}}, "mitigation.sampling"),
        (
            {"mitigation": {"sampling": {"attribute": "age", "rates": {"female": 1.0, "male": 1.0}}}},
            "mitigation.sampling.attribute",
        ),
    ],
)
def test_what_does_not_go_with_rates_by_group_is_refused(changes, place):
    with pytest.raises(AgreementError) as refused:
        agreed(female=0.25, male=1.0).derive(**changes)
    assert place in [problem.place for problem in refused.value.problems]


def test_terms_that_no_rule_has_seen_are_refused_as_well():
    terms = agreed(female=0.25, male=1.0).terms
    section = terms.mitigation
    for rates in ({"female": 2.0, "male": 1.0}, {"male": 1.0}):
        sampling = section.sampling.model_copy(update={"rates": rates})
        broken = terms.model_copy(update={"mitigation": section.model_copy(update={"sampling": sampling})})
        with pytest.raises(PrivacyParameterError):
            sampling_of(broken)


def test_the_command_line_takes_mitigation_away_and_nothing_else():
    plain = Derivation(no_mitigation=True).apply(agreed(female=0.25, male=1.0))
    assert plain.terms_id == agreed(female=0.25, male=1.0).derive(mitigation=None).terms_id
    assert "no mitigation" in Derivation(no_mitigation=True).changes()[0]
    with pytest.raises(UsageError):
        Derivation(no_mitigation=True).apply(plain)


def test_a_plan_tells_what_each_group_would_lose_by_itself():
    terms = agreed(female=0.25, male=1.0).terms
    planned = rates_planned(terms, 2.0)
    (charge,) = charges_of(terms, 2.0)
    assert planned.epsilons["male"] == epsilon_spent([charge.against(None)], terms.privacy.delta)
    assert planned.epsilons["female"] < planned.epsilons["male"]
    assert planned.as_dict()["groups"]["female"]["rate"] == 0.25 * terms.privacy.sampling_rate
    assert "charged at the largest rate" in " ".join(planned.text().split())
    assert rates_planned(terms_of().terms, 2.0) is None


# --- who is drawn ------------------------------------------------------------------------------------------


def test_each_group_is_drawn_at_its_own_rate():
    codes = [0] * 2000 + [1] * 2000
    counts = np.zeros(4000)
    for batch in keyed_draws(held(codes), SAMPLING).batches(SecretRandomness(), 50):
        counts[batch] += 1
    female, male = counts[:2000].sum() / 1e5, counts[2000:].sum() / 1e5
    assert abs(female - 0.1) < 6 * (0.1 * 0.9 / 1e5) ** 0.5
    assert abs(male - 0.4) < 6 * (0.4 * 0.6 / 1e5) ** 0.5


def test_a_units_rate_is_the_largest_of_its_records():
    records = held([0, 0, 1, -1, 0, 0], units=[0, 1, 1, 2, 2, 3])
    assert unit_rates(records, SAMPLING).tolist() == [0.1, 0.4, 0.4, 0.1]
    assert unit_rates(records, PoissonSampling(0.4)) is None
    assert unit_rates(held([]), SAMPLING).tolist() == []


def test_rates_that_are_all_the_same_draw_what_one_rate_draws():
    ids = [f"unit-{i}" for i in range(300)]
    same = GroupSampling(0.4, "sex", (("female", 1.0), ("male", 1.0)))
    by_group = list(KeyedDraws(ids, same, np.full(300, 0.4)).batches(Recorder(3), 5))
    by_one = list(KeyedDraws(ids, PoissonSampling(0.4)).batches(Recorder(3), 5))
    assert all(np.array_equal(a, b) for a, b in zip(by_group, by_one, strict=True))


def test_at_a_rate_of_one_everybody_is_drawn():
    everybody = GroupSampling(1.0, "sex", (("female", 0.25), ("male", 1.0)))
    for batch in keyed_draws(held([1] * 50), everybody).batches(SecretRandomness(), 20):
        assert len(batch) == 50


def test_records_without_the_attribute_are_a_local_error_that_says_what_to_do():
    records = replace(held([0, 1]), groups={})
    with pytest.raises(TrainingError, match="'sex'") as refused:
        keyed_draws(records, SAMPLING)
    assert "columns" in refused.value.what_to_do


@pytest.mark.parametrize(
    "rates", [np.array([0.4, 0.5]), np.array([0.0, 0.4]), np.array([0.4, np.nan]), np.array([0.4]), None]
)
def test_no_unit_is_drawn_at_a_rate_that_is_not_accounted(rates):
    with pytest.raises(TrainingError):
        KeyedDraws(["a", "b"], SAMPLING, rates)


def test_rates_of_units_mean_nothing_where_all_are_drawn_at_one():
    with pytest.raises(TrainingError):
        KeyedDraws(["a"], PoissonSampling(0.4), np.array([0.4]))


def test_canaries_of_an_attack_are_drawn_at_the_rate_that_is_claimed():
    plan = replace(TrainingPlan.of(frozen_league()[0], "a"), sampling=SAMPLING)
    canaries = of_no_group(replace(held([0, 0]), groups={}), plan)
    assert unit_rates(canaries, SAMPLING).tolist() == [SAMPLING.rate] * 2
    plain = replace(held([0]), groups={})
    assert of_no_group(plain, replace(plan, sampling=PoissonSampling(0.4))) is plain


# --- what it costs -----------------------------------------------------------------------------------------


def test_a_unit_that_is_drawn_more_rarely_loses_less_and_never_more_than_is_charged():
    spends = [Spend(poisson_gaussian(0.4, 2.0), 20)]
    charged = epsilon_spent(spends, 1e-5)
    losses = [epsilon_at_rate(spends, 1e-5, rate) for rate in (0.01, 0.1, 0.4)]
    assert losses == sorted(losses)
    assert losses[-1] == charged
    with pytest.raises(PrivacyParameterError):
        epsilon_at_rate(spends, 1e-5, 0.5)


def test_what_is_not_sampled_costs_every_group_the_same():
    table = [Spend(gaussian(4.0), 1)]
    assert epsilon_at_rate(table, 1e-5, 0.01) == epsilon_spent(table, 1e-5)
