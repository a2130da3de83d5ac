"""A league that keeps logs: keys, one entry of each type, and logs of any length."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hansa.identity import COORDINATOR, Amendment, Roster, Signer
from hansa.identity.keys import CURVE, ORDER
from hansa.ledger import (
    Abort,
    Adaptation,
    Aggregate,
    Agreed,
    AgreementSigned,
    AmendmentMade,
    AttackMade,
    BudgetGranted,
    Charging,
    Condition,
    Evaluation,
    Gate,
    GivenEntries,
    Keyring,
    Log,
    Membership,
    MemoryLogStore,
    NoteSigner,
    Override,
    Publication,
    Release,
    Reservation,
    RunClosed,
    SignatureType,
    SignedEntry,
    Spending,
    officer_of,
    real,
)
from hansa.ledger.kinds import Kind
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend, poisson_gaussian

CELLS = bytes(range(16))  # four cells of an evaluation
TABLE, TABLE_SHA256 = base64.b64encode(CELLS).decode(), hashlib.sha256(CELLS).hexdigest()

AT = "2026-03-01T12:00:00Z"
AGREEMENT, TERMS, HASH, OTHER = "a1" * 32, "b2" * 32, "c3" * 32, "d4" * 32
DATASET = "0123456789abcdef0123456789abcdef"
ORIGIN = "hansa.example/league"
MEMBERS = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


def fixed_signer(name: str) -> Signer:
    """The same P-256 key for the same name, in every run."""
    number = int.from_bytes(hashlib.sha512(name.encode()).digest(), "big")
    return Signer(name, ec.derive_private_key(1 + number % (ORDER - 1), CURVE))


def fixed_note_signer(name: str, kind: SignatureType = SignatureType.LOG) -> NoteSigner:
    """The same Ed25519 key for the same name, in every run."""
    seed = hashlib.sha256(name.encode()).digest()
    return NoteSigner(name, Ed25519PrivateKey.from_private_bytes(seed), kind)


SIGNERS = {name: fixed_signer(name) for name in (*MEMBERS, COORDINATOR)}
OFFICERS = {name: fixed_signer(officer_of(name)) for name in MEMBERS}
ROSTER = Roster({name: SIGNERS[name].public_key for name in MEMBERS}, SIGNERS[COORDINATOR].public_key)
LOG_SIGNER = fixed_note_signer(ORIGIN)
WITNESS_SIGNERS = tuple(
    fixed_note_signer(f"hansa.example/witness/{name}", SignatureType.WITNESS) for name in MEMBERS
)
CHARGE = Charge("training", poisson_gaussian(0.01, 1.1), 400, poisson_gaussian(0.01, 2.2), 1)
CHARGING = Charging.of(CHARGE)
SPENDING = Spending.of(Spend(CHARGE.event, 20))


def keyring(quorum: int = 3) -> Keyring:
    """Whose signatures count in the logs of this league."""
    officers = {name: signer.public_key for name, signer in OFFICERS.items()}
    return Keyring({AGREEMENT: Agreed.of(ROSTER, quorum)}, officers)


def release(number: int = 1, member: str = MEMBERS[0], **changes: Any) -> Release:
    """A member's release in a round."""
    said: dict[str, Any] = {
        "at": AT,
        "agreement_id": AGREEMENT,
        "run": "run-1",
        "member": member,
        "dataset_id": DATASET,
        "purpose": "training",
        "round": number,
        "step": number - 1,
        "unit": "patient",
        "adjacency": "add-or-remove-one",
        "spends": (SPENDING,),
        "y_sha256": HASH,
        "manifest_sha256": OTHER,
        "software": {"hansa": "0.1.0", "torch": "2.13.0"},
        "lock_sha256": HASH,
        "rng": "AES-CTR keyed by the operating system",
    }
    return Release(**{**said, **changes})


def amendment(**changes: Any) -> AmendmentMade:
    """Hospital 4's key is revoked, with the approval of the others."""
    said: dict[str, Any] = {
        "agreement_id": AGREEMENT,
        "sequence": 1,
        "roster_sha256": ROSTER.sha256,
        "change": "revoke",
        "member": MEMBERS[3],
        "reason": "its key was lost",
    }
    change = Amendment(**{**said, **changes})
    return AmendmentMade.of(change, {name: change.sign(SIGNERS[name]) for name in MEMBERS[:3]}, AT)


