"""Logs of a simulated league: in memory or in a folder, and what an auditor gets of them."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType

from hansa.agreement import Agreement
from hansa.canonical import canonical_hash
from hansa.errors import PrivacyParameterError
from hansa.ledger import (
    InMemoryWitness,
    Log,
    LogStore,
    LogView,
    MemoryLogStore,
    SignedEntry,
    SqliteLogStore,
    SqliteWitness,
    VerifierKey,
    WitnessMemory,
    officer_of,
    utc,
)
from hansa.ledger.budgets import granted, records_of
from hansa.ledger.errors import NoBudgetError
from hansa.privacy.book import BudgetBook
from hansa.privacy.composition import rule_for
from hansa.privacy.distributed import losses
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.records import Grant, Limit, new_dataset_id
from hansa.quorum import threshold
from hansa_client.federation_log import FederationLog
from hansa_client.ledger import MemberLedger, Software
from hansa_client.mirror import Mirror
from hansa_client.node_file import LEDGER
from hansa_client.recording import LedgerRecords
from hansa_simulations.identities import Identities

RNG = "AES-256 in counter mode, a fresh key from the operating system for each step"
LEDGER_FILE = LEDGER
_SOFTWARE = ("hansa", "torch", "opacus", "numpy", "dp-accounting")


@dataclass
class MemberStores:
    """Where one simulated member keeps its log, its copy of the federation's, and its memory as a witness."""

    log: LogStore = field(default_factory=MemoryLogStore)
    mirror: LogStore = field(default_factory=MemoryLogStore)
    witness: WitnessMemory = field(default_factory=InMemoryWitness)


@contextmanager
def stores_in(folder: Path, run: str) -> Iterator[MemberStores]:
    """The stores of one member in its folder; the federation's log is one for each run.

    Raises:
        LogStoreError: another process has them, or they cannot be used.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        log = _opened(folder / LEDGER_FILE)
        stack.callback(log.close)
        mirror = _opened(folder / f"federation-{run}.sqlite")
        stack.callback(mirror.close)
        path = folder / f"witness-{run}.sqlite"
        witness = SqliteWitness(path) if path.exists() else SqliteWitness.create(path)
        stack.callback(witness.close)
        yield MemberStores(log, mirror, witness)


def require_ledgers(home: Path, names: Iterable[str]) -> None:
    """Refuse a home in which a member's ledger is gone and other files of the member remember an earlier run.

    Args:
        home: of all members.
        names: of those that take part.

    Raises:
        NoBudgetError: a new grant in its place would forget what was spent.
    """
    for name in names:
        folder = home / name
        left = next(
            (path for path in (folder / "sums", *sorted(folder.glob("*.sqlite*"))) if path.exists()), None
        )
        if left is not None and not (folder / LEDGER_FILE).exists():
            raise NoBudgetError(
                f"the ledger of {name!r} is gone from {folder}, and {left.name} of an earlier run is there: a new grant "
                "would forget what was spent",
                remedy=f"Put {LEDGER_FILE} back, or name another --members-home.",
            )


def _opened(path: Path) -> SqliteLogStore:
    return SqliteLogStore(path) if path.exists() else SqliteLogStore.create(path)


def records_in(
    stores: MemberStores,
    agreement: Agreement,
    name: str,
    identities: Identities,
    federation_log: VerifierKey,
    *,
    fresh: bool = True,
) -> LedgerRecords:
    """The records of a simulated member, over its stores.

    A log that is new is begun with a grant: the simulated privacy officer allows what the agreement asks for, once.

    Args:
        fresh: whether this is a process of the member's own, which must be shown the federation's log anew.
    """
    ledger = ledger_in(stores, name, identities)
    if not ledger.books:
        ledger.grant(_grant(agreement, name, identities))
    ledger.sign_agreement(
        agreement.agreement_id,
        terms_id=agreement.terms_id,
        roster_sha256=identities.roster.sha256,
        witness_key=identities.witness_keys[name],
    )
    federation = FederationLog(
        federation_log,
        identities.witness_keys,
        threshold(len(agreement.terms.members)),
        identities.keyring(agreement.agreement_id),
    )
    mirror = Mirror(stores.mirror, federation, ledger.own, identities.witness_signer(name), stores.witness)
    nonce = (lambda: secrets.token_hex(16)) if fresh else (lambda: None)
    return LedgerRecords(agreement, ledger, mirror, RNG, nonce, federation_log)


def ledger_in(stores: MemberStores, name: str, identities: Identities) -> MemberLedger:
    """The ledger of a simulated member, over its stores."""
    versions = software()
    return MemberLedger(
        Log(stores.log, identities.log_signer(name)),
        identities.signer(name),
        identities.officer_keys[name],
        Software(versions, canonical_hash(dict(versions))),
    )


def book_of(log: LogView) -> BudgetBook:
    """The budget that a member's log makes, for reading."""
    entries = (SignedEntry.parse(data).entry for data in log.entries())
    return BudgetBook.replay(records_of(entries))


@cache
def software() -> Mapping[str, str]:
    """Versions of what makes a release, read once a process."""
    versions = {package: importlib.metadata.version(package) for package in _SOFTWARE}
    return MappingProxyType({"python": platform.python_version(), **versions})


def _noise_of(agreement: Agreement) -> float:
    noise = agreement.require_frozen().noise_multiplier
    if noise is None:
        raise PrivacyParameterError("a frozen agreement that promises privacy names its noise")
    return noise


def _grant(agreement: Agreement, name: str, identities: Identities) -> SignedEntry:
    privacy = agreement.terms.privacy
    if privacy.epsilon is None or privacy.delta is None:
        raise PrivacyParameterError("an agreement without epsilon and delta has no budget")
    loss = PrivacyLoss(privacy.epsilon, privacy.delta)
    rule = rule_for(loss)
    grant = Grant(new_dataset_id(), Limit(loss, rule))
    if privacy.mechanism == "distributed":
        # the agreement's ε is the one against few; everyone together faces a share of the noise alone
        cost = losses(agreement.terms, _noise_of(agreement)).epsilon_any
        everyone = Limit(PrivacyLoss(cost, privacy.delta), rule)
        grant = Grant(grant.dataset, everyone, Limit(loss, rule), privacy.colluding)
    entry = granted(
        grant,
        member=name,
        unit=privacy.unit,
        max_records_per_unit=privacy.max_records_per_unit,
        at=utc(datetime.now(UTC)),
        reason="simulated: what the first agreement asks for",
    )
    return SignedEntry.sign(entry, identities.signer(officer_of(name)))
