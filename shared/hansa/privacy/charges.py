"""What a run is charged as: one event against everyone, and where noise is distributed a second against few.

Under the distributed mechanism each member adds a share of the noise. Whoever sees a member's own vector, which the
secure sum is there to prevent, faces its own share alone: that is the event *against everyone*. Whoever sees only sums,
and pools what at most c of the other members know, faces the shares of all the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from hansa.errors import PrivacyParameterError
from hansa.privacy.events import EventJson, Spend, numbers_of, with_more_noise
from hansa.privacy.sampling import Sampling, sampling_of

if TYPE_CHECKING:
    from hansa.agreement.terms import Terms

TRAINING: Final = "training"
EVALUATION: Final = "evaluation"


@dataclass(frozen=True)
class Charge:
    """Releases of one kind: what each costs, and how many there may be.

    Attributes:
        kind: short name, unique in a reservation: ``training``, ``evaluation``.
        event: of one release, against everyone: the member's own noise alone.
        count: how many there may be, retries included.
        shared: of one release, against at most `coalition` of the other members together with everyone outside;
            `None` where all noise is the member's own.
        coalition: c, at least 1 where there is a `shared`.
        in_parts_of: n, where `shared` is of shares in parts of a league of n, whose surplus is opened; 0 otherwise.

    Raises:
        PrivacyParameterError: an event is not known, a number is out of range, or `shared` would cost more than `event`.
    """

    kind: str
    event: EventJson
    count: int
    shared: EventJson | None = None
    coalition: int = 0
    in_parts_of: int = 0

    def __post_init__(self) -> None:
        if not self.kind or len(self.kind) > 64:
            raise PrivacyParameterError(f"{self.kind!r} names no kind of release")
        if type(self.count) is not int or self.count < 1:
            raise PrivacyParameterError("a reservation needs at least one event of each kind")
        own = numbers_of(self.event)
        if (self.shared is None) != (self.coalition == 0) or type(self.coalition) is not int:
            raise PrivacyParameterError("an event of shared noise and a coalition of at least 1 go together")
        if type(self.in_parts_of) is not int or (self.in_parts_of and self.in_parts_of <= self.coalition):
            raise PrivacyParameterError("noise in parts is shared by more members than may collude")
        if self.in_parts_of and self.shared is None:
            raise PrivacyParameterError("noise that is not shared has no parts to open")
        if self.shared is not None:
            together = numbers_of(self.shared)
            same = self.shared["type"] == self.event["type"] and replace(own, multiplier=1.0) == replace(
                together, multiplier=1.0
            )
            if self.coalition < 1 or not same or together.multiplier < own.multiplier:
                raise PrivacyParameterError(
                    "shared noise is not less than the member's own, on the same sample"
                )

    def against(self, coalition: int | None) -> Spend:
        """What the whole charge costs.

        Args:
            coalition: against at most so many of the others; `None` against everyone.

        Returns:
            The event of shared noise if it was made for so large a coalition, else the one against everyone.
        """
        shared = self.shared is not None and coalition is not None and coalition <= self.coalition
        return Spend(self.shared if shared and self.shared is not None else self.event, self.count)

    def with_count(self, count: int) -> Charge:
        """The same charge for so many releases."""
        return replace(self, count=count)

    def with_more_noise(self, factor: float) -> Charge:
        """The same charge with all noise multiplied."""
        shared = None if self.shared is None else with_more_noise(self.shared, factor)
        return replace(self, event=with_more_noise(self.event, factor), shared=shared)


def distributed_training(
    sampling: Sampling,
    noise_multiplier: float,
    steps: int,
    *,
    smallest_sum: int,
    colluding: int,
    in_parts_of: int = 0,
) -> Charge:
    """Steps of DP-SGD whose noise is the sum of members' shares.

    Args:
        sampling: how each step draws.
        noise_multiplier: of the shares of `smallest_sum` − `colluding` members together, this one among them.
        steps: over the run, retries included.
        smallest_sum: members whose shares are in every sum that is opened: max(t, min_members).
        colluding: c, how many of them may be subtracted by those who know them.
        in_parts_of: n, where shares are drawn in parts and all n members may contribute: the surplus is opened then, and against
            everyone no more than 1 / (n − c) of the promised variance is counted. 0 where shares are drawn in one.

    Each share is charged as a Gaussian whose value is then rounded at random without looking at data (`Grid`); a sum of
    shares is the sum of those Gaussians, rounded: a post-processing of one with the summed variance.

    Raises:
        PrivacyParameterError: nobody honest would be left.
    """
    honest = smallest_sum - colluding
    if colluding < 1:
        raise PrivacyParameterError(
            "a curious member is a coalition of 1: shared noise counts against 1 or more"
        )
    if honest < 1:
        raise PrivacyParameterError(
            f"a sum over {smallest_sum} members leaves no shares against {colluding} that collude"
        )
    own = noise_multiplier / math.sqrt(max(honest, in_parts_of - colluding))
    return Charge(
        TRAINING,
        sampling.event(own),
        sampling.events_in(steps),
        sampling.event(max(own, noise_multiplier)),
        colluding,
        in_parts_of,
    )


def charges_of(
    terms: Terms, noise_multiplier: float, *, rounds: int | None = None, retries: int | None = None
) -> tuple[Charge, ...]:
    """What a run under an agreement costs a member at most.

    Args:
        terms: with a mechanism.
        noise_multiplier: the frozen one; under ``distributed`` of the smallest sum without the colluding.
        rounds: of training; by default all.
        retries: rounds that may be repeated, each charged anew; by default those that the agreement allows.

    Raises:
        PrivacyParameterError: the agreement claims no privacy, or its numbers leave nobody honest.
    """
    privacy, sampling = terms.privacy, sampling_of(terms)
    retries = terms.secure_sum.retries if retries is None else retries
    steps = ((terms.training.rounds if rounds is None else rounds) + retries) * terms.local_steps
    if privacy.mechanism == "none":
        raise PrivacyParameterError("an agreement without privacy has no price")
    if privacy.mechanism == "local":
        return (Charge(TRAINING, sampling.event(noise_multiplier), sampling.events_in(steps)),)
    return (
        distributed_training(
            sampling,
            noise_multiplier,
            steps,
            smallest_sum=terms.smallest_sum,
            colluding=privacy.colluding,
            in_parts_of=len(terms.members) if privacy.noise_in_parts else 0,
        ),
    )
