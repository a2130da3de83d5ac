"""Clipping rules as values."""

from __future__ import annotations

import math

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.clipping import Clipping


@pytest.mark.parametrize("norm", [0.0, -1.0, math.nan, math.inf, 1e-10, 1e10, 1e300])
def test_a_norm_is_within_what_float32_can_scale(norm: float) -> None:
    with pytest.raises(PrivacyParameterError, match="clipping norm"):
        Clipping("flat", norm)


@pytest.mark.parametrize("gamma", [0.0, -0.01, math.nan, math.inf])
def test_so_is_gamma(gamma: float) -> None:
    with pytest.raises(PrivacyParameterError, match="clipping gamma"):
        Clipping("automatic", 1.0, gamma)


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PrivacyParameterError, match="adaptive") as refused:
        Clipping("adaptive", 1.0)  # type: ignore[arg-type]
    assert refused.value.what_to_do == "Use flat, per-layer, automatic."


@pytest.mark.parametrize("groups", [1, 2, 73])
def test_groups_together_are_within_the_norm(groups: int) -> None:
    assert math.sqrt(groups * Clipping("per-layer", 1.5).group_norm(groups) ** 2) == pytest.approx(1.5)
    assert Clipping("flat", 1.5).group_norm(groups) == Clipping("automatic", 1.5).group_norm(groups) == 1.5


def test_a_rule_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Clipping("flat", 1.0).norm = 2.0  # type: ignore[misc]
