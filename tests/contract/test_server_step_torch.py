"""AdamW and the schedules against torch's own, over whole runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hansa.agreement.terms import ServerRule
from hansa.server_step import initial_state, learning_rate, step

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler

ROUNDS, WARMUP = 24, 5
RULES = [
    ServerRule(rule="adamw", learning_rate=0.1),
    ServerRule(rule="adamw", learning_rate=0.01, beta_2=0.999, tau=1e-8, weight_decay=0.01),
    ServerRule(rule="adamw", learning_rate=0.3, beta_1=0.0, beta_2=0.5, tau=0.1, weight_decay=1.0),
    ServerRule(
        rule="adamw", learning_rate=0.05, weight_decay=0.1, schedule="cosine", warmup_rounds=WARMUP, end_factor=0.2
    ),
    ServerRule(rule="adamw", learning_rate=0.05, weight_decay=0.1, schedule="linear", warmup_rounds=WARMUP),
    ServerRule(rule="adamw", learning_rate=0.05, schedule="linear", end_factor=0.5),
    ServerRule(rule="adamw", learning_rate=0.05, warmup_rounds=WARMUP),
]  # fmt: skip
NAMES = [f"{i}-{rule.schedule}" for i, rule in enumerate(RULES)]


def scheduler(rule: ServerRule, optimiser: Any) -> Any:
    """Torch's composition of the same schedule."""
    after: dict[str, Callable[[], Any]] = {
        "constant": lambda: schedulers.ConstantLR(optimiser, factor=1.0, total_iters=1),
        "linear": lambda: schedulers.LinearLR(
            optimiser, 1.0, rule.end_factor, total_iters=ROUNDS - rule.warmup_rounds
        ),
        "cosine": lambda: schedulers.CosineAnnealingLR(
            optimiser, ROUNDS - rule.warmup_rounds, eta_min=rule.end_factor * rule.learning_rate
        ),
    }
    if not rule.warmup_rounds:
        return after[rule.schedule]()
    rising = schedulers.LinearLR(optimiser, 1 / rule.warmup_rounds, total_iters=rule.warmup_rounds - 1)
    return schedulers.SequentialLR(optimiser, [rising, after[rule.schedule]()], [rule.warmup_rounds])


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step()`")  # torch's own SequentialLR
@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_run_of_adamw_is_torchs(rule: ServerRule) -> None:
    generator = np.random.default_rng(7)
    state = initial_state(rule, generator.normal(size=60), average_tail=0.0, rounds=ROUNDS)
    weights = torch.nn.Parameter(torch.tensor(state.weights))
    optimiser = torch.optim.AdamW(
        [weights], lr=rule.learning_rate, betas=(rule.beta_1, rule.beta_2), eps=rule.tau,
        weight_decay=rule.weight_decay,
    )  # fmt: skip
    rate = scheduler(rule, optimiser)
    for number in range(ROUNDS):
        gradient = 10.0 ** generator.integers(-4, 2, size=60) * generator.normal(size=60)
        assert rate.get_last_lr()[0] == pytest.approx(learning_rate(rule, number, ROUNDS), rel=1e-13)
        weights.grad = torch.tensor(gradient)
        optimiser.step()
        rate.step()
        before, state = state, step(rule, state, -gradient)  # an update is the opposite of a gradient
        np.testing.assert_allclose(state.weights, weights.detach().numpy(), rtol=1e-11, atol=1e-13)
        assert np.max(np.abs(state.weights - before.weights)) > 1e-5
    kept = optimiser.state[weights]
    np.testing.assert_allclose(state.first_moment, -kept["exp_avg"].numpy(), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(state.second_moment, kept["exp_avg_sq"].numpy(), rtol=1e-10, atol=1e-14)


def test_decay_that_is_not_decoupled_would_not_agree() -> None:
    rule = RULES[1]
    start, gradient = np.array([3.0, -2.0]), np.array([1e-6, -1e-6])
    moved = step(rule, initial_state(rule, start, average_tail=0.0, rounds=1), -gradient).weights
    coupled = torch.nn.Parameter(torch.tensor(start))
    optimiser = torch.optim.Adam(
        [coupled], lr=rule.learning_rate, betas=(rule.beta_1, rule.beta_2), eps=rule.tau,
        weight_decay=rule.weight_decay,
    )  # fmt: skip
    coupled.grad = torch.tensor(gradient)
    optimiser.step()
    assert np.max(np.abs(moved - coupled.detach().numpy())) > 1e-4
