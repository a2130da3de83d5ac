"""Identities of a simulated league: an authority that lives as long as the run, and a key for everyone.

They show that the whole path works, certificates and signatures included, and they prove nobody's identity: the
authority's name says so, and so does the report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import BudgetRefusedError, EngineError, UsageError
from hansa.identity import COORDINATOR, Authority, Roster, Signer, check_certificate, request_certificate
from hansa.identity.keys import read_private, write_private
from hansa.ledger import Agreed, Keyring, NoteSigner, SignatureType, VerifierKey, officer_of
from hansa.quorum import threshold
from hansa.secagg.seal import KEY_BYTES
from hansa_client.node_file import LEDGER

_FILE = "identities.json"
VERIFIER = "simulation-verifier"  # the auditor of the roster, which recomputes every sum


def log_origin(name: str) -> str:
    """The name of a simulated member's own log."""
    return f"hansa.simulation/{name}"


def witness_origin(name: str) -> str:
    """The name of a simulated witness."""
    return f"hansa.simulation/witness/{name}"


@dataclass(frozen=True, repr=False)
class Identities:
    """Keys of everyone in a simulated league; they can be sent to worker processes, and prove nothing to anybody.

    Attributes:
        roster: the public keys.
        keys: private keys, PKCS #8 in DER, by name; those of members' privacy officers are among them.
        seal_keys: 32 bytes for each member's state between phases.
        note_keys: private keys of logs and witnesses, as text, by origin.
    """

    roster: Roster
    keys: Mapping[str, bytes]
    seal_keys: Mapping[str, bytes]
    note_keys: Mapping[str, str]

    @classmethod
    def ephemeral(cls, members: Sequence[str], kept: Mapping[str, str] | None = None) -> Identities:
        """Fresh keys, each with a certificate that was requested, issued and checked as a real one would be.

        Args:
            members: in the agreement's order.
            kept: private keys of an earlier run, as `texts` gives them; who has one there keeps it.
        """
        now, kept = datetime.now(UTC), kept or {}
        officers = [officer_of(name) for name in members]
        signers = {
            name: _signer(name, bytes.fromhex(kept[name])) if name in kept else Signer.generate(name)
            for name in (*members, COORDINATOR, VERIFIER, *officers)
        }
        roster = Roster(
            {name: signers[name].public_key for name in members},
            signers[COORDINATOR].public_key,
            auditors={VERIFIER: signers[VERIFIER].public_key},
        )
        _check_certificates([signers[name] for name in members], roster, now)
        notes = {log_origin(name): SignatureType.LOG for name in members}
        notes |= {witness_origin(name): SignatureType.WITNESS for name in members}
        return cls(
            roster,
            {name: _der(signer) for name, signer in signers.items()},
            {name: os.urandom(KEY_BYTES) for name in members},
            {
                name: kept[name] if name in kept else NoteSigner.generate(name, kind).text
                for name, kind in notes.items()
            },
        )

    @classmethod
    def at(cls, home: Path, members: Sequence[str]) -> Identities:
        """The identities of members whose state outlives a run: their keys lie beside it, readable by their owner.

        Raises:
            UsageError: there is no such folder, and it cannot be made.
            KeyFileError: the file cannot be read or written, or others can read it.
            BudgetRefusedError: there are ledgers and not the keys that they were written with.
        """
        path = home / _FILE
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {home}: {error.strerror}") from None
        if not path.exists() and (bereft := next(home.glob(f"*/{LEDGER}"), None)) is not None:
            raise BudgetRefusedError(
                f"{bereft} was written with keys that are gone: what it spent stays spent, and nothing is added to it",
                remedy=f"Put {path} back, or choose another folder for members that never trained on these data.",
            )
        kept: dict[str, str] = json.loads(read_private(path)) if path.exists() else {}
        made = cls.ephemeral(members, kept)
        texts = {name: key.hex() for name, key in made.keys.items()} | dict(made.note_keys)
        if set(texts) - set(kept):
            new = path.with_suffix(".new")
            new.unlink(missing_ok=True)
            write_private(new, json.dumps(kept | texts).encode())
            new.replace(path)
        return made

    def log_signer(self, name: str) -> NoteSigner:
        """Signs the checkpoints of a member's own log."""
        return NoteSigner.parse(self.note_keys[log_origin(name)])

    def witness_signer(self, name: str) -> NoteSigner:
        """With which a member cosigns."""
        return NoteSigner.parse(self.note_keys[witness_origin(name)])

    @property
    def log_keys(self) -> Mapping[str, VerifierKey]:
        """Public keys of the members' own logs."""
        return {name: self.log_signer(name).key for name in self.roster.members}

    @property
    def witness_keys(self) -> Mapping[str, VerifierKey]:
        """Public keys under which members cosign."""
        return {name: self.witness_signer(name).key for name in self.roster.members}

    @property
    def officer_keys(self) -> Mapping[str, str]:
        """Public keys of the members' privacy officers, as they are pinned."""
        return {name: self.signer(officer_of(name)).public_key for name in self.roster.members}

    def keyring(self, agreement_id: str) -> Keyring:
        """Whose signatures count in the logs of this league."""
        quorum = threshold(len(self.roster.members))
        return Keyring({agreement_id: Agreed.of(self.roster, quorum)}, self.officer_keys)

    def signer(self, name: str) -> Signer:
        """The signing key of a member, its privacy officer, the coordinator or the verifier."""
        return _signer(name, self.keys[name])


def _check_certificates(signers: Sequence[Signer], roster: Roster, now: datetime) -> None:
    authority = Authority.ephemeral(now)
    revocations = authority.revocation_list(now)
    for signer in signers:
        certificate = authority.issue(request_certificate(signer), signer.name, now)
        check_certificate(
            certificate,
            signer.name,
            roster,
            authority=authority.certificate,
            revocations=revocations,
            at=now,
        )


def _der(signer: Signer) -> bytes:
    return signer.private_key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signer(name: str, der: bytes) -> Signer:
    key = serialization.load_der_private_key(der, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise EngineError(f"the key of {name!r} did not survive its way into this process")
    return Signer(name, key)
