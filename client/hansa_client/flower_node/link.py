"""This process as the Flower node of its member: a place at a SuperLink, requests in, replies out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message as FlowerMessage
from flwr.app import RecordDict
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node as FlowerNode
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    ObjectUnavailableError,
)
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import (
    ProtobufCall,
    ProtobufClientInterceptor,
    ProtobufRequestContext,
)
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from hansa.errors import EngineError, LinkError, WireError
from hansa.wire import Message
from hansa_client.flower_node.answering import AnswersRequests, answered
from hansa_flower import from_records, to_records
from hansa_flower.arriving import Arriving
from hansa_flower.sending import Sending

HEARTBEAT_S = 10.0  # the shortest that Flower takes; it holds a silent node's place for twice as long
_BEATS_EVERY_S = 3.0
_WAITS = "x-hansa-waits"  # the coordinator's gate may hold a question for news until there are some, or for two seconds
_HELD_S = 0.5  # an answer without news that took so long was held
_POLL_S, _LONGEST_POLL_S, _SLOWER = 0.05, 0.5, 1.1  # where nobody holds questions
_RETRY_S, _LONGEST_RETRY_S = 0.5, 5.0
_PULL_AGAIN_S, _LONGEST_PULL_AGAIN_S = 0.02, 0.25
_NEXT_PIECE_WITHIN_S = 600.0  # a run that is over is told sooner
_DATE_S = 1.0  # HTTP tells the time in whole seconds

_LOG = logging.getLogger("hansa.node")


@dataclass(frozen=True, repr=False)
class LinkTerms:
    """How a node reaches its SuperLink.

    Attributes:
        address: ``HOST:PORT``.
        authority: PEM, the certificate that the SuperLink's must be issued under.
        key: the node's Flower key, on P-384; the coordinator registers its public side.
        folder: on the disk that large arrays of a request may fill; they have no name there, and go with the request.
    """

    address: str
    authority: bytes
    key: ec.EllipticCurvePrivateKey
    folder: Path


class PlaceKept(Protocol):
    """Remembers between processes which node id the SuperLink knows this key by."""

    def get(self) -> int | None:
        """The last one; `None` before there is one."""

    def put(self, node_id: int) -> None:
        """Keep it."""


class Link:
    """This process as the Flower node of its member.

    Args:
        terms: where to, with which key.
        node: answers requests.
        place: of earlier processes, so that a killed one can be followed at once.
        told: called with a line whenever the state of the connection changes.

    Guarantees: no bundle is asked for and no code of anybody's is run; a reply that cannot be delivered is dropped, since
        whoever still needs it asks again, and gets the same.
    Leaks: that the node is there, sizes, and when it answers.
    """

    def __init__(
        self,
        terms: LinkTerms,
        node: AnswersRequests,
        place: PlaceKept,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._terms, self._node, self._place, self._told = terms, node, place, told
        self._key = public_key_to_bytes(terms.key.public_key())
        self._said = ""
        self._connected = threading.Event()

    @property
    def connected(self) -> bool:
        """Whether this process has its place at the SuperLink now."""
        return self._connected.is_set()

    def serve(self, stop: threading.Event) -> None:
        """Answer requests until `stop` is set; a connection that is lost is made again, for as long as it takes.

        Raises:
            LinkError: the SuperLink cannot be used at all, and trying again would not help: its certificate is not under
                the authority, or it is of another Flower release. Only before it was reached for the first time.
        """
        reached, pause = False, _RETRY_S
        while not stop.is_set():
            try:
                caller = _Caller()
                with self._client(caller) as client, self._activated(client) as (node, lost):
                    reached, pause = True, _RETRY_S
                    self._tell(f"connected to {self._terms.address}")
                    self._answer_all(client, node, stop, lost, caller)
                    if stop.is_set():
                        return
                    self._tell(f"{self._terms.address} does not know this node any more; connecting again")
            except _IncompatibleError as error:
                if not reached:
                    raise LinkError(
                        f"{self._terms.address} is of another Flower release: {error}",
                        remedy="Install the same release of hansa on both sides.",
                    ) from None
                self._tell(f"{self._terms.address} is of another Flower release: {error}")
            except httpx.HTTPError as error:
                if not reached and _is_about_certificates(error):
                    raise LinkError(
                        f"the certificate of {self._terms.address} is not acceptable: {error}",
                        remedy="Is the address right, and named in the coordinator's certificate? Is ca.crt that of this "
                        "consortium, and has the certificate not expired?",
                    ) from None
                self._tell(_described(self._terms.address, error))
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_RETRY_S)

    def probe(self) -> float | None:
        """Reach the SuperLink once, and take no place at it.

        Returns:
            How many seconds its clock is ahead of this one's, about; `None` where it does not say.

        Raises:
            LinkError: it cannot be reached, is no SuperLink of this consortium, or is of another release.
        """
        caller = _Caller()
        request = SendNodeHeartbeatRequest(
            node=FlowerNode(node_id=self._place.get() or 0), heartbeat_interval=HEARTBEAT_S
        )
        try:
            with self._client(caller) as client:
                client.SendNodeHeartbeat(request)
        except _IncompatibleError as error:
            raise LinkError(f"{self._terms.address} is of another Flower release: {error}") from None
        except httpx.HTTPStatusError as error:
            # whoever is not at its place is refused so, by a SuperLink and by nobody else
            if error.response.status_code != httpx.codes.UNAUTHORIZED:
                raise LinkError(_described(self._terms.address, error)) from None
        except httpx.HTTPError as error:
            raise LinkError(_described(self._terms.address, error)) from None
        return caller.asked_at - time.time() if caller.asked_at else None

    def _client(self, caller: _Caller) -> FleetHttpClient:
        interceptors: list[ProtobufClientInterceptor] = [
            caller,
            NodeAuthHttpInterceptor(self._terms.key, self._terms.key.public_key()),
        ]
        return FleetHttpClient.from_server_address(
            self._terms.address,
            insecure=False,
            root_certificates=self._terms.authority,
            interceptors=interceptors,
        )

    @contextmanager
    def _activated(self, client: FleetHttpClient) -> Iterator[tuple[FlowerNode, threading.Event]]:
        """The node's place, kept by heartbeats; `lost` is set once the SuperLink has given it away."""
        before = self._place.get()
        if before is not None:
            with suppress(httpx.HTTPStatusError):  # it is free already
                client.DeactivateNode(DeactivateNodeRequest(node_id=before))
        request = ActivateNodeRequest(public_key=self._key, heartbeat_interval=HEARTBEAT_S)
        node = FlowerNode(node_id=client.ActivateNode(request).node_id)
        if node.node_id != before:
            self._place.put(node.node_id)
        lost, ended = threading.Event(), threading.Event()
        beating = threading.Thread(target=_beat, args=(client, node, lost, ended), daemon=True)
        beating.start()
        try:
            self._connected.set()
            yield node, lost
        finally:
            self._connected.clear()
            ended.set()
            beating.join()
            with suppress(httpx.HTTPError):  # it notices by itself that nobody is there
                client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))

    def _answer_all(
        self,
        client: FleetHttpClient,
        node: FlowerNode,
        stop: threading.Event,
        lost: threading.Event,
        caller: _Caller,
    ) -> None:
        """Answer what was asked after this node took its place, by the clock of the other side.

        What is older is of a round that may be over, and would be paid for in vain: whoever still wants it asks again.
        """
        pause, since = _POLL_S, caller.asked_at - _DATE_S
        while not stop.is_set() and not lost.is_set():
            asked = time.monotonic()
            # Where the answer is lost, so are the requests in it: they count as handed over, and whoever sent them waits. The
            # place is then given up, and whoever takes it is asked again.
            came = client.PullMessages(PullMessagesRequest(node=node))
            for proto, tree in zip(came.messages_list, came.message_object_trees, strict=True):
                if message_from_proto(proto).metadata.created_at >= since:
                    self._answer(client, node, Arriving(proto, tree), stop)
                pause = _POLL_S
            caller.waits = not came.messages_list
            if caller.waits and time.monotonic() - asked < _HELD_S:
                stop.wait(pause)
                pause = min(_SLOWER * pause, _LONGEST_POLL_S)

    def _answer(
        self, client: FleetHttpClient, node: FlowerNode, arriving: Arriving, stop: threading.Event
    ) -> None:
        run = arriving.proto.metadata.run_id
        TaskIdentity.node_id, TaskIdentity.task_id, TaskIdentity.run_id = node.node_id, 1, run
        started = time.monotonic()
        try:
            asked = self._fetched(client, node, arriving, stop)
            if asked is None:
                return
            content = answered(self._node, asked, _records_in_place, from_records)
            _push(client, node, FlowerMessage(content, reply_to=asked), time.monotonic() - started)
        except (ObjectPullError, ObjectPushError, WireError, EngineError) as error:
            _LOG.warning(
                "a request of Flower run %(flower_run)d came to nothing: %(error)s",
                {"flower_run": run, "error": error},
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in {
                httpx.codes.FORBIDDEN,
                httpx.codes.CONFLICT,
                httpx.codes.BAD_REQUEST,
            }:
                raise
            _LOG.warning("Flower run %(flower_run)d is over; nobody takes the reply", {"flower_run": run})

    def _fetched(
        self, client: FleetHttpClient, node: FlowerNode, arriving: Arriving, stop: threading.Event
    ) -> FlowerMessage | None:
        """A request once all of it has arrived; `None` where this node stops before."""
        run = arriving.proto.metadata.run_id
        pull = make_pull_object_fn_protobuf(client.PullObject, node, run)
        confirm = make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, run)
        pause, came = _PULL_AGAIN_S, time.monotonic()

        def pulled(number: str) -> bytes:
            nonlocal pause, came
            if stop.is_set():
                raise ObjectUnavailableError(number)
            piece = pull(number)
            pause, came = _PULL_AGAIN_S, time.monotonic()
            return piece

        while True:
            try:
                asked = arriving.fetch(pulled, self._terms.folder)
            except ObjectUnavailableError:
                if time.monotonic() - came >= _NEXT_PIECE_WITHIN_S:
                    raise ObjectPullError(arriving.object_id, "it has not arrived in full") from None
                if stop.wait(pause):
                    return None
                pause = min(2 * pause, _LONGEST_PULL_AGAIN_S)
            else:
                confirm(arriving.object_id)
                return asked

    def _tell(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._told(line)


def _records_in_place(reply: Message) -> RecordDict:
    """A reply whose large arrays are sent from where they are."""
    return to_records(reply, {})


def _push(client: FleetHttpClient, node: FlowerNode, reply: FlowerMessage, seconds: float) -> None:
    sending = Sending([reply])
    pushed = client.PushMessages(
        PushMessagesRequest(
            node=node,
            messages_list=sending.announced,
            message_object_trees=sending.trees,
            clientapp_runtime_list=[seconds],
        )
    )
    push = make_push_object_fn_protobuf(client.PushObject, node, reply.metadata.run_id, pushed.session_id)
    sending.send(set(pushed.objects_to_push), push)


def _beat(client: FleetHttpClient, node: FlowerNode, lost: threading.Event, ended: threading.Event) -> None:
    request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=HEARTBEAT_S)
    while not ended.wait(_BEATS_EVERY_S):
        try:
            if not client.SendNodeHeartbeat(request).success:
                lost.set()
                return
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.UNAUTHORIZED:
                lost.set()
                return
        except httpx.HTTPError:
            continue  # the next one may arrive


