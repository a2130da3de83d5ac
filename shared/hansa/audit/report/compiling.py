"""The report as a whole, and its groups 1 and 6 to 9: who, whom one trusts, attacks, quality, integrity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hansa.audit.copies import Sources
from hansa.audit.findings import FEDERATION, Findings
from hansa.audit.report import words
from hansa.audit.report.chronicle import Chronicle, Chronicles, Placed, Recipe, chronicles
from hansa.audit.report.composition import composition
from hansa.audit.report.coverage import coverage
from hansa.audit.report.empirical import empirical
from hansa.audit.report.evidence import (
    Change,
    Claimed,
    GateTold,
    Integrity,
    Judged,
    LogTold,
    OverrideTold,
    Trust,
    Utility,
)
from hansa.audit.report.guarantee import guarantee, mechanisms
from hansa.audit.report.promises import Identity, Party, Run, Software
from hansa.audit.report.schema import AuditReport
from hansa.audit.report.value import Spot
from hansa.identity import COORDINATOR
from hansa.identity.keys import fingerprint
from hansa.ledger.entry import real_value
from hansa.ledger.membership import AmendmentMade, Membership
from hansa.ledger.outcomes import Condition
from hansa.ledger.trust import TrustedKeys
from hansa.report.rows import band_order
from hansa.report.schema import Report

SIMULATION = "hansa.simulation/"  # how the logs of `hansa simulate` are called


def audit_report(
    sources: Sources,
    findings: Findings,
    keys: TrustedKeys,
    report: Report | None,
    *,
    made: str,
    command: str,
    checked_by: str,
    keys_beside: bool = False,
) -> AuditReport:
    """Say what an audit found, and what the logs that it found good tell.

    Args:
        sources: that were audited.
        findings: of that audit.
        keys: that it trusted.
        report: what was published about the run; what it alone says is told as its claim.
        made: when this report is made, ISO 8601.
        command: by which anybody checks it again.
        checked_by: software and version.
        keys_beside: whether the keys are those that lay beside the logs, which nobody has compared.
    """
    told = chronicles(sources, findings, keys)
    return AuditReport(
        made=made,
        identity=_identity(told, keys, report),
        guarantee=guarantee(told, findings, keys),
        mechanisms=mechanisms(told, keys, report),
        coverage=coverage(told, keys),
        composition=composition(told, keys),
        trust=_trust(told, keys),
        empirical=empirical(told),
        utility=_utility(told, report),
        integrity=_integrity(told, findings, command, checked_by, keys_beside=keys_beside),
    )


# --- 1 identity ------------------------------------------------------------------------------------------


def _identity(told: Chronicles, keys: TrustedKeys, report: Report | None) -> Identity:
    terms = {
        placed.entry.terms_id
        for log in told.all()
        for placed in log.agreements
        if placed.entry.agreement_id == keys.agreement_id
    }
    times = [(log.first, log.last) for log in told.all() if log.first is not None and log.last is not None]
    published = [] if told.federation is None else told.federation.publications
    return Identity(
        title=None if report is None else report.title,
        agreement_id=keys.agreement_id,
        terms_id=next(iter(terms)) if len(terms) == 1 else None,
        parties=tuple(_parties(told, keys)),
        runs=tuple(_runs(told, keys)),
        published={name: sha for placed in published for name, sha in placed.entry.files.items()},
        software=tuple(_software(told, keys)),
        first=min((first for first, _ in times), default=None),
        last=max((last for _, last in times), default=None),
        untold=words.UNTOLD["identity"],
    )


def _parties(told: Chronicles, keys: TrustedKeys) -> Iterator[Party]:
    yield Party(
        name=COORDINATOR, role="coordinator", fingerprint=fingerprint(keys.coordinator), own_log=False
    )
    for name, key in keys.members.items():
        yield Party(name=name, role="member", fingerprint=fingerprint(key), own_log=name in told.own)
    for name, key in keys.auditors.items():
        yield Party(name=name, role="auditor", fingerprint=fingerprint(key), own_log=False)


def _runs(told: Chronicles, keys: TrustedKeys) -> Iterator[Run]:
    spans: dict[str, tuple[str, str]] = {}
    who: dict[str, dict[str, None]] = {}
    for log in told.all():
        for run, (first, last) in log.span.items():
            known = spans.get(run, (first, last))
            spans[run] = min(known[0], first), max(known[1], last)
        for member, _, run in log.made:
            who.setdefault(run, {})[member] = None
    sums = [] if told.federation is None else told.federation.sums
    aborted = {} if told.federation is None else told.federation.aborted
    for run, (began, ended) in sorted(spans.items(), key=lambda item: item[1]):
        mine = [one for one in sums if one.run == run]
        done = {one.round for one in mine}
        models = [one.model_sha256 for one in mine if one.model_sha256 is not None]
        yield Run(
            run=run,
            began=began,
            ended=ended,
            sums=len(mine),
            failed=len(set(aborted.get(run, ())) - done),
            members=tuple(name for name in keys.members if name in who.get(run, {})),
            model_sha256=models[-1] if models else None,
        )


def _software(told: Chronicles, keys: TrustedKeys) -> Iterator[Software]:
    """Each member's own log first; the federation's copies for those whose log was not given."""
    found: dict[Recipe, dict[str, int]] = {}
    for member in keys.members:
        log = told.of(member)
        for recipe, counts in log.recipes.items() if log is not None else ():
            if member in counts:
                found.setdefault(recipe, {})[member] = counts[member]
    for recipe, releases in found.items():
        yield Software(
            versions=dict(recipe.versions),
            lock_sha256=recipe.lock_sha256,
            rng=recipe.rng,
            releases=releases,
        )


# --- 6 trust ---------------------------------------------------------------------------------------------


def _trust(told: Chronicles, keys: TrustedKeys) -> Trust:
    log = told.federation
    return Trust(
        members=len(keys.members),
        quorum=keys.quorum,
        tolerated=len(keys.members) - keys.quorum,
        cosigned=() if log is None else log.seen.cosigned,
        model=words.MODEL,
        changes=() if log is None else tuple(_changes(log)),
        limits=(*((words.SIMULATED,) if _simulated(keys) else ()), *words.LIMITS),
        untold=words.UNTOLD["trust"],
    )


def _simulated(keys: TrustedKeys) -> bool:
    return keys.federation.log.name.startswith(SIMULATION)


def _changes(log: Chronicle) -> Iterator[Change]:
    placed: Sequence[Placed[AmendmentMade] | Placed[Membership]] = [*log.amendments, *log.memberships]
    for one in sorted(placed, key=lambda item: item.index):
        entry = one.entry
        if isinstance(entry, AmendmentMade):
            what = words.amendment(entry.change, entry.member, entry.reason)
            by: tuple[str, ...] = tuple(entry.approvals)
        else:
            what, by = words.membership(entry.change, entry.member, entry.reason), (entry.writer,)
        yield Change(at=entry.at, what=what, by=by, spot=_spot(one))


# --- 8 utility and fairness ------------------------------------------------------------------------------


def _utility(told: Chronicles, report: Report | None) -> Utility:
    log = told.federation
    return Utility(
        evaluations=0 if log is None else len(log.evaluations),
        gates=() if log is None else tuple(_gates(log)),
        overrides=() if log is None else tuple(_overrides(log)),
        publications=0 if log is None else len(log.publications),
        claimed=None if report is None else _claimed(report),
        untold=words.UNTOLD["utility"],
    )


def _gates(log: Chronicle) -> Iterator[GateTold]:
    for placed in log.gates:
        entry = placed.entry
        yield GateTold(
            artifact_sha256=entry.artifact_sha256,
            decision=entry.decision,
            conditions=tuple(map(_judged, entry.conditions)),
            spot=_spot(placed),
        )


def _judged(condition: Condition) -> Judged:
    excused = ""
    if condition.verdict == "inconclusive" and condition.exempt:
        excused = "exempted by the agreement"
    elif condition.verdict == "inconclusive" and condition.override_sha256 is not None:
        excused = "a named person took the responsibility"
    return Judged(
        name=condition.name,
        verdict=condition.verdict,
        low=None if condition.low is None else real_value(condition.low),
        high=None if condition.high is None else real_value(condition.high),
        excused=excused,
    )


def _overrides(log: Chronicle) -> Iterator[OverrideTold]:
    for placed in log.overrides:
        entry = placed.entry
        yield OverrideTold(
            party=entry.party,
            name=entry.name,
            role=entry.role,
            condition=entry.condition,
            artifact_sha256=entry.artifact_sha256,
            reason=entry.reason,
            spot=_spot(placed),
        )


def _claimed(report: Report) -> Claimed:
    quality = report.quality
    low, high = quality.intervals.mean_over_members
    groups = []
    for attribute, counts in sorted(quality.counts.by_group.items()):
        for value in sorted(counts, key=band_order):
            records = counts[value]
            reached = quality.by_group.get(attribute, {}).get(value)
            bounds = quality.intervals.by_group.get(attribute, {}).get(value, (None, None))
            groups.append((attribute, value, reached, bounds[0], bounds[1], records))
    return Claimed(
        metric=quality.metric, value=quality.mean_over_members, low=low, high=high, groups=tuple(groups)
    )


# --- 9 integrity -----------------------------------------------------------------------------------------


def _integrity(
    told: Chronicles, findings: Findings, command: str, checked_by: str, *, keys_beside: bool
) -> Integrity:
    return Integrity(
        verified=findings.verified,
        findings=findings.as_dict(),
        logs=tuple(
            LogTold(
                log=log.seen.log,
                origin=log.origin,
                place=log.seen.copy,
                entries=log.seen.entries,
                root=log.root.hex(),
                sealed=log.seen.sealed,
            )
            for log in told.all()
        ),
        keys=findings.keys,
        keys_beside=keys_beside,
        command=command,
        checked_by=checked_by,
    )


def _spot(placed: Placed[Any]) -> Spot:
    return Spot(log=FEDERATION, entry=placed.index, leaf=placed.leaf.hex())
