"""Why a ledger service cannot be reached, asked of real sockets on this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from hansa.following import LedgerServiceError
from hansa.following.address import Address
from hansa.following.reach import why_unreachable
from hansa.identity import Authority
from hansa.identity.pem import pem
from support.audits import FEDERATION_SIGNER, MEMBERS, story, write_store
from support.services import AUDITOR, HOST, Consortium, remote

ENTRIES = story().federation[:20]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium.make(tmp_path_factory.mktemp("consortium"))


@pytest.fixture(scope="module")
def served(consortium: Consortium) -> Iterator[Address]:
    """A service whose certificate names 127.0.0.1 and localhost."""
    path = write_store(ENTRIES, FEDERATION_SIGNER, consortium.folder / "log.sqlite", [20], MEMBERS)
    with consortium.serving_paths(path) as address:
        yield Address.parse(address)


def test_a_certificate_for_another_host_is_named(consortium: Consortium, served: Address) -> None:
    credentials = consortium.credentials(consortium.home(AUDITOR))
    with _forwarded("127.0.0.2", served) as other, pytest.raises(LedgerServiceError) as caught:
        remote(str(other), credentials, connect_s=0.5).__enter__()
    assert "its certificate is for 127.0.0.1, localhost, and not for 127.0.0.2" in caught.value.cause


def test_a_certificate_of_another_authority_is_named(served: Address) -> None:
    stranger = pem(Authority.create("Others", datetime.now(UTC)).certificate)
    assert "is not one of this authority" in why_unreachable(served, stranger, 60.0)


def test_what_speaks_no_tls(consortium: Consortium) -> None:
    with socket.create_server((HOST, 0)) as plain:
        answering = threading.Thread(target=_answer, args=(plain,))
        answering.start()
        port = plain.getsockname()[1]
        why = why_unreachable(Address(HOST, port), consortium.ca.read_bytes(), 60.0)
        answering.join()
    assert "does not speak TLS" in why


def test_where_nobody_is(consortium: Consortium) -> None:
    assert "nobody answers" in why_unreachable(Address(HOST, 1), consortium.ca.read_bytes(), 60.0)
    assert "nobody answers" in why_unreachable(
        Address("nowhere.invalid", 1), consortium.ca.read_bytes(), 60.0
    )


def test_where_everything_of_theirs_is_right(consortium: Consortium, served: Address) -> None:
    assert "our certificate is refused" in why_unreachable(served, consortium.ca.read_bytes(), 60.0)


def _answer(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@contextmanager
def _forwarded(host: str, to: Address) -> Iterator[Address]:
    """Another address of this machine that leads to a service."""
    with socket.create_server((host, 0)) as server:
        threading.Thread(target=_forward, args=(server, to), daemon=True).start()
        yield Address(host, server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


def _forward(server: socket.socket, to: Address) -> None:
    while True:
        try:
            near, _ = server.accept()
        except OSError:
            return
        far = socket.create_connection((to.host, to.port))
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65_536):
            other.sendall(data)
    except OSError:
        pass
    finally:
        other.close()
