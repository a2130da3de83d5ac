"""A league of real processes over TLS: whoever is killed costs time and nothing else.

Ten kills in every run of the tests, and with HANSA_LONG_TESTS=1 sixteen, with nodes that train and more of the coordinator's parts.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from hansa.errors import EngineError, ExitStatus, HansaError, PortError, RunStateError
from hansa.identity import COORDINATOR, Authority
from hansa.identity.errors import CertificateError
from hansa_client.assembly import desk_of
from hansa_client.node_file import read_home as read_node
from hansa_server import supervising
from hansa_server.home import read_home
from hansa_server.runs import ENDED
from hansa_server.sqlite_journal import journal_size
from hansa_server.supervising import Supervisor
from hansa_simulations.bench.chaos import chaos, judge
from hansa_simulations.processes.league import EXEC, LINK, RUN, TRAINS_NOTHING, ProcessLeague
from hansa_simulations.processes.node import TrainsNothing
from support.cli import hansa
from support.processes import real_league
from support.proxies import proxy

pytest.importorskip("torch")
LONG = "HANSA_LONG_TESTS" in os.environ
NAMES = ("north", "harbour", "valley", "mill")
ROUNDS = 8 if LONG else 4
PLAN = [
    ("valley", 0.5),
    ("mill", 1.0),
    (RUN, 0.5),
    ("north", 0.2),
    ("harbour", 1.5),
    ("valley", 0.8),
    (COORDINATOR, 0.5),  # with its SuperLink; what they have started goes by itself
    ("mill", 0.3),
    ("north", 1.2),
    ("harbour", 0.6),
]
MORE = [(LINK, 0.5), ("mill", 0.1), (EXEC, 2.0), (LINK, 0.0), (RUN, 0.0), (COORDINATOR, 1.0)]


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessLeague]:
    folder = tmp_path_factory.mktemp("league")
    # nodes that train load torch within their first phase, all at once, on whatever machine this is
    node, deadline_s = ("", 900.0) if LONG else (TRAINS_NOTHING, 120.0)
    with real_league(folder, NAMES, ROUNDS, node=node, deadline_s=deadline_s) as made:
        yield made


@pytest.mark.timeout(3600)
def test_whoever_is_killed_costs_time_and_nothing_else(league: ProcessLeague) -> None:
    plan = [*PLAN, *MORE] if LONG else PLAN
    found = chaos(league, plan)
    assert sum(found.kills.values()) == len(plan)
    assert set(found.runs.values()) <= {"done", "partial"}
    assert "done" in found.runs.values()
    judge(league, ROUNDS)
    assert "Traceback" not in "".join(map(league.log, NAMES))
    rows = league.runs.all()
    assert sum(len(row.flower_runs) for row in rows) > len(rows)
    assert hansa("run", "resume", "--home", league.home(COORDINATOR)).status == 3  # it has ended


@pytest.mark.skipif(
    not LONG, reason="takes minutes: HANSA_LONG_TESTS=1 runs it; the carrier alone is cut in tests/contract"
)
@pytest.mark.timeout(3600)
def test_a_network_that_is_cut_in_each_exchange_costs_time_and_nothing_else(league: ProcessLeague) -> None:
    """A member's only way to the SuperLink breaks once after each exchange, whatever phase is next."""
    settings = league.home("north") / "node.toml"
    text = settings.read_text()
    with proxy(league.coordinator.listen.port) as between:
        settings.write_text(text.replace(league.address, f"127.0.0.1:{between.port}"))
        try:
            league.start(COORDINATOR, *NAMES)
            league.until(lambda: league.run("start"))
            folder, cuts = league.coordinator.runs / league.row().run, 0
            while league.row().state not in ENDED:
                if journal_size(folder) > cuts:
                    cuts = journal_size(folder)
                    between.cut()
                    time.sleep(0.5)
                    between.mend()
                time.sleep(0.02)
        finally:
            settings.write_text(text)
            league.stop()
    assert (league.row().state, league.row().note) == ("done", "")
    assert between.accepted > cuts > ROUNDS
    judge(league, ROUNDS)


