"""The port through which a run reaches its members, whatever carries the messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hansa.wire import Message


class Members(Protocol):
    """All members of a league, by name."""

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        """Send each member its request and collect what comes back in time.

        Args:
            requests: member to request.
            deadline_s: seconds after which a member counts as absent.

        Returns:
            Member to reply, for those that answered. A reply is well formed and not yet believed.

        Raises:
            EngineError: the carrier itself failed.
        """
