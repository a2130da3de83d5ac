"""Sums of a run recomputed from its journal: what holds, and what a coordinator could have changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hansa.errors import EngineError
from hansa.secagg.errors import SumVerificationError
from hansa.wire import Message
from hansa_server import sqlite_journal
from hansa_server.coordinating import RECORDS, RoundRecords
from hansa_server.recomputing import recompute
from hansa_server.sqlite_journal import SqliteJournal
from support.federations import Federation
from support.leagues import frozen_league

NAMES = "abcde"
AGREEMENT, BUILT = frozen_league(members=[{"name": name, "units": 30} for name in NAMES])


def absent_once(name: str, request: Message, handle: Callable[[Message], Message]) -> Message | None:
    """One member's vector is missing from the second round."""
    wanted = str(request.body.get("bundle"))
    return None if name == "e" and "secagg.manifest" in wanted and '"round":2' in wanted else handle(request)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, Path]:
    folder = tmp_path_factory.mktemp("run")
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
    federation = Federation(AGREEMENT, BUILT.initial_vector(), updates, absent_once)
    journal = SqliteJournal(folder)
    house = replace(federation.house, records=RoundRecords(folder / RECORDS).add)
    outcome = federation.run(journal, house=house)
    journal.close()
    assert [len(one.present) for one in outcome.rounds] == [5, 4, 5, 5]
    return federation, folder


@pytest.fixture
def copy(ran: tuple[Federation, Path], tmp_path: Path) -> tuple[Federation, Path]:
    """The folder of the run, to be changed."""
    federation, folder = ran
    for path in folder.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    return federation, tmp_path


def test_every_sum_is_the_one_of_its_record(ran: tuple[Federation, Path]) -> None:
    federation, folder = ran
    before = sorted((path.name, path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    assert recompute(AGREEMENT, federation.keys.roster, folder, "r") == 4
    after = sorted((path.name, path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    assert {name for name, _ in after} - {name for name, _ in before} <= {
        "journal.sqlite-shm",
        "journal.sqlite-wal",
    }


def test_vectors_in_files_of_their_own_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_journal, "_INLINE_BYTES", 0)
    updates = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
    federation = Federation(AGREEMENT, BUILT.initial_vector(), updates)
    journal = SqliteJournal(tmp_path)
    house = replace(federation.house, records=RoundRecords(tmp_path / RECORDS).add)
    federation.run(journal, house=house)
    journal.close()
    assert recompute(AGREEMENT, federation.keys.roster, tmp_path, "r") == 4
    for path in (tmp_path / "replies").iterdir():
        path.unlink()
    with pytest.raises(EngineError):
        recompute(AGREEMENT, federation.keys.roster, tmp_path, "r")


def test_a_run_without_a_round_has_nothing_to_recompute(tmp_path: Path, ran: tuple[Federation, Path]) -> None:
    assert recompute(AGREEMENT, ran[0].keys.roster, tmp_path, "r") == 0


def changed(field: str, change: Callable[[object], object]) -> Callable[[Path], None]:
    def change_second(path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        lines[1][field] = change(lines[1][field])
        path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))

    return change_second


FALSE: dict[str, Callable[[Path], None]] = {
    "another sum": changed("aggregate_sha256", lambda _: "0" * 64),
    "another seed": changed("self_seeds", lambda seeds: {**seeds, "a": "0" * 64}),  # type: ignore[dict-item]
    "a vector less": changed("masked", lambda masked: masked[1:]),  # type: ignore[index]
    "another run": changed("run", lambda _: "s"),
    "a round left out": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[::2])) and None,
    "a round twice": lambda path: path.write_bytes(2 * path.read_bytes()) and None,
}  # fmt: skip


@pytest.mark.parametrize("what", FALSE)
def test_a_false_record_is_found(what: str, copy: tuple[Federation, Path]) -> None:
    federation, folder = copy
    FALSE[what](folder / RECORDS)
    with pytest.raises(SumVerificationError):
        recompute(AGREEMENT, federation.keys.roster, folder, "r")


def test_what_is_no_record_or_no_journal_is_told(copy: tuple[Federation, Path]) -> None:
    federation, folder = copy
    with closing(sqlite3.connect(folder / "journal.sqlite")) as database, database:
        database.execute("DELETE FROM effects WHERE key LIKE 'r/exchange/%'")
    with pytest.raises(SumVerificationError, match="does not hold the vector"):
        recompute(AGREEMENT, federation.keys.roster, folder, "r")
    (folder / "journal.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(EngineError, match="journal"):
        recompute(AGREEMENT, federation.keys.roster, folder, "r")
    (folder / RECORDS).write_text("{}\n")
    with pytest.raises(EngineError, match="no record"):
        recompute(AGREEMENT, federation.keys.roster, folder, "r")
