"""A node's connection to its SuperLink, put together from its home."""

from __future__ import annotations

import logging
from pathlib import Path

from hansa.errors import UsageError
from hansa.identity.link_key import read_link_key
from hansa.protocol import PolicyCode, refusal
from hansa.wire import Message
from hansa_client.flower_node import AnswersRequests, Link, LinkTerms
from hansa_client.node_file import NodeHome


def link_of(node: NodeHome, desk: AnswersRequests | None = None) -> Link:
    """The node's connection to its SuperLink; without a desk it can only be probed.

    Raises:
        UsageError: the node has no certificate of its consortium yet.
    """
    if not node.authority.exists():
        raise UsageError(
            f"there is no {node.authority}",
            remedy="Install this node's certificate: hansa node certificate FILE.crt --home DIR --ca ca.crt --crl ca.crl",
        )
    terms = LinkTerms(node.superlink, node.authority.read_bytes(), read_link_key(node.link_key), node.state)
    return Link(terms, desk or _Nobody(), _Place(node.link_place), _tell)


def _tell(connection: str) -> None:
    logging.getLogger("hansa.node").info("%(connection)s", {"connection": connection})


class _Nobody:
    """Answers nothing."""

    def handle(self, request: Message) -> Message:
        """Refuse."""
        return refusal(request, PolicyCode.ABSENT)


class _Place:
    """By which number the SuperLink knows the node, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self) -> int | None:
        """The number; `None` where there is none, or the file holds something else."""
        try:
            return int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def put(self, node_id: int) -> None:
        """Keep it."""
        self._path.write_text(str(node_id), encoding="ascii")
