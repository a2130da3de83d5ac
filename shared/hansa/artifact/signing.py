"""The signature of a package: OpenSSF model-signing v1.0 with a P-256 key, written and read without its libraries.

A signature is a Sigstore bundle (v0.3) around a DSSE envelope around an in-toto statement that names each file with
its SHA-256. ``model_signing verify key`` accepts what is written here; a test says so. What is read here is stricter:
the bundle must be in the one form that `write_signature` gives, so that a change that a lenient reader would pass over,
in white space or in base64, is a change all the same. Signed by a pinned key; bundles with certificates are refused.

Source: model_signing 1.1 (`_signing/signing.py`, `sign_ec_key.py`); DSSE 1.0.2; in-toto Statement v1.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from hansa.artifact.errors import PackageError
from hansa.errors import Problem
from hansa.identity import Signer, fingerprint
from hansa.identity.keys import ORDER, load_public

SIGNATURE = "model.sig"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_IGNORED = (".git", ".gitattributes", ".github", ".gitignore", SIGNATURE)
_DETERMINISTIC = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


def write_signature(name: str, files: Mapping[str, str], signer: Signer) -> bytes:
    """Sign the files of a package.

    Args:
        name: of the model; it becomes the statement's subject.
        files: SHA-256 in hexadecimal by file name, the signature's own file not among them.
        signer: whose key the agreement pins.
    """
    payload = _payload(name, files)
    r, s = decode_dss_signature(signer.private_key.sign(_pae(payload), _DETERMINISTIC))
    signature = encode_dss_signature(r, min(s, ORDER - s))
    return _bundle(payload, signature, signer.public_key)


def read_signature(data: bytes, public_key: str) -> tuple[str, dict[str, str]]:
    """Check a signature and say what it covers.

    Args:
        data: the bundle's file.
        public_key: the pinned key that must have signed.

    Returns:
        The model's name, and SHA-256 by file name. Nothing says yet that files have these hashes.

    Raises:
        PackageError: it is not by that key, or not in its one form.
    """
    try:
        tree: Any = json.loads(data)
        envelope, material = tree["dsseEnvelope"], tree["verificationMaterial"]
        payload = b64decode(envelope["payload"], validate=True)
        signature = b64decode(envelope["signatures"][0]["sig"], validate=True)
        statement: Any = json.loads(payload)
        name = str(statement["subject"][0]["name"])
        files = {str(item["name"]): str(item["digest"]) for item in statement["predicate"]["resources"]}
        lower = decode_dss_signature(signature)[1] <= ORDER // 2
        again = _payload(name, files)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise _refused("is no OpenSSF model signature") from None
    if "publicKey" not in material:
        raise _refused("is by a certificate, and this agreement's packages are signed by pinned keys")
    if material["publicKey"] != {"hint": _hint(public_key)}:
        raise _refused(f"is by another key than {fingerprint(public_key)}, which the roster pins")
    if not lower or payload != again or data != _bundle(payload, signature, public_key):
        raise _refused("is not in its one form")
    try:
        load_public(public_key).verify(signature, _pae(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _refused("is false") from None
    return name, files


def public_pem(public_key: str) -> bytes:
    """A pinned key as a PEM file, which ``model_signing verify key --public_key`` reads."""
    return load_public(public_key).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _payload(name: str, files: Mapping[str, str]) -> bytes:
    ordered = sorted(files.items())
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in ordered)).hexdigest()
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(_IGNORED),
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest} for file, digest in ordered
            ],
        },
    }
    return json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode()


def _bundle(payload: bytes, signature: bytes, public_key: str) -> bytes:
    tree = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": _hint(public_key)}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(tree, separators=(",", ":")).encode() + b"\n"


def _hint(public_key: str) -> str:
    return hashlib.sha256(public_pem(public_key)).hexdigest()


def _pae(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed. It cannot begin as any other signature of Hansa's."""
    return b" ".join(
        [b"DSSEv1", str(len(_PAYLOAD)).encode(), _PAYLOAD.encode(), str(len(payload)).encode(), payload]
    )


def _refused(what: str) -> PackageError:
    return PackageError("the package's signature does not count", [Problem(SIGNATURE, what)])
