"""The noise of an aggregate of five members, for every set of survivors: variance and distribution.

What leaves the real trainers of members without data is their shares alone. They are added in the ring and decoded as any
sum is; keys are known, so that what passes once passes always.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hansa.protocol import UPDATE, shared_noise, sum_terms
from hansa.wire import array_sha256
from hansa_simulations.identities import Identities
from support import noise as statistics
from support.federations import Federation, kinds
from support.leagues import table
from support.pooling import Known, contributor, league_of

REPEATS = 1500  # of 6 coordinates each: 9,000 draws of every member
AGREEMENT, BUILT = league_of(5)
NAMES = [member.name for member in AGREEMENT.terms.members]
NOISE = shared_noise(AGREEMENT)
QUANTISER = sum_terms(AGREEMENT, Identities.ephemeral(NAMES).roster).vectors[UPDATE].quantiser
PATTERNS = [survivors for k in range(1, len(NAMES) + 1) for survivors in itertools.combinations(NAMES, k)]


@pytest.fixture(scope="module")
def shares() -> dict[str, np.ndarray]:
    """What each member released, int64 [draws]."""
    start = BUILT.initial_vector()
    found = {}
    for name in NAMES:
        trainer = contributor(AGREEMENT, BUILT, name, table(0, 0))
        source = Known("share", name)
        found[name] = np.concatenate([trainer.train(start, source) for _ in range(REPEATS)])
    return found


def test_there_is_a_pattern_for_every_set_of_survivors() -> None:
    assert len(PATTERNS) == 31
    assert NOISE.smallest_sum == 4
    assert NOISE.honest == 3


@pytest.mark.parametrize("survivors", PATTERNS, ids="+".join)
def test_a_sum_holds_as_many_shares_as_members(shares, survivors: tuple[str, ...]) -> None:
    """Smaller sets than the smallest sum are never opened; what c colluding members leave of one is such a set."""
    total = np.zeros(len(shares[NAMES[0]]), dtype=np.uint32)
    for name in survivors:
        total += QUANTISER.encode(shares[name])
    draws = QUANTISER.decode(total, len(survivors)).astype(np.int64)
    sigma = math.sqrt(NOISE.variance(len(survivors)))
    promised = NOISE.noise_multiplier * NOISE.grid.sensitivity
    assert sigma == pytest.approx(promised * math.sqrt(len(survivors) / NOISE.honest), rel=1e-6)
    for check in (statistics.by_variance, statistics.by_kolmogorov_smirnov, statistics.by_mean):
        assert check(draws, sigma) > 1e-4, check.__name__
    # and neither of one share more nor of one less: the test could have failed
    for other in (len(survivors) - 1, len(survivors) + 1):
        wrong = math.sqrt(NOISE.variance(other)) if other else 20.0
        assert statistics.by_variance(draws, wrong) < 1e-9


@pytest.mark.parametrize("missing", [None, *NAMES])
def test_the_real_secure_sum_opens_to_the_shares_of_its_survivors(missing: str | None) -> None:
    """Every set of survivors that a league of five may have, through keys, masks and shares of secrets."""
    released: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}

    def carry(name, request, answer):
        return None if name == missing and "secagg.manifest" in kinds(request) else answer(request)

    def share(name):
        def update(weights):
            made = contributor(AGREEMENT, BUILT, name, table(0, 0)).train(weights, Known("sum", name))
            released[name].append(made)
            return made

        return update

    agreement, _ = league_of(5, training={"rounds": 1}, privacy={"steps": 1})
    federation = Federation(agreement, BUILT.initial_vector(), {name: share(name) for name in NAMES}, carry)
    outcome = federation.run()
    assert outcome.stopped_because is None
    (record,) = outcome.rounds
    assert set(record.present) == set(NAMES) - {missing}
    expected = sum(released[name][-1] for name in record.present)
    rate, divisor = agreement.terms.training.learning_rate, 0.5 * 200
    scale = shared_noise(agreement).grid.scale
    assert np.array_equal(outcome.state.weights, BUILT.initial_vector() - rate * (expected / scale / divisor))
    assert array_sha256(outcome.state.weights)
