"""What a run reports: the values of `report.json`, documented field by field.

Every number here is either public (the agreement's), a statement about privacy that follows from logged events,
or measured by the simulator on test records that it holds itself, outside the protocol. `docs/report-schema.md`
and `docs/report.schema.json` are generated from these classes and their docstrings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from pydantic import model_validator

from hansa.report.adaptation import AdaptationReport
from hansa.report.fairness import FairnessReport
from hansa.report.mitigation import MitigationReport
from hansa.report.part import Interval, NonNegative, NonNegativeInt, Part, Sha256
from hansa.report.publication import PublicationReport
from hansa.report.shared_noise import SharedNoiseReport

REPORT_SCHEMA_VERSION: Final = 1


class EventCount(Part):
    """One kind of DP event and how often it happened at one member.

    Attributes:
        member: whose data it spends.
        event: a serialised `dp_accounting` event (`hansa.privacy.events.event_to_json`).
        count: how many times it was composed.
        shared: what it costs against at most `coalition` other members, where noise is shared; null where it is not.
        coalition: c, where there is a `shared`.
    """

    member: str
    event: Mapping[str, object]
    count: NonNegativeInt
    shared: Mapping[str, object] | None = None
    coalition: NonNegativeInt = 0


class MemberReport(Part):
    """One member: what it released, how often it took part, what it cost.

    Attributes:
        name: of the agreement.
        epsilon: of what it released, against everyone, recomputed from `Report.events`; null when no privacy is claimed.
        delta: at which `epsilon` holds, and `epsilon_colluding`.
        budget_epsilon: the limit that the member enforces.
        epsilon_colluding: the same against at most `shared_noise.colluding` other members together with all outside; null where
            noise is local and both are one number.
        budget_epsilon_colluding: the limit on it that the member enforces.
        units: the public number of units.
        weight: its public share in the average, of a total of 1.
        rounds_present: rounds in which its update was summed.
        noisy_steps: events charged: optimiser steps, or epochs of fixed batches.
        upload_bytes: bytes that left it.
        download_bytes: bytes that it received.
        train_seconds: spent in training, as measured by the simulator.
    """

    name: str
    epsilon: NonNegative | None
    delta: NonNegative | None
    budget_epsilon: NonNegative | None
    epsilon_colluding: NonNegative | None = None
    budget_epsilon_colluding: NonNegative | None = None
    units: NonNegativeInt
    weight: NonNegative
    rounds_present: NonNegativeInt
    noisy_steps: NonNegativeInt
    upload_bytes: NonNegativeInt
    download_bytes: NonNegativeInt
    train_seconds: NonNegative


class Intervals(Part):
    """95 % intervals beside the values of `Quality`, low and high; they cover sampling of test records only.

    Attributes:
        pooled: beside `Quality.pooled`.
        mean_over_members: beside `Quality.mean_over_members`.
        by_member: one for each value of `Quality.by_member`.
        by_group: one for each value of `Quality.by_group`.
    """

    pooled: Interval
    mean_over_members: Interval
    by_member: Mapping[str, Interval]
    by_group: Mapping[str, Mapping[str, Interval]]

    @model_validator(mode="after")
    def _ordered(self) -> Intervals:
        groups = [pair for values in self.by_group.values() for pair in values.values()]
        for low, high in (self.pooled, self.mean_over_members, *self.by_member.values(), *groups):
            if low > high:
                raise ValueError(f"an interval runs from {low} down to {high}")
        return self


class Counts(Part):
    """Test records behind the values of `Quality`.

    A member or group that has a count and no value could not be measured: it has no test records, or, for AUC,
    records of one class only.

    Attributes:
        pooled: test records in all.
        by_member: test records per member.
        by_group: attribute to value to test records.
    """

    pooled: NonNegativeInt
    by_member: Mapping[str, NonNegativeInt]
    by_group: Mapping[str, Mapping[str, NonNegativeInt]]


class Quality(Part):
    """Quality of one model on the simulator's own test records; never seen by the coordinator.

    Attributes:
        metric: ``accuracy``, ``balanced-accuracy`` or ``auc``.
        pooled: on the union of all members' test records.
        mean_over_members: mean of the members' values.
        by_member: value per owner of test records; who could not be measured is left out. Under
            ``--baseline pooled`` these are the hospitals or banks, while the only member is the pool.
        by_group: attribute to value to quality; groups that could not be measured are left out.
        intervals: a 95 % interval beside each value.
        counts: test records behind each value, and behind what could not be measured.
    """

    metric: Literal["accuracy", "balanced-accuracy", "auc"]
    pooled: float
    mean_over_members: float
    by_member: Mapping[str, float]
    by_group: Mapping[str, Mapping[str, float]]
    intervals: Intervals
    counts: Counts

    @model_validator(mode="after")
    def _same_names(self) -> Quality:
        wrong = [
            *_differences("by_member", self.by_member, self.intervals.by_member, self.counts.by_member),
            *_differences("by_group", self.by_group, self.intervals.by_group, self.counts.by_group),
        ]
        for name in self.by_group.keys() & self.intervals.by_group.keys() & self.counts.by_group.keys():
            parts = (part[name] for part in (self.by_group, self.intervals.by_group, self.counts.by_group))
            wrong += _differences(f"by_group.{name}", *parts)
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def _differences(
    place: str, values: Iterable[str], intervals: Iterable[str], counts: Iterable[str]
) -> list[str]:
    measured, with_interval, counted = set(values), set(intervals), set(counts)
    found = []
    if measured != with_interval:
        found.append(
            f"{place}: intervals are not for the same names as values: {sorted(measured ^ with_interval)}"
        )
    if measured - counted:
        found.append(f"{place}: values without a count of records: {sorted(measured - counted)}")
    return found


class HistoryPoint(Part):
    """The state after a round.

    Attributes:
        round: 0 is model 0.
        epsilon: the largest of what any member has released by then; null when no privacy is claimed.
        epsilon_colluding: the same against few; null where noise is local.
        pooled: quality then on the union of all test records.
        mean_over_members: mean of the members' quality then.
        by_member: quality then per member, where it was measured.
    """

    round: NonNegativeInt
    epsilon: NonNegative | None
    epsilon_colluding: NonNegative | None = None
    pooled: float
    mean_over_members: float
    by_member: Mapping[str, float]


class PhaseReport(Part):
    """What one phase of one round's secure sum cost, over all members.

    Attributes:
        sent_bytes: from the coordinator to the members.
        received_bytes: from the members to the coordinator.
        seconds: wall clock; exchanges that two rounds share count in both.
    """

    sent_bytes: NonNegativeInt
    received_bytes: NonNegativeInt
    seconds: NonNegative


class SumReport(Part):
    """The secure sum of one round.

    Attributes:
        rounds: the secure sum's own rounds that were begun for it; the last one gave the sum, those before it failed.
        dropped: member to the phase in which it was first missing; one that dropped in ``confirm`` or ``unmask``
            is in the sum all the same.
        blamed: members whose own signatures prove that they misbehaved, and how.
        phases: by name: keys, shares, delivery, masked, confirm, unmask.
        verified_by: who recomputed the sum from the masked vectors and the opened seeds; null if nobody has yet.
        opened: members that opened the surplus of their noise, which was taken off the sum.
    """

    rounds: tuple[int, ...]
    dropped: Mapping[str, str]
    blamed: Mapping[str, str]
    phases: Mapping[str, PhaseReport]
    verified_by: str | None
    opened: NonNegativeInt = 0


class RoundReport(Part):
    """One round: who was there, bytes and time.

    Attributes:
        round: counted from 1.
        present: members whose updates were summed.
        absent: member to why, as the wire knows it: ``absent`` or a code.
        upload_bytes: from the members to the coordinator.
        download_bytes: from the coordinator to the members.
        seconds: wall clock.
        secure_sum: how the sum went; null in a baseline, which has none.
    """

    round: NonNegativeInt
    present: tuple[str, ...]
    absent: Mapping[str, str]
    upload_bytes: NonNegativeInt
    download_bytes: NonNegativeInt
    seconds: NonNegative
    secure_sum: SumReport | None = None


class SecureSumTerms(Part):
    """What the secure sum promises in this run.

    Attributes:
        members: n.
        threshold: t, how many members must confirm and unmask.
        smallest_sum: no sum is over fewer members: max(t, min_members).
        honest: how many of the smallest sum are honest if the coordinator has all n - t others with it.
        threat_model: ``malicious`` or ``honest-but-curious``, of the coordinator.
        post_quantum: whether ML-KEM-768 stands beside X25519.
        retries: failed rounds that the agreement allows to be summed again.
        authority: who vouches for the keys, in words.
    """

    members: NonNegativeInt
    threshold: NonNegativeInt
    smallest_sum: NonNegativeInt
    honest: int
    threat_model: Literal["malicious", "honest-but-curious"]
    post_quantum: bool
    retries: NonNegativeInt
    authority: str


class Reference(Part):
    """The same task on the same split without one of the constraints, to say what each costs.

    Attributes:
        kind: where the training ran and under which privacy, separated by a comma: ``federated``, ``pooled`` or
            ``local only``, then ``no privacy``, ``same privacy``, or the other mechanism at the same ε: ``local noise`` or
            ``distributed noise``; or ``no mitigation``, at the same ε.
        agreement_id: of the derived agreement.
        quality: of the reference's final model, on the same test records.
    """

    kind: str
    agreement_id: Sha256
    quality: Quality


class Repeat(Part):
    """One of several runs under `--repeat`.

    Attributes:
        seed: of that run.
        pooled: its `Quality.pooled`.
        mean_over_members: its `Quality.mean_over_members`.
    """

    seed: int
    pooled: float
    mean_over_members: float


class AttackReport(Part):
    """An attack on the members' trainer, with canaries that are nobody's data (docs/attack.md).

    Attributes:
        member: whose plan was attacked.
        kind: what the canaries were: ``gradients`` or ``units``.
        seed: of the coins; null where they were secret.
        canaries: how many fair coins were thrown.
        guessed_in: canaries that were guessed to be in; fixed beforehand.
        guessed_out: the same, to be out.
        correct: guesses that were right.
        confidence: one minus the probability that a trainer that keeps its word is accused.
        delta: at which every ε here holds.
        epsilon_claimed: of the run that was attacked; null without a bound.
        epsilon_lower_bound: what the attack shows, the larger of the two that follow.
        epsilon_any_mechanism: whatever the mechanism (arXiv 2305.08846).
        epsilon_stated_mechanism: for the stated mechanism with unknown noise (arXiv 2410.22235).
        ceiling: the lower bound with all guesses right.
        needed: right guesses that refute the claim; null where not even all would.
        detectable_noise: the largest share of the stated noise that would be found 19 times of 20; null where none would.
        contradicts: whether the claim is refuted.
        told: all of it in words, with what an attack of this size can and cannot find.
    """

    member: str
    kind: Literal["gradients", "units"]
    seed: NonNegativeInt | None
    canaries: NonNegativeInt
    guessed_in: NonNegativeInt
    guessed_out: NonNegativeInt
    correct: NonNegativeInt
    confidence: NonNegative
    delta: NonNegative
    epsilon_claimed: NonNegative | None
    epsilon_lower_bound: NonNegative
    epsilon_any_mechanism: NonNegative
    epsilon_stated_mechanism: NonNegative
    ceiling: NonNegative
    needed: NonNegativeInt | None
    detectable_noise: NonNegative | None
    contradicts: bool
    told: tuple[str, ...]


class Report(Part):
    """`report.json` of a simulation.

    Attributes:
        schema_version: of this form; a reader refuses one that it does not know.
        status: ``done``; ``partial`` after an interruption, a failure of the machine, or when too few members remained.
        stopped_because: why a partial run ended.
        stopped_by: who ended it: a ``rule`` of the run, a ``person``, or the ``machine`` that it ran on.
        title: of the task, from the agreement.
        agreement_id: SHA-256 of the frozen agreement.
        terms_id: SHA-256 of its terms.
        derived_from: the terms this agreement was derived from on the command line, if any.
        changes: those changes in words.
        engine: what carried the messages: ``local`` or ``ray``.
        seed: of everything public that is random.
        created: when the run began, ISO 8601 in UTC.
        mechanism: ``local``, ``distributed`` or ``none``.
        unit: the privacy unit: ``record`` or ``patient``.
        adjacency: of neighbouring data sets.
        sampling_rate: public share of the units that a step is expected to draw.
        noise_multiplier: standard deviation of the noise over the sensitivity; under ``distributed`` of the promised shares
            together. Null without privacy.
        clipping_norm: L2 bound of one unit's gradient, in the first step where it adapts; null without clipping.
        rounds: that were finished.
        rounds_planned: of the agreement.
        parameters: length of the vector that is trained.
        randomness: where noise and private sampling come from.
        notes: what a reader must know before believing a number, in plain words.
        not_in_force: sections of the agreement that were read and checked but do nothing yet.
        members: one entry per member, in the agreement's order.
        quality: of the final model; with repeats, the mean over them.
        initial_quality: of model 0.
        history: by round, as far as measured.
        shared_noise: how noise was shared under ``distributed``; null otherwise.
        secure_sum: what it promises here; null in a baseline, which has one member and nothing to hide in.
        round_log: one entry per round.
        references: what the same task reaches without federation or without privacy, where asked for.
        attack: on the members' trainer, where one was asked for.
        fairness: private evaluations of the model by group; null where the agreement has none.
        mitigation: at which rates groups were drawn; null where all were drawn at one.
        adaptation: what adapted to noisy sums; null where nothing did.
        publication: how the publication ended that the agreement asks for; null without one.
        repeats: the single runs under `--repeat`.
        events: everything that was charged; `members[].epsilon` follows from it.
        versions: of the software that ran.
        seconds: wall clock of the whole run.
        seconds_by_part: of it, by part.
        peak_rss_bytes: largest resident memory of the main process, and of workers where there are any.
        model_sha256: SHA-256 of the published flat weights as little-endian float64.
        last_model_sha256: of the model after the last round, which differs where the last models are averaged; absent
            where no federation trained.
    """

    schema_version: Literal[1] = REPORT_SCHEMA_VERSION
    status: Literal["done", "partial"]
    stopped_because: str | None = None
    stopped_by: Literal["rule", "person", "machine"] | None = None
    title: str
    agreement_id: Sha256
    terms_id: Sha256
    derived_from: Sha256 | None = None
    changes: tuple[str, ...] = ()
    engine: str
    seed: int
    created: str
    mechanism: Literal["local", "distributed", "none"]
    unit: Literal["record", "patient"]
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"
    sampling_rate: NonNegative
    noise_multiplier: NonNegative | None
    clipping_norm: NonNegative | None
    rounds: NonNegativeInt
    rounds_planned: NonNegativeInt
    parameters: NonNegativeInt
    randomness: str
    notes: tuple[str, ...]
    not_in_force: tuple[str, ...]
    members: tuple[MemberReport, ...]
    quality: Quality
    initial_quality: Quality | None
    history: tuple[HistoryPoint, ...]
    shared_noise: SharedNoiseReport | None = None
    secure_sum: SecureSumTerms | None = None
    round_log: tuple[RoundReport, ...]
    references: tuple[Reference, ...] = ()
    attack: AttackReport | None = None
    fairness: FairnessReport | None = None
    mitigation: MitigationReport | None = None
    adaptation: AdaptationReport | None = None
    publication: PublicationReport | None = None
    repeats: tuple[Repeat, ...] = ()
    events: tuple[EventCount, ...]
    versions: Mapping[str, str]
    seconds: NonNegative
    seconds_by_part: Mapping[str, NonNegative]
    peak_rss_bytes: NonNegativeInt
    model_sha256: Sha256
    last_model_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Report:
        names = [member.name for member in self.members]
        wrong = [
            f"members: {name!r} stands twice" for name in sorted({n for n in names if names.count(n) > 1})
        ]
        spoken_of = {
            "events": {event.member for event in self.events},
            "round_log": {name for entry in self.round_log for name in (*entry.present, *entry.absent)},
            "round_log.secure_sum": {
                name
                for entry in self.round_log
                if entry.secure_sum is not None
                for name in (*entry.secure_sum.dropped, *entry.secure_sum.blamed)
            },
        }
        for place, mentioned in spoken_of.items():
            wrong += [f"{place}: {name!r} is no member" for name in sorted(mentioned - set(names))]
        if self.status == "partial" and not self.stopped_because:
            wrong.append("stopped_because: a partial run must say why it ended")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self
