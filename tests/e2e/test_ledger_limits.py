"""Where a member's ledger stops it: its budget has run out, its disk is full, all else of it was deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.errors import BudgetRefusedError, ExitStatus
from hansa.ledger import LogView, SqliteLogStore
from hansa.privacy.forecast import forecast
from hansa.protocol import PolicyCode
from hansa.report import read_report
from hansa.wire import Message
from support.cli import Called, hansa, league_on_disk
from support.durable import DurableFederation, Left, ledger_path, opened, store_at
from support.leagues import TERMS, frozen_league

ENOUGH, TOO_LITTLE = 1000.0, 10.0  # a run asks for 17
FOURTH = '[[members]]\nname = "d"\nunits = 30\n\n[data]'


@pytest.fixture(scope="module")
def four() -> tuple[Agreement, np.ndarray]:
    """Four members, of whom three are enough."""
    members = [{"name": name, "units": 30} for name in "abcd"]
    agreement, built = frozen_league(members=members)
    return agreement, built.initial_vector()


def simulate(folder: Path, out: str, home: Path) -> Called:
    """A run of the league whose data lie in a folder."""
    return hansa(
        "simulate", folder / "agreement.toml", "--data", folder, "--members-home", home, "--out", folder / out,
        "--format", "json",
    )  # fmt: skip


def budget(home: Path, name: str) -> dict:
    """What a member's ledger says, whatever else is there."""
    (dataset,) = hansa("node", "budget", "--ledger", ledger_path(home, name), "--format", "json").data[
        "datasets"
    ]
    return dataset


def entries(home: Path, name: str) -> list[bytes]:
    """A member's log."""
    with closing(SqliteLogStore(ledger_path(home, name), read_only=True)) as store:
        return list(LogView(store).entries())


class TestABudgetThatRunsOut:
    def test_stops_the_member_before_it_trains_and_the_federation_goes_on(self, tmp_path, four) -> None:
        agreement, start = four
        granted = {"a": TOO_LITTLE, "b": ENOUGH, "c": ENOUGH, "d": ENOUGH}
        left: list[Left] = []
        with DurableFederation(agreement, start, tmp_path, granted, left.append) as federation:
            outcome = federation.run()
            assert (outcome.stopped_because, outcome.state.round) == (None, 4)
            assert {name: one.calls for name, one in federation.trainings.items()} == {
                "a": 0,
                "b": 4,
                "c": 4,
                "d": 4,
            }
            assert federation.types("a") == ["budget", "agreement"]  # nothing was reserved, nothing spent
            (quote,) = federation.book("a").quotes()
            assert quote.used == 0
        assert [record.absent for record in outcome.rounds] == [{"a": PolicyCode.BUDGET}] * 4
        assert {one.member for one in left if one.what == "masked"} == {"b", "c", "d"}

    def test_at_all_members_ends_the_run_cleanly(self, tmp_path, four) -> None:
        agreement, start = four
        with DurableFederation(agreement, start, tmp_path, TOO_LITTLE) as federation:
            outcome = federation.run()
            assert (outcome.stopped_by, outcome.state.round) == ("rule", 0)
            assert "budget" in (outcome.stopped_because or "")
            assert all(one.calls == 0 for one in federation.trainings.values())
            assert all(federation.types(name) == ["budget", "agreement"] for name in "abcd")

    def test_is_told_by_the_forecast_and_by_the_run_alike(self, tmp_path, four) -> None:
        """What does not fit by the forecast is what the run refuses."""
        agreement, start = four
        with DurableFederation(
            agreement, start, tmp_path, {"a": TOO_LITTLE, **dict.fromkeys("bcd", 17.0)}
        ) as run:
            noise = agreement.require_frozen().noise_multiplier
            fits = {name: forecast(agreement.terms, run.book(name), noise).fits for name in "abcd"}
            run.run()
            assert fits == {"a": False, "b": True, "c": True, "d": True}
            assert {name: "reservation" in run.types(name) for name in "abcd"} == fits

    def test_through_the_command_line_one_member_stays_away_and_status_is_0(self, tmp_path) -> None:
        agreement = league_on_disk(tmp_path, terms=TERMS.replace("[data]", FOURTH, 1))
        agreement.write_text(agreement.read_text().replace('c = "c.csv" }', 'c = "c.csv", d = "a.csv" }'))
        home = tmp_path / "home"
        assert simulate(tmp_path, "first", home).status == ExitStatus.DONE
        before = entries(home, "a")
        for name in "bcd":  # members with data that were never used
            shutil.rmtree(home / name)
        called = simulate(tmp_path, "second", home)
        assert (called.status, called.data["status"]) == (ExitStatus.DONE, "done")
        report = read_report(tmp_path / "second" / "report.json")
        assert {member.name: member.rounds_present for member in report.members} == {
            "a": 0,
            "b": 4,
            "c": 4,
            "d": 4,
        }
        assert all(entry.absent == {"a": PolicyCode.BUDGET} for entry in report.round_log)
        assert entries(home, "a") == before


