"""Flower's application with each middleware on its own paths answers whoever comes as the whole one does."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore import sql_mixin
from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.supercore.object_store.object_store_factory import ObjectStoreFactory
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, _parse_superlink_lifespan_config
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.main import create_app

from hansa_server.flower_app.admitted import Admission
from hansa_server.flower_app.carrying import Carrying
from hansa_server.flower_app.objects import kept_in
from hansa_server.flower_app.shorter import (
    OneAtATime,
    Only,
    _stored_by,
    shortened,
    spare_memory,
    spare_writes,
)
from support.superlinks import SuperLink

pytestmark = pytest.mark.filterwarnings(
    "ignore:No path_separator found:DeprecationWarning"
)  # Flower's use of alembic

ROUTES = sorted(PROTOBUF_REQUEST_TYPES)
FORGED = {
    "flwr-public-key-bin": "AAAA", "flwr-timestamp": "2026-01-01T00:00:00+00:00", "flwr-signature-bin": "AAAA",
    "flwr-app-token": "0" * 64, "authorization": "Bearer nobody",
}  # fmt: skip


def application(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As the coordinator starts it, with TLS and node keys, and a database of its own."""
    folder.mkdir()
    monkeypatch.setenv("FLWR_HOME", str(folder / "flower"))
    SuperLink(folder)
    arguments = [
        "flower-superlink", "--isolation", "process", "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", "1",
        "--ssl-certfile", str(folder / "server.crt"), "--ssl-keyfile", str(folder / "server.key"),
        "--ssl-ca-certfile", str(folder / "ca" / "ca.crt"), "--database", str(folder / "superlink.sqlite"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    return create_app(_parse_superlink_lifespan_config(), SuperLinkLifespan)


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return application(tmp_path / "whole", monkeypatch)


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ObjectStoreFactory, "store", ObjectStoreFactory.store)  # put back at the end
    objects = kept_in(tmp_path / "objects")
    flower = application(tmp_path / "short", monkeypatch)
    return Carrying(shortened(flower), Admission(flower), objects)


def answers(app: Any, method: str, path: str) -> list[tuple[int, bytes]]:
    """What a stranger gets: with nothing, with rubbish, with a form that is right, and with proofs that are forged."""
    right = PROTOBUF_REQUEST_TYPES[method, path]().SerializeToString()
    media = {"content-type": PROTOBUF_MEDIA_TYPE}
    sent: list[tuple[bytes, dict[str, str]]] = [
        (b"", {}),
        (b"\xff\xff", media),
        (right, media),
        (right, media | FORGED),
    ]

    async def asked() -> list[tuple[int, bytes]]:
        carrier = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=carrier, base_url="https://superlink") as client:
            told = [
                await client.request(method, path, content=body, headers=headers) for body, headers in sent
            ]
        return [(one.status_code, one.content) for one in told]

    return asyncio.run(asked())


def test_it_is_shorter_and_what_stays_is_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application(tmp_path / "app", monkeypatch)
    before = [one.cls for one in app.user_middleware]
    shortened(app)
    paths = [one.args[0] for one in app.user_middleware if one.cls is Only]
    assert (len(before), len(app.user_middleware)) == (
        9,
        7,
    )  # another number: look at what Flower has changed
    assert paths == ["/v1/control/"] * 4 + ["/v1/fleet/"]


def test_strangers_are_answered_alike_on_every_path(whole: Any, short: Any) -> None:
    assert len(ROUTES) > 40
    for method, path in ROUTES:
        said, meant = answers(short, method, path), answers(whole, method, path)
        if path.startswith("/v1/control/"):  # what it says there has the time in it
            assert [status for status, _ in said] == [status for status, _ in meant], path
        else:
            assert said == meant, path


def test_no_stranger_is_served_as_a_node_or_as_a_runs_process(short: Any) -> None:
    """Control is behind the gate's secret (tests/security/test_superlink_gate.py); Flower alone asks for nothing there."""
    for method, path in ROUTES:
        if path.startswith(("/v1/fleet/", "/v1/runtime/")) and path != "/v1/runtime/acquire-task":
            assert all(status >= 400 for status, _ in answers(short, method, path)), path


def test_the_database_is_worked_on_by_one_thread_at_a_time() -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.gather(*(to_thread.run_sync(work) for _ in range(4)))

    before = sys.getswitchinterval()
    try:
        asyncio.run(OneAtATime(application)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    finally:
        sys.setswitchinterval(before)
    assert (inside, most) == (0, 1)


def state_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Flower's state of the link with a database and a store of objects of its own."""
    folder.mkdir()
    monkeypatch.setattr(ObjectStoreFactory, "store", ObjectStoreFactory.store)  # put back at the end
    kept_in(folder / "objects")
    database = str(folder / "superlink.sqlite")
    return LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database)).state()


