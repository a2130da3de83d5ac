"""`hansa.v1.LedgerService`: logs for the machines of members and auditors, over mutual TLS. Needs grpcio.

Read-only. Every question, also those to health and reflection, is answered only to whom `Admission` admits, and an answer is
never larger than it may be. What goes wrong inside is told as a status and three words; the text stays in the
coordinator's own log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hansa.errors import PortError
from hansa.ledger import Checkpoint, LogView, SignedNote
from hansa.v1 import ledger_pb2 as v1
from hansa.v1.ledger_pb2_grpc import LedgerServiceServicer, add_LedgerServiceServicer_to_server
from hansa_server.admission import Admission
from hansa_server.ledger_gate import Gate, Refusal, Shares
from hansa_server.served_logs import ServedLog

SERVICE = "hansa.v1.LedgerService"
_SERVICES = ("", SERVICE)  # of whose health is told; the empty name is the whole server's
MAX_ENTRIES, MAX_ENTRIES_BYTES = 1024, 1024 * 1024  # of one answer
MAX_QUESTION_BYTES = 16 * 1024
MAX_ANSWER_BYTES = 5 * 1024 * 1024
TILE_WIDTH, TILE_HEIGHT, TILE_LEVELS = 256, 8, 8
THREADS, WAITING, FOLLOWERS = 40, 120, 24  # a follower keeps a thread; more calls wait for one
FOLLOWERS_EACH = 3  # of one party at the same time, over all of its connections
POLL_S, LIFE_S = 0.5, 30.0  # how often a log is looked at for a follower, and a sign of life is given
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_QUESTION_BYTES),
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.so_reuseport", 0),
)


class LedgerServicer(LedgerServiceServicer):
    """Answers about some logs.

    Args:
        logs: that are served.
        admitted: says who asks, again while a follower listens; raises `Refusal`.
        poll_s, life_s: how often a followed log is looked at, and a sign of life given.
    """

    def __init__(
        self,
        logs: Sequence[ServedLog],
        admitted: Callable[[grpc.ServicerContext], str],
        *,
        poll_s: float = POLL_S,
        life_s: float = LIFE_S,
    ) -> None:
        self._logs = {log.origin: log for log in logs}
        self._admitted, self._poll_s, self._life_s = admitted, poll_s, life_s
        self._room = threading.BoundedSemaphore(FOLLOWERS)
        self._each = Shares(FOLLOWERS_EACH, "too many follow")

    def ListLogs(  # noqa: N802  # as in ledger.proto, so below
        self, request: v1.ListLogsRequest, context: grpc.ServicerContext
    ) -> v1.ListLogsResponse:
        """Which logs are served."""
        del request, context
        return v1.ListLogsResponse(origins=self._logs)

    def GetCheckpoint(  # noqa: N802
        self, request: v1.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> v1.GetCheckpointResponse:
        """The newest checkpoint with so many cosignatures."""
        del context
        with self._reading(request.origin) as view:
            for note in view.checkpoints():
                if len(note.signatures) - 1 >= request.cosignatures:
                    return v1.GetCheckpointResponse(note=note.encoded.encode())
        raise Refusal(grpc.StatusCode.NOT_FOUND, "no such checkpoint")

    def GetEntries(  # noqa: N802
        self, request: v1.GetEntriesRequest, context: grpc.ServicerContext
    ) -> v1.GetEntriesResponse:
        """Entries."""
        del context
        if request.start >= request.end:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no entries were asked for")
        with self._reading(request.origin) as view:
            _require(view, request.end)
            entries = _some(view, request.start, request.end)
        return v1.GetEntriesResponse(start=request.start, entries=entries)

    def GetTile(  # noqa: N802
        self, request: v1.GetTileRequest, context: grpc.ServicerContext
    ) -> v1.GetTileResponse:
        """Hashes of complete subtrees."""
        del context
        first = request.index * TILE_WIDTH
        if request.level >= TILE_LEVELS or not 1 <= request.width <= TILE_WIDTH:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no such tile")
        with self._reading(request.origin) as view:
            _require(view, (first + request.width) << TILE_HEIGHT * request.level)
            hashes = (view.node(TILE_HEIGHT * request.level, first + place) for place in range(request.width))
            return v1.GetTileResponse(hashes=b"".join(hashes))

    def GetInclusionProof(  # noqa: N802
        self, request: v1.GetInclusionProofRequest, context: grpc.ServicerContext
    ) -> v1.GetInclusionProofResponse:
        """That an entry stands at its place."""
        del context
        with self._reading(request.origin) as view:
            _require(view, request.size)
            return v1.GetInclusionProofResponse(path=view.prove_inclusion(request.index, request.size))

    def GetConsistencyProof(  # noqa: N802
        self, request: v1.GetConsistencyProofRequest, context: grpc.ServicerContext
    ) -> v1.GetConsistencyProofResponse:
        """That a shorter log is the beginning of a longer one."""
        del context
        with self._reading(request.origin) as view:
            _require(view, request.size2)
            return v1.GetConsistencyProofResponse(proof=view.prove_consistency(request.size1, request.size2))

    def Follow(  # noqa: N802
        self, request: v1.FollowRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.FollowResponse]:
        """What comes after a size, for as long as somebody listens."""
        with self._each.taken(self._admitted(context)):
            if not self._room.acquire(blocking=False):
                raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many follow")
            try:
                yield from self._follow(request, context)
            finally:
                self._room.release()

    def _follow(
        self, request: v1.FollowRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.FollowResponse]:
        sent, told, at = request.start, "", 0.0
        while context.is_active():
            self._admitted(context)
            with self._reading(request.origin) as view:
                note = view.last_checkpoint()
            if note is not None and (note.encoded != told or time.monotonic() - at >= self._life_s):
                for answer in self._under(request.origin, note, sent):
                    yield answer
                    sent = max(sent, answer.start + len(answer.entries))
                told, at = note.encoded, time.monotonic()
            if request.once:
                if note is None:
                    raise Refusal(grpc.StatusCode.NOT_FOUND, "no such checkpoint")
                return
            time.sleep(self._poll_s)

    def _under(self, origin: str, note: SignedNote, sent: int) -> Iterator[v1.FollowResponse]:
        """The checkpoint with a proof of what was sent before, then what it covers beyond that."""
        size = Checkpoint.parse(note.text).size
        encoded = note.encoded.encode()
        yield self._piece(origin, encoded, size, min(sent, size), ())
        while sent < size:
            with self._reading(origin) as view:
                entries = _some(view, sent, size)
            yield self._piece(origin, encoded, size, sent, entries)
            sent += len(entries)

    def _piece(
        self, origin: str, note: bytes, size: int, start: int, entries: Sequence[bytes]
    ) -> v1.FollowResponse:
        end = start + len(entries)
        proof: Sequence[bytes] = ()
        if 0 < end < size:
            with self._reading(origin) as view:
                proof = view.prove_consistency(end, size)
        return v1.FollowResponse(start=start, entries=entries, note=note, proof=proof)

    @contextmanager
    def _reading(self, origin: str) -> Iterator[LogView]:
        """A view of a log; the only one, where none is named."""
        log = self._logs.get(origin)
        if log is None and not origin and len(self._logs) == 1:
            log = next(iter(self._logs.values()))
        if log is None:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "no such log")
        with log.reading() as view:
            yield view


class HealthOfService(health.HealthServicer):  # type: ignore[misc]  # grpc has no types
    """Health as gRPC's own tells it, but for one method.

    gRPC's `Watch` keeps a lock until its answer is sent, and the thread that sends answers takes the same lock when a
    call ends: one client that watched and left while another's watch began stopped the service for good. What is
    served here does not change while the service stands, so that an answer needs no lock and nobody has to be told
    again.
    """

    def Watch(  # noqa: N802
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Callable[[health_pb2.HealthCheckResponse], Any],
    ) -> None:
        """A service's status, once; the call then lasts, without a thread, until the client ends it."""
        del context
        served = request.service in _SERVICES
        answer = health_pb2.HealthCheckResponse
        send_response_callback(answer(status=answer.SERVING if served else answer.SERVICE_UNKNOWN))


