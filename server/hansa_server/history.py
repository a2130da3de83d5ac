"""The federation's log at the coordinator: what members released and what became of it, cosigned by the members.

The coordinator writes the log and cannot write in it what it likes: members' entries are copies of what they signed
for their own logs, byte for byte, and every member mirrors the log and cosigns its checkpoints only if they follow
from all that it has cosigned before.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from sys import intern

from hansa.agreement.amendments import Proposal
from hansa.errors import HansaError, WireError
from hansa.identity import COORDINATOR, Amendment, Roster, Signer
from hansa.identity.errors import AmendmentError
from hansa.ledger import (
    Abort,
    Adaptation,
    Aggregate,
    AgreementSigned,
    AmendmentMade,
    AttackMade,
    Checkpoint,
    Evaluation,
    Keyring,
    Log,
    LogPolicy,
    NoteSignature,
    Release,
    Reservation,
    RunClosed,
    SignedEntry,
    SignedNote,
    VerifierKey,
    read_entry,
    utc,
)
from hansa.ledger.entry import OfAgreement
from hansa.ledger.errors import NoteSignatureError
from hansa.ledger.kinds import Kind
from hansa.protocol import MAX_NEWS, MAX_SAID, News, Word, first_of, fresh_line
from hansa.secagg import SumOutcome
from hansa.server_step import ServerState
from hansa_server.summed_entries import adaptation_of, aggregate_of, evaluation_of, require_counted

_LOG = logging.getLogger("hansa.coordinator")
_SHA256_BYTES = 32
_MEMBERS_OWN = (AgreementSigned, Reservation, Release, RunClosed, Abort, AttackMade)


class History:
    """One agreement's part of the federation's log.

    Args:
        log: the coordinator's.
        signer: the coordinator's identity, for its own entries.
        agreement_id: the agreement.
        keyring: whose signatures count, as the agreement pins them; the log's own amendments are applied here.
        witnesses: the members' keys for cosignatures.
        quorum: how many cosignatures make a checkpoint that a manifest can name.
        clock: for the times that entries carry.
        amendments: of the agreement that are in force, in their order; those that the log does not hold yet are logged.

    Raises:
        LogDamagedError: the log holds what is no entry.
        AmendmentError: the log holds other amendments, or one is not approved as it must be.
    """

    def __init__(
        self,
        log: Log,
        signer: Signer,
        agreement_id: str,
        keyring: Keyring,
        witnesses: Mapping[str, VerifierKey],
        quorum: int,
        clock: Callable[[], datetime],
        amendments: Sequence[Proposal] = (),
    ) -> None:
        self._log, self._signer, self._agreement_id = log, signer, agreement_id
        self._pinned, self._witnesses, self._clock = keyring, dict(witnesses), clock
        self._quorum = quorum
        self._mirrored: dict[str, int] = {}  # as each member has said since this was opened
        self._furthest = Counter[str]()  # the most that it has ever said of it
        self._nonces: dict[str, str] = {}
        self._waiting: list[SignedEntry] | None = None
        self._cosigning: list[NoteSignature] = []  # of the newest checkpoint, verified and not kept yet
        self._note: SignedNote | None = None
        self._read()
        self._amend(amendments)

    def _read(self) -> None:
        """Know what stands in the log, and nothing else."""
        self._keyring = self._pinned
        self._amended: list[Amendment] = []  # that the log holds, in order
        self._known: set[bytes] = set()  # SHA-256 of each entry
        self._releases: dict[tuple[str, int], dict[str, bytes]] = {}  # see `_said_of`, by run and round
        self._evaluated: set[tuple[str, int]] = set()  # rounds whose table is in the log
        self._adapted: set[tuple[str, int]] = set()  # rounds of which it stands there what adapted to them
        self._ended: set[tuple[str, int]] = set()  # rounds that have an aggregate or an abort
        self._said = self._size = 0  # up to where members' own entries reach, and all
        self._heard = Counter[str]()  # how many entries of each member were taken since a round ended
        self._counted = self._count()
        for data in self._log.entries():
            self._remember(SignedEntry.parse(data))
        self._cosigned, self._covers = (
            self._witnessed(),
            0,
        )  # a note, and how many entries it is known to cover
        self._fresh: frozenset[str] = frozenset()  # the lines of nonces in it

    @property
    def log(self) -> Log:
        """The log itself."""
        return self._log

    @property
    def cosigned(self) -> str:
        """The newest checkpoint that enough members have cosigned, as a note; empty before there is one."""
        return self._cosigned

    @property
    def roster(self) -> Roster:
        """The keys in force, after the amendments that the log holds."""
        return self._keyring.agreements[self._agreement_id].rosters[-1][1]

    @property
    def settled(self) -> bool:
        """Whether the newest checkpoint that enough have cosigned shows all that members have said, and their nonces.

        Only then can every member accept it in a manifest.
        """
        return bool(self._cosigned) and self._covers >= self._said and self._fresh.issuperset(self._lines())

    @property
    def covered(self) -> bool:
        """Whether a checkpoint that enough members have cosigned covers all that the log holds."""
        return bool(self._cosigned) and self._covers >= self._size

    @property
    def quorum(self) -> int:
        """How many members must approve or cosign."""
        return self._quorum

    @property
    def reached(self) -> int:
        """How many entries members have, all together, by the most that each has ever said.

        A mirror that is lost and filled anew brings it no further, nor does one that is said to be.
        """
        return self._furthest.total()

    def due(self, member: str) -> bool:
        """Whether a member must be told now, so that the next manifest can name what members have said.

        What the coordinator alone has added waits for the next news, or for the end of the run.
        """
        return not self.settled or member in self._nonces or self._mirrored.get(member, 0) < self._said

    def news(self, member: str) -> News:
        """What a member is told: entries that it lacks, and the checkpoint over them.

        One of whom it is not known how far its mirror is hears of the newest checkpoint alone; it cosigns that, or says
        what it lacks. One that lacks more than a message holds gets the first of it, under a checkpoint of that.
        """
        note = self._checkpoint()
        size = Checkpoint.parse(note.text).size
        start = self._mirrored.get(member, size)
        entries = first_of(self._log.entries(start, size), MAX_NEWS)
        end = start + len(entries)
        return News(start, entries, (note if end == size else self._log.checkpoint_at(end)).encoded)

    def take(self, member: str, word: Word, *, new: bool = True) -> bool:
        """Take a member's word: its entries, how far its mirror is, its cosignature, its nonce.

        A cosignature that is not of the newest checkpoint is passed over: a coordinator that is called again has
        signed a newer one since, and what is missing is asked for again. Of entries that the log lacks, it takes `MAX_SAID`
        of a member in a round: no member can make the log of all the others grow as it likes.

        Args:
            member: who says it.
            word: what it says.
            new: whether entries that the log lacks, and a nonce that is another than its last, are taken too. Otherwise the
                member says them again.

        Returns:
            Whether such a thing was taken.

        Raises:
            HansaError: an entry is malformed, foreign or wrongly signed, or the cosignature is none. What came before
                it was taken.
        """
        self._mirrored[member] = min(word.mirrored, self._log.size)
        self._furthest[member] = max(self._furthest[member], self._mirrored[member])
        renewed = new and word.nonce not in {None, self._nonces.get(member)}
        if word.nonce is None:
            self._nonces.pop(member, None)
        elif renewed:
            self._nonces[member] = word.nonce
        entries = self._lacking(member, word) if new else []
        said_now = set[tuple[str, int]]()  # of which rounds this word releases
        for signed in entries:
            self._check(member, signed, said_now)
        self._append(entries)
        self._heard[member] += len(entries)
        if word.cosignature is not None and self._note is not None:
            self._cosign(member, self._note, NoteSignature.parse(word.cosignature))
        return renewed or bool(entries)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """What members say meanwhile is written at the end, at once: durable before anything is said because of it.

        Raises:
            LogStoreError: it cannot be written; nothing of it is known then, and members will say it again.
        """
        waiting = self._waiting = []
        try:
            yield
        finally:
            self._waiting = None
            cosigning, self._cosigning = self._cosigning, []
            try:
                if cosigning and self._note is not None:
                    self._log.keep_cosignatures(self._note, cosigning)
                self._log.append(signed.encoded for signed in waiting)
            except HansaError:
                self._read()
                raise

    def released(self, member: str, run: str, number: int) -> str | None:
        """SHA-256 of a member's vector of a round, as it has said; `None` where it has not."""
        found = self._releases.get((run, number), {}).get(member)
        return None if found is None else found[:_SHA256_BYTES].hex()

    def shows(
        self, member: str, run: str, number: int, *, y_sha256: str, manifest_sha256: str, purpose: str
    ) -> bool:
        """Whether a member has put its vector of a round on record, as what it is: an answer to this manifest, for this purpose."""
        found = self._releases.get((run, number), {}).get(member)
        return found == _said_of(y_sha256, manifest_sha256, purpose)

    def evaluation(self, outcome: SumOutcome, number: int, files: tuple[str, ...]) -> None:
        """Log a finished evaluation, once: its sum as an aggregate, and beside it the noisy table itself.

        Args:
            outcome: of the secure sum.
            number: which of the evaluations that the agreement allows.
            files: SHA-256 of the file that was judged, and of the one that it was compared with, if any.
        """
        record = outcome.record
        if (record.run, record.round) in self._evaluated:
            return
        self.aggregate(outcome, None)
        self._log_own(evaluation_of(outcome, self.now(), self._agreement_id, number, files))

    def adaptation(self, outcome: SumOutcome, state: ServerState) -> None:
        """Log a finished round of training, once, and beside its aggregate what adapted to it.

        Args:
            outcome: of the secure sum; its last coordinates are what was counted.
            state: that follows, with adapted quantities.

        Raises:
            ServerStateError: nothing has adapted, or the sum counts nothing.
        """
        record = outcome.record
        if (record.run, record.round) in self._adapted:
            return
        require_counted(outcome, state)
        self.aggregate(outcome, state.model_sha256)
        self._log_own(adaptation_of(outcome, self.now(), self._agreement_id, state))

    def aggregate(self, outcome: SumOutcome, model_sha256: str | None) -> None:
        """Log a finished round, once.

        Args:
            outcome: of the secure sum.
            model_sha256: of the model that follows, where one does.
        """
        record = outcome.record
        if (record.run, record.round) in self._ended:
            return
        released = {
            name: said
            for name in outcome.survivors
            if (said := self.released(name, record.run, record.round)) is not None
        }
        self._log_own(aggregate_of(outcome, self.now(), self._agreement_id, released, model_sha256))

    def sign(self, entry: Kind) -> SignedEntry:
        """An entry of the coordinator's, with its signature."""
        return SignedEntry.sign(entry, self._signer)

    def record(self, signed: SignedEntry) -> None:
        """Log an entry with all the signatures that it needs, once.

        Raises:
            HansaError: a signature is missing or does not count; nothing was logged.
        """
        if _digest(signed) in self._known:
            return
        self._keyring.verify(signed, self._size)
        self._append([signed])

    def now(self) -> str:
        """The time for an entry."""
        return utc(self._clock())

    def abort(self, run: str, number: int, code: str, missing: tuple[str, ...]) -> None:
        """Log a round that ended without a sum, once."""
        if (run, number) in self._ended:
            return
        entry = Abort(
            at=self.now(),
            agreement_id=self._agreement_id,
            run=run,
            party=COORDINATOR,
            round=number,
            manifest_sha256=None,
            code=code,
            missing=missing,
        )
        self._log_own(entry)

    def _log_own(self, entry: Kind) -> None:
        self._append([SignedEntry.sign(entry, self._signer)])

    def _lacking(self, member: str, word: Word) -> list[SignedEntry]:
        """The entries of a word that the log lacks, as many as a member may say in a round."""
        said = (read_entry(data) for data in dict.fromkeys(word.entries))
        found = [signed for signed in said if _digest(signed) not in self._known]
        room = MAX_SAID - self._heard[member]
        if len(found) > room:
            _LOG.warning(
                "%(member)s says more than %(most)d entries in a round; the rest must wait",
                {"member": member, "most": MAX_SAID},
            )
        return found[:room]  # it says the others again

    def _check(self, member: str, signed: SignedEntry, said_now: set[tuple[str, int]]) -> None:
        entry = signed.entry
        if not isinstance(entry, _MEMBERS_OWN) or entry.writer != member:
            raise WireError(f"{member!r} sends an entry that is not its own to write")
        if not isinstance(entry, OfAgreement) or entry.agreement_id != self._agreement_id:
            raise WireError(f"{member!r} sends an entry of another agreement")
        self._keyring.verify(signed, self._size)
        if isinstance(entry, Release):
            place = entry.run, entry.round
            if member in self._releases.get(place, {}) or place in said_now:
                raise WireError(f"{member!r} says two things about its vector of round {entry.round}")
            said_now.add(place)

    def _append(self, entries: list[SignedEntry]) -> None:
        if self._waiting is None:
            self._log.append(signed.encoded for signed in entries)
        else:
            self._waiting += entries
        for signed in entries:
            self._remember(signed)

    def _remember(self, signed: SignedEntry) -> None:
        entry = signed.entry
        if isinstance(entry, AmendmentMade) and entry.agreement_id in self._keyring.agreements:
            self._keyring = self._keyring.amended(entry, self._size)
            if entry.agreement_id == self._agreement_id:
                self._amended.append(entry.amendment)
                self._counted = self._count()
        self._known.add(_digest(signed))
        self._size += 1
        if entry.writer != COORDINATOR:
            self._said = self._size
        if isinstance(entry, Release):
            place = intern(entry.run), entry.round  # a run of many rounds has many releases
            said = _said_of(entry.y_sha256, entry.manifest_sha256, entry.purpose)
            self._releases.setdefault(place, {})[intern(entry.member)] = said
        elif isinstance(entry, Evaluation):
            self._evaluated.add((entry.run, entry.round))
        elif isinstance(entry, Adaptation):
            self._adapted.add((entry.run, entry.round))
        elif isinstance(entry, Aggregate) or (isinstance(entry, Abort) and entry.party == COORDINATOR):
            self._ended.add((entry.run, entry.round))
            self._heard.clear()

    def _amend(self, amendments: Sequence[Proposal]) -> None:
        held, given = self._amended, [proposal.amendment for proposal in amendments]
        if any(one != other for one, other in zip(held, given, strict=False)):
            raise AmendmentError(
                "the federation's log holds other amendments than are in force here",
                remedy="Compare the amendments' files with the log; the members believe what stands in the log.",
            )
        for proposal in amendments[len(held) :]:
            approvals = {statement.signer: statement for statement in proposal.approvals}
            entry = AmendmentMade.of(proposal.amendment, approvals, self.now())
            self._keyring.amended(entry, self._size)  # what members would refuse never stands in the log
            self._append([SignedEntry.sign(entry, self._signer)])

    def _cosign(self, member: str, newest: SignedNote, signature: NoteSignature) -> None:
        try:
            SignedNote(newest.text, (signature,)).verify((self._witnesses[member],))
        except NoteSignatureError as error:
            _LOG.info(
                "%(member)s has cosigned something else than the newest checkpoint: %(error)s",
                {"member": member, "error": error},
            )
            return
        note = self._note = newest.with_signatures(signature)
        if self._waiting is None:
            self._log.keep_cosignatures(note, (signature,))
        else:
            self._cosigning.append(signature)
        if self._cosigners(note) >= self._quorum:  # each was verified as it came
            head = Checkpoint.parse(note.text)
            self._cosigned, self._covers, self._fresh = note.encoded, head.size, frozenset(head.extensions)

    def _count(self) -> frozenset[tuple[str, bytes]]:
        """Names and ids of the keys whose cosignatures count: those of members that are not revoked."""
        revoked = self.roster.revoked
        return frozenset((key.name, key.id) for name, key in self._witnesses.items() if name not in revoked)

    def _cosigners(self, note: SignedNote) -> int:
        """How many members have cosigned a note; nothing is verified."""
        return len(self._counted.intersection((line.name, line.id) for line in note.signatures))

    def _witnessed(self) -> str:
        """The newest checkpoint in the log's store that enough members have cosigned; see `cosigned`.

        It serves until enough members have cosigned another: a run that goes on needs one, and what is said of the
        log since the last process is asked of everybody anew.
        """
        policy = LogPolicy(self._log.key, tuple(self._witnesses.values()), self._quorum)
        for note in self._log.checkpoints():
            if self._cosigners(note) >= self._quorum:
                return policy.verify(note).note.encoded
        return ""

    def _checkpoint(self) -> SignedNote:
        lines = self._lines()
        head = Checkpoint(self._log.key.name, self._log.size, self._log.root, lines)
        if self._note is None or self._note.text != head.text:
            self._note = self._log.checkpoint(*lines, durable=False)  # its entries are on disk
        return self._note

    def _lines(self) -> tuple[str, ...]:
        """The nonces that members wait for."""
        return tuple(fresh_line(name, self._nonces[name]) for name in sorted(self._nonces))


def _said_of(y_sha256: str, manifest_sha256: str, purpose: str) -> bytes:
    """What a release says of its vector, small: H(y), the manifest that it answers, and the first letter of its purpose."""
    return bytes.fromhex(y_sha256 + manifest_sha256) + purpose[:1].encode()


def _digest(signed: SignedEntry) -> bytes:
    return hashlib.sha256(signed.encoded).digest()
