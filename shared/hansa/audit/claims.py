"""What a run's report claims against what the logs lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from hansa.audit.budgets import recomputed
from hansa.audit.findings import REPORT, Failure, Notebook
from hansa.audit.integrity import Examined
from hansa.audit.mechanism import contradiction, of_opened
from hansa.audit.rounds import OpenedNoise
from hansa.audit.spending import RunSpend, total
from hansa.errors import HansaError
from hansa.ledger.outcomes import Aggregate
from hansa.ledger.trust import TrustedKeys
from hansa.privacy.charges import TRAINING
from hansa.privacy.events import EventJson, Spend, counted
from hansa.report.schema import MemberReport, Report

TOLERANCE = 1e-3  # relative, of ε: another release of a numerical library may move its last digits
CLAIM = "claim"


@dataclass(frozen=True)
class Evidence:
    """What claims are compared with.

    Attributes:
        keys: that are trusted.
        federation: its log, if a copy was given.
        own: members' own logs, of those that were given.
        opened: what the records of rounds prove about opened noise, by run and round.
    """

    keys: TrustedKeys
    federation: Examined | None
    own: Mapping[str, Examined]
    opened: Mapping[tuple[str, int], OpenedNoise]

    def log_of(self, member: str) -> Examined | None:
        """Where a member's spends are read: its own log, else the federation's."""
        return self.own.get(member, self.federation)

    def runs(self, member: str) -> tuple[RunSpend, ...]:
        """A member's runs under the agreement."""
        log = self.log_of(member)
        return () if log is None else log.facts.spending.of(member, self.keys.agreement_id)

    def spans(self, member: str) -> tuple[tuple[RunSpend, ...], ...]:
        """Of what a report may speak: the runs for this federation's log, all under the agreement, or a whole life's.

        Each of all units, or of those that train: units that are held out for evaluations have a budget of their own, and
        `hansa.audit.evaluations` looks at what is said of it. A member's book spans all its runs; a report says which events it speaks of, and its ε must be theirs.
        """
        runs = self.runs(member)
        here = tuple(run for run in runs if run.federation_log in {None, self.keys.federation_log})
        own = self.own.get(member)
        spans = (here, runs) if own is None else (here, runs, tuple(own.facts.spending.runs.values()))
        return (*spans, *map(_of_training_units, spans))

    def aggregates(self) -> tuple[Aggregate, ...]:
        """The sums of the agreement."""
        if self.federation is None:
            return ()
        held = (entry for _, entry in self.federation.facts.aggregates)
        return tuple(entry for entry in held if entry.agreement_id == self.keys.agreement_id)


def _of_training_units(runs: tuple[RunSpend, ...]) -> tuple[RunSpend, ...]:
    """Those on datasets that are trained on."""
    trained = {run.dataset for run in runs if TRAINING in run.charges}
    return tuple(run for run in runs if run.dataset in trained)


def check_claims(report: Report | None, evidence: Evidence, notebook: Notebook) -> None:
    """Compare a report with what follows from the logs."""
    if report is None:
        notebook.not_checked("whether what was published about the run is true", f"no {REPORT} was given")
        return
    if report.agreement_id != evidence.keys.agreement_id:
        _wrong("agreement_id", "is another agreement than that of the trusted keys", notebook)
        return
    notebook.passed("claims: the agreement")
    _check_terms(report, evidence, notebook)
    if [member.name for member in report.members] != list(evidence.keys.members):
        _wrong("members", "are not those of the trusted keys, in their order", notebook)
        return
    for member in report.members:
        log = evidence.log_of(member.name)
        if log is None or not log.whole:
            why = "no copy of a log that shows it was given" if log is None else "its log is broken"
            notebook.not_checked(f"what {REPORT} claims about {member.name!r}", why)
        else:
            _check_member(report, member, evidence, notebook)
    runs = [run for name in evidence.keys.members for run in evidence.runs(name)]
    wrong = contradiction(report, runs, notebook)
    if wrong is not None:
        _wrong(*wrong, notebook)
        return
    _check_rounds(report, evidence, notebook)
    _check_history(report, evidence, notebook)


