"""What training did about groups, what that cost, and what came of it."""

from __future__ import annotations

from hansa.report.part import NonNegative, Part


class GroupRateReport(Part):
    """One group under rates of their own.

    Attributes:
        value: of the attribute.
        rate: the public probability with which a step draws one of its units.
        epsilon: what the events would cost one of its units if they were accounted at this rate, at δ of `members`, for the
            member that lost most; null without privacy. No budget is charged by it.
    """

    value: str
    rate: NonNegative
    epsilon: NonNegative | None


class MitigationReport(Part):
    """Rates of drawing by group. That they were used is no sign that a model is fair.

    Attributes:
        attribute: whose groups have rates of their own.
        accounted_rate: the largest, by which every unit is accounted.
        groups: in the agreement's order.
    """

    attribute: str
    accounted_rate: NonNegative
    groups: tuple[GroupRateReport, ...]
