"""A step of the league is a step on everybody's records, and its noise is what the agreement says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hansa.errors import PrivacyParameterError, TrainingError
from hansa.privacy.randomness import SecretRandomness
from hansa.privacy.rotation import Rotation
from hansa.protocol import UPDATE, Aggregate, Derivation, rotation_of, shared_noise, sum_terms
from hansa.server_step import ServerState, initial_state
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine
from hansa_simulations.derived import pooled
from hansa_simulations.identities import Identities
from support.federations import Federation
from support.leagues import frozen_league, table
from support.pooling import MODELS, Silent, contributor, frozen, pooled_league, records


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
        resolution = agreement.terms.training.learning_rate / (plan.grid.scale * plan.divisor)
        for step in range(agreement.terms.training.rounds):
            built.flat.load(built.module, weights)
            drawn = next(together._draws.batches(Silent(step), 1))
            weights -= resolution * together.clipped_sum(drawn).values
        assert np.abs(state.weights - weights).max() < 20 * resolution


ROTATED = {"privacy": {"rotation": "randomized-hadamard"}}


class TestRotated:
    def test_a_rotated_step_is_the_plain_one_to_the_grids_resolution(self) -> None:
        (agreement, built), (other, _) = pooled_league(), frozen(**ROTATED)
        held, start = records("logistic", built), at_start(agreement, built)
        moved = []
        for terms, rotation in ((agreement, None), (other, rotation_of(other, "r", 3))):
            trainers = [contributor(terms, built, name, one) for name, one in held.items()]
            made = [trainer.train(start.weights, Silent(), rotation) for trainer in trainers]
            found = Derivation(terms, "r")(start, Aggregate(0, tuple(held), summed(terms, made), round=3))
            moved.append((np.stack(made), found.weights - start.weights))
        (plain, expected), (turned, found) = moved
        noise = shared_noise(agreement)
        step = agreement.terms.training.learning_rate / (noise.grid.scale * 0.5 * 120)
        assert noise == replace(shared_noise(other), rotated=False)
        # either way each member rounds once, and a rotation keeps the length of what rounding adds
        assert np.linalg.norm(found - expected) <= step * len(held) * math.sqrt(built.flat.size)
        assert np.abs(expected).max() > 100 * step
        assert not np.array_equal(plain, turned)

    def test_another_rotation_leads_to_another_model(self) -> None:
        agreement, built = frozen(**ROTATED)
        start = at_start(agreement, built)
        total = np.arange(built.flat.size, dtype=np.int32)
        found = {
            Derivation(agreement, run)(start, Aggregate(0, ("a", "b", "c"), total, round=number)).digest()
            for run, number in (("r", 1), ("r", 2), ("s", 1))
        }
        assert len(found) == 3
        with pytest.raises(PrivacyParameterError, match="run and the round"):
            Derivation(agreement)(start, Aggregate(0, ("a", "b", "c"), total))

    @pytest.mark.parametrize("rotated", [True, False])
    def test_a_rotation_is_there_exactly_where_it_is_agreed(self, rotated: bool) -> None:
        agreement, built = frozen(**(ROTATED if rotated else {}))
        trainer = contributor(agreement, built, "a", table(0, 0))
        with pytest.raises(TrainingError, match="exactly where the agreement says so"):
            trainer.train(
                built.initial_vector(), Silent(), None if rotated else Rotation(built.flat.size, b"x")
            )

    def test_members_follow_a_rotated_run_to_its_end(self) -> None:
        agreement, built = frozen(**ROTATED)
        held = records("logistic", built)
        federation = Federation(agreement, built.initial_vector(), dict.fromkeys("abc", lambda w: w))
        for name, node in federation.nodes.items():
            node._training = contributor(agreement, built, name, held[name])
        outcome = federation.run()
        assert outcome.stopped_because is None
        assert outcome.state.round == agreement.terms.training.rounds
        # a member takes part only in a step of the model that it has derived itself
        assert all(set(record.present) == set("abc") for record in outcome.rounds)


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

    def test_noise_that_is_made_meanwhile_is_made_once(self) -> None:
        agreement, built = pooled_league()
        trainer = contributor(agreement, built, "a", table(10, 0))
        trainer._ahead = True  # as beside a GPU
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
