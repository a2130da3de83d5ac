"""A signed entry in a file of its own, as people send it: a statement line for each signature, all over the same bytes.

The bytes that are signed are those of the entry in a log, so that the signature counts in both places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hansa.errors import WireError
from hansa.identity.files import read_statements
from hansa.identity.statement import Statement
from hansa.ledger.errors import EntryError
from hansa.ledger.kinds import parse_entry
from hansa.ledger.signed import SignedEntry


def entry_lines(signed: SignedEntry) -> str:
    """An entry as its file holds it."""
    return "".join(f"{statement.line}\n" for statement in signed.statements)


def entry_of(statements: Sequence[Statement]) -> SignedEntry:
    """The entry that statements sign; nothing is verified.

    Args:
        statements: at least one.

    Raises:
        EntryError: they sign no entry, or not one and the same.
    """
    ordered = sorted(statements, key=lambda statement: statement.signer)
    return SignedEntry(parse_entry(ordered[0].data), tuple(ordered))


def read_entry(path: Path) -> SignedEntry:
    """Read the file of an entry; nothing is verified.

    Raises:
        UsageError: it cannot be read.
        EntryError: it is not the file of an entry.
    """
    try:
        return entry_of(read_statements(path))
    except EntryError as error:
        raise EntryError(f"{path}: {error.cause}") from None
    except WireError as error:  # no line of it is a statement
        raise EntryError(error.cause) from None