def test_the_judge_notices_a_model_that_is_another_and_a_round_that_was_charged_twice(
    league: ProcessLeague, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (league.coordinator.runs / row.run for row in league.runs.all())
    model = next(folder / "model.npy" for folder in folders if (folder / "model.npy").exists())
    kept = model.read_bytes()
    model.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(EngineError, match="not what its journal gives"):
        judge(league, ROUNDS)
    model.write_bytes(kept)
    entries = league.entries
    monkeypatch.setattr(league, "entries", lambda name: [*entries(name), *entries(name)])
    with pytest.raises(EngineError, match="twice"):
        judge(league, ROUNDS)


def test_every_sum_of_the_run_is_recomputed_from_what_its_folder_keeps(league: ProcessLeague) -> None:
    asked = ("run", "recompute", "--home", str(league.home(COORDINATOR)))
    called = hansa(*asked)
    assert (called.status, called.stderr) == (0, "")
    assert f"{ROUNDS} sums recomputed" in called.stdout
    folder = league.coordinator.runs / league.row().run
    assert not (folder / "spool").exists()  # the journal has them
    records = folder / "rounds.jsonl"
    kept = records.read_bytes()
    at = kept.index(b'"aggregate_sha256":"') + len(b'"aggregate_sha256":"')
    records.write_bytes(kept[:at] + (b"1" if kept[at : at + 1] == b"0" else b"0") + kept[at + 1 :])
    try:
        called = hansa(*asked)
        assert called.status == ExitStatus.VERIFICATION_FAILED
        assert called.stderr.startswith("HANSA-724")
    finally:
        records.write_bytes(kept)


def test_the_private_keys_are_read_by_their_owners_alone(league: ProcessLeague) -> None:
    private = [
        path for path in league.folder.rglob("*") if path.suffix in {".key", ".secret"} and path.is_file()
    ]
    assert len(private) >= 4 * len(NAMES)
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    texts = [path.read_bytes() for path in private]
    for log in league.folder.rglob("*.log"):
        assert not any(text in log.read_bytes() for text in texts)


def test_a_port_in_use_and_a_second_coordinator_are_told(
    league: ProcessLeague, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "_PORT_IS_FREED_S", 0.1)
    home = read_home(league.home(COORDINATOR))
    with closing(socket.socket()) as other:
        # connections of the league may linger there
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((home.listen.host, home.listen.port))
        other.listen()
        with pytest.raises(PortError) as told:
            Supervisor(home, lambda _: None).serve(Event(), lambda _: None)
        assert told.value.exit_status == ExitStatus.CONNECTION
        with supervising._only_one(home.state), pytest.raises(RunStateError, match="running in"):
            Supervisor(home, lambda _: None).serve(Event(), lambda _: None)


def test_two_nodes_on_one_ledger_are_told(league: ProcessLeague) -> None:
    home = read_node(league.home("north"))
    with desk_of(home, training_of=lambda *_: TrainsNothing()):
        second = desk_of(home, training_of=lambda *_: TrainsNothing())
        with pytest.raises(HansaError, match="in use by another process") as told:
            second.__enter__()
    assert told.value.exit_status != ExitStatus.DONE


@pytest.mark.parametrize("wrong", ["expired", "revoked", "foreign"])
def test_a_coordinators_certificate_that_does_not_count_is_told_before_anybody_listens(
    league: ProcessLeague, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, told = (
        league.home(COORDINATOR),
        {"expired": "not now", "revoked": "revoked", "foreign": "authority"},
    )
    kept = {name: (home / name).read_bytes() for name in ("ca.crt", "ca.crl")}
    now = datetime.now(UTC)
    if wrong == "expired":
        later = type("Later", (datetime,), {"now": classmethod(lambda _, __: now + timedelta(days=9000))})
        monkeypatch.setattr(supervising, "datetime", later)
    elif wrong == "revoked":
        shutil.copytree(league.folder / "ca", tmp_path / "ca")
        certificate = league.folder / f"{COORDINATOR}.crt"
        assert hansa("ca", "revoke", tmp_path / "ca", "--certificate", certificate).status == 0
        (home / "ca.crl").write_bytes((tmp_path / "ca" / "ca.crl").read_bytes())
    else:
        Authority.create("Another consortium", now).save(tmp_path / "other", now)
        for name in kept:
            (home / name).write_bytes((tmp_path / "other" / name).read_bytes())
    try:
        with pytest.raises(CertificateError) as refused:
            Supervisor(read_home(home), lambda _: None)
    finally:
        for name, data in kept.items():
            (home / name).write_bytes(data)
    assert told[wrong] in refused.value.diagnostics()
