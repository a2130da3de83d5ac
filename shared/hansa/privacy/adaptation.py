"""What adapts to noisy sums while a model is trained: the clipping norm.

Under the ``distributed`` mechanism a round is one step, and its sum may hold a few coordinates more than the model: of each
unit something bounded is counted beside its clipped gradient, in the same vector, under the same noise. What follows from
these noisy counts is a public function of sums that are charged already: everybody computes it, and it costs no further ε.
What it costs is noise. The whole vector of a unit stays within the norm C of the grid, so that of its squared length the
gradient keeps 1 − p where the counts take p, and the gradient's noise grows by 1 / √(1 − p).

The vector is in units of the step's own norm: a gradient that is clipped to C_t stands on the grid as one that was clipped to
C. So grid, sensitivity, noise and events are the same in every step, whatever the norm is, and a member that is told another
norm moves the sum by no more.

Source: Andrew, Thakkar, McMahan, Ramaswamy (arXiv 1905.03871) for the quantile and its geometric update; norms that are kept
between bounds, so that no group with long gradients is clipped to nothing, as in arXiv 2506.01396.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, TypeAlias

from hansa.canonical import canonical_hash, sha256_hex
from hansa.errors import PrivacyParameterError
from hansa.privacy.clipping import LEAST_NORM, MOST_NORM

if TYPE_CHECKING:
    from hansa.agreement.mitigation import AdaptiveClipping
    from hansa.agreement.terms import Terms

Quantities: TypeAlias = tuple[float, ...]

LARGEST_SHARE = 0.5  # of the squared sensitivity, that counts may take
_ARITHMETIC = Context(prec=50, rounding=ROUND_HALF_EVEN)  # whose exp is correctly rounded on every machine


def times_exp(value: float, exponent: float) -> float:
    """`value` · e^`exponent`, to 50 digits and then to a float: the same bits on every machine, unlike a C library's exp."""
    product = _ARITHMETIC.multiply(Decimal(value), _ARITHMETIC.exp(Decimal(exponent)))
    return float(product)


def model_name(weights_sha256: str, quantities: Sequence[float]) -> str:
    """What manifests and logs name a model by that has quantities adapted beside its weights: SHA-256 of both.

    Args:
        weights_sha256: of the weights, little-endian float64.
        quantities: that the next step is taken under.
    """
    packed = struct.pack(f"<{len(quantities)}d", *quantities)
    return canonical_hash({"weights": weights_sha256, "adapted": sha256_hex(packed)})


@dataclass(frozen=True)
class NormRule:
    """How the clipping norm of one step follows from that of the last.

    A unit counts as 1 − γ if its gradient is far shorter than the norm C and as −γ if it is far longer, on a line between:
    f(‖g‖ / C) − γ with f(x) = min(1, max(0, 3/2 − x)). The sum is 0 in expectation where the mean of f is γ, however many
    units take part. f is the probability that ‖g‖ is below U·C for a U that is uniform between 1/2 and 3/2, and not the step
    at 1: on a step, the last digit of another unit's gradient could turn its count round.

    Attributes:
        quantile: γ, the share of units whose gradients shall be shorter than the norm.
        rate: of the geometric update; a step multiplies the norm by at most e^rate.
        smallest, largest: between which the norm stays.
        start: of the first step.

    Raises:
        PrivacyParameterError: a number is out of range, or the start is not between the bounds.
    """

    quantile: float
    rate: float
    smallest: float
    largest: float
    start: float

    def __post_init__(self) -> None:
        bounded = LEAST_NORM <= self.smallest <= self.start <= self.largest <= MOST_NORM
        if not (bounded and 0 < self.quantile < 1 and 0 < self.rate <= 1):
            raise PrivacyParameterError(
                "the clipping norm cannot adapt: its start is not between its bounds, or quantile or rate are out of range"
            )

    @property
    def most(self) -> float:
        """The largest magnitude that one unit counts with: max(γ, 1 − γ)."""
        return max(self.quantile, 1 - self.quantile)

    def following(self, norm: float, below: float) -> float:
        """The norm of the next step.

        Args:
            norm: C of this step.
            below: the noisy sum of what units counted as, over the public expected batch.

        Guarantees: between the bounds, whatever `below` is.
        """
        off = min(max(below, -self.quantile), 1 - self.quantile)  # a true share is in [0, 1]
        return min(max(times_exp(norm, -self.rate * off), self.smallest), self.largest)


