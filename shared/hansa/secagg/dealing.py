"""Phase B from both ends: a dealer's shares in their envelopes, and a holder's opening of what it was dealt.

Array layouts (all bytes). The dealer sends, with m the number of members that offered keys, in order of x:

- ``envelopes`` (m - 1, 2, 114): for each other holder, the self-mask share and the mask-key share, each 66 bytes
  with a 32-byte salt under AES-256-GCM;
- ``rows`` (m, 3, 32): for every holder, the dealer included, the hashes that the dealer's root covers;
- ``kem`` (m - 1, 2224), in hybrid mode: ML-KEM-768 ciphertext for the envelopes, and another with the encrypted
  pad for pairs in which the dealer has the lower x (zeros otherwise).

The coordinator turns the n messages into one `Delivery` per holder.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from hansa.merkle import HASH_BYTES, path_length
from hansa.secagg.commitments import SALT_BYTES, check_path, merkle_paths, merkle_root, share_hash
from hansa.secagg.errors import TranscriptError
from hansa.secagg.keys import (
    BYTES_AS_BASE64,
    KEM_CIPHERTEXT_BYTES,
    PAD_BYTES,
    PublicKeys,
    RoundSecrets,
    agree,
    encapsulate,
    envelope_keys,
    kem_key,
    open_envelope,
    pad_for,
    pair_mask_key,
    seal_envelope,
    self_mask_key,
)
from hansa.secagg.masks import MaskKey
from hansa.secagg.messages import Shares, rows_of
from hansa.secagg.shares import SHARE_BYTES, Rand, split
from hansa.wire import Array, Message

SELF_MASK, MASK_KEY = "self-mask", "mask-key"
KINDS = (SELF_MASK, MASK_KEY)
CONTENT_BYTES = SHARE_BYTES + SALT_BYTES
ENVELOPE_BYTES = CONTENT_BYTES + 16
KEM_BYTES = 2 * KEM_CIPHERTEXT_BYTES + PAD_BYTES


@dataclass(frozen=True)
class Parties:
    """Who deals to whom in one round.

    Attributes:
        me: this member.
        x: x-coordinates of all that offered keys, in order.
        keys: their public round keys.
        transcript: T_B.
        threshold: t.
    """

    me: str
    x: Mapping[str, int]
    keys: Mapping[str, PublicKeys]
    transcript: str
    threshold: int

    @property
    def others(self) -> tuple[str, ...]:
        """Everyone but this member, in order of x."""
        return tuple(name for name in self.x if name != self.me)

    @property
    def hybrid(self) -> bool:
        """Whether ML-KEM-768 stands beside X25519."""
        return self.keys[self.me].mask_kem is not None


@dataclass(frozen=True, repr=False)
class Held:
    """What a holder keeps of one dealer: share and salt of either kind (98 bytes each), and the pair's pad."""

    __pydantic_config__ = BYTES_AS_BASE64

    self_mask: bytes
    mask_key: bytes
    pad: bytes


@dataclass(frozen=True)
class Dealt:
    """What a dealer sends, and what it holds of itself."""

    arrays: Mapping[str, Array]
    root: str
    own: Held