def _wrong(place: str, what: str, notebook: Notebook) -> None:
    notebook.failed(Failure(REPORT, None, CLAIM, f"{place} {what}"))


def _check_terms(report: Report, evidence: Evidence, notebook: Notebook) -> None:
    for log in (evidence.federation, *evidence.own.values()):
        for name, (_, entry) in log.facts.agreements.items() if log is not None else ():
            if entry.terms_id != report.terms_id:
                _wrong("terms_id", f"names other terms than {name!r} has signed", notebook)
                return
    notebook.passed("claims: the terms")


# --- a member --------------------------------------------------------------------------------------------


def _check_member(report: Report, member: MemberReport, evidence: Evidence, notebook: Notebook) -> None:
    name, place = member.name, f"members.{member.name}"
    claimed = tuple(
        Spend(cast("EventJson", one.event), one.count) for one in report.events if one.member == name
    )
    try:
        said = counted(claimed)
        runs = next((each for each in evidence.spans(name) if counted(total(each)) == said), None)
    except HansaError as error:
        _wrong(f"events of {name}", f"hold what is no event: {error.cause}", notebook)
        return
    if runs is None:
        logged = sum(spend.count for spend in total(evidence.spans(name)[0]))
        shown = sum(spend.count for spend in claimed)
        _wrong(f"events of {name}", f"({shown} in all) are not those of the logs ({logged} in all)", notebook)
        return
    spends = total(runs)
    notebook.passed("claims: events that were charged")
    if member.noisy_steps != sum(spend.count for spend in spends):
        _wrong(
            f"{place}.noisy_steps",
            f"is {member.noisy_steps}, and {sum(s.count for s in spends)} were",
            notebook,
        )
        return
    if not _check_epsilon(member, "epsilon", member.epsilon, spends, notebook):
        return
    if report.shared_noise is not None:
        few = total(runs, report.shared_noise.colluding)
        if counted(_against_few(report, name)) != counted(few):
            _wrong(f"events of {name}", "are not those of the logs against few that collude", notebook)
            return
        if not _check_epsilon(member, "epsilon_colluding", member.epsilon_colluding, few, notebook):
            return
    elif member.epsilon_colluding is not None:
        _wrong(f"{place}.epsilon_colluding", f"is claimed, and {REPORT} names no shared noise", notebook)
        return
    _check_grant(report, member, evidence, notebook)


def _against_few(report: Report, member: str) -> Iterator[Spend]:
    """What a report says that a member's releases cost against few."""
    for one in report.events:
        if one.member == member:
            yield Spend(cast("EventJson", one.event if one.shared is None else one.shared), one.count)


def _check_epsilon(
    member: MemberReport, key: str, claimed: float | None, spends: tuple[Spend, ...], notebook: Notebook
) -> bool:
    """Whether an ε of a member is what its events lead to; what is wrong is told."""
    place = f"members.{member.name}.{key}"
    if claimed is None or member.delta is None:
        if spends:
            _wrong(place, "is not claimed, and the logs show what was spent", notebook)
        return not spends
    try:
        answer = recomputed(spends, member.delta, f"{member.name!r} as {REPORT} claims it", notebook)
    except HansaError as error:
        _wrong(place, f"cannot be recomputed: {error.cause}", notebook)
        return False
    if answer is None:
        _wrong(place, f"is {claimed:.6g}, and no accountant of record can tell", notebook)
        return False
    if not _close(claimed, answer.epsilon):
        lower = "lower" if claimed < answer.epsilon else "higher"
        _wrong(
            place,
            f"is {claimed:.6g} at δ = {member.delta:g}, {lower} than the {answer.epsilon:.6g} that its events lead to",
            notebook,
        )
        return False
    notebook.passed("claims: ε of members")
    return True


