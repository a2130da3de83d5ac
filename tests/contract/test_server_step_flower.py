"""Hansa's server rules against Flower's strategies, on the same replies over several rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hansa.agreement.rules import SUPPORTED_RULES
from hansa.agreement.terms import ServerRule
from hansa.server_step import initial_state, step

app = pytest.importorskip("flwr.app")
strategies = pytest.importorskip("flwr.serverapp.strategy")

Vector = npt.NDArray[np.float64]

ROUNDS = 8
MEMBERS = (30, 120, 55)
COMMON = {"fraction_train": 0.0, "fraction_evaluate": 0.0}
MAKE: dict[str, Callable[[ServerRule], Any]] = {
    "fedavg": lambda r: strategies.FedAvg(**COMMON),
    "fedavgm": lambda r: strategies.FedAvgM(
        **COMMON, server_learning_rate=r.learning_rate, server_momentum=r.momentum
    ),
    "fedadam": lambda r: strategies.FedAdam(
        **COMMON, eta=r.learning_rate, beta_1=r.beta_1, beta_2=r.beta_2, tau=r.tau
    ),
    "fedyogi": lambda r: strategies.FedYogi(
        **COMMON, eta=r.learning_rate, beta_1=r.beta_1, beta_2=r.beta_2, tau=r.tau
    ),
    "fedadagrad": lambda r: strategies.FedAdagrad(**COMMON, eta=r.learning_rate, tau=r.tau),
}
RULES = [
    ServerRule(rule="fedavg"),
    ServerRule(rule="fedavgm"),
    ServerRule(rule="fedavgm", learning_rate=0.3, momentum=0.5),
    ServerRule(rule="fedavgm", learning_rate=0.7, momentum=0.0),
    ServerRule(rule="fedadam", learning_rate=0.1),
    ServerRule(rule="fedadam", learning_rate=0.01, beta_1=0.0, beta_2=0.999, tau=1e-8),
    ServerRule(rule="fedyogi", learning_rate=0.01),
    ServerRule(rule="fedyogi", learning_rate=0.5, beta_1=0.5, beta_2=0.5, tau=0.1),
    ServerRule(rule="fedadagrad", learning_rate=0.1),
    ServerRule(rule="fedadagrad", learning_rate=1.0, tau=0.05),
]


@pytest.fixture(autouse=True)
def task_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages ask for the task they belong to; outside its processes there is none."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)


def replies(models: list[Vector]) -> list[Any]:
    """What each member would send to Flower: its own model and its number of examples."""
    return [
        app.Message(
            app.RecordDict(
                {
                    "arrays": app.ArrayRecord({"w": app.Array(model)}),
                    "metrics": app.MetricRecord({"num-examples": units}),
                }
            ),
            dst_node_id=member,
            message_type="train",
        )
        for member, (model, units) in enumerate(zip(models, MEMBERS, strict=True), start=1)
    ]


def flower_round(strategy: Any, number: int, weights: Vector, models: list[Vector]) -> Vector:
    """One round of a Flower strategy: it is told the model that members start from, then their replies."""
    record = app.ArrayRecord({"w": app.Array(weights)})
    strategy.configure_train(number, record, app.ConfigRecord(), None)  # asks no grid when it trains nobody
    aggregated, _ = strategy.aggregate_train(number, replies(models))
    return np.asarray(aggregated["w"].numpy())


def members_models(generator: np.random.Generator, weights: Vector) -> list[Vector]:
    sizes = 10.0 ** generator.integers(-4, 1, size=weights.size)
    return [weights + sizes * generator.normal(size=weights.size) for _ in MEMBERS]


def mean_update(weights: Vector, models: list[Vector]) -> Vector:
    shares = [units / sum(MEMBERS) for units in MEMBERS]
    total: Vector = np.sum(
        [share * (model - weights) for share, model in zip(shares, models, strict=True)], axis=0
    )
    return total


def test_every_rule_is_compared() -> None:
    elsewhere = {"adamw"}  # Flower has none: test_server_step_torch.py
    assert {rule.rule for rule in RULES} | elsewhere == set(SUPPORTED_RULES) == set(MAKE) | elsewhere


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.rule}-{r.learning_rate:g}")
def test_a_rule_agrees_with_flowers_strategy(rule: ServerRule) -> None:
    generator = np.random.default_rng(20)
    strategy = MAKE[rule.rule](rule)
    flower = generator.normal(size=200)
    state = initial_state(rule, flower, average_tail=0.0, rounds=ROUNDS)
    for number in range(1, ROUNDS + 1):
        models = members_models(generator, flower)
        update = mean_update(flower, models)
        moved = flower_round(strategy, number, flower, models)
        state = step(rule, state, update)
        # each side carries its own model on; the largest difference is a few roundings of the mean
        np.testing.assert_allclose(state.weights, moved, rtol=1e-12, atol=1e-13)
        assert np.max(np.abs(moved - flower)) > 1e-4  # a step so small that any sign would pass is no test
        flower = moved


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.rule}-{r.learning_rate:g}")
def test_the_opposite_sign_would_not_agree(rule: ServerRule) -> None:
    generator = np.random.default_rng(21)
    weights = generator.normal(size=50)
    models = members_models(generator, weights)
    moved = flower_round(MAKE[rule.rule](rule), 1, weights, models)
    wrong = step(
        rule, initial_state(rule, weights, average_tail=0.0, rounds=1), -mean_update(weights, models)
    )
    assert np.max(np.abs(wrong.weights - moved)) > 1e-4


def test_flowers_moments_are_hansas() -> None:
    rule = ServerRule(rule="fedyogi", learning_rate=0.1)
    generator = np.random.default_rng(22)
    weights = generator.normal(size=30)
    strategy = MAKE["fedyogi"](rule)
    state = initial_state(rule, weights, average_tail=0.0, rounds=3)
    for number in range(1, 4):
        models = members_models(generator, weights)
        state = step(rule, state, mean_update(weights, models))
        weights = flower_round(strategy, number, weights, models)
    assert state.first_moment is not None
    assert state.second_moment is not None
    np.testing.assert_allclose(state.first_moment, strategy.m_t["w"], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(state.second_moment, strategy.v_t["w"], rtol=1e-11, atol=1e-14)
