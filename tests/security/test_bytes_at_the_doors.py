"""Bytes of a fuzzer at what a node and the ledger service accept, for a bounded time: no crash, and no state changes.

Each test draws a seed and says it where it fails; ``HANSA_FUZZ_SEED`` and ``HANSA_FUZZ_S`` repeat and lengthen it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from hansa.errors import WireError
from hansa.following.address import Address
from hansa.following.remote import Credentials
from hansa.ledger import LogView
from hansa.v1 import ledger_pb2
from hansa.wire import Message, parse
from hansa_client.desk import Desk
from hansa_client.policy import Policy
from hansa_server.ledger_service import SERVICE
from support.audits import FEDERATION_SIGNER, MEMBERS, story, write_store
from support.federations import Federation
from support.leagues import frozen_league
from support.services import AUDITOR, ORIGIN, Consortium, remote

SECONDS = float(os.environ.get("HANSA_FUZZ_S", "1.5"))
NASTY: tuple[Any, ...] = (
    None, True, 0, -1, 2**53, 1.5, "", "x", "0" * 64, "é\n", "secagg.manifest", [], ["a"], [[]], {}, {"parts": []}, {"signed": ""},
)  # fmt: skip


@pytest.fixture
def source() -> random.Random:
    seed = int(os.environ.get("HANSA_FUZZ_SEED") or secrets.randbits(32))
    print(f"HANSA_FUZZ_SEED={seed}")  # noqa: T201  # pytest shows it where the test fails
    return random.Random(seed)  # noqa: S311  # no secrets


def flipped(source: random.Random, data: bytes) -> bytes:
    """Some bytes changed, cut or put in."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 8))):
        at = source.randrange(len(changed) + 1)
        match source.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << source.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = source.randbytes(source.randrange(1, 9))
            case _:
                changed[at : at + source.randrange(40)] = source.randbytes(source.randrange(40))
    return bytes(changed)


def spoilt(source: random.Random, value: Any) -> Any:
    """A JSON value with one leaf that is another."""
    if isinstance(value, dict) and value and source.random() < 0.8:
        key = source.choice(sorted(value))
        if source.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: spoilt(source, value[key])}
    if isinstance(value, list) and value and source.random() < 0.8:
        at = source.randrange(len(value))
        return [*value[:at], spoilt(source, value[at]), *value[at + 1 :]]
    if isinstance(value, str) and value and source.random() < 0.5:
        at = source.randrange(len(value))
        others = [one for one in '0aZ \\"}é' if one != value[at]]
        return value[:at] + source.choice(others) + value[at + 1 :]
    return next(other for other in iter(lambda: source.choice(NASTY), object()) if other != value)


def parts_of(message: Message) -> list[Any]:
    """The parts of a request's bundle, unread; the whole body where there is no bundle."""
    bundle: Any = message.body.get("bundle")
    parts = bundle.get("parts") if isinstance(bundle, dict) else None
    return list(parts) if isinstance(parts, list) else [dict(message.body)]


def broken(source: random.Random, request: Message) -> Message | None:
    """A request that nobody has signed; `None` where it cannot even be read.

    Every part of its bundle is spoilt, since a part that is left alone is asked by the coordinator, and rightly answered.
    """
    arrays = {name: np.array(array) for name, array in request.arrays.items()}
    if source.random() < 0.3:
        with contextlib.suppress(WireError):
            message = parse(flipped(source, request.header), arrays)
            return None if any(part in parts_of(message) for part in parts_of(request)) else message
        return None
    body: dict[str, Any] = deepcopy(dict(request.body))
    bundle = body.get("bundle")
    if isinstance(bundle, dict):
        bundle["parts"] = [spoilt(source, part) for part in bundle["parts"]]
    for name in ("agreement_id", "run", "log", "aggregates", "bundle"):
        if name in body and (source.random() < 0.1 or not isinstance(bundle, dict)):
            body[name] = spoilt(source, body[name])
    if arrays and source.random() < 0.2:
        name = source.choice(sorted(arrays))
        arrays[name] = source.choice((arrays[name][:-1], arrays[name].astype("<f8"), arrays[name][::-1]))
    kind = source.choice(("sum", "sum", "sum", "hello", "", "witness", "x"))
    with contextlib.suppress(WireError, ValueError):
        message = Message(kind, body, arrays)
        return parse(message.header, message.arrays)
    return None


