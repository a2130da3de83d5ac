"""Identities of a simulated league: an authority that lives as long as the run, and a key for everyone.

They show that the whole path works, certificates and signatures included, and they prove nobody's identity: the
authority's name says so, and so does the report.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import EngineError
from hansa.identity import COORDINATOR, Authority, Roster, Signer, check_certificate, request_certificate
from hansa.secagg.seal import KEY_BYTES

VERIFIER = "simulation-verifier"  # the auditor of the roster, which recomputes every sum


@dataclass(frozen=True, repr=False)
class Identities:
    """Keys of everyone in a simulated league; they can be sent to worker processes, and prove nothing to anybody.

    Attributes:
        roster: the public keys.
        keys: private keys, PKCS #8 in DER, by name.
        seal_keys: 32 bytes for each member's state between phases.
    """

    roster: Roster
    keys: Mapping[str, bytes]
    seal_keys: Mapping[str, bytes]

    @classmethod
    def ephemeral(cls, members: Sequence[str]) -> Identities:
        """Fresh keys, each with a certificate that was requested, issued and checked as a real one would be.

        Args:
            members: in the agreement's order.
        """
        now = datetime.now(UTC)
        authority = Authority.ephemeral(now)
        signers = {name: Signer.generate(name) for name in (*members, COORDINATOR, VERIFIER)}
        roster = Roster(
            {name: signers[name].public_key for name in members},
            signers[COORDINATOR].public_key,
            auditors={VERIFIER: signers[VERIFIER].public_key},
        )
        revocations = authority.revocation_list(now)
        for name in members:
            certificate = authority.issue(request_certificate(signers[name]), name, now)
            check_certificate(
                certificate, name, roster, authority=authority.certificate, revocations=revocations, at=now
            )
        keys = {
            name: signer.private_key.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            for name, signer in signers.items()
        }
        return cls(roster, keys, {name: os.urandom(KEY_BYTES) for name in members})

    def signer(self, name: str) -> Signer:
        """The signing key of a member, the coordinator or the verifier."""
        key = serialization.load_der_private_key(self.keys[name], password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise EngineError(f"the key of {name!r} did not survive its way into this process")
        return Signer(name, key)
