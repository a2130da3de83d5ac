"""What the conditions of an agreement could decide, before anybody trains: from its public numbers alone.

A condition that not even the best model could pass, on as many records as the members declare and with the agreed noise, would
spend ε on an evaluation and block whatever came. It is told when the agreement is checked and frozen.
"""

from __future__ import annotations

from dataclasses import dataclass

from hansa.agreement.terms import Terms
from hansa.errors import Problem
from hansa.fairness.agreed import agreed_epsilon, conditions_of, plan_with, rules_of
from hansa.fairness.errors import EvaluationError, UndecidableError
from hansa.fairness.judging import Evidence, Judgement, judge
from hansa.fairness.power import Assumed, Decidability, decidability, expected_counts
from hansa.fairness.release import EvaluationPlan, NoisyTables, evaluation_noise

BEST = 0.999  # of AUC, or of the share decided rightly: no model is better
_PLENTY = 1e8  # records: with so many, noise and chance are no reason for anything
_SLACK = 0.98  # ε is calibrated to within this of what is agreed


@dataclass(frozen=True)
class Outlook:
    """What a league can decide.

    Attributes:
        records: evaluation records of all members together, as they follow from public numbers.
        quality: that was assumed.
        noise_multiplier: of an evaluation.
        parts: every condition that needs an evaluation, group by group.
    """

    records: float
    quality: float
    noise_multiplier: float
    parts: tuple[Decidability, ...]


def expected_records(terms: Terms) -> float | None:
    """How many records evaluate, all members together; `None` where no public number says so."""
    evaluation = terms.evaluation
    if evaluation is None or evaluation.share is None:
        return None
    return evaluation.share * sum(member.units for member in terms.members)


def outlook(
    terms: Terms, *, quality: float = 0.85, records: float | None = None, flips: float = 0.02
) -> Outlook | None:
    """What each condition would come to if the model were so good.

    Args:
        terms: of the agreement.
        quality: AUC of two labels, the share decided rightly of more.
        records: of all members; by default what the declared units and the held-out share lead to.
        flips: share of records on which the file that ships and the model before compression decide differently.

    Returns:
        `None` where nothing is evaluated, or nobody says on how many records.
    """
    records = expected_records(terms) if records is None else records
    if terms.evaluation is None or records is None:
        return None
    plan = _plan(terms)
    assumed = Assumed(records, quality, flips=flips)
    parts = decidability(conditions_of(terms), plan, len(terms.members), assumed, rules_of(terms))
    return Outlook(records, quality, plan.noise_multiplier, parts)


def never_passing(terms: Terms) -> tuple[Problem, ...]:
    """Every condition that the best model of all would not pass, with what stands in the way.

    Groups are taken as equally large, the file that ships as deciding like the model before compression, and every member as
    taking part. Attacks and conditions that the agreement exempts block nothing here. Where no public number says on how many
    records members judge, there are taken to be plenty.
    """
    if not terms.published or terms.evaluation is None:
        return ()
    records = expected_records(terms) or _PLENTY
    plan, members = _plan(terms), [member.name for member in terms.members]
    counts = expected_counts(plan.layout, Assumed(records, BEST, flips=0.0))
    tables = NoisyTables(plan.layout, counts, plan.noise_sd(len(members)), plan.cell_cap, len(members))
    spent = dict.fromkeys(members, _SLACK * agreed_epsilon(terms))
    judged = judge(conditions_of(terms), Evidence(tables, spent, len(members)), rules_of(terms))
    return tuple(
        Problem("publication", f"{told.name!r} can never pass: with the best model of all, {_said(told)}", "")
        for told in judged.needed()
        if not told.holds and not _of_an_attack(told)
    )


def require_decidable(terms: Terms) -> None:
    """Refuse an agreement whose gate can never open.

    Raises:
        UndecidableError: says which conditions, and why.
    """
    problems = never_passing(terms)
    if problems:
        raise UndecidableError("the gate of this agreement can never open", problems)


def _said(told: Judgement) -> str:
    return f"{told.sentence[0].lower()}{told.sentence[1:]}"


def _of_an_attack(told: Judgement) -> bool:
    """Whether it is open because nobody has attacked yet; alternatives are, if one of them is."""
    return any(leaf.limit is None and leaf.outcome == "inconclusive" for leaf in told.leaves())


def _plan(terms: Terms) -> EvaluationPlan:
    delta = terms.privacy.delta
    if terms.evaluation is None or delta is None:
        raise EvaluationError("an agreement without [evaluation], or without δ, decides nothing")
    noise = evaluation_noise(terms.evaluation.epsilon, delta, terms.charged_evaluations)
    return plan_with(terms, noise)