def _require(view: LogView, size: int) -> None:
    if size > view.size:
        raise Refusal(grpc.StatusCode.OUT_OF_RANGE, "the log is shorter")


def _some(view: LogView, start: int, end: int) -> list[bytes]:
    """Entries from `start` on, as many as one answer may hold, at least one."""
    entries: list[bytes] = []
    room = MAX_ENTRIES_BYTES
    for data in view.entries(start, min(end, start + MAX_ENTRIES)):
        room -= len(data)
        if entries and room < 0:
            break
        entries.append(data)
    return entries


@dataclass(frozen=True)
class ServiceIdentity:
    """How the service proves who it is.

    Attributes:
        key, certificate: PEM; the certificate names the address at which it is asked.
    """

    key: bytes
    certificate: bytes

    def __repr__(self) -> str:
        return "ServiceIdentity(…)"  # the key is in no log


def ledger_server(
    logs: Sequence[ServedLog],
    admission: Admission,
    identity: ServiceIdentity,
    listen: str,
    *,
    poll_s: float = POLL_S,
    life_s: float = LIFE_S,
) -> tuple[grpc.Server, int]:
    """A service that is not started yet, with health and reflection.

    Args:
        logs: that it serves.
        admission: who may ask.
        identity: of the service.
        listen: ``HOST:PORT``; port 0 takes a free one.
        poll_s, life_s: see `LedgerServicer`.

    Returns:
        The server and its port.

    Raises:
        PortError: it cannot listen there.
    """
    gate = Gate(admission)
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="ledger")
    server = grpc.server(
        pool, interceptors=(gate,), options=_OPTIONS, maximum_concurrent_rpcs=THREADS + WAITING
    )
    servicer = LedgerServicer(logs, gate.admit, poll_s=poll_s, life_s=life_s)
    add_LedgerServiceServicer_to_server(servicer, server)
    healthy = HealthOfService()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    for name in _SERVICES:
        healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    credentials = grpc.ssl_server_credentials(
        [(identity.key, identity.certificate)],
        root_certificates=admission.authority,
        require_client_auth=True,
    )
    try:
        port = server.add_secure_port(listen, credentials)
    except RuntimeError:
        port = 0
    if not port:
        server.stop(None)
        raise PortError(f"cannot listen at {listen}", remedy="Name a free port of this machine.")
    return server, port
