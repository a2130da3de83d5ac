"""What rates of drawing by group, and what adapts, come to before anything runs, in words and as JSON."""

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
    """What adapts under an agreement, in public numbers.

    Attributes:
        adapts: as agreed.
        unit_sd: standard deviation of one step's noise in each coordinate beside the gradient, in parts of C, with no more
            shares of noise than are promised.
        batch: expected number of units in a step of all members.
    """

    adapts: Adaptation
    unit_sd: float
    batch: float

    @property
    def share_sd(self) -> float | None:
        """Of the noise in the share of units that a step counts for the norm; `None` where it is fixed."""
        norm = self.adapts.norm
        return None if norm is None else self.unit_sd / self.adapts.magnitudes[0] * norm.most / self.batch

    @property
    def group_sd(self) -> float | None:
        """Of the noise in the size of a group that the kept counts tell, in parts of an expected batch; `None` without weights.

        Sums that are kept with memory m over many steps hold noise of √(1 / (1 − m²)) steps and 1 / (1 − m) batches.
        """
        rule = self.adapts.weights
        if rule is None:
            return None
        kept = (1 - rule.memory) / math.sqrt(1 - rule.memory**2)
        return self.unit_sd / self.adapts.magnitudes[-1] / self.batch * kept

    def as_dict(self) -> dict[str, Json]:
        """As JSON values."""
        norm, weights = self.adapts.norm, self.adapts.weights
        return {
            "epsilon": 0.0,
            "noise_factor": 1 / self.adapts.gradient_part,
            "clipping": None
            if norm is None
            else {
                "smallest": norm.smallest, "largest": norm.largest, "quantile": norm.quantile, "share_sd": self.share_sd
            },
            "weights": None
            if weights is None
            else {"attribute": weights.attribute, "smallest": weights.smallest, "group_sd": self.group_sd},
        }  # fmt: skip

    def text(self) -> str:
        """Lines of at most 100 columns."""
        norm, weights = self.adapts.norm, self.adapts.weights
        found = []
        if norm is not None and self.share_sd is not None:
            found.append(
                f"The clipping norm adapts between {norm.smallest:g} and {norm.largest:g}. A step's noise moves the share of units that "
                f"it counts by {self.share_sd:.2g}, and so the norm by {norm.rate * self.share_sd:.1%}."
            )
        if weights is not None:
            found.append(
                f"Weights by {weights.attribute} follow losses, between {weights.smallest:g} and 1. The noise in a group's kept size is "
                f"{self.group_sd:.2g} of a batch: a group not far above that is weighed by noise."
            )
        found.append(
            f"What adapts costs no ε and {1 / self.adapts.gradient_part:.4g} times the noise in each gradient."
        )
        return "\n".join(textwrap.wrap(" ".join(found), WIDTH))


def adaptation_planned(terms: Terms, dimension: int, noise_multiplier: float) -> AdaptationPlanned | None:
    """What adapts, in numbers; `None` where nothing does.

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
    promised = math.sqrt(noise.honest) * noise.grid.sigma(noise.share_multiplier)
    batch = terms.privacy.sampling_rate * sum(member.units for member in terms.members)
    return AdaptationPlanned(adapts, promised / (noise.grid.scale * noise.grid.clipping_norm), batch)