def one_of_each() -> dict[str, Kind]:
    """An entry of each type."""
    base: dict[str, Any] = {"at": AT, "agreement_id": AGREEMENT}
    run: dict[str, Any] = {**base, "run": "run-1"}
    condition = Condition(
        name="auc, sex=female",
        verdict="inconclusive",
        exempt=False,
        override_sha256=OTHER,
        low=real(0.71),
        high=real(0.83),
    )
    entries: list[Kind] = [
        AgreementSigned(
            **base,
            terms_id=TERMS,
            roster_sha256=ROSTER.sha256,
            member=MEMBERS[0],
            log_key=LOG_SIGNER.key.text,
            witness_key=WITNESS_SIGNERS[0].key.text,
            officer_key=OFFICERS[MEMBERS[0]].public_key,
        ),
        amendment(),
        Membership(**base, member=MEMBERS[0], change="join", certificate_sha256=HASH, reason="é"),
        BudgetGranted(
            at=AT,
            member=MEMBERS[0],
            dataset_id=DATASET,
            unit="patient",
            max_records_per_unit=4,
            adjacency="add-or-remove-one",
            epsilon=real(3.0),
            delta=real(1e-5),
            colluding=1,
            epsilon_colluding=real(1.0),
            rule={"rule": "adding", "reservations": 3},
            disjoint_from=("f" * 32,),
            reason="board of 1 March",
        ),
        Reservation(
            **run,
            member=MEMBERS[0],
            dataset_id=DATASET,
            unit="patient",
            adjacency="add-or-remove-one",
            charges=(CHARGING,),
        ),
        release(),
        Abort(
            **run,
            party=MEMBERS[0],
            round=2,
            manifest_sha256=None,
            code="too-few",
            missing=MEMBERS[1:3],
            dataset_id=DATASET,
            purpose="training",
            spends=(SPENDING,),
        ),
        RunClosed(**run, member=MEMBERS[0], dataset_id=DATASET, released={"training": 40}),
        Aggregate(
            **run,
            purpose="training",
            round=1,
            step=0,
            manifest_sha256=OTHER,
            record_sha256=HASH,
            aggregate_sha256=HASH,
            released=dict.fromkeys(MEMBERS[:3], HASH),
            excluded=(MEMBERS[3],),
            model_sha256=HASH,
        ),
        Evaluation(
            **run,
            number=1,
            artifact_sha256=HASH,
            reference_sha256=None,
            round=9,
            aggregate_sha256=TABLE_SHA256,
            table=TABLE,
        ),
        Gate(**run, artifact_sha256=HASH, evaluation_sha256=OTHER, conditions=(condition,), decision="open"),
        Publication(
            **run,
            artifact_sha256=HASH,
            gate_sha256=OTHER,
            files={"model.onnx": HASH, "docs/card.md": OTHER},
            steps=("merge", "onnx", "int8"),
        ),
        Override(
            **run,
            party=MEMBERS[1],
            name="Dr. Ada Example",
            role="chief medical officer",
            condition="auc, sex=female",
            artifact_sha256=HASH,
            reason="few women in the test period; reviewed by hand",
        ),
        AttackMade(
            **base,
            member=MEMBERS[0],
            kind="gradients",
            canaries=10_000,
            guessed_in=500,
            guessed_out=500,
            correct=640,
            confidence=real(0.95),
            delta=real(1e-5),
            spends=(SPENDING,),
            seed=None,
        ),
        Adaptation(
            **run,
            round=7,
            step=6,
            aggregate_sha256=OTHER,
            weights_sha256=HASH,
            counted=TABLE,
            adapted=(real(1.25),),
        ),
    ]
    return {entry.type: entry for entry in entries}


def signer_of(name: str) -> Signer:
    """Whose key signs under a name."""
    return {**SIGNERS, **{signer.name: signer for signer in OFFICERS.values()}}[name]


def signed(entry: Kind) -> SignedEntry:
    """An entry with all the signatures that it needs."""
    names = {entry.writer, *(MEMBERS[:3] if entry.approved else ())}
    return SignedEntry.sign(entry, *map(signer_of, sorted(names)))


def releases(count: int) -> list[bytes]:
    """Signed releases, each in a round of its own."""
    return [signed(release(number)).encoded for number in range(1, count + 1)]


def log_of(entries: list[bytes]) -> Log:
    """A log in memory."""
    log = Log(MemoryLogStore(), LOG_SIGNER)
    log.append(entries)
    return log


class Dying(GivenEntries):
    """A copy at whose sight a process dies."""

    def read(self, start: int, end: int) -> Iterator[bytes]:
        os._exit(3)
