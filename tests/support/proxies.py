"""A network between two processes that can be cut: a TCP proxy on the loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress


class Proxy:
    """Forwards bytes to a port of this machine, until it is cut.

    Args:
        target: the port behind it.
    """

    def __init__(self, target: int) -> None:
        self._target, self._whole = target, threading.Event()
        self._whole.set()
        self._muted = threading.Event()
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break what is open, and let nothing new through."""
        self._whole.clear()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mute(self) -> None:
        """Lose what comes back from the target, though what goes there arrives."""
        self._muted.set()

    def mend(self) -> None:
        """Let everything through again."""
        self._muted.clear()
        self._whole.set()

    def close(self) -> None:
        """End it."""
        self.cut()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            if not self._whole.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self.accepted += 1
            for one, other, back in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._forward, args=(one, other, back), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket, back: bool) -> None:
        self._open.add(one)
        with closing(one), suppress(OSError):
            while data := one.recv(65_536):
                if not (back and self._muted.is_set()):
                    other.sendall(data)
        self._open.discard(one)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    made = Proxy(target)
    try:
        yield made
    finally:
        made.close()
