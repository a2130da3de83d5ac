"""Trainers that are broken on purpose are caught by an attack with 10,000 canaries; one that keeps its word is not accused.

What is broken is the real class, in place: the attack goes through the member's own trainer, sampling, clipping and noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.errors import PrivacyParameterError
from hansa.privacy.attack import Design
from hansa.privacy.noise import SMALLEST_SIGMA
from hansa.privacy.randomness import SecretRandomness
from hansa_client.attack import Attack, attack_gradients, claim_of
from hansa_client.attack import gradients as attacked
from hansa_client.training import trainer
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.sampling import KeyedDraws
from support.leagues import frozen_league

CANARIES = 10_000
SEED = 20_240_801  # of the coins; the noise is secret, as in a run
NOISE = SecretRandomness.noise
BUILDER = trainer.ClippedSumBuilder


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    """A claim of ε = 1 at δ = 1e-5, one step, everybody in the batch."""
    found, _ = frozen_league(
        privacy={"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 1.0, "steps": 1}, training={"rounds": 1}
    )
    return found


def made(agreement: Agreement, **told: Any) -> Attack:
    return attack_gradients(agreement, "a", CANARIES, seed=SEED, **told)


class Unclipped(BUILDER):
    """Clips at a million times the norm, on the same grid: clipping was forgotten."""

    def __init__(self, grid: Any, *rest: Any) -> None:
        self.stated = grid
        loose = [replace(one, norm=one.norm * 1e6) if hasattr(one, "norm") else one for one in rest]
        super().__init__(replace(grid, clipping_norm=grid.clipping_norm * 1e6), *loose)

    def finish(self, rotation: Any = None) -> Any:
        return trainer.ClippedSum(super().finish(rotation).values.copy(), self.stated)


class ByTensor(BUILDER):
    """Clips every tensor of weights by itself at the norm of all: the sum is √2 as sensitive as stated."""

    def factors(self, squares: Any, sound: Any, layer_of: Any, **told: Any) -> Any:
        columns = squares.unbind(1)
        alone = [BUILDER.factors(self, one[:, None], sound, layer_of[:1], **told) for one in columns]
        return [factor for (factor,) in alone]


def fixed_noise(seed: int, share: float = 1.0) -> Any:
    """Noise of a fixed stream: what is found 19 times of 20 should not fail a test the 20th."""
    generator = np.random.default_rng(seed)

    def noise(_self: SecretRandomness, sigma: float, size: int) -> Any:
        assert share * sigma > SMALLEST_SIGMA
        return np.rint(generator.normal(0, share * sigma, size)).astype(np.int64)

    return noise


def test_the_dimension_is_what_it_should_be(agreement: Agreement) -> None:
    design = Design.best(claim_of(agreement, "a"), CANARIES)
    assert attacked.SMALLEST_DIMENSION >= 10_000
    assert design.detectable_noise is not None
    assert design.detectable_noise > 0.5  # so that half of the noise is within reach
    assert design.ceiling > 5


def test_who_keeps_its_word_is_not_accused(agreement: Agreement) -> None:
    found = made(agreement)
    assert not found.verdict.contradicts
    assert 0.2 < found.verdict.epsilon < found.verdict.design.claim.epsilon <= 1.0


def test_no_noise_is_caught(agreement: Agreement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecretRandomness, "noise", lambda _self, _sigma, size: np.zeros(size, dtype=np.int64))
    found = made(agreement).verdict
    assert found.contradicts
    assert found.correct == found.design.guesses
    assert found.epsilon == found.design.ceiling > 5


def test_half_the_noise_is_caught(agreement: Agreement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecretRandomness, "noise", fixed_noise(3, share=0.5))
    found = made(agreement).verdict
    assert found.contradicts
    assert found.epsilon > 1.0


def test_forgotten_clipping_is_caught(agreement: Agreement, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "ClippedSumBuilder", Unclipped)
    found = made(agreement).verdict
    assert found.contradicts
    assert found.epsilon > 5


def test_clipping_each_tensor_by_itself_shows(agreement: Agreement, monkeypatch: pytest.MonkeyPatch) -> None:
    """√2 is not enough to contradict a claim of ε = 1 for sure; more guesses are right than of one who clips the whole."""
    monkeypatch.setattr(SecretRandomness, "noise", fixed_noise(3))
    honest = made(agreement).verdict.correct
    monkeypatch.setattr(SecretRandomness, "noise", fixed_noise(3))
    monkeypatch.setattr(trainer, "ClippedSumBuilder", ByTensor)
    assert made(agreement).verdict.correct > honest


def test_records_of_a_patient_that_are_clipped_one_by_one_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    agreement, _ = frozen_league(
        privacy={
            "epsilon": 1.0, "delta": 1e-5, "sampling_rate": 1.0, "steps": 1,
            "unit": "patient", "max_records_per_unit": 2,
        },
        data={"unit": "patient"},
        training={"rounds": 1},
    )  # fmt: skip
    assert not attack_gradients(agreement, "a", 4000, seed=SEED, confidence=0.999999).verdict.contradicts

    whole = GradientEngine.add_clipped

    def by_record(
        engine: Any, builder: Any, inputs: Any, labels: Any, unit_of_record: Any, *more: Any
    ) -> None:
        whole(engine, builder, inputs, labels, np.arange(len(unit_of_record)), *more)

    monkeypatch.setattr(GradientEngine, "add_clipped", by_record)
    found = attack_gradients(agreement, "a", 4000, seed=SEED).verdict
    assert found.contradicts
    assert found.epsilon > 1


def test_sampling_more_often_than_stated_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    agreement, _ = frozen_league(
        privacy={"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 0.1, "steps": 4}, training={"rounds": 2}
    )
    assert not attack_gradients(agreement, "a", CANARIES, seed=SEED).verdict.contradicts
    everybody = staticmethod(lambda words, _rate, _largest: np.arange(len(words)))
    monkeypatch.setattr(KeyedDraws, "_sample", everybody)
    assert attack_gradients(agreement, "a", CANARIES, seed=SEED).verdict.contradicts


@pytest.mark.parametrize("seed", range(8))
def test_the_innocent_are_not_accused_at_small_sizes(agreement: Agreement, seed: int) -> None:
    assert not attack_gradients(agreement, "a", 500, confidence=0.999, seed=seed).verdict.contradicts


def test_a_run_without_privacy_has_nothing_to_attack() -> None:
    agreement, _ = frozen_league(privacy={"mechanism": "none", "epsilon": None, "delta": None})
    with pytest.raises(PrivacyParameterError, match="claims nothing"):
        attack_gradients(agreement, "a", 100)


@pytest.mark.parametrize(
    "privacy", [{"sampling": "truncated-poisson", "max_batch_units": 31}, {"sampling": "fixed-batches"}]
)
def test_other_ways_of_drawing_are_not_attacked_as_if_they_were_poisson(privacy: dict[str, Any]) -> None:
    agreement, _ = frozen_league(privacy=privacy)
    with pytest.raises(PrivacyParameterError, match=str(privacy["sampling"])):
        attack_gradients(agreement, "a", 100)


@pytest.mark.parametrize("rule", ["per-layer", "automatic"])
def test_under_every_rule_of_clipping_who_keeps_its_word_is_not_accused(rule: str) -> None:
    """And gives as much away as under the flat rule: canaries touch two layers, each clipped to C/√2."""
    agreement, _ = frozen_league(
        privacy={"epsilon": 1.0, "delta": 1e-5, "sampling_rate": 1.0, "steps": 1, "clipping": rule},
        training={"rounds": 1},
    )
    found = made(agreement).verdict
    assert not found.contradicts
    assert found.epsilon > 0.2


@pytest.fixture(autouse=True)
def whole_again() -> Iterator[None]:
    kept = GradientEngine.add_clipped, KeyedDraws._sample
    yield
    assert (GradientEngine.add_clipped, KeyedDraws._sample) == kept
    assert SecretRandomness.noise is NOISE
    assert trainer.ClippedSumBuilder is BUILDER
