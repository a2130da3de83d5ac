"""The sums of a run, recomputed from the masked vectors that members sent, as the run's journal keeps them.

Whoever has the coordinator's folder of a run checks with it that no sum was another than what was sent: each record holds the signed
hashes of the vectors and the opened seeds, the journal holds the vectors.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from hansa.agreement import Agreement
from hansa.errors import EngineError, WireError
from hansa.identity import Roster, Statement
from hansa.protocol import bundle_of_reply, sum_terms
from hansa.secagg import MaskWorkers, follows, verify_sum
from hansa.secagg.bundle import unbundle
from hansa.secagg.errors import SumVerificationError
from hansa.secagg.messages import SIGNED, VECTOR, Masked
from hansa.secagg.record import RoundRecord
from hansa.secagg.ring import RingVector
from hansa.wire import Message
from hansa_server.coordinating import RECORDS
from hansa_server.sqlite_journal import KeptReplies, read_replies

Sent: TypeAlias = dict[tuple[int, str], KeptReplies]  # by round and member


def recompute(agreement: Agreement, roster: Roster, folder: Path, run: str) -> int:
    """Recompute each sum that a run has put on record.

    Args:
        agreement: frozen.
        roster: the keys in force.
        folder: of the run.
        run: its name.

    Returns:
        How many they are.

    Raises:
        SumVerificationError: a record does not prove its sum, or does not follow from the one before, or a vector was not kept.
        EngineError: the records or the journal cannot be read.
    """
    records = _records(folder / RECORDS)
    sent: Sent = _sent(folder, run) if records else {}
    terms, previous = sum_terms(agreement, roster), None
    with MaskWorkers() as workers:
        for record in records:
            if record.run != run:
                raise SumVerificationError(f"a record of run {record.run!r} lies with run {run!r}")
            follows(record, previous)
            verify_sum(terms, record, partial(_vector, sent, record.round), workers=workers)
            previous = record
    return len(records)


def _records(path: Path) -> list[RoundRecord]:
    try:
        return [RoundRecord.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError:
        raise EngineError(f"{path} holds a line that is no record of a sum") from None


def _sent(folder: Path, run: str) -> Sent:
    """Where each masked vector lies; of one that was sent again, the first, which is what was summed."""
    found: Sent = {}
    for replies in read_replies(folder, f"{run}/exchange/"):
        for member, message in replies.items():
            for part in _parts(message):
                number = _round_of(part)
                if number is not None:
                    found.setdefault((number, member), replies)
    return found


def _parts(message: Message) -> list[Message]:
    try:
        return unbundle(bundle_of_reply(message))
    except WireError:
        return []  # a refusal, or rubbish that the coordinator passed over too


def _round_of(part: Message) -> int | None:
    """The round that a masked vector is of; `None` of what is none, or is not the vector that its statement names."""
    if part.kind != Masked.purpose_name:
        return None
    try:
        said = Masked.model_validate_json(Statement.parse(part.text(SIGNED)).data)
    except (WireError, ValidationError):
        return None
    return said.round if part.array_hashes.get(VECTOR) == said.y_sha256 else None


def _vector(sent: Sent, number: int, member: str) -> RingVector:
    parts = _parts(sent[number, member][member]) if (number, member) in sent else []
    for part in parts:
        if _round_of(part) == number:
            return part.arrays[VECTOR]
    raise EngineError(f"the journal does not hold the vector of {member!r} in round {number}")