class _IncompatibleError(Exception):
    """The SuperLink is of a release that does not go with this one."""


class _Caller:
    """Says which Flower release this is and whether a question may be held, and notes when it was answered first, by the other clock.

    Flower's own interceptor would end the process where the other side refuses the release.
    """

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())
        self.asked_at = 0.0
        self.waits = False  # whether a question for messages may be held: the last one brought none

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """See `ProtobufClientInterceptor`."""
        waits = {_WAITS: "1"} if self.waits or isinstance(context.message, PullObjectRequest) else {}
        add_headers(context.request, {**self._headers, **waits})
        response = call_next(context)
        if response.is_error:
            told = FlowerError.from_json(response.text)
            if told is not None and told.code == ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE:
                raise _IncompatibleError(told.message)
        if not self.asked_at and "date" in response.headers:
            self.asked_at = parsedate_to_datetime(response.headers["date"]).timestamp()
        return response


def _is_about_certificates(error: httpx.HTTPError) -> bool:
    return isinstance(error, httpx.ConnectError) and "certificate" in str(error).lower()


def _described(address: str, error: httpx.HTTPError) -> str:
    """Why a connection is not there, for the member's own log."""
    if not isinstance(error, httpx.HTTPStatusError):
        return f"{address} cannot be reached: {str(error) or type(error).__name__}"
    told: Any = FlowerError.from_json(error.response.text)
    if told is not None and told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        return (
            f"{address} does not admit this node yet: its Flower key is not registered there, or another process has its "
            "place"
        )
    if error.response.status_code == httpx.codes.UNAUTHORIZED:
        return f"{address} does not take this node's signature: is the clock right on both sides?"
    return f"{address} answers with status {error.response.status_code}"
