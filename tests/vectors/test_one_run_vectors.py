"""Lower bounds from one run against figures that others have computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import get_sigma_gaussian

from hansa.privacy.one_run import Guesses, epsilon_lower_bound, refutes
from hansa.privacy.tradeoff import GaussianTradeOff

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "one_run_audit.json"

# jax_privacy, tests/auditing_test.py: 10,000 normal scores in and 10,000 out, shifted by 1, 2 and 4; δ = 1e-6, significance
# 0.05 divided by the number of thresholds (386, 374, 140). Here the thresholds at which its maximum lies.
PUBLISHED = [
    (2807, 3376, 386, 1.13346),
    (4499, 4666, 374, 2.311945),
    (8223, 8233, 140, 4.395568),
]
PUBLISHED_CURVES = [
    (379, 406, 386, 2.164749),
    (934, 938, 374, 4.7218075),
    (5436, 5436, 140, 9.133752),
]


def vectors() -> dict[str, Any]:
    if not VECTORS.exists():
        pytest.skip("the vectors of one-run audits are not beside this checkout")
    found: dict[str, Any] = json.loads(VECTORS.read_text())
    return found


def test_every_row() -> None:
    found = vectors()
    assert len(found["rows"]) >= 10
    for row in found["rows"]:
        outcome = Guesses(row["canaries"], row["guesses"], row["correct"])
        ours = epsilon_lower_bound(outcome, row["delta"], found["confidence"])
        assert ours == pytest.approx(row["epsilon_lower_bound"], abs=6e-6), row


@pytest.mark.parametrize(("correct", "guesses", "thresholds", "epsilon"), PUBLISHED)
def test_the_bound_of_another_library(correct: int, guesses: int, thresholds: int, epsilon: float) -> None:
    ours = epsilon_lower_bound(Guesses(20_000, guesses, correct), 1e-6, 1 - 0.05 / thresholds)
    assert ours == pytest.approx(epsilon, rel=1e-5)


@pytest.mark.parametrize(("correct", "guesses", "thresholds", "epsilon"), PUBLISHED_CURVES)
def test_the_bound_by_curves_of_another_library(
    correct: int, guesses: int, thresholds: int, epsilon: float
) -> None:
    """It is refuted just below the published ε, and not just above."""
    outcome = Guesses(20_000, guesses, correct)
    below, above = (
        GaussianTradeOff(1 / get_sigma_gaussian(epsilon * factor, 1e-6)) for factor in (1 - 2e-5, 1 + 2e-5)
    )
    assert refutes(outcome, below, 1 - 0.05 / thresholds)
    assert not refutes(outcome, above, 1 - 0.05 / thresholds)
