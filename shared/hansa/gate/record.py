"""What the federation's log shows of one run: all that a gate rests on beside the noisy sum itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hansa.agreement.terms import Terms
from hansa.audit.attacks import verdict_of
from hansa.audit.bounds import require_few
from hansa.canonical import canonical_json
from hansa.errors import HansaError, PrivacyParameterError
from hansa.fairness.judging import AttackBound
from hansa.ledger import (
    Abort,
    Aggregate,
    Evaluation,
    Gate,
    Override,
    Publication,
    Release,
    Reservation,
)
from hansa.ledger.attacks import AttackMade
from hansa.ledger.entry import OfRun
from hansa.ledger.kinds import Kind
from hansa.ledger.spends import Charging
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import EVALUATION, Charge
from hansa.privacy.events import Spend


@dataclass(frozen=True)
class MemberSpent:
    """What one member has released in a run.

    Attributes:
        together: DP events of training, and of evaluations whose units may be in training too.
        apart: events of evaluations on units that a public rule keeps out of training.
        known: whether these are all; not where a member has reserved nothing of a kind that it released, or nothing known.
    """

    together: tuple[Spend, ...] = ()
    apart: tuple[Spend, ...] = ()
    known: bool = True

    def epsilon(self, delta: float) -> float:
        """ε of the unit that lost most; not a number where the events cannot be composed, or not in reasonable time.

        A unit is in one of the two sets, so their losses do not add up (parallel composition).
        """
        parts = [list(part) for part in (self.together, self.apart) if part]
        try:
            for part in parts:
                require_few(part)  # a member may say that it has released what it likes
            return (
                max((epsilon_spent(part, delta) for part in parts), default=0.0) if self.known else math.nan
            )
        except (HansaError, ValueError, TypeError, KeyError):
            return math.nan


@dataclass(frozen=True)
class RunRecord:
    """One run, as a log shows it.

    Attributes:
        run: its name.
        spent: by member of the agreement.
        fewest: members in the smallest sum that was trained on; 0 where there was none.
        tables: sums of evaluations, by round.
        evaluations: their entries by hash, in order.
        overrides, gates, publications: entries by hash, in order.
        attacks: members' attacks on their own trainers.
        manifests: by round of an evaluation, the hashes of all manifests that its sum and its releases name.
    """

    run: str
    spent: Mapping[str, MemberSpent]
    fewest: int
    tables: Mapping[int, Aggregate] = field(default_factory=dict)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    overrides: Mapping[str, Override] = field(default_factory=dict)
    gates: Mapping[str, Gate] = field(default_factory=dict)
    publications: Mapping[str, Publication] = field(default_factory=dict)
    attacks: tuple[AttackMade, ...] = ()
    manifests: Mapping[int, frozenset[str]] = field(default_factory=dict)

    def epsilons(self, terms: Terms) -> dict[str, float]:
        """ε by member, at the agreement's δ; not a number where it cannot be computed."""
        delta = terms.privacy.delta
        return {} if delta is None else {name: spent.epsilon(delta) for name, spent in self.spent.items()}

    def overrides_of(self, artifact_sha256: str) -> dict[str, Override]:
        """Those about one file."""
        return {key: one for key, one in self.overrides.items() if one.artifact_sha256 == artifact_sha256}

    def attack_bounds(self) -> dict[str, AttackBound]:
        """What attacks have shown: the largest bound of each member; not a number where one cannot be judged."""
        return bounds_of(self.attacks)


def bounds_of(attacks: Iterable[AttackMade]) -> dict[str, AttackBound]:
    """By member, the attack with the largest lower bound in relation to its claim."""
    return {name: bound for name, (_, bound) in decisive(attacks).items()}


def decisive(attacks: Iterable[AttackMade]) -> dict[str, tuple[AttackMade, AttackBound]]:
    """By member, the attack that counts, and its bound: no other one changes what follows from them."""
    found: dict[str, tuple[AttackMade, AttackBound]] = {}
    for entry in attacks:
        try:
            verdict = verdict_of(entry)
            bound = AttackBound(verdict.epsilon, verdict.design.claim.epsilon)
        except HansaError:
            bound = AttackBound(math.nan, math.nan)
        _, before = found.get(entry.member, (entry, None))
        if before is None or not bound.lower_bound - bound.claim <= before.lower_bound - before.claim:
            found[entry.member] = entry, bound
    return found


