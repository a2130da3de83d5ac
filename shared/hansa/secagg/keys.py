"""Keys of one round: what a member draws, what it offers, and the mask keys that follow from both.

A member draws two 32-byte seeds and a Diffie-Hellman key, afresh for every round:

- the *self-mask seed*, whose mask hides the vector until the survivors are known;
- the *mask seed*, from which its X25519 key for pairwise masks (and, in hybrid mode, its ML-KEM-768 key) is
  derived, so that one secret of 256 bits is shared and brings back every pairwise mask of a member that is gone;
- the *envelope key*, which opens what others send it and is never shared.

Mask keys are HKDF-SHA256 (RFC 5869) outputs salted with the round's binding, the hash of transcript and manifest:
members that were shown different models derive different keys, and their masks do not cancel.

Hybrid mode: the key of a pair is derived from X25519 *and* a 32-byte pad that the member with the lower x derives
from its mask seed and sends under the other's ML-KEM-768 key (FIPS 203). Either member's mask seed brings the pad
back, so that a dropout can be repaired whichever of the two is gone.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property, lru_cache

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ConfigDict

from hansa.errors import WireError
from hansa.secagg.masks import MaskKey
from hansa.secagg.shares import SECRET_BYTES, Rand

KEM_PUBLIC_BYTES = 1184
KEM_CIPHERTEXT_BYTES = 1088
PAD_BYTES = 32 + 16  # the pad under AES-256-GCM
PROTOCOL = "hansa/secagg/v1"
BYTES_AS_BASE64 = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")  # in sealed state
_ZERO_NONCE = bytes(12)  # each key encrypts one message
_PROBE = X25519PrivateKey.from_private_bytes(bytes(32))  # no secret; shows points of small order


@dataclass(frozen=True)
class PublicKeys:
    """What others need of a member's round keys; hexadecimal texts, as in its signed statement.

    Attributes:
        mask_key: X25519.
        envelope_key: X25519.
        seed_commitment: SHA-256 of the self-mask seed.
        mask_kem, envelope_kem: ML-KEM-768, in hybrid mode; otherwise None.
    """

    mask_key: str
    envelope_key: str
    seed_commitment: str
    mask_kem: str | None = None
    envelope_kem: str | None = None

    def check_usable(self, owner: str) -> None:
        """Check that nobody who agrees with these keys would be left with a secret of zeros.

        Raises:
            WireError: a key is a point of small order, or no ML-KEM-768 key.
        """
        for key in (self.mask_key, self.envelope_key):
            _probe(key, owner)
        for kem in (self.mask_kem, self.envelope_kem):
            if kem is not None:
                encapsulate(kem, owner)


@dataclass(frozen=True, repr=False)
class RoundSecrets:
    """What a member keeps to itself: 32 bytes each."""

    __pydantic_config__ = BYTES_AS_BASE64

    self_seed: bytes
    mask_seed: bytes
    envelope_seed: bytes

    @cached_property
    def mask_private(self) -> X25519PrivateKey:
        """The key of pairwise masks; in memory as long as the seeds are."""
        return x25519_key(self.mask_seed)

    @cached_property
    def envelope_private(self) -> X25519PrivateKey:
        """The key of envelopes; in memory as long as the seeds are."""
        return x25519_key(self.envelope_seed)

    @cached_property
    def _agreed(self) -> dict[str, bytes]:
        return {}

    def agree_on_envelopes(self, public: str, owner: str) -> bytes:
        """The X25519 secret that this envelope key has with another one: the same when sealing and when opening.

        Raises:
            WireError: see `agree`.
        """
        secret = self._agreed.get(public)
        if secret is None:
            secret = self._agreed[public] = agree(self.envelope_private, public, owner)
        return secret

    @classmethod
    def draw(cls, rand: Rand) -> RoundSecrets:
        """Fresh secrets for one round."""
        return cls(rand(SECRET_BYTES), rand(SECRET_BYTES), rand(SECRET_BYTES))

    def public(self, member: str, *, post_quantum: bool) -> PublicKeys:
        """What the member signs and sends."""
        return PublicKeys(
            mask_key=self.mask_private.public_key().public_bytes_raw().hex(),
            envelope_key=self.envelope_private.public_key().public_bytes_raw().hex(),
            seed_commitment=seed_commitment(member, self.self_seed),
            mask_kem=kem_key(self.mask_seed).public_key().public_bytes_raw().hex() if post_quantum else None,
            envelope_kem=kem_key(self.envelope_seed).public_key().public_bytes_raw().hex()
            if post_quantum
            else None,
        )


def x25519_key(seed: bytes) -> X25519PrivateKey:
    """The X25519 key of a seed."""
    return X25519PrivateKey.from_private_bytes(_derive(seed, b"", ["x25519"]))


def kem_key(seed: bytes) -> MLKEM768PrivateKey:
    """The ML-KEM-768 key of a seed."""
    return MLKEM768PrivateKey.from_seed_bytes(_derive(seed, b"", ["ml-kem-768"], 64))


def seed_commitment(member: str, self_seed: bytes) -> str:
    """Commitment to a self-mask seed; hiding, because the seed has 256 random bits."""
    return hashlib.sha256(f"{PROTOCOL}/seed\n{member}\n".encode() + self_seed).hexdigest()


def agree(private: X25519PrivateKey, public: str, owner: str) -> bytes:
    """The X25519 secret of two parties.

    Raises:
        WireError: `owner`'s key is no key, or a point of small order, with which any secret would be zero.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    except ValueError:
        raise WireError(f"the round key of {owner!r} is not usable") from None


