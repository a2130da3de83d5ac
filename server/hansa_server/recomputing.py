"""The sums of a run, recomputed from the masked vectors that members sent, as the run's journal keeps them.

Whoever has the coordinator's folder of a run checks with it that each sum on record is that of the vectors that were signed: a record
holds the signed hashes of the vectors and the opened seeds, the journal holds the vectors, and the federation's log says which sums
there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from hansa.agreement import Agreement
from hansa.errors import EngineError, WireError
from hansa.identity import Roster, Statement
from hansa.ledger import Aggregate, LogView, SignedEntry, SqliteLogStore
from hansa.protocol import bundle_of_reply, sum_terms
from hansa.secagg import MaskWorkers, SumTerms, follows, verify_sum
from hansa.secagg.bundle import unbundle
from hansa.secagg.errors import SumVerificationError
from hansa.secagg.messages import SIGNED, VECTOR, Masked
from hansa.secagg.record import RoundRecord
from hansa.secagg.ring import RingVector
from hansa.wire import Message
from hansa_server.coordinating import RECORDS
from hansa_server.home import CoordinatorHome
from hansa_server.sqlite_journal import JournalReader

Signed: TypeAlias = tuple[int, str, str]  # round, member, SHA-256 of its masked vector
Lies: TypeAlias = Mapping[Signed, str]  # under which key of the journal


def recompute(
    agreement: Agreement, rosters: Iterable[Roster], folder: Path, run: str, logged: Mapping[int, str] | None
) -> int:
    """Recompute each sum that a run has put on record.

    Args:
        agreement: frozen.
        rosters: the keys that were in force at some time: those of the agreement, and those after each amendment.
        folder: of the run.
        run: its name.
        logged: SHA-256 of each sum by round, as the federation's log has them; `None` where there is no log.

    Returns:
        How many they are.

    Raises:
        SumVerificationError: a record is missing, does not prove its sum, is not the one that was logged, or does not follow from the one
            before; or a vector was not kept.
        EngineError: the records or the journal cannot be read.
    """
    records = _records(folder / RECORDS)
    _all_there(records, logged)
    if not records:
        return 0
    terms = {one.sha256: one for one in (sum_terms(agreement, roster) for roster in rosters)}
    with closing(JournalReader(folder)) as journal, MaskWorkers() as workers:
        lies, previous = _lies(journal, run), None
        for record in records:
            if record.run != run:
                raise SumVerificationError(f"a record of run {record.run!r} lies with run {run!r}")
            follows(record, previous)
            found = _terms_of(record, terms)
            verify_sum(found, record, partial(_vector, journal, lies, record), workers=workers)
            previous = record
    return len(records)


def logged_sums(home: CoordinatorHome, run: str) -> dict[int, str] | None:
    """SHA-256 of each sum of a run by round, as the federation's log has them; `None` under an agreement that keeps no log."""
    if not home.agreement.terms.private:
        return None
    with closing(SqliteLogStore(home.log, read_only=True)) as store:
        entries = [SignedEntry.parse(data).entry for data in LogView(store).entries()]
    return {
        entry.round: entry.aggregate_sha256
        for entry in entries
        if isinstance(entry, Aggregate) and entry.run == run
    }


def _all_there(records: list[RoundRecord], logged: Mapping[int, str] | None) -> None:
    """A record is written before its sum is logged, so that the last one need not be logged yet."""
    if logged is None:
        return
    found = {record.round: record.aggregate_sha256 for record in records}
    if missing := sorted(set(logged) - set(found)):
        raise SumVerificationError(f"the log has a sum of round {missing[0]}, of which no record is kept")
    for record in records if len(found) == len(logged) else records[:-1]:
        if logged.get(record.round) != record.aggregate_sha256:
            raise SumVerificationError(f"round {record.round}: the log has another sum, or none")


def _terms_of(record: RoundRecord, terms: Mapping[str, SumTerms]) -> SumTerms:
    if record.terms not in terms:
        raise SumVerificationError(
            f"round {record.round} was summed under terms that are not those of the agreement and its amendments"
        )
    return terms[record.terms]


def _records(path: Path) -> list[RoundRecord]:
    """The records; what a kill has left of a last line is none."""
    try:
        data = path.read_bytes()
        return [RoundRecord.model_validate_json(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError:
        raise EngineError(f"{path} holds a line that is no record of a sum") from None


def _lies(journal: JournalReader, run: str) -> Lies:
    """Where the vectors lie that came with a statement which names their hash; whoever signed it."""
    found = dict[Signed, str]()
    for key in journal.keys(f"{run}/exchange/"):
        for member, message in journal.replies(key).items():
            for part in _parts(message):
                said = _said(part)
                if said is not None and part.array_hashes.get(VECTOR) == said.y_sha256:
                    found[said.round, member, said.y_sha256] = key
    return found


def _parts(message: Message) -> list[Message]:
    try:
        return unbundle(bundle_of_reply(message))
    except WireError:
        return []  # a refusal, or rubbish that the coordinator passed over too


def _said(part: Message) -> Masked | None:
    if part.kind != Masked.purpose_name:
        return None
    try:
        return Masked.model_validate_json(Statement.parse(part.text(SIGNED)).data)
    except (WireError, ValidationError):
        return None


def _vector(journal: JournalReader, lies: Lies, record: RoundRecord, member: str) -> RingVector:
    """The vector that a member's signed statement in a record names; the statements have been checked."""
    said = {statement.signer: statement for statement in map(Statement.parse, record.masked)}
    named = Masked.model_validate_json(said[member].data).y_sha256
    key = lies.get((record.round, member, named))
    for part in [] if key is None else _parts(journal.replies(key)[member]):
        if part.kind == Masked.purpose_name and part.array_hashes.get(VECTOR) == named:
            vector: RingVector = part.arrays[VECTOR]
            return vector
    raise SumVerificationError(f"the journal does not hold the vector of {member!r} in round {record.round}")
