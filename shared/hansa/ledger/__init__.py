"""Logs that show when they are changed: RFC 6962 trees over signed entries, cosigned by witnesses.

`Log` writes one, `Witness` cosigns its checkpoints, `LogPolicy` says whose word counts, `TlogProof` is a proof in a
file, `export_tiles` a log in a folder, and `verify_log` checks a whole copy. What lies in a log are `SignedEntry`s of
the types in `hansa.ledger.kinds`. Byte formats: docs/ledger-format.md.
"""

from hansa.ledger.attacks import AttackMade
from hansa.ledger.budgets import BudgetReader, records_of
from hansa.ledger.checkpoint import Checkpoint, LogPolicy, VerifiedCheckpoint
from hansa.ledger.entry import Entry, Spending, officer_of, real, real_value, utc
from hansa.ledger.kinds import parse_entry
from hansa.ledger.log import Log, LogView
from hansa.ledger.membership import AgreementSigned, AmendmentMade, Membership
from hansa.ledger.note import NoteSignature, NoteSigner, SignatureType, SignedNote, VerifierKey
from hansa.ledger.outcomes import Adaptation, Aggregate, Condition, Evaluation, Gate, Override, Publication
from hansa.ledger.proof import TlogProof
from hansa.ledger.signed import Agreed, Keyring, SignedEntry, read_entry, statement_of
from hansa.ledger.spends import (
    Abort,
    BudgetGranted,
    Charging,
    Release,
    Reservation,
    RunClosed,
)
from hansa.ledger.store import LogStore, MemoryLogStore, SqliteLogStore
from hansa.ledger.tiles import TileLog, TileSource, export_tiles
from hansa.ledger.trust import TrustedKeys
from hansa.ledger.verify import EntrySource, GivenEntries, StoredEntries, VerifiedLog, verify_log
from hansa.ledger.witness import InMemoryWitness, SqliteWitness, Witness, WitnessMemory

__all__ = [
    "Abort",
    "Adaptation",
    "Aggregate",
    "Agreed",
    "AgreementSigned",
    "AmendmentMade",
    "AttackMade",
    "BudgetGranted",
    "BudgetReader",
    "Charging",
    "Checkpoint",
    "Condition",
    "Entry",
    "EntrySource",
    "Evaluation",
    "Gate",
    "GivenEntries",
    "InMemoryWitness",
    "Keyring",
    "Log",
    "LogPolicy",
    "LogStore",
    "LogView",
    "Membership",
    "MemoryLogStore",
    "NoteSignature",
    "NoteSigner",
    "Override",
    "Publication",
    "Release",
    "Reservation",
    "RunClosed",
    "SignatureType",
    "SignedEntry",
    "SignedNote",
    "Spending",
    "SqliteLogStore",
    "SqliteWitness",
    "StoredEntries",
    "TileLog",
    "TileSource",
    "TlogProof",
    "TrustedKeys",
    "VerifiedCheckpoint",
    "VerifiedLog",
    "VerifierKey",
    "Witness",
    "WitnessMemory",
    "export_tiles",
    "officer_of",
    "parse_entry",
    "read_entry",
    "real",
    "real_value",
    "records_of",
    "statement_of",
    "utc",
    "verify_log",
]
