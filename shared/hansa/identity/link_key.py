"""The key with which a node takes its place at the SuperLink, and the statement that ties it to its owner.

Flower knows nodes by ECDSA keys on P-384 that whoever runs the SuperLink registers. Such a key carries messages and
proves nothing else: what a member says is signed with the key that the agreement pins. So that no stranger's key is
registered in a member's name, its owner signs the public side with that pinned key.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import WireError
from hansa.identity.errors import KeyFileError
from hansa.identity.files import read_statements
from hansa.identity.keys import Signer, read_private, write_private
from hansa.identity.roster import Roster
from hansa.identity.statement import Statement

PURPOSE = "link.key"
SUFFIX = ".link"
_CURVE = ec.SECP384R1()


def make_link_key(path: Path, signer: Signer) -> str:
    """Write a new private key with mode 0600.

    Args:
        path: of a file that is not there yet.
        signer: its owner.

    Returns:
        The line with which its owner vouches for the public side.

    Raises:
        KeyFileError: the file is there already, or cannot be written.
    """
    key = ec.generate_private_key(_CURVE)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(path, pem)
    return vouched(key, signer)


def vouched(key: ec.EllipticCurvePrivateKey, signer: Signer) -> str:
    """The statement line of an owner about its key's public side."""
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return Statement.sign(signer, PURPOSE, {"public_key": public.decode()}).line + "\n"


def read_link_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the private key from a file that only its owner can read.

    Raises:
        KeyFileError: it is missing, readable by others, or no key on P-384.
    """
    try:
        key = serialization.load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError):
        raise KeyFileError(f"{path} holds no private key in PEM without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise KeyFileError(f"{path} holds no P-384 key")
    return key


def read_link(path: Path, roster: Roster) -> tuple[str, ec.EllipticCurvePublicKey]:
    """Whose key a file holds, and the key, as its owner has signed it.

    Raises:
        UsageError: the file cannot be read.
        WireError: it is no such statement.
        UnknownSignerError, RevokedError, SignatureError: its owner has no part in the agreement, or has not signed it.
    """
    statements = read_statements(path)
    if len(statements) != 1:
        raise WireError(f"{path} is not one statement about a key")
    (statement,) = statements
    statement.verify(roster, PURPOSE)
    try:
        key = serialization.load_ssh_public_key(str(statement.value.get("public_key")).encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise WireError(f"{path} speaks of something else than a key on P-384")
    return statement.signer, key