@dataclass(frozen=True)
class Adaptation:
    """What stands beside the gradient in each step's sum, and what follows from it.

    The state of it is a vector of quantities: the clipping norm.

    Attributes:
        norm: how the clipping norm follows.
        norm_share: which part of a unit's squared length its count takes.

    Guarantees: with a gradient of length at most `gradient_part`·C and counts of at most `magnitudes`·C each, a unit's whole
        vector has L2 norm at most C.

    Raises:
        PrivacyParameterError: the counts take nothing, or more than half.
    """

    norm: NormRule
    norm_share: float

    def __post_init__(self) -> None:
        if not 0 < self.norm_share <= LARGEST_SHARE:
            raise PrivacyParameterError(
                f"counts beside the gradient take {self.norm_share:g} of its squared length",
                remedy=f"Above 0, and at most {LARGEST_SHARE:g}.",
            )

    @property
    def magnitudes(self) -> Quantities:
        """For each coordinate beside the gradient, how much of C one unit may hold there."""
        return (math.sqrt(self.norm_share),)

    @property
    def coordinates(self) -> int:
        """How many coordinates a sum has beyond the model's."""
        return len(self.magnitudes)

    @property
    def gradient_part(self) -> float:
        """√(1 − p): how much of C a clipped gradient may hold; its noise grows by one over it."""
        return math.sqrt(1 - self.norm_share)

    @property
    def first(self) -> Quantities:
        """The quantities of the first step."""
        return (self.norm.start,)

    def norm_of(self, quantities: Sequence[float]) -> float:
        """The clipping norm that quantities hold.

        Raises:
            PrivacyParameterError: they are not quantities of this, or the norm is outside its bounds.
        """
        norm = quantities[0] if len(quantities) == len(self.first) else math.nan
        if not self.norm.smallest <= norm <= self.norm.largest:
            raise PrivacyParameterError(
                f"a clipping norm of {norm:g} is not between the agreed {self.norm.smallest:g} and {self.norm.largest:g}"
            )
        return norm

    def following(self, quantities: Sequence[float], counted: Sequence[float], batch: float) -> Quantities:
        """The quantities of the next step, from the noisy sum of this one.

        Args:
            quantities: of this step.
            counted: what the sum holds beside the gradient, in parts of C (grid units over s·C).
            batch: public expected number of units in it, above 0.

        Returns:
            A function of the arguments' bits alone: + × ÷ and an exponential that is correctly rounded.
        """
        if len(counted) != self.coordinates or not batch > 0:
            raise PrivacyParameterError("a sum does not hold what is counted beside its gradient")
        (magnitude,) = self.magnitudes
        below = counted[0] / magnitude * self.norm.most / batch
        return (self.norm.following(self.norm_of(quantities), below),)


def adaptation_of(terms: Terms) -> Adaptation | None:
    """What adapts under an agreement; `None` where nothing does.

    Raises:
        PrivacyParameterError: terms that the rules of an agreement refuse.
    """
    agreed = None if terms.mitigation is None else terms.mitigation.clipping
    if agreed is None:
        return None
    privacy = terms.privacy
    if privacy.mechanism != "distributed" or privacy.rotation != "none" or privacy.clipping != "flat":
        raise PrivacyParameterError(
            "a clipping norm adapts under distributed noise alone, where gradients are clipped flat and sums are not rotated"
        )
    return Adaptation(_norm_rule(agreed, privacy.clipping_norm), agreed.noise_share)


def summed_length(terms: Terms, parameters: int) -> int:
    """How many coordinates a step's sum has: the model's, and what is counted beside them."""
    adapts = adaptation_of(terms)
    return parameters + (0 if adapts is None else adapts.coordinates)


def _norm_rule(agreed: AdaptiveClipping, start: float) -> NormRule:
    return NormRule(agreed.quantile, agreed.rate, agreed.smallest, agreed.largest, start)
