"""The ledger of a member as its home keeps it: opened with the node's own keys, for commands and for the node itself."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hansa.canonical import canonical_hash
from hansa.ledger import Log, LogStore, SqliteLogStore
from hansa.ledger.errors import NoBudgetError
from hansa_client.ledger import MemberLedger, Software
from hansa_client.node_file import NodeHome

_RELEASES_WITH = ("hansa", "torch", "opacus", "numpy", "dp-accounting")


def opening(home: NodeHome) -> Callable[[LogStore], MemberLedger]:
    """How a ledger of this member is opened, wherever it lies.

    Raises:
        NodeFileError, RosterError: the home is no member's, or holds no card of its officer.
        KeyFileError: a private key is missing or readable by others.
    """
    signer, officer, log_signer = home.signer(), home.officer(), home.log_signer()
    versions = _installed()
    software = Software(versions, canonical_hash(dict(versions)))

    def opened(store: LogStore) -> MemberLedger:
        log = Log(store, log_signer)
        return MemberLedger(log, signer, officer.public_key, software, former_keys=home.settings.former_keys)

    return opened


@contextmanager
def store_of(home: NodeHome, *, begin: bool = False) -> Iterator[SqliteLogStore]:
    """The file of a member's ledger, which nobody else writes meanwhile.

    Args:
        home: of the node.
        begin: whether one that is not there is begun. One that was lost is begun anew only to be recovered.

    Raises:
        NoBudgetError: there is none, and it is not to be begun.
        LogStoreError: it is in use, or cannot be used.
    """
    path = home.ledger
    _require_there(home, begin=begin)
    with closing(SqliteLogStore(path) if path.exists() else SqliteLogStore.create(path)) as store:
        yield store


@contextmanager
def ledger_of(home: NodeHome, *, begin: bool = False) -> Iterator[MemberLedger]:
    """A member's ledger, to write; see `opening` and `store_of`, and `MemberLedger` for what is verified."""
    opened = opening(home)
    with store_of(home, begin=begin) as store:
        yield opened(store)


@contextmanager
def ledger_to_read(home: NodeHome) -> Iterator[MemberLedger]:
    """A member's ledger as it is now, also beside the node that writes it; see `ledger_of`. Nothing can be written."""
    opened = opening(home)
    _require_there(home, begin=False)
    with closing(SqliteLogStore(home.ledger, read_only=True)) as store:
        yield opened(store)


def lost_ledger(home: NodeHome) -> Path | None:
    """What shows that a home without a ledger had one: a file that only a ledger leaves behind; `None` where nothing does.

    Raises:
        NodeFileError: the home is no member's.
    """
    path = home.ledger
    if path.exists():
        return None
    beside = [path.with_name(path.name + end) for end in (".lock", "-wal", "-shm", "-journal")]
    return next((left for left in (*beside, home.recovery_nonce) if left.exists()), None)


def _require_there(home: NodeHome, *, begin: bool) -> None:
    if begin or home.ledger.exists():
        return
    left = lost_ledger(home)
    if left is not None:
        raise NoBudgetError(
            f"there is no ledger at {home.ledger}, and there was one: {left.name} is still there",
            remedy=f"{_put_back(home)} A new grant would be a second budget for the same data.",
        )
    raise NoBudgetError(
        f"there is no ledger at {home.ledger}: nothing was granted yet, or it was lost",
        remedy=f"If nothing ever was, have the privacy officer grant a budget: hansa node grant --home {home.folder} "
        f"--officer-key FILE. If it was lost: {_put_back(home)}",
    )


def _put_back(home: NodeHome) -> str:
    return (
        f"Put the kept grant back (hansa node grant --home {home.folder} --signed FILE), "
        f"then rebuild upon it (hansa node recover --home {home.folder})."
    )


def _installed() -> dict[str, str]:
    """With what a release would be made; the base install makes none."""
    found = {"python": platform.python_version()}
    for package in _RELEASES_WITH:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
