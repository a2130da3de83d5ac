"""DP events as JSON: what a release is charged as, and what an auditor composes again.

The events are `dp_accounting`'s; here is only their serialised form, which never changes its meaning. An event
that this module does not know is refused, never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hansa.canonical import Json
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


def poisson_gaussian(sampling_rate: float, noise_multiplier: float) -> EventJson:
    """One step of DP-SGD: Poisson sampling at a public rate, then the Gaussian mechanism.

    Args:
        sampling_rate: in (0, 1].
        noise_multiplier: standard deviation of the noise over the L2 sensitivity, add-or-remove-one.
    """
    return event_to_json(_poisson(sampling_rate, noise_multiplier))


def _poisson(sampling_rate: float, noise_multiplier: float) -> DpEvent:
    import dp_accounting

    if not 0 < sampling_rate <= 1:
        raise PrivacyParameterError(f"a sampling rate of {sampling_rate:g} is outside (0, 1]")
    if not noise_multiplier > 0:
        raise PrivacyParameterError(f"a noise multiplier of {noise_multiplier:g} is not above 0")
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    return dp_accounting.PoissonSampledDpEvent(sampling_rate, gaussian)


def event_to_json(event: DpEvent) -> EventJson:
    """Serialise an event.

    Raises:
        PrivacyParameterError: the event is of a kind that Hansa does not charge.
    """
    import dp_accounting as dp

    match event:
        case dp.GaussianDpEvent():
            return {"type": "Gaussian", "noise_multiplier": float(event.noise_multiplier)}
        case dp.PoissonSampledDpEvent():
            return {
                "type": "PoissonSampled",
                "sampling_probability": float(event.sampling_probability),
                "event": event_to_json(event.event),
            }
        case dp.NonPrivateDpEvent():
            return {"type": "NonPrivate"}
        case _:
            raise PrivacyParameterError(f"events of type {type(event).__name__} are not charged by Hansa")


def event_from_json(value: EventJson) -> DpEvent:
    """Read an event back; the inverse of `event_to_json`.

    Raises:
        PrivacyParameterError: an unknown type, or members that are missing or too many.
    """
    import dp_accounting as dp

    match value:
        case {"type": "Gaussian", "noise_multiplier": int() | float() as sigma, **rest} if not rest:
            return dp.GaussianDpEvent(float(sigma))
        case {
            "type": "PoissonSampled",
            "sampling_probability": int() | float() as q,
            "event": Mapping() as inner,
            **rest,
        }:
            if not rest:
                return dp.PoissonSampledDpEvent(float(q), event_from_json(inner))
        case {"type": "NonPrivate", **rest} if not rest:
            return dp.NonPrivateDpEvent()
    raise PrivacyParameterError(f"a serialised DP event is not known: type {value.get('type')!r}")
