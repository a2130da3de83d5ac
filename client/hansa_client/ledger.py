"""A member's own log: what it was granted, what it signed, and all that it ever spent.

The budget is this log and nothing else: it is replayed when the log is opened, and a spend is on disk before the call
that makes it returns. An order of calls:

    grant → sign_agreement → reserve, once for a run → (may_release → release, once for a round)* → close
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from hansa.canonical import sha256_hex
from hansa.errors import BudgetRefusedError
from hansa.identity import Signer
from hansa.ledger import (
    AttackMade,
    BudgetGranted,
    BudgetReader,
    Log,
    Override,
    SignedEntry,
    SignedNote,
    VerifierKey,
    read_entry,
)
from hansa.ledger.budgets import Step, closed, released, require_unit, reserved
from hansa.ledger.errors import EntryError, NoBudgetError
from hansa.ledger.kinds import Kind
from hansa.privacy import records
from hansa.privacy.book import BudgetBook
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend
from hansa.privacy.records import Grant, Record
from hansa_client.own_log import OwnLog
from hansa_client.protection import Protection


@dataclass(frozen=True)
class Software:
    """With what a member makes its releases.

    Attributes:
        versions: by package.
        lock_sha256: of the file that pins all packages.
    """

    versions: Mapping[str, str]
    lock_sha256: str


@dataclass
class _Account:
    """One dataset: what was granted, the book, and how entries are read as its records."""

    granted: BudgetGranted
    reader: BudgetReader
    book: BudgetBook


class MemberLedger:
    """The log of one member, and the budgets that it makes.

    Args:
        log: the member's own; all of it is read, hashed and verified before anything is written.
        signer: the member's key, which rosters pin.
        officer_key: the pinned public key of its privacy officer, who alone grants budgets.
        software: see `Software`.
        clock: what time it is.
        dataset_id: which of the granted datasets this node trains on; by default the one that was granted last.
        former_keys: public keys under which the member signed before an amendment replaced them.

    Raises:
        LogDamagedError: entries and hashes differ.
        LogVerificationError: an entry is not this member's, is not signed, or cannot be read; says which.
        BudgetRecordError: the spends do not follow from each other, or exceed a limit.

    Guarantees: what `reserve`, `release` and `close` return is on disk; no release is recorded beyond its reservation,
        and no reservation beyond a limit that the officer granted.
    Assumes: one object per log at a time, which the store's lock enforces; a copy that was put back in its place is
        found by `hansa_client.mirror`, not here.
    """

    def __init__(
        self,
        log: Log,
        signer: Signer,
        officer_key: str,
        software: Software,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        dataset_id: str | None = None,
        former_keys: Sequence[str] = (),
    ) -> None:
        self._own = OwnLog(log, signer, officer_key, clock, former_keys)
        self._software = software
        self._chosen = dataset_id
        self._accounts: dict[str, _Account] = {}
        self._next: SignedEntry | None = None  # what the book is about to have stored
        self._replay()

    # --- what is written ---------------------------------------------------------------------------------------

    def grant(self, signed: SignedEntry) -> None:
        """Take a budget that the privacy officer has granted; the same grant again changes nothing.

        Raises:
            EntryError: it is no grant, or not for this member.
            UnknownSignerError, SignatureError: the officer has not signed it.
            BudgetRefusedError: the dataset has a budget already.
            PrivacyParameterError: no agreement could use it.
        """
        if not isinstance(signed.entry, BudgetGranted):
            raise EntryError(f"a {signed.entry.type} is no grant of a budget")
        self._own.verify(signed)
        dataset = signed.entry.dataset_id
        if self.holds(signed.encoded):
            return
        require_unit(signed.entry.unit, signed.entry.max_records_per_unit)
        if dataset in self._accounts:
            raise BudgetRefusedError(
                f"dataset {dataset[:12]} has a budget already, for its whole life",
                remedy="Grant another budget for a new dataset id: over the same units the two add up.",
            )
        reader = BudgetReader(dataset)
        record = reader.read(signed.entry)
        if not isinstance(record, Grant):
            raise EntryError("a grant grants nothing")
        self._own.append(signed)
        self._open(signed.entry, reader, [record])

    def sign_agreement(
        self, agreement_id: str, *, terms_id: str, roster_sha256: str, witness_key: VerifierKey
    ) -> SignedEntry:
        """Sign a frozen agreement, with the keys that are the member's own; once.

        Args:
            agreement_id, terms_id, roster_sha256: of what the member has compared.
            witness_key: under which it cosigns the federation's log.

        Raises:
            EntryError: it was signed before, with other terms or keys.
        """
        return self._own.sign_agreement(agreement_id, terms_id, roster_sha256, witness_key)

    def reserve(
        self,
        agreement_id: str,
        run: str,
        charges: Sequence[Charge],
        protection: Protection,
        federation_log: VerifierKey | None = None,
        dataset_id: str | None = None,
    ) -> SignedEntry:
        """Reserve the worst case of a whole run; the same reservation again changes nothing.

        A run reserves once of each dataset that it spends of.

        Args:
            agreement_id: of an agreement that was signed here.
            run: its name.
            charges: what it may release at most, retries included.
            protection: what the agreement protects.
            federation_log: that has to show what the run releases, where the agreement has more than one.
            dataset_id: of which dataset; by default of the one that this node trains on.

        Raises:
            NoBudgetError: nothing was granted for the data.
            BudgetExceededError: a limit would not hold; says what was asked for, what remains and what would fit.
            BudgetRefusedError: the agreement is not signed here or protects something else than was granted for, or
                the run holds another reservation or was closed.
            PrivacyParameterError: there is nothing to reserve, or no guarantee can be stated.
            LogStoreError: it cannot be stored.
        """
        kinds = [charge.kind for charge in charges]
        account = (
            self._account(dataset_id) if dataset_id else self._account_of(run, *kinds) or self._account()
        )
        if self._own.signed_at(agreement_id) is None:
            raise BudgetRefusedError(
                f"agreement {agreement_id[:12]} is not signed in this member's ledger",
                remedy="Sign the agreement first.",
            )
        granted = Protection.granted(account.granted)
        if protection != granted:
            raise BudgetRefusedError(
                f"the agreement protects a {protection}; the budget was granted for a {granted}",
                remedy="Agree on what was granted for, or have the officer grant for another dataset id.",
            )
        book, before = account.book, self._own.reserved(run, account.granted.dataset_id)
        if before is None:
            record = records.Reservation(run, agreement_id, tuple(charges))
            log = None if federation_log is None else federation_log.text
            entry = reserved(account.granted, record, at=self._own.now(), federation_log=log)
            return self._through(entry, lambda: book.reserve(run, charges, agreement_id))
        book.reserve(run, charges, agreement_id)  # nothing, or a refusal
        return before

    def may_release(self, run: str, kind: str, count: int, round_number: int | None = None) -> None:
        """Ask, before any work, whether a release could be recorded.

        Args:
            run, kind, count: what would be released.
            round_number: in which round, where that is known.

        Raises:
            BudgetRefusedError: it could not: nothing is reserved for it, or too little is left of that.
            LogStoreError: the log could not be written before.
        """
        self._own.require_sound()
        account = self._account_of(run, kind) or self._account_of(run)
        if account is None:
            raise BudgetRefusedError(f"run {run[:12]} has no open reservation")
        if round_number is not None:
            self._require_later(run, round_number)
        account.book.may_confirm(run, str(round_number or 0), count, kind)

    def release(
        self,
        agreement_id: str,
        run: str,
        *,
        round_number: int,
        step: int,
        purpose: str,
        spend: Spend,
        y_sha256: str,
        manifest_sha256: str,
        rng: str,
    ) -> SignedEntry:
        """Record a release before its first byte leaves. What was recorded once is never recorded again.

        Args:
            agreement_id, run: under which reservation.
            round_number: of the secure sum; above all that the run has released in.
            step: what of the purpose is summed.
            purpose: of the charge.
            spend: the event that was reserved for it, against everyone, and how often it happens.
            y_sha256: of the masked vector as it is sent.
            manifest_sha256: of the signed manifest that asks for it.
            rng: where noise and sampling came from.

        Raises:
            BudgetRefusedError: it is not covered by what was reserved.
            EntryError: an entry cannot say that.
            LogStoreError: it cannot be stored; nothing may leave.
        """
        account = self._account_of(run, purpose) or self._account_of(run)
        held = None if account is None else account.book.reservation(run)
        if account is None or held is None or held.agreement != agreement_id:
            raise BudgetRefusedError(f"run {run[:12]} reserved nothing under this agreement")
        self._require_later(run, round_number)
        charge = next((charge for charge in held.charges if charge.kind == purpose), None)
        if charge is None or dict(charge.event) != dict(spend.event):
            raise BudgetRefusedError(f"run {run[:12]} reserved no such event for {purpose}")
        record = records.Confirmation(run, str(round_number), purpose, spend.count)
        book = account.book
        book.may_confirm(run, record.step, record.count, purpose)
        entry = released(
            account.granted,
            agreement_id,
            record,
            charge,
            step=step,
            at=self._own.now(),
            y_sha256=y_sha256,
            manifest_sha256=manifest_sha256,
            software=dict(self._software.versions),
            lock_sha256=self._software.lock_sha256,
            rng=rng,
        )
        return self._through(entry, lambda: book.confirm(run, record.step, record.count, purpose))

    def close(self, agreement_id: str, run: str) -> SignedEntry | None:
        """End a run: what it reserved and did not release is free again, as far as the rule allows.

        Returns:
            The entry of the first dataset that it reserved of; the one that is there already if the run was closed; `None`
            if nothing was reserved.

        Raises:
            BudgetRefusedError: the run is another agreement's.
            LogStoreError: it cannot be stored.
        """
        return self._close(agreement_id, run, in_full=False)

    def forfeit(self, agreement_id: str, run: str) -> SignedEntry | None:
        """End a run and count all that it reserved as released, where nobody can tell any more what was.

        Returns, raises: as `close`.
        """
        return self._close(agreement_id, run, in_full=True)

    def record_attack(self, entry: AttackMade) -> SignedEntry:
        """Sign what an attack on the member's own trainer came to. It spends nothing: no unit of the member was in it.

        Raises:
            EntryError: it is another member's, or of an agreement that is not signed here.
            LogStoreError: it cannot be stored.
        """
        if entry.member != self.member or self._own.signed_at(entry.agreement_id) is None:
            raise EntryError(
                f"an attack of {entry.member!r} under agreement {entry.agreement_id[:12]} is not this member's to record"
            )
        return self._own.append(SignedEntry.sign(entry, self._own.signer))

    def record_override(self, entry: Override) -> SignedEntry:
        """Sign what a person of the member says about a condition of a gate; the same condition again changes nothing.

        Returns:
            The entry; the earlier one, where the member has excused this condition of this file before.

        Raises:
            EntryError: it is another party's, or of an agreement that is not signed here.
            LogStoreError: it cannot be stored.
        """
        if entry.party != self.member or self._own.signed_at(entry.agreement_id) is None:
            raise EntryError(
                f"an override of {entry.party!r} under agreement {entry.agreement_id[:12]} is not this member's to record"
            )
        about = (entry.run, entry.artifact_sha256, entry.condition)
        for signed in map(read_entry, self._own.log.entries()):
            said = signed.entry
            if isinstance(said, Override) and (said.run, said.artifact_sha256, said.condition) == about:
                return signed
        later = entry.model_copy(update={"at": self._own.now()})
        return self._own.append(SignedEntry.sign(later, self._own.signer))

    def checkpoint(self, *extensions: str) -> SignedNote:
        """Sign the log as it is now; a log that is set back behind its checkpoint does not open again."""
        self._own.require_sound()
        return self._own.log.checkpoint(*extensions)

    # --- what it says ------------------------------------------------------------------------------------------

    @property
    def member(self) -> str:
        """Whose log it is."""
        return self._own.member

    @property
    def own(self) -> OwnLog:
        """The entries, for reading."""
        return self._own

    @property
    def log(self) -> Log:
        """The log itself, for reading."""
        return self._own.log

    @property
    def granted(self) -> BudgetGranted:
        """The grant for the data that this node trains on.

        Raises:
            NoBudgetError: there is none.
        """
        return self._account().granted

    @property
    def dataset_id(self) -> str:
        """Of these data; see `granted`."""
        return self.granted.dataset_id

    @property
    def book(self) -> BudgetBook:
        """The budget of these data, for reading; see `granted`."""
        return self._account().book

    @property
    def grants(self) -> Mapping[str, BudgetGranted]:
        """What was ever granted, by dataset."""
        return {dataset: account.granted for dataset, account in self._accounts.items()}

    @property
    def books(self) -> Mapping[str, BudgetBook]:
        """The budgets of all datasets that were ever granted, for reading."""
        return {dataset: account.book for dataset, account in self._accounts.items()}

    def holds(self, data: bytes) -> bool:
        """Whether the very bytes of an entry stand in this log."""
        return self.place_of(data) is not None

    def reserves(self, run: str, kind: str) -> bool:
        """Whether a run has reserved releases of a kind, of any dataset."""
        held = (account.book.reservation(run) for account in self._accounts_of(run))
        return any(charge.kind == kind for one in held if one is not None for charge in one.charges)

    def place_of(self, data: bytes) -> int | None:
        """Where the very bytes of an entry stand in this log."""
        return self._own.place_of(sha256_hex(data))

    def entries_of(self, run: str) -> tuple[bytes, ...]:
        """See `OwnLog.entries_of`."""
        return self._own.entries_of(run)

    def runs(self) -> tuple[str, ...]:
        """See `OwnLog.runs`."""
        return self._own.runs()

    # --- within ------------------------------------------------------------------------------------------------

    def _replay(self) -> None:
        readers: dict[str, tuple[BudgetGranted, BudgetReader, list[Record]]] = {}
        for place, entry in self._own.replay():
            if isinstance(entry, BudgetGranted) and entry.dataset_id not in readers:
                readers[entry.dataset_id] = (entry, BudgetReader(entry.dataset_id), [])
            with self._own.told(place):
                if isinstance(entry, Step) and entry.dataset_id not in {None, *readers}:
                    raise EntryError(f"a {entry.type} is of a dataset for which nothing was granted before")
                for _, reader, found in readers.values():
                    record = reader.read(entry)
                    if record is not None:
                        found.append(record)
        for granted, reader, found in readers.values():
            self._open(granted, reader, found)

    def _open(self, granted: BudgetGranted, reader: BudgetReader, found: Sequence[Record]) -> None:
        book = BudgetBook.replay(found, partial(self._store, reader))
        self._accounts[granted.dataset_id] = _Account(granted, reader, book)

    def _close(self, agreement_id: str, run: str, *, in_full: bool) -> SignedEntry | None:
        ended = [
            self._close_one(account, agreement_id, run, in_full=in_full) for account in self._accounts_of(run)
        ]
        return next(iter(ended), None)

    def _close_one(self, account: _Account, agreement_id: str, run: str, *, in_full: bool) -> SignedEntry:
        held = account.book.reservation(run)
        if held is None or held.agreement != agreement_id:
            raise BudgetRefusedError(f"run {run[:12]} reserved nothing under this agreement")
        before = self._own.closed(run, account.granted.dataset_id)
        if before is not None:
            return before
        book = account.book
        left = {
            charge.kind: charge.count if in_full else book.released(run, charge.kind)
            for charge in held.charges
        }
        entry = closed(account.granted, agreement_id, records.Close(run, left), at=self._own.now())
        return self._through(entry, lambda: book.close(run, left))

    def _through(self, entry: Kind, act: Callable[[], None]) -> SignedEntry:
        """Have the book take a step whose record is stored as this entry."""
        self._own.require_sound()
        signed = self._next = SignedEntry.sign(entry, self._own.signer)
        try:
            act()
        finally:
            self._next = None
        return signed

    def _store(self, reader: BudgetReader, record: Record) -> None:
        if self._next is None or reader.read(self._next.entry) != record:
            raise EntryError("an entry does not say what the budget is to hold")
        self._own.append(self._next)

    def _require_later(self, run: str, round_number: int) -> None:
        last = self._own.last_round(run)
        if round_number <= last:
            raise BudgetRefusedError(
                f"run {run[:12]} has released in round {last}, and not again in {round_number}"
            )

    def _account(self, dataset_id: str | None = None) -> _Account:
        chosen = dataset_id or self._chosen or next(reversed(self._accounts), None)
        account = None if chosen is None else self._accounts.get(chosen)
        if account is None:
            what = "its data" if chosen is None else f"dataset {chosen[:12]}"
            raise NoBudgetError(f"{self.member!r} has no budget for {what}: nothing can be reserved")
        return account

    def _accounts_of(self, run: str) -> list[_Account]:
        """Those of which a run has reserved, in the order of their grants."""
        return [account for account in self._accounts.values() if account.book.reservation(run) is not None]

    def _account_of(self, run: str, *kinds: str) -> _Account | None:
        """The first of which a run has reserved, of these kinds or of any."""
        for account in self._accounts_of(run):
            held = account.book.reservation(run)
            if held is not None and (not kinds or {charge.kind for charge in held.charges} & {*kinds}):
                return account
        return None
