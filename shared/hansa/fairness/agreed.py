"""The conditions, the rules and the evaluations that an agreement states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.agreement.conditions import (
    AllOfTerm,
    AnyOfTerm,
    AttackTerm,
    EpsilonTerm,
    GapTerm,
    GroupLossTerm,
    LossTerm,
    MembersTerm,
    UnsafeNoGateTerm,
    UtilityTerm,
)
from hansa.fairness.composition import And, Or, UnsafeNoGate
from hansa.fairness.conditions import (
    AttackWithinClaim,
    EpsilonAtMost,
    GapAtMost,
    GroupLossAtMost,
    LossAtMost,
    MembersAtLeast,
    UtilityAtLeast,
    WorstGroupAtLeast,
)
from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import Condition, Rules
from hansa.fairness.layout import TableLayout
from hansa.fairness.release import EvaluationPlan
from hansa.privacy.charges import Charge, charges_of

if TYPE_CHECKING:
    from hansa.agreement.conditions import ConditionTerm
    from hansa.agreement.document import Agreement
    from hansa.agreement.terms import Terms
    from hansa.fairness.metrics import Metric


def conditions_of(terms: Terms) -> Condition:
    """All conditions that an agreement states, or `UnsafeNoGate` where it states none.

    Wherever the agreement promises privacy, ε and members are conditions too: at most the ε that is agreed, and at least
    `min_members`.
    """
    fairness, publication = terms.fairness, terms.publication
    attributes = [group.name for group in terms.data.groups]
    metric: Metric = fairness.metric
    found: list[Condition] = []
    if publication.min_quality is not None:
        found.append(UtilityAtLeast(metric, publication.min_quality))
    if fairness.max_gap is not None:
        found += [GapAtMost(metric, name, fairness.max_gap) for name in attributes]
    if fairness.min_worst_group is not None:
        found += [WorstGroupAtLeast(metric, name, fairness.min_worst_group) for name in attributes]
    if publication.max_quality_loss is not None:
        found.append(LossAtMost(metric, publication.max_quality_loss))
        found += [GroupLossAtMost(metric, name, publication.max_quality_loss) for name in attributes]
    for term in publication.conditions:
        found += _conditions(term, terms)
    if terms.private and terms.privacy.epsilon is not None:
        found += [EpsilonAtMost(agreed_epsilon(terms)), MembersAtLeast(terms.secure_sum.min_members)]
    return And(*dict.fromkeys(found)) if found else UnsafeNoGate()


def _conditions(term: ConditionTerm, terms: Terms) -> Iterator[Condition]:
    """The conditions that one table states: one, or one for each attribute."""
    if isinstance(term, AllOfTerm | AnyOfTerm):
        parts = [part for one in term.conditions for part in _together(one, terms)]
        yield And(*parts) if isinstance(term, AllOfTerm) else Or(*parts)
    elif isinstance(term, EpsilonTerm):
        yield EpsilonAtMost(term.at_most)
    elif isinstance(term, MembersTerm):
        yield MembersAtLeast(term.at_least)
    elif isinstance(term, AttackTerm):
        yield AttackWithinClaim()
    elif isinstance(term, UnsafeNoGateTerm):
        yield UnsafeNoGate()
    else:
        metric: Metric = term.metric or terms.fairness.metric
        if isinstance(term, UtilityTerm):
            yield UtilityAtLeast(metric, term.at_least)
        elif isinstance(term, LossTerm):
            yield LossAtMost(metric, term.at_most)
        else:
            every = [group.name for group in terms.data.groups]
            for name in every if term.attribute is None else [term.attribute]:
                if isinstance(term, GapTerm):
                    yield GapAtMost(metric, name, term.at_most)
                elif isinstance(term, GroupLossTerm):
                    yield GroupLossAtMost(metric, name, term.at_most)
                else:
                    yield WorstGroupAtLeast(metric, name, term.at_least)


def _together(term: ConditionTerm, terms: Terms) -> Iterator[Condition]:
    """As one condition, so that "each attribute" in a list of alternatives is all of them."""
    parts = list(_conditions(term, terms))
    yield parts[0] if len(parts) == 1 else And(*parts)


def agreed_epsilon(terms: Terms) -> float:
    """The ε that a unit may lose in a run, training and evaluations.

    Nobody is in both where evaluation units are held out of training: then it is the larger of the two, else their sum.
    """
    trained = terms.privacy.epsilon or 0.0
    if terms.evaluation is None:
        return trained
    if terms.evaluation.units == "held-out":
        return max(trained, terms.evaluation.epsilon)
    return trained + terms.evaluation.epsilon


def rules_of(terms: Terms) -> Rules:
    """The rules that an agreement states."""
    evaluation = terms.evaluation
    return Rules(
        error=terms.publication.error,
        evaluations=1 if evaluation is None else evaluation.evaluations,
        liars=0 if evaluation is None else evaluation.liars,
        smallest_group=terms.fairness.min_group_size,
        exempt=frozenset(terms.fairness.exempt),
    )


def plan_of(agreement: Agreement) -> EvaluationPlan:
    """All public numbers of the evaluations that a frozen agreement allows.

    Raises:
        AgreementError: it is not frozen.
        EvaluationError: it has no `[evaluation]`.
    """
    terms, noise = agreement.terms, agreement.require_frozen().evaluation_noise_multiplier
    if terms.evaluation is None or noise is None:
        raise EvaluationError(
            "the agreement has no private evaluation",
            remedy="Agree on an [evaluation] section, before training.",
        )
    return plan_with(terms, noise)


def plan_with(terms: Terms, noise_multiplier: float) -> EvaluationPlan:
    """The same for terms that are not frozen yet, with the noise that freezing would find.

    Raises:
        EvaluationError: they have no `[evaluation]`.
    """
    if terms.evaluation is None:
        raise EvaluationError("the agreement has no private evaluation")
    shared = terms.privacy.mechanism == "distributed"
    return EvaluationPlan(
        TableLayout.of(terms),
        noise_multiplier,
        terms.evaluation.max_rows_per_cell,
        evaluations=terms.charged_evaluations,
        honest=terms.smallest_sum - terms.privacy.colluding if shared else 1,
        colluding=terms.privacy.colluding if shared else 0,
    )


@dataclass(frozen=True)
class RunCharges:
    """What a whole run costs a member at most, by the units that it is spent of.

    Attributes:
        training: of the units that train; with evaluations where the two add up.
        evaluation: of the units that are held out for evaluations; empty where there are none.
    """

    training: tuple[Charge, ...]
    evaluation: tuple[Charge, ...] = ()


def run_charges(agreement: Agreement, *, apart: bool) -> RunCharges:
    """What a run under a frozen agreement reserves.

    Args:
        agreement: frozen, with a privacy mechanism.
        apart: whether the member has a budget of its own for the units that are held out. Where it has not, and wherever
            units evaluate that may train too, evaluations are charged with training.

    Raises:
        PrivacyParameterError: the agreement claims no privacy.
    """
    terms, noise = agreement.terms, agreement.require_frozen().noise_multiplier
    training = charges_of(terms, 0.0 if noise is None else noise)
    if terms.evaluation is None:
        return RunCharges(training)
    judged = plan_of(agreement).charge()
    if apart and terms.evaluation.units == "held-out":
        return RunCharges(training, (judged,))
    return RunCharges((*training, judged))
