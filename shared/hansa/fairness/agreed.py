"""The conditions, the rules and the evaluations that an agreement states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.fairness.composition import And, UnsafeNoGate
from hansa.fairness.conditions import (
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
from hansa.fairness.metrics import Metric
from hansa.fairness.release import EvaluationPlan
from hansa.privacy.charges import Charge, charges_of

if TYPE_CHECKING:
    from hansa.agreement.document import Agreement
    from hansa.agreement.terms import Terms


def conditions_of(terms: Terms) -> Condition:
    """The conditions that an agreement states, or `UnsafeNoGate` where it states none.

    ε and members are conditions wherever the agreement promises privacy. An attack is none, as agreements do not ask for one.
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
    if terms.private and terms.privacy.epsilon is not None:
        found += [EpsilonAtMost(terms.privacy.epsilon), MembersAtLeast(terms.secure_sum.min_members)]
    return And(*found) if found else UnsafeNoGate()


def rules_of(terms: Terms, *, error: float = 0.05) -> Rules:
    """The rules that an agreement states.

    Args:
        terms: of the agreement.
        error: as in `Rules`; agreements do not state it.
    """
    evaluation = terms.evaluation
    return Rules(
        error=error,
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
    shared = terms.privacy.mechanism == "distributed"
    return EvaluationPlan(
        TableLayout.of(terms),
        noise,
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
