"""How a step draws its units: what an agreement fixes, and the event that each draw is charged as."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hansa.errors import PrivacyParameterError
from hansa.privacy.events import (
    EventJson,
    Truncation,
    gaussian,
    poisson_gaussian,
    truncated_poisson_gaussian,
)

if TYPE_CHECKING:
    from hansa.agreement.mitigation import GroupRates
    from hansa.agreement.terms import Terms

_WHOLE = 1e-9  # relative: how far 1 / q may be from an integer


@dataclass(frozen=True)
class PoissonSampling:
    """Each unit is in a step's batch with the same public probability, independently of everything.

    Attributes:
        rate: q in (0, 1].
    """

    rate: float

    def event(self, noise_multiplier: float) -> EventJson:
        """What is charged."""
        return poisson_gaussian(self.rate, noise_multiplier)

    def events_in(self, steps: int) -> int:
        """How many of these events so many steps are."""
        return steps


@dataclass(frozen=True)
class GroupSampling(PoissonSampling):
    """Poisson sampling with a public rate for each group, none above `rate`.

    Each unit is drawn by itself, at a rate that its own records decide. A step on D and one on D with a unit more are then
    mixtures of the same Gaussians with that unit's rate, and the hockey-stick divergence of either from the other does not
    fall with the rate: what is charged at the largest rate holds for every unit.

    Attributes:
        rate: q in (0, 1], the largest, at which every unit is accounted.
        attribute: of the groups.
        relative: by value of the attribute, in the agreement's order: the value and its rate, as a part of `rate`.
    """

    attribute: str
    relative: tuple[tuple[str, float], ...]

    @property
    def rates(self) -> dict[str, float]:
        """The rate of each group."""
        return {value: self.rate * part for value, part in self.relative}


@dataclass(frozen=True)
class TruncatedSampling:
    """Poisson sampling; of a sample that is larger than a batch may be, a uniformly random part stays.

    Attributes:
        rate: q in (0, 1).
        cut: the largest batch, and the most units that anybody may hold.
    """

    rate: float
    cut: Truncation

    def event(self, noise_multiplier: float) -> EventJson:
        """What is charged."""
        return truncated_poisson_gaussian(self.rate, noise_multiplier, self.cut)

    def events_in(self, steps: int) -> int:
        """How many of these events so many steps are."""
        return steps


@dataclass(frozen=True)
class FixedBatches:
    """Epochs of `batches` steps, in which each unit is in exactly one, whichever a keyed hash of its id says.

    A unit moves one step of an epoch and no other, by at most one contribution, so an epoch is one Gaussian release.
    Nothing is gained by sampling, and nothing is claimed for it: an attacker may know the batches.

    Attributes:
        batches: of an epoch.
    """

    batches: int

    @property
    def rate(self) -> float:
        """The share of the units that a batch is expected to hold."""
        return 1 / self.batches

    def event(self, noise_multiplier: float) -> EventJson:
        """What an epoch is charged as."""
        return gaussian(noise_multiplier)

    def events_in(self, steps: int) -> int:
        """How many epochs so many steps are.

        Raises:
            PrivacyParameterError: no whole number.
        """
        if steps % self.batches:
            raise PrivacyParameterError(f"{steps} steps are no whole epochs of {self.batches} fixed batches")
        return steps // self.batches


Sampling: TypeAlias = PoissonSampling | TruncatedSampling | FixedBatches


def batches_of(rate: float) -> int | None:
    """How many batches of this share make an epoch; `None` if it is no whole number."""
    if not 0 < rate <= 1:
        return None
    batches = round(1 / rate)
    return batches if math.isclose(batches * rate, 1, rel_tol=_WHOLE) else None


def sampling_of(terms: Terms) -> Sampling:
    """How every member of an agreement draws.

    The most units are the largest declared number, so that one event holds for all members.

    Raises:
        PrivacyParameterError: terms that the rules of an agreement refuse.
    """
    privacy = terms.privacy
    if terms.mitigation is not None and terms.mitigation.sampling is not None:
        return _by_group(terms, terms.mitigation.sampling)
    if privacy.sampling == "poisson":
        return PoissonSampling(privacy.sampling_rate)
    if privacy.sampling == "truncated-poisson":
        if privacy.max_batch_units is None:
            raise PrivacyParameterError("batches are cut, and the terms do not say to what")
        units = max(member.units for member in terms.members)
        return TruncatedSampling(privacy.sampling_rate, Truncation(units, privacy.max_batch_units))
    batches = batches_of(privacy.sampling_rate)
    if batches is None:
        raise PrivacyParameterError(f"fixed batches of a share of {privacy.sampling_rate:g} fill no epoch")
    return FixedBatches(batches)


def _by_group(terms: Terms, agreed: GroupRates) -> GroupSampling:
    group = next((one for one in terms.data.groups if one.name == agreed.attribute), None)
    if group is None or set(group.values) != set(agreed.rates) or terms.privacy.sampling != "poisson":
        raise PrivacyParameterError(
            "the rates of groups are not those of a declared attribute under Poisson sampling"
        )
    relative = tuple((value, agreed.rates[value]) for value in group.values)
    if not all(0 < part <= 1 for _, part in relative):
        raise PrivacyParameterError("a group is drawn at more than the accounted rate, or not at all")
    return GroupSampling(terms.privacy.sampling_rate, agreed.attribute, relative)
