"""The gate's decision: the agreement's conditions, judged on noisy sums and on what the log shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hansa.agreement.terms import Terms
from hansa.canonical import sha256_hex
from hansa.fairness.agreed import conditions_of, rules_of
from hansa.fairness.evaluated import Evaluated
from hansa.fairness.judging import AttackBound, Evidence, Judgement, judge
from hansa.fairness.release import NoisyTables
from hansa.gate.record import RunRecord
from hansa.ledger import Condition, Gate, Override, real

_NAME_CHARACTERS = 200  # of a condition in a log
_SAME = 1e-6  # bounds that differ by less came from other releases of the same arithmetic


@dataclass(frozen=True, eq=False)
class Grounds:
    """What a decision is made on. Whoever has it comes to the same decision.

    Attributes:
        tables: noisy sums of the evaluation of the very file that would ship.
        epsilons: by member, ε of the run.
        members: in the smallest sum that was trained on.
        attacks: by member that attacked its own trainer.
        overrides: entries of the log about this file, by hash.
    """

    tables: NoisyTables
    epsilons: Mapping[str, float]
    members: int
    attacks: Mapping[str, AttackBound] = field(default_factory=dict)
    overrides: Mapping[str, Override] = field(default_factory=dict)

    @classmethod
    def of(cls, record: RunRecord, terms: Terms, evaluated: Evaluated) -> Grounds:
        """From a log's record of the run, and one of its evaluations."""
        overrides = record.overrides_of(evaluated.artifact_sha256)
        return cls(evaluated.tables, record.epsilons(terms), record.fewest, record.attack_bounds(), overrides)


@dataclass(frozen=True)
class GateDecision:
    """Pass, fail or inconclusive, with every condition that must hold.

    Attributes:
        judgement: of all conditions together.
        conditions: as the log holds them, in order.
        needed: the judgements behind them.
        overrides: those that excuse one of them, by hash.

    Guarantees: made by `decide` alone; `open` only if every condition passes, or is inconclusive and excused by the
        agreement or by a named person. What fails is never excused.
    """

    judgement: Judgement
    conditions: tuple[Condition, ...]
    needed: tuple[Judgement, ...]
    overrides: Mapping[str, Override]

    @property
    def open(self) -> bool:
        """Whether the file may be published."""
        return all(condition.holds for condition in self.conditions)

    @property
    def blocking(self) -> tuple[Judgement, ...]:
        """What stands in the way: fails first."""
        found = [
            told for condition, told in zip(self.conditions, self.needed, strict=True) if not condition.holds
        ]
        return tuple(sorted(found, key=lambda told: told.outcome != "fail"))

    def entry(
        self, at: str, agreement_id: str, run: str, artifact_sha256: str, evaluation_sha256: str
    ) -> Gate:
        """The decision as the log holds it."""
        return Gate(
            at=at,
            agreement_id=agreement_id,
            run=run,
            artifact_sha256=artifact_sha256,
            evaluation_sha256=evaluation_sha256,
            conditions=self.conditions,
            decision="open" if self.open else "closed",
        )


def decide(terms: Terms, grounds: Grounds) -> GateDecision:
    """Judge all conditions of an agreement.

    Args:
        terms: fix conditions, error, number of evaluations, liars and exemptions.
        grounds: what is known.

    Guarantees: a function of its arguments; what passes, passes whatever `publication.liars` members did within their caps.

    Raises:
        EvaluationError: the tables do not hold what a condition asks about.
    """
    evidence = Evidence(grounds.tables, grounds.epsilons, grounds.members, grounds.attacks)
    judgement = judge(conditions_of(terms), evidence, rules_of(terms))
    needed = judgement.needed()
    by_condition = {entry.condition: digest for digest, entry in sorted(grounds.overrides.items())}
    conditions = tuple(_condition(told, by_condition.get(short_name(told.name))) for told in needed)
    used = {one.override_sha256 for one in conditions}
    overrides = {digest: entry for digest, entry in grounds.overrides.items() if digest in used}
    return GateDecision(judgement, conditions, needed, overrides)


def short_name(name: str) -> str:
    """A condition's name as the log holds it: long ones end in a hash of all of it."""
    if len(name) <= _NAME_CHARACTERS:
        return name
    return f"{name[: _NAME_CHARACTERS - 18]}… {sha256_hex(name.encode())[:16]}"


def first_difference(said: Sequence[Condition], found: Sequence[Condition]) -> str:
    """The first condition in which two gates differ, in words; empty where they say the same.

    Names, verdicts and excuses are compared to the letter, bounds to a millionth.
    """
    for one, other in zip(said, found, strict=False):
        if one.name != other.name:
            return f"where {one.name!r} stands, {other.name!r} follows"
        if one.verdict != other.verdict:
            return f"{one.name!r} is said to be {one.verdict}, and {other.verdict} follows"
        if (one.exempt, one.override_sha256) != (other.exempt, other.override_sha256):
            return f"{one.name!r} is excused otherwise than agreed and logged"
        if not (_near(one.low, other.low) and _near(one.high, other.high)):
            return f"{one.name!r} has another interval than follows"
    if len(said) != len(found):
        return f"there are {len(said)} conditions, and {len(found)} follow"
    return ""


def _condition(told: Judgement, override: str | None) -> Condition:
    """One line of the log; an override of what passes or fails is none."""
    estimate = told.estimate
    if told.outcome != "inconclusive":
        override = None
    return Condition(
        name=short_name(told.name),
        verdict=told.outcome,
        exempt=told.exempt and told.outcome == "inconclusive",
        override_sha256=override,
        low=None if estimate is None else real(estimate.low),
        high=None if estimate is None else real(estimate.high),
    )


def _near(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(float.fromhex(one) - float.fromhex(other)) <= _SAME
