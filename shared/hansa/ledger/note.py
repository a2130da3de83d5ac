"""Signed notes (c2sp.org/signed-note@v1.0.0): text, an empty line, a line for each signature.

Two signature types are read and made, both Ed25519: 0x01 over the text alone, for logs, and 0x04 over the text and
a time, for witnesses (c2sp.org/tlog-cosignature@v1.1.0). Signatures of unknown keys are kept and mean nothing.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property, lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hansa.identity.keys import read_private, write_private
from hansa.ledger.errors import NoteFormatError, NoteSignatureError

MAX_NOTE_BYTES = 1024 * 1024
MAX_SIGNATURES = 256  # a league has at most 100 members; the specification demands at least 16
MAX_TIME = 2**63 - 1
_MAX_NAME = 255
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")  # all below space but the line break
_KEY_BYTES, _ID_BYTES, _TIME_BYTES, _SIGNATURE_BYTES = 32, 4, 8, 64
_DASH = "\N{EM DASH} "
_SECRET = "PRIVATE+KEY+"  # noqa: S105  (the prefix of a private key's text)


class SignatureType(IntEnum):
    """The type bytes of signed-note that are supported."""

    LOG = 0x01
    WITNESS = 0x04


@dataclass(frozen=True)
class VerifierKey:
    """A public key under a name, as a person configures it: ``name+hash+base64``.

    Attributes:
        name: a schema-less URL, without spaces and plus.
        public: Ed25519, 32 bytes.
        kind: what it signs.
    """

    name: str
    public: bytes
    kind: SignatureType = SignatureType.LOG

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public) != _KEY_BYTES:
            raise NoteFormatError(f"the key of {self.name!r} has not {_KEY_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey.

        Raises:
            NoteFormatError: it is not one, is of a type that is not supported, or its hash is of another key.
        """
        name, kind, public = _parse_key(text, "a vkey")
        key = cls(name, public, kind)
        if key.text != text:
            raise NoteFormatError(f"the hash in the vkey of {name!r} is not that of its key")
        return key

    @cached_property
    def id(self) -> bytes:
        """The first four bytes of SHA-256(name || 0x0A || type || key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[
            :_ID_BYTES
        ]

    @property
    def text(self) -> str:
        """The vkey."""
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes([self.kind]) + self.public).decode()}"

    def verify(self, text: str, signature: NoteSignature) -> int | None:
        """Check a signature of a note's text.

        Returns:
            The time of a witness' signature, in seconds since the epoch.

        Raises:
            NoteSignatureError: it is not by this key over this text.
        """
        at, data = None, signature.data
        if self.kind is SignatureType.WITNESS:
            at, data = int.from_bytes(data[:_TIME_BYTES], "big"), data[_TIME_BYTES:]
        if len(data) != _SIGNATURE_BYTES or (at is not None and at > MAX_TIME):
            raise NoteSignatureError(f"a signature under the name {self.name!r} is not of its key's type")
        try:
            _verify(self.public, _message(text, at), data)
        except InvalidSignature:
            raise NoteSignatureError(f"a signature under the name {self.name!r} is not by its key") from None
        return at


@dataclass(frozen=True)
class NoteSignature:
    """One signature line.

    Attributes:
        name: of the key.
        id: of the key, 4 bytes.
        data: what the signature type calls for.
    """

    name: str
    id: bytes
    data: bytes

    @classmethod
    def parse(cls, line: str) -> NoteSignature:
        """Read a line without its line break.

        Raises:
            NoteFormatError: it is not dash, name and base64.
        """
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        data = decode64(encoded, "a signature")
        if not line.startswith(_DASH) or not space or len(data) <= _ID_BYTES:
            raise NoteFormatError("a signature line is not a dash, a name and base64")
        check_name(name)
        return cls(name, data[:_ID_BYTES], data[_ID_BYTES:])

    @property
    def line(self) -> str:
        """The line, without its line break."""
        return f"{_DASH}{self.name} {b64encode(self.id + self.data).decode()}"


class NoteSigner:
    """An Ed25519 private key that signs notes under a name, as a log or as a witness.

    Attributes:
        key: the public side.
    """

    def __init__(
        self, name: str, private_key: Ed25519PrivateKey, kind: SignatureType = SignatureType.LOG
    ) -> None:
        self._key = private_key
        self.key = VerifierKey(name, private_key.public_key().public_bytes_raw(), kind)

    @classmethod
    def generate(cls, name: str, kind: SignatureType = SignatureType.LOG) -> NoteSigner:
        """A new key from the operating system's random numbers."""
        return cls(name, Ed25519PrivateKey.generate(), kind)

    @classmethod
    def parse(cls, text: str) -> NoteSigner:
        """Read the text of a private key: ``PRIVATE+KEY+name+hash+base64``.

        Raises:
            NoteFormatError: it is not one. Nothing of it is in the error.
        """
        if not text.startswith(_SECRET):
            raise NoteFormatError("a private key of notes does not begin as one")
        name, kind, seed = _parse_key(text.removeprefix(_SECRET), "a private key of notes")
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(seed), kind)
        if signer.text != text:
            raise NoteFormatError(f"the hash in the private key of {name!r} is not that of its key")
        return signer

    @property
    def text(self) -> str:
        """The private key as text; whoever has it signs in this name."""
        seed = b64encode(bytes([self.key.kind]) + self._key.private_bytes_raw()).decode()
        return f"{_SECRET}{self.key.name}+{self.key.id.hex()}+{seed}"

    def save(self, path: Path) -> None:
        """Write the private key with mode 0600; see `hansa.identity.keys.write_private`."""
        write_private(path, f"{self.text}\n".encode())

    @classmethod
    def load(cls, path: Path) -> NoteSigner:
        """Read a private key that only its owner can read.

        Raises:
            KeyFileError: the file is missing or readable by others.
            NoteFormatError: it holds something else.
        """
        try:
            return cls.parse(read_private(path).decode().removesuffix("\n"))
        except UnicodeDecodeError:
            raise NoteFormatError(f"{path} holds no private key of notes") from None

    def sign(self, text: str, at: int | None = None) -> NoteSignature:
        """Sign the text of a note.

        Args:
            text: ends in a line break.
            at: seconds since the epoch, for a witness and for nobody else.

        Raises:
            NoteFormatError: the text is none of a note, or a time is missing or too many.
        """
        check_text(text)
        if (at is None) == (self.key.kind is SignatureType.WITNESS) or not 0 <= (at or 0) <= MAX_TIME:
            raise NoteFormatError("a witness signs at a time, and a log without one")
        signature = self._key.sign(_message(text, at))
        time = b"" if at is None else at.to_bytes(_TIME_BYTES, "big")
        return NoteSignature(self.key.name, self.key.id, time + signature)

    def __repr__(self) -> str:
        return f"NoteSigner({self.key.text!r})"


