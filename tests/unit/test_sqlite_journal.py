"""The journal on disk: what an effect gave is there for the next process, whole or not at all."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from hansa.errors import EngineError
from hansa.wire import Message
from hansa_server.coordinating import RoundRecords
from hansa_server.runs import Runs
from hansa_server.sqlite_journal import SqliteJournal


def replies(size: int) -> dict[str, Message]:
    return {
        name: Message("summed", {"from": name}, {"y": np.arange(size, dtype="<u4") * factor})
        for factor, name in enumerate(("b", "a"), 1)
    }


@pytest.mark.parametrize("size", [3, 40_000])
def test_replies_come_back_in_their_order_and_effects_happen_once(tmp_path: Path, size: int) -> None:
    given = replies(size)
    first = SqliteJournal(tmp_path)
    assert first.once("exchange/1", lambda: given) is given
    assert first.once("checkpoint/1", lambda: "note") == "note"
    first.close()
    again = SqliteJournal(tmp_path)

    def never() -> dict[str, Message]:
        raise AssertionError("it happened before")

    kept = again.once("exchange/1", never)
    assert list(kept) == ["b", "a"]
    assert all(kept[name] == given[name] for name in given)
    assert again.once("checkpoint/1", lambda: "another") == "note"
    again.close()
    assert bool(list((tmp_path / "replies").iterdir())) is (size > 1000)


def test_an_effect_that_raises_keeps_nothing(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)

    def fails() -> str:
        raise EngineError("the carrier failed")

    with pytest.raises(EngineError):
        journal.once("k", fails)
    assert journal.once("k", lambda: "now") == "now"
    with pytest.raises(TypeError):
        journal.once("other", lambda: 7)
    assert journal.once("other", lambda: "text") == "text"
    journal.close()


def test_a_full_disk_is_told_and_what_was_not_kept_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = SqliteJournal(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EngineError, match="No space left") as told:
            journal.once("exchange/1", lambda: replies(40_000))
    assert "Make room" in told.value.diagnostics()
    kept = journal.once("exchange/1", lambda: replies(40_000))
    assert sorted(kept) == sorted(replies(40_000))
    journal.close()


def test_a_reply_whose_file_changed_is_told(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.once("exchange/1", lambda: replies(40_000))
    journal.close()
    path = next((tmp_path / "replies").iterdir())
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    again = SqliteJournal(tmp_path)
    kept = again.once("exchange/1", dict)
    with pytest.raises(EngineError, match="has changed"):
        [kept[name] for name in kept]
    path.unlink()
    with pytest.raises(EngineError, match="cannot be used"):
        [kept[name] for name in kept]
    again.close()


def test_a_file_that_is_no_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(EngineError, match="cannot be used"):
        SqliteJournal(tmp_path)


def test_a_run_is_interrupted_where_nobody_holds_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    run = runs.begin("a" * 64, 5)
    assert runs.one().state == "starting"
    with runs.held(run, 0.0):
        runs.tell(run, "running", round_number=2, members={"north": "here"})
        assert (runs.one(run[:20]).state, runs.one().round, runs.alive(run)) == ("running", 2, True)
    assert runs.one().state == "interrupted"
    runs.carried(run, "17")
    assert (runs.one().state, runs.one().flower_runs) == ("starting", ("17",))
    runs.ask_to_stop(run)
    assert runs.asked_to_stop(run)
    runs.tell(run, "done", round_number=5)
    assert runs.one().state == "done"
    with sqlite3.connect(tmp_path / "runs.sqlite") as database:
        database.execute("UPDATE runs SET state = 'starting', changed = '2026-01-01T00:00:00+00:00'")
    database.close()
    assert runs.one().state == "interrupted"  # it never began


def test_what_a_kill_left_of_a_line_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b"')

    class Record:
        def model_dump_json(self) -> str:
            return '{"b": 2}'

    for _ in range(2):
        records = RoundRecords(path)
        records.add(Record())  # type: ignore[arg-type]
        records.add(Record())  # type: ignore[arg-type]
    assert path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
