"""What is left of a round: the record that lets anyone recompute its sum, and the outcome for the run's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from hansa.secagg.messages import Hash, Label, RoundNumber
from hansa.secagg.ring import SumVector


class Phase(IntEnum):
    """What a round waits for."""

    KEYS = 0
    SHARES = 1
    DELIVERY = 2
    READY = 3
    MASKED = 4
    CONFIRM = 5
    UNMASK = 6
    DONE = 7


class RoundRecord(BaseModel):
    """All that was signed in a round, and the secrets that were opened; nothing of it is secret any more.

    With the masked vectors, which the coordinator keeps until a verifier has been through, or with its journal, it proves the sum.

    Attributes:
        terms: `SumTerms.sha256`.
        run, round: which.
        keys: signed `Keys` of all that offered any, in order of x.
        manifest: the coordinator's signed `Manifest`.
        masked: signed `Masked` of the survivors, in order of x.
        confirmations: signed `Confirm`, at least t; empty if the agreement trusts the coordinator.
        receipts: the coordinator's `Receipt` for every masked vector that reached it, in time or not.
        self_seeds: opened self-mask seeds of the survivors, hexadecimal.
        mask_seeds: opened mask seeds of contributors that did not survive, hexadecimal.
        pads: in hybrid mode, ciphertexts of pads sent to members in `mask_seeds`: {higher: {lower: hexadecimal}}.
        aggregate_sha256: of the sum, little-endian int32.
        noise_seeds: of survivors that opened the surplus of their noise, hexadecimal; left out where nobody did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    terms: Hash
    run: Label
    round: RoundNumber
    keys: tuple[str, ...]
    manifest: str
    masked: tuple[str, ...]
    confirmations: tuple[str, ...]
    receipts: tuple[str, ...]
    self_seeds: dict[Label, Hash]
    mask_seeds: dict[Label, Hash]
    pads: dict[Label, dict[Label, str]]
    aggregate_sha256: Hash
    noise_seeds: dict[Label, Hash] = {}

    @model_serializer(mode="wrap")
    def _without_none_opened(self, tree: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A record of a round without noise in parts is what it was before there were any."""
        found: dict[str, object] = tree(self)
        if not found.get("noise_seeds"):
            found.pop("noise_seeds", None)
        return found


@dataclass(slots=True)
class PhaseCost:
    """What one phase of one round cost; exchanges that two rounds share count in both."""

    sent_bytes: int = 0
    received_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class SumOutcome:
    """A finished round.

    Attributes:
        round, purpose, step: from the manifest.
        total: the exact sum in grid steps, dtype int32, shape (d,).
        survivors: whose vectors are in it, in order of x.
        dropped: the phase in which each of the others was first missing.
        blamed: members whose own signatures prove that they misbehaved, and how; a pair under a complaint is here
            with both names, since either may be at fault.
        threshold: t.
        costs: bytes and seconds by phase.
        record: for verifiers.
    """

    round: int
    purpose: str
    step: int
    total: SumVector
    survivors: tuple[str, ...]
    dropped: Mapping[str, str]
    blamed: Mapping[str, str]
    threshold: int
    costs: Mapping[str, PhaseCost] = field(repr=False)
    record: RoundRecord = field(repr=False)
