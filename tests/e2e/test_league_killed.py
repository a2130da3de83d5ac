"""A league of real processes over TLS: a member and the coordinator are killed, and the run ends as if they had not been."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hansa.identity import COORDINATOR
from hansa.ledger import LogView, SignedEntry, SqliteLogStore
from hansa.ledger.kinds import Kind
from hansa_server.home import read_home
from support.cli import hansa
from support.processes import RealLeague

pytest.importorskip("torch")
# `tests/contract/test_flower_node.py` kills nodes and a SuperLink in every run of the tests
pytestmark = pytest.mark.skipif(
    "HANSA_LONG_TESTS" not in os.environ, reason="takes minutes: HANSA_LONG_TESTS=1 runs it"
)
NAMES = ("north", "harbour", "valley", "mill")


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealLeague]:
    made = RealLeague(tmp_path_factory.mktemp("league"), NAMES, rounds=8)
    made.enrol()
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait()


def releases(league: RealLeague, name: str) -> list[int]:
    """The rounds that a member's own ledger has released in."""
    store = SqliteLogStore(league.home(name) / "state" / "ledger.sqlite", read_only=True)
    entries = [SignedEntry.parse(data).entry for data in LogView(store).entries()]
    store.close()
    return [entry.round for entry in entries if entry.type == "release"]


def logged(league: RealLeague) -> list[Kind]:
    """The entries of the federation's log."""
    store = SqliteLogStore(read_home(league.home(COORDINATOR)).log, read_only=True)
    entries = [SignedEntry.parse(data).entry for data in LogView(store).entries()]
    store.close()
    return entries


@pytest.mark.timeout(900)
def test_a_killed_member_and_a_killed_coordinator_cost_time_and_nothing_else(league: RealLeague) -> None:
    home = league.home(COORDINATOR)
    league.start(COORDINATOR, *NAMES)
    league.until(lambda: "The league meets" in league.log(COORDINATOR))
    assert hansa("run", "start", "--home", home).status == 0
    league.until(lambda: league.row().round >= 1)
    # one of four can be missed; of two that are gone none can, and the run waits and says for whom
    league.kill("valley")
    before = league.row().round
    league.until(lambda: league.row().round > before)
    league.kill("mill")
    league.until(lambda: league.row().state == "waiting", 90)
    assert "mill" in league.row().note
    league.start("valley", "mill")
    paused = league.row().round
    league.until(lambda: league.row().round > paused)
    # the whole coordinator, with its SuperLink and the process of the run
    league.kill(COORDINATOR)
    league.until(lambda: league.row().state == "interrupted")
    assert hansa("run", "resume", "--home", home).status == 5  # nothing listens yet
    league.start(COORDINATOR)
    league.until(lambda: league.log(COORDINATOR).count("The league meets") == 2)
    assert hansa("run", "resume", "--home", home).status == 0
    league.until(lambda: league.row().state == "done", 180)
    row = league.row()
    assert (row.round, len(row.flower_runs)) == (8, 2)
    summed = [entry for entry in logged(league) if entry.type == "aggregate"]
    assert len(summed) == 8
    for name in NAMES:
        numbers = releases(league, name)
        assert len(numbers) == len(set(numbers))  # nothing was charged twice
        assert {entry.round for entry in summed if name in entry.released} <= set(numbers)
    assert len(releases(league, "north")) <= 8 + 3
    assert hansa("run", "resume", "--home", home).status == 3
    audit(league)
    assert set(league.stop().values()) == {0}
    assert "Traceback" not in "".join(map(league.log, NAMES))


def audit(league: RealLeague) -> None:
    """The logs that are left prove the run, and the model is the replay of its logged sums."""
    coordinator = read_home(league.home(COORDINATOR))
    run = coordinator.runs / league.row().run
    logs = [str(league.home(name) / "state" / "ledger.sqlite") for name in NAMES]
    called = hansa(
        "audit", "verify", run / "federation", run / "rounds.jsonl", *logs, "--keys", league.folder / "keys.json",
        "--format", "json",
    )  # fmt: skip
    assert called.status == 0, called
    assert len((run / "rounds.jsonl").read_text().splitlines()) == 8
    model = np.load(run / "model.npy", allow_pickle=False)
    assert np.isfinite(model).all()
    assert not np.array_equal(model, np.load(coordinator.model_zero))


def test_the_private_keys_are_read_by_their_owners_alone(league: RealLeague) -> None:
    private = [
        path for path in league.folder.rglob("*") if path.suffix in {".key", ".secret"} and path.is_file()
    ]
    assert len(private) >= 4 * len(NAMES)
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    texts = [(path.read_bytes()) for path in private]
    for log in league.folder.rglob("*.log"):
        assert not any(text in log.read_bytes() for text in texts)


def test_a_port_in_use_and_a_second_coordinator_are_told(league: RealLeague, tmp_path: Path) -> None:
    from support.superlinks import superlink

    home = league.home(COORDINATOR)
    with superlink(tmp_path) as other:
        text = (home / "coordinator.toml").read_text()
        (home / "coordinator.toml").write_text(text.replace(str(read_home(home).listen), other.address))
        try:
            league.start(COORDINATOR)
            assert league.processes.pop(COORDINATOR).wait(60) == 5
        finally:
            (home / "coordinator.toml").write_text(text)
    assert "HANSA-507" in league.log(COORDINATOR)
