"""ε that another accountant has looked at: contradicted, in agreement, or not checked.

A contradiction stops the run. A check that could not be made is told as such; it is never a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hansa.canonical import Json
from hansa.privacy.accountant import DISCRETIZATION_INTERVAL, Accountant, PldAccountant
from hansa.privacy.errors import AccountantFailedError, AccountantsDisagreeError
from hansa.privacy.events import Spend
from hansa.privacy.lower import SumAttack
from hansa.privacy.rdp import RdpAccountant

RELATIVE_SLACK = 1e-3
ABSOLUTE_SLACK = 1e-3
# PLD rounds each loss up or down on its grid. Where one step's loss is smaller than an interval this adds noise of up
# to half an interval a step, and its quantile at δ = 1e-9 is 6 standard deviations out: 3 · interval · √steps.
SLACK_PER_ROOT_STEP = 3 * DISCRETIZATION_INTERVAL


class Verdict(StrEnum):
    """What a check found."""

    AGREES = "agrees"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """One check of one ε.

    Attributes:
        accountant: which one looked.
        verdict: what it found.
        epsilon: its own answer, where it has one.
        reason: why there was no check.
    """

    accountant: str
    verdict: Verdict
    epsilon: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class CheckedEpsilon:
    """The ε of record and what became of its checks; one that was contradicted does not exist.

    Attributes:
        epsilon, delta: the answer of record.
        accountant: whose it is.
        findings: one for each check that was asked for.
    """

    epsilon: float
    delta: float
    accountant: str
    findings: tuple[Finding, ...]

    @property
    def not_checked(self) -> tuple[Finding, ...]:
        """The checks that were asked for and not made."""
        return tuple(finding for finding in self.findings if finding.verdict is not Verdict.AGREES)

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values; an infinite ε is `null`."""
        return {
            "epsilon": _plain(self.epsilon),
            "delta": self.delta,
            "accountant": self.accountant,
            "checks": [
                {
                    "accountant": finding.accountant,
                    "verdict": finding.verdict.value,
                    "epsilon": _plain(finding.epsilon),
                    "reason": finding.reason,
                }
                for finding in self.findings
            ],
        }


class Check(Protocol):
    """Another accountant, and when its answer contradicts the one of record."""

    @property
    def accountant(self) -> Accountant:
        """The other one."""

    def contradiction(self, record: float, other: float, steps: int) -> str:
        """Why two finite answers about so many events cannot both be right; empty if they can."""


@dataclass(frozen=True)
class UpperBound:
    """An accountant that is never below the truth and coarser than the one of record: PLD ≤ RDP.

    Attributes:
        accountant: the coarser one.
        relative, absolute, per_root_step: how far the one of record may lie above it for numerical reasons.
    """

    accountant: Accountant
    relative: float = RELATIVE_SLACK
    absolute: float = ABSOLUTE_SLACK
    per_root_step: float = SLACK_PER_ROOT_STEP

    def contradiction(self, record: float, other: float, steps: int) -> str:
        allowed = other * (1 + self.relative) + self.absolute + self.per_root_step * math.sqrt(steps)
        return "" if record <= allowed else f"it may not lie above {allowed:.6g}"


@dataclass(frozen=True)
class LowerBound:
    """What an attack shows: an accountant of record that promises less is wrong.

    Attributes:
        accountant: never above the truth.
        relative: how far the one of record may lie below it, for what its FFT rounds.
    """

    accountant: Accountant
    relative: float = 1e-4

    def contradiction(self, record: float, other: float, steps: int) -> str:
        del steps
        return "" if record >= other * (1 - self.relative) else "it may not lie below an attack"


@dataclass(frozen=True)
class Within:
    """An accountant that is as fine as the one of record, to a stated error: |PRV − PLD| ≤ 2·eps_error.

    Attributes:
        accountant: the other one.
        tolerance: largest difference of ε.
    """

    accountant: Accountant
    tolerance: float

    def contradiction(self, record: float, other: float, steps: int) -> str:
        del steps
        if abs(record - other) <= self.tolerance:
            return ""
        return f"they may not differ by more than {self.tolerance:.6g}"


EVERYWHERE: tuple[Check, ...] = (UpperBound(RdpAccountant()), LowerBound(SumAttack()))


def checked_epsilon(
    spends: Iterable[Spend],
    delta: float,
    checks: Sequence[Check] = EVERYWHERE,
    *,
    record: Accountant | None = None,
) -> CheckedEpsilon:
    """The ε of record, checked.

    Args:
        spends: events with counts.
        delta: in (0, 1).
        checks: by which other accountants.
        record: the accountant of record, PLD unless a test says otherwise.

    Raises:
        AccountantsDisagreeError: a check contradicts the answer of record.
        AccountantFailedError: the accountant of record itself failed.
    """
    held, record = tuple(spends), record or PldAccountant()
    answer = record.epsilon(held, delta)
    if not answer >= 0:
        raise AccountantFailedError(f"the accountant of record ({record.name}) answers ε = {answer:g}")
    findings = tuple(_finding(check, held, delta, record.name, answer) for check in checks)
    return CheckedEpsilon(answer, delta, record.name, findings)


def _finding(check: Check, spends: Sequence[Spend], delta: float, record: str, answer: float) -> Finding:
    name = check.accountant.name
    try:
        other = check.accountant.epsilon(spends, delta)
    except AccountantFailedError as error:
        return Finding(name, Verdict.NOT_CHECKED, reason=error.cause)
    if math.isinf(answer):
        if other == answer:
            return Finding(name, Verdict.AGREES, other)
        return Finding(name, Verdict.NOT_CHECKED, reason="the answer of record states nothing")
    if not (math.isfinite(other) and other >= 0):
        return Finding(name, Verdict.NOT_CHECKED, reason=f"it answers ε = {other:g}")
    why = check.contradiction(answer, other, sum(spend.count for spend in spends))
    if why:
        raise AccountantsDisagreeError(
            f"at δ = {delta:g} {record} says ε = {answer:.6g} and {name} says {other:.6g}: {why}"
        )
    return Finding(name, Verdict.AGREES, other)


def _plain(epsilon: float | None) -> float | None:
    return epsilon if epsilon is not None and math.isfinite(epsilon) else None
