"""``HOST:PORT``: what is one, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import ExitStatus, UsageError
from hansa.following.address import MAX_PORT, Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:8443", "localhost", 8443),
        ("logs.example.org:1", "logs.example.org", 1),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("[::1]:8443", "::1", 8443),
        ("[fe80::1%eth0]:8443", "fe80::1%eth0", 8443),
    ],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@given(port=st.integers(0, MAX_PORT))
def test_every_port_there_is(port: int) -> None:
    assert Address.parse(f"h:{port}", any_port=True).port == port
    assert Address("::1", 0).at(port) == f"[::1]:{port}"


@pytest.mark.parametrize(
    "text",
    ["", "h", ":1", "h:", "h:-1", "h:+1", "h:0", "h:65536", "h:000001", "h:1 ", "h: 1", "a b:1", "::1:1", "[h]:1",
     "[::1]", "https://h:1", "h:1/x", "h:١"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not HOST:PORT") as caught:
        Address.parse(text)
    assert caught.value.exit_status is ExitStatus.BAD_INPUT


@given(port=st.integers(MAX_PORT + 1, 10**30))
def test_no_port_beyond_the_last(port: int) -> None:
    with pytest.raises(UsageError):
        Address.parse(f"h:{port}", any_port=True)
