"""The register of a coordinator's runs: what each is doing, and which Flower runs carried it.

One SQLite file that commands, the coordinator and the process of a run all write. Whether a run is alive is not what the
file says, but whether a process holds the lock in the run's folder: one that was killed holds none.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from hansa.errors import EngineError, RunStateError

State: TypeAlias = Literal[
    "starting", "running", "waiting", "stopping", "interrupted", "done", "partial", "stopped"
]
ENDED: tuple[State, ...] = ("done", "partial", "stopped")
_FILE = "runs.sqlite"
_STARTS_WITHIN_S = 180.0
_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, agreement_id TEXT NOT NULL, state TEXT NOT NULL, created TEXT NOT NULL, changed TEXT NOT NULL,
    round INTEGER NOT NULL DEFAULT 0, rounds INTEGER NOT NULL, phase TEXT NOT NULL DEFAULT '', note TEXT NOT NULL DEFAULT '',
    members TEXT NOT NULL DEFAULT '{}', stop INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS flower_runs (run TEXT NOT NULL, flower_run TEXT NOT NULL, started TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS exchanges (
    run TEXT NOT NULL, phase TEXT NOT NULL, count INTEGER NOT NULL, seconds REAL NOT NULL, sent_bytes INTEGER NOT NULL,
    received_bytes INTEGER NOT NULL, PRIMARY KEY (run, phase)
) STRICT;
CREATE TABLE IF NOT EXISTS attendance (run TEXT PRIMARY KEY, members TEXT NOT NULL) STRICT;
"""
Attendance: TypeAlias = Mapping[str, Literal["present", "late", "absent"]]


@dataclass(frozen=True)
class Exchanged:
    """What exchanges of one phase cost, together.

    Attributes:
        phase: of the secure sum, or the kind of request.
        seconds: from the first request to the last answer that was waited for.
        sent_bytes, received_bytes: of wire messages, over all members.
        count: of exchanges.
    """

    phase: str
    seconds: float
    sent_bytes: int
    received_bytes: int
    count: int = 1


@dataclass(frozen=True)
class Watched:
    """What is counted of a run, for those who watch.

    Attributes:
        phases: by phase, in the order in which each came first.
        attendance: who answered in the last exchange; ``late`` had a place and did not answer in time.
    """

    phases: tuple[Exchanged, ...]
    attendance: Attendance


