"""Ports for processes of this machine."""

from __future__ import annotations

import secrets
import socket

import pytest

from hansa.errors import EngineError
from hansa_simulations.processes.ports import PORTS, free_port


def test_no_outgoing_connection_gets_one() -> None:
    """By the range that Linux gives to them unless it is told another."""
    assert {free_port() in PORTS for _ in range(20)} == {True}
    assert PORTS.stop <= 32_768
    assert PORTS.start > 1024


def test_one_that_is_taken_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    drawn = [first, first, free_port()]
    with socket.create_server(("127.0.0.1", first)):
        monkeypatch.setattr(secrets, "choice", lambda _: drawn.pop(0))
        assert free_port() != first
    assert drawn == []


def test_where_all_are_taken_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", first := free_port())):
        monkeypatch.setattr(secrets, "choice", lambda _: first)
        with pytest.raises(EngineError, match="none of 200 ports"):
            free_port()
