"""An attack before and after: what it could show, what it showed, and how that is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.attack import Claim, Design, _Scores
from hansa.privacy.attack_words import CANNOT, told
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.events import Spend, gaussian, poisson_gaussian, rate_and_multiplier
from hansa.privacy.sampling import PoissonSampling

ONE = calibrated_noise_multiplier(1.0, 1e-5, PoissonSampling(1.0), 1)
CLAIM = Claim((Spend(gaussian(ONE), 1),), 1e-5)
RARE = Claim((Spend(poisson_gaussian(0.08, 0.6745), 30),), 1e-5)


class TestClaim:
    def test_its_epsilon_is_the_accountants(self) -> None:
        assert CLAIM.epsilon == pytest.approx(1.0, rel=2e-3)
        assert CLAIM.with_noise(0.5).epsilon > 2
        assert CLAIM.with_noise(1.0).epsilon == CLAIM.epsilon

    @pytest.mark.parametrize(
        ("spends", "delta"), [((), 1e-5), ((Spend(gaussian(1.0), 0),), 1e-5), (CLAIM.spends, 1.0)]
    )
    def test_nothing_is_no_claim(self, spends: tuple[Spend, ...], delta: float) -> None:
        with pytest.raises(PrivacyParameterError, match="needs a claim"):
            Claim(spends, delta)


class TestDesign:
    def test_half_of_the_noise_is_within_reach_at_ten_thousand(self) -> None:
        design = Design.best(CLAIM, 10_000)
        assert design.detectable_noise is not None
        assert 0.5 < design.detectable_noise < 0.7
        assert design.guessed_in == design.guessed_out > 0
        assert design.needed is not None
        assert design.guesses / 2 < design.needed < design.guesses

    def test_more_canaries_find_more(self) -> None:
        shares = [Design.best(CLAIM, canaries).detectable_noise or 0 for canaries in (200, 1000, 10_000)]
        assert shares == sorted(shares)
        assert shares[0] < shares[-1]

    def test_where_few_are_drawn_only_presence_is_guessed(self) -> None:
        design = Design.best(RARE, 10_000)
        assert (design.guessed_out, design.guessed_in > 0) == (0, True)
        assert design.detectable_noise is not None
        both = Design(RARE, 10_000, design.guessed_in, design.guessed_in)
        assert (both.detectable_noise or 0) < design.detectable_noise

    @pytest.mark.parametrize(("claim", "share"), [(CLAIM, 1.0), (CLAIM, 0.5), (RARE, 0.5), (RARE, 0.0)])
    def test_what_is_expected_is_what_happens(self, claim: Claim, share: float) -> None:
        """Against two hundred attacks on the stated mechanism with `share` of its noise."""
        generator, design = np.random.default_rng(8), Design(claim, 2000, 100, 60)
        rate, multiplier = rate_and_multiplier(claim.spends[0].event)
        steps, right = claim.spends[0].count, []
        for _ in range(200):
            inside = generator.random(2000) < 0.5
            scores = inside * generator.binomial(steps, rate, 2000)
            order = np.argsort(scores + generator.normal(0, share * multiplier * np.sqrt(steps), 2000))
            right.append(int(inside[order[-100:]].sum() + (~inside[order[:60]]).sum()))
        expected = _Scores(claim.spends).right(share, design) * design.guesses
        assert np.mean(right) == pytest.approx(expected, abs=2.0)

    def test_it_is_the_same_each_time(self) -> None:
        assert Design.best(CLAIM, 500) == Design.best(CLAIM, 500)

    def test_too_few_canaries_can_show_nothing_and_say_so(self) -> None:
        design = Design.best(CLAIM, 4)
        assert (design.needed, design.detectable_noise) == (None, None)
        lines = "\n".join(told("gradients", design.judge(design.guesses)))
        assert "nothing against this claim, however broken" in lines
        assert not design.judge(design.guesses).contradicts

    def test_the_error_is_shared(self) -> None:
        design = Design(CLAIM, 100, 5, 5, 0.9)
        errors = (1 - design.confidence_any_mechanism) + (1 - design.confidence_stated_mechanism)
        assert errors == pytest.approx(0.1)

    @pytest.mark.parametrize(
        ("canaries", "sizes"), [(10, (6, 6)), (10, (0, 0)), (10, (-1, 5)), (10, (5, -1))]
    )
    def test_numbers_that_do_not_fit(self, canaries: int, sizes: tuple[int, int]) -> None:
        with pytest.raises(PrivacyParameterError):
            Design(CLAIM, canaries, *sizes)
        with pytest.raises(PrivacyParameterError, match="too few"):
            Design.best(CLAIM, 1)
        with pytest.raises(PrivacyParameterError, match="confidence"):
            Design(CLAIM, 10, 2, 2, 1.0)


class TestVerdict:
    def test_it_contradicts_from_the_needed_number_on(self) -> None:
        design = Design(CLAIM, 10_000, 250, 250)
        assert design.needed is not None
        assert design.judge(design.needed).contradicts
        assert not design.judge(design.needed - 1).contradicts
        assert design.judge(design.needed + 3).epsilon >= CLAIM.epsilon * 0.99
        assert design.judge(design.needed - 3).epsilon <= CLAIM.epsilon * 1.01

    def test_more_right_guesses_never_show_less(self) -> None:
        design = Design(CLAIM, 2000, 100, 100)
        bounds = [design.judge(correct).epsilon for correct in (0, 100, 130, 160, 200)]
        assert bounds == sorted(bounds)
        assert (bounds[0], bounds[-1]) == (0, design.ceiling)

    def test_it_is_strict_json(self) -> None:
        tree = Design(CLAIM, 1000, 50, 50).judge(70).as_dict()
        assert json.loads(json.dumps(tree, allow_nan=False)) == tree
        assert tree["guessed_in"] == tree["guessed_out"] == 50
        claimed = Design(Claim((Spend({"type": "NonPrivate"}, 1),), 1e-5), 100, 10, 0).judge(10)
        assert claimed.as_dict()["epsilon_claimed"] is None
        assert not claimed.contradicts

    def test_what_cannot_have_been(self) -> None:
        with pytest.raises(PrivacyParameterError, match="no attack"):
            Design(CLAIM, 100, 5, 5).judge(11)


class TestWords:
    def test_they_hold_bound_claim_ceiling_and_limits(self) -> None:
        verdict = Design(CLAIM, 10_000, 250, 250).judge(330)
        lines = "\n".join(told("gradients", verdict))
        for part in (
            "330 of 500", f"ε ≥ {verdict.epsilon:.3g}", "95 % confidence", f"ε ≤ {CLAIM.epsilon:.3g}",
            f"would be {verdict.design.ceiling:.3g}", "Not contradicted", "no proof", *CANNOT["gradients"],
        ):  # fmt: skip
            assert part in lines
        assert "CONTRADICTED" not in lines

    def test_a_contradiction_is_loud(self) -> None:
        lines = "\n".join(told("units", Design(CLAIM, 10_000, 250, 250).judge(450)))
        assert "CONTRADICTED" in lines
        assert "Not contradicted" not in lines
        assert CANNOT["units"][0] in lines
