"""What a simulated run tells of its private evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hansa.agreement import Agreement
from hansa.fairness.agreed import rules_of
from hansa.fairness.evaluated import Evaluated
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import Charge
from hansa.report import EvaluationCost, FairnessReport
from hansa.report.evaluated import evaluation_report
from hansa_server.federation import Outcome

Reserved = Mapping[str, "tuple[Charge, bool] | None"]


def told_of(
    agreement: Agreement, evaluated: Sequence[Evaluated], outcome: Outcome, reserved: Reserved
) -> FairnessReport | None:
    """The part of a report about evaluations.

    Args:
        agreement: frozen.
        evaluated: the evaluations that took place.
        outcome: of the run.
        reserved: by member, what its own log reserved for evaluations, and whether of units that never train.

    Returns:
        `None` where the agreement has no evaluation.
    """
    terms = agreement.terms
    if terms.evaluation is None or terms.privacy.delta is None:
        return None
    why = outcome.not_concluded or outcome.stopped_because
    known = {name: one for name, one in reserved.items() if one is not None}
    costs = [_cost(name, charge, terms.privacy.delta) for name, (charge, _) in known.items()]
    apart = bool(known) and all(apart for _, apart in known.values())
    told = [
        evaluation_report(
            one,
            terms.fairness.metric,
            rules_of(terms),
            costs,
            delta=terms.privacy.delta,
            units=terms.evaluation.units,
            composition="parallel" if apart else "added",
        )
        for one in evaluated
    ]
    return FairnessReport(
        evaluations=tuple(told), not_evaluated=None if told else why or "none was asked for"
    )


def _cost(name: str, charge: Charge, delta: float) -> EvaluationCost:
    few = epsilon_spent([charge.against(charge.coalition)], delta) if charge.shared is not None else None
    return EvaluationCost(
        member=name, epsilon=epsilon_spent([charge.against(None)], delta), epsilon_colluding=few
    )
