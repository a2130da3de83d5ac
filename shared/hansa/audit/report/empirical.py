"""Group 7 of an audit report: what attacks on members' own trainers have shown, computed anew from their counts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hansa.audit.findings import log_name
from hansa.audit.report import words
from hansa.audit.report.chronicle import Chronicles
from hansa.audit.report.evidence import AttackTold, Empirical
from hansa.audit.report.value import Spot
from hansa.ledger.attacks import AttackMade
from hansa.ledger.entry import real_value
from hansa.privacy.attack import Claim, Design, Verdict


def empirical(told: Chronicles) -> Empirical:
    """What stands in the members' own logs."""
    attacks = tuple(_attacks(told))
    if not attacks:
        return Empirical(measured=False, why=words.NOT_ATTACKED, attacks=())
    refuted = any(one.contradicts for one in attacks)
    why = f"{words.REFUTED} {words.ATTACKED}" if refuted else words.ATTACKED
    return Empirical(measured=True, why=why, attacks=attacks)


def verdict_of(entry: AttackMade) -> Verdict:
    """The attack that an entry tells of.

    Raises:
        PrivacyParameterError: its events are not known.
    """
    claim = Claim(tuple(one.spend for one in entry.spends), real_value(entry.delta))
    confidence = real_value(entry.confidence)
    design = Design(claim, entry.canaries, entry.guessed_in, entry.guessed_out, confidence)
    return design.judge(entry.correct)


def _attacks(told: Chronicles) -> Iterator[AttackTold]:
    for name, log in told.own.items():
        for placed in log.attacks:
            entry = placed.entry
            verdict = verdict_of(entry)
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