def test_a_node_that_is_thrown_bytes_at_changes_nothing_and_ends_its_run(source: random.Random) -> None:
    agreement, built = frozen_league(training={"rounds": 2}, privacy={"steps": 4})
    thrown, unread, until = 0, 0, time.monotonic() + SECONDS

    def state(league: Federation) -> tuple[Any, ...]:
        entries = list(LogView(league.stores["b"].log).entries())
        return dict(league.states["b"]._data), entries, league.trainings["b"].calls

    def between(name: str, request: Message, answer: Callable[[Message], Message]) -> Message:
        nonlocal thrown, unread
        if name != "b":
            return answer(request)
        desk = Desk(
            {agreement.agreement_id: league.nodes["b"]}, Policy(), lambda: datetime(2026, 11, 29, tzinfo=UTC)
        )
        before, left = state(league), max(until - time.monotonic(), 0.05) / 4  # for each of some ten requests
        stop = time.monotonic() + left
        while time.monotonic() < stop or thrown <= 20 or unread <= 5:
            message = broken(source, request)
            if message is None:
                unread += 1
                continue
            if message.kind == "close" and message.body.get("run") == request.body.get("run"):
                continue  # nobody signs that a run is over
            thrown += 1
            try:
                reply = desk.handle(message)
            except WireError:
                continue  # it does not say which run and round it is about
            answers = {"refusal", "summed", "member", "witnessed", "closed"}  # a run that never was is closed
            assert reply.kind in answers, (message.kind, message.body)
            # no vector and no share: what leaves are entries of the member's own log, which the federation's log gets anyway
            assert set(reply.arrays) <= {"log.entries"}, (message.kind, message.body)
            assert state(league) == before, (message.kind, message.body)
        return desk.handle(request)

    updates = {name: lambda weights: np.full_like(weights, 0.125) for name in "abc"}
    league = Federation(agreement, built.initial_vector(), updates, between)
    outcome = league.run()
    assert thrown > 20
    assert unread > 5
    assert outcome.stopped_because is None
    assert [record.present for record in outcome.rounds] == [("a", "b", "c")] * 2


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium.make(tmp_path_factory.mktemp("consortium"))


@pytest.fixture(scope="module")
def store(consortium: Consortium) -> Path:
    entries = story().federation
    return write_store(entries, FEDERATION_SIGNER, consortium.folder / "log.sqlite", [len(entries)], MEMBERS)


@pytest.fixture(scope="module")
def credentials(consortium: Consortium) -> Credentials:
    return consortium.credentials(consortium.home(AUDITOR))


@pytest.fixture(scope="module")
def address(consortium: Consortium, store: Path) -> Iterator[str]:
    with consortium.serving_paths(store) as address:
        yield address


def contents(store: Path) -> str:
    return hashlib.sha256(store.read_bytes()).hexdigest()


def seeds(entries: int) -> dict[str, bytes]:
    """A good question for each method that has one argument's worth of fields."""
    found = {}
    for method in ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"].methods:
        message = getattr(ledger_pb2, method.input_type.name)()
        for one in method.input_type.fields:
            if one.type == one.TYPE_STRING:
                setattr(message, one.name, ORIGIN)
            elif one.type in {one.TYPE_UINT64, one.TYPE_UINT32, one.TYPE_INT64} and one.name != "start":
                setattr(message, one.name, entries)
        found[method.name] = message.SerializeToString()
    return found


def test_a_ledger_service_that_is_asked_nonsense_goes_on(
    source: random.Random, address: str, credentials: Credentials, store: Path
) -> None:
    before, entries, until = contents(store), len(story().federation), time.monotonic() + SECONDS
    tls = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
    good, codes = seeds(entries), set[grpc.StatusCode]()
    assert len(good) >= 5
    with grpc.secure_channel(address, tls) as channel:
        while time.monotonic() < until or not codes:
            name, asked = source.choice(sorted(good.items()))
            data = (
                flipped(source, asked) if source.random() < 0.8 else source.randbytes(source.randrange(200))
            )
            # every call may answer with a stream: a single answer is a stream of one
            call = channel.unary_stream(f"/{SERVICE}/{name}", None, None)(data, timeout=0.25)
            try:
                for _, _answer in zip(range(3), call, strict=False):
                    pass
            except grpc.RpcError as error:
                if "RST_STREAM" not in (
                    error.details() or ""
                ):  # gRPC itself takes no more streams for a moment
                    codes.add(error.code())
            call.cancel()
    # what cannot be read is an internal error to gRPC; what can is a question without an answer
    assert codes <= {
        grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED,
    }  # fmt: skip
    assert codes
    assert contents(store) == before
    with remote(address, credentials) as log:
        assert log.entries(0, entries) == story().federation


def test_bytes_that_are_no_question_reach_nobody(
    source: random.Random, address: str, credentials: Credentials, store: Path, tmp_path: Path
) -> None:
    where, before, until, sent = Address.parse(address), contents(store), time.monotonic() + SECONDS / 2, 0
    for name in ("key", "certificate", "authority"):
        (tmp_path / name).write_bytes(getattr(credentials, name))
    trusted = ssl.create_default_context(cafile=str(tmp_path / "authority"))
    trusted.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    trusted.set_alpn_protocols(["h2"])
    while time.monotonic() < until or sent <= 3:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((where.host, where.port), timeout=0.3) as plain,
        ):
            data = source.choice((b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) + source.randbytes(
                source.randrange(1, 2000)
            )
            sent += 1
            if source.random() < 0.5:
                plain.sendall(data)
                plain.recv(100)
            else:
                with trusted.wrap_socket(plain, server_hostname=where.host) as secured:
                    secured.sendall(data)
                    secured.recv(100)
    assert sent > 3
    assert contents(store) == before
    with remote(address, credentials) as log:
        assert log.logs() == (ORIGIN,)
