"""What adapts to noisy sums while a model is trained: the clipping norm, and the weights of groups.

Under the ``distributed`` mechanism a round is one step, and its sum may hold a few coordinates more than the model: of each
unit something bounded is counted beside its clipped gradient, in the same vector, under the same noise. What follows from
these noisy counts (`hansa.privacy.following`) is a public function of sums that are charged already: everybody computes it, and it costs no further ε.
What it costs is noise. The whole vector of a unit stays within the norm C of the grid, so that of its squared length the
gradient keeps 1 − p where the counts take p, and the gradient's noise grows by 1 / √(1 − p).

The vector is in units of the step's own norm: a gradient that is clipped to C_t stands on the grid as one that was clipped to
C. So grid, sensitivity, noise and events are the same in every step, whatever the norm is, and a member that is told another
norm moves the sum by no more.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.canonical import canonical_hash, sha256_hex
from hansa.errors import PrivacyParameterError
from hansa.privacy.clipping import LARGEST_SHARE
from hansa.privacy.following import NormRule, Quantities, WeightRule

if TYPE_CHECKING:
    from hansa.agreement.mitigation import GroupWeights
    from hansa.agreement.terms import Terms


def model_name(weights_sha256: str, quantities: Sequence[float]) -> str:
    """What manifests and logs name a model by that has quantities adapted beside its weights: SHA-256 of both.

    Args:
        weights_sha256: of the weights, little-endian float64.
        quantities: that the next step is taken under.
    """
    packed = struct.pack(f"<{len(quantities)}d", *quantities)
    return canonical_hash({"weights": weights_sha256, "adapted": sha256_hex(packed)})


@dataclass(frozen=True)
class Adaptation:
    """What stands beside the gradient in each step's sum, and what follows from it.

    Its state is a vector of quantities: the clipping norm where it adapts, then those of the weights where there are any. The
    coordinates beside the gradient are, likewise, the count for the norm, the groups' losses, the groups' counts.

    Attributes:
        clipping_norm: C, of the grid and of the first step.
        norm: how the clipping norm follows; `None` where it is fixed.
        norm_share: which part of a unit's squared length its count for the norm takes; 0 without one.
        weights: how the groups' weights follow; `None` where all weigh the same.
        weights_share: which part a unit's loss and its count in its group take, half each; 0 without weights.

    Guarantees: with a gradient of length at most `gradient_part`·C, and beside it at most one count for the norm, one loss and one
        count in one group, each of its magnitude times C at most, a unit's whole vector has L2 norm at most C.

    Raises:
        PrivacyParameterError: nothing adapts, or counts take nothing, or more than half together.
    """

    clipping_norm: float
    norm: NormRule | None = None
    norm_share: float = 0.0
    weights: WeightRule | None = None
    weights_share: float = 0.0

    def __post_init__(self) -> None:
        fits = all(
            share == 0 if rule is None else share > 0
            for rule, share in ((self.norm, self.norm_share), (self.weights, self.weights_share))
        )
        if not (fits and 0 < self.norm_share + self.weights_share <= LARGEST_SHARE):
            raise PrivacyParameterError(
                f"counts beside the gradient take {self.norm_share:g} and {self.weights_share:g} of its squared length",
                remedy=f"Above 0 for what adapts, and at most {LARGEST_SHARE:g} together.",
            )
        if self.norm is not None and self.norm.start != self.clipping_norm:
            raise PrivacyParameterError("a clipping norm that adapts starts at the norm of the grid")

    @property
    def magnitudes(self) -> Quantities:
        """For each coordinate beside the gradient, how much of C one unit may hold there."""
        each = math.sqrt(self.weights_share / 2)
        groups = 0 if self.weights is None else len(self.weights.values)
        return (*([] if self.norm is None else [math.sqrt(self.norm_share)]), *[each] * (2 * groups))

    @property
    def coordinates(self) -> int:
        """How many coordinates a sum has beyond the model's."""
        return len(self.magnitudes)

    @property
    def gradient_part(self) -> float:
        """√(1 − p): how much of C a clipped gradient may hold; its noise grows by one over it."""
        return math.sqrt(1 - self.norm_share - self.weights_share)

    @property
    def first(self) -> Quantities:
        """The quantities of the first step."""
        norm = () if self.norm is None else (self.norm.start,)
        return norm if self.weights is None else (*norm, *self.weights.first)

    def norm_of(self, quantities: Sequence[float]) -> float:
        """The clipping norm of a step.

        Raises:
            PrivacyParameterError: the quantities are not of this, or the norm is outside its bounds.
        """
        self._check(quantities)
        if self.norm is None:
            return self.clipping_norm
        norm = quantities[0]
        if not self.norm.smallest <= norm <= self.norm.largest:
            raise PrivacyParameterError(
                f"a clipping norm of {norm:g} is not between the agreed {self.norm.smallest:g} and {self.norm.largest:g}"
            )
        return norm

    def weights_of(self, quantities: Sequence[float]) -> Quantities:
        """The weights of a step, by group; none where all weigh the same.

        Raises:
            PrivacyParameterError: the quantities are not of this, or a weight is outside its bounds.
        """
        self._check(quantities)
        return () if self.weights is None else self.weights.weights_of(self.of_weights(quantities))

    def of_weights(self, quantities: Sequence[float]) -> Sequence[float]:
        """Those of the quantities that are the weights' own."""
        return quantities[0 if self.norm is None else 1 :]

    def following(self, quantities: Sequence[float], counted: Sequence[float], batch: float) -> Quantities:
        """The quantities of the next step, from the noisy sum of this one.

        Args:
            quantities: of this step.
            counted: what the sum holds beside the gradient, in parts of C (grid units over s·C).
            batch: public expected number of units in it, above 0.

        Raises:
            PrivacyParameterError: one of them is not of this.
        """
        if len(counted) != self.coordinates or not batch > 0:
            raise PrivacyParameterError("a sum does not hold what is counted beside its gradient")
        now = self.norm_of(quantities)
        units = [value / magnitude for value, magnitude in zip(counted, self.magnitudes, strict=True)]
        found: list[float] = []
        if self.norm is not None:
            found.append(self.norm.following(now, units.pop(0) * self.norm.most / batch))
        if self.weights is not None:
            half = len(units) // 2
            found += self.weights.following(self.of_weights(quantities), units[:half], units[half:], batch)
        return tuple(found)

    def _check(self, quantities: Sequence[float]) -> None:
        if len(quantities) != len(self.first):
            raise PrivacyParameterError(
                f"{len(quantities)} quantities are not the {len(self.first)} that adapt under this agreement"
            )


