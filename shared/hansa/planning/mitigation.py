"""What rates of drawing by group, and a clipping norm that adapts, come to before anything runs, in words and as JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from hansa.agreement.terms import Terms
from hansa.canonical import Json
from hansa.privacy.adaptation import Adaptation, adaptation_of
from hansa.privacy.charges import charges_of
from hansa.privacy.distributed import SharedNoise
from hansa.privacy.group_rates import epsilon_at_rate
from hansa.privacy.sampling import GroupSampling, sampling_of

WIDTH = 100


@dataclass(frozen=True)
class RatesPlanned:
    """Rates by group under an agreement.

    Attributes:
        attribute: of the groups.
        accounted_rate: the largest, at which every unit is charged.
        rates: by value.
        epsilons: by value, what the run would cost a unit at its own rate, against everyone.
    """

    attribute: str
    accounted_rate: float
    rates: Mapping[str, float]
    epsilons: Mapping[str, float]

    def as_dict(self) -> dict[str, Json]:
        """As JSON values."""
        return {
            "attribute": self.attribute,
            "accounted_rate": self.accounted_rate,
            "groups": {
                value: {"rate": rate, "epsilon_at_own_rate": self.epsilons[value]}
                for value, rate in self.rates.items()
            },
        }

    def text(self) -> str:
        """Lines of at most 100 columns."""
        own = ", ".join(
            f"{value} at {rate:g} (ε = {self.epsilons[value]:.3g})" for value, rate in self.rates.items()
        )
        return "\n".join(
            textwrap.wrap(
                f"Mitigation by {self.attribute}: every unit is charged at the largest rate, {self.accounted_rate:g}. Steps draw, "
                f"with what a unit would lose at its own rate: {own}.",
                WIDTH,
            )
        )


def rates_planned(terms: Terms, noise_multiplier: float) -> RatesPlanned | None:
    """What an agreement's rates by group come to; `None` where it has none.

    Args:
        terms: with a mechanism.
        noise_multiplier: as frozen, or calibrated.

    Raises:
        PrivacyParameterError: see `charges_of`.
    """
    sampling, delta = sampling_of(terms), terms.privacy.delta
    if not isinstance(sampling, GroupSampling) or delta is None:
        return None
    spends = [charge.against(None) for charge in charges_of(terms, noise_multiplier)]
    epsilons = {value: epsilon_at_rate(spends, delta, rate) for value, rate in sampling.rates.items()}
    return RatesPlanned(sampling.attribute, sampling.rate, sampling.rates, epsilons)


@dataclass(frozen=True)
class AdaptationPlanned:
    """A clipping norm that adapts, under an agreement.

    Attributes:
        adapts: as agreed.
        count_sd: standard deviation of one step's noise in the share of units that it counts, with no more shares of noise than
            are promised.
    """

    adapts: Adaptation
    count_sd: float

    def as_dict(self) -> dict[str, Json]:
        """As JSON values."""
        rule = self.adapts.norm
        return {
            "epsilon": 0.0,
            "noise_factor": 1 / self.adapts.gradient_part,
            "smallest": rule.smallest,
            "largest": rule.largest,
            "quantile": rule.quantile,
            "share_sd": self.count_sd,
            "norm_sd": rule.rate * self.count_sd,
        }

    def text(self) -> str:
        """Lines of at most 100 columns."""
        rule = self.adapts.norm
        return "\n".join(
            textwrap.wrap(
                f"The clipping norm adapts between {rule.smallest:g} and {rule.largest:g}. It costs no ε and "
                f"{1 / self.adapts.gradient_part:.4g} times the noise in each gradient. A step's noise moves the share that it counts by "
                f"{self.count_sd:.2g}, and so the norm by {rule.rate * self.count_sd:.1%}.",
                WIDTH,
            )
        )


def adaptation_planned(terms: Terms, dimension: int, noise_multiplier: float) -> AdaptationPlanned | None:
    """What a clipping norm that adapts comes to; `None` where none does.

    Args:
        terms: of an agreement.
        dimension: d, trained weights.
        noise_multiplier: as frozen, or calibrated.

    Raises:
        PrivacyParameterError: see `SharedNoise.of`.
    """
    adapts = adaptation_of(terms)
    if adapts is None:
        return None
    noise = SharedNoise.of(terms, dimension, noise_multiplier)
    batch = terms.privacy.sampling_rate * sum(member.units for member in terms.members)
    (magnitude,) = adapts.magnitudes
    # in parts of C, of as many shares as are promised
    sd = (
        math.sqrt(noise.honest)
        * noise.grid.sigma(noise.share_multiplier)
        / (noise.grid.scale * noise.grid.clipping_norm)
    )
    return AdaptationPlanned(adapts, sd / magnitude * adapts.norm.most / batch)
