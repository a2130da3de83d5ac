"""A member's approval of a gate and of a publication: it signs what it has recomputed itself, and nothing else.

What it recomputes from is its own copy of the federation's log, which holds the noisy sums, and the agreement that it has
signed. The coordinator is believed in nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

from hansa.agreement import Agreement
from hansa.artifact import contents
from hansa.artifact.contents import FairnessTable, GateEvidence, Part, PrivacyStatement
from hansa.artifact.judged import fairness_table, same_table
from hansa.canonical import sha256_hex
from hansa.gate.approving import check_gate, check_publication, evaluation_of
from hansa.gate.deciding import Grounds, decide
from hansa.gate.errors import GateMismatchError
from hansa.gate.record import RunRecord, read_run
from hansa.identity import Signer
from hansa.ledger import Gate, Publication, SignedEntry
from hansa.ledger.kinds import parse_entry
from hansa.ledger.signed import statement_of
from hansa.protocol import Proposed
from hansa.protocol.approval import MANIFEST

CHECKED = (contents.FAIRNESS, contents.GATE, contents.PRIVACY_JSON)  # documents that a member recomputes
_SAME_EPSILON = 1e-3  # two releases of the accountant's libraries may differ in the last digits

_Part = TypeVar("_Part", bound=Part)


class Approver:
    """Approves entries of one agreement for one member.

    Args:
        agreement: frozen.
        signer: the member's key.

    Guarantees: it signs a gate only if the gate follows from the noisy sums and the log, and a publication only of a file
        whose open gate its own copy of the log shows; of a run it approves one publication while the process lives, and
        none once the log shows one.
    Leaks: that it has approved, or refused.
    """

    def __init__(self, agreement: Agreement, signer: Signer) -> None:
        self._agreement, self._signer = agreement, signer
        self._published: dict[str, str] = {}  # hash of the publication that was approved, by run

    def approve(self, run: str, proposed: Proposed, logged: Sequence[bytes]) -> bytes:
        """Sign an entry that is proposed.

        Args:
            run: that it is asked for.
            proposed: the entry, and the documents that it names.
            logged: the entries of the federation's log, as this member has mirrored and verified them.

        Returns:
            The signature.

        Raises:
            GateMismatchError: it is not what this member has recomputed.
            EntryError: it is no entry.
        """
        entry = parse_entry(proposed.entry)
        signed = [SignedEntry.parse(data) for data in logged]
        record = read_run(
            (one.entry for one in signed), self._agreement.terms, self._agreement.agreement_id, run
        )
        if isinstance(entry, Gate):
            check_gate(entry, self._agreement, record, proposed.documents.get(MANIFEST, b""))
        elif isinstance(entry, Publication):
            self._check(entry, record, proposed.documents, {one.encoded for one in signed})
        else:
            raise GateMismatchError(f"members do not approve entries of type {entry.type!r}")
        return statement_of(entry, self._signer).signature

    def _check(
        self, entry: Publication, record: RunRecord, documents: Mapping[str, bytes], logged: set[bytes]
    ) -> None:
        missing = sorted({*CHECKED} - documents.keys())
        if missing:
            raise GateMismatchError(f"{', '.join(missing)} is not shown")
        hashes = {name: sha256_hex(data) for name, data in documents.items()}
        gate = check_publication(entry, self._agreement, record, model_file=contents.MODEL, recomputed=hashes)
        before = self._published.setdefault(record.run, entry.sha256)
        if before != entry.sha256:
            raise GateMismatchError("another publication of this run was approved before")
        _check_documents(self._agreement, record, gate, documents, logged)


def _check_documents(
    agreement: Agreement,
    record: RunRecord,
    gate: Gate,
    documents: Mapping[str, bytes],
    logged: set[bytes],
) -> None:
    terms = agreement.terms
    evidence = _read(documents, contents.GATE, GateEvidence)
    evaluated = evaluation_of(gate, record, agreement, evidence.manifest.encode())
    decision = decide(terms, Grounds.of(record, terms, evaluated))
    wanted = fairness_table(terms, evaluated.tables, decision, gate.artifact_sha256)
    if not same_table(_read(documents, contents.FAIRNESS, FairnessTable), wanted):
        raise GateMismatchError(f"{contents.FAIRNESS} is not the quality that follows from the noisy sums")
    if evidence.smallest_sum != record.fewest or any(
        text.encode() not in logged for text in evidence.entries
    ):
        raise GateMismatchError(f"{contents.GATE} holds what the log does not show")
    privacy = _read(documents, contents.PRIVACY_JSON, PrivacyStatement)
    epsilons = record.epsilons(terms)
    stated = {loss.member: loss.epsilon for loss in privacy.losses}
    if stated.keys() != epsilons.keys() or any(
        not abs(stated[name] - epsilons[name]) <= _SAME_EPSILON * max(1.0, epsilons[name]) for name in stated
    ):
        raise GateMismatchError(f"{contents.PRIVACY_JSON} states another ε than follows from the log")


def _read(documents: Mapping[str, bytes], name: str, kind: type[_Part]) -> _Part:
    try:
        return kind.model_validate_json(documents[name])
    except ValidationError:
        raise GateMismatchError(f"{name} is not in its form") from None