def read_run(entries: Iterable[Kind], terms: Terms, agreement_id: str, run: str) -> RunRecord:
    """Read a run.

    Args:
        entries: of the federation's log, verified elsewhere.
        terms: of the agreement.
        agreement_id: of it.
        run: its name.

    Guarantees: what members released is counted by their own signed entries, steps that came to nothing included; under
        shared noise by the event against the agreed coalition, which the member has reserved.
    """
    reserved: dict[str, list[Reservation]] = {member.name: [] for member in terms.members}
    released: dict[str, list[Release | Abort]] = {member.name: [] for member in terms.members}
    sums, tables, attacks = [], {}, []
    evaluations: dict[str, Evaluation] = {}
    overrides: dict[str, Override] = {}
    gates: dict[str, Gate] = {}
    publications: dict[str, Publication] = {}
    for entry in entries:
        if isinstance(entry, AttackMade) and entry.agreement_id == agreement_id:
            attacks.append(entry)
        if not isinstance(entry, OfRun) or (entry.agreement_id, entry.run) != (agreement_id, run):
            continue
        match entry:
            case Reservation() if entry.member in reserved:
                reserved[entry.member].append(entry)
            case Release() | Abort() if entry.writer in released and entry.spends:
                released[entry.writer].append(entry)
            case Aggregate() if entry.purpose == EVALUATION:
                tables[entry.round] = entry
            case Aggregate():
                sums.append(len(entry.released))
            case Evaluation():
                evaluations[entry.sha256] = entry
            case Override():
                overrides[entry.sha256] = entry
            case Gate():
                gates[entry.sha256] = entry
            case Publication():
                publications[entry.sha256] = entry
            case _:
                pass
    return RunRecord(
        run,
        {name: _spent(entries, reserved[name], terms) for name, entries in released.items()},
        min(sums, default=0),
        tables,
        evaluations,
        overrides,
        gates,
        publications,
        tuple(attacks),
        {number: _manifests(aggregate, released) for number, aggregate in tables.items()},
    )


def _manifests(aggregate: Aggregate, released: Mapping[str, list[Release | Abort]]) -> frozenset[str]:
    """What the sum of a round, and each member's release in it, answer; a member without one makes it nobody's."""
    found = {aggregate.manifest_sha256}
    for name, digest in aggregate.released.items():
        said = {
            entry.manifest_sha256
            for entry in released.get(name, [])
            if isinstance(entry, Release) and (entry.round, entry.y_sha256) == (aggregate.round, digest)
        }
        found |= said or {""}
    return frozenset(found)


def _spent(released: list[Release | Abort], reservations: list[Reservation], terms: Terms) -> MemberSpent:
    """A member's events, of shared noise as the agreement counts it."""
    together: list[Spend] = []
    apart: list[Spend] = []
    known = True
    held_out = terms.evaluation is not None and terms.evaluation.units == "held-out"
    trained = {entry.dataset_id for entry in released if entry.purpose != EVALUATION}
    charges: dict[str | None, Charging] = {one.kind: one for entry in reservations for one in entry.charges}
    for entry in released:
        separate = held_out and entry.purpose == EVALUATION and entry.dataset_id not in trained
        into = apart if separate else together
        if terms.privacy.mechanism != "distributed":
            into += [spending.spend for spending in entry.spends]
        elif (charge := _charge_of(charges.get(entry.purpose))) is not None:
            count = sum(spending.count for spending in entry.spends)
            into.append(charge.with_count(count).against(terms.privacy.colluding))
        else:
            known = False
    return MemberSpent(_summed(together), _summed(apart), known)


def _charge_of(said: Charging | None) -> Charge | None:
    """What a member has reserved for a purpose; `None` where that is nothing, or nothing that could be charged."""
    try:
        return None if said is None else said.charge
    except PrivacyParameterError:
        return None


def _summed(spends: list[Spend]) -> tuple[Spend, ...]:
    """Equal events with their counts added, in order of their first."""
    counts: dict[bytes, Spend] = {}
    for spend in spends:
        key = canonical_json(dict(spend.event))
        before = counts.get(key)
        counts[key] = spend if before is None else Spend(spend.event, before.count + spend.count)
    return tuple(counts.values())
