"""Private evaluations: whether each table in the log is the sum of a round, and whether what a report says follows from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hansa.audit.claims import Evidence, differs
from hansa.audit.findings import FEDERATION, REPORT, Failure, Notebook
from hansa.audit.integrity import Examined
from hansa.audit.reading import LogFacts
from hansa.audit.spending import RunSpend
from hansa.canonical import differing_place
from hansa.errors import HansaError
from hansa.ledger.outcomes import Aggregate, Evaluation
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import EVALUATION, TRAINING, Charge
from hansa.privacy.events import rate_and_multiplier
from hansa.report.fairness import EvaluationReport
from hansa.report.schema import Report

_RELATIVE = 1e-6  # of a multiplier that goes through the grid and back


def check_evaluations(federation: Examined, notebook: Notebook) -> None:
    """Check that each evaluation is of a sum before it, numbered in order, and no more than its members reserved."""
    facts = federation.facts
    sums = {(entry.run, entry.round): (index, entry) for index, entry in facts.aggregates}
    last: dict[str, int] = {}
    of_run = Counter[str]()
    for index, entry in facts.evaluations:
        of_run[entry.run] += 1
        problem = _problem(index, entry, sums, last.get(entry.run, 0), of_run[entry.run], facts)
        if problem:
            notebook.failed(Failure(FEDERATION, index, entry.type, problem, federation.place))
            return
        last[entry.run] = entry.number
        notebook.passed("evaluations whose table is the sum of a round")
    shown = {(entry.run, entry.round) for _, entry in facts.evaluations}
    for place, (index, aggregate) in sums.items():
        if aggregate.purpose == EVALUATION and place not in shown:
            notebook.remark(
                FEDERATION, index, f"round {aggregate.round} summed tables, and no entry shows the sum"
            )


def _problem(
    index: int,
    entry: Evaluation,
    sums: Mapping[tuple[str, int], tuple[int, Aggregate]],
    before: int,
    of_run: int,
    facts: LogFacts,
) -> str:
    place, aggregate = sums.get((entry.run, entry.round), (index, None))
    if aggregate is None or place > index or aggregate.purpose != EVALUATION:
        return f"it is of round {entry.round}, and no sum of tables of that round stands before it"
    if aggregate.aggregate_sha256 != entry.aggregate_sha256:
        return f"its table is another one than entry {place} says was summed"
    if entry.number <= before:
        return f"it is evaluation {entry.number} of run {entry.run!r}, and evaluation {before} came before"
    for name in aggregate.released:
        charge = _reserved(facts.spending.runs.values(), name, entry.run)
        reserved = 0 if charge is None else charge.count
        if of_run > reserved:
            return (
                f"it is evaluation {of_run} of run {entry.run!r}, and {name!r} has reserved {reserved} there"
            )
    return ""


def _reserved(runs: Any, member: str, run: str) -> Charge | None:
    held: Iterator[RunSpend] = (one for one in runs if (one.member, one.run) == (member, run))
    return next((one.charges[EVALUATION] for one in held if EVALUATION in one.charges), None)


def check_fairness(report: Report | None, evidence: Evidence, notebook: Notebook) -> None:
    """Compare what a report says of evaluations with the tables in the log, and with what members reserved."""
    federation = evidence.federation
    if report is None or federation is None or report.agreement_id != evidence.keys.agreement_id:
        return
    entries = [e for _, e in federation.facts.evaluations if e.agreement_id == evidence.keys.agreement_id]
    told = () if report.fairness is None else report.fairness.evaluations
    by_place = {(entry.run, entry.round): entry for entry in entries}
    if {(one.run, one.round) for one in told} != set(by_place) or len(told) != len(by_place):
        _wrong("fairness", f"tells of {len(told)} evaluations, and the log holds {len(by_place)}", notebook)
        return
    for i, one in enumerate(told):
        wrong = next(_contradictions(one, by_place[one.run, one.round], evidence), None)
        if wrong is not None:
            _wrong(f"fairness.evaluations.{i}.{wrong[0]}", wrong[1], notebook)
            return
        notebook.passed("claims: metrics by group, computed anew from the noisy table")


def _wrong(place: str, what: str, notebook: Notebook) -> None:
    notebook.failed(Failure(REPORT, None, "claim", f"{place} {what}"))


def _contradictions(
    told: EvaluationReport, entry: Evaluation, evidence: Evidence
) -> Iterator[tuple[str, str]]:
    """What a report's evaluation says and the logs do not."""
    aggregate = next(one for one in evidence.aggregates() if (one.run, one.round) == (told.run, told.round))
    same: Sequence[tuple[str, object, object]] = (
        ("number", told.number, entry.number),
        ("artifact_sha256", told.artifact_sha256, entry.artifact_sha256),
        ("reference_sha256", told.reference_sha256, entry.reference_sha256),
        ("table_sha256", told.table_sha256, entry.aggregate_sha256),
        ("contributors", sorted(told.contributors), sorted(aggregate.released)),
    )
    for place, said, logged in same:
        if said != logged:
            yield place, "is not what the log holds"
    yield from _charged(told, evidence)
    yield from _counted(told, entry)


