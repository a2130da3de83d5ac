"""Freezing: hashes of model 0 and the noise that the privacy section needs."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import pytest

from hansa.agreement import parse_agreement
from hansa.agreement.freezing import freeze_with
from hansa.cli.agreement import Kind, template
from hansa.errors import PrivacyParameterError
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.sampling import PoissonSampling

START = np.array([0.5, -0.0, 3.0])


@dataclass
class Parts:
    """The parts of a model that no run changes."""

    frozen_sha256: str = "1" * 64
    tokenizer_sha256: str | None = None


@pytest.fixture(scope="module")
def agreement():
    # few steps, so that the accountant is quick
    return parse_agreement(template(Kind.TABLE)).derive(
        privacy={"steps": 4, "sampling_rate": 0.5}, training={"rounds": 2}
    )


def test_the_hash_is_of_little_endian_float64(agreement):
    model = freeze_with(agreement, Parts(), START).frozen.model
    assert model.parameters == 3
    assert model.initial_sha256 == hashlib.sha256(struct.pack("<3d", 0.5, -0.0, 3.0)).hexdigest()
    assert (model.frozen_sha256, model.tokenizer_sha256) == ("1" * 64, None)


@pytest.mark.parametrize("dtype", [">f8", "<f8"])
def test_byte_order_and_strides_of_a_machine_are_not_in_the_hash(agreement, dtype):
    spread = np.array([0.5, 9, -0.0, 9, 3.0, 9], dtype=dtype)[::2]
    assert (
        freeze_with(agreement, Parts(), spread).agreement_id
        == freeze_with(agreement, Parts(), START).agreement_id
    )


def test_the_tokenizer_is_frozen_where_there_is_one(agreement):
    frozen = freeze_with(agreement, Parts(tokenizer_sha256="2" * 64), START)
    assert frozen.frozen.model.tokenizer_sha256 == "2" * 64
    assert frozen.agreement_id != freeze_with(agreement, Parts(), START).agreement_id


def test_the_noise_is_that_of_the_terms(agreement):
    privacy = agreement.terms.privacy
    frozen = freeze_with(agreement, Parts(), START)
    assert frozen.frozen.noise_multiplier == calibrated_noise_multiplier(
        privacy.epsilon, privacy.delta, PoissonSampling(privacy.sampling_rate), privacy.steps
    )


def test_without_a_mechanism_no_noise_is_frozen(agreement):
    frozen = freeze_with(agreement.derive(privacy={"mechanism": "none"}), Parts(), START)
    assert frozen.frozen.noise_multiplier is None
    assert frozen.agreement_id


def test_freezing_again_gives_the_same_id(agreement):
    once = freeze_with(agreement, Parts(), START)
    assert freeze_with(once, Parts(), START).agreement_id == once.agreement_id
    assert freeze_with(agreement, Parts(), START).agreement_id == once.agreement_id


def test_a_budget_that_no_noise_keeps_is_refused(agreement):
    with pytest.raises(PrivacyParameterError, match="no noise"):
        freeze_with(agreement.derive(privacy={"epsilon": 1e-9, "delta": 1e-9}), Parts(), START)
