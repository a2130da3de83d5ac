"""Weights of groups that follow their noisy losses: what an agreement may say, what follows, and whom it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hansa.agreement import Agreement
from hansa.cli.agreement import agreement_summary
from hansa.cli.lines import lines
from hansa.errors import AgreementError, PrivacyParameterError, TrainingError
from hansa.models import BuiltModel
from hansa.planning.mitigation import adaptation_planned
from hansa.privacy.adaptation import Adaptation, adaptation_of
from hansa.privacy.charges import charges_of
from hansa.privacy.following import WeightRule
from hansa.protocol import Aggregate, Derivation, shared_noise, starting_state, sum_terms
from hansa.server_step import published_weights
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, TrainingPlan
from hansa_client.training.adapting import AdaptedStep, UnitLosses, unit_groups
from hansa_client.training.clipping import ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from hansa_simulations.derived import without_adaptation, without_mitigation
from hansa_simulations.identities import Identities
from support.leagues import table, terms_of
from support.pooling import Known, frozen

RULE = WeightRule("side", ("left", "right"), 0.5, 0.1, 2.0, 0.5, 0.05)
ADAPTS = Adaptation(1.0, weights=RULE, weights_share=0.1)
WEIGHTS = {"attribute": "side"}


def agreed(**changes: Any) -> Agreement:
    sections = {
        "mitigation": {"weights": {**WEIGHTS, **changes.pop("weights", {})}, **changes.pop("mitigation", {})},
        "training": {"rounds": 8},
        "privacy": {"mechanism": "distributed", **changes.pop("privacy", {})},
        **changes,
    }
    return terms_of(**sections)


# --- what an agreement may say ----------------------------------------------------------------------------


def test_an_agreement_says_whose_losses_weigh():
    adapts = adaptation_of(agreed(weights={"smallest": 0.3}).terms)
    assert adapts is not None
    assert adapts.weights == WeightRule("side", ("left", "right"), 0.5, 0.3, 2.0, 0.8, 0.05)
    assert (adapts.norm, adapts.coordinates, adapts.norm_of(adapts.first)) == (None, 4, 1.0)
    both = agreed(mitigation={"clipping": {"smallest": 0.5, "largest": 2.0}})
    adapts = adaptation_of(both.terms)
    assert adapts is not None
    assert (adapts.coordinates, len(adapts.first)) == (5, 8)
    assert adapts.gradient_part == pytest.approx((1 - 0.05 - 0.01) ** 0.5)
    assert without_adaptation(both).terms.mitigation is None


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"weights": {"attribute": "sex"}}, "mitigation.weights.attribute"),
        ({"weights": {"rate": 0.0}}, "mitigation.weights.rate"),
        ({"weights": {"smallest": 1.5}}, "mitigation.weights.smallest"),
        ({"weights": {"smallest": 0.0}}, "mitigation.weights.smallest"),
        ({"weights": {"memory": 1.0}}, "mitigation.weights.memory"),
        ({"weights": {"largest_loss": 0.05}}, "mitigation.weights.largest_loss"),
        ({"weights": {"smallest_group": 0.0}}, "mitigation.weights.smallest_group"),
        ({"weights": {"noise_share": 0.7}}, "mitigation.weights.noise_share"),
        (
            {"weights": {"noise_share": 0.4}, "mitigation": {"clipping": {"smallest": 0.5, "largest": 2.0, "noise_share": 0.2}}},
            "mitigation.weights.noise_share",
        ),
        ({"mitigation": {"sampling": {"attribute": "side", "rates": {"left": 1.0, "right": 0.5}}}}, "mitigation.weights"),
        ({"privacy": {"mechanism": "local"}}, "mitigation.weights"),
        ({"privacy": {"mechanism": "none"}}, "mitigation.weights"),
        ({"privacy": {"clipping": "per-layer"}}, "mitigation.weights"),
        ({"privacy": {"rotation": "randomized-hadamard"}}, "mitigation.weights"),
        ({"privacy": {"sampling": "truncated-poisson", "max_batch_units": 45}}, "mitigation.weights"),
        ({"baseline": "local-only"}, "mitigation.weights"),
    ],
)  # fmt: skip
def test_what_cannot_weigh_is_told_with_its_place(changes: dict[str, Any], place: str):
    with pytest.raises(AgreementError) as refused:
        agreed(**changes)
    assert place in [problem.place for problem in refused.value.problems]


def test_it_costs_no_epsilon_and_a_plan_says_how_much_noise():
    terms, plain = agreed().terms, without_mitigation(agreed()).terms
    assert charges_of(terms, 2.0) == charges_of(plain, 2.0)
    planned = adaptation_planned(terms, 3, 2.0)
    assert planned is not None
    told = planned.as_dict()
    assert (told["epsilon"], told["clipping"]) == (0.0, None)
    assert told["noise_factor"] == pytest.approx(0.95**-0.5)
    assert planned.group_sd == pytest.approx(2.0 / (0.025**0.5) / 60 * 0.2 / (1 - 0.64) ** 0.5, rel=0.01)
    assert "Weights by side" in planned.text()
    assert adaptation_planned(plain, 3, 2.0) is None


def test_what_check_answers_reads_as_lines():
    both = agreed(mitigation={"clipping": {"smallest": 0.5, "largest": 2.0}})
    told = lines(agreement_summary(both))
    assert "weights by group             attribute side, smallest 0.1" in told
    assert "adaptive clipping            smallest 0.5, largest 2, quantile 0.5" in told
    assert "gradient noise factor        1.03142" in told
    rates = terms_of(mitigation={"sampling": {"attribute": "side", "rates": {"left": 1.0, "right": 0.5}}})
    assert "attribute side, rates (left 0.5, right 0.25)" in lines(agreement_summary(rates))


# --- what follows from sums -------------------------------------------------------------------------------


def test_the_group_with_the_larger_loss_weighs_most():
    now = RULE.first
    for _ in range(40):  # mean losses of 0.5 and 1.5 nats, of 30 and 10 units
        now = RULE.following(now, [-0.5 * 30, 0.5 * 10], [30.0, 10.0], 40.0)
        assert RULE.losses_of(now) == pytest.approx((0.5, 1.5))
    assert RULE.weights_of(now) == (0.1, 1.0)
    first = RULE.following(RULE.first, [-15.0, 5.0], [30.0, 10.0], 40.0)
    assert first[0].hex() == (0.7788007830714049).hex()  # e^(−η/2 · (0.5 + 0.5)), rounded correctly


def test_equal_losses_weigh_the_same_and_old_ones_are_forgotten():
    now = RULE.following(RULE.first, [-3.0, -1.0], [30.0, 10.0], 40.0)
    assert RULE.weights_of(now) == (1.0, 1.0)
    for _ in range(30):
        now = RULE.following(now, [15.0, -5.0], [30.0, 10.0], 40.0)
    assert RULE.weights_of(now) == (1.0, 0.1)


real = st.floats(-1e12, 1e12)


@given(st.lists(st.tuples(real, real, real, real), min_size=1, max_size=20))
def test_weights_stay_between_their_bounds_whatever_the_sums_are(steps: list[tuple[float, ...]]):
    now = RULE.first
    for a, b, c, d in steps:
        now = RULE.following(now, [a, b], [c, d], 40.0)
        weights = RULE.weights_of(now)
        assert max(weights) == 1
        assert min(weights) >= 0.1
        assert all(0 <= loss <= 2.0 for loss in RULE.losses_of(now))


def test_a_group_that_noise_calls_empty_is_taken_to_be_of_the_smallest_size():
    calm = RULE.following(RULE.first, [0.0, 1.0], [40.0, -3.0], 40.0)
    assert RULE.losses_of(calm)[1] == pytest.approx(1.0 + 1.0 / 2.0)  # over 0.05 · 40 units


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"smallest": 1.1}, {"memory": 1.0}, {"smallest_group": 0.0}, {"largest_loss": 0.05}, {"values": ()}]
)  # fmt: skip
def test_a_rule_that_no_agreement_allows_is_refused_as_well(wrong: dict[str, Any]):
    with pytest.raises(PrivacyParameterError):
        replace(RULE, **wrong)


# --- what a member counts ---------------------------------------------------------------------------------


def test_each_unit_counts_its_mean_loss_in_its_group():
    data = table(40, 3, units=np.arange(40) // 2)
    agreement, built = frozen(mitigation={"weights": WEIGHTS})
    plan = TrainingPlan.of(agreement, "a")
    assert plan.grid is not None
    assert plan.adapts is not None
    built.flat.load(built.module, np.linspace(-0.5, 0.5, built.flat.size))
    groups = unit_groups(data, plan.adapts)
    assert groups is not None
    assert {-1, 0, 1} == set(groups.tolist())
    builder = ClippedSumBuilder(plan.grid, None, AdaptedStep(plan.adapts, plan.adapts.first))
    GradientEngine(built).add_clipped(builder, dict(data.inputs), data.labels, data.units, None, groups)
    logits = built.module(torch.from_numpy(data.inputs["table"])).detach()
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels), reduction="none").numpy()
    means = each.reshape(20, 2).mean(1)
    room = plan.grid.scale * plan.grid.clipping_norm * (1 - 2.0**-10) * np.array(plan.adapts.magnitudes)
    expected = [
        *[(np.minimum(means[groups == g], 2.0) - 1.0).sum() for g in (0, 1)],
        *[(groups == g).sum() for g in (0, 1)],
    ]
    assert builder.finish().values[-4:] == pytest.approx(room * expected, abs=1.0)


def test_units_that_came_without_losses_are_no_silent_zero():
    step = AdaptedStep(ADAPTS, ADAPTS.first)
    with pytest.raises(TrainingError, match="groups and losses"):
        step.factors(torch.ones(2), 0.0)
    units = UnitLosses(torch.tensor([torch.nan, 5.0]).double(), torch.tensor([0, 1]))
    sums = step.counted(torch.ones(2).double(), torch.tensor([True, True]), 0.0, units)
    assert (sums / ADAPTS.magnitudes[0]).tolist() == pytest.approx(
        [1.0, 1.0, 1.0, 1.0]
    )  # as the largest loss


# --- whom it serves ---------------------------------------------------------------------------------------

UNITS = {"a": 600, "b": 400, "c": 200}
STEPS = 25


def applicants(count: int, seed: int) -> Dataset:
    """Card holders of whom one in eight, the group on the right, pays back for other reasons than all others."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    rare = rng.random(count) < 1 / 8
    score = np.where(rare, points[:, 1] - 0.4 * points[:, 0], points[:, 0])
    return Dataset(
        inputs={"table": points},
        labels=(score + rng.normal(0, 0.1, count) > 0).astype(np.int64),
        units=np.arange(count),
        unit_ids=tuple(f"{seed}:{i}" for i in range(count)),
        groups={"side": rare.astype(np.int16)},
    )