def deal(secrets: RoundSecrets, parties: Parties, rand: Rand) -> Dealt:
    """Share both seeds among all that offered keys.

    Raises:
        WireError: somebody's round key is not usable; names whose.
    """
    holders = list(parties.x)
    xs = list(parties.x.values())
    shares = {
        SELF_MASK: split(secrets.self_seed, xs, parties.threshold, rand),
        MASK_KEY: split(secrets.mask_seed, xs, parties.threshold, rand),
    }
    salts = rand(2 * SALT_BYTES * len(holders))
    envelopes: list[bytes] = []
    kems: list[bytes] = []
    rows: list[bytes] = []
    own = Held(b"", b"", b"")
    for index, holder in enumerate(holders):
        contents = [
            shares[kind][index] + salts[SALT_BYTES * (2 * index + i) :][:SALT_BYTES]
            for i, kind in enumerate(KINDS)
        ]
        sealed = kem = b""
        if holder == parties.me:
            own = Held(contents[0], contents[1], b"")
        else:
            public = parties.keys[holder]
            secret = secrets.agree_on_envelopes(public.envelope_key, holder)
            if parties.hybrid:
                extra, kem = _encapsulated(secrets, parties, holder)
                secret += extra
            sealing = envelope_keys(secret, parties.transcript, parties.me, holder)
            for key, kind, content in zip(sealing, KINDS, contents, strict=True):
                sealed += seal_envelope(key, parties.transcript, parties.me, holder, kind, content)
            envelopes.append(sealed)
            kems.append(kem)
        rows.append(row_of(parties.transcript, parties.me, holder, contents, sealed + kem))
    arrays = {
        "envelopes": _bytes(envelopes, len(envelopes), 2, ENVELOPE_BYTES),
        "rows": _bytes(rows, len(rows), 3, HASH_BYTES),
    }
    if parties.hybrid:
        arrays["kem"] = _bytes(kems, len(kems), KEM_BYTES)
    return Dealt(arrays, merkle_root(rows).hex(), own)


@dataclass(frozen=True, repr=False)
class OpeningKeys:
    """The private keys with which a member opens what it is dealt, made once for all dealers of a round."""

    secrets: RoundSecrets
    envelope_kem: MLKEM768PrivateKey | None
    mask_kem: MLKEM768PrivateKey | None

    @classmethod
    def of(cls, secrets: RoundSecrets, *, hybrid: bool) -> OpeningKeys:
        """Of a member's secrets."""
        return cls(
            secrets,
            kem_key(secrets.envelope_seed) if hybrid else None,
            kem_key(secrets.mask_seed) if hybrid else None,
        )


def open_dealt(
    keys: OpeningKeys, parties: Parties, dealer: str, envelope: bytes, row: bytes, kem: bytes
) -> Held:
    """What one dealer sent to this member.

    Args:
        keys: this member's.
        parties: of the round.
        dealer: whose envelope it is.
        envelope: 228 bytes, both kinds.
        row: the dealer's signed hashes for this member; that `envelope` is the one in it was checked.
        kem: 2224 bytes in hybrid mode, otherwise empty.

    Raises:
        cryptography.exceptions.InvalidTag: an envelope does not open, or holds what its dealer did not sign.
        WireError: the dealer's key is not usable.
    """
    secret = keys.secrets.agree_on_envelopes(parties.keys[dealer].envelope_key, dealer)
    pad = b""
    if keys.envelope_kem is not None and keys.mask_kem is not None:
        secret += keys.envelope_kem.decapsulate(kem[:KEM_CIPHERTEXT_BYTES])
        if parties.x[dealer] < parties.x[parties.me]:
            pad = opened_pad(keys.mask_kem, kem, parties.transcript, dealer, parties.me)
    contents = []
    opening = envelope_keys(secret, parties.transcript, dealer, parties.me)
    for index, (key, kind) in enumerate(zip(opening, KINDS, strict=True)):
        sealed = envelope[ENVELOPE_BYTES * index :][:ENVELOPE_BYTES]
        contents.append(open_envelope(key, parties.transcript, dealer, parties.me, kind, sealed))
    if row_of(parties.transcript, dealer, parties.me, contents, envelope + kem) != row:
        raise InvalidTag
    return Held(contents[0], contents[1], pad)