def _check_grant(report: Report, member: MemberReport, evidence: Evidence, notebook: Notebook) -> None:
    log, place = evidence.own.get(member.name), f"members.{member.name}"
    if log is None:
        notebook.not_checked(
            f"budget and δ that {REPORT} names for {member.name!r}", "its own log was not given"
        )
        return
    for dataset in {run.dataset for run in _of_training_units(evidence.runs(member.name))}:
        _, grant, entry = log.facts.grants[dataset]
        limit = grant.everyone.loss
        if member.budget_epsilon is None:
            _wrong(f"{place}.budget_epsilon", f"is not named, and {limit.epsilon:.6g} was granted", notebook)
            return
        if member.delta is not None and member.delta > limit.delta * (1 + TOLERANCE):
            _wrong(f"{place}.delta", f"is {member.delta:g}, and {limit.delta:g} was granted", notebook)
            return
        if not _close(member.budget_epsilon, grant.everyone.loss.epsilon):
            _wrong(
                f"members.{member.name}.budget_epsilon",
                f"is {member.budget_epsilon:.6g}, and {grant.everyone.loss.epsilon:.6g} was granted",
                notebook,
            )
            return
        few = None if grant.colluding is None else grant.colluding.loss.epsilon
        said = member.budget_epsilon_colluding
        if said is not None and (few is None or not _close(said, few)):
            granted = "none" if few is None else f"{few:.6g}"
            _wrong(f"{place}.budget_epsilon_colluding", f"is {said:.6g}, and {granted} was granted", notebook)
            return
        if (entry.unit, entry.adjacency) != (report.unit, report.adjacency):
            _wrong("unit", f"is {report.unit}, and {entry.unit} was granted for {member.name!r}", notebook)
            return
        notebook.passed("claims: budgets of members")


# --- the run ---------------------------------------------------------------------------------------------


def _check_history(report: Report, evidence: Evidence, notebook: Notebook) -> None:
    """ε by round: all members take the same steps in a round, so that one number stands for the largest."""
    claimed = [point for point in report.history if point.epsilon is not None]
    deltas = {member.delta for member in report.members if member.delta is not None}
    costs = {
        (counted([Spend(charge.event, 1)]), steps)
        for name in evidence.keys.members
        for run in evidence.runs(name)
        for kind, charge in run.charges.items()
        for steps in (run.steps.get(kind, set()) if kind == TRAINING else ())
    }
    private = any(member.epsilon is not None for member in report.members)
    if private and len(claimed) != len(report.history):
        missing = next(point.round for point in report.history if point.epsilon is None)
        _wrong(f"history.{missing}.epsilon", "is missing, and members claim what they spent", notebook)
        return
    numbers = [point.round for point in report.history]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] > report.rounds):
        _wrong("history", "does not go from round to round, up to the last that was finished", notebook)
        return
    if report.status == "done" and numbers and numbers[-1] != report.rounds:
        _wrong("history", f"ends at round {numbers[-1]}, and {report.rounds} were finished", notebook)
        return
    if private and not claimed:
        notebook.not_checked("ε by round", f"{REPORT} shows none")
    if not claimed:
        return
    if len(costs) != 1 or len(deltas) != 1:
        notebook.not_checked(
            "ε by round as the report shows it", "the rounds of the logs do not all cost the same"
        )
        return
    charge = next(
        charge for name in evidence.keys.members for run in evidence.runs(name)
        for kind, charge in run.charges.items() if kind == TRAINING
    )  # fmt: skip
    ((_, steps),), (delta,) = costs, deltas
    for point in claimed:
        said = [("epsilon", point.epsilon, charge.event)]
        if charge.shared is not None:
            said.append(("epsilon_colluding", point.epsilon_colluding, charge.shared))
        for key, value, event in said:
            spend = Spend(event, point.round * steps)
            if not _check_point(f"history.{point.round}.{key}", value, spend, delta, notebook):
                return
            notebook.passed("claims: ε by round")


