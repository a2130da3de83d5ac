"""A member's own log as a list of signed words: read and verified when it is opened, written one entry at a time.

What the entries mean for a budget is `hansa_client.ledger`'s to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.identity import Signer
from hansa.identity.errors import SignatureError
from hansa.identity.keys import verify
from hansa.ledger import (
    AgreementSigned,
    AttackMade,
    BudgetGranted,
    Keyring,
    Log,
    Release,
    Reservation,
    RunClosed,
    SignedEntry,
    VerifierKey,
    read_entry,
    utc,
)
from hansa.ledger.entry import PURPOSE, OfRun
from hansa.ledger.errors import ClockError, EntryError, LogStoreError, LogVerificationError
from hansa.ledger.kinds import Kind

CLOCK_SLACK = timedelta(minutes=5)  # by which a clock may be set back while a node runs


class OwnLog:
    """The log of one member. It is written once all of it was taken from `replay`.

    Args:
        log: where it lies.
        signer: the member's key, which rosters pin.
        officer_key: the pinned public key of its privacy officer, who alone grants budgets.
        clock: what time it is.
        former_keys: public keys under which the member signed before an amendment replaced them.

    Raises:
        LogDamagedError: entries and hashes differ.

    Guarantees: what `append` returns is on disk; after a write that failed nothing more is written.
    """

    def __init__(
        self,
        log: Log,
        signer: Signer,
        officer_key: str,
        clock: Callable[[], datetime],
        former_keys: Sequence[str] = (),
    ) -> None:
        log.check()
        self.log, self.signer, self.officer_key = log, signer, officer_key
        self._clock = clock
        self._keys = (signer.public_key, *former_keys)
        self._places: dict[str, int] = {}  # by SHA-256 of the logged bytes
        self._hashes: list[str] = []  # the same, by place
        self._agreements: dict[str, int] = {}
        self._runs: dict[str, list[int]] = {}
        self._agreement_of: dict[str, str] = {}
        self._reserved: dict[str, dict[str, int]] = {}  # by run and dataset
        self._closed: dict[str, dict[str, int]] = {}
        self._releases: dict[tuple[str, int], int] = {}
        self._rounds: dict[str, int] = {}
        self._attacks: list[tuple[str, int]] = []
        self._last = datetime.fromtimestamp(0, UTC)
        self._sound = True

    @property
    def member(self) -> str:
        """Whose log it is."""
        return self.signer.name

    def replay(self) -> Iterator[tuple[int, Kind]]:
        """Every entry with its place, verified; to be taken whole, and once.

        Raises:
            LogVerificationError: an entry is not this member's, is not signed, or cannot be read; says which.
        """
        for place, data in enumerate(self.log.entries()):
            with self.told(place):
                signed = SignedEntry.parse(data)
                self.verify(signed)
                if isinstance(signed.entry, OfRun) and self.signed_at(signed.entry.agreement_id) is None:
                    raise EntryError(f"a {signed.entry.type} is of an agreement that was not signed before")
            yield place, signed.entry
            self._note(signed, place)

    @contextmanager
    def told(self, place: int) -> Iterator[None]:
        """Errors about an entry as errors that say where it stands.

        Raises:
            LogVerificationError: in place of what was raised.
        """
        try:
            yield
        except HansaError as error:
            raise LogVerificationError(f"entry {place} of {self.member!r}: {error.cause}") from error

    def verify(self, signed: SignedEntry) -> None:
        """Check that an entry may stand in this log: the member's own word, or a grant of its officer.

        Raises:
            EntryError: it is somebody else's.
            UnknownSignerError, SignatureError: it is not signed as it must be.
        """
        entry = signed.entry
        if isinstance(entry, BudgetGranted):
            if entry.member != self.member:
                raise EntryError(f"a budget of {entry.member!r} is none of {self.member!r}")
            Keyring({}, {self.member: self.officer_key}).verify(signed)
            return
        own = [statement for statement in signed.statements if statement.signer == self.member]
        if entry.writer != self.member or not own:
            raise EntryError(f"a {entry.type} in the log of {self.member!r} is not its own word")
        for key in self._keys:
            try:
                verify(key, PURPOSE + entry.type, entry.data, own[0].signature)
            except SignatureError:
                continue
            return
        raise SignatureError(f"a {entry.type} is not signed by a key of {self.member!r}")

    def append(self, signed: SignedEntry) -> SignedEntry:
        """Add an entry that was verified, or signed here; on disk before return.

        Raises:
            LogStoreError: it cannot be stored, or an earlier one could not.
        """
        self.require_sound()
        self._sound = False  # until it is known to be on disk
        (place,) = self.log.append([signed.encoded])
        self._sound = True
        self._note(signed, place)
        return signed

    def sign_agreement(
        self, agreement_id: str, terms_id: str, roster_sha256: str, witness_key: VerifierKey
    ) -> SignedEntry:
        """Sign a frozen agreement with the keys that are the member's own, once; see `MemberLedger.sign_agreement`.

        Raises:
            EntryError: it was signed before, with other terms or keys.
            LogStoreError: it cannot be stored.
        """
        entry = AgreementSigned(
            at=self.now(),
            agreement_id=agreement_id,
            terms_id=terms_id,
            roster_sha256=roster_sha256,
            member=self.member,
            log_key=self.log.key.text,
            witness_key=witness_key.text,
            officer_key=self.officer_key,
        )
        if agreement_id not in self._agreements:
            return self.append(SignedEntry.sign(entry, self.signer))
        before = self.entry(self._agreements[agreement_id])
        if before.entry.model_copy(update={"at": entry.at}) != entry:
            raise EntryError(f"agreement {agreement_id[:12]} was signed with other terms or keys")
        return before

    def now(self) -> str:
        """The time for an entry: that of the clock, or of the last entry if the clock was set back a little.

        Raises:
            ClockError: it was set back by more.
        """
        now = self._clock()
        if now < self._last - CLOCK_SLACK:
            raise ClockError(
                f"the clock says {utc(now)}, and the last entry was written at {utc(self._last)}"
            )
        return utc(max(now, self._last))

    def require_sound(self) -> None:
        """Check that the last write succeeded.

        Raises:
            LogStoreError: it did not, or nobody knows.
        """
        if not self._sound:
            raise LogStoreError(
                "the member's ledger could not be written before",
                remedy="See that its disk has room and is whole, then start the node again.",
            )

    def entry(self, place: int) -> SignedEntry:
        """The entry at a place, read again."""
        return read_entry(self.log.entry(place))

    def signed_at(self, agreement_id: str) -> int | None:
        """Where the entry stands in which the member signed an agreement, if it did."""
        return self._agreements.get(agreement_id)

    def reserved(self, run: str, dataset_id: str | None = None) -> SignedEntry | None:
        """The entry that reserved a run, of one dataset or the first of all, if one did."""
        return self._one_of(self._reserved, run, dataset_id)

    def closed(self, run: str, dataset_id: str | None = None) -> SignedEntry | None:
        """The entry that ended a run, of one dataset or the first of all, if one did."""
        return self._one_of(self._closed, run, dataset_id)

    def _one_of(
        self, places: dict[str, dict[str, int]], run: str, dataset_id: str | None
    ) -> SignedEntry | None:
        found = places.get(run, {})
        place = next(iter(found.values()), None) if dataset_id is None else found.get(dataset_id)
        return None if place is None else self.entry(place)

    def last_round(self, run: str) -> int:
        """The last round in which a run has released something, 0 for none."""
        return self._rounds.get(run, 0)

    def released_in(self, run: str, number: int) -> Release | None:
        """What a run released in a round, if it did."""
        place = self._releases.get((run, number))
        entry = None if place is None else self.entry(place).entry
        return entry if isinstance(entry, Release) else None

    def releases_of(self, run: str) -> Iterator[Release]:
        """What a run released, in order."""
        for number in sorted(number for name, number in self._releases if name == run):
            found = self.released_in(run, number)
            if found is not None:
                yield found

    def last_releases(self) -> Iterator[tuple[str, int, int]]:
        """Run, round and place of the last release of every run."""
        for run, number in self._rounds.items():
            yield run, number, self._releases[run, number]

    def agreement_of(self, run: str) -> str | None:
        """The id of the agreement under which a run has entries."""
        return self._agreement_of.get(run)

    def places_of(self, run: str, start: int = 0, count: int | None = None) -> Sequence[int]:
        """Where the entries of `entries_of` stand; all, or `count` of them from one on."""
        return self._runs.get(run, [])[start : None if count is None else start + count]

    def place_of(self, digest: str) -> int | None:
        """Where an entry stands in this log, by the SHA-256 of its logged bytes."""
        return self._places.get(digest)

    def digest_at(self, place: int) -> str:
        """The SHA-256 of the bytes that are logged at a place."""
        return self._hashes[place]

    def entries_of(self, run: str) -> tuple[bytes, ...]:
        """The member's entries that a run stands on, in order: the agreement that it signed, and what the run spent.

        Args:
            run: its name; one that is not known has none.
        """
        return tuple(self.log.entry(place) for place in self._runs.get(run, ()))

    def attacks_under(self, agreement_id: str) -> tuple[int, ...]:
        """Where attacks on the member's own trainer stand, of one agreement."""
        return tuple(place for agreement, place in self._attacks if agreement == agreement_id)

    def runs(self) -> tuple[str, ...]:
        """All runs that anything was reserved for, in order."""
        return tuple(self._reserved)

    def _note(self, signed: SignedEntry, place: int) -> None:
        entry = signed.entry
        digest = sha256_hex(signed.encoded)
        self._places[digest] = place
        self._hashes.append(digest)
        if isinstance(entry, AgreementSigned):
            self._agreements[entry.agreement_id] = place
        if isinstance(entry, OfRun) and entry.in_turn:
            self._agreement_of.setdefault(entry.run, entry.agreement_id)
            self._runs.setdefault(entry.run, [self._agreements[entry.agreement_id]]).append(place)
        if isinstance(entry, Reservation):
            self._reserved.setdefault(entry.run, {}).setdefault(entry.dataset_id, place)
        if isinstance(entry, Release):
            self._releases[entry.run, entry.round] = place
            self._rounds[entry.run] = max(entry.round, self._rounds.get(entry.run, 0))
        if isinstance(entry, AttackMade):
            self._attacks.append((entry.agreement_id, place))
        if isinstance(entry, RunClosed):
            self._closed.setdefault(entry.run, {})[entry.dataset_id] = place
        if not isinstance(entry, BudgetGranted):  # that is the time of another clock
            self._last = max(self._last, datetime.fromisoformat(entry.at))
