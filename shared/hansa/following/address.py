"""Where a service listens or is asked: ``HOST:PORT``, read before anything of the network is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hansa.errors import UsageError

MAX_PORT = 65_535
_FORM = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([^\s:/\[\]]+)):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A host and a port.

    Attributes:
        host: a name or an IP address; one of version 6 without its brackets.
        port: 0 to 65535; 0 is any free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, any_port: bool = False) -> Address:
        """Read an address.

        Args:
            text: ``HOST:PORT``, or ``[HOST]:PORT`` for an IP address of version 6.
            any_port: whether port 0 may stand there.

        Raises:
            UsageError: it is none.
        """
        found = _FORM.fullmatch(text)
        least = 0 if any_port else 1
        if found is None or not least <= int(found[3]) <= MAX_PORT:
            raise UsageError(
                f"{text!r} is not HOST:PORT, with a port from {least} to {MAX_PORT}",
                remedy="For example logs.example.org:8443, or [2001:db8::1]:8443.",
            )
        return cls(found[1] or found[2], int(found[3]))

    def at(self, port: int) -> str:
        """The same host, with another port."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    def __str__(self) -> str:
        return self.at(self.port)
