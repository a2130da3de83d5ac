"""Whom an agreement protects, and whom a budget was granted for."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.agreement import Privacy
from hansa.ledger import BudgetGranted
from hansa.ledger.budgets import ADJACENCY
from hansa.ledger.entry import Unit


@dataclass(frozen=True)
class Protection:
    """What an agreement protects, which must be what the member's officer granted for.

    Attributes:
        unit: whose presence is hidden.
        max_records_per_unit: the cap of records that one unit contributes.
        adjacency: of neighbouring datasets.
    """

    unit: Unit
    max_records_per_unit: int
    adjacency: str = ADJACENCY

    @classmethod
    def granted(cls, grant: BudgetGranted) -> Protection:
        """What an officer granted for."""
        return cls(grant.unit, grant.max_records_per_unit, grant.adjacency)

    @classmethod
    def of(cls, privacy: Privacy) -> Protection:
        """What the terms of an agreement say."""
        return cls(privacy.unit, privacy.max_records_per_unit)

    def __str__(self) -> str:
        records = "1 record" if self.max_records_per_unit == 1 else f"{self.max_records_per_unit} records"
        return f"{self.unit} with at most {records}, {self.adjacency}"
