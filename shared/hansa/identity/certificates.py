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


def member_of(certificate: x509.Certificate) -> str:
    """Whose certificate it says that it is; nothing about it is checked.

    Raises:
        CertificateError: it names no member, or several.
    """
    prefix = member_uri("").value
    uris = [uri.removeprefix(prefix) for uri in _uris(certificate) if uri.startswith(prefix)]
    if len(uris) != 1 or not uris[0]:
        raise CertificateError(
            "a certificate names nobody", [Problem("certificate", "has no one name of a member")]
        )
    return uris[0]


def request_certificate(signer: Signer) -> x509.CertificateSigningRequest:
    """A request for a certificate, signed by the key that it is for."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, signer.name)]))
        .add_extension(x509.SubjectAlternativeName([member_uri(signer.name)]), critical=False)
        .sign(signer.private_key, hashes.SHA256())
    )


def check_request(request: x509.CertificateSigningRequest, member: str) -> str:
    """Check that a request is in the member's name, in both places that say a name, and signed by its own key.

    Returns:
        The key that it asks for, in pinned form.

    Raises:
        CertificateError: everything that is wrong with it.
    """
    problems = []
    common = [str(name.value) for name in request.subject]
    if common != [member]:
        problems.append(Problem("request", f"is in the name of {', '.join(map(repr, common)) or 'nobody'}"))
    problems += _names(request, member, "request")
    key = request.public_key()
    if not request.is_signature_valid:
        problems.append(Problem("request", "is not signed by its own key", "make it again"))
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        problems.append(Problem("request", "its key is not on P-256", "make it with `hansa node init`"))
    if problems or not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError(f"no certificate is issued to {member!r}", problems)
    return public_text(key)


def check_own_certificate(
    certificate: x509.Certificate,
    signer: Signer,
    *,
    authority: x509.Certificate,
    revocations: x509.CertificateRevocationList,
    at: datetime,
) -> None:
    """Check a certificate that a node was sent for its own key, before there is an agreement that pins it.

    Args:
        certificate: what was sent.
        signer: the node's name and key.
        authority, revocations, at: see `check_certificate`.

    Raises:
        CertificateError: everything that is wrong with it.
    """
    _raise(
        signer.name,
        [
            *_problems(certificate, signer.name, authority, revocations, at),
            *_holds(certificate, signer.public_key, "this node's"),
        ],
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
    _raise(
        member,
        [
            *_problems(certificate, member, authority, revocations, at),
            *_pin(certificate, member, roster),
        ],
    )


def _problems(
    certificate: x509.Certificate,
    member: str,
    authority: x509.Certificate,
    revocations: x509.CertificateRevocationList,
    at: datetime,
) -> Iterator[Problem]:
    yield from _chain(certificate, authority, at)
    yield from _revoked(certificate, authority, revocations, at)
    yield from _names(certificate, member, "certificate")


def _raise(member: str, problems: list[Problem]) -> None:
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


def _names(
    shown: x509.Certificate | x509.CertificateSigningRequest, member: str, place: str
) -> Iterator[Problem]:
    try:
        names = list(shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        yield Problem(place, "has no readable subject alternative name")
        return
    # An authority may add under which addresses the machine is reached; they say nothing about who it is.
    addresses = (x509.DNSName, x509.IPAddress) if isinstance(shown, x509.Certificate) else ()
    if [name for name in names if not isinstance(name, addresses)] != [member_uri(member)]:
        yield Problem(place, f"is not for {member!r}")


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _pin(certificate: x509.Certificate, member: str, roster: Roster) -> Iterator[Problem]:
    try:
        pinned = roster.key_of(member)
    except HansaError as error:
        yield Problem("roster", error.cause, "a certificate alone admits nobody")
        return
    yield from _holds(certificate, pinned, "the pinned")


def _holds(certificate: x509.Certificate, public_key: str, whose: str) -> Iterator[Problem]:
    key = certificate.public_key()
    shown = public_text(key) if isinstance(key, ec.EllipticCurvePublicKey) else "no elliptic-curve key"
    if shown != public_key:
        yield Problem(
            "certificate",
            f"its key is not {whose} {fingerprint(public_key)}",
            "a certificate alone admits nobody",
        )
