"""From a finished run to its report."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Terms
from hansa.agreement.force import not_in_force
from hansa.agreement.terms import Encoder
from hansa.artifact.judged import verdicts_of
from hansa.canonical import sha256_hex
from hansa.identity.authority import EPHEMERAL_NAME
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.attack_words import told
from hansa.privacy.charges import charges_of
from hansa.privacy.events import Spend
from hansa.protocol import public_weights, shared_noise
from hansa.quorum import threshold
from hansa.report import (
    AttackReport,
    ConditionReport,
    EventCount,
    FairnessReport,
    HistoryPoint,
    MemberReport,
    PhaseReport,
    PublicationReport,
    Quality,
    Reference,
    Report,
    RoundReport,
    SecureSumTerms,
    SharedNoiseReport,
    SumReport,
)
from hansa.wire import array_sha256
from hansa_client.attack import Attack
from hansa_client.training import TrainingPlan
from hansa_server.federation import Outcome
from hansa_server.publication.concluding import Conclusion
from hansa_server.rounds import RoundRecord, SumFacts
from hansa_simulations.league import MemberBudget
from hansa_simulations.mitigation import adapted_told, rates_told

Vector: TypeAlias = npt.NDArray[np.float64]

_PACKAGES = (
    "hansa",
    "flwr",
    "torch",
    "opacus",
    "transformers",
    "peft",
    "dp-accounting",
    "numpy",
    "randomgen",
)


@dataclass(frozen=True)
class Run:
    """A federation that ran, or several of one member each.

    Attributes:
        agreement: frozen.
        outcomes: of the federation, or of each member alone.
        weights: float64 [d] of the final model.
        history: rounds at which quality was measured.
        budgets: what each member has spent; `None` where no privacy is claimed.
        train_seconds: by member, where it was seen.
        attack: on the trainer, where one was asked for.
        fairness: private evaluations of the final model, where the agreement has any.
        adapted: what adapted to the sums, after each round; empty where nothing does.
        conclusion: how far its publication came, where the agreement asks for one.
        not_concluded: why what follows training ended early, if it did.
    """

    agreement: Agreement
    outcomes: tuple[Outcome, ...]
    weights: Vector
    history: tuple[tuple[int, Quality], ...]
    budgets: Mapping[str, MemberBudget | None]
    train_seconds: Mapping[str, float]
    attack: Attack | None = None
    fairness: FairnessReport | None = None
    adapted: tuple[tuple[float, ...], ...] = ()
    conclusion: Conclusion | None = None
    not_concluded: str | None = None

    @classmethod
    def together(cls, agreement: Agreement, parts: Sequence[Run]) -> Run:
        """Runs of single members under one agreement."""
        return cls(
            agreement=agreement,
            outcomes=tuple(outcome for part in parts for outcome in part.outcomes),
            weights=np.concatenate([part.weights for part in parts]),
            history=(),
            budgets={name: budget for part in parts for name, budget in part.budgets.items()},
            train_seconds={name: seconds for part in parts for name, seconds in part.train_seconds.items()},
        )

    @property
    def only_member(self) -> str:
        """The member of a run that has one."""
        (name,) = self.budgets
        return name

    @property
    def stopped_because(self) -> str | None:
        """Why it ended early, if it did."""
        return next((o.stopped_because for o in self.outcomes if o.stopped_because is not None), None)

    @property
    def stopped_by(self) -> Literal["rule", "person", "machine"] | None:
        """Who ended it early."""
        return next((o.stopped_by for o in self.outcomes if o.stopped_by is not None), None)

    @property
    def rounds(self) -> list[RoundRecord]:
        """The rounds that were exchanged; those of members that ran alone side by side."""
        return [record for outcome in self.outcomes for record in outcome.rounds]


@dataclass(frozen=True)
class Measured:
    """What the simulator saw from outside.

    Attributes:
        quality: of the final model.
        initial: of model 0.
        references: what the run is compared with.
        seconds, by_part: wall clock.
        notes: on the members' records.
    """

    quality: Quality
    initial: Quality
    references: tuple[Reference, ...]
    seconds: float
    by_part: Mapping[str, float]
    notes: tuple[str, ...] = ()


def assemble(
    original: Agreement, run: Run, changes: tuple[str, ...], measured: Measured, engine: str, seed: int
) -> Report:
    """The report of a run.

    Args:
        original: the agreement before the command line changed it.
        run: what happened.
        changes: in words.
        measured: by the simulator.
        engine, seed: of the run.
    """
    agreement, terms = run.agreement, run.agreement.terms
    frozen = agreement.require_frozen()
    finished = min((outcome.state.round for outcome in run.outcomes), default=0)
    return Report(
        status="done" if run.stopped_because is None else "partial",
        stopped_because=run.stopped_because,
        stopped_by=run.stopped_by,
        title=terms.task.name,
        agreement_id=agreement.agreement_id,
        terms_id=agreement.terms_id,
        derived_from=None if original.terms_id == agreement.terms_id else original.terms_id,
        changes=changes,
        engine=engine,
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mechanism=terms.privacy.mechanism,
        unit=terms.privacy.unit,
        sampling_rate=terms.privacy.sampling_rate,
        noise_multiplier=frozen.noise_multiplier,
        clipping_norm=terms.privacy.clipping_norm if terms.private else None,
        rounds=finished,
        rounds_planned=terms.training.rounds,
        parameters=frozen.model.parameters,
        randomness=_randomness(agreement, seed),
        notes=(*_notes(original, terms), *measured.notes),
        not_in_force=not_in_force(terms),
        members=tuple(_members(run)),
        quality=measured.quality,
        initial_quality=measured.initial,
        history=tuple(_history(run)),
        shared_noise=_shared_noise(run),
        secure_sum=_secure_sum(terms),
        round_log=tuple(_round_log(run)),
        references=measured.references,
        attack=None if run.attack is None else _attack(run.attack),
        fairness=run.fairness,
        mitigation=rates_told(terms, [held.spends for held in run.budgets.values() if held is not None]),
        adaptation=adapted_told(terms, run.adapted),
        publication=None if run.conclusion is None else _publication(run.conclusion, run.not_concluded),
        events=tuple(_events(run)),
        versions={
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in _PACKAGES},
        },
        seconds=measured.seconds,
        seconds_by_part=dict(measured.by_part),
        peak_rss_bytes=_peak_rss_bytes(),
        model_sha256=array_sha256(run.weights),
        last_model_sha256=None if terms.baseline else array_sha256(run.outcomes[-1].state.weights),
    )


def _members(run: Run) -> list[MemberReport]:
    terms = run.agreement.terms
    weights = public_weights(terms)
    delta, budget = (terms.privacy.delta, terms.privacy.epsilon) if terms.private else (None, None)
    found = []
    for member in terms.members:
        name, held = member.name, run.budgets.get(member.name)
        records = [r for r in run.rounds if name in r.download_bytes]
        spends = held.spends if held is not None else ()
        found.append(
            MemberReport(
                name=name,
                epsilon=None if held is None or delta is None else epsilon_spent(spends, delta),
                delta=delta,
                budget_epsilon=budget if held is None else held.limit.epsilon,
                **_against_few(held, delta),
                units=member.units,
                weight=weights[name],
                rounds_present=sum(name in r.present for r in records),
                noisy_steps=sum(spend.count for spend in spends),
                upload_bytes=sum(r.upload_bytes.get(name, 0) for r in records),
                download_bytes=sum(r.download_bytes[name] for r in records),
                train_seconds=run.train_seconds.get(name, 0.0),
            )
        )
    return found


def _against_few(held: MemberBudget | None, delta: float | None) -> dict[str, float | None]:
    """ε against few, where noise is shared."""
    if held is None or held.shared is None or delta is None:
        return {}
    limit = None if held.limit_shared is None else held.limit_shared.epsilon
    return {
        "epsilon_colluding": epsilon_spent(held.shared, delta),
        "budget_epsilon_colluding": limit,
    }


def _events(run: Run) -> list[EventCount]:
    return [
        EventCount(
            member=name,
            event=dict(spend.event),
            count=spend.count,
            shared=None if few is None else dict(few.event),
            coalition=held.coalition,
        )
        for name, held in run.budgets.items()
        if held is not None
        for spend, few in zip(held.spends, held.shared or [None] * len(held.spends), strict=True)
    ]


def _history(run: Run) -> list[HistoryPoint]:
    """Quality by round, with the ε of the rounds so far: all members take the same steps."""
    terms = run.agreement.terms
    plan = TrainingPlan.of(run.agreement, terms.members[0].name)
    noise, delta = run.agreement.require_frozen().noise_multiplier, terms.privacy.delta
    (charge,) = (None,) if noise is None else charges_of(terms, noise)
    coalition = None if charge is None or charge.shared is None else charge.coalition
    points = []
    for number, quality in run.history:

        def epsilon(against: int | None, count: int = number * plan.round_events()) -> float | None:
            if charge is None or delta is None:
                return None
            return epsilon_spent([Spend(charge.against(against).event, count)], delta)

        points.append(
            HistoryPoint(
                round=number,
                epsilon=epsilon(None),
                epsilon_colluding=None if coalition is None else epsilon(coalition),
                pooled=quality.pooled,
                mean_over_members=quality.mean_over_members,
                by_member=quality.by_member,
            )
        )
    return points


def _round_log(run: Run) -> list[RoundReport]:
    """One entry per round; members that ran alone are shown as present in the round of the same number."""
    by_number: dict[int, list[RoundRecord]] = {}
    for record in run.rounds:
        by_number.setdefault(record.number, []).append(record)
    return [
        RoundReport(
            round=number,
            present=tuple(name for r in records for name in r.present),
            absent={name: code for r in records for name, code in r.absent.items()},
            upload_bytes=sum(sum(r.upload_bytes.values()) for r in records),
            download_bytes=sum(sum(r.download_bytes.values()) for r in records),
            seconds=sum(r.seconds for r in records),
            secure_sum=next((_sum(r.sum) for r in records if r.sum is not None), None),
        )
        for number, records in sorted(by_number.items())
    ]


def _sum(facts: SumFacts) -> SumReport:
    phases = {
        name: PhaseReport(
            sent_bytes=cost.sent_bytes, received_bytes=cost.received_bytes, seconds=cost.seconds
        )
        for name, cost in facts.costs.items()
    }
    return SumReport(
        rounds=facts.rounds,
        dropped=facts.dropped,
        blamed=facts.blamed,
        phases=phases,
        verified_by=facts.verified_by,
        opened=facts.opened,
    )


def _secure_sum(terms: Terms) -> SecureSumTerms | None:
    if terms.baseline is not None:
        return None
    n, t = len(terms.members), threshold(len(terms.members))
    smallest = max(t, terms.secure_sum.min_members)
    return SecureSumTerms(
        members=n,
        threshold=t,
        smallest_sum=smallest,
        honest=smallest - (n - t),
        threat_model=terms.secure_sum.threat_model,
        post_quantum=terms.secure_sum.post_quantum,
        retries=terms.secure_sum.retries,
        authority=EPHEMERAL_NAME,
    )


def _shared_noise(run: Run) -> SharedNoiseReport | None:
    terms = run.agreement.terms
    if terms.privacy.mechanism != "distributed":
        return None
    noise = shared_noise(run.agreement)
    done = [record for record in run.rounds if record.present]
    sums = [len(record.present) for record in done]
    left = [noise.remaining(len(one.present), 0 if one.sum is None else one.sum.opened) for one in done]
    return SharedNoiseReport(
        smallest_sum=noise.smallest_sum,
        colluding=noise.colluding,
        honest=noise.honest,
        share_multiplier=noise.share_multiplier,
        share_sigma=noise.share_sigma,
        scale=noise.grid.scale,
        clamp=noise.clamp,
        fewest=min(sums, default=0),
        most=max(sums, default=0),
        surplus=math.fsum(map(noise.surplus, sums)) / max(len(sums), 1),
        wrap_probability=noise.wrap_probability(terms.charged_steps),
        rotation=terms.privacy.rotation,
        in_parts=noise.in_parts,
        remaining=math.fsum(left) / max(len(left), 1),
    )


def _attack(made: Attack) -> AttackReport:
    return AttackReport.model_validate(
        {**made.as_dict(), "told": tuple(told(made.canaries, made.verdict))},
    )


def _publication(conclusion: Conclusion, why: str | None) -> PublicationReport:
    judged, made, package = conclusion.judged, conclusion.made, conclusion.package
    conditions: list[ConditionReport] = []
    if judged is not None:
        for condition, verdict in zip(judged.decision.conditions, verdicts_of(judged.decision), strict=True):
            conditions.append(
                ConditionReport(
                    name=verdict.name,
                    verdict=verdict.verdict,
                    holds=condition.holds,
                    excused=verdict.excused,
                    sentence=verdict.sentence,
                )
            )
    if why is not None:
        status: Literal["published", "open", "refused", "failed"] = (
            "refused" if conclusion.obstacles else "failed"
        )
    else:
        status = "open" if package is None else "published"
    shipped = None if made is None else made.judged
    return PublicationReport(
        status=status,
        because=why or "",
        package=None if package is None else package.folder.name,
        artifact_sha256=None if shipped is None else sha256_hex(shipped),
        bytes_shipped=0 if shipped is None else len(shipped),
        bytes_uncompressed=0 if made is None or made.reference is None else len(made.reference),
        gate_sha256=None if judged is None else judged.gate.entry.sha256,
        approved_by=() if judged is None else judged.approved_by,
        conditions=tuple(conditions),
    )


def _notes(original: Agreement, terms: Terms) -> list[str]:
    notes = [
        "All members and the coordinator ran on this machine, with keys that were made for this run and prove "
        "nobody's identity: the secure sum was carried out in full, and protected nobody from whoever ran this."
        if terms.baseline is None
        else "This is a baseline for comparison, not a federation."
    ]
    if terms.privacy.mechanism == "distributed":
        notes.append(
            "Two ε hold for each member: the smaller one against sums, and those who pool what few members know of the noise; the "
            "larger one against everyone, from the member's own share of the noise. Neither covers this report: quality was "
            "measured without noise by the simulator, on test records that it holds itself, outside the protocol."
        )
    elif terms.private:
        notes.append(
            "ε holds for each member against everyone, from the member's own noise, and covers every update it sent. "
            "It does not cover this report: quality was measured without noise by the simulator, on test records "
            "that it holds itself, outside the protocol."
        )
    else:
        notes.append("No privacy is claimed: nothing was clipped and no noise was added.")
    noise = None if original.simulation is None else original.simulation.planted
    if noise is not None:
        notes.append(
            f"An experiment: {noise.share:.0%} of the labels of {noise.attribute}={noise.value} were turned into others, in "
            f"{'the records that all members train on' if noise.where == 'training' else 'all records of all members'}."
        )
    if isinstance(terms.model, Encoder) and terms.model.warm_start:
        notes.append(
            f"Model 0 was warmed up by {terms.model.warm_start} non-private steps on public generated text; "
            "its quality is shown beside the final one."
        )
    return notes


def _randomness(agreement: Agreement, seed: int) -> str:
    if agreement.terms.private:
        return "AES-256 in counter mode, a fresh key from the operating system for each member and round"
    return f"public: unit sampling from seed {seed}"


def _peak_rss_bytes() -> int:
    kilobytes = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return kilobytes * 1024
