"""Gates decided anew: whether each gate and each publication in the log is what follows from the sums before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from hansa.audit.copies import RecordSource
from hansa.audit.findings import FEDERATION, RECORDS, Failure, Notebook
from hansa.audit.integrity import Examined
from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.identity import Statement
from hansa.ledger.kinds import Kind
from hansa.ledger.outcomes import Aggregate, Evaluation, Gate, Publication
from hansa.ledger.signed import SignedEntry
from hansa.privacy.charges import EVALUATION
from hansa.secagg.record import RoundRecord

if TYPE_CHECKING:
    from hansa.agreement import Agreement

Manifests: TypeAlias = Mapping[tuple[str, int], bytes]  # by run and round
_WHAT = "whether gates and publications are what follows from the noisy sums"


def check_gates(
    federation: Examined, records: RecordSource | None, agreement: Agreement | None, notebook: Notebook
) -> None:
    """Decide every gate of the agreement anew, from what stands before it in the log.

    Args:
        federation: its log.
        records: of rounds, which hold the manifests that say which file was judged.
        agreement: whose conditions they are; without it nothing is decided.
        notebook: is told.
    """
    if not {"gate", "publication"} & set(federation.facts.types):
        return
    if agreement is None:
        notebook.not_checked(_WHAT, "no agreement was given: pass the frozen one with --agreement")
        return
    if records is None:
        notebook.not_checked(_WHAT, f"no {RECORDS} was given, and its manifests say which file was judged")
        return
    entries = [SignedEntry.parse(data).entry for data in _good(federation)]
    for index, problem in decided_anew(entries, agreement, _manifests(entries, records)):
        entry = entries[index]
        if problem:
            notebook.failed(Failure(FEDERATION, index, entry.type, problem, federation.place))
            return
        notebook.passed(f"{entry.type}s that follow from the noisy sums, decided anew")


def decided_anew(
    entries: Sequence[Kind], agreement: Agreement, manifests: Manifests
) -> Iterator[tuple[int, str]]:
    """The places of an agreement's gates and publications, and what is wrong with each; nothing where all is well.

    Args:
        entries: of the federation's log, verified elsewhere.
        agreement: frozen.
        manifests: of the rounds of evaluations.
    """
    # numpy and the accountant, which the rest of an audit loads only where it needs them
    from hansa.artifact.contents import MODEL
    from hansa.gate.approving import check_gate, check_publication
    from hansa.gate.record import read_run

    evaluations = {one.sha256: one for one in entries if isinstance(one, Evaluation)}
    for index, entry in enumerate(entries):
        if not isinstance(entry, Gate | Publication) or entry.agreement_id != agreement.agreement_id:
            continue
        record = read_run(entries[:index], agreement.terms, agreement.agreement_id, entry.run)
        try:
            if isinstance(entry, Gate):
                judged = evaluations.get(entry.evaluation_sha256)
                place = (entry.run, 0 if judged is None else judged.round)
                check_gate(entry, agreement, record, manifests.get(place, b""))
            else:
                check_publication(entry, agreement, record, model_file=MODEL, recomputed={})
        except HansaError as error:
            yield index, error.cause
        else:
            yield index, ""


def _good(federation: Examined) -> Iterator[bytes]:
    for index, data in enumerate(federation.copy.lying()):
        if index == federation.size:
            return
        yield data


def _manifests(entries: Sequence[Kind], records: RecordSource) -> dict[tuple[str, int], bytes]:
    """The manifests that the records of evaluations' rounds hold; each record is the one that the log names by its hash."""
    named = {
        one.record_sha256: (one.run, one.round)
        for one in entries
        if isinstance(one, Aggregate) and one.purpose == EVALUATION
    }
    found = {}
    for line in records.lines():
        place = named.get(sha256_hex(line))
        if place is None:
            continue
        try:
            found[place] = Statement.parse(RoundRecord.model_validate_json(line).manifest).data
        except (ValidationError, HansaError):
            continue  # `hansa.audit.rounds` says what is wrong with it
    return found
