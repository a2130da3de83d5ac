"""Groups 2 and 3: what is promised, the events that it follows from, and how noise came in."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from hansa.audit.findings import Findings, log_name
from hansa.audit.report import words
from hansa.audit.report.chronicle import Chronicles
from hansa.audit.report.composition import stated
from hansa.audit.report.promises import (
    Budget,
    Charged,
    Guarantee,
    LimitTold,
    Mechanism,
    Mechanisms,
    Profile,
)
from hansa.audit.report.value import Spot
from hansa.audit.spending import RunSpend
from hansa.canonical import canonical_json
from hansa.errors import HansaError
from hansa.ledger.budgets import grant_of
from hansa.ledger.trust import TrustedKeys
from hansa.privacy.charges import Charge
from hansa.privacy.events import EventJson, Numbers, numbers_of
from hansa.privacy.loss import PrivacyLoss
from hansa.quorum import threshold
from hansa.report import words as plain
from hansa.report.schema import Report

PROFILE_DELTAS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
MAX_PROFILES = 10


def guarantee(told: Chronicles, findings: Findings, keys: TrustedKeys) -> Guarantee:
    """What is promised."""
    budgets = tuple(_budgets(told, findings, keys))
    checks: Counter[str] = Counter()
    for one in findings.spent:
        checks.update(one.checks)
    return Guarantee(
        statement=words.statement(budgets) if findings.verified else words.NO_STATEMENT,
        flavour=words.FLAVOUR,
        level=words.LEVEL,
        budgets=budgets,
        charged=charged(told, keys),
        profiles=tuple(_profiles(told, keys)),
        accountant=f"PLD of dp_accounting {version('dp-accounting')}",
        checks=dict(sorted(checks.items())),
        without_limit=tuple(name for name in keys.members if name not in {one.member for one in budgets}),
        untold=words.UNTOLD["guarantee"],
    )


def _budgets(told: Chronicles, findings: Findings, keys: TrustedKeys) -> Iterator[Budget]:
    spent = {(one.member, one.dataset, one.against): one.epsilon for one in findings.spent if not one.run}
    for member in keys.members:
        for placed in told.own[member].grants if member in told.own else ():
            entry, grant = placed.entry, grant_of(placed.entry)
            yield Budget(
                member=member,
                dataset=entry.dataset_id,
                unit=entry.unit,
                max_records_per_unit=entry.max_records_per_unit,
                adjacency=entry.adjacency,
                limits=tuple(
                    _limit(against, limit.loss, spent.get((member, entry.dataset_id, against)))
                    for against, _, limit in grant.limits()
                ),
                rule=words.rule(grant.everyone.rule),
                disjoint_from=entry.disjoint_from,
                reason=entry.reason,
                at=entry.at,
                spot=Spot(log=log_name(member), entry=placed.index, leaf=placed.leaf.hex()),
            )


def _limit(against: str, loss: PrivacyLoss, spent: float | None) -> LimitTold:
    known = None if spent is None or math.isinf(spent) else spent
    left = None if known is None else max(loss.epsilon - known, 0.0)
    return LimitTold(against=against, epsilon=loss.epsilon, delta=loss.delta, spent=known, remaining=left)


def _runs(told: Chronicles, keys: TrustedKeys) -> Iterator[RunSpend]:
    for member in keys.members:
        log = told.of(member)
        if log is not None:
            yield from (run for run in log.spending.runs.values() if run.member == member)


def charged(told: Chronicles, keys: TrustedKeys) -> tuple[Charged, ...]:
    """Every kind of event of every run, members with the same numbers together."""
    groups: dict[tuple[object, ...], tuple[list[str], RunSpend, Charge]] = {}
    for run in _runs(told, keys):
        for kind, charge in run.charges.items():
            counts = (charge.count, run.recorded[kind], run.counts.get(kind, 0))
            shared = b"" if charge.shared is None else canonical_json(dict(charge.shared))
            key = (run.run, kind, canonical_json(dict(charge.event)), shared, charge.coalition, *counts)
            groups.setdefault(key, ([], run, charge))[0].append(run.member)
    return tuple(
        Charged(
            members=tuple(names),
            run=run.run,
            purpose=charge.kind,
            event=dict(charge.event),
            words=plain.event(dict(charge.event), _unit(told, run)),
            shared=None if charge.shared is None else dict(charge.shared),
            coalition=charge.coalition,
            reserved=charge.count,
            released=run.recorded[charge.kind],
            counted=run.counts.get(charge.kind, 0),
        )
        for names, run, charge in groups.values()
    )


def _unit(told: Chronicles, run: RunSpend) -> str:
    own = told.own.get(run.member)
    units = [
        placed.entry.unit for placed in (own.grants if own else ()) if placed.entry.dataset_id == run.dataset
    ]
    return units[0] if units else "unit"


def _profiles(told: Chronicles, keys: TrustedKeys) -> Iterator[Profile]:
    """ε at several δ of what counts of each run, the newest runs alone where there are very many."""
    groups: dict[tuple[str, bytes], tuple[list[str], RunSpend]] = {}
    for run in _runs(told, keys):
        spends = run.counted()
        if spends:
            data = canonical_json([[dict(spend.event), spend.count] for spend in spends])
            groups.setdefault((run.run, data), ([], run))[0].append(run.member)
    for names, run in list(groups.values())[-MAX_PROFILES:]:
        spends = run.counted()
        points = tuple((delta, stated(spends, delta)) for delta in PROFILE_DELTAS)
        yield Profile(run=run.run, members=tuple(names), points=points)


# --- 3 mechanism -----------------------------------------------------------------------------------------


def mechanisms(told: Chronicles, keys: TrustedKeys, report: Report | None) -> Mechanisms:
    """How noise came in."""
    recipes = {recipe.rng: None for log in told.all() for recipe in log.recipes}
    n = len(keys.members)
    return Mechanisms(
        mechanisms=tuple(_mechanisms(told, keys)),
        rng=tuple(recipes),
        sums=words.SUMS,
        dropout=words.dropout(n, threshold(n)),
        clipping_norm=None if report is None else report.clipping_norm,
        untold=words.UNTOLD["mechanism"],
    )


def _mechanisms(told: Chronicles, keys: TrustedKeys) -> Iterator[Mechanism]:
    groups: dict[tuple[str, str, bytes, bytes], list[str]] = defaultdict(list)
    charges: dict[tuple[str, str, bytes, bytes], Charge] = {}
    steps: dict[tuple[str, str, bytes, bytes], set[int]] = defaultdict(set)
    for run in _runs(told, keys):
        for kind, charge in run.charges.items():
            shared = b"" if charge.shared is None else canonical_json(dict(charge.shared))
            key = (run.run, kind, canonical_json(dict(charge.event)), shared)
            groups[key].append(run.member)
            charges[key] = charge
            steps[key] |= run.steps.get(kind, set())
    for key, names in groups.items():
        charge = charges[key]
        own = _numbers(charge.event)
        shared_numbers = None if charge.shared is None else _numbers(charge.shared)
        cut = None if own is None else own.truncation
        yield Mechanism(
            purpose=key[1],
            run=key[0],
            members=tuple(dict.fromkeys(names)),
            sampling_rate=None if own is None or charge.event["type"] == "Gaussian" else own.rate,
            largest_batch=None if cut is None else cut.largest_batch,
            most_units=None if cut is None else cut.most_units,
            noise_multiplier=None if own is None else own.multiplier,
            shared_noise_multiplier=None if shared_numbers is None else shared_numbers.multiplier,
            steps=tuple(sorted(steps[key])),
            noise=words.noise(charge.coalition),
        )


def _numbers(event: EventJson) -> Numbers | None:
    """What an event says; `None` where it is unknown or has no privacy."""
    try:
        numbers = numbers_of(event)
    except HansaError:
        return None
    return numbers if numbers.multiplier else None


def largest(budgets: Sequence[Budget]) -> LimitTold | None:
    """The limit against everyone of which the largest share is spent, for a headline."""
    known = [one.limits[0] for one in budgets if one.limits[0].spent is not None]
    return max(known, key=lambda one: (one.spent or 0.0) / one.epsilon, default=None)