def _check_point(place: str, claimed: float | None, spend: Spend, delta: float, notebook: Notebook) -> bool:
    """Whether an ε by round follows from the events of so many rounds; what is wrong is told."""
    try:
        answer = recomputed((spend,), delta, f"{spend.count} events", notebook)
    except HansaError as error:
        _wrong(place, f"cannot be recomputed: {error.cause}", notebook)
        return False
    if answer is None:
        _wrong(place, "cannot be told by the accountant of record", notebook)
        return False
    if claimed is None or not _close(claimed, answer.epsilon):
        shown = "missing" if claimed is None else f"{claimed:.6g}"
        _wrong(
            place, f"is {shown}, and {answer.epsilon:.6g} follows from the events of so many rounds", notebook
        )
        return False
    return True


def _check_rounds(report: Report, evidence: Evidence, notebook: Notebook) -> None:
    """Who was summed in each round, and the model that came of it."""
    sums = [entry for entry in evidence.aggregates() if entry.purpose == TRAINING]
    if evidence.federation is None or not evidence.federation.whole:
        notebook.not_checked(
            "who was summed in each round, and the hash of the model",
            "no whole copy of the federation's log was given",
        )
        return
    if report.rounds and not sums:
        _wrong("rounds", f"is {report.rounds}, and the log holds 0 sums", notebook)
        return
    if len({entry.run for entry in sums}) > 1:
        notebook.not_checked(
            "who was summed in each round", "the log holds several runs, and a report names none"
        )
    else:
        released = {entry.round: set(entry.released) for entry in sums}
        said = [
            one.secure_sum.rounds[-1]
            for one in report.round_log
            if one.present and one.secure_sum is not None and one.secure_sum.rounds
        ]
        if sorted(said) != sorted(released):
            _wrong("round_log", f"tells of {len(said)} sums, and the log holds {len(released)}", notebook)
            return
        for member in report.members:
            present = sum(member.name in names for names in released.values())
            if member.rounds_present != present:
                _wrong(
                    f"members.{member.name}.rounds_present",
                    f"is {member.rounds_present}, and {present} sums of the log hold its vector",
                    notebook,
                )
                return
        for one in report.round_log:
            if one.secure_sum is None or not one.present:
                continue
            number = one.secure_sum.rounds[-1] if one.secure_sum.rounds else 0
            if released.get(number) != set(one.present):
                _wrong(
                    f"round_log.{one.round}.present",
                    "are not the members whose releases were summed",
                    notebook,
                )
                return
            notebook.passed("claims: who was summed")
        proven = {entry.round: evidence.opened.get((entry.run, entry.round)) for entry in sums}
        wrong = of_opened(report, proven, notebook)
        if wrong is not None:
            _wrong(*wrong, notebook)
            return
        if report.rounds != len(sums):
            _wrong("rounds", f"is {report.rounds}, and the log holds {len(sums)} sums", notebook)
            return
    # where something adapts, a model's name is of its weights and of that; a report names the weights
    weights = {(e.run, e.round): e.weights_sha256 for _, e in evidence.federation.facts.adaptations}
    models = [
        weights.get((entry.run, entry.round), entry.model_sha256)
        for entry in sums
        if entry.model_sha256 is not None
    ]
    if not models:
        notebook.not_checked("the hash of the model", "no aggregate of the log names the model that followed")
        return
    name = "model_sha256" if report.last_model_sha256 is None else "last_model_sha256"
    if getattr(report, name) != models[-1]:
        _wrong(name, "is not the model that the last aggregate of the log leads to", notebook)
        return
    notebook.passed("claims: the model")
    if report.model_sha256 != models[-1]:
        notebook.not_checked(
            "the hash of the published model",
            "it is the mean of the last models, and models are not in the logs",
        )


def differs(claimed: float, recomputed_epsilon: float) -> bool:
    """Whether a claimed ε is another one than follows from events."""
    return not _close(claimed, recomputed_epsilon)


def _close(claimed: float, recomputed_epsilon: float) -> bool:
    """No finite number is near an ε that has no bound."""
    if not math.isfinite(recomputed_epsilon):
        return False
    return abs(claimed - recomputed_epsilon) <= TOLERANCE * max(recomputed_epsilon, TOLERANCE)
