"""The messages of a round, typed: what each says, who signs it, and how it is read.

A message carries one signed statement in its body and its arrays beside it; the statement names the hash of
every array, so that the signature covers them. Reading checks form, signature, signer, agreement and run before
anything acts on the content; what does not fit is a typed error and changes no state.

| phase | from the coordinator | from a member |
| --- | --- | --- |
| A keys | `KeysRequest` | `Keys` |
| B shares | `SharesRequest` | `Shares` |
| delivery | `Delivery` | `Received` |
| C masked | `Manifest` | `Masked` |
| D confirm | `Survivors` | `Confirm` |
| E unmask | `UnmaskRequest` | `Unmask` |
| after C | `Receipt` | |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hansa.canonical import canonical_hash
from hansa.errors import WireError
from hansa.identity.keys import Signer
from hansa.identity.statement import Statement, require_canonical, statement_bytes, unpack
from hansa.secagg.errors import QuorumError, TranscriptError
from hansa.secagg.keys import KEM_PUBLIC_BYTES, PROTOCOL, PublicKeys
from hansa.secagg.terms import StatedTerms
from hansa.wire import Array, Message, array_sha256

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KemKey = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{2 * KEM_PUBLIC_BYTES}}}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Checkpoint = Annotated[str, StringConstraints(max_length=65_536)]
Counter = Annotated[int, Field(ge=0, lt=2**53)]
RoundNumber = Annotated[int, Field(ge=1, lt=2**53)]
Names = Annotated[tuple[Label, ...], Field(max_length=100)]

VECTOR, NOISE_END, NOISE_SEED = "y", "noise_end", "noise_seed"  # arrays of `Masked`, and of `Unmask`
SIGNED = "signed"  # the one key of a message's body
NOTED = "secagg.noted"  # the reply to a receipt, which needs none


class Said(BaseModel):
    """What every statement of a round says.

    Attributes:
        terms: `SumTerms.sha256`: agreement, roster, t, quantisers, threat model.
        run: which run of the agreement.
        round: which round of the run; never used twice.
        arrays: SHA-256 of each array that travels with the statement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    purpose_name: ClassVar[str]

    terms: Hash
    run: Label
    round: RoundNumber
    arrays: dict[Label, Hash]


class KeysRequest(Said):
    """Asks for round keys; may come rounds ahead."""

    purpose_name = "secagg.keys-request"


class Keys(Said):
    """A member's round keys; see `hansa.secagg.keys`."""

    purpose_name = "secagg.keys"

    mask_key: Hash
    envelope_key: Hash
    seed_commitment: Hash
    mask_kem: KemKey | None
    envelope_kem: KemKey | None

    @property
    def public(self) -> PublicKeys:
        """The keys alone."""
        return PublicKeys(
            self.mask_key, self.envelope_key, self.seed_commitment, self.mask_kem, self.envelope_kem
        )


class SharesRequest(Said):
    """All signed `Keys` of the round, in the array ``keys``, in order of x."""

    purpose_name = "secagg.shares-request"


class Shares(Said):
    """A dealer's shares for every holder: arrays ``envelopes``, ``rows`` and, in hybrid mode, ``kem``.

    Attributes:
        transcript: T_B, over terms, run, round and all signed keys.
        root: Merkle root over the rows of share hashes (`hansa.secagg.commitments`).
    """

    purpose_name = "secagg.shares"

    transcript: Hash
    root: Hash


class Delivery(Said):
    """One holder's envelopes from every dealer: arrays ``shares``, ``envelopes``, ``rows``, ``paths``, ``kem``."""

    purpose_name = "secagg.delivery"

    transcript: Hash


class Received(Said):
    """A holder's answer to its envelopes.

    Attributes:
        complaints: dealers whose envelope does not open, or holds what its dealer did not sign.
    """

    purpose_name = "secagg.received"

    transcript: Hash
    complaints: Names


class Manifest(Said):
    """What is to be summed, and over whom; everything else is the agreement's and not repeated.

    Attributes:
        transcript: T_B.
        contributors: U2, in order of x.
        purpose: which of the agreement's vectors.
        step: where in the run's plan this sum stands; a retry repeats it in a new round.
        model_sha256: the model that every member derives for itself.
        artifacts: of an evaluation: SHA-256 of the file that is judged, and of the one that it is compared with, if any.
        previous_round: the last round whose survivors members were asked to sign, 0 before the first.
        previous_manifest_sha256, previous_aggregate_sha256: of that round; without an aggregate where it failed.
        checkpoint: the federation log's checkpoint with its cosignatures, as text.
    """

    purpose_name = "secagg.manifest"

    transcript: Hash
    contributors: Names
    purpose: Label
    step: Counter
    model_sha256: Hash
    artifacts: Annotated[tuple[Hash, ...], Field(max_length=2)]
    previous_round: Counter
    previous_manifest_sha256: Hash | None
    previous_aggregate_sha256: Hash | None
    checkpoint: Checkpoint