@pytest.mark.parametrize("kept", ["federation-*.sqlite", "ledger.sqlite.lock"])
def test_a_ledger_alone_that_is_deleted_is_not_begun_anew(tmp_path, kept) -> None:
    """The copy of the federation's log beside it knows what was released."""
    league_on_disk(tmp_path)
    home = tmp_path / "home"
    assert simulate(tmp_path, "first", home).status == ExitStatus.DONE
    others = {name: entries(home, name) for name in "bc"}
    for path in (home / "a").iterdir():
        if not path.match(kept):
            path.unlink() if path.is_file() else shutil.rmtree(path)
    called = simulate(tmp_path, "second", home)
    assert called.status == ExitStatus.REFUSED
    error = called.envelope["error"]
    assert error["code"] == "HANSA-752"
    assert "the ledger of 'a' is gone" in error["cause"]
    assert "Put ledger.sqlite back" in error["remedy"]
    assert not ledger_path(home, "a").exists()
    assert {name: entries(home, name) for name in "bc"} == others


class TestEverythingButTheLedgerIsDeleted:
    @pytest.fixture
    def spent(self, tmp_path: Path) -> Path:
        """A home whose members have spent what they had."""
        league_on_disk(tmp_path)
        home = tmp_path / "home"
        assert simulate(tmp_path, "first", home).status == ExitStatus.DONE
        assert [budget(home, name)["runs"][0]["state"] for name in "abc"] == ["closed"] * 3
        return home

    def test_and_the_budget_is_still_spent(self, tmp_path, spent) -> None:
        before = {name: budget(spent, name) for name in "abc"}
        gone = [path for path in spent.glob("*/*") if path.name != "ledger.sqlite"]
        assert len(gone) >= 3 * 4
        for path in gone:
            path.unlink() if path.is_file() else shutil.rmtree(path)
        called = simulate(tmp_path, "second", spent)
        assert (called.status, called.data["status"]) == (ExitStatus.REFUSED, "partial")
        assert "a (budget-spent), b (budget-spent), c (budget-spent)" in called.data["stopped_because"]
        assert {name: budget(spent, name) for name in "abc"} == before

    def test_and_with_the_keys_gone_too_nothing_is_added_to_it(self, tmp_path, spent) -> None:
        before = {name: budget(spent, name) for name in "abc"}
        for path in [spent / "identities.json", *spent.glob("*/*")]:
            if path.name != "ledger.sqlite":
                path.unlink()
        called = simulate(tmp_path, "second", spent)
        assert called.status == ExitStatus.REFUSED
        assert called.envelope["error"]["code"] == BudgetRefusedError.code
        assert "stays spent" in called.envelope["error"]["cause"]
        assert not (tmp_path / "second").exists()
        assert {name: budget(spent, name) for name in "abc"} == before

    def test_a_copy_of_the_ledger_elsewhere_says_the_same(self, tmp_path, spent) -> None:
        (tmp_path / "copy" / "a").mkdir(parents=True)
        shutil.copy(ledger_path(spent, "a"), tmp_path / "copy" / "a")
        assert budget(tmp_path / "copy", "a") == budget(spent, "a")


class TestADiskThatIsFull:
    """SQLite is kept from growing, which fails like a disk without room: in the middle of an append."""

    @pytest.fixture
    def filled(self, tmp_path: Path, four) -> Iterator[tuple[DurableFederation, list[Left]]]:
        agreement, start = four
        left: list[Left] = []
        with DurableFederation(agreement, start, tmp_path, ENOUGH, left.append) as federation:

            def between(name: str, _request: Message) -> None:
                if name == "a" and "release" in federation.types("a"):
                    fill(federation)

            federation.between = between
            yield federation, left

    def test_leaves_the_old_state_and_the_member_is_absent(self, tmp_path, filled) -> None:
        federation, left = filled
        outcome = federation.run()
        assert (outcome.stopped_because, outcome.state.round) == (None, 4)
        absent = [record.number for record in outcome.rounds if "a" in record.absent]
        assert absent
        assert all(set(record.absent) <= {"a"} for record in outcome.rounds)
        assert absent == list(range(absent[0], 5))  # once a write failed it says no more
        types = federation.types("a")
        assert types[:3] == ["budget", "agreement", "reservation"]
        assert set(types[3:]) == {"release"}
        federation.close()
        with closing(store_at(tmp_path, "a")) as store:
            LogView(store).check()
            ledger = opened(store, federation.identities, "a")
            mine = [one for one in left if one.member == "a"]
            assert all(ledger.own.place_of(one.sha256) is not None for one in mine if one.what == "entry")
            sent = {one.round: one.sha256 for one in mine if one.what == "masked"}
            assert sent
            for number, digest in sent.items():
                release = ledger.own.released_in(federation.run_name, number)
                assert release is not None
                assert release.y_sha256 == digest
            # nobody closed the run: all of it counts
            assert ledger.own.closed(federation.run_name) is None
            assert sum(spend.count for spend in ledger.book.spent()) == 8

    def test_once_there_is_room_the_member_takes_part_again(self, tmp_path, filled, four) -> None:
        federation, _ = filled
        federation.run()
        federation.close()
        agreement, start = four
        with DurableFederation(agreement, start, tmp_path, ENOUGH) as again:
            outcome = again.run()
            assert [record.absent for record in outcome.rounds] == [{}] * 4
            assert again.types("a").count("reservation") == 2
            (quote,) = again.book("a").quotes()
            (whole,) = again.book("b").quotes()
            assert quote.used >= whole.used


def fill(federation: DurableFederation) -> None:
    """Let the ledger of the first member grow no further."""
    store = federation.stores["a"]
    assert isinstance(store, SqliteLogStore)
    (pages,) = store._database.one("PRAGMA page_count") or (0,)
    store._database.one(f"PRAGMA max_page_count = {pages}")
