"""Keeping a mirror up to date: once, or for as long as a process runs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from hansa.following.errors import LedgerServiceError
from hansa.following.mirror import LogMirror, News, Standing
from hansa.ledger.checkpoint import Checkpoint
from hansa.ledger.errors import CosignatureQuorumError, LogVerificationError
from hansa.ledger.note import SignedNote

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_ASK_S = 60.0  # how long entries wait before somebody asks whether an older checkpoint was cosigned


class Source(Protocol):
    """Where news of one log come from."""

    def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
        """What comes after so many entries, at least one piece; ends when all was sent, if `once`.

        Raises:
            LedgerServiceError: the source cannot be reached, or no longer.
            NoteFormatError: it sends what is no checkpoint.
        """

    def cosigned(self, cosignatures: int) -> SignedNote | None:
        """The newest checkpoint with at least so many cosignatures, valid or not; `None` where there is none."""


@dataclass(frozen=True)
class Patience:
    """How long what is missing may be missing.

    Attributes:
        reconnect_s: for a source that was there and is gone.
        cosigned_s: for a quorum of cosignatures of what the log has signed.
    """

    reconnect_s: float = 300.0
    cosigned_s: float = 86_400.0


PATIENCE = Patience()


def follow(
    source: Source,
    mirror: LogMirror,
    *,
    once: bool,
    tell: Callable[[Standing], None],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    patience: Patience = PATIENCE,
) -> Standing:
    """Take news until something is wrong, or, with `once`, until all was taken.

    Args:
        source: is believed in nothing.
        mirror: what is known.
        once: end when the source has sent all that it has.
        tell: told after each checkpoint that is held in full.
        clock: seconds, monotonic.
        sleep: waits so many seconds.
        patience: without `once`.

    Raises:
        LedgerServiceError: the source cannot be reached, or not any more for longer than `patience` allows.
        CosignatureQuorumError: nothing that the log holds was cosigned by a quorum, or the newest of it not in time.
        HansaError: what `LogMirror.take` finds wrong.
    """
    watch = _Watch(source, mirror, clock, patience.cosigned_s)
    pause, lost_at, connected = _FIRST_PAUSE_S, 0.0, False
    while True:
        try:
            with closing(_taken(source, mirror, once=once)) as standings:
                for standing in standings:
                    pause, connected = _FIRST_PAUSE_S, True
                    lost_at = clock()
                    if standing.size == standing.sealed:
                        tell(standing)
                    if not once:
                        watch.look(standing)
            if once:
                return _with_quorum(source, mirror)
            connected, lost_at = True, clock()
        except LedgerServiceError:
            if once or not connected or clock() - lost_at > patience.reconnect_s:
                raise
        sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _taken(source: Source, mirror: LogMirror, *, once: bool) -> Generator[Standing, None, None]:
    """What the mirror holds after each piece."""
    pieces = 0
    with closing(source.follow(mirror.standing.size, once=once)) as news:
        for piece in news:
            pieces += 1
            yield mirror.take(piece)
    if not pieces:
        raise LogVerificationError("the source shows no checkpoint of the log")


def _with_quorum(source: Source, mirror: LogMirror) -> Standing:
    """The mirror, with the newest checkpoint that a quorum has cosigned."""
    standing = mirror.standing
    if standing.sealed > standing.size:
        raise LogVerificationError(
            f"the source sent {standing.size} of {standing.sealed} entries that the log has signed"
        )
    standing = _asked(source, mirror)
    if not standing.by and mirror.quorum:
        raise CosignatureQuorumError(
            f"no checkpoint of {mirror.origin!r} is cosigned by {mirror.quorum} members: others may be shown another log"
        )
    return standing


def _asked(source: Source, mirror: LogMirror) -> Standing:
    """The mirror, after asking for cosignatures that came when a newer checkpoint had been signed already."""
    standing = mirror.standing
    if standing.cosigned < standing.size or not standing.by:
        note = source.cosigned(mirror.quorum)
        if note is not None and Checkpoint.parse(note.text).size <= standing.size:
            return mirror.cosigned(note)
    return standing


class _Watch:
    """For how long entries have waited for a quorum."""

    def __init__(
        self, source: Source, mirror: LogMirror, clock: Callable[[], float], patience_s: float
    ) -> None:
        self._source, self._mirror, self._clock, self._patience_s = source, mirror, clock, patience_s
        self._since = self._asked = clock()
        self._cosigned = 0

    def look(self, standing: Standing) -> None:
        """Look at the clock.

        Raises:
            CosignatureQuorumError: it has waited too long.
        """
        now = self._clock()
        if standing.cosigned < standing.sealed and now - self._asked > min(_ASK_S, self._patience_s):
            standing, self._asked = _asked(self._source, self._mirror), now
        if standing.cosigned >= standing.sealed or standing.cosigned > self._cosigned:
            self._since, self._cosigned = now, standing.cosigned
        elif now - self._since > self._patience_s:
            raise CosignatureQuorumError(
                f"{standing.sealed - standing.cosigned} entries of {self._mirror.origin!r} have waited longer than "
                f"{self._patience_s:g} s for {self._mirror.quorum} cosignatures"
            )
