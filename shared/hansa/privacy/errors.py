"""Errors of accounting and of budgets. HANSA-403 and following.

None of them holds anything that depends on data: events, counts and limits are public numbers of agreements and grants.
"""

from __future__ import annotations

from dataclasses import dataclass

from hansa.errors import BudgetRefusedError, ExitStatus, HansaError
from hansa.privacy.loss import PrivacyLoss


class AccountantsDisagreeError(HansaError):
    """The accountant of record is contradicted by another one, so no ε can be stated; the run stops."""

    code = "HANSA-403"
    remedy = "Train no further on this agreement; report its events and the versions of both accountants."


class AccountantFailedError(HansaError):
    """An accountant could not compute a number, or does not know an event. As a check: "not checked"."""

    code = "HANSA-404"
    remedy = "See which accountant failed on which events; change them if it is the one of record."


class BudgetRecordError(HansaError):
    """The records of a budget do not follow from each other; nothing is taken from them."""

    code = "HANSA-405"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Restore the records from a copy; never start a budget anew."


@dataclass(frozen=True)
class Shortfall:
    """Why a reservation does not fit, and what would.

    Attributes:
        against: whom the limit holds against, in words.
        requested: the run alone, by the rule of the limit.
        remaining: what the limit has left.
        limit: the limit.
        steps, steps_that_fit: of the run's largest charge, at the noise it asks for.
        noise_multiplier, noise_multiplier_that_fits: of that charge, for all its steps; the second is `None` where no
            noise is enough.
        rule: of the limit, in words, where it admits no further run whatever that costs; otherwise empty.
    """

    against: str
    requested: PrivacyLoss
    remaining: PrivacyLoss
    limit: PrivacyLoss
    steps: int
    steps_that_fit: int
    noise_multiplier: float
    noise_multiplier_that_fits: float | None
    rule: str = ""

    def cause(self) -> str:
        """In one line: what was asked for, and what there is."""
        return (
            f"the run asks for ε = {self.requested.epsilon:.4g} at δ = {self.limit.delta:g} against {self.against}; "
            f"ε = {self.remaining.epsilon:.4g} of {self.limit.epsilon:.4g} remains"
            + (", and no further run is admitted, whatever it costs" if self.rule else "")
        )

    def remedy(self) -> str:
        """What would fit."""
        if self.rule:
            return self.rule
        if self.noise_multiplier_that_fits is None:
            noise = "no noise lets all of them fit"
        else:
            noise = f"all of them with a noise multiplier of {self.noise_multiplier_that_fits:.4g}"
        return f"{self.steps_that_fit} of its {self.steps} steps would fit, or {noise}."


class BudgetExceededError(BudgetRefusedError):
    """A reservation does not fit in what is left; nothing was spent."""

    def __init__(self, shortfall: Shortfall) -> None:
        super().__init__(shortfall.cause(), remedy=shortfall.remedy())
        self.shortfall = shortfall
