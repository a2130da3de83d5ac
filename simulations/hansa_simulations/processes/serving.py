"""The process of a run, for a bench: `python -m hansa_simulations.processes.serving HOME ENTRIES NOOPS`.

It takes the place that Flower's `flwr-serverapp` has at the SuperLink, and does what `hansa_server.flower_app.serverapp` does, so
that exchanges that do nothing go over the very connections that the run's go over. Tells a JSON line for each thing measured.
"""

from __future__ import annotations

import json
import secrets
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from hansa.errors import EngineError
from hansa.wire import Message
from hansa_server.coordinating import coordinate, links_of
from hansa_server.flower_app.control import public_pem
from hansa_server.flower_app.league import LeagueMembers, Patience
from hansa_server.flower_app.league_grid import LeagueGrid
from hansa_server.home import read_home
from hansa_server.members import Members
from hansa_server.runs import Runs
from hansa_server.supervising import carry, control_of

_DEADLINE_S = 300.0


def main(folder: Path, entries: int, noops: int) -> None:
    """Exchange nothing a few times, carry a run, and exchange nothing again."""
    home = read_home(folder)
    runs, agreement = _ToldRuns(home.runs), home.agreement
    run = runs.begin(agreement.agreement_id, agreement.terms.training.rounds)
    with control_of(home) as control:
        carry(control, runs, run)
    authority = home.path(home.settings.authority).read_bytes()
    with (
        taken(f"127.0.0.1:{home.listen.port}", authority) as grid,
        closing(LeagueGrid(grid, runs.folder(run), home.reply_bytes)) as own,
    ):
        names = {public_pem(key): name for name, key in links_of(home).items()}
        patience = Patience(len(names), 60.0, 15.0)
        league = LeagueMembers(own, names, patience, lambda *_: None, lambda: False)
        _noop(league, list(names.values()), 1)  # everybody is there
        _tell(idle=True)
        if sys.stdin.readline() == "":  # until whoever measures has looked
            return
        _tell(noop_s=[_noop(league, list(names.values()), entries) for _ in range(noops)])
        runs.at = time.monotonic()
        coordinate(home, runs, run, lambda _: _Timed(league))
        _tell(noop_s=[_noop(league, list(names.values()), entries) for _ in range(noops)])
    row = runs.one(run)
    _tell(state=row.state, note=row.note)


@contextmanager
def taken(address: str, authority: bytes) -> Iterator[Grid]:
    """The Grid of the run that waits at a SuperLink, in this process."""
    interceptors = [RuntimeVersionHttpInterceptor(component_name="SuperExec")]
    with RuntimeHttpClient.from_server_address(
        address, insecure=False, root_certificates=authority, interceptors=interceptors
    ) as client:
        given = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP.value]))
    grid = HttpGrid(address, insecure=False, root_certificates=authority, token=given.token)
    client = vars(type(grid))["_runtime_client"].fget(grid)
    task = client.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
    TaskIdentity.node_id = task.context.node_id
    grid.set_run(run_from_proto(task.run))
    beating = HeartbeatSender(make_task_heartbeat_fn_http(client))
    beating.start()
    try:
        yield grid
    finally:
        beating.stop()
        grid.close()


def _noop(league: LeagueMembers, names: list[str], entries: int) -> float:
    """Seconds of an exchange of this many numbers there and back, with nothing done to them."""
    numbers = np.frombuffer(secrets.token_bytes(4 * entries), dtype="<u4")
    request = Message("noop", {"run": secrets.token_hex(4), "entries": entries}, {"u": numbers})
    started = time.monotonic()
    replies = league.exchange(dict.fromkeys(names, request), _DEADLINE_S)
    if len(replies) != len(names):
        raise EngineError(f"{len(replies)} of {len(names)} nodes answered an exchange that does nothing")
    return time.monotonic() - started


class _Timed:
    """Members, and a line for each exchange with them."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        """See `Members.exchange`."""
        started = time.monotonic()
        replies = self._members.exchange(requests, deadline_s)
        sent = sum(request.payload_bytes for request in requests.values())
        came = [reply.payload_bytes for reply in replies.values()]
        _tell(
            exchange_s=time.monotonic() - started,
            sent=sent,
            came=sum(came),
            typical=statistics.median(came or [0]),
        )
        return replies


class _ToldRuns(Runs):
    """A register that tells how long each round took."""

    at = 0.0

    def tell(self, run: str, state: Any, **changes: Any) -> None:
        """See `Runs.tell`."""
        super().tell(run, state, **changes)
        if changes.get("round_number") and state == "running":
            now = time.monotonic()
            _tell(round=changes["round_number"], seconds=now - self.at)
            self.at = now


def _tell(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
