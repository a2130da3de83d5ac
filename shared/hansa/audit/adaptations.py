"""What adapted to the sums of training: whether it stands beside each sum, and whether it follows from what was counted."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hansa.audit.claims import Evidence
from hansa.audit.findings import FEDERATION, REPORT, Failure, Notebook
from hansa.audit.integrity import Examined
from hansa.errors import HansaError
from hansa.ledger.outcomes import Adaptation, Aggregate
from hansa.privacy.charges import TRAINING
from hansa.report.adaptation import AdaptationReport, adaptation_told, rule_told
from hansa.report.schema import Report


def check_adaptations(federation: Examined, notebook: Notebook) -> None:
    """Check that each is of a sum of training before it, and that the sum's aggregate names the model that it makes."""
    facts = federation.facts
    sums = {(entry.run, entry.round): (index, entry) for index, entry in facts.aggregates}
    seen: set[tuple[str, int]] = set()
    for index, entry in facts.adaptations:
        place = (entry.run, entry.round)
        problem = _problem(index, entry, *sums.get(place, (index, None)))
        if place in seen:
            problem = f"what adapted to round {entry.round} stands in the log before it"
        if problem:
            notebook.failed(Failure(FEDERATION, index, entry.type, problem, federation.place))
            return
        seen.add(place)
        notebook.passed("quantities that adapt, in the name of the model that follows")
    if facts.adaptations:
        notebook.not_checked(
            "whether what was counted is part of the sums",
            "sums are not in the logs; members name the model, counts and all, before they train on it",
        )


def _problem(index: int, entry: Adaptation, place: int, aggregate: Aggregate | None) -> str:
    if aggregate is None or place > index or aggregate.purpose != TRAINING:
        return f"it is of round {entry.round}, and no sum of training of that round stands before it"
    if (aggregate.aggregate_sha256, aggregate.step) != (entry.aggregate_sha256, entry.step):
        return f"it is of another sum than entry {place} says was summed"
    if aggregate.model_sha256 != entry.model_sha256:
        return f"its weights and quantities are not the model that entry {place} names"
    return ""


def check_adapted(report: Report | None, evidence: Evidence, notebook: Notebook) -> None:
    """Compute all that a report says of what adapted anew, from what the log holds of the sums."""
    federation = evidence.federation
    if report is None or federation is None or report.agreement_id != evidence.keys.agreement_id:
        return
    entries = [e for _, e in federation.facts.adaptations if e.agreement_id == evidence.keys.agreement_id]
    told = report.adaptation
    if told is None:
        if entries:
            _wrong("adaptation", "is missing, and the log holds what adapted to its sums", notebook)
        return
    if not federation.whole or len({entry.run for entry in entries}) > 1:
        notebook.not_checked("what adapted to the sums", "the log is broken, or holds several runs")
        return
    sums = {(entry.run, entry.round): entry for entry in evidence.aggregates() if entry.purpose == TRAINING}
    if set(sums) != {(entry.run, entry.round) for entry in entries}:
        _wrong(
            "adaptation",
            f"is of {len(sums)} sums, and the log holds what adapted to {len(entries)}",
            notebook,
        )
        return
    problem = _recomputed(report, told, entries, sums)
    if problem:
        _wrong(*problem, notebook)
        return
    notebook.passed("claims: what adapted, computed anew from what was counted")


def _recomputed(
    report: Report,
    told: AdaptationReport,
    entries: list[Adaptation],
    sums: Mapping[tuple[str, int], Aggregate],
) -> tuple[str, str] | None:
    """The first thing that does not follow, and how; every step in the order of the run's plan."""
    shared, norm = report.shared_noise, report.clipping_norm
    if shared is None or norm is None:
        return "adaptation", "is told, and noise was not shared: nothing was counted in sums of steps"
    try:
        adapts = rule_told(told, norm)
        now = adapts.first
        expected = {member.name: report.sampling_rate * member.units for member in report.members}
        followed = []
        for entry in sorted(entries, key=lambda one: one.step):
            counted = [value / shared.scale / norm for value in entry.integers]
            batch = math.fsum(expected[name] for name in sums[entry.run, entry.round].released)
            now = adapts.following(now, counted, batch)
            if now != entry.quantities:
                return (
                    "adaptation",
                    f"has a rule by which the log's quantities after step {entry.step} do not follow from its counts",
                )
            followed.append(now)
        if adaptation_told(adapts, tuple(followed)) != told:
            return "adaptation", "does not follow from what the log holds of the sums"
    except HansaError as error:
        return "adaptation", f"has no rule that an agreement could have: {error.cause}"
    return None


def _wrong(place: str, what: str, notebook: Notebook) -> None:
    notebook.failed(Failure(REPORT, None, "claim", f"{place} {what}"))
