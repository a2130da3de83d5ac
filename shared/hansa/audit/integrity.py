"""Whether a copy is the log that it says it is: checkpoints, hashes, forms, signatures; and where it is not, which entry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hansa.audit.copies import Kept, LogCopy
from hansa.audit.findings import CHECKPOINT, FEDERATION, Failure, LogSeen, Notebook, log_name
from hansa.audit.reading import LogFacts, LogReader, read_log
from hansa.errors import HansaError
from hansa.ledger.checkpoint import Checkpoint, LogPolicy, VerifiedCheckpoint
from hansa.ledger.errors import CopyUnreadableError
from hansa.ledger.membership import AmendmentMade
from hansa.ledger.note import SignedNote, VerifierKey
from hansa.ledger.signed import Agreed, Keyring, SignedEntry
from hansa.ledger.trust import TrustedKeys
from hansa.ledger.verify import verify_log
from hansa.merkle import leaf_hash, tree_root

MISSING = "missing"  # the type of an entry that is not there
_AGREEMENT_ID = re.compile(rb'"agreement_id":"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Named:
    """A copy that says which log it is.

    Attributes:
        copy: where.
        notes: its checkpoints, of which none is verified yet; at least one.
        member: whose log; `None` for the federation's.
        policy: whose word counts about the log.
    """

    copy: LogCopy
    notes: Sequence[SignedNote]
    member: str | None
    policy: LogPolicy


@dataclass(frozen=True)
class Examined:
    """A copy that was read.

    Attributes:
        copy: where.
        policy: whose word counts about the log.
        member: whose log; `None` for the federation's.
        facts: what its good entries say.
        whole: whether all of its entries are good.
        complete: whether all of its entries were read, good in themselves, though perhaps not those that were logged.
        notes: the checkpoints that the log has signed.
        signed: whether its newest checkpoint is the log's own.
        quorum: the newest checkpoint that enough witnesses have cosigned; of the federation's log.
    """

    copy: LogCopy
    policy: LogPolicy
    member: str | None
    facts: LogFacts
    whole: bool
    complete: bool
    notes: tuple[VerifiedCheckpoint, ...]
    signed: bool
    quorum: VerifiedCheckpoint | None

    @property
    def log(self) -> str:
        """As findings call it."""
        return log_name(self.member)

    @property
    def size(self) -> int:
        """How many entries are good, from the first on."""
        return self.facts.tree.size

    def type_at(self, entry: int) -> str:
        """The type of an entry; empty for one that is not good."""
        return self.facts.types[entry] if entry < len(self.facts.types) else ""

    @property
    def place(self) -> str:
        """Where the copy lies."""
        return self.copy.place


def origins(keys: TrustedKeys) -> dict[str, tuple[str | None, LogPolicy]]:
    """Whose log each origin is, and whose word counts about it."""
    own = {policy.log.name: (name, policy) for name, policy in keys.own_logs.items()}
    return {keys.federation.log.name: (None, keys.federation), **own}


def name_log(copy: LogCopy, keys: TrustedKeys, notebook: Notebook) -> Named | None:
    """Which log a copy says it is; `None` where not even a checkpoint says that.

    Raises:
        CopyUnreadableError: the machine cannot read it, which is no finding about the log.
    """
    try:
        notes = copy.notes()
        origin = Checkpoint.parse(notes[0].text).origin
    except CopyUnreadableError:
        raise
    except HansaError as error:
        notebook.failed(Failure(copy.place, None, CHECKPOINT, error.cause, copy.place))
        return None
    if origin not in origins(keys):
        what = f"it calls itself {origin!r}, and the trusted keys name no such log: are these keys of this federation?"
        notebook.failed(Failure(copy.place, None, CHECKPOINT, what, copy.place))
        return None
    member, policy = origins(keys)[origin]
    return Named(copy, notes, member, policy)


def examine(
    named: Named, keys: TrustedKeys, agreed: Agreed, notebook: Notebook, processes: int = 1
) -> Examined:
    """Verify one copy as far as it goes.

    Args:
        named: the copy.
        keys: that are trusted.
        agreed: the rosters that count for members' own logs: of the keys, and after each amendment that the
            federation's log shows.
        notebook: for what is found.
        processes: for signatures of long logs.

    Raises:
        CopyUnreadableError: the machine cannot read it, which is no finding about the log.
    """
    copy, notes, member, policy = named.copy, named.notes, named.member, named.policy
    verified = _verified_notes(copy, notes, member, policy, notebook)
    newest = max(
        [seen.checkpoint for seen in verified] or [Checkpoint.parse(note.text) for note in notes],
        key=lambda checkpoint: checkpoint.size,
    )
    quorum = None if member is not None else _quorum(copy, verified, policy, notebook)
    keyring = keys.keyring if member is None else _of_own_log(copy, keys, agreed)
    failure = _verify_entries(copy, newest, keyring, member, notebook, processes)
    reader = LogReader(keys, keyring, member, sealed=newest.size)
    upto = None if failure is None else failure.entry
    wrong = read_log(reader, islice(copy.lying(), upto))
    if wrong is not None:
        failure = Failure(log_name(member), reader.facts.tree.size, reader.type, wrong.cause, copy.place)
    if failure is not None:
        notebook.failed(failure)
    examined = Examined(
        copy,
        policy,
        member,
        reader.facts,
        whole=failure is None,
        complete=failure is None or failure.entry is None,
        notes=verified,
        signed=bool(verified),
        quorum=quorum,
    )
    if failure is None:
        _check_tiles(examined, notebook)
    _tell(examined, newest, keys, notebook)
    return examined


def check_notes(log: Examined, kept: Sequence[Kept], notebook: Notebook) -> None:
    """Compare a log with every checkpoint of it, its own and those that others kept: all are of one history."""
    named = [(log.place, seen.checkpoint) for seen in log.notes]
    named += [(one.place, Checkpoint.parse(one.note.text)) for one in kept]
    for place, checkpoint in sorted(named, key=lambda pair: pair[1].size):
        if checkpoint.size > log.size and not log.whole:
            continue  # what is wrong with the log stands in the findings already
        problem = differing(log, checkpoint)
        if problem is None:
            notebook.passed("checkpoints that begin the same history")
        else:
            notebook.failed(replace(problem, what=f"{problem.what} ({place})"))


def differing(log: Examined, checkpoint: Checkpoint) -> Failure | None:
    """What is wrong with a log, or a copy of it, if a checkpoint that the log signed is true.

    Args:
        log: whole, or at least as long as the checkpoint.
        checkpoint: signed by the log.
    """
    if checkpoint.size > log.size:
        what = (
            f"the copy ends before this entry; the log has signed a checkpoint of {checkpoint.size} entries: "
            "it is an older copy, or was cut off"
        )
        return Failure(log.log, log.size, MISSING, what, log.place)
    if log.facts.tree.root_at(checkpoint.size) != checkpoint.root:
        what = (
            f"the log has signed another history of {checkpoint.size} entries: keep both, and believe neither"
        )
        return Failure(log.log, None, CHECKPOINT, what, log.place)
    return None


def compare_copies(copies: Sequence[Examined], notebook: Notebook) -> Examined:
    """Compare all copies of one log with the best of them, which is returned."""
    best = max(copies, key=lambda one: (one.whole, one.signed, one.quorum is not None, one.size))
    for other in copies:
        if other is best:
            continue
        index = best.facts.tree.differs_at(other.facts.tree)
        if index is None:
            notebook.passed("copies that show the same history")
            continue
        fork = best.signed and other.signed and best.whole and other.whole
        what = (
            f"it is not what {best.place} has in its place; the log has signed both: two histories were shown"
            if fork
            else f"it is not what {best.place} has in its place"
        )
        notebook.failed(Failure(other.log, index, other.facts.types[index], what, other.place))
    return best


# --- one copy --------------------------------------------------------------------------------------------


def _verified_notes(
    copy: LogCopy, notes: Sequence[SignedNote], member: str | None, policy: LogPolicy, notebook: Notebook
) -> tuple[VerifiedCheckpoint, ...]:
    verified = []
    for note in notes:
        try:
            seen = replace(policy, quorum=0).verify(note)
        except HansaError as error:
            notebook.failed(Failure(log_name(member), None, CHECKPOINT, error.cause, copy.place))
            continue
        verified.append(seen)
        notebook.passed("checkpoints signed by their log")
        notebook.passed("cosignatures", len(seen.cosigned))
    return tuple(verified)


def _quorum(
    copy: LogCopy, verified: Sequence[VerifiedCheckpoint], policy: LogPolicy, notebook: Notebook
) -> VerifiedCheckpoint | None:
    enough = [seen for seen in verified if len(seen.cosigned) >= policy.quorum]
    if enough:
        notebook.passed("checkpoints cosigned by a quorum", len(enough))
        return max(enough, key=lambda seen: seen.checkpoint.size)
    most = max((len(seen.cosigned) for seen in verified), default=0)
    what = f"{most} members have cosigned it and {policy.quorum} are needed: others may have been shown another history"
    notebook.failed(Failure(FEDERATION, None, CHECKPOINT, what, copy.place))
    return None


def _of_own_log(copy: LogCopy, keys: TrustedKeys, agreed: Agreed) -> Keyring:
    """A member's own log spans all agreements that it signed; what it says under others counts by the same keys.

    An entry that is signed with a key from before or after its time is caught where the federation's log has it.
    """
    agreed = replace(agreed, anywhere=True)
    found = {match.decode() for data in copy.lying() for match in _AGREEMENT_ID.findall(data)}
    return Keyring({**dict.fromkeys(sorted(found), agreed), keys.agreement_id: agreed}, keys.officers)


def _verify_entries(
    copy: LogCopy,
    newest: Checkpoint,
    keyring: Keyring,
    member: str | None,
    notebook: Notebook,
    processes: int,
) -> Failure | None:
    try:
        seen = verify_log(copy.entries, newest, keyring, processes=processes)
    except CopyUnreadableError:
        raise
    except HansaError as error:
        found = _locate(copy, newest, keyring)
        if found is None and processes > 1:  # a process may have ended, which says nothing of the log
            return _verify_entries(copy, newest, keyring, member, notebook, 1)
        index, kind, what = found or (None, "", error.cause)
        return Failure(log_name(member), index, kind, what, copy.place)
    notebook.passed("entries in their one form, under their checkpoint", newest.size)
    notebook.passed("signatures of entries", seen.signatures)
    return None


def _check_tiles(log: Examined, notebook: Notebook) -> None:
    """Compare the tiles of hashes in a copy, by which others prove things, with its entries, which are good."""
    missing = 0
    for tile in log.copy.tiles():
        if tile.data is None:
            missing += 1
            continue
        wrong = tile.wrong(log.facts.tree.nodes(tile.level, tile.first, tile.width))
        if wrong is not None:
            entry = tile.first + wrong << tile.level
            over = (
                "its hash"
                if tile.level == 0
                else f"the hash over it and the {(1 << tile.level) - 1} after it"
            )
            what = f"{over} is another one in {tile.path}: the entries are good, the tile was changed or cut"
            notebook.failed(Failure(log.log, entry, log.type_at(entry), what, log.place))
            return
        notebook.passed("tiles of hashes that are those of the entries")
    if missing:
        notebook.not_checked(
            f"{missing} tiles of hashes of {log.log}",
            "the copy lacks them; its entries were hashed anew and need them for nothing",
        )


def _locate(copy: LogCopy, checkpoint: Checkpoint, keyring: Keyring) -> tuple[int, str, str] | None:
    """The first entry that is not what was logged, or may not stand where it stands; slowly, one after the other."""
    stored = list(islice(copy.stored(), checkpoint.size))
    # Hashes that lead to the signed root are the log's own, whoever has changed the entries beside them.
    trusted = len(stored) == checkpoint.size and tree_root(stored) == checkpoint.root
    seen: dict[bytes, int] = {}
    index = -1
    for index, data in enumerate(islice(copy.lying(), checkpoint.size)):
        leaf, kind = leaf_hash(data), ""
        try:
            signed = SignedEntry.parse(data)
            kind = signed.entry.type
            keyring.verify(signed, index)
            if isinstance(signed.entry, AmendmentMade):
                keyring = keyring.amended(signed.entry, index)
        except HansaError as error:
            return index, kind, error.cause
        if leaf in seen:
            return index, kind, f"it is entry {seen[leaf]} again"
        if trusted and leaf != stored[index]:
            return (
                index,
                kind,
                "it is not the entry that was logged here: something was edited, moved or left out",
            )
        seen[leaf] = index
    if index + 1 < checkpoint.size:
        what = f"the copy ends before this entry; its checkpoint covers {checkpoint.size}"
        return index + 1, MISSING, what
    return None


def _tell(log: Examined, newest: Checkpoint, keys: TrustedKeys, notebook: Notebook) -> None:
    named = {VerifierKey.parse(text).name: member for member, text in keys.witnesses.items()}
    cosigned = () if log.quorum is None else tuple(sorted(named[name] for name in log.quorum.cosigned))
    notebook.logs.append(LogSeen(log.log, log.place, log.size, min(newest.size, log.size), cosigned))
    if log.size > newest.size:
        notebook.not_checked(
            f"whether entries {newest.size} to {log.size - 1} of {log.log} stay where they are",
            "no checkpoint covers them yet; their own signatures were checked",
        )
    if log.quorum is not None and log.quorum.checkpoint.size < newest.size:
        notebook.not_checked(
            f"whether others see entries {log.quorum.checkpoint.size} to {newest.size - 1} of {log.log} too",
            "no checkpoint that enough members cosigned covers them yet",
        )
    for dated in log.facts.clocks[:1]:
        more = f", and {len(log.facts.clocks) - 1} times more" if len(log.facts.clocks) > 1 else ""
        notebook.remark(
            log.log,
            dated.entry,
            f"the clock of {dated.writer!r} went back, from {dated.before} to {dated.at}{more}; order is that of the log",
        )