class Masked(Said):
    """A masked vector, in the array ``y``; with noise in parts the end of the chain of their seeds, in ``noise_end``.

    Attributes:
        binding: T_C, over transcript and manifest; the salt of every mask in it.
    """

    purpose_name = "secagg.masked"

    binding: Hash

    @property
    def y_sha256(self) -> str:
        """H(y)."""
        return self.arrays.get(VECTOR, "")

    @property
    def noise_end_sha256(self) -> str:
        """H(end of the chain), empty without noise in parts."""
        return self.arrays.get(NOISE_END, "")


class Receipt(Said):
    """The coordinator has this member's masked vector, whether it arrived in time or not."""

    purpose_name = "secagg.receipt"

    binding: Hash
    member: Label
    y_sha256: Hash


class Survivors(Said):
    """U3: the signed `Masked` statements of those whose vectors are in the sum, in the array ``masked``."""

    purpose_name = "secagg.survivors"

    binding: Hash


class Confirm(Said):
    """What every survivor signs, byte for byte the same.

    Attributes:
        transcript: T_B.
        manifest_sha256: H(manifest).
        contributors: U2.
        survivors: U3 with H(y) of each, in order of x.
    """

    purpose_name = "secagg.confirm"

    transcript: Hash
    manifest_sha256: Hash
    contributors: Names
    survivors: Annotated[tuple[tuple[Label, Hash], ...], Field(max_length=100)]


class UnmaskRequest(Said):
    """Asks for shares: array ``confirmations``, or ``masked`` where nothing is confirmed.

    The confirmations are at least t signed `Confirm` without the bytes that were signed: whoever is asked has them.
    """

    purpose_name = "secagg.unmask-request"

    binding: Hash


class Unmask(Said):
    """A holder's shares: of self-mask seeds for U3, of mask seeds for the rest of U2, in order of x.

    With noise in parts also the seed of what so many survivors need not keep of its own noise, in ``noise_seed``.

    Attributes:
        confirmed_sha256: of the `Confirm` statement that this answers.
    """

    purpose_name = "secagg.unmask"

    confirmed_sha256: Hash


class Verified(Said):
    """Somebody recomputed the sum from the masked vectors; the coordinator may let go of them."""

    purpose_name = "secagg.verified"

    aggregate_sha256: Hash


S = TypeVar("S", bound=Said)


@lru_cache(maxsize=1024)  # the same statement comes again, in later phases and to others in this process
def _read(model: type[S], data: bytes) -> S:
    """What signed bytes say, once they are in the one form; a function of the bytes. Only success is remembered.

    Raises:
        WireError: they say something else, or not in canonical form.
    """
    try:
        said = model.model_validate_json(data)
    except ValidationError:
        raise WireError(f"a statement {model.purpose_name!r} does not say what it must") from None
    require_canonical(model.purpose_name, said.model_dump(), data)
    return said


