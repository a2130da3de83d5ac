"""Agreements derived on the command line: the same task without one of its constraints, under an id of its own."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.agreement import Agreement
from hansa.errors import UsageError


@dataclass(frozen=True)
class Derivation:
    """What the command line changes in the terms.

    Attributes:
        no_dp: leave out clipping and noise.
        mechanism: another privacy mechanism.
        baseline: ``pooled`` trains on all records in one place, ``local-only`` one model at each member.
    """

    no_dp: bool = False
    mechanism: str | None = None
    baseline: str | None = None

    def changes(self) -> tuple[str, ...]:
        """The changes in words."""
        words = []
        if self.no_dp:
            words.append("no clipping and no noise: no privacy is claimed")
        if self.mechanism is not None:
            words.append(f"privacy mechanism {self.mechanism}")
        if self.baseline == "pooled":
            words.append("all records in one place")
        if self.baseline == "local-only":
            words.append("every member alone")
        return tuple(words)

    def apply(self, agreement: Agreement) -> Agreement:
        """The derived agreement; the same one if nothing changes.

        Raises:
            AgreementError: the changed terms break a rule.
            UsageError: the changes contradict each other.
        """
        if self.no_dp and self.mechanism is not None:
            raise UsageError("--no-dp and --mechanism contradict each other", remedy="Pass one of them.")
        if self.baseline not in (None, "pooled", "local-only"):
            raise UsageError(f"there is no baseline {self.baseline!r}", remedy="Use pooled or local-only.")
        if self.no_dp:
            agreement = without_privacy(agreement)
        if self.mechanism is not None:
            agreement = agreement.derive(privacy={"mechanism": self.mechanism})
        if self.baseline == "pooled":
            agreement = pooled(agreement)
        if self.baseline == "local-only":
            agreement = _by_itself(agreement).derive(baseline="local-only")
        return agreement


def without_privacy(agreement: Agreement) -> Agreement:
    """The same training without clipping and noise."""
    return agreement.derive(privacy={"mechanism": "none", "epsilon": None, "delta": None})


def pooled(agreement: Agreement) -> Agreement:
    """The same training on all records in one place, under one member called ``pooled``."""
    units = sum(member.units for member in agreement.terms.members)
    members = [{"name": "pooled", "units": units}]
    return _by_itself(agreement).derive(baseline="pooled", members=members)


def alone(agreement: Agreement, member: str) -> Agreement:
    """The same training at one member only."""
    kept = next(m for m in agreement.terms.members if m.name == member)
    members = [{"name": kept.name, "units": kept.units}]
    return _by_itself(agreement).derive(baseline="local-only", members=members)


def _by_itself(agreement: Agreement) -> Agreement:
    """Who trains without others shares no noise with them."""
    if agreement.terms.privacy.mechanism != "distributed":
        return agreement
    return agreement.derive(privacy={"mechanism": "local"})