def adaptation_of(terms: Terms) -> Adaptation | None:
    """What adapts under an agreement; `None` where nothing does.

    Raises:
        PrivacyParameterError: terms that the rules of an agreement refuse.
    """
    agreed, privacy = terms.mitigation, terms.privacy
    if agreed is None or (agreed.clipping is None and agreed.weights is None):
        return None
    if privacy.mechanism != "distributed" or privacy.rotation != "none" or privacy.clipping != "flat":
        raise PrivacyParameterError(
            "what adapts follows from sums under distributed noise, of gradients that are clipped flat and not rotated"
        )
    norm, start = agreed.clipping, privacy.clipping_norm
    return Adaptation(
        start,
        None if norm is None else NormRule(norm.quantile, norm.rate, norm.smallest, norm.largest, start),
        0.0 if norm is None else norm.noise_share,
        None if agreed.weights is None else _weight_rule(terms, agreed.weights),
        0.0 if agreed.weights is None else agreed.weights.noise_share,
    )


def summed_length(terms: Terms, parameters: int) -> int:
    """How many coordinates a step's sum has: the model's, and what is counted beside them."""
    adapts = adaptation_of(terms)
    return parameters + (0 if adapts is None else adapts.coordinates)


def _weight_rule(terms: Terms, agreed: GroupWeights) -> WeightRule:
    group = next((one for one in terms.data.groups if one.name == agreed.attribute), None)
    if group is None or terms.privacy.sampling != "poisson":
        raise PrivacyParameterError("weights are of a declared attribute's groups, under Poisson sampling")
    return WeightRule(
        agreed.attribute,
        tuple(group.values),
        agreed.rate,
        agreed.smallest,
        agreed.largest_loss,
        agreed.memory,
        agreed.smallest_group,
    )
