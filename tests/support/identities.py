"""A league whose parties have keys: five members, the coordinator and an auditor, and an agreement that pins them."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from hansa.agreement import Agreement, Frozen, FrozenModel, parse_agreement
from hansa.agreement.roster import pin
from hansa.identity import COORDINATOR, Amendment, Roster, Signer
from hansa.ledger import NoteSigner, SignatureType, SignedEntry, officer_of
from hansa.ledger.membership import AgreementSigned
from hansa.ledger.officer import card_name, officer_card
from support.leagues import TERMS

MEMBERS = ("alpha", "beta", "gamma", "delta", "epsilon")
AUDITOR = "inspector"
PARTIES = (*MEMBERS, COORDINATOR, AUDITOR)


def signer(name: str, version: int = 1) -> Signer:
    """A party's key, or a later one of it; the same for the same name and version within one process."""
    return _signer(name, version)


@lru_cache
def _signer(name: str, version: int) -> Signer:
    assert version > 0
    return Signer.generate(name)


def roster(members: Iterable[str] = MEMBERS, auditors: Iterable[str] = (AUDITOR,)) -> Roster:
    """The keys of a league."""
    return Roster(
        {name: signer(name).public_key for name in members},
        signer(COORDINATOR).public_key,
        auditors={name: signer(name).public_key for name in auditors},
    )


def terms(members: Iterable[str] = MEMBERS, **changes: Any) -> Agreement:
    """An agreement on a small logistic model that is not frozen."""
    people = [{"name": name, "units": 100} for name in members]
    return parse_agreement(TERMS).derive(members=people, **changes)


def frozen(members: Iterable[str] = MEMBERS, **changes: Any) -> Agreement:
    """An agreement frozen without keys, with a model zero that nobody built."""
    agreement = terms(members, **changes)
    model = FrozenModel(parameters=6, initial_sha256="0" * 64, frozen_sha256="1" * 64)
    return agreement.freeze(Frozen(terms_id=agreement.terms_id, model=model, noise_multiplier=1.0))


def pinned(members: Iterable[str] = MEMBERS, **changes: Any) -> Agreement:
    """The same with the keys of all parties."""
    members = tuple(members)
    return pin(frozen(members, **changes), roster(members))


def revocation(agreement: Agreement, before: Roster, member: str = "epsilon", **changes: Any) -> Amendment:
    """The first amendment of an agreement, if nothing is changed."""
    parts: dict[str, Any] = {
        "agreement_id": agreement.agreement_id,
        "sequence": 1,
        "roster_sha256": before.sha256,
        "change": "revoke",
        "member": member,
        "reason": "laptop stolen",
    }
    return Amendment(**(parts | changes))


def amendment_file(path: Path, amendment: Amendment, approvers: Iterable[str]) -> Path:
    """Write an amendment with these members' approvals."""
    path.write_text("".join(amendment.sign(signer(name)).line + "\n" for name in approvers), encoding="utf-8")
    return path


@lru_cache
def note_signer(name: str, kind: SignatureType = SignatureType.LOG) -> NoteSigner:
    """The key of a member's log or witness; the same for the same name within one process."""
    return NoteSigner.generate(f"hansa.example/{kind.name.lower()}/{name}", kind)


def signature(agreement: Agreement, name: str, key: Signer | None = None, **changes: Any) -> SignedEntry:
    """A member's signature of an agreement, as its ledger would hold it."""
    pins = agreement.require_frozen()
    members = pins.member_keys
    said: dict[str, Any] = {
        "at": "2026-03-01T12:00:00Z",
        "agreement_id": agreement.agreement_id,
        "terms_id": agreement.terms_id,
        "roster_sha256": roster(members, pins.auditor_keys).sha256,
        "member": name,
        "log_key": note_signer(name).key.text,
        "witness_key": note_signer(name, SignatureType.WITNESS).key.text,
        "officer_key": signer(officer_of(name)).public_key,
    }
    return SignedEntry.sign(AgreementSigned(**(said | changes)), key or signer(name))


def home(folder: Path, name: str, key: Signer | None = None) -> Path:
    """A node's home that holds a given key, as `hansa node init` would have made it."""
    folder.mkdir(parents=True)
    (key or signer(name)).save(folder / "identity.key")
    role = {COORDINATOR: "coordinator", AUDITOR: "auditor"}.get(name, "member")
    text = f'name = "{name}"\nrole = "{role}"\n'
    if role == "member":
        text += 'state = "state"\nsealing_key = "sealing.key"\n'
        (folder / "state").mkdir(mode=0o700)
        note_signer(name).save(folder / "log.key")
        note_signer(name, SignatureType.WITNESS).save(folder / "witness.key")
        (folder / card_name(name)).write_text(officer_card(signer(officer_of(name))).line)
    (folder / "node.toml").write_text(text, encoding="utf-8")
    return folder


def secrets_of(folder: Path) -> Mapping[str, bytes]:
    """What must never be shown, from every private file below a folder: PEM lines, numbers and raw keys."""
    found: dict[str, bytes] = {}
    for path in folder.rglob("*.key"):
        data = path.read_bytes()
        found[f"{path}: bytes"] = data
        found[f"{path}: hexadecimal"] = data.hex().encode()
        if data.startswith(b"-----"):
            # of the three lines between the armour, the last holds the end of the public key alone
            for number, line in enumerate(data.splitlines()[1:3]):
                found[f"{path}: line {number}"] = line
            key: Any = serialization.load_pem_private_key(data, password=None)
            found[f"{path}: number"] = f"{key.private_numbers().private_value:x}".encode()
    return found


def mode(path: Path) -> int:
    """The permission bits of a file or folder."""
    return stat.S_IMODE(path.stat().st_mode)
