"""Rules by which public quantities follow from noisy counts: the clipping norm, and the weights of groups.

A rule is a function of its arguments' bits alone, + × ÷ and an exponential that is rounded correctly, so that the coordinator,
every member and an auditor compute the same.

Source: Andrew, Thakkar, McMahan, Ramaswamy (arXiv 1905.03871) for the quantile and its geometric update; norms that are kept
between bounds, so that no group with long gradients is clipped to nothing, as in arXiv 2506.01396; Sagawa, Koh, Hashimoto,
Liang (arXiv 1911.08731) for weights of groups by an exponentiated gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TypeAlias

from hansa.errors import PrivacyParameterError
from hansa.privacy.clipping import LEAST_NORM, MOST_NORM, SMALLEST_CUT

Quantities: TypeAlias = tuple[float, ...]

_ARITHMETIC = Context(prec=50, rounding=ROUND_HALF_EVEN)  # whose exp is correctly rounded on every machine


def times_exp(value: float, exponent: float) -> float:
    """`value` · e^`exponent`, to 50 digits and then to a float: the same bits on every machine, unlike a C library's exp."""
    product = _ARITHMETIC.multiply(Decimal(value), _ARITHMETIC.exp(Decimal(exponent)))
    return float(product)


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
class WeightRule:
    """How the weights of groups follow from their losses: group DRO.

    A unit of group g stands in the sum with w_g times its clipped gradient, w_g at most 1: no unit's contribution grows. Beside it
    stand, for its group alone, its loss and a 1. A loss is counted as 2·min(loss, L) / L − 1, in [−1, 1]. Sums of both are kept
    over the steps, older ones by `memory` a step less. The group with the largest mean loss has weight 1; the others fall
    towards the smallest.

    The quantities are the G weights, the G kept sums of losses, the G kept counts, and the kept expected batch.

    Attributes:
        attribute: of the groups.
        values: its values, in the agreement's order.
        rate: η, of the exponentiated gradient: a weight moves by at most e^η a step against another.
        smallest: below which no weight falls.
        largest_loss: L, in nats, to which losses are cut.
        memory: what part of the kept sums stays at each step.
        smallest_group: as a part of an expected batch; a group whose noisy count is smaller is taken to be as large.

    Raises:
        PrivacyParameterError: a number is out of range.
    """

    attribute: str
    values: tuple[str, ...]
    rate: float
    smallest: float
    largest_loss: float
    memory: float
    smallest_group: float

    def __post_init__(self) -> None:
        ranges = 0 < self.rate <= 1 and 0 < self.smallest <= 1 and 0 <= self.memory < 1
        if not (
            ranges
            and 0 < self.smallest_group < 1
            and SMALLEST_CUT <= self.largest_loss <= MOST_NORM
            and self.values
        ):
            raise PrivacyParameterError(
                "weights of groups cannot follow losses: a number of their rule is out of range"
            )

    @property
    def first(self) -> Quantities:
        """Those of the first step: no group weighs less than another."""
        groups = len(self.values)
        return (*[1.0] * groups, *[0.0] * (2 * groups + 1))

    def weights_of(self, quantities: Sequence[float]) -> Quantities:
        """The weights, by group.

        Raises:
            PrivacyParameterError: they are not between the smallest and 1.
        """
        weights = tuple(quantities[: len(self.values)])
        if not all(self.smallest <= weight <= 1 for weight in weights):
            raise PrivacyParameterError(
                f"weights of groups are not between the agreed {self.smallest:g} and 1"
            )
        return weights

    def losses_of(self, quantities: Sequence[float]) -> Quantities:
        """The mean loss of each group as far as the kept sums tell, in nats, in [0, L]."""
        groups = len(self.values)
        sums, counts, batch = (
            quantities[groups : 2 * groups],
            quantities[2 * groups : 3 * groups],
            quantities[-1],
        )
        means = (self._mean(total, count, batch) for total, count in zip(sums, counts, strict=True))
        return tuple(self.largest_loss * (1 + mean) / 2 for mean in means)

    def _mean(self, total: float, count: float, batch: float) -> float:
        """Of the losses as they are counted, in [−1, 1]: no small noisy count makes it large."""
        size = max(count, self.smallest_group * batch)
        return min(max(total / size, -1.0), 1.0) if size > 0 else 0.0

    def following(
        self, quantities: Sequence[float], losses: Sequence[float], counts: Sequence[float], batch: float
    ) -> Quantities:
        """Those of the next step.

        Args:
            quantities: of this step.
            losses, counts: the noisy sums of this step, by group, in units.
            batch: public expected number of units in it.

        Guarantees: weights between the smallest and 1, and one of them 1, whatever the sums are.
        """
        groups = len(self.values)
        weights, kept = self.weights_of(quantities), [self.memory * value for value in quantities[groups:]]
        sums = [old + new for old, new in zip(kept[:groups], losses, strict=True)]
        sizes = [old + new for old, new in zip(kept[groups:-1], counts, strict=True)]
        expected = kept[-1] + batch
        moved = [
            times_exp(weight, self.rate * self._mean(total, size, expected) / 2)
            for weight, total, size in zip(weights, sums, sizes, strict=True)
        ]
        largest = max(moved)
        return (*(max(weight / largest, self.smallest) for weight in moved), *sums, *sizes, expected)
