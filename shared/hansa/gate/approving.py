"""What a member checks before it signs: a gate against the sums and its own copy of the log, then the publication.

The coordinator proposes entries; a member recomputes what they should say and refuses what says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from hansa.agreement.terms import Terms
from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.fairness.release import EvaluationPlan, NoisyTables
from hansa.gate.deciding import GateDecision, Grounds, decide, same_conditions
from hansa.gate.errors import GateMismatchError
from hansa.gate.record import RunRecord
from hansa.ledger import Aggregate, Evaluation, Gate, Publication

Sums = npt.NDArray[np.int32]


def sums_sha256(total: Sums) -> str:
    """Hash of a decoded sum, as the log's aggregates hold it: little-endian int32."""
    return sha256_hex(np.ascontiguousarray(total, dtype="<i4").tobytes())


def tables_of(
    evaluation: Evaluation, aggregate: Aggregate, plan: EvaluationPlan, total: Sums
) -> NoisyTables:
    """The noisy tables of an evaluation, from a sum that the log names.

    Raises:
        GateMismatchError: it is another sum, or of another layout.
    """
    if aggregate.round != evaluation.round or aggregate.aggregate_sha256 != evaluation.aggregate_sha256:
        raise GateMismatchError("the evaluation names another sum than the log has in its round")
    if sums_sha256(total) != evaluation.aggregate_sha256:
        raise GateMismatchError("the sums are not those that the log names")
    try:
        return plan.read(total, len(aggregate.released))
    except ValueError as error:
        raise GateMismatchError(f"the sums are no evaluation of this agreement: {error}") from None


def evaluation_of(gate: Gate, record: RunRecord, terms: Terms) -> tuple[Evaluation, Aggregate]:
    """The evaluation that a gate rests on, and its sum's entry.

    Raises:
        GateMismatchError: it is not on record, of another file, or one more than the agreement allows.
    """
    evaluation = record.evaluations.get(gate.evaluation_sha256)
    if evaluation is None:
        raise GateMismatchError("the gate rests on an evaluation that the log does not show")
    if evaluation.artifact_sha256 != gate.artifact_sha256:
        raise GateMismatchError("the gate is about another file than was evaluated")
    require_allowed(record, terms)
    aggregate = record.tables.get(evaluation.round)
    if aggregate is None:
        raise GateMismatchError("the log has no sum in the round of the evaluation")
    return evaluation, aggregate


def require_allowed(record: RunRecord, terms: Terms) -> None:
    """Check that no more evaluations are on record than the error was divided among.

    Raises:
        GateMismatchError: there are more, by sums or by entries, or they are not numbered one after the other.
    """
    allowed = terms.publication.evaluations
    numbers = [entry.number for entry in record.evaluations.values()]
    if max(len(numbers), len(record.tables)) > allowed:
        raise GateMismatchError(
            f"{max(len(numbers), len(record.tables))} evaluations are on record, and the agreement fixed {allowed}"
        )
    if numbers != list(range(1, len(numbers) + 1)):
        raise GateMismatchError("the evaluations on record are not numbered one after the other")


def check_gate(
    gate: Gate, agreement_id: str, terms: Terms, record: RunRecord, plan: EvaluationPlan, total: Sums
) -> GateDecision:
    """Recompute a gate that is proposed.

    Args:
        gate: as proposed; nothing of it is believed.
        agreement_id: of the agreement that `terms` are of.
        terms: what was agreed before training.
        record: from the member's own copy of the federation's log.
        plan: of the evaluation, by the agreement.
        total: the noisy sum, int32 [layout.size], whose hash stands in the log.

    Returns:
        The decision, which is the gate's.

    Raises:
        GateMismatchError: it is not what follows; says what.
    """
    if (gate.agreement_id, gate.run) != (agreement_id, record.run):
        raise GateMismatchError("the gate is of another agreement or run")
    evaluation, aggregate = evaluation_of(gate, record, terms)
    tables = tables_of(evaluation, aggregate, plan, total)
    try:
        decision = decide(terms, Grounds.of(record, terms, tables, gate.artifact_sha256))
    except HansaError as error:
        raise GateMismatchError(f"the gate cannot be recomputed: {error.cause}") from error
    if (gate.decision == "open") is not decision.open:
        found = "open" if decision.open else "closed"
        raise GateMismatchError(f"the gate says {gate.decision}, and the sums say {found}")
    if not same_conditions(gate.conditions, decision.conditions):
        raise GateMismatchError("the gate's conditions are not those that follow from the sums")
    return decision


def check_publication(
    publication: Publication,
    agreement_id: str,
    terms: Terms,
    record: RunRecord,
    *,
    model_file: str,
    recomputed: Mapping[str, str],
) -> Gate:
    """Check a publication that is proposed.

    Args:
        publication: as proposed.
        agreement_id, terms: of the agreement.
        record: from the member's own copy of the log.
        model_file: the name of the file that was judged.
        recomputed: SHA-256 by name of the documents that the member has checked itself.

    Returns:
        The gate that it went through.

    Raises:
        GateMismatchError: the gate is closed or not on record, the file another one, or something was published before.
    """
    if (publication.agreement_id, publication.run) != (agreement_id, record.run):
        raise GateMismatchError("the publication is of another agreement or run")
    if record.publications:
        raise GateMismatchError("the log shows a publication of this run already")
    gate = record.gates.get(publication.gate_sha256)
    if gate is None:
        raise GateMismatchError("the publication names a gate that the log does not show")
    if gate.decision != "open":
        raise GateMismatchError("the gate that the publication names is closed")
    if publication.artifact_sha256 != gate.artifact_sha256:
        raise GateMismatchError("the publication is of another file than went through the gate")
    if publication.files.get(model_file) != gate.artifact_sha256:
        raise GateMismatchError("the model's file is not the one that went through the gate")
    wrong = [name for name, digest in recomputed.items() if publication.files.get(name) != digest]
    if wrong:
        raise GateMismatchError(f"{', '.join(sorted(wrong))} would be published otherwise than shown")
    if publication.steps != terms.publication.compress:
        raise GateMismatchError("the publication names other steps than the agreement")
    require_allowed(record, terms)
    return gate
