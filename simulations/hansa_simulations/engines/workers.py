"""Worker processes of the local engine: each holds some members and answers for them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import numpy as np
import torch

from hansa.protocol import PolicyCode, refusal
from hansa.wire import Message
from hansa_simulations.league import League

_LOG = logging.getLogger("hansa.simulation")


class Workers:
    """Processes that hold a league's members, `names[i]` in process i modulo `count`.

    A worker that dies takes its members with it: from then on they are absent, and the run goes on without them
    while enough are left.
    """

    def __init__(self, league: League, names: Sequence[str], count: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads can hang
        self._workers = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(league, theirs, count), daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours, threading.Lock()))
        self._place: Mapping[str, int] = {name: i % count for i, name in enumerate(names)}

    def node(self, name: str) -> RemoteNode:
        """A stand-in for a member's node."""
        _, connection, lock = self._workers[self._place[name]]
        return RemoteNode(name, connection, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection, _ in self._workers:
            connection.close()  # the worker's next read ends it
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


class RemoteNode:
    """Passes requests to a node in a worker process."""

    def __init__(self, name: str, connection: Connection, lock: threading.Lock) -> None:
        self._name = name
        self._connection = connection
        self._lock = lock
        self._gone = False

    def handle(self, request: Message) -> Message:
        """Answer a request; a member whose worker is gone is absent."""
        with self._lock:
            try:
                self._connection.send((self._name, request.kind, dict(request.body), dict(request.arrays)))
                kind, body, arrays = self._connection.recv()
            except (EOFError, OSError):
                if not self._gone:
                    _LOG.error("the worker process of member %s ended; it is absent from now on", self._name)
                self._gone = True
                return refusal(request, PolicyCode.ABSENT)
        return Message(kind, body, arrays)


def _serve(league: League, connection: Connection, workers: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a person's interrupt is for the coordinator, which closes the pipe
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    while True:
        try:
            name, kind, body, arrays = connection.recv()
        except EOFError:
            return
        reply = league.node(name).handle(Message(kind, body, arrays))
        connection.send((reply.kind, dict(reply.body), {n: np.asarray(a) for n, a in reply.arrays.items()}))
