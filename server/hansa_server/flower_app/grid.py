"""The coordinator's end of the Flower carrier: a ServerApp, and the league reached through its Grid."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from flwr.app import Context, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.serverapp import Grid, ServerApp

from hansa.agreement import Agreement
from hansa.errors import EngineError, WireError
from hansa.protocol import hello_request, read_hello
from hansa.wire import Message
from hansa_flower.records import MESSAGE_TYPE, Decode, Encode, from_records, to_records
from hansa_server.members import Members

_POLL_S = 0.01  # Flower's own send_and_receive sleeps 3 s between pulls

_LOG = logging.getLogger("hansa.coordinator")


class GridMembers:
    """`hansa_server.members.Members` over a Flower Grid.

    Args:
        grid: of the running ServerApp.
        agreement: whose members are looked for.
        run: the run's name.
        encode, decode: between wire messages and Flower records.
        stop: set from outside to interrupt an exchange.
    """

    def __init__(
        self,
        grid: Grid,
        agreement: Agreement,
        run: str,
        *,
        encode: Encode = to_records,
        decode: Decode = from_records,
        stop: threading.Event | None = None,
    ) -> None:
        self._grid = grid
        self._encode, self._decode = encode, decode
        self._stop = stop or threading.Event()
        self._stopped = False
        self._nodes = self._find(agreement, run)

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        by_node = {self._nodes[name]: request for name, request in requests.items() if name in self._nodes}
        names = {node: name for name, node in self._nodes.items()}
        return {names[node]: reply for node, reply in self._ask(by_node, deadline_s).items()}

    def _find(self, agreement: Agreement, run: str) -> Mapping[str, int]:
        """Ask every node who it is. Two nodes of one name are a fault that no run should go on with."""
        request = hello_request(agreement, run)
        wanted = {member.name for member in agreement.terms.members}
        until = time.monotonic() + agreement.terms.training.deadline_s
        while len(nodes := list(self._grid.get_node_ids())) < len(wanted) and time.monotonic() < until:
            self._pause()
        found: dict[str, int] = {}
        for node, reply in self._ask(
            dict.fromkeys(nodes, request), agreement.terms.training.deadline_s
        ).items():
            try:
                name = read_hello(request, reply)
            except WireError as error:
                _LOG.warning("node %(flower_node)d: %(error)s", {"flower_node": node, "error": error})
                continue
            if name in found:
                raise EngineError(f"two nodes say that they are member {name!r}")
            if name in wanted:
                found[name] = node
        return found

    def _ask(self, requests: Mapping[int, Message], deadline_s: float) -> dict[int, Message]:
        if self._stopped:
            return {}
        until = time.monotonic() + deadline_s
        contents: dict[int, RecordDict] = {}  # one encoding for a request that goes to many
        for request in requests.values():
            if id(request) not in contents:
                contents[id(request)] = self._encode(request)
        sent = [
            FlowerMessage(contents[id(request)], dst_node_id=node, message_type=MESSAGE_TYPE, ttl=deadline_s)
            for node, request in requests.items()
        ]
        waiting = set(self._grid.push_messages(sent))
        replies: dict[int, Message] = {}
        while waiting:
            in_time = (
                time.monotonic() < until
            )  # looked at before pulling: what has arrived by now still counts
            for message in self._pull(waiting):
                waiting.discard(message.metadata.reply_to_message_id)
                node = message.metadata.src_node_id
                if message.has_error() or not len(message.content):
                    continue  # absence: an empty record, or Flower's own error
                try:
                    replies[node] = self._decode(message.content)
                except WireError as error:
                    _LOG.warning("node %(flower_node)d: %(error)s", {"flower_node": node, "error": error})
            if not in_time:
                break
            if waiting:
                self._pause()
        return replies

    def _pull(self, waiting: Iterable[str]) -> Iterable[FlowerMessage]:
        return list(self._grid.pull_messages(list(waiting)))

    def _pause(self) -> None:
        if self._stop.wait(_POLL_S):
            self._stopped = True
            raise KeyboardInterrupt


def server_app(coordinate: Callable[[Grid], None]) -> ServerApp:
    """A Flower ServerApp that does one thing: `coordinate` over the Grid it is given."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        coordinate(grid)

    return app


_: type[Members] = GridMembers  # the port is kept
