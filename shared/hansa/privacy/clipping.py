"""How one unit's gradient is bounded before it is summed: the rule as a value, told by public numbers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from hansa.errors import PrivacyParameterError

LEAST_NORM, MOST_NORM = (
    1e-9,
    1e9,
)  # between which float32 scales a gradient to a norm and loses nothing on the way
LARGEST_SHARE = 0.5  # of a unit's squared length, that may be taken by what is counted beside its gradient
SMALLEST_CUT = (
    0.1  # nats: a loss that is cut to less would magnify a float's last digits in what it counts for
)
ClippingKind: TypeAlias = Literal["flat", "per-layer", "automatic"]


@dataclass(frozen=True)
class Clipping:
    """A rule that scales a unit's gradient g, cut into the groups of tensors g_1 … g_L of the model's layers.

    ``flat`` multiplies g by min(1, C/‖g‖). ``per-layer`` multiplies each g_l by min(1, (C/√L)/‖g_l‖), so that the
    whole is within C. ``automatic`` multiplies g by C/(‖g‖ + γ) (Bu et al., arXiv 2206.07136): short gradients
    are made longer, and the norm needs no tuning beside the learning rate.

    Attributes:
        kind: which rule.
        norm: C, the L2 bound of a unit's whole contribution, in gradient units.
        gamma: γ of ``automatic``; the others do not read it.

    Guarantees: under each rule a unit's contribution has L2 norm at most C in exact arithmetic.

    Raises:
        PrivacyParameterError: an unknown rule, a γ that is not finite and above 0, or a norm out of range.
    """

    kind: ClippingKind
    norm: float
    gamma: float = 0.01

    def __post_init__(self) -> None:
        if self.kind not in get_args(ClippingKind):
            raise PrivacyParameterError(
                f"no clipping rule is called {self.kind!r}",
                remedy=f"Use {', '.join(get_args(ClippingKind))}.",
            )
        if not LEAST_NORM <= self.norm <= MOST_NORM:
            raise PrivacyParameterError(
                f"a clipping norm of {self.norm:g} is outside [{LEAST_NORM:g}, {MOST_NORM:g}]",
                remedy="Scale the loss or the inputs.",
            )
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise PrivacyParameterError(f"a clipping gamma of {self.gamma:g} is not finite and above 0")

    def group_norm(self, groups: int) -> float:
        """The bound of each of `groups` groups under ``per-layer``; of the one group that other rules know."""
        return self.norm / math.sqrt(groups) if self.kind == "per-layer" else self.norm
