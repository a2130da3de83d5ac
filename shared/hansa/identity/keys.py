"""Signing keys: ECDSA on P-256 with SHA-256, one purpose per signature.

Every signature covers a domain beside the data, so that bytes signed for one purpose are worth nothing for
another. Nonces are deterministic (RFC 6979): signing the same bytes twice gives the same signature, and no
weak random number can give a key away. Of the two values of s that verify, only the lower one is a signature here,
so that nobody without the key can make other bytes that verify out of one.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from hansa.canonical import sha256_hex
from hansa.identity.errors import KeyFileError, SignatureError

CURVE = ec.SECP256R1()  # cryptography's X.509 verifier accepts P-256 and refuses Ed25519 certificates
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (SEC 2, section 2.4.2)
MAX_SIGNATURE_BYTES = 72  # two 256-bit integers in DER
CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd.exec(5), LoadCredential=
_PREFIX = "p256:"
_DOMAIN = b"hansa/v1/"
_VERIFY = ec.ECDSA(hashes.SHA256())
_SIGN = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class Signer:
    """A private key and the name under which it signs.

    Attributes:
        name: the member's name in the agreement, or the coordinator's.
        public_key: the pinned form, ``p256:`` and the compressed point in hexadecimal.
    """

    def __init__(self, name: str, private_key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(private_key.curve, ec.SECP256R1):
            raise KeyFileError(
                f"the key of {name!r} is not on P-256", remedy="Make one with `hansa node init`."
            )
        self.name = name
        self._key = private_key
        self.public_key = public_text(private_key.public_key())

    @classmethod
    def generate(cls, name: str) -> Signer:
        """A new key from the operating system's random numbers."""
        return cls(name, ec.generate_private_key(CURVE))

    @classmethod
    def load(cls, name: str, path: Path) -> Signer:
        """Read a private key that only its owner can read.

        Raises:
            KeyFileError: the file is missing, readable by others, or holds no P-256 key.
        """
        return cls(name, read_private_key(path))

    def save(self, path: Path) -> None:
        """Write the private key with mode 0600; see `write_private`."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)

    def sign(self, domain: str, data: bytes) -> bytes:
        """Sign `data` for one purpose.

        Args:
            domain: the purpose, for example ``secagg.masked``; no two purposes share one.
            data: canonical bytes.

        Returns:
            A DER signature with the lower s, the same for the same input.
        """
        r, s = decode_dss_signature(self._key.sign(_message(domain, data), _SIGN))
        return encode_dss_signature(r, min(s, ORDER - s))

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """For making certificates and requests."""
        return self._key

    def __repr__(self) -> str:
        return f"Signer({self.name!r}, {self.public_key})"


@lru_cache(maxsize=2048)  # a league in one process checks each signature once, not once per member
def verify(public_key: str, domain: str, data: bytes, signature: bytes) -> None:
    """Check a signature. Only success is remembered.

    Args:
        public_key: the pinned form.
        domain, data: as they were signed.
        signature: DER.

    Raises:
        SignatureError: it is not by that key over that data for that purpose, or not in its one form.
    """
    try:
        load_public(public_key).verify(signature, _message(domain, data), _VERIFY)
        good = decode_dss_signature(signature)[1] <= ORDER // 2
    except InvalidSignature:
        good = False
    if not good:
        raise SignatureError(f"a signature for {domain} is not by key {fingerprint(public_key)}")


def public_text(key: ec.EllipticCurvePublicKey) -> str:
    """A public key as it is pinned: ``p256:`` and 66 hexadecimal digits."""
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    return _PREFIX + point.hex()


@lru_cache(maxsize=1024)
def load_public(text: str) -> ec.EllipticCurvePublicKey:
    """A public key from its pinned form.

    Raises:
        SignatureError: the text is not a point of P-256.
    """
    try:
        point = bytes.fromhex(text.removeprefix(_PREFIX))
        key = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, point)
    except ValueError:
        key = None
    if key is None or public_text(key) != text:  # an uncompressed point would be a second name for one key
        raise SignatureError(f"a pinned key is not {_PREFIX!r} and a compressed point in hexadecimal")
    return key


def fingerprint(public_key: str) -> str:
    """What two people read to each other over the phone: eight groups of four digits."""
    digest = sha256_hex(public_key.encode())[:32]
    return "-".join(digest[i : i + 4] for i in range(0, 32, 4))


def write_private(path: Path, data: bytes) -> None:
    """Write a secret to a new file of mode 0600, on disk before return.

    Raises:
        KeyFileError: the file exists already (a key is never overwritten), or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists already", remedy="Move the old key away first; none is overwritten."
        ) from None
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from None


def read_private(path: Path) -> bytes:
    """Read a secret file that only its owner can read.

    A systemd credential may also show the group's bit for reading: systemd leaves it to root with mode 0400 and lets
    the service read it by an access list, whose mask stands where a group's bits would
    (systemd, src/core/exec-credential.c, `write_credential`).

    Raises:
        KeyFileError: it is missing, cannot be read, or others may read it.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & (0o037 if _is_credential(path) else 0o077):
                raise KeyFileError(f"{path} can be read by others", remedy=f"chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from None


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a P-256 private key in PEM from a file that only its owner can read.

    Raises:
        KeyFileError: see `read_private`, or it is no such key.
    """
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError):
        raise KeyFileError(f"{path} holds no private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyFileError(f"{path} holds no P-256 key")
    return key


def _is_credential(path: Path) -> bool:
    """Whether systemd handed the file to this service alone."""
    folder = os.environ.get(CREDENTIALS, "")
    return folder != "" and path.parent == Path(folder)


def _message(domain: str, data: bytes) -> bytes:
    return _DOMAIN + domain.encode() + b"\x00" + data
