"""Known answers: a whole log from fixed keys, byte for byte, and the same claims checked by other means.

The second half is a verifier that uses nothing of Hansa: RFC 6962 by its recursive definition, Ed25519 and P-256 from
`cryptography`, and the standard library, as docs/ledger-format.md describes them.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FILE = Path(__file__).parent / "ledger" / "log.json"
TYPES = (
    "agreement", "amendment", "membership", "budget", "reservation", "release",
    "abort", "closed", "aggregate", "evaluation", "gate", "publication", "override", "attack", "adaptation",
    "release",
)  # fmt: skip


@pytest.fixture(scope="module")
def log() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    assert len(found["entries"]) == len(TYPES)
    return found


def test_the_same_keys_write_the_same_log(log: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FILE.parents[1]))
    import ledger_log

    assert ledger_log.log_on_paper() == log


def test_hansa_accepts_it(log: dict[str, Any]) -> None:
    from hansa.ledger import GivenEntries, LogPolicy, TlogProof, VerifierKey, verify_log
    from support.ledgers import keyring

    witnesses = tuple(map(VerifierKey.parse, log["witness_keys"]))
    policy = LogPolicy(VerifierKey.parse(log["log_key"]), witnesses, 3)
    seen = policy.verify(log["checkpoint"])
    entries = [entry.encode() for entry in log["entries"]]
    assert verify_log(GivenEntries(entries), seen.checkpoint, keyring()).signatures == 22
    for entry, proof in zip(entries, log["inclusion"], strict=True):
        TlogProof.parse(proof).verify(entry, policy)


# --- a verifier from docs/ledger-format.md ---------------------------------------------------------------


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def tree(entries: list[bytes]) -> bytes:
    if not entries:
        return sha256()
    if len(entries) == 1:
        return sha256(b"\x00", entries[0])
    split = 1
    while 2 * split < len(entries):
        split *= 2
    return sha256(b"\x01", tree(entries[:split]), tree(entries[split:]))


def path(index: int, entries: list[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1."""
    if len(entries) == 1:
        return []
    split = 1
    while 2 * split < len(entries):
        split *= 2
    if index < split:
        return [*path(index, entries[:split]), tree(entries[split:])]
    return [*path(index - split, entries[split:]), tree(entries[:split])]


def subproof(size: int, entries: list[bytes], *, known: bool) -> list[bytes]:
    """RFC 6962, section 2.1.2."""
    if size == len(entries):
        return [] if known else [tree(entries)]
    split = 1
    while 2 * split < len(entries):
        split *= 2
    if size <= split:
        return [*subproof(size, entries[:split], known=known), tree(entries[split:])]
    return [*subproof(size - split, entries[split:], known=False), tree(entries[:split])]


def verify_note(note: str, vkeys: list[str]) -> tuple[str, list[str]]:
    """The text, and the names of those that signed it."""
    text, lines = note.rsplit("\n\n", 1)
    text += "\n"
    known = {}
    for vkey in vkeys:
        name, key_id, encoded = vkey.split("+", 2)
        key = b64decode(encoded, validate=True)
        assert sha256(name.encode(), b"\n", key)[:4].hex() == key_id
        known[name, bytes.fromhex(key_id)] = key
    names = []
    for line in lines.splitlines():
        dash, name, encoded = line.split(" ")
        assert dash == "\u2014"
        blob = b64decode(encoded, validate=True)
        key, signature = known[name, blob[:4]], blob[4:]
        message = text.encode()
        if key[0] == 4:
            message = b"cosignature/v1\ntime %d\n" % int.from_bytes(signature[:8], "big") + message
            signature = signature[8:]
        Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, message)
        names.append(name)
    return text, names


def verify_p256(pinned: str, purpose: str, data: bytes, signature: bytes) -> None:
    point = bytes.fromhex(pinned.removeprefix("p256:"))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    key.verify(signature, b"hansa/v1/" + purpose.encode() + b"\x00" + data, ec.ECDSA(hashes.SHA256()))


def rfc8785(value: Any) -> bytes:
    """For JSON without floats and with ASCII names."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_the_tree_and_every_proof(log: dict[str, Any]) -> None:
    entries = [entry.encode() for entry in log["entries"]]
    assert [tree(entries[:size]).hex() for size in range(len(entries) + 1)] == log["roots"]
    for index, text in enumerate(log["inclusion"]):
        header, number, *hashed = text.split("\n\n")[0].split("\n")
        assert (header, number) == ("c2sp.org/tlog-proof@v1", f"index {index}")
        assert [b64decode(line) for line in hashed] == path(index, entries)
        assert text.split("\n\n", 1)[1] == log["checkpoint"]
    for case in log["consistency"]:
        proof = subproof(case["size1"], entries[: case["size2"]], known=True)
        assert [b64encode(node).decode() for node in proof] == case["proof"]


def test_the_checkpoint_and_its_witnesses(log: dict[str, Any]) -> None:
    text, names = verify_note(log["checkpoint"], [log["log_key"], *log["witness_keys"]])
    origin, size, root, nonce = text.splitlines()
    assert names == [origin, *(key.split("+")[0] for key in log["witness_keys"][:3])]
    assert b64decode(root).hex() == log["roots"][int(size)] == log["roots"][-1]
    assert nonce.startswith("nonce ")


def test_every_entry_and_every_signature(log: dict[str, Any]) -> None:
    officers = {f"{name}#privacy-officer": key for name, key in log["officers"].items()}
    keys = {**log["roster"], **officers}
    checked = 0
    for kind, entry in zip(TYPES, log["entries"], strict=True):
        text, *lines, rest = entry.split("\n")
        tree_ = json.loads(text)
        assert rest == ""
        assert (tree_["type"], tree_["version"]) == (kind, 1)
        assert rfc8785(tree_) == text.encode()
        assert lines == sorted(lines, key=lambda line: line.split(" ")[0])
        for line in lines:
            signer, signature = line.split(" ")
            verify_p256(keys[signer], f"ledger.{kind}", text.encode(), bytes.fromhex(signature))
            checked += 1
    assert checked == 22


def test_the_approvals_of_an_amendment(log: dict[str, Any]) -> None:
    said = json.loads(log["entries"][TYPES.index("amendment")].split("\n")[0])
    approvals = said.pop("approvals")
    data = rfc8785({key: value for key, value in said.items() if key not in {"type", "version", "at"}})
    assert len(approvals) == 3
    for name, signature in approvals.items():
        verify_p256(log["roster"][name], "agreement.amendment", data, bytes.fromhex(signature))


def test_real_numbers_are_read_by_c_and_python_alike(log: dict[str, Any]) -> None:
    said = json.loads(log["entries"][TYPES.index("release")].split("\n")[0])
    event = said["spends"][0]["event"]
    assert float.fromhex(event["sampling_probability"]) == 0.01
    assert float.fromhex(event["event"]["noise_multiplier"]) == 1.1