def leaf(text: bytes) -> tuple[str, bytes]:
    content = f"ArrayChunk  {len(text)}".encode() + b"\x00" + text
    return hashlib.sha256(content).hexdigest(), content


def rows(state: Any) -> list[list[Any]]:
    """What the database says of pushes: which objects of which sessions are wanted, and how many each counts."""
    with state.session() as session:
        run = session.connection().exec_driver_sql
        asked = (
            "SELECT object_id FROM object_push_session_pending ORDER BY 1",
            "SELECT pending_count FROM object_push_sessions",
        )
        return [[tuple(row) for row in run(one)] for one in asked]


def test_objects_are_stored_by_two_statements_as_they_are_by_eight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = (state_in(tmp_path / name, monkeypatch) for name in ("whole", "short"))
    shortly = _stored_by(SqlCoreState.store_object)
    leaves = [leaf(b"one"), leaf(b"two"), leaf(b"three")]
    tree = ObjectTree(
        object_id=leaf(b"top")[0], children=[ObjectTree(object_id=number) for number, _ in leaves]
    )
    sessions = {}
    for state in (theirs, ours):
        sessions[state] = state.start_session(5)
        state.preregister_object_tree(tree, sessions[state])
    pushes: list[tuple[int, str | None, tuple[str, bytes]]] = [
        (5, None, leaves[0]),
        (5, None, leaves[0]),  # again
        (6, None, leaves[1]),  # of another run
        (5, "other", leaves[1]),
        (5, None, (leaves[1][0], b"another content")),
        (5, None, leaf(b"never announced")),
        (5, "", leaves[1]),  # as nodes did before there were sessions
        (5, None, leaves[2]),
        (5, None, leaf(b"top")),  # the last: nothing more is wanted
        (5, None, leaf(b"top")),
    ]
    told = []
    for run, session, one in pushes:
        meant = theirs.store_object(run, sessions[theirs] if session is None else session, *one)
        said = shortly(ours, run, sessions[ours] if session is None else session, *one)
        assert said == meant, one
        assert rows(ours) == rows(theirs), one
        told.append(said)
    assert told == [True, False, False, False, False, False, True, True, True, False]
    assert rows(ours) == [[], []]


def test_a_session_that_has_expired_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, (number, content) = state_in(tmp_path / "state", monkeypatch), leaf(b"late")
    session = state.start_session(5)
    state.preregister_object_tree(ObjectTree(object_id=number), session)
    with state.session() as database:
        database.connection().exec_driver_sql(
            "UPDATE object_push_sessions SET expires_at = '2020-01-01 00:00:00+00:00'"
        )
    assert not _stored_by(SqlCoreState.store_object)(state, 5, session, number, content)
    assert rows(state) == [[], []]
    assert number not in state.object_store


def test_sessions_that_wait_for_nothing_go_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each announcement that is refused leaves one: a node could fill the disk with them."""
    state = state_in(tmp_path / "state", monkeypatch)
    for name in ("_cleanup_expired_task_tokens", "store_object"):
        monkeypatch.setattr(SqlCoreState, name, getattr(SqlCoreState, name))  # put back at the end
    monkeypatch.setattr(SqlLinkState, "store_traffic", SqlLinkState.store_traffic)
    spare_writes()
    number = leaf(b"waited for")[0]
    late, waited, waiting = (state.start_session(5) for _ in range(3))
    for session in (waited, waiting):
        state.preregister_object_tree(ObjectTree(object_id=number), session)
        number = leaf(b"another")[0]
    with state.session() as database:
        database.connection().exec_driver_sql(
            "UPDATE object_push_sessions SET expires_at = '2020-01-01 00:00:00+00:00' WHERE session_id IN (?, ?)",
            (late, waited),
        )
    state._cleanup_expired_task_tokens()
    with state.session() as database:
        left = database.connection().exec_driver_sql("SELECT session_id FROM object_push_sessions").fetchall()
    assert {row[0] for row in left} == {waited, waiting}


def test_the_database_takes_a_few_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_mixin, "SQLITE_PRAGMAS", vars(sql_mixin)["SQLITE_PRAGMAS"])  # put back at the end
    spare_memory()
    state = state_in(tmp_path / "state", monkeypatch)
    with state.session() as session:
        run = session.connection().exec_driver_sql
        told = [run(f"PRAGMA {name}").scalar() for name in ("cache_size", "mmap_size", "journal_mode")]
    assert told == [-4000, 0, "wal"]
