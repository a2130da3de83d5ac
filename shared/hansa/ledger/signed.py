"""An entry as it lies in a log: a line of JSON, then a line for each signature.

The bytes that were signed stand in the log as they are; a signature beside them is worth what it would be in any
`hansa.identity.statement.Statement`: it counts by the key that the roster pins, for the purpose ``ledger.`` and the
type of the entry.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise

from hansa.errors import HansaError
from hansa.identity.errors import RevokedError, SignatureError, UnknownSignerError
from hansa.identity.keys import MAX_SIGNATURE_BYTES, Signer, verify
from hansa.identity.roster import Roster
from hansa.identity.statement import Statement
from hansa.ledger.entry import PURPOSE, Entry, OfAgreement, officer_of
from hansa.ledger.errors import EntryError
from hansa.ledger.kinds import Kind, parse_entry
from hansa.ledger.log import MAX_ENTRY_BYTES
from hansa.ledger.membership import AmendmentMade
from hansa.ledger.spends import BudgetGranted

MAX_SIGNATURES = 256


@dataclass(frozen=True)
class SignedEntry:
    """An entry and its signatures; nothing is verified until `Keyring.verify` is asked.

    Attributes:
        entry: what is said.
        statements: who signed it, in order of their names, each once.
        encoded: the bytes that are logged.
    """

    entry: Kind
    statements: tuple[Statement, ...] = ()
    encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lines = [f"{statement.signer} {statement.signature.hex()}\n" for statement in self.statements]
        encoded = self.entry.data + b"\n" + "".join(lines).encode()
        object.__setattr__(self, "encoded", encoded)
        names = [statement.signer for statement in self.statements]
        if len(names) > MAX_SIGNATURES or sorted(set(names)) != names:
            raise EntryError("the signatures of an entry stand in order of their signers, each once")
        purpose = PURPOSE + self.entry.type
        for statement in self.statements:
            if statement.data != self.entry.data or statement.purpose != purpose:
                raise EntryError(f"{statement.signer!r} has signed something else than the entry")
        if len(encoded) > MAX_ENTRY_BYTES:
            raise EntryError(f"an entry of {len(encoded)} bytes is larger than {MAX_ENTRY_BYTES}")

    @classmethod
    def sign(cls, entry: Kind, *signers: Signer) -> SignedEntry:
        """Sign an entry, each signer for itself."""
        return cls(entry).with_statements(statement_of(entry, signer) for signer in signers)

    def with_statements(self, statements: Iterable[Statement]) -> SignedEntry:
        """The entry with more signatures, for example approvals that came in.

        Raises:
            EntryError: they are of another entry, or somebody has signed twice.
        """
        every = sorted((*self.statements, *statements), key=lambda statement: statement.signer)
        return replace(self, statements=tuple(every))

    @classmethod
    def parse(cls, data: bytes) -> SignedEntry:
        """Read the bytes of a logged entry; nothing is verified.

        Raises:
            EntryError: they are not JSON and signatures, each in its one form.
        """
        text, *lines = data.split(b"\n")
        if not lines or lines.pop():
            raise EntryError("an entry is cut short")
        entry = parse_entry(text)
        signed = cls(entry, tuple(_statement(PURPOSE + entry.type, text, line) for line in lines))
        if signed.encoded != data:
            raise EntryError("the signatures of an entry are not in their one form")
        return signed


@lru_cache(maxsize=256)
def read_entry(data: bytes) -> SignedEntry:
    """As `SignedEntry.parse`, for entries that are looked at several times in a row."""
    return SignedEntry.parse(data)


def statement_of(entry: Entry, signer: Signer) -> Statement:
    """One signature of an entry: of its writer, or of a member that approves it."""
    return Statement.signed(signer, PURPOSE + entry.type, entry.data)


def _statement(purpose: str, data: bytes, line: bytes) -> Statement:
    signer, _, signature = line.partition(b" ")
    try:
        statement = Statement(purpose, signer.decode(), data, bytes.fromhex(signature.decode("ascii")))
    except ValueError:
        statement = Statement(purpose, "", data, b"")
    if not statement.signer or not 0 < len(statement.signature) <= MAX_SIGNATURE_BYTES:
        raise EntryError("a signature of an entry is not a name and hexadecimal digits")
    return statement


@dataclass(frozen=True)
class Agreed:
    """Whose signatures count under one agreement.

    Attributes:
        rosters: the roster from each place of the log on, in order: the agreement's from 0, then one for each
            amendment.
        quorum: how many members must have approved a gate and a publication.
        anywhere: whether each roster counts for every entry: places in a member's own log say nothing of when
            the federation's log showed an amendment.
    """

    rosters: tuple[tuple[int, Roster], ...]
    quorum: int
    anywhere: bool = False

    @classmethod
    def of(cls, roster: Roster, quorum: int) -> Agreed:
        """An agreement that nothing has amended yet."""
        return cls(((0, roster),), quorum)

    def roster_at(self, index: int) -> Roster:
        """The roster in force for the entry at a place of the log."""
        return self.rosters[bisect_right(self.rosters, index, key=lambda epoch: epoch[0]) - 1][1]

    def verify(self, signed: SignedEntry, index: int) -> None:
        """Check an entry under the roster in force at its place, or under any if each counts for every entry.

        Raises:
            EntryError: too few members have approved it.
            UnknownSignerError, RevokedError, SignatureError: a signature does not count; as the first roster says it.
        """
        if not self.anywhere:
            self._verify_under(self.roster_at(index), signed)
            return
        refused: HansaError | None = None
        for _, roster in self.rosters:
            try:
                self._verify_under(roster, signed)
            except (RevokedError, SignatureError) as error:
                refused = refused or error
            else:
                return
        if refused is not None:
            raise refused

    def knows(self, entry: AmendmentMade) -> bool:
        """Whether an amendment leads from one of the rosters to the next.

        Raises:
            AmendmentError: it begins at one of them, and too few members approved it.
        """
        for sequence, ((_, before), (_, after)) in enumerate(pairwise(self.rosters), 1):
            if before.sha256 == entry.roster_sha256:
                return entry.apply(before, sequence).sha256 == after.sha256
        return False

    def _verify_under(self, roster: Roster, signed: SignedEntry) -> None:
        entry = signed.entry
        for statement in signed.statements:
            statement.verify(roster, PURPOSE + entry.type)
        if entry.approved:
            approving = sum(statement.signer in roster.members for statement in signed.statements)
            if approving < self.quorum:
                raise EntryError(f"{approving} members approved a {entry.type}, {self.quorum} are needed")


@dataclass(frozen=True)
class Keyring:
    """Whose signatures count in a log.

    Attributes:
        agreements: by agreement id.
        officers: pinned keys of privacy officers, by member.
    """

    agreements: Mapping[str, Agreed]
    officers: Mapping[str, str] = field(default_factory=dict)

    def verify(self, signed: SignedEntry, index: int = 0) -> None:
        """Check that an entry is signed by its writer, by whoever else has signed it, and by a quorum where it needs one.

        Args:
            signed: the entry.
            index: its place in the log, for which roster was in force.

        Raises:
            EntryError: its writer has not signed it, too few have approved it, or its agreement is not known.
            UnknownSignerError, RevokedError, SignatureError: a signature does not count.
        """
        entry = signed.entry
        if isinstance(entry, BudgetGranted):
            self._verify_officer(entry, signed.statements)
        elif isinstance(entry, OfAgreement):
            agreed = self.agreements.get(entry.agreement_id)
            if agreed is None:
                raise EntryError(f"the agreement {entry.agreement_id[:12]} of an entry is not known here")
            agreed.verify(signed, index)
        if all(statement.signer != entry.writer for statement in signed.statements):
            raise EntryError(f"{entry.writer!r} has not signed its {entry.type}")

    def amended(self, entry: AmendmentMade, index: int) -> Keyring:
        """The keys after an amendment; the entry itself is still judged by those before.

        Args:
            entry: the amendment.
            index: its place in the log.

        Raises:
            EntryError: its agreement is not known.
            AmendmentError: it does not fit the roster, or too few members approved it.
        """
        agreed = self.agreements.get(entry.agreement_id)
        if agreed is None:
            raise EntryError(f"the agreement {entry.agreement_id[:12]} of an amendment is not known here")
        if agreed.anywhere and agreed.knows(entry):
            return self
        _, roster = agreed.rosters[-1]
        later = (index + 1, entry.apply(roster, len(agreed.rosters)))
        changed = replace(agreed, rosters=(*agreed.rosters, later))
        return replace(self, agreements={**self.agreements, entry.agreement_id: changed})

    def _verify_officer(self, entry: BudgetGranted, statements: tuple[Statement, ...]) -> None:
        for statement in statements:
            key = self.officers.get(entry.member)
            if key is None or statement.signer != officer_of(entry.member):
                raise UnknownSignerError(f"{statement.signer!r} grants no budget of {entry.member!r}")
            try:
                verify(key, statement.purpose, statement.data, statement.signature)
            except SignatureError:
                raise SignatureError(f"a budget of {entry.member!r} is not granted by its officer") from None
