"""A member's copy of the federation's log: checked as it comes, cosigned once it is on disk here.

The coordinator writes that log, and gains nothing by lying in it. What it shows must continue what it has shown, be
signed by those whose word it is, and say about this member exactly what this member's own log says. A second history
finds no quorum of cosignatures; an entry that was invented, dropped or moved is refused by the member that it is about.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from hansa.canonical import sha256_hex
from hansa.errors import HansaError
from hansa.ledger import (
    Aggregate,
    AmendmentMade,
    Checkpoint,
    Keyring,
    LogPolicy,
    LogStore,
    LogView,
    NoteSignature,
    NoteSigner,
    Release,
    SignedEntry,
    SignedNote,
    VerifiedCheckpoint,
    Witness,
    WitnessMemory,
    read_entry,
)
from hansa.ledger.entry import OfRun
from hansa.ledger.errors import (
    CheckpointRefusedError,
    EntryError,
    ForkError,
    LogDamagedError,
    LogStoreError,
    NewsRefusedError,
    OldCopyError,
    UnrecordedVectorError,
)
from hansa.ledger.kinds import Kind
from hansa.ledger.log import MAX_ENTRY_BYTES
from hansa.ledger.store import Head, Row
from hansa.merkle import EMPTY_ROOT, Frontier, leaf_hash
from hansa.protocol import fresh_line
from hansa_client.federation_log import FederationLog, described
from hansa_client.own_log import OwnLog

_AMENDMENT, _RELEASE = b'"type":"amendment"', b'"type":"release"'
_WHOSE = re.compile(
    rb'"run":"([^"]*)".*\n([^ \n]*) [^\n]*\n\Z', re.DOTALL
)  # of a release: its run and its signer


class _Placed(NamedTuple):
    place: int  # in the federation's log
    digest: str  # SHA-256 of the logged bytes
    entry: Kind


class Mirror:
    """The copy of one federation's log at one member.

    Args:
        store: where the copy lies.
        federation: what is pinned about it.
        own: the member's own log.
        signer: the member's witness key.
        memory: what it has cosigned.
        clock: what time it is, for cosignatures.

    Raises:
        LogDamagedError: entries and hashes differ, or the copy is not what was cosigned.

    Guarantees: what was cosigned is on disk here, continues all that was cosigned before, and agrees with the member's
        own log; a call that raises has changed nothing, except that the proof of a fork is kept.
    """

    def __init__(
        self,
        store: LogStore,
        federation: FederationLog,
        own: OwnLog,
        signer: NoteSigner,
        memory: WitnessMemory,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._view = store, LogView(store)
        self._federation, self._own = federation, own
        self._memory, self._clock = memory, clock
        self._witness = Witness(signer, [federation.key], memory)
        self._keys = federation.keys
        self._known: dict[str, int] = {}  # the place of each entry, by the SHA-256 of its bytes
        self._lacking: dict[
            str, int
        ] = {}  # of those, the member's own that its log lacked when it was opened
        self._shown: Counter[str] = Counter()  # how many entries of the member's own there are of each run
        self._accepted = 0
        self._sound = True
        self._frontier = Frontier()
        self._latest: dict[
            tuple[str, str], tuple[int, str]
        ] = {}  # by run and member: round and H(y) of its last release
        self._roots: dict[int, bytes] = {}  # of the sizes that were cosigned since it was opened
        self._replay()

    # --- what comes --------------------------------------------------------------------------------------------

    def news(self, entries: Sequence[bytes], note: SignedNote | str | bytes) -> NoteSignature:
        """Take what has been added to the log, and cosign it. The same news again changes nothing.

        Args:
            entries: the last ones of the log, up to the checkpoint; they may overlap with what is here.
            note: the newest checkpoint.

        Returns:
            The cosignature of the checkpoint.

        Raises:
            NewsRefusedError: they do not continue what is here, lead to another root, are not signed as they must be,
                or say of this member what is not so.
            OldCopyError: the member's own log lacks what it has said itself; says which.
            ForkError: the log has signed two histories; both notes are kept.
            LogStoreError: they cannot be stored.
        """
        self._require_sound()
        try:
            note = note if isinstance(note, SignedNote) else SignedNote.parse(note)
            new = LogPolicy(self._federation.key).verify(note).checkpoint
        except HansaError as error:
            raise NewsRefusedError(error.cause, self.size) from error
        size, start = self.size, new.size - len(entries)
        if new.size <= size and self._root_at(new.size) != new.root:
            raise self._forked(new, note)
        if new.size < size:
            raise NewsRefusedError(f"a checkpoint of {new.size} entries is older than the {size} here", size)
        if not 0 <= start <= size:
            raise NewsRefusedError(f"news from entry {start} on leaves a gap: {size} are here", size)
        if list(entries[: size - start]) != list(self._view.entries(start, size)):
            raise NewsRefusedError("entries that were shown before have changed", size)
        frontier, rows = self._grown(entries[size - start :], new, note)
        keys, added = self._judged(rows)
        mine = [placed for placed in added if placed.entry.writer == self._own.member]
        self._require_own(added)
        self._require_order(mine)
        self._require_released(added)
        if rows:
            self._sound = False  # until it is known to be on disk
            self._store.append(Head(size, self._frontier.root), rows, frontier.root)
            self._sound, self._frontier = True, frontier
        self._keys = keys
        for placed in added:
            self._note(placed)
        signature = self._witness.cosign_copy(note, new, self._root_at, at=int(self._clock().timestamp()))
        self._roots[new.size] = new.root
        return signature

    def verify_manifest_checkpoint(
        self, note: SignedNote | str | bytes, nonce: str | None = None
    ) -> VerifiedCheckpoint:
        """Check the checkpoint that a manifest rests on, and keep it.

        Args:
            note: the checkpoint with its cosignatures.
            nonce: the random hexadecimal digits that this process has sent since it started, until it has seen them
                in such a checkpoint once; `None` from then on.

        Raises:
            CheckpointRefusedError: it is cosigned by too few, older than another that was accepted, not of the log
                that is mirrored here, without the nonce, or does not show everything that this member has released.
            OldCopyError: the log shows what the member's own log lacks; says which.
            LogStoreError: it cannot be stored.
        """
        self._require_sound()
        seen = self._federation.verify(note, self._keys)
        new = seen.checkpoint
        if new.size > self.size:
            raise CheckpointRefusedError(
                f"the checkpoint is of {new.size} entries; {self.size} were shown here"
            )
        if self._root_at(new.size) != new.root:
            raise CheckpointRefusedError(
                f"the checkpoint of {new.size} entries is of another log than is mirrored here"
            )
        if new.size < self._accepted:
            raise CheckpointRefusedError(
                f"the checkpoint of {new.size} entries is older than that of {self._accepted}"
            )
        if nonce is not None and fresh_line(self._own.member, nonce) not in new.extensions:
            raise CheckpointRefusedError("the checkpoint does not carry this member's fresh nonce")
        self._require_own(())
        self._require_shown(new.size)
        known = {key.id for key in (self._federation.key, *self._federation.witnesses.values())}
        ours = [line for line in seen.note.signatures if line.id in known]
        by_log = next(line for line in ours if line.id == self._federation.key.id)
        cosignatures = [line for line in ours if line is not by_log]
        # evidence, which the next append brings to disk; a new process asks for a fresh checkpoint anyhow
        self._store.add_checkpoint(seen.note.text, by_log, cosignatures, durable=False)
        self._accepted = new.size
        return seen

    def require_released(self, run: str, number: int, vectors: Mapping[str, str]) -> None:
        """Check that the log shows the releases of a round, before anything is done that lets their sum be opened.

        Args:
            run: its name.
            number: of the round.
            vectors: H(y) by member.

        Guarantees: no sum is opened that fewer than t members have seen every release of, in a log of which they
            cosign nothing but what continues it. Whoever is put back to an older state is told of what it released.

        Raises:
            UnrecordedVectorError: one is not there.
        """
        missing = [name for name, said in vectors.items() if self._latest.get((run, name)) != (number, said)]
        if missing:
            raise UnrecordedVectorError(run, number, tuple(missing))

    # --- what it says ------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many entries are mirrored."""
        return len(self._known)  # no two are the same

    @property
    def view(self) -> LogView:
        """The copy, for reading."""
        return self._view

    @property
    def keys(self) -> Keyring:
        """Whose signatures count, as amended by what is mirrored."""
        return self._keys

    @property
    def forks(self) -> Sequence[tuple[str, str]]:
        """Pairs of notes that the log has signed and that cannot both be true."""
        return self._memory.forks()

    def shows(self, data: bytes) -> bool:
        """Whether the very bytes of an entry stand in the log, as far as it is mirrored."""
        return sha256_hex(data) in self._known

    def outstanding(self) -> tuple[bytes, ...]:
        """The member's own entries under the agreements of this log that it does not show yet, in order."""
        agreements = self._keys.agreements
        places = set[int]()
        for agreement in agreements:
            place = self._own.signed_at(agreement)
            if place is not None:
                places.update((place, *self._own.attacks_under(agreement)))
        for run in self._own.runs():
            if (
                self._own.agreement_of(run) in agreements
            ):  # the first entry is the agreement; the rest come in order
                places.update(self._own.places_of(run, 1 + self._shown[run]))
        missing = (place for place in sorted(places) if self._own.digest_at(place) not in self._known)
        return tuple(self._own.log.entry(place) for place in missing)

    # --- checks ------------------------------------------------------------------------------------------------

    def _grown(self, added: Sequence[bytes], new: Checkpoint, note: SignedNote) -> tuple[Frontier, list[Row]]:
        """The tree with the added entries, which must be that of the checkpoint and of all that was cosigned."""
        last = self._witness.seen(new.origin)
        if last is not None and new.size < last.size:
            raise NewsRefusedError(f"a checkpoint of {last.size} entries was cosigned before", self.size)
        frontier, rows = self._frontier.copy(), []
        at_last = self._root_at(last.size) if last is not None and last.size <= self.size else None
        for data in added:
            if not 0 < len(data) <= MAX_ENTRY_BYTES:
                raise NewsRefusedError(f"entry {frontier.size} has {len(data)} bytes", self.size)
            rows.append(Row(b"".join(frontier.append(leaf_hash(data))), data))
            if last is not None and frontier.size == last.size:
                at_last = frontier.root
        if frontier.root != new.root:
            self._keep(note)
            raise NewsRefusedError(f"news do not lead to the root of {new.size} entries", self.size)
        if last is not None and at_last != last.root:
            raise self._forked(new, note)
        return frontier, rows

    def _judged(self, rows: Sequence[Row]) -> tuple[Keyring, list[_Placed]]:
        """The keys after the added entries, and these; every signature is verified."""
        keys, added, twins = self._keys, list[_Placed](), set[str]()
        for index, row in enumerate(rows, self.size):
            digest = sha256_hex(row.data)
            try:
                signed = read_entry(row.data)
                keys.verify(signed, index)
                if isinstance(signed.entry, AmendmentMade):
                    keys = keys.amended(signed.entry, index)
                if digest in self._known or digest in twins:
                    raise EntryError("it stands in the log already")
            except HansaError as error:
                raise NewsRefusedError(f"entry {index}: {error.cause}", self.size) from error
            twins.add(digest)
            added.append(_Placed(index, digest, signed.entry))
        return keys, added

    def _require_own(self, added: Sequence[_Placed]) -> None:
        """Everything that this member has signed stands in its own log, or that is an old copy."""
        new = {placed.digest: placed.place for placed in added if placed.entry.writer == self._own.member}
        mine = {**self._lacking, **new}
        missing = [index for digest, index in mine.items() if self._own.place_of(digest) is None]
        if missing:
            came = {placed.place: placed.entry for placed in added}
            entries = [
                (i, came[i] if i in came else SignedEntry.parse(self._view.entry(i)).entry) for i in missing
            ]
            raise OldCopyError(tuple(f"{described(entry)}, entry {i} of the log" for i, entry in entries))

    def _require_order(self, mine: Sequence[_Placed]) -> None:
        """The member's entries of a run come as they stand in its own log: none left out, none moved."""
        shown = self._shown.copy()
        for index, digest, entry in mine:
            if isinstance(entry, OfRun) and entry.in_turn:
                shown[entry.run] += 1
                (due,) = self._own.places_of(entry.run, shown[entry.run], 1)  # the first one is the agreement
                if due != self._own.place_of(digest):
                    left_out = described(self._own.entry(due).entry)
                    raise NewsRefusedError(
                        f"entry {index}: {described(entry)} comes before {left_out}", self.size
                    )

    def _require_released(self, added: Sequence[_Placed]) -> None:
        """No sum holds a vector of this member that it has not released."""
        for index, _, entry in added:
            said = entry.released.get(self._own.member) if isinstance(entry, Aggregate) else None
            if said is not None and isinstance(entry, Aggregate):
                release = self._own.released_in(entry.run, entry.round)
                if release is None or (release.y_sha256, release.agreement_id) != (said, entry.agreement_id):
                    raise NewsRefusedError(
                        f"entry {index}: {described(entry)} counts a vector that this member has not released",
                        self.size,
                    )

    def _require_shown(self, size: int) -> None:
        """Every release of this member under the agreements of this log stands in its first `size` entries.

        The last one of a run does only where those before it do.
        """
        for run, number, place in self._own.last_releases():
            index = self._known.get(self._own.digest_at(place), size)
            if index >= size and self._own.agreement_of(run) in self._keys.agreements:
                raise CheckpointRefusedError(
                    f"the checkpoint of {size} entries does not show the release of run {run}, round {number}"
                )

    # --- within ------------------------------------------------------------------------------------------------

    def _require_sound(self) -> None:
        if not self._sound:
            raise LogStoreError(
                "the copy of the federation's log could not be written before",
                remedy="See that its disk has room and is whole, then start the node again.",
            )

    def _root_at(self, size: int) -> bytes:
        if size == self._frontier.size:
            return self._frontier.root
        known = self._roots.get(size)
        return known or (self._view.root_at(size) if size else EMPTY_ROOT)

    def _forked(self, new: Checkpoint, note: SignedNote) -> HansaError:
        """What to raise where two signed notes cannot both be true; they are kept."""
        pair = self._keep(note)
        what = f"{new.origin!r} shows another log of {new.size} entries than before"
        return NewsRefusedError(what, self.size) if pair is None else ForkError(what, pair)

    def _keep(self, note: SignedNote) -> tuple[str, str] | None:
        """Keep a note that does not go with the last one that was cosigned, for whoever compares copies."""
        key = self._federation.key
        known = self._memory.last(key.name)
        if known is None:
            return None
        shown = SignedNote(note.text, tuple(line for line in note.signatures if line.id == key.id)).encoded
        if all(known != first for first, _ in self._memory.forks()):  # one for each is enough, and no flood
            self._memory.keep_fork(known, shown)
        return known, shown

    def _note(self, placed: _Placed) -> None:
        self._known[placed.digest] = placed.place
        self._note_release(placed.entry)
        if placed.entry.writer == self._own.member:
            if self._own.place_of(placed.digest) is None:
                self._lacking[placed.digest] = placed.place
            if isinstance(placed.entry, OfRun) and placed.entry.in_turn:
                self._shown[placed.entry.run] += 1

    def _note_release(self, entry: Kind) -> None:
        if isinstance(entry, Release):
            self._latest[entry.run, entry.member] = (entry.round, entry.y_sha256)

    def _replay(self) -> None:
        """What memory holds of the copy; its signatures were verified when it came."""
        head = self._view.check()
        self._frontier = Frontier.of(head.size, self._store.node)
        own = b"\n%s " % self._own.member.encode()  # a line of its signature
        releases: dict[
            tuple[bytes, ...], bytes
        ] = {}  # the last one of each run and member: only these are read
        for index, data in enumerate(self._view.entries()):
            if _RELEASE in data and (whose := _WHOSE.search(data)):
                releases[whose.groups()] = data
            digest = sha256_hex(data)
            self._known[digest] = index
            if _AMENDMENT in data or own in data:
                entry = SignedEntry.parse(data).entry
                self._note(_Placed(index, digest, entry))
                if isinstance(entry, AmendmentMade):
                    self._keys = self._keys.amended(entry, index)
        for data in releases.values():
            self._note_release(SignedEntry.parse(data).entry)
        last = self._witness.seen(self._federation.key.name)
        if last is not None and last.size <= self.size and self._root_at(last.size) != last.root:
            raise LogDamagedError(
                f"the copy of {last.origin!r} is not what was cosigned at {last.size} entries"
            )
        accepted = self._view.last_checkpoint()
        self._accepted = 0 if accepted is None else Checkpoint.parse(accepted.text).size
