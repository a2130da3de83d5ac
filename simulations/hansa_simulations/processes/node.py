"""A node that trains nothing, as a process: `python -m hansa_simulations.processes.node HOME`.

All else is a member's: the home, the policy, the ledger, the mirror, the secure sum, the place at the SuperLink. A request of
kind ``noop`` gets as many bytes as it asks for, for what the carrier alone costs.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.observing.logs import LogFormat, log_to
from hansa.privacy.randomness import Randomness
from hansa.privacy.rotation import Rotation
from hansa.wire import Message
from hansa_client.assembly import desk_of
from hansa_client.desk import Desk
from hansa_client.linking import link_of
from hansa_client.node_file import NodeHome, read_home

Vector = npt.NDArray[np.float64]


class TrainsNothing:
    """Stands where a trainer would: an update of zeros, at once."""

    def train(
        self,
        weights: Vector,
        randomness: Randomness,  # noqa: ARG002  # the port's
        rotation: Rotation | None = None,  # noqa: ARG002
        adapted: Vector | None = None,  # noqa: ARG002
    ) -> Vector:
        """See `hansa_client.node.LocalTraining`."""
        return np.zeros_like(weights)


class AlsoEchoes:
    """A member's desk, and beside it an answer that costs nothing but its bytes.

    Args:
        desk: of the member.
        seed: other bytes than every other node's: what is equal travels once.
    """

    def __init__(self, desk: Desk, seed: int) -> None:
        self._desk, self._seed = desk, seed
        self._made: dict[int, npt.NDArray[np.uint32]] = {}

    def handle(self, request: Message) -> Message:
        """Answer a request."""
        if request.kind != "noop":
            return self._desk.handle(request)
        length = request.integer("entries")
        if length not in self._made:
            self._made = {
                length: np.random.default_rng(self._seed).integers(0, 2**32, length, dtype=np.uint32)
            }
        made = self._made[length]
        made[:1] += 1
        return Message("noop", {"run": request.text("run")}, {"u": made.astype("<u4", copy=True)})


def main(home: Path) -> None:
    """Serve until SIGTERM."""
    log_to(logging.StreamHandler(), LogFormat.TEXT, only="hansa")
    logging.getLogger("hansa").propagate = False  # Flower's own handler would tell it twice
    node, stop = read_home(home), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    failed: list[BaseException] = []
    thread = threading.Thread(target=_serve, args=(node, stop, failed), daemon=True)
    thread.start()
    while not stop.wait(0.2):
        pass
    thread.join(30.0)
    if failed:
        raise failed[0]


def _serve(node: NodeHome, stop: threading.Event, failed: list[BaseException]) -> None:
    try:
        with desk_of(node, training_of=_nothing) as desk:
            seed = int.from_bytes(hashlib.sha256(node.settings.name.encode()).digest()[:4], "big")
            link_of(node, AlsoEchoes(desk, seed)).serve(stop)
    except BaseException as error:  # noqa: BLE001  # handed to the main thread
        failed.append(error)
    finally:
        stop.set()


def _nothing(_home: NodeHome, _agreement: Agreement) -> TrainsNothing:
    return TrainsNothing()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
