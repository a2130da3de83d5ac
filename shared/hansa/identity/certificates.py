"""A member's certificate: asking for one, and checking one that somebody shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hansa.errors import HansaError, Problem
from hansa.identity.errors import CertificateError
from hansa.identity.keys import Signer, fingerprint, public_text
from hansa.identity.roster import Roster


def member_uri(member: str) -> x509.UniformResourceIdentifier:
    """The name of a member inside a certificate: ``urn:hansa:member:NAME``."""
    return x509.UniformResourceIdentifier(f"urn:hansa:member:{member}")


def request_certificate(signer: Signer) -> x509.CertificateSigningRequest:
    """A request for a certificate, signed by the key that it is for."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer.name)]))
        .add_extension(x509.SubjectAlternativeName([member_uri(signer.name)]), critical=False)
        .sign(signer.private_key, hashes.SHA256())
    )


def check_certificate(
    certificate: x509.Certificate,
    member: str,
    roster: Roster,
    *,
    authority: x509.Certificate,
    revocations: x509.CertificateRevocationList,
    at: datetime,
) -> None:
    """Check that a certificate is the named member's, valid, not revoked, and holds the pinned key.

    Args:
        certificate: what was shown.
        member: who showed it.
        roster: the agreement's keys; without a pinned key there no certificate counts.
        authority: the consortium's own certificate.
        revocations: its current list.
        at: now, with a time zone.

    Raises:
        CertificateError: everything that is wrong with it.
    """
    problems = [
        *_chain(certificate, authority, at),
        *_revoked(certificate, authority, revocations, at),
        *_subject(certificate, member),
        *_pin(certificate, member, roster),
    ]
    if problems:
        raise CertificateError(f"the certificate shown for {member!r} is refused", problems)


def _chain(certificate: x509.Certificate, authority: x509.Certificate, at: datetime) -> Iterator[Problem]:
    verifier = PolicyBuilder().store(Store([authority])).time(at).build_client_verifier()
    try:
        verifier.verify(certificate, [])
    except VerificationError:
        span = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
        yield Problem(
            "certificate", f"is not issued by the consortium's authority, or not now (valid {span})"
        )


def _revoked(
    certificate: x509.Certificate,
    authority: x509.Certificate,
    revocations: x509.CertificateRevocationList,
    at: datetime,
) -> Iterator[Problem]:
    key = authority.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not revocations.is_signature_valid(key):
        yield Problem("revocations", "are not signed by the consortium's authority")
        return
    expiry = revocations.next_update_utc
    if expiry is None or not revocations.last_update_utc <= at <= expiry:
        yield Problem("revocations", "are out of date", "fetch the authority's current list")
    if revocations.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        yield Problem("certificate", "is revoked")


def _subject(certificate: x509.Certificate, member: str) -> Iterator[Problem]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        yield Problem("certificate", "has no readable subject alternative name")
        return
    if list(names) != [member_uri(member)]:
        yield Problem("certificate", f"is not for {member!r}")


def _pin(certificate: x509.Certificate, member: str, roster: Roster) -> Iterator[Problem]:
    try:
        pinned = roster.key_of(member)
    except HansaError as error:
        yield Problem("roster", error.cause, "a certificate alone admits nobody")
        return
    key = certificate.public_key()
    shown = public_text(key) if isinstance(key, ec.EllipticCurvePublicKey) else "no elliptic-curve key"
    if shown != pinned:
        yield Problem(
            "certificate",
            f"its key is not the pinned {fingerprint(pinned)}",
            "a certificate alone admits nobody",
        )
