"""Known answers: whole rounds from fixed randomness, bit for bit, and the same sums by other means.

The second half recomputes masked vectors and sums with nothing of `hansa.secagg`: HKDF from hmac, AES in ECB over
explicit counters, X25519 and plain integers, as docs/secure-sum.md describes them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.errors import HansaError
from hansa.secagg import verify_sum
from hansa.secagg.bundle import bundle
from hansa.secagg.record import RoundRecord
from hansa.wire import Message, parse
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, FixedStream, fixed_league, over_the_wire

FILES = sorted((Path(__file__).parent / "secagg").glob("*.json"))


def test_there_are_vectors() -> None:
    assert {file.stem for file in FILES} == {"three", "four-one-vanishes", "three-trusted"}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text())


def message(paper: dict[str, Any]) -> Message:
    arrays = {
        name: np.frombuffer(bytes.fromhex(array["hex"]), dtype=array["dtype"]).reshape(array["shape"])
        for name, array in paper["arrays"].items()
    }
    return parse(paper["header"].encode(), arrays)


def league_of(vector: dict[str, Any]) -> Any:
    options = dict(vector["options"])
    league = fixed_league(options.pop("n"), options.pop("length"), label=vector["label"], **options)
    for name, values in vector["contributions"].items():
        league.contributors[name].values = np.array(values, dtype=np.float32)
    return league


def test_members_and_coordinator_say_what_they_said(vector: dict[str, Any]) -> None:
    league = league_of(vector)
    assert league.terms.sha256 == vector["terms_sha256"]
    outcome, bad = None, 0
    for exchange in vector["exchanges"]:
        if exchange["phase"] == "masked":
            league.coordinator.begin(PURPOSE, 0, MODEL, checkpoint="checkpoint 1")
        requests = league.coordinator.requests()
        for name, parts in exchange["members"].items():
            if name == "member-1":
                for case in exchange["bad"]:
                    with pytest.raises(HansaError) as caught:
                        league.members[name].handle(message(case["request"]))
                    assert caught.value.code == case["code"], case["what"]
                    bad += 1
            asked = [message(part["request"]) for part in parts]
            assert bundle(asked).header == requests[name].header
            replies = [league.members[name].handle(part) for part in asked]
            for reply, part in zip(replies, parts, strict=True):
                assert reply.header.decode() == part["reply"]["header"]
                for array, paper in part["reply"]["arrays"].items():
                    assert reply.arrays[array].tobytes().hex() == paper["hex"]
            league.coordinator.receive(name, over_the_wire(bundle(replies)))
        outcome = league.coordinator.close()
    assert outcome is not None
    assert bad >= 25
    assert outcome.total.tolist() == vector["total"]
    assert list(outcome.survivors) == vector["survivors"]
    assert dict(outcome.dropped) == vector["dropped"]
    assert json.loads(outcome.record.model_dump_json()) == vector["record"]


def test_a_coordinator_that_is_given_the_replies_again_asks_the_same(vector: dict[str, Any]) -> None:
    league = league_of(vector)
    for exchange in vector["exchanges"]:
        if exchange["phase"] == "masked":
            league.coordinator.begin(PURPOSE, 0, MODEL, checkpoint="checkpoint 1")
        requests = league.coordinator.requests()
        for name, parts in exchange["members"].items():
            assert bundle([message(part["request"]) for part in parts]).header == requests[name].header
            league.coordinator.receive(name, bundle([message(part["reply"]) for part in parts]))
        outcome = league.coordinator.close()
    assert outcome is not None
    assert outcome.total.tolist() == vector["total"]


def replies(vector: dict[str, Any], kind: str, number: int = 1) -> dict[str, tuple[dict[str, Any], Message]]:
    """What each member said of one kind in one round: its statement as JSON, and the message."""
    found = {}
    for exchange in vector["exchanges"]:
        for name, parts in exchange["members"].items():
            for part in parts:
                said = message(part["reply"])
                if said.kind == kind:
                    value = json.loads(said.body["signed"].split(" ", 3)[3])  # type: ignore[union-attr]
                    if value["round"] == number:
                        found[name] = value, said
    return found


def signed(vector: dict[str, Any], kind: str) -> bytes:
    """The bytes of the first statement of one kind that the coordinator signed."""
    for exchange in vector["exchanges"]:
        for part in exchange["members"]["member-1"]:
            asked = message(part["request"])
            if asked.kind == kind:
                return str(asked.body["signed"]).split(" ", 3)[3].encode()
    raise AssertionError(kind)


def hkdf(secret: bytes, salt: bytes, *label: str) -> bytes:
    """RFC 5869 with SHA-256, one block."""
    info = "\n".join(("hansa/secagg/v1", *label)).encode()
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def mask(key: bytes, words: int) -> list[int]:
    blocks = b"".join(i.to_bytes(16, "big") for i in range(-(-words // 4)))
    stream = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(blocks)  # noqa: S305  (CTR by hand)
    return np.frombuffer(stream, dtype="<u4")[:words].tolist()


def drawn(vector: dict[str, Any], name: str) -> tuple[bytes, bytes]:
    """Self-mask seed and mask seed of round 1: the first 64 bytes that a member drew."""
    stream = FixedStream(f"{vector['label']}/rand/{name}")
    return stream(32), stream(32)


def test_masked_vectors_follow_from_the_written_protocol(vector: dict[str, Any]) -> None:
    names = list(vector["contributions"])
    keys = replies(vector, "secagg.keys")
    sent = replies(vector, "secagg.masked")
    manifest = signed(vector, "secagg.manifest")
    listed = [
        [name, hashlib.sha256(str(said.body["signed"]).split(" ", 3)[3].encode()).hexdigest()]
        for name, (_, said) in keys.items()
    ]
    first = next(iter(keys.values()))[0]
    transcript = sha256_json(["hansa/secagg/v1", "transcript", first["terms"], first["run"], 1, listed])
    assert json.loads(manifest)["transcript"] == transcript
    binding = sha256_json(["hansa/secagg/v1", "binding", transcript, hashlib.sha256(manifest).hexdigest()])
    scale = 2.0 ** np.floor(np.log2(2.0**30 / len(names)))
    assert len(sent) >= 3
    for name, (value, said) in sent.items():
        assert value["binding"] == binding
        self_seed, mask_seed = drawn(vector, name)
        private = X25519PrivateKey.from_private_bytes(hkdf(mask_seed, b"", "x25519"))
        assert private.public_key().public_bytes_raw().hex() == keys[name][0]["mask_key"]
        total = [round(v * scale) for v in vector["contributions"][name]]
        own = mask(hkdf(self_seed, bytes.fromhex(binding), "self-mask", name), 8)
        total = [(a + b) % 2**32 for a, b in zip(total, own, strict=True)]
        for other in names:
            if other == name:
                continue
            shared = private.exchange(
                X25519PublicKey.from_public_bytes(bytes.fromhex(keys[other][0]["mask_key"]))
            )
            pair, sign = ((name, other), 1) if names.index(name) < names.index(other) else ((other, name), -1)
            between = mask(hkdf(shared, bytes.fromhex(binding), "pair-mask", *pair), 8)
            total = [(a + sign * b) % 2**32 for a, b in zip(total, between, strict=True)]
        assert said.arrays["y"].tolist() == total


def test_sums_follow_from_the_contributions_alone(vector: dict[str, Any]) -> None:
    scale = 2.0 ** np.floor(np.log2(2.0**30 / len(vector["contributions"])))
    survivors = [vector["contributions"][name] for name in vector["survivors"]]
    assert [sum(round(v * scale) for v in column) for column in zip(*survivors, strict=True)] == vector[
        "total"
    ]


def test_opened_seeds_are_the_ones_that_were_drawn(vector: dict[str, Any]) -> None:
    record = vector["record"]
    for name, seed in record["self_seeds"].items():
        assert bytes.fromhex(seed) == drawn(vector, name)[0]
    for name, seed in record["mask_seeds"].items():
        assert bytes.fromhex(seed) == drawn(vector, name)[1]
    assert set(record["self_seeds"]) == set(vector["survivors"])
    assert set(record["mask_seeds"]) == set(vector["vanish"])


def test_the_published_record_proves_the_sum(vector: dict[str, Any]) -> None:
    sent = {name: said.arrays["y"] for name, (_, said) in replies(vector, "secagg.masked").items()}
    record = RoundRecord.model_validate_json(json.dumps(vector["record"]))
    assert verify_sum(league_of(vector).terms, record, sent.__getitem__).total.tolist() == vector["total"]


def test_shares_lie_on_polynomials_of_degree_t_minus_one(vector: dict[str, Any]) -> None:
    prime = 2**521 - 1
    opened = replies(vector, "secagg.unmask")
    names = list(vector["contributions"])
    threshold = 2 * len(names) // 3 + 1
    holders = list(opened)[:threshold]
    for row, dealer in enumerate(names):
        secret = 0
        for holder in holders:
            x = names.index(holder) + 1
            weight = 1
            for other in holders:
                if other != holder:
                    z = names.index(other) + 1
                    weight = weight * z * pow(z - x, -1, prime) % prime
            secret += weight * int.from_bytes(opened[holder][1].arrays["shares"][row].tobytes(), "big")
        seed = drawn(vector, dealer)[0 if dealer in vector["survivors"] else 1]
        assert secret % prime == int.from_bytes(seed, "big")


def sha256_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
