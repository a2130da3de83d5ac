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

from hansa.canonical import canonical_json
from hansa.errors import EngineError
from hansa.identity import Statement
from hansa.ledger import Aggregate, SignedEntry
from hansa.protocol import bundle_of_reply
from hansa.protocol.history import ENTRIES
from hansa.secagg.bundle import bundle, unbundle
from hansa.secagg.errors import SumVerificationError
from hansa.secagg.messages import SIGNED, VECTOR, Masked
from hansa.wire import Message, array_sha256
from hansa_server import sqlite_journal
from hansa_server.coordinating import RECORDS, RoundRecords
from hansa_server.recomputing import recompute
from hansa_server.sqlite_journal import SqliteJournal
from support.federations import Federation
from support.leagues import frozen_league

NAMES = "abcde"
UPDATES = {name: (lambda w: np.full_like(w, 0.125)) for name in NAMES}
AGREEMENT, BUILT = frozen_league(members=[{"name": name, "units": 30} for name in NAMES])


def absent_once(name: str, request: Message, handle: Callable[[Message], Message]) -> Message | None:
    """One member's vector is missing from the second round."""
    wanted = str(request.body.get("bundle"))
    return None if name == "e" and "secagg.manifest" in wanted and '"round":2' in wanted else handle(request)


def sums(federation: Federation) -> dict[int, str]:
    """As the federation's log has them."""
    entries = (SignedEntry.parse(data).entry for data in federation.log.entries())
    return {entry.round: entry.aggregate_sha256 for entry in entries if isinstance(entry, Aggregate)}


def recomputed(federation: Federation, folder: Path) -> int:
    return recompute(AGREEMENT, [federation.keys.roster], folder, "r", sums(federation))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Federation, Path]:
    folder = tmp_path_factory.mktemp("run")
    federation = Federation(AGREEMENT, BUILT.initial_vector(), UPDATES, absent_once)
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
    assert recomputed(federation, folder) == 4
    after = sorted((path.name, path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    assert {name for name, _ in after} - {name for name, _ in before} <= {
        "journal.sqlite-shm",
        "journal.sqlite-wal",
    }


def test_vectors_in_files_of_their_own_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_journal, "_INLINE_BYTES", 0)
    federation = Federation(AGREEMENT, BUILT.initial_vector(), UPDATES)
    journal = SqliteJournal(tmp_path)
    house = replace(federation.house, records=RoundRecords(tmp_path / RECORDS).add)
    federation.run(journal, house=house)
    journal.close()
    assert recomputed(federation, tmp_path) == 4
    for path in (tmp_path / "replies").iterdir():
        path.unlink()
    with pytest.raises(EngineError):
        recomputed(federation, tmp_path)


def test_a_run_without_a_round_has_nothing_to_recompute(tmp_path: Path, ran: tuple[Federation, Path]) -> None:
    assert recompute(AGREEMENT, [ran[0].keys.roster], tmp_path, "r", {}) == 0


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
    "the last round left out": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:-1])) and None,
    "all left out": lambda path: path.unlink(),
    "a round twice": lambda path: path.write_bytes(2 * path.read_bytes()) and None,
}  # fmt: skip


@pytest.mark.parametrize("what", FALSE)
def test_a_false_record_is_found(what: str, copy: tuple[Federation, Path]) -> None:
    federation, folder = copy
    FALSE[what](folder / RECORDS)
    with pytest.raises(SumVerificationError):
        recomputed(federation, folder)


def test_a_sum_that_is_not_logged_yet_is_the_last(ran: tuple[Federation, Path]) -> None:
    federation, folder = ran
    logged = sums(federation)
    assert recompute(AGREEMENT, [federation.keys.roster], folder, "r", dict(sorted(logged.items())[:-1])) == 4
    assert recompute(AGREEMENT, [federation.keys.roster], folder, "r", None) == 4
    with pytest.raises(SumVerificationError, match="another sum, or none"):
        recompute(AGREEMENT, [federation.keys.roster], folder, "r", dict(sorted(logged.items())[:-2]))
    with pytest.raises(SumVerificationError, match="another sum, or none"):
        recompute(AGREEMENT, [federation.keys.roster], folder, "r", {**logged, 2: "0" * 64})


def test_what_a_kill_has_left_of_a_last_line_is_no_record(copy: tuple[Federation, Path]) -> None:
    federation, folder = copy
    whole = (folder / RECORDS).read_bytes()
    (folder / RECORDS).write_bytes(whole + whole[:100])
    assert recomputed(federation, folder) == 4


def test_a_run_is_recomputed_under_the_keys_that_were_in_force(ran: tuple[Federation, Path]) -> None:
    federation, folder = ran
    now = replace(federation.keys.roster, revoked=frozenset({"e"}))
    assert recompute(AGREEMENT, [federation.keys.roster, now], folder, "r", sums(federation)) == 4
    with pytest.raises(SumVerificationError, match="under terms that are not"):
        recompute(AGREEMENT, [now], folder, "r", sums(federation))


def test_a_member_that_sends_another_vector_beside_its_own_makes_no_honest_sum_false(tmp_path: Path) -> None:
    """What the coordinator refused lies in its journal too."""

    def beside(name: str, request: Message, handle: Callable[[Message], Message]) -> Message:
        reply = handle(request)
        if name != "e" or reply.kind != "summed":
            return reply
        parts, forged = unbundle(bundle_of_reply(reply)), []
        for part in parts:
            if part.kind == Masked.purpose_name:
                line = Statement.parse(part.text(SIGNED))
                said = json.loads(line.data)
                vector = np.zeros_like(part.arrays[VECTOR])
                said["y_sha256"] = array_sha256(vector)
                data = canonical_json(said)
                other = Statement(line.purpose, "e", data, line.signature)
                forged.append(Message(part.kind, {SIGNED: other.line}, {VECTOR: vector}))
        packed = bundle([*forged, *parts])
        rest = {name: array for name, array in reply.arrays.items() if name == ENTRIES}
        return Message(reply.kind, {**reply.body, "bundle": packed.body}, {**packed.arrays, **rest})

    federation = Federation(AGREEMENT, BUILT.initial_vector(), UPDATES, beside)
    journal = SqliteJournal(tmp_path)
    house = replace(federation.house, records=RoundRecords(tmp_path / RECORDS).add)
    federation.run(journal, house=house)
    journal.close()
    assert recomputed(federation, tmp_path) == len(sums(federation)) == 4


def test_what_is_no_record_or_no_journal_is_told(copy: tuple[Federation, Path]) -> None:
    federation, folder = copy
    with closing(sqlite3.connect(folder / "journal.sqlite")) as database, database:
        database.execute("DELETE FROM effects WHERE key LIKE 'r/exchange/%'")
    with pytest.raises(SumVerificationError, match="does not hold the vector"):
        recomputed(federation, folder)
    (folder / "journal.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(EngineError, match="journal"):
        recomputed(federation, folder)
    (folder / RECORDS).write_text("{}\n")
    with pytest.raises(EngineError, match="no record"):
        recomputed(federation, folder)
