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
    agreement: Agreement,
    evaluated: Sequence[tuple[Evaluated, Reserved]],
    outcome: Outcome,
    not_later: str | None = None,
) -> FairnessReport | None:
    """The part of a report about evaluations.

    Args:
        agreement: frozen.
        evaluated: the evaluations that took place, with what each member's own log reserved for evaluations in the run of
            that one, and whether of units that never train.
        outcome: of the run.
        not_later: why one on later records did not take place, where it was asked for.

    Returns:
        `None` where the agreement has no evaluation.
    """
    terms = agreement.terms
    if terms.evaluation is None or terms.privacy.delta is None:
        return None
    why = outcome.not_concluded or outcome.stopped_because
    told = []
    for one, reserved in evaluated:
        known = {name: held for name, held in reserved.items() if held is not None}
        apart = bool(known) and all(apart for _, apart in known.values())
        told.append(
            evaluation_report(
                one,
                terms.fairness.metric,
                rules_of(terms),
                [_cost(name, charge, terms.privacy.delta) for name, (charge, _) in known.items()],
                delta=terms.privacy.delta,
                units=terms.evaluation.units,
                composition="parallel" if apart else "added",
            )
        )
    return FairnessReport(
        evaluations=tuple(told), not_evaluated=not_later if told else why or "none was asked for"
    )


def _cost(name: str, charge: Charge, delta: float) -> EvaluationCost:
    few = epsilon_spent([charge.against(charge.coalition)], delta) if charge.shared is not None else None
    return EvaluationCost(
        member=name, epsilon=epsilon_spent([charge.against(None)], delta), epsilon_colluding=few
    )
