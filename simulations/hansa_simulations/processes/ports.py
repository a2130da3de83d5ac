"""Ports of this machine for processes that are started, killed and started again."""

from __future__ import annotations

import secrets
import socket
from contextlib import closing, suppress

from hansa.errors import EngineError

# Below 32768, from where Linux gives ports to outgoing connections: nobody gets one of these by chance while the process whose it
# is does not run, and whoever calls it meanwhile does not reach itself.
PORTS = range(20_000, 32_000)
_TRIES = 200


def free_port() -> int:
    """One that nobody listens at now, of `PORTS`.

    Raises:
        EngineError: none was found.
    """
    for _ in range(_TRIES):
        port = secrets.choice(PORTS)
        with suppress(OSError), closing(socket.socket()) as one:
            one.bind(("127.0.0.1", port))
            return port
    raise EngineError(
        f"none of {_TRIES} ports from {PORTS.start} to {PORTS.stop - 1} is free on this machine"
    )
