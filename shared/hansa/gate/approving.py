"""What a member checks before it signs: a gate against the sums and its own copy of the log, then the publication.

The coordinator proposes entries; a member recomputes what they should say and refuses what says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from hansa.agreement import Agreement
from hansa.agreement.terms import Terms
from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.fairness.evaluated import Evaluated
from hansa.gate.deciding import GateDecision, Grounds, decide, first_difference
from hansa.gate.errors import GateMismatchError
from hansa.gate.record import RunRecord
from hansa.ledger import Evaluation, Gate, Publication
from hansa.secagg.messages import Manifest


def evaluation_of(gate: Gate, record: RunRecord, agreement: Agreement, manifest: bytes) -> Evaluated:
    """The evaluation that a gate rests on, with the noisy sums that the log shows.

    Args:
        gate: names it.
        record: of the run.
        agreement: frozen.
        manifest: of its round, as members were asked: it names the files that they evaluated.

    Raises:
        GateMismatchError: it is not on record, of another file or sum, or one more than the agreement allows.
    """
    evaluation = record.evaluations.get(gate.evaluation_sha256)
    if evaluation is None:
        raise GateMismatchError("the gate rests on an evaluation that the log does not show")
    if evaluation.artifact_sha256 != gate.artifact_sha256:
        raise GateMismatchError("the gate is about another file than was evaluated")
    require_allowed(record, agreement.terms)
    aggregate = record.tables.get(evaluation.round)
    if aggregate is None:
        raise GateMismatchError("the log has no sum in the round of the evaluation")
    _require_evaluated(evaluation, record, agreement.terms, manifest)
    try:
        return Evaluated.logged(agreement, evaluation, aggregate)
    except HansaError as error:
        raise GateMismatchError(f"the evaluation is none of this agreement: {error.cause}") from error


def _require_evaluated(entry: Evaluation, record: RunRecord, terms: Terms, manifest: bytes) -> None:
    """Check that members evaluated the very file that an evaluation names: each release names the manifest it answers.

    Raises:
        GateMismatchError: they did not.
    """
    if record.manifests.get(entry.round) != frozenset([sha256_hex(manifest)]):
        raise GateMismatchError("the members' releases name another manifest than is shown")
    try:
        asked = Manifest.model_validate_json(manifest)
    except ValidationError:
        raise GateMismatchError("the manifest of the evaluation is none") from None
    files = (entry.artifact_sha256, *filter(None, [entry.reference_sha256]))
    if asked.artifacts != files or asked.step != terms.training.rounds + entry.number - 1:
        raise GateMismatchError("members were asked to evaluate another file than the evaluation names")


def require_allowed(record: RunRecord, terms: Terms) -> None:
    """Check that no more evaluations are on record than the error was divided among.

    Raises:
        GateMismatchError: there are more, by sums or by entries, or they are not numbered one after the other.
    """
    allowed = 0 if terms.evaluation is None else terms.evaluation.evaluations
    numbers = [entry.number for entry in record.evaluations.values()]
    if max(len(numbers), len(record.tables)) > allowed:
        raise GateMismatchError(
            f"{max(len(numbers), len(record.tables))} evaluations are on record, and the agreement fixed {allowed}"
        )
    if numbers != list(range(1, len(numbers) + 1)):
        raise GateMismatchError("the evaluations on record are not numbered one after the other")


def check_gate(gate: Gate, agreement: Agreement, record: RunRecord, manifest: bytes) -> GateDecision:
    """Recompute a gate that is proposed.

    Args:
        gate: as proposed; nothing of it is believed.
        agreement: frozen; what was agreed before training.
        record: from the member's own copy of the federation's log, noisy sums included.
        manifest: of the evaluation's round.

    Returns:
        The decision, which is the gate's.

    Raises:
        GateMismatchError: it is not what follows; says what.
    """
    if (gate.agreement_id, gate.run) != (agreement.agreement_id, record.run):
        raise GateMismatchError("the gate is of another agreement or run")
    evaluated = evaluation_of(gate, record, agreement, manifest)
    try:
        decision = decide(agreement.terms, Grounds.of(record, agreement.terms, evaluated))
    except HansaError as error:
        raise GateMismatchError(f"the gate cannot be recomputed: {error.cause}") from error
    if (gate.decision == "open") is not decision.open:
        found = "open" if decision.open else "closed"
        where = first_difference(gate.conditions, decision.conditions)
        raise GateMismatchError(
            f"the gate says {gate.decision}, and the sums say {found}" + (f": {where}" if where else "")
        )
    where = first_difference(gate.conditions, decision.conditions)
    if where:
        raise GateMismatchError(f"the gate's conditions are not those that follow from the sums: {where}")
    return decision


def check_publication(
    publication: Publication,
    agreement: Agreement,
    record: RunRecord,
    *,
    model_file: str,
    recomputed: Mapping[str, str],
) -> Gate:
    """Check a publication that is proposed.

    Args:
        publication: as proposed.
        agreement: frozen.
        record: from the member's own copy of the log.
        model_file: the name of the file that was judged.
        recomputed: SHA-256 by name of the documents that the member has checked itself.

    Returns:
        The gate that it went through.

    Raises:
        GateMismatchError: the gate is closed or not on record, the file another one, or something was published before.
    """
    if (publication.agreement_id, publication.run) != (agreement.agreement_id, record.run):
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
    if publication.steps != agreement.terms.publication.compress:
        raise GateMismatchError("the publication names other steps than the agreement")
    require_allowed(record, agreement.terms)
    return gate