@lru_cache(maxsize=512)  # in one process a league looks at each key once; only success is remembered
def _probe(public: str, owner: str) -> None:
    agree(_PROBE, public, owner)


def self_mask_key(self_seed: bytes, member: str, binding: str) -> MaskKey:
    """The key of a member's self-mask in one round."""
    return MaskKey(_derive(self_seed, bytes.fromhex(binding), ["self-mask", member]))


def pair_mask_key(secret: bytes, pad: bytes, lower: str, higher: str, binding: str) -> MaskKey:
    """The key of the mask that two members share in one round.

    Args:
        secret: X25519 of their mask keys.
        pad: 32 bytes in hybrid mode, otherwise empty.
        lower, higher: the member with the lower x, which adds the mask, and the other, which subtracts it.
        binding: of the round.
    """
    return MaskKey(_derive(secret + pad, bytes.fromhex(binding), ["pair-mask", lower, higher]))


def envelope_keys(secret: bytes, transcript: str, source: str, destination: str) -> tuple[bytes, bytes]:
    """The single-use AES-256-GCM keys of the two envelopes in one direction, one for each kind of share."""
    both = _derive(secret, bytes.fromhex(transcript), ["envelopes", source, destination], 64)
    return both[:32], both[32:]


def seal_envelope(
    key: bytes, transcript: str, source: str, destination: str, kind: str, content: bytes
) -> bytes:
    """Encrypt one message under its single-use key, bound to round, parties and kind; 16 bytes longer."""
    return AESGCM(key).encrypt(
        _ZERO_NONCE, content, _label(["envelope", transcript, source, destination, kind])
    )


def open_envelope(
    key: bytes, transcript: str, source: str, destination: str, kind: str, sealed: bytes
) -> bytes:
    """The content of an envelope.

    Raises:
        cryptography.exceptions.InvalidTag: it was not sealed with this key for this round, parties and kind.
    """
    return AESGCM(key).decrypt(
        _ZERO_NONCE, sealed, _label(["envelope", transcript, source, destination, kind])
    )


def pad_for(mask_seed: bytes, transcript: str, lower: str, higher: str) -> bytes:
    """The pad of a pair in hybrid mode, from the mask seed of the member with the lower x."""
    return _derive(mask_seed, bytes.fromhex(transcript), ["pad", lower, higher])


def encapsulate(public: str, owner: str) -> tuple[bytes, bytes]:
    """A fresh secret and its ciphertext for an ML-KEM-768 key; the library draws its own randomness.

    Raises:
        WireError: `owner`'s key is no ML-KEM-768 key.
    """
    try:
        return MLKEM768PublicKey.from_public_bytes(bytes.fromhex(public)).encapsulate()
    except ValueError:
        raise WireError(f"the ML-KEM key of {owner!r} is not usable") from None


def _label(parts: list[str]) -> bytes:
    return "\n".join((PROTOCOL, *parts)).encode()  # names, kinds and hashes hold no line break


def _derive(secret: bytes, salt: bytes, label: list[str], length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) of at most 64 bytes."""
    info, key = _label(label), hmac.digest(salt or bytes(32), secret, "sha256")
    first = hmac.digest(key, info + b"\x01", "sha256")
    return (
        first[:length]
        if length <= 32
        else first + hmac.digest(key, first + info + b"\x02", "sha256")[: length - 32]
    )
