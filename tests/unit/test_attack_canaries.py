"""Coins, guesses, and canaries in the data of a training."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.errors import UsageError
from hansa.privacy.attack import Claim, Design
from hansa.privacy.events import Spend, gaussian
from hansa.privacy.randomness import SecretRandomness
from hansa_client.attack import Coins, attack_gradients, attack_units, claim_of, right_guesses
from hansa_client.attack.gradients import gradient_scores
from hansa_client.training import TrainingPlan
from hansa_client.training.gradients import GradientEngine
from support.leagues import frozen_league

CLAIM = Claim((Spend(gaussian(1.0), 1),), 1e-5)


def no_noise(_self: SecretRandomness, _sigma: float, size: int) -> np.ndarray:
    return np.zeros(size, dtype=np.int64)


def next_to_no_noise(_self: SecretRandomness, _sigma: float, size: int) -> np.ndarray:
    """One unit of the grid: labels that happen to be balanced leave no weight where it was."""
    return np.ones(size, dtype=np.int64)


class TestCoins:
    def test_a_seed_throws_them_again_and_no_seed_never_does(self) -> None:
        assert np.array_equal(Coins.thrown(1000, 5).inside, Coins.thrown(1000, 5).inside)
        assert not np.array_equal(Coins.thrown(1000, 5).inside, Coins.thrown(1000, 6).inside)
        assert not np.array_equal(Coins.thrown(1000).inside, Coins.thrown(1000).inside)
        assert (Coins.thrown(10, 5).seed, Coins.thrown(10).seed) == (5, None)

    def test_they_are_fair_and_independent(self) -> None:
        inside = Coins.thrown(100_000, 1).inside
        assert abs(inside.mean() - 0.5) < 0.01
        assert abs((inside[1:] == inside[:-1]).mean() - 0.5) < 0.01
        counts = [int(Coins.thrown(1000, seed).inside.sum()) for seed in range(40)]
        assert len(set(counts)) > 10  # no exact half

    def test_signs_say_nothing_about_coins(self) -> None:
        coins = Coins.thrown(20_000, 2)
        signs = coins.signs(2)
        assert set(np.unique(signs)) == {-1, 1}
        assert np.array_equal(signs, Coins.thrown(20_000, 3).signs(2))
        assert abs(float((signs[:, 0] * np.where(coins.inside, 1, -1)).mean())) < 0.03


class TestGuesses:
    def test_the_highest_are_in_and_the_lowest_out(self) -> None:
        coins = Coins(np.array([True, True, False, False, True]), None)
        scores = np.array([5.0, 4.0, -3.0, -4.0, 0.0])
        assert right_guesses(scores, coins, Design(CLAIM, 5, 2, 2)) == 4
        assert right_guesses(-scores, coins, Design(CLAIM, 5, 2, 2)) == 0
        assert right_guesses(scores, coins, Design(CLAIM, 5, 2, 0)) == 2
        assert right_guesses(scores, coins, Design(CLAIM, 5, 0, 1)) == 1

    def test_scores_that_say_nothing_are_right_half_the_time(self) -> None:
        coins = Coins.thrown(20_000, 4)
        correct = right_guesses(np.zeros(20_000), coins, Design(CLAIM, 20_000, 5000, 5000))
        assert abs(correct - 5000) < 250

    def test_what_is_no_score_is_refused(self) -> None:
        coins = Coins.thrown(4, 1)
        with pytest.raises(UsageError, match="no score"):
            right_guesses(np.array([0, np.nan, 1, 2]), coins, Design(CLAIM, 4, 1, 1))
        with pytest.raises(UsageError, match="different numbers"):
            right_guesses(np.zeros(3), coins, Design(CLAIM, 4, 1, 1))


class TestGradients:
    @pytest.mark.parametrize(("records", "rate"), [(1, 1.0), (3, 1.0), (1, 0.5)])
    def test_without_noise_a_score_counts_how_often_a_canary_was_drawn(
        self, records: int, rate: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In clipping norms, whatever the length of its gradient: through the real clipping and grid."""
        monkeypatch.setattr(SecretRandomness, "noise", no_noise)
        agreement, _ = frozen_league(privacy={"sampling_rate": rate, "clipping_norm": 0.37})
        coins = Coins.thrown(300, 1)
        rounds, plan = agreement.terms.training.rounds, TrainingPlan.of(agreement, "a")
        done: list[tuple[int, int]] = []
        scores = gradient_scores(
            plan, coins, rounds, records, SecretRandomness, lambda *told: done.append(told)
        )
        steps = rounds * plan.steps_per_round
        assert done[-1] == (rounds, rounds)
        assert np.abs(scores[~coins.inside]).max() < 1e-9
        drawn = scores[coins.inside]
        assert np.abs(drawn - np.rint(drawn)).max() < 0.02
        assert drawn.max() <= steps
        if rate == 1:
            assert drawn.min() > steps * 0.99
        else:
            assert abs(drawn.mean() - steps * rate) < 0.5

    def test_noise_is_as_stated(self) -> None:
        agreement, _ = frozen_league(privacy={"sampling_rate": 1.0, "steps": 4})
        plan = TrainingPlan.of(agreement, "a")
        coins = Coins(np.zeros(5000, dtype=np.bool_), None)
        coins.inside[0] = True
        scores = gradient_scores(plan, coins, 4, 1, SecretRandomness, lambda *_: None)[1:]
        assert plan.grid is not None
        assert plan.sigma is not None
        expected = plan.grid.noise_multiplier(plan.sigma) * np.sqrt(4)
        assert scores.std() == pytest.approx(expected, rel=0.06)
        assert abs(scores.mean()) < 5 * expected / np.sqrt(5000)

    def test_the_claim_is_the_run_without_its_retries(self) -> None:
        agreement, _ = frozen_league(secure_sum={"retries": 3})
        (spend,) = claim_of(agreement, "a").spends
        assert spend.count == agreement.terms.privacy.steps < agreement.terms.charged_steps

    def test_it_says_whose_it_is_and_from_which_seed(self) -> None:
        agreement, _ = frozen_league()
        tree = attack_gradients(agreement, "b", 200, seed=9).as_dict()
        assert (tree["member"], tree["kind"], tree["seed"], tree["canaries"]) == ("b", "gradients", 9, 200)


class TestUnits:
    @pytest.fixture
    def wide(self) -> dict[str, object]:
        """Two hundred features: a model with room for its canaries."""
        features = [{"kind": "number", "name": f"x{i}", "range": [-1, 1]} for i in range(200)]
        return {"data": {"features": features}, "privacy": {"sampling_rate": 1.0}}

    def test_a_model_that_learns_its_canaries_without_noise_gives_them_away(
        self, wide: dict[str, object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(SecretRandomness, "noise", next_to_no_noise)
        agreement, built = frozen_league(**wide)
        found = attack_units(agreement, GradientEngine(built), "a", 100, seed=1).verdict
        assert found.correct >= 0.8 * found.design.guesses

    def test_who_keeps_its_word_is_not_accused(self, wide: dict[str, object]) -> None:
        agreement, built = frozen_league(**wide)
        engine = GradientEngine(built)
        for seed in range(5):
            found = attack_units(agreement, engine, "a", 100, seed=seed, confidence=0.999)
            assert not found.verdict.contradicts
            assert found.as_dict()["detectable_noise"] is None
