"""The way of a question through Flower's application, without the stations that have nothing to do on it.

Flower 1.41 takes each request through nine middlewares, one around the other, and each costs about as much as the work: those
of control look at every question of a node, and find that it is none of control's. Here a middleware stands in the way of the paths that it acts
on, and of no others. What acts on a path is what acted on it before.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from anyio import to_thread
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore import sql_mixin
from flwr.supercore.constant import OBJECT_PUSH_SESSION_TTL_SECONDS
from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.supercore.date import now as flowers_now
from flwr.supercore.routers.runtime.tracing import RuntimeTracingMiddleware
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.routers.control.middlewares import (
    ControlAuthenticationMiddleware,
    ControlEventLogMiddleware,
    ControlLicenseMiddleware,
    ControlSensitiveResponseMiddleware,
)
from flwr.superlink.routers.fleet.middlewares import FleetEventLogMiddleware
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware

from hansa_server.flower_app.asgi import App, Receive, Scope, Send

# each of them passes what is not under its path on, as it is
_ACT_ON: dict[Any, str] = {
    ControlSensitiveResponseMiddleware: "/v1/control/",
    ControlAuthenticationMiddleware: "/v1/control/",
    ControlLicenseMiddleware: "/v1/control/",
    ControlEventLogMiddleware: "/v1/control/",
    NodeAuthMiddleware: "/v1/fleet/",
}
# they act where plugins of Flower's enterprise release are there, or tracing was asked for; neither is in a league
_IDLE = (FleetEventLogMiddleware, RuntimeTracingMiddleware)
_CLEANED_EVERY_S = 1.0
_SWITCH_S = 0.0005
_CLAIM = "DELETE FROM object_push_session_pending WHERE session_id = ? AND object_id = ?"
_REFRESH = """
UPDATE object_push_sessions SET pending_count = pending_count - 1, expires_at = ?
WHERE session_id = ? AND run_id = ? AND expires_at > ? RETURNING pending_count
"""
_END = "DELETE FROM object_push_sessions WHERE session_id = ?"
_END_IDLE = "DELETE FROM object_push_sessions WHERE pending_count = 0 AND expires_at <= ?"


class Only:
    """A middleware for the paths that begin so; others pass it by.

    Args:
        app: behind it.
        prefix: of paths.
        made: makes the middleware around `app`.
    """

    def __init__(self, app: App, prefix: str, made: Callable[[App], App]) -> None:
        self._app, self._prefix, self._inner = app, prefix, made(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        on_it = scope["type"] != "http" or str(scope["path"]).startswith(self._prefix)
        await (self._inner if on_it else self._app)(scope, receive, send)


class OneAtATime:
    """Work on the database by one thread, and an interpreter that goes to whoever waits sooner.

    FastAPI works in up to forty threads. They are of no use where a database takes one writer and an interpreter one thread:
    they wait for each other, and the loop that reads requests waits for them, 5 ms at a time.

    Args:
        app: around which.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's start and end."""
        if scope["type"] == "lifespan":
            to_thread.current_default_thread_limiter().total_tokens = 1
            sys.setswitchinterval(_SWITCH_S)
        await self._app(scope, receive, send)


def shortened(app: Any) -> App:
    """Flower's application, before it is started, with each middleware on its own paths.

    Args:
        app: of FastAPI; its list of middlewares is changed.
    """
    app.user_middleware = [_placed(one) for one in app.user_middleware if one.cls not in _IDLE]
    made: App = app
    return made


def _placed(one: Any) -> Any:
    """An entry of the list of middlewares."""
    prefix = _ACT_ON.get(one.cls)
    if prefix is None:
        return one
    return type(one)(Only, prefix, lambda app: one.cls(app, *one.args, **one.kwargs))


def spare_writes() -> None:
    """Have Flower write to its database what somebody reads.

    It looks for tasks whose process is silent at each request, and that writes: here once a second. Then also sessions of pushes go that wait
    for nothing and have expired: a refused announcement leaves one, and Flower keeps it until the run ends. It counts the bytes of each
    object for its own list of runs, in a transaction of its own: a run of Hansa's counts its bytes itself (`ObservedMembers`).
    """
    cleaned, lock = SqlCoreState._cleanup_expired_task_tokens, threading.Lock()  # noqa: SLF001
    last = [0.0]

    def seldom(state: SqlCoreState) -> None:
        with lock:
            now = time.monotonic()
            if now - last[0] < _CLEANED_EVERY_S:
                return
            last[0] = now
        cleaned(state)
        with state.session() as session:
            session.connection().exec_driver_sql(_END_IDLE, (_as_text(flowers_now()),))

    state: Any = SqlCoreState
    state._cleanup_expired_task_tokens = seldom  # noqa: SLF001
    state.store_object = _stored_by(SqlCoreState.store_object)
    SqlLinkState.store_traffic = lambda *_, **__: None  # type: ignore[method-assign]


def spare_memory() -> None:
    """Have Flower's database take a few megabytes, however large it becomes: by itself it keeps 64 MB of pages and maps 256 MB of its file."""
    module: Any = sql_mixin
    told = dict(module.SQLITE_PRAGMAS) | {"cache_size": "-4000", "mmap_size": "0"}
    module.SQLITE_PRAGMAS = tuple(told.items())


def _stored_by(flowers: Any) -> Callable[[Any, int, str, str, Any], bool]:
    """Flower's `store_object` where all is in order: two statements in place of eight, through no ORM.

    A push that no session waits for, one whose session has expired, and whatever fails is left to Flower, which then finds the database
    as it was.
    """

    def store_object(state: Any, run_id: int, session_id: str, object_id: str, object_content: Any) -> bool:
        done = False
        with suppress(Exception), state.session() as session:
            run = session.connection().exec_driver_sql
            at = flowers_now()
            until = at + timedelta(seconds=OBJECT_PUSH_SESSION_TTL_SECONDS)
            if run(_CLAIM, (session_id, object_id)).rowcount != 1:
                raise _NotInOrderError
            mark = _as_text(until), session_id, uint64_to_int64(run_id), _as_text(at)
            pending = run(_REFRESH, mark).first()
            if pending is None or object_id not in state.object_store:
                raise _NotInOrderError
            state.object_store.put(object_id, object_content)
            if pending[0] == 0:
                run(_END, (session_id,))
            done = True
        return done or bool(flowers(state, run_id, session_id, object_id, object_content))

    return store_object


def _as_text(at: datetime) -> str:
    """As Flower's database holds it."""
    return at.isoformat(sep=" ")


class _NotInOrderError(Exception):
    """Leaves the database as it was."""