def _charged(told: EvaluationReport, evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Noise, its cost, and of whose units it is spent."""
    from hansa.report.evaluated import plan_told  # numpy

    try:
        wanted = plan_told(told).charge()
    except HansaError as error:
        yield "layout", f"is of no table that can be released: {error.cause}"
        return
    costs = {cost.member: cost for cost in told.costs}
    for name in told.contributors:
        runs = [run for run in evidence.runs(name) if run.run == told.run]
        charge = _reserved(runs, name, told.run)
        if charge is None:
            yield "contributors", f"names {name!r}, who has reserved nothing for it"
            return
        if not _alike(charge, wanted):
            yield "noise_multiplier", f"is not that of the events that {name!r} has reserved"
        # evaluations after publication are runs of their own: what was freed is reserved again there
        reserved = sum(
            held.charges[EVALUATION].count for held in evidence.runs(name) if EVALUATION in held.charges
        )
        if told.allowed > reserved:
            yield "allowed", f"is {told.allowed}, and {name!r} has reserved {reserved}"
        if name not in costs:
            yield "costs", f"lack {name!r}"
            return
        against: list[tuple[str, float, int | None]] = [("epsilon", costs[name].epsilon, None)]
        few = costs[name].epsilon_colluding
        if (few is None) != (charge.shared is None):
            yield f"costs.{name}.epsilon_colluding", "does not fit the events that were reserved"
        elif few is not None:
            against.append(("epsilon_colluding", few, charge.coalition))
        for key, said, coalition in against:
            follows = epsilon_spent([charge.against(coalition)], told.delta)
            if differs(said, follows):
                yield f"costs.{name}.{key}", f"is {said:.6g}, and {follows:.6g} follows from the events"
        apart = _apart(name, told.run, evidence)
        if apart is not None and apart != (told.composition == "parallel"):
            yield "composition", f"is {told.composition!r}, and the ledger of {name!r} says otherwise"


def _alike(charge: Charge, wanted: Charge) -> bool:
    if charge.coalition != wanted.coalition:
        return False
    pairs = [(charge.event, wanted.event)]
    if charge.shared is not None and wanted.shared is not None:
        pairs.append((charge.shared, wanted.shared))
    return all(
        one["type"] == other["type"]
        and math.isclose(rate_and_multiplier(one)[1], rate_and_multiplier(other)[1], rel_tol=_RELATIVE)
        for one, other in pairs
    )


def _apart(member: str, run: str, evidence: Evidence) -> bool | None:
    """Whether a member's evaluations are charged to units that its officer called disjoint; `None` without its log."""
    own = evidence.own.get(member)
    if own is None:
        return None
    runs = [one for one in own.facts.spending.runs.values() if one.member == member]
    judged = {one.dataset for one in runs if one.run == run and EVALUATION in one.charges}
    trained = {one.dataset for one in runs if TRAINING in one.charges}  # whenever
    grants = {dataset: grant.disjoint_from for dataset, (_, grant, _) in own.facts.grants.items()}
    pairs = [(a, b) for a in judged for b in trained]
    return bool(pairs) and all(a in grants.get(b, ()) or b in grants.get(a, ()) for a, b in pairs)


def _counted(told: EvaluationReport, entry: Evaluation) -> Iterator[tuple[str, str]]:
    """Caps, and every number that follows from the table."""
    from hansa.protocol import table_encoding
    from hansa.report.evaluated import plan_told, recomputed  # numpy

    plan, k = plan_told(told), len(told.contributors)
    total = entry.total
    if total.shape != (plan.layout.size,):
        yield "layout", f"is of {plan.layout.size} cells, and the table in the log has {len(total)}"
        return
    try:
        table_encoding(plan, k).decode(total.view("uint32"), k)
    except HansaError as error:
        yield "cell_cap", f"does not hold the table in the log: {error.cause}"
        return
    expected = recomputed(told, plan.read(total, k)).model_dump(mode="json")
    difference = differing_place(told.model_dump(mode="json"), expected)
    if difference is not None:
        yield difference, "does not follow from the table in the log"
