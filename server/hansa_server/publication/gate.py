"""The gate at the coordinator: an evaluation is decided on, members recompute and sign it, and it stands in the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa.fairness.evaluated import Evaluated
from hansa.gate.approving import evaluation_of
from hansa.gate.deciding import GateDecision, Grounds, decide
from hansa.gate.overriding import Person, override_of, require_override
from hansa.gate.record import RunRecord, read_run
from hansa.identity import Signer
from hansa.ledger import Evaluation, Gate, SignedEntry, read_entry
from hansa.protocol.approval import MANIFEST
from hansa_server.publication.approvals import Approvals


@dataclass(frozen=True)
class Excuse:
    """A named person's word about a condition that could not be judged, given before there is a gate.

    Attributes:
        condition: as the gate will name it.
        person: who speaks, and why.
        signer: the key of the member or the coordinator for whom the person speaks.
    """

    condition: str
    person: Person
    signer: Signer


@dataclass(frozen=True)
class Judged:
    """A gate that stands in the log.

    Attributes:
        gate: the entry with its approvals.
        decision: what it says.
        evaluated: on which evaluation.
        record: of the run, as the log shows it.
        manifest: of the evaluation's round.
    """

    gate: SignedEntry
    decision: GateDecision
    evaluated: Evaluated
    record: RunRecord
    manifest: bytes

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Members that recomputed it."""
        members = self.record.spent
        return tuple(one.signer for one in self.gate.statements if one.signer in members)


def judge_evaluation(
    approvals: Approvals,
    evaluated: Evaluated,
    manifest: bytes,
    excuses: Sequence[Excuse] = (),
    overrides: Sequence[SignedEntry] = (),
) -> Judged:
    """Decide on an evaluation, have the decision approved, and log it.

    Args:
        approvals: of the members.
        evaluated: in the log already.
        manifest: of its round.
        excuses: of named persons, signed here.
        overrides: of named persons, signed by their parties after the gate had closed. Both are logged first.

    Guarantees: what is logged was recomputed from the noisy sums by a quorum of members; a closed gate is logged as well.

    Raises:
        OverrideError: an excuse or an override is of no condition that is inconclusive, or an override of another file.
        ApprovalError: too few members come to the same decision, or show that they saw the log.
    """
    agreement, history = approvals.agreement, approvals.history
    entry = _entry_of(approvals, evaluated)
    _log_overrides(approvals, evaluated, entry, excuses, overrides)
    approvals.shown()
    record = run_record(approvals)
    decision = decide(agreement.terms, Grounds.of(record, agreement.terms, evaluated))
    proposed = decision.entry(
        history.now(), agreement.agreement_id, approvals.run, evaluated.artifact_sha256, entry.sha256
    )
    proposed = kept_entry(approvals, f"gate/{entry.sha256}/{len(decision.overrides)}", proposed)
    evaluation_of(proposed, record, agreement, manifest)  # what members would refuse is not asked of them
    signed = approvals.of(proposed, {MANIFEST: manifest}, history.sign(proposed))
    history.record(signed)
    approvals.shown()
    return Judged(signed, decision, evaluated, run_record(approvals), manifest)


def run_record(approvals: Approvals) -> RunRecord:
    """The run as the federation's log shows it now."""
    entries = (read_entry(data).entry for data in approvals.history.log.entries())
    return read_run(entries, approvals.agreement.terms, approvals.agreement.agreement_id, approvals.run)


def kept_entry(approvals: Approvals, key: str, entry: Gate) -> Gate:
    """The entry as it was proposed the first time: a run that is called again asks for the same signature."""
    text = approvals.journal.once(f"{approvals.run}/{key}", entry.data.decode)
    return Gate.model_validate_json(text)


def _entry_of(approvals: Approvals, evaluated: Evaluated) -> Evaluation:
    found = [one for one in run_record(approvals).evaluations.values() if one.number == evaluated.number]
    return found[-1]


def _log_overrides(
    approvals: Approvals,
    evaluated: Evaluated,
    entry: Evaluation,
    excuses: Sequence[Excuse],
    overrides: Sequence[SignedEntry],
) -> None:
    if not (excuses or overrides):
        return
    terms, history = approvals.agreement.terms, approvals.history
    decision = decide(terms, Grounds.of(run_record(approvals), terms, evaluated))
    gate = decision.entry(history.now(), entry.agreement_id, entry.run, entry.artifact_sha256, entry.sha256)
    needless = {one.name for one in decision.conditions if one.verdict == "pass"}
    made = [
        SignedEntry.sign(
            override_of(gate, one.condition, one.signer.name, one.person, history.now()), one.signer
        )
        for one in excuses
        if one.condition not in needless
    ]
    for signed in (*overrides, *made):
        require_override(signed, gate)
        history.record(signed)
