"""The Grid of a league's run: Flower's own, asked for replies in a way that fits large vectors and many members.

Flower's `HttpGrid` sleeps a second where a reply is announced and has not arrived in full, waits for it before it looks at
another, and holds all that it sends or takes in memory several times. Here a reply that is still arriving holds nobody up, and its
large arrays go to disk chunk by chunk, where they are read from; of what is sent a few chunks are made at a time (`hansa_flower`). This file uses
what Flower keeps to itself; `tests/contract/test_flower_node.py` runs it against a real SuperLink.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from flwr.app import Message as FlowerMessage
from flwr.app import RecordDict
from flwr.app.error import Error
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid

from hansa.errors import EngineError, WireError
from hansa.wire import MAX_ARRAY_BYTES
from hansa_flower import MESSAGE_TYPE
from hansa_flower.arriving import Arriving
from hansa_flower.sending import Sending
from hansa_server.flower_app.waiting import WAITS

_LOG = logging.getLogger("hansa.coordinator")
_AT_A_TIME = 4  # replies that are fetched side by side


class LeagueGrid(HttpGrid):
    """See above.

    Args:
        grid: that Flower has made for this process.
        folder: on the disk that large arrays may fill; they have no name there, and go with the last reader.
        reply_bytes: that the arrays of one reply may take there.

    Raises:
        EngineError: it is none of a run at a SuperLink; or, where replies are taken, the disk takes no more.
    """

    def __init__(self, grid: Grid, folder: Path, reply_bytes: int = MAX_ARRAY_BYTES) -> None:
        if not isinstance(grid, HttpGrid):
            raise EngineError(f"a league is reached through Flower's HttpGrid, not {type(grid).__name__}")
        its = vars(grid)
        super().__init__(its["_addr"], its["_insecure"], its["_cert"], token=its["_token"])
        run = its["_run"]
        if not isinstance(run, Run):
            raise EngineError("Flower gave a process of a run no run", remedy="Start it: hansa run start.")
        self.set_run(run)
        self._folder, self._reply_bytes = folder, reply_bytes
        self._run_id, self._waits = run.run_id, False
        self._arriving: dict[str, Arriving] = {}
        self._threads = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="hansa-replies")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[FlowerMessage]:
        """What has arrived in full of the replies to these; where there is nothing, after the gate has held the question.

        A reply that the SuperLink cannot give is an error in its place, and costs no other reply anything.
        """
        wanted = set(message_ids)
        self._arriving = {number: one for number, one in self._arriving.items() if number in wanted}
        asked = wanted - set(self._arriving)
        if asked:
            yield from self._announced(asked)
        self._waits = not self._arriving
        for number, message in zip(
            list(self._arriving), self._threads.map(self._fetched, list(self._arriving.values())), strict=True
        ):
            if message is not None:
                del self._arriving[number]
                yield message

    def _announced(self, asked: set[str]) -> Iterator[FlowerMessage]:
        """Learn which replies there are, all at once or, where that fails, one by one; errors in place of those that cannot be had."""
        try:
            self._learn(asked)
        except httpx.HTTPStatusError as error:
            _LOG.warning("replies are asked for one by one: %(error)s", {"error": error})
        else:
            return
        for number in sorted(asked):
            try:
                self._learn({number})
            except httpx.HTTPStatusError as error:
                _LOG.warning("a reply cannot be had: %(error)s", {"error": error})
                yield _unavailable(_nothing_of(number, self._run_id), "the SuperLink could not give a reply")

    def _learn(self, asked: set[str]) -> None:
        found = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=asked))
        for proto, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            self._arriving[proto.metadata.reply_to_message_id] = Arriving(proto, tree)

    def push_messages(self, messages: Iterable[FlowerMessage]) -> Iterable[str]:
        """Announce messages, and send those of their objects that the SuperLink lacks; the ids of the messages."""
        sending = Sending(messages)
        if not sending.announced:
            return []
        told = self._runtime_client.PushMessages(
            PushAppMessagesRequest(messages_list=sending.announced, message_object_trees=sending.trees)
        )
        push = make_push_object_fn_protobuf(
            self._runtime_client.PushObject, self.node, self._run_id, told.session_id
        )
        sending.send(set(told.objects_to_push), push)
        return list(told.message_ids)

    def let_go(self, message_ids: Iterable[str]) -> None:
        """Have the SuperLink forget requests whose replies nobody waits for any more: what their nodes have not fetched lies on its disk."""
        for number in message_ids:
            self._confirm(number)

    def close(self) -> None:
        """Give the connection back."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        super().close()

    def _connect(self) -> None:
        self._client = RuntimeHttpClient.from_server_address(
            server_address=self._addr,
            insecure=self._insecure,
            root_certificates=self._cert,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
                RuntimeTokenHttpInterceptor(token=self._token),
                _Waits(self),
            ],
            retry_invoker=self._retry_invoker,
        )

    def waits(self, question: object) -> bool:
        """Whether a question may be held.

        One for replies may where the last brought nothing and nothing is arriving; one for an object, where it keeps no other from
        being fetched.
        """
        if isinstance(question, PullObjectRequest):
            return len(self._arriving) <= _AT_A_TIME
        return self._waits

    def _fetched(self, arriving: Arriving) -> FlowerMessage | None:
        """The message, once all of it has arrived; `None` before. One that is none is a message without records."""
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, self._run_id)
        metadata = message_from_proto(arriving.proto).metadata
        try:
            message = arriving.fetch(pull, self._folder, self._reply_bytes)
        except ObjectUnavailableError:
            return None
        except ObjectPullError:  # whoever sent it has stopped in the middle
            return _unavailable(metadata, "a reply did not arrive in full")
        except httpx.HTTPStatusError as error:
            _LOG.warning("a reply cannot be had: %(error)s", {"error": error})
            return _unavailable(metadata, "the SuperLink could not give a reply")
        except WireError as error:
            _LOG.warning("a reply cannot be read: %(error)s", {"error": error})
            message = make_message(metadata=metadata, content=RecordDict(), error=None)
        self._confirm(arriving.object_id)
        return message

    def _confirm(self, number: str) -> None:
        request = ConfirmMessageReceivedRequest(node=self.node, run_id=self._run_id, message_object_id=number)
        try:
            self._runtime_client.ConfirmMessageReceived(request)
        except httpx.HTTPStatusError as error:
            _LOG.warning("a message stays at the SuperLink until the run ends: %(error)s", {"error": error})


def _unavailable(metadata: Metadata, why: str) -> FlowerMessage:
    """What takes the place of a reply that cannot be had."""
    error = Error(ErrorCode.MESSAGE_UNAVAILABLE, why)
    return make_message(metadata=metadata, content=None, error=error)


def _nothing_of(number: str, run: int) -> Metadata:
    """Of a reply of which nothing is known but what it answers."""
    return Metadata(
        run_id=run,
        message_id="",
        src_node_id=0,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=number,
        group_id="",
        created_at=0.0,
        ttl=0.0,
        message_type=MESSAGE_TYPE,
    )


class _Waits:
    """Lets the gate hold a question that will likely find nothing."""

    def __init__(self, grid: LeagueGrid) -> None:
        self._grid = grid

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """See `ProtobufClientInterceptor`."""
        if self._grid.waits(context.message):
            add_headers(context.request, {WAITS.decode(): "1"})
        return call_next(context)
