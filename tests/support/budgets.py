"""Grants, charges and a store of records that can fail, for tests of budgets."""

from __future__ import annotations

from hansa.privacy.book import BudgetBook
from hansa.privacy.charges import Charge
from hansa.privacy.composition import FixedInAdvance, Rule
from hansa.privacy.events import gaussian
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant, Limit, Record

DATASET = "0123456789abcdef" * 2
DELTA = 1e-5


def grant(
    epsilon: float = 4.0, rule: Rule | None = None, *, shared: float | None = None, coalition: int = 1
) -> Grant:
    """A grant of ε at δ = 1e-5 against everyone, and of `shared` against `coalition` others."""
    rule = rule or FixedInAdvance()
    colluding = None if shared is None else Limit(PrivacyLoss(shared, DELTA), rule)
    everyone = Limit(PrivacyLoss(epsilon, DELTA), rule)
    return Grant(DATASET, everyone, colluding, 0 if shared is None else coalition)


def charge(
    count: int, multiplier: float = 20.0, *, shared: float | None = None, kind: str = "training"
) -> Charge:
    """So many Gaussian releases; with `shared` a second multiplier against one other member."""
    together = None if shared is None else gaussian(shared)
    return Charge(kind, gaussian(multiplier), count, together, 0 if shared is None else 1)


class Crashed(Exception):  # noqa: N818  # what a test does to a store, not an error of it
    """The process died while it stored a record."""


class Store:
    """A durable list of records; `crash` makes the next append die before or after it is durable."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.crash: str | None = None

    def append(self, record: Record) -> None:
        crash, self.crash = self.crash, None
        if crash != "before":
            self.records.append(record)
        if crash is not None:
            raise Crashed

    def begin(self, granted: Grant) -> BudgetBook:
        return BudgetBook.begin(granted, self.append)

    def replay(self) -> BudgetBook:
        return BudgetBook.replay(self.records, self.append)