def accuracies(agreement: Agreement, built: BuiltModel) -> tuple[float, float, tuple[float, ...]]:
    """Of the groups on fresh records after a run with all noise, and the weights at its end."""
    members = {name: applicants(units, seed) for seed, (name, units) in enumerate(UNITS.items())}
    engine, derive = GradientEngine(built), Derivation(agreement)
    trainers = {}
    for name, held in members.items():
        plan = replace(TrainingPlan.of(agreement, name), physical_batch_size=1000)
        trainers[name] = PooledTrainer(engine, held, plan)
    quantiser = sum_terms(agreement, Identities.ephemeral(list(UNITS)).roster).vectors["update"].quantiser
    state = starting_state(agreement, built.initial_vector())
    for at in range(STEPS):
        made = [
            one.train(state.weights, Known(name, at), None, state.adapted) for name, one in trainers.items()
        ]
        total = quantiser.decode(sum(map(quantiser.encode, made)), 3)
        state = derive(state, Aggregate(at, tuple(UNITS), total))
    built.flat.load(built.module, published_weights(state))
    fresh = applicants(4000, 99)
    right = built.module(torch.from_numpy(fresh.inputs["table"])).argmax(1).numpy() == fresh.labels
    adapts = adaptation_of(agreement.terms)
    weights = () if adapts is None or state.adapted is None else adapts.weights_of(state.adapted.tolist())
    common, rare = (float(right[fresh.groups["side"] == code].mean()) for code in (0, 1))
    return common, rare, weights


def test_the_worst_groups_accuracy_goes_up():
    people = [{"name": name, "units": units} for name, units in UNITS.items()]
    league = {
        "members": people,
        "training": {"rounds": STEPS, "learning_rate": 4.0, "average_tail": 0.5},
        "privacy": {"steps": STEPS},
    }
    plain = accuracies(*frozen(**league))
    weighed = accuracies(*frozen(**league, mitigation={"weights": WEIGHTS}))
    assert min(plain[:2]) == plain[1] < 0.65
    assert min(weighed[:2]) > plain[1] + 0.08
    assert weighed[2][0] < 0.5
    assert weighed[2][1] == 1
    assert shared_noise(frozen(**league)[0]).noise_multiplier == 3.0  # as much noise as all other tests have
