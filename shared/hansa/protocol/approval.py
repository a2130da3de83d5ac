"""Asking members to approve an entry of the federation's log: what they are shown, and their signature or their refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hansa.agreement import Agreement
from hansa.canonical import Json
from hansa.errors import WireError
from hansa.identity.keys import MAX_SIGNATURE_BYTES
from hansa.protocol.common import REFERENCE, PolicyCode, read_refusal, reference
from hansa.wire import Array, Message

MANIFEST = "manifest.json"  # of an evaluation's round, shown beside the gate
MAX_PROPOSED_BYTES = 16 * 1024 * 1024  # an entry and its documents
_ENTRY, _DOCUMENT = "entry", "document."


@dataclass(frozen=True)
class Proposed:
    """What a member is asked to approve.

    Attributes:
        entry: the JSON of the entry, as it would be logged.
        documents: what the entry names by hash and the member recomputes, by file name.
    """

    entry: bytes
    documents: Mapping[str, bytes] = field(default_factory=dict)


def approval_request(agreement: Agreement, run: str, proposed: Proposed) -> Message:
    """Ask a member to approve an entry."""
    body: Mapping[str, Json] = {"agreement_id": agreement.agreement_id, "run": run, "round": 0}
    arrays = {_ENTRY: _bytes(proposed.entry)}
    arrays |= {f"{_DOCUMENT}{name}": _bytes(data) for name, data in proposed.documents.items()}
    return Message("approve", body, arrays)


def read_approval_request(request: Message) -> Proposed:
    """What a member is asked to approve.

    Raises:
        WireError: it is malformed, or too large.
    """
    if set(request.body) != {*REFERENCE} or _ENTRY not in request.arrays:
        raise WireError("a request to approve an entry does not have the members of one")
    if sum(array.nbytes for array in request.arrays.values()) > MAX_PROPOSED_BYTES:
        raise WireError("a request to approve an entry is too large")
    names = [name for name in request.arrays if name != _ENTRY]
    if not all(name.startswith(_DOCUMENT) for name in names):
        raise WireError("a request to approve an entry brings an entry and documents")
    documents = {name.removeprefix(_DOCUMENT): _read(request, name) for name in names}
    return Proposed(_read(request, _ENTRY), documents)


def approved_reply(request: Message, signature: bytes) -> Message:
    """A member's approval: its signature of the entry."""
    return Message("approved", {**reference(request), "signature": signature.hex()})


def read_approved_reply(request: Message, reply: Message) -> bytes | PolicyCode:
    """A member's signature, or why it does not approve. Nothing is verified.

    Raises:
        WireError: the reply answers another request or is malformed.
    """
    refused = read_refusal(request, reply)
    if refused is not None:
        return refused
    if reply.kind != "approved" or set(reply.body) != {*REFERENCE, "signature"}:
        raise WireError(f"a reply of kind {reply.kind!r} does not answer a request to approve")
    try:
        signature = bytes.fromhex(reply.text("signature"))
    except ValueError:
        signature = b""
    if not 0 < len(signature) <= MAX_SIGNATURE_BYTES:
        raise WireError("an approval is a signature in hexadecimal")
    return signature


def _bytes(data: bytes) -> Array:
    return np.frombuffer(data, dtype=np.uint8)


def _read(request: Message, name: str) -> bytes:
    array = request.arrays[name]
    if array.dtype != np.uint8 or array.ndim != 1:
        raise WireError("entries and documents travel as bytes")
    return array.tobytes()
