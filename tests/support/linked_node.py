"""A node at a SuperLink, as a process: `python linked_node.py HOST:PORT ca.crt KEY PLACE`; it answers with twice what it is sent."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from hansa.errors import LinkError
from hansa.identity.link_key import read_link_key
from hansa.wire import Message
from hansa_client.flower_node import Link, LinkTerms


class Doubles:
    def handle(self, request: Message) -> Message:
        if request.text("run") == "fails":
            raise RuntimeError("patient 4711 broke it")
        return Message("doubled", request.body, {name: 2 * array for name, array in request.arrays.items()})


class Place:
    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self) -> int | None:
        return int(self._path.read_text()) if self._path.exists() else None

    def put(self, node_id: int) -> None:
        self._path.write_text(str(node_id))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(address: str, authority: str, key: str, place: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    terms = LinkTerms(address, Path(authority).read_bytes(), read_link_key(Path(key)), Path(place).parent)
    link = Link(terms, Doubles(), Place(Path(place)), _say)
    try:
        link.serve(stop)
    except LinkError as error:
        _say(error.diagnostics())
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main(*sys.argv[1:])
