"""A signed statement: canonical JSON bytes, who signed them, and for which purpose.

A statement keeps the very bytes that were signed. It travels, and is logged, as one line of text: purpose,
signer, signature, JSON. Lists of statements are lines in one array of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.canonical import is_plain, plain_json, sha256_hex
from hansa.errors import WireError
from hansa.identity.keys import MAX_SIGNATURE_BYTES, Signer
from hansa.identity.roster import Roster

MAX_STATEMENTS = 256  # in one array; a league has at most 100 members
MAX_STATEMENT_BYTES = 256 * 1024  # a manifest with a checkpoint of 100 cosignatures takes 40 KiB
MAX_PACKED_BYTES = 16 * 1024 * 1024  # of one array; hybrid keys of 100 members take 1 MiB


@dataclass(frozen=True)
class Statement:
    """What somebody said, and the proof of it.

    Attributes:
        purpose: the domain of the signature.
        signer: a name of the roster.
        data: canonical JSON (RFC 8785) of an object without floats: the bytes that were signed.
        signature: DER.
    """

    purpose: str
    signer: str
    data: bytes
    signature: bytes

    @classmethod
    def sign(cls, signer: Signer, purpose: str, value: dict[str, Any]) -> Statement:
        """Make a statement.

        Args:
            signer: who says it.
            purpose: the domain of the signature, for example ``secagg.masked``.
            value: an object of strings, integers, booleans, nulls, lists and objects.
        """
        return cls.signed(signer, purpose, statement_bytes(value))

    @classmethod
    def signed(cls, signer: Signer, purpose: str, data: bytes) -> Statement:
        """Make a statement of bytes that are canonical already."""
        return cls(purpose, signer.name, data, signer.sign(purpose, data))

    def verify(self, roster: Roster, purpose: str) -> None:
        """Check purpose and signature against the key that the roster pins.

        Raises:
            WireError: it was made for another purpose.
            UnknownSignerError, RevokedError, SignatureError: see `Roster.verify`.
        """
        if self.purpose != purpose:
            raise WireError(f"a statement for {purpose!r} was expected")
        roster.verify(self.signer, purpose, self.data, self.signature)

    @cached_property
    def value(self) -> dict[str, Any]:
        """The object that was signed.

        Raises:
            WireError: the bytes are not the canonical JSON of an object.
        """
        try:
            value = json.loads(self.data, parse_float=_refuse, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise WireError("a statement is not JSON, or holds what statements may not hold") from None
        if not isinstance(value, dict):
            raise WireError("a statement is not an object")
        require_canonical(self.purpose, value, self.data)
        return value

    @property
    def sha256(self) -> str:
        """SHA-256 of the signed bytes, in hexadecimal."""
        return sha256_hex(self.data)

    @property
    def line(self) -> str:
        """The statement as one line of text."""
        return f"{self.purpose} {self.signer} {self.signature.hex()} {self.data.decode()}"

    @classmethod
    def parse(cls, line: str) -> Statement:
        """Read a line; nothing is verified.

        Raises:
            WireError: it is not purpose, signer, signature and JSON, or too long.
        """
        return _parsed(line)


@lru_cache(maxsize=1024)  # lines come again: in later phases, and to others in this process
def _parsed(line: str) -> Statement:
    if len(line) > MAX_STATEMENT_BYTES:
        raise WireError(f"a statement of {len(line)} bytes is over the limit of {MAX_STATEMENT_BYTES}")
    parts = line.split(" ", 3)
    try:
        purpose, signer, signature, data = parts
        statement = Statement(purpose, signer, data.encode(), bytes.fromhex(signature))
    except ValueError:  # too few parts, no hexadecimal, or lone surrogates
        raise WireError("a line is not a signed statement") from None
    one_form = statement.signature.hex() == signature and "\n" not in line
    if not one_form or not 0 < len(signature) <= 2 * MAX_SIGNATURE_BYTES:
        raise WireError("a line is not a signed statement in its one form")
    return statement


def require_canonical(purpose: str, value: dict[str, Any], data: bytes) -> None:
    """Check that signed bytes are the one canonical form of what was read from them.

    Raises:
        WireError: they are not.
    """
    try:
        canonical = statement_bytes(value)
    except ValueError:
        canonical = b""
    if canonical != data:
        raise WireError(f"a statement {purpose!r} is not in canonical form")


def statement_bytes(value: dict[str, Any]) -> bytes:
    """RFC 8785 for what statements may hold.

    Raises:
        ValueError: there are floats in it, integers beyond 2^53 - 1, keys that are not ASCII, or no JSON at all.
    """
    if not is_plain(value):
        raise ValueError(
            "a statement holds text, integers, booleans, nulls, lists and objects with ASCII keys"
        )
    return plain_json(value)  # its UnicodeEncodeError is a ValueError


def pack(statements: Iterable[Statement]) -> npt.NDArray[np.uint8]:
    """Statements as one array of bytes, a line each."""
    text = "".join(statement.line + "\n" for statement in statements)
    return np.frombuffer(text.encode(), dtype=np.uint8)


def unpack(array: npt.NDArray[Any]) -> tuple[Statement, ...]:
    """The statements of an array; nothing is verified.

    Raises:
        WireError: the array is not lines of statements, or too many.
    """
    if array.dtype != np.uint8 or array.ndim != 1:
        raise WireError("statements travel in one array of bytes")
    if array.nbytes > MAX_PACKED_BYTES:
        raise WireError(f"statements of {array.nbytes} bytes are over the limit of {MAX_PACKED_BYTES}")
    try:
        text = array.tobytes().decode()
    except UnicodeDecodeError:
        raise WireError("an array of statements is not UTF-8") from None
    return parse_lines(text)


def parse_lines(text: str) -> tuple[Statement, ...]:
    """The statements of a text, a line each; nothing is verified.

    Raises:
        WireError: a line is no statement, the last one has no end, or there are too many.
    """
    if text and not text.endswith("\n"):
        raise WireError("a list of statements is cut short")
    lines = text.split("\n")[:-1]
    if len(lines) > MAX_STATEMENTS:
        raise WireError(f"{len(lines)} statements are more than the limit of {MAX_STATEMENTS}")
    return tuple(Statement.parse(line) for line in lines)


def _refuse(_: str) -> Any:
    raise ValueError("a number that statements may not hold")