@dataclass(frozen=True)
class RunRow:
    """A run, as the register has it.

    Attributes:
        run: its name.
        agreement_id: that it runs under.
        state: what it is doing; ``interrupted`` where its process is gone.
        created, changed: times, ISO 8601 in UTC.
        round, rounds: finished, and planned.
        phase: of the sum in hand.
        note: what it waits for, or why it ended.
        members: state by member, as the coordinator sees it.
        flower_runs: the Flower runs that carried it, in order.
    """

    run: str
    agreement_id: str
    state: State
    created: str
    changed: str
    round: int
    rounds: int
    phase: str
    note: str
    members: dict[str, str]
    flower_runs: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The row as plain JSON values."""
        return {**self.__dict__, "flower_runs": list(self.flower_runs)}


class Runs:
    """The register.

    Args:
        folder: of all runs; made where it is not there.

    Raises, here and in every call:
        EngineError: it cannot be used, for example because the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._open() as database:
                database.executescript("PRAGMA journal_mode = WAL;" + _TABLES)
        except OSError as error:
            raise self._broken(error.strerror or str(error)) from None

    def folder(self, run: str) -> Path:
        """Where a run keeps its things."""
        return self._folder / run

    def begin(self, agreement_id: str, rounds: int) -> str:
        """Register a new run; its name."""
        run, now = f"{agreement_id[:16]}-{secrets.token_hex(8)}", _now()
        try:
            self.folder(run).mkdir(mode=0o700)
        except OSError as error:
            raise self._broken(error.strerror or str(error)) from None
        with self._open() as database:
            database.execute(
                "INSERT INTO runs (run, agreement_id, state, created, changed, rounds) VALUES (?, ?, 'starting', ?, ?, ?)",
                (run, agreement_id, now, now, rounds),
            )
        return run

    def carried(self, run: str, flower_run: str) -> None:
        """Note that a Flower run was started for a run."""
        with self._open() as database:
            database.execute("INSERT INTO flower_runs VALUES (?, ?, ?)", (run, flower_run, _now()))
            database.execute("UPDATE runs SET state = 'starting', changed = ? WHERE run = ?", (_now(), run))

    def reopen(self, run: str) -> None:
        """Have a run that has ended be carried once more."""
        with self._open() as database:
            database.execute(
                "UPDATE runs SET state = 'starting', stop = 0, changed = ? WHERE run = ?", (_now(), run)
            )

    def tell(
        self,
        run: str,
        state: State,
        *,
        note: str = "",
        round_number: int | None = None,
        phase: str | None = None,
        members: dict[str, str] | None = None,
    ) -> None:
        """Say what a run is doing."""
        with self._open() as database:
            database.execute(
                "UPDATE runs SET state = ?, note = ?, changed = ?, round = coalesce(?, round), "
                "phase = coalesce(?, phase), members = coalesce(?, members) WHERE run = ?",
                (
                    state,
                    note,
                    _now(),
                    round_number,
                    phase,
                    None if members is None else json.dumps(members),
                    run,
                ),
            )

    def in_phase(self, run: str, phase: str) -> None:
        """Say which phase a run is in."""
        with self._open() as database:
            database.execute("UPDATE runs SET phase = ? WHERE run = ?", (phase, run))

    def exchanged(self, run: str, cost: Exchanged, attendance: Attendance) -> None:
        """Count an exchange."""
        with self._open() as database:
            database.execute(
                "INSERT INTO exchanges VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run, phase) DO UPDATE SET "
                "count = count + excluded.count, seconds = seconds + excluded.seconds, "
                "sent_bytes = sent_bytes + excluded.sent_bytes, received_bytes = received_bytes + excluded.received_bytes",
                (run, cost.phase, cost.count, cost.seconds, cost.sent_bytes, cost.received_bytes),
            )
            database.execute(
                "INSERT OR REPLACE INTO attendance VALUES (?, ?)", (run, json.dumps(dict(attendance)))
            )

    def watched(self, run: str) -> Watched:
        """What was counted of a run, by all the processes that carried it."""
        with self._open() as database:
            phases = database.execute(
                "SELECT phase, seconds, sent_bytes, received_bytes, count FROM exchanges WHERE run = ? ORDER BY rowid",
                (run,),
            ).fetchall()
            row = database.execute("SELECT members FROM attendance WHERE run = ?", (run,)).fetchone()
        return Watched(
            tuple(Exchanged(*phase) for phase in phases), {} if row is None else json.loads(row[0])
        )

    def ask_to_stop(self, run: str) -> None:
        """Have a run stop at the next moment at which it can."""
        with self._open() as database:
            database.execute("UPDATE runs SET stop = 1, changed = ? WHERE run = ?", (_now(), run))

    def asked_to_stop(self, run: str) -> bool:
        """Whether somebody has."""
        with self._open() as database:
            row = database.execute("SELECT stop FROM runs WHERE run = ?", (run,)).fetchone()
        return row is not None and bool(row[0])

    def all(self) -> list[RunRow]:
        """All runs, the newest first."""
        with self._open() as database:
            carried: dict[str, list[str]] = {}
            for run, flower_run in database.execute("SELECT run, flower_run FROM flower_runs ORDER BY rowid"):
                carried.setdefault(run, []).append(flower_run)
            rows = database.execute(
                "SELECT run, agreement_id, state, created, changed, round, rounds, phase, note, members FROM runs "
                "ORDER BY rowid DESC"
            ).fetchall()
        return [self._row(row, carried.get(row[0], ())) for row in rows]

    def one(self, run: str | None = None) -> RunRow:
        """A run by its name or the beginning of it; the newest where none is named.

        Raises:
            RunStateError: there is none, or several begin so.
        """
        found = [row for row in self.all() if run is None or row.run.startswith(run)]
        if not found:
            raise RunStateError("there is no such run", remedy="See `hansa run list`.")
        if run is not None and len(found) > 1:
            raise RunStateError(f"{len(found)} runs begin with {run}", remedy="Name more of it.")
        return found[0]

    def alive(self, run: str) -> bool:
        """Whether a process is working on a run."""
        try:
            with self.held(run, 0.0):
                return False
        except RunStateError:
            return True

    @contextmanager
    def held(self, run: str, wait_s: float) -> Iterator[None]:
        """Be the only process that works on a run.

        Raises:
            RunStateError: another one does, and goes on to after `wait_s` seconds.
        """
        handle = os.open(self.folder(run) / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait_s
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise RunStateError(
                            f"run {run} is being worked on", remedy="See `hansa run list`."
                        ) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    def _row(
        self, row: tuple[str, str, str, str, str, int, int, str, str, str], carried: Sequence[str]
    ) -> RunRow:
        run, agreement_id, state, created, changed, number, rounds, phase, note, members = row
        known: State = next(one for one in get_args(State) if one == state)
        # a Flower run that was asked for takes some seconds to begin, during which nobody holds the lock yet
        begun = (datetime.now(UTC) - datetime.fromisoformat(changed)).total_seconds()
        expected = known == "starting" and begun < _STARTS_WITHIN_S
        if known not in ENDED and not expected and not self.alive(run):
            known = self._ended(run) or "interrupted"  # it may have ended since the row was read
        return RunRow(
            run, agreement_id, known, created, changed, number, rounds, phase, note, json.loads(members),
            tuple(carried),
        )  # fmt: skip

    def _ended(self, run: str) -> State | None:
        with self._open() as database:
            (state,) = database.execute("SELECT state FROM runs WHERE run = ?", (run,)).fetchone()
        return next((one for one in ENDED if one == state), None)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._folder / _FILE, timeout=10)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise self._broken(str(error)) from None

    def _broken(self, reason: str) -> EngineError:
        return EngineError(
            f"the register of runs in {self._folder} cannot be used: {reason}",
            remedy="Make room on the disk or correct the permissions, then `hansa run resume`.",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
