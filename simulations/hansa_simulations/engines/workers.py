"""Worker processes of the local engine: each holds some members and answers for them."""

from __future__ import annotations

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

from hansa.errors import EngineError
from hansa.wire import Message
from hansa_simulations.league import League


class Workers:
    """Processes that hold a league's members, `names[i]` in process i modulo `count`.

    Raises:
        EngineError: a worker died.
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

    def handle(self, request: Message) -> Message:
        """Answer a request; `EngineError` if the worker is gone."""
        with self._lock:
            try:
                self._connection.send((self._name, request.kind, dict(request.body), dict(request.arrays)))
                kind, body, arrays = self._connection.recv()
            except (EOFError, OSError):
                raise EngineError(f"the worker process of member {self._name!r} ended") from None
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
