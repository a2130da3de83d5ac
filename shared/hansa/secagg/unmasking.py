"""From shares to a sum: secrets are reconstructed and compared with what was signed, then masks are taken off.

Used by the coordinator and, with the published record, by everyone who recomputes a sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag

from hansa.secagg.commitments import SALT_BYTES, share_hash
from hansa.secagg.dealing import KINDS, MASK_KEY, SELF_MASK, opened_pad
from hansa.secagg.errors import BadShareError
from hansa.secagg.keys import (
    PublicKeys,
    agree,
    kem_key,
    pad_for,
    pair_mask_key,
    seed_commitment,
    self_mask_key,
    x25519_key,
)
from hansa.secagg.masks import MaskKey
from hansa.secagg.shares import SECRET_BYTES, SHARE_BYTES, combine, lagrange_weights
from hansa.wire import Array, array_sha256


@dataclass(frozen=True, repr=False)
class Opened:
    """One holder's shares and salts, a row for each contributor: bytes of shape (k, 66) and (k, 32)."""

    shares: bytes
    salts: bytes

    def share(self, index: int) -> bytes:
        """The share of the contributor at this place."""
        return self.shares[SHARE_BYTES * index :][:SHARE_BYTES]

    def salt(self, index: int) -> bytes:
        """Its salt."""
        return self.salts[SALT_BYTES * index :][:SALT_BYTES]


@dataclass(frozen=True)
class RoundFacts:
    """What is public about a round once its survivors are known.

    Attributes:
        transcript, binding: T_B and T_C.
        x: x-coordinates of all that offered keys, in order.
        keys: their round keys.
        contributors: U2, in order of x.
        survivors: U3, in order of x.
    """

    transcript: str
    binding: str
    x: Mapping[str, int]
    keys: Mapping[str, PublicKeys]
    contributors: tuple[str, ...]
    survivors: tuple[str, ...]

    @property
    def vanished(self) -> tuple[str, ...]:
        """U2 without U3."""
        return tuple(name for name in self.contributors if name not in self.survivors)


@dataclass(frozen=True, repr=False)
class Secrets:
    """Opened seeds: of the self-masks of survivors, and of the mask keys of those who vanished."""

    self_seeds: Mapping[str, bytes]
    mask_seeds: Mapping[str, bytes]


def reconstruct(
    facts: RoundFacts, opened: Mapping[str, Opened], rows: Mapping[str, Array], threshold: int
) -> tuple[Secrets, tuple[str, ...]]:
    """The secrets of all contributors, from any t honest holders.

    Secrets are compared with what their dealers committed to; only where one differs are single shares compared
    with the hashes that the dealer signed, to tell a lying holder from a lying dealer.

    Args:
        facts: of the round.
        opened: by holder, in order of x.
        rows: by dealer, the hashes it signed: bytes of shape (number of keys, 3, 32).
        threshold: t.

    Returns:
        The secrets, and the holders whose shares were not what their dealers signed.

    Raises:
        BadShareError: a dealer shared something else than it committed to, or too few holders are left; names who.
    """
    holders = list(opened)
    liars: list[str] = []
    while len(holders) >= threshold:
        chosen = holders[:threshold]
        weights = lagrange_weights([facts.x[name] for name in chosen])
        found = {
            dealer: combine([opened[name].share(index) for name in chosen], weights)
            for index, dealer in enumerate(facts.contributors)
        }
        wrong = [dealer for dealer, secret in found.items() if not _is_committed(facts, dealer, secret)]
        if not wrong:
            return Secrets(
                {name: found[name] for name in facts.survivors},
                {name: found[name] for name in facts.vanished},
            ), tuple(liars)
        lying = [
            name for name in chosen if any(_lies(facts, name, opened[name], dealer, rows) for dealer in wrong)
        ]
        if not lying:
            raise BadShareError(f"{', '.join(wrong)} shared something else than was committed to", wrong)
        holders = [name for name in holders if name not in lying]
        liars += lying
    raise BadShareError(f"{len(holders)} holders gave good shares, {threshold} are needed", liars)


def masks_to_remove(
    facts: RoundFacts, secrets: Secrets, pads: Mapping[str, Mapping[str, bytes]]
) -> tuple[list[MaskKey], list[MaskKey]]:
    """Keys of the masks that are left in the sum of the survivors' vectors.

    Args:
        facts, secrets: of the round.
        pads: in hybrid mode, what each vanished member was sent by those with a lower x: {higher: {lower: bytes}}.

    Returns:
        Keys whose masks must be added, and keys whose masks must be subtracted.

    Raises:
        BadShareError: a pad does not open; names who sent it.
    """
    add: list[MaskKey] = []
    subtract = [self_mask_key(secrets.self_seeds[name], name, facts.binding) for name in facts.survivors]
    for gone in facts.vanished:
        seed = secrets.mask_seeds[gone]
        private = x25519_key(seed)
        hybrid = kem_key(seed) if facts.keys[gone].mask_kem is not None else None
        for name in facts.survivors:
            secret = agree(private, facts.keys[name].mask_key, name)
            lower, higher = (gone, name) if facts.x[gone] < facts.x[name] else (name, gone)
            if hybrid is None:
                pad = b""
            elif lower == gone:
                pad = pad_for(seed, facts.transcript, lower, higher)
            else:
                try:
                    pad = opened_pad(hybrid, pads[gone][name], facts.transcript, lower, higher)
                except (InvalidTag, KeyError, ValueError):
                    raise BadShareError(f"the pad that {name} sent to {gone} does not open", [name]) from None
            (subtract if name == lower else add).append(
                pair_mask_key(secret, pad, lower, higher, facts.binding)
            )
    return add, subtract


def is_seed_of(public: PublicKeys, member: str, seed: bytes, kind: str) -> bool:
    """Whether an opened seed is the one behind a member's signed keys; a caller must raise where it is not."""
    if len(seed) != SECRET_BYTES:
        return False
    if kind == SELF_MASK:
        return seed_commitment(member, seed) == public.seed_commitment
    if x25519_key(seed).public_key().public_bytes_raw().hex() != public.mask_key:
        return False
    return public.mask_kem is None or kem_key(seed).public_key().public_bytes_raw().hex() == public.mask_kem


def _is_committed(facts: RoundFacts, dealer: str, secret: bytes) -> bool:
    return is_seed_of(
        facts.keys[dealer], dealer, secret, SELF_MASK if dealer in facts.survivors else MASK_KEY
    )


def _lies(facts: RoundFacts, holder: str, opened: Opened, dealer: str, rows: Mapping[str, Array]) -> bool:
    index = facts.contributors.index(dealer)
    kind = SELF_MASK if dealer in facts.survivors else MASK_KEY
    signed: bytes = rows[dealer][list(facts.x).index(holder), KINDS.index(kind)].tobytes()
    return (
        share_hash(facts.transcript, dealer, holder, kind, opened.share(index), opened.salt(index)) != signed
    )


def aggregate_sha256(total: Array) -> str:
    """What a round's record and the next manifest call its sum: SHA-256 of little-endian int32."""
    return array_sha256(total)
