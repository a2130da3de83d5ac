"""ε of what a budget counts, by its rule: exact where that can be computed, an upper bound by RDP where it cannot.

A log of strangers may hold counts for which PLD has neither time nor memory. They are not composed by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hansa.privacy.charges import Charge
from hansa.privacy.composition import Adding, AnyOf, Block, FixedInAdvance, Rule
from hansa.privacy.errors import AccountantFailedError
from hansa.privacy.events import Spend
from hansa.privacy.rdp import RdpAccountant
from hansa.privacy.records import Close, Limit, Record, Reservation
from hansa.privacy.renyi import renyi_loss

MOST_EVENTS = 1 << 22  # more of them take PLD minutes, whatever each one loses
MOST_LOSS = 3000.0  # RDP at order 2; PLD of more needs gigabytes, and no limit that means anything is near
_RDP = RdpAccountant()


@dataclass(frozen=True)
class Bounded:
    """An ε and whether it is only a bound.

    Attributes:
        epsilon: of record, or by RDP.
        why: PLD could not tell; empty where it did.
    """

    epsilon: float
    why: str = ""


@dataclass
class Counted:
    """What the reservations of one budget count, after as many records as were taken."""

    planned: dict[str, tuple[Charge, ...]] = field(default_factory=dict)
    agreements: set[str] = field(default_factory=set)
    closed: dict[str, Mapping[str, int]] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """Take the next record; a book has checked that it may stand there."""
        match record:
            case Reservation():
                self.planned[record.run] = tuple(record.charges)
                self.agreements.add(record.agreement)
            case Close():
                self.closed[record.run] = record.released
            case _:
                pass

    def blocks(self, coalition: int | None) -> list[Block]:
        """As a rule of composition sees them."""
        return [self._block(run, charges, coalition) for run, charges in self.planned.items()]

    def _block(self, run: str, charges: tuple[Charge, ...], coalition: int | None) -> Block:
        planned = tuple(charge.against(coalition) for charge in charges)
        closed = self.closed.get(run)
        if closed is None:
            return Block(planned, planned)
        left = (Spend(charge.against(coalition).event, closed.get(charge.kind, 0)) for charge in charges)
        return Block(planned, tuple(spend for spend in left if spend.count))


def require_few(spends: Iterable[Spend]) -> None:
    """Refuse what PLD would compose for hours, or in more memory than there is.

    Raises:
        AccountantFailedError: there are too many events, or they lose too much.
    """
    held = [spend for spend in spends if spend.count]
    count = sum(spend.count for spend in held)
    if count > MOST_EVENTS:
        raise AccountantFailedError(f"PLD: {count} events are more than the {MOST_EVENTS} that it composes")
    loss = renyi_loss(held, 2) if held else 0.0
    if MOST_LOSS < loss < math.inf:
        raise AccountantFailedError(
            f"PLD: a loss of {loss:.4g} is more than the {MOST_LOSS:g} that it composes"
        )


def bounded(limit: Limit, blocks: Sequence[Block]) -> Bounded:
    """ε of reservations by the rule of a limit.

    Raises:
        HansaError: it cannot even be bounded.
    """
    rule, delta = limit.rule, limit.loss.delta
    try:
        require_few(spend for block in blocks for spend in (*block.planned, *block.counted))
        return Bounded(rule.epsilon(blocks, delta))
    except AccountantFailedError as error:
        return Bounded(_upper(rule, blocks, delta), error.cause)


def _upper(rule: Rule, blocks: Sequence[Block], delta: float) -> float:
    """As `Rule.epsilon`, with RDP in the place of PLD: never below it."""
    match rule:
        case FixedInAdvance():
            return _RDP.epsilon([spend for block in blocks for spend in block.counted], delta)
        case Adding():
            begun = [block.planned for block in blocks if any(spend.count for spend in block.counted)]
            if len(begun) > rule.reservations:
                return math.inf
            return math.fsum(_RDP.epsilon(planned, delta / rule.reservations) for planned in begun)
        case AnyOf():
            return min(_upper(one, blocks, delta / len(rule.rules)) for one in rule.rules)
        case _:
            return rule.epsilon(blocks, delta)
