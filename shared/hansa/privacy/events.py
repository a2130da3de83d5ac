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


@dataclass(frozen=True)
class Spend:
    """One kind of DP event with a count.

    Attributes:
        event: a serialised event.
        count: how often it may happen, or did.
    """

    event: EventJson
    count: int


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


def rate_and_multiplier(event: EventJson) -> tuple[float, float]:
    """What every event that Hansa charges comes down to: a Poisson rate (1 for none) and a noise multiplier.

    Returns:
        (q, σ); σ = 0 stands for an event without privacy.

    Raises:
        PrivacyParameterError: an unknown type, members that are missing or too many, or numbers out of range.
    """
    match event:
        case {"type": "Gaussian", "noise_multiplier": int() | float() as sigma, **rest} if not rest:
            return 1.0, _multiplier(sigma)
        case {
            "type": "PoissonSampled",
            "sampling_probability": int() | float() as q,
            "event": {"type": "Gaussian", "noise_multiplier": int() | float() as sigma, **more},
            **rest,
        } if not rest and not more:
            return _rate(q), _multiplier(sigma)
        case {"type": "NonPrivate", **rest} if not rest:
            return 1.0, 0.0
    raise PrivacyParameterError(f"a serialised DP event is not known: type {event.get('type')!r}")


def with_more_noise(event: EventJson, factor: float) -> EventJson:
    """The same event with its noise multiplier times `factor`."""
    rate, multiplier = rate_and_multiplier(event)
    if multiplier == 0:
        return event
    noisier = multiplier * factor
    return poisson_gaussian(rate, noisier) if event["type"] == "PoissonSampled" else gaussian(noisier)


def counted(spends: Iterable[Spend]) -> tuple[tuple[bytes, int], ...]:
    """Events as canonical JSON with their counts: equal events added up, in one order, none with a count of 0.

    Raises:
        PrivacyParameterError: a count is negative or no integer, or an event is not known.
    """
    counts: Counter[bytes] = Counter()
    for spend in spends:
        if type(spend.count) is not int or spend.count < 0:
            raise PrivacyParameterError(f"{spend.count!r} is no count of events")
        rate_and_multiplier(spend.event)
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
        case dp.NonPrivateDpEvent():
            return {"type": "NonPrivate"}
        case _:
            raise PrivacyParameterError(f"events of type {type(event).__name__} are not charged by Hansa")


def event_from_json(value: EventJson) -> DpEvent:
    """Read an event back; the inverse of `event_to_json`.

    Raises:
        PrivacyParameterError: as `rate_and_multiplier`.
    """
    import dp_accounting as dp

    rate, multiplier = rate_and_multiplier(value)
    if multiplier == 0:
        return dp.NonPrivateDpEvent()
    inner = dp.GaussianDpEvent(multiplier)
    return dp.PoissonSampledDpEvent(rate, inner) if value["type"] == "PoissonSampled" else inner
