"""DP events as JSON: what a release is charged as, and what an auditor composes again.

The events are `dp_accounting`'s; here is only their serialised form, which never changes its meaning. An event
that this module does not know is refused, never skipped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hansa.canonical import Json, canonical_json
from hansa.errors import PrivacyParameterError

if TYPE_CHECKING:
    from dp_accounting import DpEvent

EventJson: TypeAlias = Mapping[str, Json]

MOST_UNITS = 2**31  # of a dataset from which batches that are cut are drawn


@dataclass(frozen=True)
class Spend:
    """One kind of DP event with a count.

    Attributes:
        event: a serialised event.
        count: how often it may happen, or did.
    """

    event: EventJson
    count: int


@dataclass(frozen=True)
class Truncation:
    """The public caps of a sample that is cut.

    Attributes:
        most_units: N; the dataset has no more.
        largest_batch: B; of a larger sample a uniformly random part of this size stays.

    Raises:
        PrivacyParameterError: either is no integer in range.
    """

    most_units: int
    largest_batch: int

    def __post_init__(self) -> None:
        for value in (self.most_units, self.largest_batch):
            if type(value) is not int or not 1 <= value <= MOST_UNITS:
                raise PrivacyParameterError(
                    f"{value!r} is no cap of units: an integer from 1 to {MOST_UNITS}"
                )


def gaussian(noise_multiplier: float) -> EventJson:
    """The Gaussian mechanism: one private table, or one epoch of fixed batches that hold each unit once.

    Args:
        noise_multiplier: standard deviation of the noise over the L2 sensitivity, add-or-remove-one.
    """
    return {"type": "Gaussian", "noise_multiplier": _multiplier(noise_multiplier)}


def poisson_gaussian(sampling_rate: float, noise_multiplier: float) -> EventJson:
    """One step of DP-SGD: Poisson sampling at a public rate, then the Gaussian mechanism.

    Args:
        sampling_rate: in (0, 1]; of true Poisson sampling. Batches of a shuffled epoch are `gaussian` steps.
        noise_multiplier: standard deviation of the noise over the L2 sensitivity, add-or-remove-one.
    """
    return {
        "type": "PoissonSampled",
        "sampling_probability": _rate(sampling_rate),
        "event": gaussian(noise_multiplier),
    }


def truncated_poisson_gaussian(sampling_rate: float, noise_multiplier: float, cut: Truncation) -> EventJson:
    """One step of DP-SGD on a Poisson sample that is cut to a largest batch by a uniformly random choice.

    Args:
        sampling_rate: in (0, 1).
        noise_multiplier: standard deviation of the noise over the L2 norm of one unit's contribution.
        cut: the public caps. The event holds for every dataset of at most so many units.
    """
    if not _rate(sampling_rate) < 1:
        raise PrivacyParameterError("a sample that is cut has a sampling rate below 1")
    return {
        "type": "TruncatedPoissonSampled",
        "sampling_probability": _rate(sampling_rate),
        "most_units": cut.most_units,
        "largest_batch": cut.largest_batch,
        "event": gaussian(noise_multiplier),
    }


@dataclass(frozen=True)
class Numbers:
    """All that an event says.

    Attributes:
        rate: Poisson rate; 1 where every unit takes part.
        multiplier: of the noise; 0 stands for an event without privacy.
        truncation: the caps of a sample that is cut.
    """

    rate: float
    multiplier: float
    truncation: Truncation | None = None


def numbers_of(event: EventJson) -> Numbers:
    """What an event says, for who composes it: each part changes what it costs.

    Raises:
        PrivacyParameterError: an unknown type, members that are missing or too many, or numbers out of range.
    """
    match event:
        case {"type": "Gaussian", "noise_multiplier": int() | float() as sigma, **rest} if not rest:
            return Numbers(1.0, _multiplier(sigma))
        case {
            "type": "PoissonSampled",
            "sampling_probability": int() | float() as q,
            "event": {"type": "Gaussian", "noise_multiplier": int() | float() as sigma, **more},
            **rest,
        } if not rest and not more:
            return Numbers(_rate(q), _multiplier(sigma))
        case {
            "type": "TruncatedPoissonSampled",
            "sampling_probability": int() | float() as q,
            "most_units": int() as units,
            "largest_batch": int() as batch,
            "event": {"type": "Gaussian", "noise_multiplier": int() | float() as sigma, **more},
            **rest,
        } if not rest and not more and _rate(q) < 1:
            return Numbers(float(q), _multiplier(sigma), Truncation(units, batch))
        case {"type": "NonPrivate", **rest} if not rest:
            return Numbers(1.0, 0.0)
    raise PrivacyParameterError(f"a serialised DP event is not known: type {event.get('type')!r}")


def rate_and_multiplier(event: EventJson) -> tuple[float, float]:
    """The two numbers by which people compare events: a Poisson rate (1 for none) and a noise multiplier.

    An ε needs all of `numbers_of`.

    Returns:
        (q, σ); σ = 0 stands for an event without privacy.

    Raises:
        PrivacyParameterError: as `numbers_of`.
    """
    numbers = numbers_of(event)
    return numbers.rate, numbers.multiplier


def with_more_noise(event: EventJson, factor: float) -> EventJson:
    """The same event with its noise multiplier times `factor`."""
    numbers = numbers_of(event)
    return event if numbers.multiplier == 0 else with_noise(event, numbers.multiplier * factor)


def with_noise(event: EventJson, noise_multiplier: float) -> EventJson:
    """The same event with another noise multiplier."""
    numbers = numbers_of(event)
    if event["type"] == "Gaussian":
        return gaussian(noise_multiplier)
    if event["type"] == "PoissonSampled":
        return poisson_gaussian(numbers.rate, noise_multiplier)
    if numbers.truncation is not None:
        return truncated_poisson_gaussian(numbers.rate, noise_multiplier, numbers.truncation)
    raise PrivacyParameterError(f"an event of type {event['type']!r} has no noise")


def counted(spends: Iterable[Spend]) -> tuple[tuple[bytes, int], ...]:
    """Events as canonical JSON with their counts: equal events added up, in one order, none with a count of 0.

    Raises:
        PrivacyParameterError: a count is negative or no integer, or an event is not known.
    """
    counts: Counter[bytes] = Counter()
    for spend in spends:
        if type(spend.count) is not int or spend.count < 0:
            raise PrivacyParameterError(f"{spend.count!r} is no count of events")
        numbers_of(spend.event)
        if spend.count:
            counts[canonical_json(dict(spend.event))] += spend.count
    return tuple(sorted(counts.items()))


def _require_exact(number: float) -> None:
    """JSON of numbers that no float64 holds has no canonical form."""
    if type(number) is int and abs(number) >= 1 << 53:
        raise PrivacyParameterError("an event holds an integer beyond 2^53 - 1")


def _rate(sampling_rate: float) -> float:
    _require_exact(sampling_rate)
    if isinstance(sampling_rate, bool) or not 0 < sampling_rate <= 1:
        raise PrivacyParameterError(f"a sampling rate of {sampling_rate:g} is outside (0, 1]")
    return float(sampling_rate)


def _multiplier(noise_multiplier: float) -> float:
    _require_exact(noise_multiplier)
    if isinstance(noise_multiplier, bool) or not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise PrivacyParameterError(f"a noise multiplier of {noise_multiplier:g} is not above 0 and finite")
    return float(noise_multiplier)


def event_to_json(event: DpEvent) -> EventJson:
    """Serialise an event.

    Raises:
        PrivacyParameterError: the event is of a kind that Hansa does not charge.
    """
    import dp_accounting as dp

    match event:
        case dp.GaussianDpEvent():
            return gaussian(event.noise_multiplier)
        case dp.PoissonSampledDpEvent(event=dp.GaussianDpEvent()):
            return poisson_gaussian(event.sampling_probability, event.event.noise_multiplier)
        case dp.TruncatedSubsampledGaussianDpEvent():
            cut = Truncation(event.dataset_size, event.truncated_batch_size)
            return truncated_poisson_gaussian(event.sampling_probability, event.noise_multiplier, cut)
        case dp.NonPrivateDpEvent():
            return {"type": "NonPrivate"}
        case _:
            raise PrivacyParameterError(f"events of type {type(event).__name__} are not charged by Hansa")


def event_from_json(value: EventJson) -> DpEvent:
    """Read an event back; the inverse of `event_to_json`.

    A truncated one is `dp_accounting`'s for exactly as many units as there may be. Its PLD there is not the one of
    record, which holds for fewer units as well (`hansa.privacy.truncation`).

    Raises:
        PrivacyParameterError: as `numbers_of`.
    """
    import dp_accounting as dp

    numbers = numbers_of(value)
    if numbers.multiplier == 0:
        return dp.NonPrivateDpEvent()
    if numbers.truncation is not None:
        cut = numbers.truncation
        return dp.TruncatedSubsampledGaussianDpEvent(
            cut.most_units, numbers.rate, cut.largest_batch, numbers.multiplier
        )
    inner = dp.GaussianDpEvent(numbers.multiplier)
    return dp.PoissonSampledDpEvent(numbers.rate, inner) if value["type"] == "PoissonSampled" else inner
