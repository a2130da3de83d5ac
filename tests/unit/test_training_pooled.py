"""A step of the league is a step on everybody's records, and its noise is what the agreement says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hansa.errors import TrainingError
from hansa.privacy.randomness import SecretRandomness
from hansa.protocol import UPDATE, Aggregate, Derivation, shared_noise, sum_terms
from hansa.server_step import ServerState, initial_state
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine
from hansa_simulations.derived import pooled
from hansa_simulations.identities import Identities
from support.leagues import frozen_league, table
from support.pooling import MODELS, Silent, contributor, pooled_league, records


def summed(agreement, vectors: list[np.ndarray]) -> np.ndarray:
    """The sum in the ring, decoded, as the secure sum gives it."""
    names = [member.name for member in agreement.terms.members]
    quantiser = sum_terms(agreement, Identities.ephemeral(names).roster).vectors[UPDATE].quantiser
    total = np.zeros(len(vectors[0]), dtype=np.uint32)
    for vector in vectors:
        total += quantiser.encode(vector)
    return quantiser.decode(total, len(vectors))


def at_start(agreement, built) -> ServerState:
    training = agreement.terms.training
    return initial_state(
        training.server,
        built.initial_vector(),
        average_tail=training.average_tail,
        rounds=training.rounds,
    )


class TestWithoutNoise:
    @pytest.mark.parametrize("model", MODELS)
    def test_a_federated_step_is_the_pooled_step_to_the_grids_resolution(self, model: str) -> None:
        agreement, built = pooled_league(model)
        held = records(model, built)
        start = at_start(agreement, built)
        made = [
            contributor(agreement, built, name, held[name]).train(start.weights, Silent()) for name in held
        ]
        total = summed(agreement, made)
        after = Derivation(agreement)(start, Aggregate(0, tuple(held), total))

        whole = pooled(agreement)
        whole = replace(whole, frozen=agreement.frozen)
        plan = TrainingPlan.of(whole, "pooled")
        plain = {
            name: replace(one, unit_ids=tuple(u[2:] for u in one.unit_ids)) for name, one in held.items()
        }
        together = Trainer(GradientEngine(built), Dataset.concat(list(plain.values())), plan)
        # the same draws, since a draw follows from the step's key and the unit's id alone
        drawn = next(together._draws.batches(Silent(), 1))
        built.flat.load(built.module, start.weights)
        one_sum = together.clipped_sum(drawn).values
        assert len(drawn) > 40
        assert plan.grid == shared_noise(agreement).grid
        # each member rounds once, and so does the pool; the last digits of float sums are far below
        assert np.abs(total - one_sum).max() <= (len(held) + 1) / 2
        step = agreement.terms.training.learning_rate / (plan.grid.scale * plan.divisor)
        expected = start.weights - step * one_sum
        assert np.abs(after.weights - expected).max() <= step * ((len(held) + 1) / 2 + 1e-6)
        assert np.abs(after.weights - start.weights).max() > 100 * step  # it is a step

    def test_several_steps_are_those_of_pooled_training(self) -> None:
        agreement, built = pooled_league()
        held = records("logistic", built)
        state, derive = at_start(agreement, built), Derivation(agreement)
        trainers = {name: contributor(agreement, built, name, one) for name, one in held.items()}
        for step in range(agreement.terms.training.rounds):
            made = [trainer.train(state.weights, Silent(step)) for trainer in trainers.values()]
            state = derive(state, Aggregate(step, tuple(held), summed(agreement, made)))

        whole = replace(pooled(agreement), frozen=agreement.frozen)
        plan = TrainingPlan.of(whole, "pooled")
        plain = [replace(one, unit_ids=tuple(u[2:] for u in one.unit_ids)) for one in held.values()]
        together = Trainer(GradientEngine(built), Dataset.concat(plain), plan)
        weights = np.array(built.initial_vector())
        for step in range(agreement.terms.training.rounds):
            built.flat.load(built.module, weights)
            drawn = next(together._draws.batches(Silent(step), 1))
            weights -= plan.learning_rate * together._mean_gradient(drawn, Silent(step))
        resolution = agreement.terms.training.learning_rate / (plan.grid.scale * plan.divisor)
        assert np.abs(state.weights - weights).max() < 20 * resolution


class TestContribution:
    def test_it_is_the_clamped_sum_and_a_share_that_comes_last(self) -> None:
        agreement, built = pooled_league()
        trainer = contributor(agreement, built, "a", records("logistic", built)["a"])
        weights = built.initial_vector()
        plain = trainer.train(weights, Silent())
        asked: list[tuple[float, int]] = []

        class Counts(Silent):
            def noise(self, sigma, size):
                asked.append((sigma, size))
                return np.full(size, 10**12, dtype=np.int64)  # beyond every clamp and every ring

        noisy = trainer.train(weights, Counts())
        noise = shared_noise(agreement)
        assert asked == [(noise.share_sigma, built.flat.size)]
        assert noisy.dtype == np.int64
        assert np.array_equal(noisy - plain, np.full(built.flat.size, 10**12))

    def test_what_is_beyond_the_clamp_is_cut_and_counted_locally(self) -> None:
        agreement, built = pooled_league()
        plan = replace(TrainingPlan.of(agreement, "a"), clamp=5)
        trainer = PooledTrainer(GradientEngine(built), records("logistic", built)["a"], plan)
        made = trainer.train(built.initial_vector(), Silent())
        assert np.abs(made).max() == 5
        assert trainer.observed.clamped_coordinates == np.count_nonzero(np.abs(made) == 5) > 0

    def test_an_empty_batch_is_a_step_with_a_share(self) -> None:
        agreement, built = pooled_league()
        trainer = contributor(agreement, built, "a", table(0, 0))
        made = trainer.train(built.initial_vector(), SecretRandomness())
        assert trainer.observed.empty_batches == 1
        assert np.all(made != 0)

    def test_large_vectors_have_their_noise_made_meanwhile_and_once(self, monkeypatch) -> None:
        from hansa_client.training import pooled as module

        monkeypatch.setattr(module, "_WORTH_A_THREAD", 1)
        agreement, built = pooled_league()
        trainer = contributor(agreement, built, "a", table(10, 0))
        one, two = (trainer.train(built.initial_vector(), SecretRandomness()) for _ in range(2))
        assert not np.array_equal(one, two)

    def test_a_plan_of_another_mechanism_is_refused(self) -> None:
        agreement, built = frozen_league()
        with pytest.raises(TrainingError, match="shared noise"):
            contributor(agreement, built, "a", table(5, 0))


def test_the_divisor_is_of_all_agreed_units_whoever_is_missing() -> None:
    agreement, built = pooled_league()
    start, derive = at_start(agreement, built), Derivation(agreement)
    total = np.full(built.flat.size, 1000, dtype=np.int32)
    noise, terms = shared_noise(agreement), agreement.terms
    for survivors in (("a", "b", "c"), ("a", "b")):
        moved = derive(start, Aggregate(0, survivors, total)).weights - start.weights
        expected = -terms.training.learning_rate * 1000 / (noise.grid.scale * 0.5 * 120)
        assert np.allclose(moved, expected, rtol=1e-12)
