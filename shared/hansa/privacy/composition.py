"""How the runs of one dataset add up when each is chosen after seeing what came out of the others.

Within a reservation everything is fixed before its first release, and PLD composes it exactly. Which reservation
comes next, with how much noise, and whether at all, may depend on every earlier output. PLD says nothing about that
(stopping on a composed trade-off curve is not a valid filter: arXiv 2602.06756), so reservations compose by a rule
with a theorem for adaptive choice. The rule is part of the grant and never changes.
docs/privacy-accounting.md states what each claims.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hansa.canonical import Json
from hansa.errors import PrivacyParameterError
from hansa.privacy.accountant import DISCRETIZATION_INTERVAL, SMALLEST_DELTA, epsilon_spent
from hansa.privacy.crosscheck import checked_epsilon
from hansa.privacy.events import Spend
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.renyi import best_order, check_order, epsilon_of_renyi, renyi_loss


@dataclass(frozen=True)
class Block:
    """One reservation, as a rule sees it.

    Attributes:
        planned: all that was fixed when it was made.
        counted: what counts of it: all while it is open, and what was released once it is closed.
    """

    planned: tuple[Spend, ...]
    counted: tuple[Spend, ...]


class Rule(Protocol):
    """A way of composing reservations."""

    def epsilon(
        self, blocks: Sequence[Block], delta: float, interval: float = DISCRETIZATION_INTERVAL
    ) -> float:
        """The smallest ε of a limit, at its `delta`, that admits these reservations; 0 for none.

        Args:
            blocks: reservations in the order in which they were made.
            delta: of the limit.
            interval: of PLD; only the default decides about a reservation, coarser ones are never below it.

        Note:
            This is what is compared with a limit. It is no claim of its own: what is claimed is the limit.
        """

    def as_dict(self) -> Mapping[str, Json]:
        """As plain JSON values; the inverse of `rule_from_json`."""


@dataclass(frozen=True)
class FixedInAdvance:
    """PLD over everything, as if the whole list had been fixed beforehand.

    Assumes: the member knew all its runs, and how long each would go on, before the first output. It is the rule of one
        agreement whose runs are planned, and of simulations. It is not valid for runs that are chosen, or ended, after
        seeing outputs.
    """

    def epsilon(
        self, blocks: Sequence[Block], delta: float, interval: float = DISCRETIZATION_INTERVAL
    ) -> float:
        return _pld([spend for block in blocks for spend in block.counted], delta, interval)

    def as_dict(self) -> Mapping[str, Json]:
        return {"rule": "fixed-in-advance"}


@dataclass(frozen=True)
class Adding:
    """Basic composition: each reservation gets an equal part of δ, and the ε add up.

    A reservation that was ended early costs what it would have cost in full, since its end may have been chosen for
    what it showed; one that released nothing costs nothing.

    Attributes:
        reservations: the most that there may be; δ is divided among them beforehand.

    Source: Rogers, Roth, Ullman, Vadhan (NIPS 2016, arXiv 1605.08294): sums are a valid filter under adaptive
        choice of parameters. Haney et al. (CCS 2023, arXiv 2309.05901): also when runs are interleaved.
    """

    reservations: int

    def __post_init__(self) -> None:
        if type(self.reservations) is not int or not 1 <= self.reservations <= 10_000:
            raise PrivacyParameterError(f"δ cannot be divided among {self.reservations!r} reservations")

    def epsilon(
        self, blocks: Sequence[Block], delta: float, interval: float = DISCRETIZATION_INTERVAL
    ) -> float:
        begun = [block.planned for block in blocks if any(spend.count for spend in block.counted)]
        if len(begun) > self.reservations:
            return math.inf
        return math.fsum(_pld(planned, delta / self.reservations, interval) for planned in begun)

    def as_dict(self) -> Mapping[str, Json]:
        return {"rule": "adding", "reservations": self.reservations}


@dataclass(frozen=True)
class RenyiFilter:
    """A Rényi filter: the sum of RDP at one order, fixed beforehand, stays under the budget of that order.

    The budget of the order is the ρ whose conversion to (ε, δ) is the limit. A run's releases count one by one, so
    ending it early gives back what it did not release.

    Attributes:
        order: α, an integer.

    Source: Feldman and Zrnic (NeurIPS 2021, arXiv 2008.11193): adaptively chosen mechanisms whose RDP at an order adds
        up to at most B almost surely are (α, B)-RDP together. Conversion: arXiv 2004.00010, proposition 12.
    """

    order: int

    def __post_init__(self) -> None:
        check_order(self.order)

    def epsilon(
        self, blocks: Sequence[Block], delta: float, interval: float = DISCRETIZATION_INTERVAL
    ) -> float:
        del interval
        counted = [spend for block in blocks for spend in block.counted if spend.count]
        if not counted:
            return 0.0
        return epsilon_of_renyi(renyi_loss(counted, self.order), self.order, delta)

    def as_dict(self) -> Mapping[str, Json]:
        return {"rule": "renyi-filter", "order": self.order}


@dataclass(frozen=True)
class AnyOf:
    """Several filters, each with an equal part of δ: a reservation is admitted if one of them admits it.

    Valid because the δ add up. Split the outcomes by the filter that admitted the last reservation. On its part of the
    outcomes each filter's own bound was never exceeded, so there the whole has the same density as a run that this
    filter alone had stopped, and contributes at most that filter's δ. Choosing the better claim *without* dividing δ
    would have no such argument: which filter ends up better depends on the outputs.

    Attributes:
        rules: `Adding` or `RenyiFilter`, at least two.
    """

    rules: tuple[Adding | RenyiFilter, ...]

    def __post_init__(self) -> None:
        if len(self.rules) < 2 or not all(isinstance(rule, Adding | RenyiFilter) for rule in self.rules):
            raise PrivacyParameterError("a choice needs two filters or more, each valid by itself")

    def epsilon(
        self, blocks: Sequence[Block], delta: float, interval: float = DISCRETIZATION_INTERVAL
    ) -> float:
        part = delta / len(self.rules)
        return min(rule.epsilon(blocks, part, interval) for rule in self.rules)

    def as_dict(self) -> Mapping[str, Json]:
        return {"rule": "any-of", "rules": [dict(rule.as_dict()) for rule in self.rules]}


def rule_for(loss: PrivacyLoss, reservations: int = 1) -> Rule:
    """The rule that wastes least of a limit, from what is known beforehand.

    Args:
        loss: the limit.
        reservations: how many runs the member means to take part in; more are admitted while a filter allows.

    Returns:
        For one run, its exact ε. For more, adding or a Rényi filter, whichever admits; the order is the best one
        for unsampled Gaussian releases that use up the limit.

    Raises:
        PrivacyParameterError: there would be no run, or so many that PLD cannot tell an ε at each one's part of δ.
    """
    part = loss.delta if reservations == 1 else loss.delta / 2 / max(reservations, 1)
    if part < SMALLEST_DELTA:
        raise PrivacyParameterError(
            f"δ = {loss.delta:g} among {reservations} reservations is {part:.2g} for each, and no ε can be told "
            f"below {SMALLEST_DELTA:g}",
            remedy="Grant for fewer reservations, or at a larger δ.",
        )
    if reservations == 1:
        return Adding(1)
    return AnyOf((Adding(reservations), RenyiFilter(best_order(loss.epsilon, loss.delta / 2))))


def rule_from_json(value: Json) -> Rule:
    """Read a rule back.

    Raises:
        PrivacyParameterError: it is not known; a rule is never replaced by another.
    """
    match value:
        case {"rule": "fixed-in-advance", **rest} if not rest:
            return FixedInAdvance()
        case {"rule": "adding", "reservations": int() as reservations, **rest} if not rest:
            return Adding(reservations)
        case {"rule": "renyi-filter", "order": int() as order, **rest} if not rest:
            return RenyiFilter(order)
        case {"rule": "any-of", "rules": [*rules], **rest} if not rest:
            return AnyOf(tuple(_filters(rules)))
    raise PrivacyParameterError("a rule of composition is not known")


def _filters(values: Iterable[Json]) -> Iterable[Adding | RenyiFilter]:
    for value in values:
        rule = rule_from_json(value)
        if not isinstance(rule, Adding | RenyiFilter):
            raise PrivacyParameterError("a choice needs two filters or more, each valid by itself")
        yield rule


def _pld(spends: Sequence[Spend], delta: float, interval: float) -> float:
    if interval == DISCRETIZATION_INTERVAL:
        return checked_epsilon(spends, delta).epsilon
    return epsilon_spent(spends, delta, interval=interval)
