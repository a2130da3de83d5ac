"""A log behind a `hansa.v1.LedgerService`: mutual TLS, limits, and errors that say what to do. Needs grpcio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hansa.following.address import Address
from hansa.following.errors import LedgerServiceError
from hansa.following.mirror import News
from hansa.following.reach import why_unreachable
from hansa.identity import Signer
from hansa.identity.pem import pem, read_certificate
from hansa.ledger.errors import LogVerificationError
from hansa.ledger.note import SignedNote
from hansa.merkle import HASH_BYTES
from hansa.v1 import ledger_pb2 as v1
from hansa.v1.ledger_pb2_grpc import LedgerServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ANSWER_BYTES = 5 * 1024 * 1024  # entries of 1 MiB, a note of at most as much, a proof
MAX_PROOF = 130
CONNECT_S, CALL_S = 10.0, 30.0
SILENCE_S = 120.0  # a service says at least every 30 s how far its log is
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.enable_retries", 0),
)


@dataclass(frozen=True)
class Credentials:
    """Who asks, and whom one believes to be the service.

    Attributes:
        key, certificate: the asking party's, PEM.
        authority: the consortium's certificate, PEM.
    """

    key: bytes
    certificate: bytes
    authority: bytes

    @classmethod
    def of(cls, signer: Signer, certificate: Path, authority: Path) -> Credentials:
        """From a node's key and two files.

        Raises:
            UsageError, CertificateError: a file cannot be read, or holds no certificate.
        """
        key = signer.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(key, pem(read_certificate(certificate)), pem(read_certificate(authority)))

    def __repr__(self) -> str:
        return "Credentials(…)"  # the key is in no log


class RemoteLog:
    """One log of a service. Close it.

    Args:
        address: ``HOST:PORT``; the host must be one that the service's certificate names.
        origin: the log.
        credentials: for mutual TLS.
        connect_s, call_s, silence_s: seconds to wait for a connection, for an answer, and for a sign of life.

    Raises:
        UsageError: that is no address.
        LedgerServiceError: nobody is there, or lets this party in.
    """

    def __init__(
        self,
        address: str,
        origin: str,
        credentials: Credentials,
        *,
        connect_s: float = CONNECT_S,
        call_s: float = CALL_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        where = Address.parse(address)
        self._address, self._origin = address, origin
        self._call_s, self._silence_s = call_s, silence_s
        tls = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
        self._channel = grpc.secure_channel(address, tls, options=_OPTIONS)
        self._stub = LedgerServiceStub(self._channel)
        try:
            grpc.channel_ready_future(self._channel).result(timeout=connect_s)
        except grpc.FutureTimeoutError:
            self._channel.close()
            why = why_unreachable(where, credentials.authority, max(connect_s, CONNECT_S))
            raise LedgerServiceError(
                f"no ledger service could be reached at {address} within {connect_s:g} s: {why}"
            ) from None

    def logs(self) -> tuple[str, ...]:
        """Which logs are served."""
        with self._told():
            answer = self._stub.ListLogs(v1.ListLogsRequest(), timeout=self._call_s)
        return tuple(answer.origins)

    def checkpoint(self) -> SignedNote:
        """The newest checkpoint; nothing of it is verified."""
        with self._told():
            answer = self._stub.GetCheckpoint(
                v1.GetCheckpointRequest(origin=self._origin), timeout=self._call_s
            )
        return SignedNote.parse(answer.note)

    def cosigned(self, cosignatures: int) -> SignedNote | None:
        """See `hansa.following.follower.Source.cosigned`."""
        request = v1.GetCheckpointRequest(origin=self._origin, cosignatures=cosignatures)
        try:
            answer = self._stub.GetCheckpoint(request, timeout=self._call_s)
        except grpc.RpcError as error:
            if _code(error) is grpc.StatusCode.NOT_FOUND:
                return None
            raise self._failed(error) from None
        return SignedNote.parse(answer.note)

    def entries(self, start: int, end: int) -> tuple[bytes, ...]:
        """Entries [start, end), at least one and perhaps fewer than asked for; nothing of them is verified.

        Raises:
            LogVerificationError: the answer is none.
        """
        request = v1.GetEntriesRequest(origin=self._origin, start=start, end=end)
        with self._told():
            answer = self._stub.GetEntries(request, timeout=self._call_s)
        if answer.start != start or not 1 <= len(answer.entries) <= end - start:
            raise LogVerificationError(f"the service answers with other entries than {start} to {end - 1}")
        return tuple(answer.entries)

    def tile(self, level: int, index: int, width: int = 256) -> bytes:
        """Hashes of a tile, 32 bytes each; nothing of them is verified."""
        request = v1.GetTileRequest(origin=self._origin, level=level, index=index, width=width)
        with self._told():
            answer = self._stub.GetTile(request, timeout=self._call_s)
        return bytes(answer.hashes)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """A proof for `hansa.merkle.verify_inclusion`."""
        request = v1.GetInclusionProofRequest(origin=self._origin, index=index, size=size)
        with self._told():
            answer = self._stub.GetInclusionProof(request, timeout=self._call_s)
        return _proof(answer.path)

    def consistency(self, size1: int, size2: int) -> tuple[bytes, ...]:
        """A proof for `hansa.merkle.verify_consistency`."""
        request = v1.GetConsistencyProofRequest(origin=self._origin, size1=size1, size2=size2)
        with self._told():
            answer = self._stub.GetConsistencyProof(request, timeout=self._call_s)
        return _proof(answer.proof)

    def follow(self, start: int, *, once: bool) -> Generator[News, None, None]:
        """See `hansa.following.follower.Source.follow`."""
        request = v1.FollowRequest(origin=self._origin, start=start, once=once)
        call = self._stub.Follow(request)
        watchdog = _Watchdog(self._silence_s, call.cancel)
        try:
            for answer in self._answers(call, watchdog):
                yield News(
                    answer.start, tuple(answer.entries), SignedNote.parse(answer.note), _proof(answer.proof)
                )
        finally:
            watchdog.stop()
            call.cancel()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _answers(self, call: Any, watchdog: _Watchdog) -> Iterator[Any]:
        watchdog.wait()
        try:
            for answer in call:
                watchdog.stop()
                yield answer
                watchdog.wait()
        except grpc.RpcError as error:
            if watchdog.bit:
                raise LedgerServiceError(
                    f"{self._address} has said nothing for {self._silence_s:g} s"
                ) from None
            raise self._failed(error) from None

    @contextmanager
    def _told(self) -> Generator[None, None, None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._failed(error) from None

    def _failed(self, error: grpc.RpcError) -> LedgerServiceError:
        """In our own words: what a service says of itself is not shown as if it were ours."""
        what = {
            grpc.StatusCode.PERMISSION_DENIED: "does not admit this party",
            grpc.StatusCode.UNAUTHENTICATED: "does not admit this party",
            grpc.StatusCode.NOT_FOUND: f"does not serve the log {self._origin!r}, or what was asked of it",
            grpc.StatusCode.OUT_OF_RANGE: "does not have what was asked for",
            grpc.StatusCode.INVALID_ARGUMENT: "does not understand what was asked for",
            grpc.StatusCode.RESOURCE_EXHAUSTED: "is busy, or an answer was larger than any may be",
            grpc.StatusCode.DEADLINE_EXCEEDED: "does not answer in time",
            grpc.StatusCode.UNAVAILABLE: "cannot be reached",
        }.get(_code(error), f"failed ({_code(error).name})")
        remedy = None
        if _code(error) is grpc.StatusCode.NOT_FOUND:
            remedy = "Are these the keys of the federation whose service this is? They name the log that was asked for."
        return LedgerServiceError(f"the ledger service at {self._address} {what}", remedy=remedy)


class _Watchdog:
    """Bites when it has waited too long."""

    def __init__(self, seconds: float, bite: Callable[[], Any]) -> None:
        self._seconds, self._bite = seconds, bite
        self._timer: threading.Timer | None = None
        self.bit = False

    def wait(self) -> None:
        """From now on."""
        self._timer = threading.Timer(self._seconds, self._act)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Not any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _act(self) -> None:
        self.bit = True
        self._bite()


def _proof(hashes: Iterable[bytes]) -> tuple[bytes, ...]:
    proof = tuple(hashes)
    if len(proof) > MAX_PROOF or any(len(node) != HASH_BYTES for node in proof):
        raise LogVerificationError("the service answers with what is no proof")
    return proof


def _code(error: grpc.RpcError) -> Any:
    """The status of a call; every error of a call has one."""
    return error.code()
