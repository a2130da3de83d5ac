"""What rates of drawing by group come to before anything runs, in words and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

from hansa.agreement.terms import Terms
from hansa.canonical import Json
from hansa.privacy.charges import charges_of
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