@dataclass(frozen=True)
class Context:
    """What messages are read and written against."""

    terms: StatedTerms
    run: str

    def state(self, signer: Signer, model: type[S], number: int, /, **fields: object) -> tuple[S, Statement]:
        """Sign a statement without a message around it."""
        data = self.data(model, number, **fields)
        return model.model_validate_json(data), Statement.signed(signer, model.purpose_name, data)

    def data(self, model: type[Said], number: int, /, **fields: object) -> bytes:
        """The canonical bytes of a statement that others sign."""
        common = {"terms": self.terms.sha256, "run": self.run, "round": number, "arrays": {}}
        return statement_bytes(model.model_validate({**common, **fields}).model_dump())

    def write(
        self,
        signer: Signer,
        model: type[Said],
        number: int,
        /,
        arrays: Mapping[str, Array] | None = None,
        **fields: object,
    ) -> Message:
        """A signed message with its arrays."""
        carried = dict(arrays or {})
        hashes = {name: array_sha256(array) for name, array in carried.items()}
        data = self.data(model, number, arrays=hashes, **fields)
        statement = Statement.signed(signer, model.purpose_name, data)
        return Message(model.purpose_name, {SIGNED: statement.line}, carried, hashed=hashes)

    def read(self, message: Message, model: type[S], signer: str) -> tuple[S, Statement]:
        """Read a message of one kind from one signer.

        Raises:
            WireError: its form is wrong.
            TranscriptError: it belongs to another agreement or run.
            SignatureError, UnknownSignerError, RevokedError: it is not signed as it must be.
        """
        if message.kind != model.purpose_name or set(message.body) != {SIGNED}:
            raise WireError(f"a message of kind {model.purpose_name!r} was expected")
        statement = Statement.parse(message.text(SIGNED))
        said = self.said(statement, model, signer)
        if said.arrays != dict(message.array_hashes):
            raise WireError(f"message {message.kind!r}: its arrays are not those that were signed")
        return said, statement

    def said(self, statement: Statement, model: type[S], signer: str | None = None) -> S:
        """Check one statement by itself; `signer` None takes any member of the roster."""
        if signer is None and statement.signer not in self.terms.roster.members:
            raise TranscriptError("a statement is not by a member of the agreement")
        if signer is not None and statement.signer != signer:
            raise TranscriptError(f"a statement of {signer!r} was expected")
        statement.verify(self.terms.roster, model.purpose_name)
        said: S = _read(model, statement.data)
        if (said.terms, said.run) != (self.terms.sha256, self.run):
            raise TranscriptError(
                "a statement belongs to another agreement, to other terms or to another run"
            )
        return said

    def said_by_all(
        self, message: Message, name: str, model: type[S], number: int
    ) -> dict[str, tuple[S, Statement]]:
        """The members' statements in one array: distinct signers, in order of x, all of this round.

        Raises:
            WireError, TranscriptError, SignatureError, UnknownSignerError, RevokedError: as for `read`.
        """
        return self.said_each(unpack(array_of(message, name)), model, number)

    def said_each(
        self, listed: Sequence[Statement], model: type[S], number: int
    ) -> dict[str, tuple[S, Statement]]:
        """As `said_by_all`, for statements that are read already."""
        found = {statement.signer: (self.said(statement, model), statement) for statement in listed}
        if len(found) != len(listed) or tuple(found) != self.in_order(found):
            raise TranscriptError("statements are not one per member in the agreement's order")
        if any(said.round != number for said, _ in found.values()):
            raise TranscriptError("a statement of another round stands among those of this one")
        return found

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Members in order of their x-coordinate."""
        return tuple(sorted(names, key=self.terms.roster.x.__getitem__))

    def confirmation(
        self, number: int, transcript: str, manifest: Statement, masked: Mapping[str, Masked]
    ) -> bytes:
        """The bytes of the `Confirm` statement that every survivor of a round signs."""
        return self.data(
            Confirm,
            number,
            transcript=transcript,
            manifest_sha256=manifest.sha256,
            contributors=Manifest.model_validate_json(manifest.data).contributors,
            survivors=tuple((name, said.y_sha256) for name, said in masked.items()),
        )

    def check_quorum(self, confirmations: Iterable[Statement], expected: bytes) -> None:
        """Check that at least t distinct survivors signed these very bytes.

        Args:
            confirmations: signed `Confirm` statements; one whose bytes are left out is over `expected`.
            expected: the bytes.

        Raises:
            TranscriptError: somebody signed other bytes, or is no survivor.
            QuorumError: fewer than t signed.
            SignatureError, RevokedError: a signature is wrong.
        """
        survivors = {name for name, _ in Confirm.model_validate_json(expected).survivors}
        signers = set()
        for statement in confirmations:
            if statement.data not in {b"", expected} or statement.signer not in survivors:
                raise TranscriptError("a confirmation is not of these survivors, or not by one of them")
            replace(statement, data=expected).verify(self.terms.roster, Confirm.purpose_name)
            signers.add(statement.signer)
        if len(signers) < self.terms.threshold:
            raise QuorumError(
                f"{len(signers)} members confirmed the survivors, {self.terms.threshold} are needed"
            )


def transcript_of(context: Context, number: int, keys: Mapping[str, tuple[Keys, Statement]]) -> str:
    """T_B: the hash of terms, run, round and all signed keys."""
    listed = [[name, statement.sha256] for name, (_, statement) in keys.items()]
    return canonical_hash([PROTOCOL, "transcript", context.terms.sha256, context.run, number, listed])


def binding_of(transcript: str, manifest_sha256: str) -> str:
    """T_C: the hash of transcript and manifest, which names U2; the salt of every mask."""
    return canonical_hash([PROTOCOL, "binding", transcript, manifest_sha256])


def check_offers(offers: Mapping[str, PublicKeys], *, post_quantum: bool) -> None:
    """Check that round keys are of the agreed kind and that no two uses share one.

    Raises:
        TranscriptError: they are not; names whose.
    """
    owners: dict[str, str] = {}
    for name, keys in offers.items():
        if (keys.mask_kem is not None, keys.envelope_kem is not None) != (post_quantum, post_quantum):
            raise TranscriptError(f"the round keys of {name!r} are not of the kind that the agreement names")
        for key in (keys.mask_key, keys.envelope_key):
            if key in owners:
                raise TranscriptError(f"{name!r} and {owners[key]!r} offer the same round key")
            owners[key] = name


def size_of(message: Message) -> int:
    """Bytes of a message's statement and arrays: what a report counts, without the few bytes of its frame."""
    line = message.body.get(SIGNED)
    return (len(line) if isinstance(line, str) else 0) + sum(
        array.nbytes for array in message.arrays.values()
    )


def array_of(message: Message, name: str) -> Array:
    """An array of a message.

    Raises:
        WireError: it is missing.
    """
    array = message.arrays.get(name)
    if array is None:
        raise WireError(f"message {message.kind!r}: array {name!r} is missing")
    return array


def rows_of(message: Message, name: str, shape: tuple[int, ...]) -> Array:
    """An array of bytes of exactly this shape.

    Raises:
        WireError: it is missing or of another type or shape.
    """
    array = array_of(message, name)
    if array.dtype != np.uint8 or array.shape != shape:
        raise WireError(f"message {message.kind!r}: array {name!r} must be bytes of shape {shape}")
    return array
