"""Group 7 of an audit report: what attacks on members' own trainers have shown, computed anew from their counts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hansa.audit.attacks import MOST_ATTACKS, verdict_of
from hansa.audit.findings import log_name
from hansa.audit.report import words
from hansa.audit.report.chronicle import Chronicles
from hansa.audit.report.evidence import AttackTold, Empirical
from hansa.audit.report.value import Spot
from hansa.errors import PrivacyParameterError
from hansa.privacy.errors import AccountantFailedError


def empirical(told: Chronicles) -> Empirical:
    """What stands in the members' own logs."""
    attacks = tuple(_attacks(told))
    if not attacks:
        return Empirical(measured=False, why=words.NOT_ATTACKED, attacks=())
    refuted = any(one.contradicts for one in attacks)
    why = f"{words.REFUTED} {words.ATTACKED}" if refuted else words.ATTACKED
    return Empirical(measured=True, why=why, attacks=attacks)


def _attacks(told: Chronicles) -> Iterator[AttackTold]:
    for name, log in told.own.items():
        for placed in log.attacks[:MOST_ATTACKS]:
            entry = placed.entry
            try:
                verdict = verdict_of(entry)
            except (AccountantFailedError, PrivacyParameterError):
                continue  # the audit tells it, as wrong or as not checked
            claimed = verdict.design.claim.epsilon
            yield AttackTold(
                member=entry.member,
                kind=entry.kind,
                canaries=entry.canaries,
                guesses=verdict.design.guesses,
                correct=entry.correct,
                confidence=verdict.design.confidence,
                delta=verdict.design.claim.delta,
                lower_bound=verdict.epsilon,
                claimed=claimed if math.isfinite(claimed) else None,
                ceiling=verdict.design.ceiling,
                contradicts=verdict.contradicts,
                spot=Spot(log=log_name(name), entry=placed.index, leaf=placed.leaf.hex()),
            )
