"""Why a ledger service could not be reached: gRPC says only that it was not, so that this asks again with plain TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from hansa.following.address import Address


def why_unreachable(address: Address, authority: bytes, timeout_s: float) -> str:
    """What a person can act on. Nothing is sent but a TLS greeting, without a certificate of ours.

    Args:
        address: of the service.
        authority: the consortium's certificate, PEM.
        timeout_s: to wait, seconds.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # which names there are is what is asked for
    context.load_verify_locations(cadata=authority.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((address.host, address.port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=address.host) as tls,
        ):
            shown: Mapping[str, Any] = tls.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not one of this authority ({error.verify_message})"
    except ssl.SSLError:
        return "what answers there does not speak TLS as a ledger service does"
    except OSError as error:
        return f"nobody answers ({error.strerror or error})"
    names = [str(name) for kind, name in shown.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}]
    if address.host not in names:
        told = ", ".join(name for name in names if name.isprintable()) or "no host"
        return f"its certificate is for {told}, and not for {address.host}"
    return "our certificate is refused, or it does not speak gRPC"