def read_parcels(
    request: Message, parties: Parties, dealers: Mapping[str, Shares]
) -> Iterator[tuple[str, bytes, bytes, bytes]]:
    """Each dealer's envelope, row and kem of a `Delivery`, as that dealer signed them.

    Raises:
        WireError: an array is missing or has a wrong shape.
        TranscriptError: what came is not what its dealer signed; that is the coordinator's doing, or the carrier's.
    """
    count, place, size = len(dealers), list(parties.x).index(parties.me), len(parties.x)
    if not set(dealers) <= set(parties.others):
        raise TranscriptError("shares come from somebody who offered no keys")
    envelopes = rows_of(request, "envelopes", (count, 2, ENVELOPE_BYTES))
    rows = rows_of(request, "rows", (count, 3, HASH_BYTES))
    paths = rows_of(request, "paths", (count, path_length(place, size), HASH_BYTES))
    kems = rows_of(request, "kem", (count, KEM_BYTES)) if parties.hybrid else np.empty((count, 0), np.uint8)
    for index, (dealer, said) in enumerate(dealers.items()):
        if said.transcript != parties.transcript:
            raise TranscriptError(f"{dealer!r} shared its secrets under another transcript")
        envelope, row, kem = envelopes[index].tobytes(), rows[index].tobytes(), kems[index].tobytes()
        check_path(row, place, size, [step.tobytes() for step in paths[index]], bytes.fromhex(said.root))
        if hashlib.sha256(envelope + kem).digest() != row[2 * HASH_BYTES :]:
            raise TranscriptError(f"the envelope of {dealer!r} was altered on its way")
        yield dealer, envelope, row, kem


def own_masks(
    secrets: RoundSecrets,
    parties: Parties,
    held: Mapping[str, Held],
    contributors: Sequence[str],
    binding: str,
) -> tuple[list[MaskKey], list[MaskKey]]:
    """Keys of all masks of one member's vector: its self-mask, and one with every other contributor.

    Returns:
        Keys whose masks are added, and keys whose masks are subtracted.
    """
    private = secrets.mask_private
    plus, minus = [self_mask_key(secrets.self_seed, parties.me, binding)], []
    for other in contributors:
        if other == parties.me:
            continue
        secret = agree(private, parties.keys[other].mask_key, other)
        if parties.x[parties.me] < parties.x[other]:
            pad = pad_for(secrets.mask_seed, parties.transcript, parties.me, other) if parties.hybrid else b""
            plus.append(pair_mask_key(secret, pad, parties.me, other, binding))
        else:
            minus.append(pair_mask_key(secret, held[other].pad, other, parties.me, binding))
    return plus, minus


def opened_pad(private: MLKEM768PrivateKey, kem: bytes, transcript: str, lower: str, higher: str) -> bytes:
    """The pad that the member with the lower x sent to the other.

    Raises:
        cryptography.exceptions.InvalidTag: it does not open.
    """
    key = private.decapsulate(kem[KEM_CIPHERTEXT_BYTES : 2 * KEM_CIPHERTEXT_BYTES])
    return open_envelope(key, transcript, lower, higher, "pad", kem[2 * KEM_CIPHERTEXT_BYTES :])


def row_of(transcript: str, dealer: str, holder: str, contents: list[bytes], sealed: bytes) -> bytes:
    """The three hashes that a dealer signs for one holder (96 bytes)."""
    hashes = [
        share_hash(transcript, dealer, holder, kind, content[:SHARE_BYTES], content[SHARE_BYTES:])
        for kind, content in zip(KINDS, contents, strict=True)
    ]
    return b"".join((*hashes, hashlib.sha256(sealed).digest()))


def _encapsulated(secrets: RoundSecrets, parties: Parties, holder: str) -> tuple[bytes, bytes]:
    public = parties.keys[holder]
    extra, ciphertext = encapsulate(public.envelope_kem or "", holder)
    if parties.x[parties.me] > parties.x[holder]:
        return extra, ciphertext + bytes(KEM_CIPHERTEXT_BYTES + PAD_BYTES)
    key, second = encapsulate(public.mask_kem or "", holder)
    pad = pad_for(secrets.mask_seed, parties.transcript, parties.me, holder)
    return extra, ciphertext + second + seal_envelope(key, parties.transcript, parties.me, holder, "pad", pad)


