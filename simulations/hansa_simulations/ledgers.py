"""Logs of a simulated league: in memory or in a folder, and what an auditor gets of them."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType

from hansa.agreement import Agreement
from hansa.canonical import canonical_hash
from hansa.errors import PrivacyParameterError
from hansa.fairness.agreed import run_charges
from hansa.ledger import (
    BudgetGranted,
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
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.book import BudgetBook
from hansa.privacy.charges import Charge
from hansa.privacy.composition import FixedInAdvance, Rule, rule_for
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
_SIMULATED = "simulated: what the first agreement asks for"
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
        for grant in _grants(agreement, name, identities):
            ledger.grant(grant)
    training, held_out = _datasets(agreement, ledger)
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
    return LedgerRecords(
        agreement,
        ledger,
        mirror,
        RNG,
        nonce,
        federation_log,
        training_units=training,
        evaluation_units=held_out,
    )


def ledger_in(stores: MemberStores, name: str, identities: Identities) -> MemberLedger:
    """The ledger of a simulated member, over its stores."""
    versions = software()
    return MemberLedger(
        Log(stores.log, identities.log_signer(name)),
        identities.signer(name),
        identities.officer_keys[name],
        Software(versions, canonical_hash(dict(versions))),
    )


def book_of(log: LogView, place: int = 0) -> BudgetBook:
    """A budget that a member's log makes, for reading.

    Args:
        log: of the member.
        place: of the budget among those that were granted: 0 is that of the units that train.
    """
    entries = (SignedEntry.parse(data).entry for data in log.entries())
    return BudgetBook.replay(records_of(entries, granted_in(log)[place]))


def granted_in(log: LogView) -> list[str]:
    """The datasets for which budgets were granted, in order."""
    entries = (SignedEntry.parse(data).entry for data in log.entries())
    return [entry.dataset_id for entry in entries if isinstance(entry, BudgetGranted)]


def _datasets(agreement: Agreement, ledger: MemberLedger) -> tuple[str, str | None]:
    """The datasets of the units that train, and of those that are held out, where there are two.

    Raises:
        NoBudgetError: the ledger is of units that were shared out otherwise, so that neither limit would hold for its units.
    """
    wanted = _reason(agreement)
    reasons = {grant.reason for grant in ledger.grants.values()}
    if wanted == _SIMULATED:  # an officer's own grant is as good, where all units train
        reasons = {reason for reason in reasons if reason.startswith(_SIMULATED)}
    if reasons - {wanted}:
        raise NoBudgetError(
            f"the budget of {ledger.member!r} was granted for units that are shared out otherwise between training and "
            "evaluations",
            remedy="Name another --members-home, or an agreement with the same [evaluation] units, share and key.",
        )
    first, *more = ledger.grants
    return first, next(iter(more), None)


def _reason(agreement: Agreement) -> str:
    evaluation = agreement.terms.evaluation
    if evaluation is None or evaluation.units != "held-out":
        return _SIMULATED
    rule = f"{evaluation.share:g} of the units, by the key {evaluation.key}, evaluate and never train"
    if agreement.terms.privacy.unit != "record":
        return f"{_SIMULATED}; {rule}"
    # records are told apart by what is read of them
    return f"{_SIMULATED}; {rule}, as records of the data {canonical_hash(agreement.terms.data.tree())[:16]}"


@cache
def software() -> Mapping[str, str]:
    """Versions of what makes a release, read once a process."""
    versions = {package: importlib.metadata.version(package) for package in _SOFTWARE}
    return MappingProxyType({"python": platform.python_version(), **versions})


def _grants(agreement: Agreement, name: str, identities: Identities) -> Iterator[SignedEntry]:
    """What the agreement asks for: of the units that train, and of those that are held out for evaluations."""
    terms = agreement.terms
    charged = run_charges(agreement, apart=True)
    added = terms.evaluation is not None and not charged.evaluation
    first = _granting(agreement, charged.training, None if added else terms.privacy.epsilon)
    yield _signed(agreement, first, name, identities)
    if charged.evaluation and terms.evaluation is not None:
        # number and noise of all tables are fixed by the agreement, in whichever run they are made
        rule = FixedInAdvance() if terms.evaluation.evaluations > 1 else None
        second = _granting(agreement, charged.evaluation, terms.evaluation.epsilon, (first.dataset,), rule)
        yield _signed(agreement, second, name, identities)


def _granting(
    agreement: Agreement,
    charges: Sequence[Charge],
    epsilon: float | None,
    apart: tuple[str, ...] = (),
    rule: Rule | None = None,
) -> Grant:
    """Limits that admit these charges: the agreement's ε where it names one for them alone, else what they come to."""
    privacy = agreement.terms.privacy
    delta = privacy.delta
    if delta is None:
        raise PrivacyParameterError("an agreement without epsilon and delta has no budget")

    def limit(coalition: int | None) -> PrivacyLoss:
        return PrivacyLoss(epsilon_spent([c.against(coalition) for c in charges], delta), delta)

    shared = privacy.mechanism == "distributed"
    loss = limit(privacy.colluding if shared else None) if epsilon is None else PrivacyLoss(epsilon, delta)
    rule, dataset = rule or rule_for(loss), new_dataset_id()
    if not shared:
        return Grant(dataset, Limit(loss, rule), disjoint_from=apart)
    # the agreement's ε is the one against few; everyone together faces a share of the noise alone
    return Grant(dataset, Limit(limit(None), rule), Limit(loss, rule), privacy.colluding, apart)


def _signed(agreement: Agreement, grant: Grant, name: str, identities: Identities) -> SignedEntry:
    privacy = agreement.terms.privacy
    entry = granted(
        grant,
        member=name,
        unit=privacy.unit,
        max_records_per_unit=privacy.max_records_per_unit,
        at=utc(datetime.now(UTC)),
        reason=_reason(agreement),
    )
    return SignedEntry.sign(entry, identities.signer(officer_of(name)))
