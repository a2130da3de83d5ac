"""A member's ledger under ``kill -9``: whatever was acknowledged before the process died is there when it is opened.

A child writes under SQLite and tells its parent of each call that came back; the parent kills it at a random instant. Instants
are counted in what was told, not in seconds, so that kills fall everywhere on fast and on slow machines.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from hansa.ledger import Release, RunClosed, SignedEntry, SqliteLogStore
from hansa.privacy.composition import RenyiFilter
from support import budgets
from support.ledgers import AGREEMENT
from support.members import PROTECTION, TRAINING, budget, opened, release, sign

KILLS, LEDGERS = 60, 5  # a new ledger now and then keeps the reading of it short
LONGEST = 12  # calls that come back before a kill: somewhat more than two runs
SHORT_S = 0.01  # a little longer, at random, so that kills fall between two calls too
WIDE = budgets.grant(60.0, RenyiFilter(8))
FORK = multiprocessing.get_context("fork")  # the parent has imported all that a child needs


def member(path: Path, told: Connection) -> None:
    """Open the ledger and spend until the end, telling of every entry once it is acknowledged."""
    store = SqliteLogStore(path)
    ledger = opened(store)
    told.send(b"")
    if ledger.log.size == 0:
        ledger.grant(budget(limits=WIDE))
        told.send(ledger.log.entry(0))
    told.send(sign(ledger).encoded)
    while True:
        run = f"run-{secrets.token_hex(4)}"
        told.send(ledger.reserve(AGREEMENT, run, [TRAINING], PROTECTION).encoded)
        for number in range(1, 4):
            told.send(release(ledger, number, run=run).encoded)
        done = ledger.close(AGREEMENT, run)
        assert done is not None
        told.send(done.encoded)


def acknowledged(path: Path, least: int = 0, most: int = LONGEST) -> list[bytes]:
    """What a member said was on disk before it was killed, which is after so many calls came back."""
    here, there = FORK.Pipe(duplex=False)
    child = FORK.Process(target=member, args=(path, there))
    child.start()
    there.close()
    said: list[bytes] = []
    try:
        assert here.recv() == b""
        said.extend(here.recv() for _ in range(least + secrets.randbelow(most - least + 1)))
        time.sleep(secrets.randbelow(1000) / 1000 * SHORT_S)
    finally:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert child.exitcode == -signal.SIGKILL
    while True:
        try:
            said.append(here.recv())
        except EOFError:
            here.close()
            return said


def test_no_acknowledged_spend_is_missing_after_a_kill_at_any_instant(tmp_path: Path) -> None:
    counts: Counter[type] = Counter()
    sizes: Counter[Path] = Counter()
    for number in range(KILLS):
        path = tmp_path / f"ledger-{number % LEDGERS}.sqlite"
        if not path.exists():
            SqliteLogStore.create(path).close()
        said = acknowledged(path)
        store = SqliteLogStore(path)
        ledger = opened(store)
        released: Counter[str] = Counter()
        for data in said:
            assert ledger.holds(data)
            entry = SignedEntry.parse(data).entry
            counts[type(entry)] += 1
            if isinstance(entry, Release):
                released[entry.run] += entry.spends[0].count
        assert all(ledger.book.released(run) >= count for run, count in released.items())
        new = sum((ledger.place_of(data) or 0) >= sizes[path] for data in said)
        assert new <= ledger.log.size - sizes[path] <= new + 1  # at most the entry that was being said
        sizes[path] = ledger.log.size
        spent = sum(spend.count for spend in ledger.book.spent()) if ledger.log.size else 0
        open_ = [run for run in ledger.runs() if b'"type":"closed"' not in ledger.entries_of(run)[-1]]
        assert spent >= len(open_) * TRAINING.count  # what is open counts in full
        store.close()
    assert counts[Release] > 10
    assert counts[RunClosed] > 0


def test_a_killed_member_gives_its_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    SqliteLogStore.create(path).close()
    acknowledged(path)
    SqliteLogStore(path).close()


@pytest.mark.parametrize("crashes", [20])
def test_a_member_killed_while_it_signs_for_the_first_time_begins_once(tmp_path: Path, crashes: int) -> None:
    """A grant and an agreement stand in the log at most once, however often the start is cut short."""
    path = tmp_path / "ledger.sqlite"
    SqliteLogStore.create(path).close()
    for _ in range(crashes):
        acknowledged(path, most=2)
    acknowledged(path, least=2)
    store = SqliteLogStore(path)
    entries = [SignedEntry.parse(data).entry.type for data in opened(store).log.entries()]
    assert entries[:2] == ["budget", "agreement"]
    assert (entries.count("budget"), entries.count("agreement")) == (1, 1)
    store.close()