@dataclass(frozen=True)
class SignedNote:
    """A text and its signatures; nothing is verified until `verify` is called.

    Attributes:
        text: UTF-8 lines, the last line break included.
        signatures: at least one.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        check_text(self.text)
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise NoteFormatError(f"a note has {len(self.signatures)} signatures, not 1 to {MAX_SIGNATURES}")

    @classmethod
    def parse(cls, note: str | bytes) -> SignedNote:
        """Read a note.

        Raises:
            NoteFormatError: it is not a text, an empty line and signatures, or too large.
        """
        if len(note) > MAX_NOTE_BYTES:
            raise NoteFormatError(f"a note is larger than {MAX_NOTE_BYTES} bytes")
        try:
            whole = note.decode() if isinstance(note, bytes) else note
        except UnicodeDecodeError:
            raise NoteFormatError("a note is not UTF-8") from None
        text, empty, lines = whole.rpartition("\n\n")
        if not empty or not lines.endswith("\n"):
            raise NoteFormatError("a note is not a text, an empty line and lines of signatures")
        signatures = lines[:-1].split("\n")
        if len(signatures) > MAX_SIGNATURES:
            raise NoteFormatError(f"a note has more than {MAX_SIGNATURES} signatures")
        return cls(text + "\n", tuple(map(NoteSignature.parse, signatures)))

    @property
    def encoded(self) -> str:
        """The note as it is kept and sent."""
        return self.text + "\n" + "".join(f"{signature.line}\n" for signature in self.signatures)

    def with_signatures(self, *signatures: NoteSignature) -> SignedNote:
        """The note with more signatures; a key that has signed already signs anew."""
        new = {(signature.name, signature.id) for signature in signatures}
        kept = tuple(one for one in self.signatures if (one.name, one.id) not in new)
        return replace(self, signatures=kept + signatures)

    def verify(self, keys: Iterable[VerifierKey]) -> dict[VerifierKey, int | None]:
        """Check every signature whose key is known.

        Args:
            keys: the known ones.

        Returns:
            The keys that signed, with the time where it is a witness' key; never none.

        Raises:
            NoteSignatureError: a known key's signature is false or stands twice, or no known key has signed.
        """
        known = {(key.name, key.id): key for key in keys}
        found: dict[VerifierKey, int | None] = {}
        for signature in self.signatures:
            key = known.get((signature.name, signature.id))
            if key is None:
                continue
            if key in found:
                raise NoteSignatureError(f"{key.name!r} has signed a note twice")
            found[key] = key.verify(self.text, signature)
        if not found:
            raise NoteSignatureError("a note is signed by nobody who is known")
        return found


@lru_cache(maxsize=256)  # a league in one process checks each signature once, not once per member
def _verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Only success is remembered."""
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


def check_name(name: str) -> None:
    """Refuse what signed-note refuses as the name of a key.

    Raises:
        NoteFormatError: empty, too long, or with spaces, plus or control characters.
    """
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or " " in name or "+" in name:
        raise NoteFormatError(
            "the name of a key is empty, too long, or holds spaces, plus or control characters"
        )


def check_text(text: str) -> None:
    """Refuse what signed-note refuses as the text of a note.

    Raises:
        NoteFormatError: no last line break, control characters, or what UTF-8 cannot express.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteFormatError("the text of a note ends in a line break and holds no control characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoteFormatError("the text of a note is not UTF-8") from None


def decode64(text: str, what: str) -> bytes:
    """Base64 of RFC 4648, section 4, in its one form.

    Raises:
        NoteFormatError: another alphabet, padding that is missing or too much, or bits that mean nothing.
    """
    try:
        data = b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        data = b""
    if not text or b64encode(data).decode() != text:
        raise NoteFormatError(f"{what} is not base64 in its one form")
    return data


def _parse_key(text: str, what: str) -> tuple[str, SignatureType, bytes]:
    name, *rest = text.split("+", 2)
    if len(rest) != 2:
        raise NoteFormatError(f"{what} is not a name, a hash and base64")
    data = decode64(rest[1], what)
    if data[0] not in tuple(SignatureType) or len(data) != 1 + _KEY_BYTES:
        raise NoteFormatError(f"{what} is not of a supported type")
    return name, SignatureType(data[0]), data[1:]


def _message(text: str, at: int | None) -> bytes:
    header = "" if at is None else f"cosignature/v1\ntime {at}\n"
    return (header + text).encode()