def _bytes(parts: list[bytes], *shape: int) -> Array:
    return np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(shape)


class Parcels:
    """At the coordinator: what each dealer sent, checked, and what each holder is to get of it."""

    def __init__(self, x: Mapping[str, int], *, hybrid: bool) -> None:
        self._place = {name: place for place, name in enumerate(x)}
        self._hybrid = hybrid
        self._paths: dict[str, list[bytes]] = {}
        self._sealed: dict[str, Array] = {}  # (m, 228 or 228 + 2224), the dealer's own row empty
        self.rows: dict[str, Array] = {}

    def add(self, dealer: str, message: Message, root: str) -> None:
        """Take a dealer's arrays.

        Raises:
            WireError: a shape is wrong.
            TranscriptError: root, rows and envelopes do not belong together.
        """
        size, own = len(self._place), self._place[dealer]
        sent = rows_of(message, "envelopes", (size - 1, 2, ENVELOPE_BYTES)).reshape(size - 1, -1)
        if self._hybrid:
            sent = np.hstack([sent, rows_of(message, "kem", (size - 1, KEM_BYTES))])
        rows = rows_of(message, "rows", (size, 3, HASH_BYTES))
        leaves = [row.tobytes() for row in rows]
        sealed = [row.tobytes() for row in sent]
        sealed.insert(own, b"")
        if merkle_root(leaves).hex() != root or any(
            hashlib.sha256(envelope).digest() != leaf[2 * HASH_BYTES :]
            for envelope, leaf in zip(sealed, leaves, strict=True)
        ):
            raise TranscriptError(f"the shares of {dealer!r} are not those that it signed")
        self.rows[dealer] = rows
        self._paths[dealer] = [b"".join(path) for path in merkle_paths(leaves)]
        self._sealed[dealer] = np.insert(sent, own, 0, axis=0)

    def for_holder(self, holder: str, dealers: Sequence[str]) -> dict[str, Array]:
        """The arrays of one holder's `Delivery`; `dealers` in order of x, this holder not among them."""
        place, count = self._place[holder], len(dealers)
        sealed = np.stack([self._sealed[dealer][place] for dealer in dealers])
        paths = [self._paths[dealer][place] for dealer in dealers]
        arrays = {
            "envelopes": sealed[:, : 2 * ENVELOPE_BYTES].reshape(count, 2, ENVELOPE_BYTES),
            "rows": np.stack([self.rows[dealer][place] for dealer in dealers]),
            "paths": _bytes(paths, count, path_length(place, len(self._place)), HASH_BYTES),
        }
        if self._hybrid:
            arrays["kem"] = sealed[:, 2 * ENVELOPE_BYTES :]
        return arrays

    def pads_for(self, holder: str, dealers: Sequence[str]) -> dict[str, bytes]:
        """In hybrid mode, what these dealers sent to a holder under ML-KEM."""
        place = self._place[holder]
        return {
            dealer: self._sealed[dealer][place, 2 * ENVELOPE_BYTES :].tobytes()
            for dealer in dealers
            if self._hybrid and self._place[dealer] < place
        }


def left_out(complaints: Mapping[str, Sequence[str]]) -> set[str]:
    """Whom to leave out of a round so that no complaint is left between two who stay.

    Nobody can tell whether dealer or holder of a pair is at fault, so that a lone complaint takes both. Who is in
    several goes first, and alone: a dealer of bad envelopes cannot take all its holders with it, nor a holder that
    complains of everyone all dealers.

    Args:
        complaints: dealers complained of, by holder.
    """
    pairs = {frozenset((holder, dealer)) for holder, dealers in complaints.items() for dealer in dealers}
    out: set[str] = set()
    while pairs:
        counts = Counter(name for pair in pairs for name in pair)
        most = max(counts.values())
        worst = {name for name, count in counts.items() if count == most}
        out |= worst
        pairs = {pair for pair in pairs if not pair & worst}
    return out
