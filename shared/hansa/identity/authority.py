"""The consortium's certificate authority: P-256 certificates for members, and the list of revoked ones.

A certificate says to which institution a key belongs, for TLS and for the record. It does not admit anybody to
a sum: that takes the key that the agreement pins (`hansa.identity.roster`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hansa.errors import Problem
from hansa.identity.certificates import member_uri
from hansa.identity.errors import CertificateError
from hansa.identity.files import replace_file
from hansa.identity.keys import CURVE, read_private_key, write_private

EPHEMERAL_NAME = "ephemeral simulation authority: proves no identity"
CA_LIFETIME = timedelta(days=3650)
MEMBER_LIFETIME = timedelta(days=825)  # the longest that browsers ever took; a run ends long before
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_CLOCK_SKEW = timedelta(minutes=5)
_KEY_FILE, _CERTIFICATE_FILE, _REVOKED_FILE = "ca.key", "ca.crt", "ca.crl"


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its key, its own certificate, and the serial numbers it has revoked.

    Attributes:
        certificate: self-signed.
        revoked: when each revoked serial number was revoked.
    """

    private_key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    revoked: tuple[tuple[int, datetime], ...] = ()

    @classmethod
    def create(cls, name: str, at: datetime) -> Authority:
        """A new authority.

        Args:
            name: the consortium, as it stands in every certificate.
            at: now, with a time zone.
        """
        key = ec.generate_private_key(CURVE)
        subject = _subject(name)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - _CLOCK_SKEW)
            .not_valid_after(at + CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def ephemeral(cls, at: datetime) -> Authority:
        """An authority for a simulation; its name says that it proves nothing, and its key is never written."""
        return cls.create(EPHEMERAL_NAME, at)

    @property
    def is_ephemeral(self) -> bool:
        """Whether the certificates come from a simulation."""
        return self.certificate.subject == _subject(EPHEMERAL_NAME)

    def issue(
        self,
        request: x509.CertificateSigningRequest,
        member: str,
        at: datetime,
        addresses: Iterable[str] = (),
    ) -> x509.Certificate:
        """A member's certificate.

        Args:
            request: made by `hansa.identity.certificates.request_certificate` on the member's machine; only its
                key is taken from it.
            member: the name in the agreement; whoever runs the authority checks who asks.
            at: now, with a time zone.
            addresses: host names and IP addresses under which the machine is reached, where it serves others.

        Raises:
            CertificateError: the request is not signed by its own key, the key is not on P-256, or an address is none.
        """
        key = request.public_key()
        problems = []
        names: list[x509.GeneralName] = [member_uri(member)]
        for text in addresses:
            try:
                names.append(_address(text))
            except ValueError:
                problems.append(Problem("address", f"{text!r} is no host name and no IP address"))
        if not request.is_signature_valid:
            problems.append(Problem("request", "is not signed by its own key", "make it again"))
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            problems.append(Problem("request", "its key is not on P-256", "make it with `hansa node init`"))
        if problems or not isinstance(key, ec.EllipticCurvePublicKey):
            raise CertificateError(f"no certificate is issued to {member!r}", problems)
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(member))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - _CLOCK_SKEW)
            .not_valid_after(min(at + MEMBER_LIFETIME, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key()),
                critical=False,
            )
            .sign(self.private_key, hashes.SHA256())
        )

    def revoke(self, serials: Iterable[int], at: datetime) -> Authority:
        """The authority with these serial numbers revoked; revoking one again changes nothing."""
        known = {serial for serial, _ in self.revoked}
        new = tuple((serial, at) for serial in serials if serial not in known)
        return replace(self, revoked=self.revoked + new)

    def revocation_list(
        self, at: datetime, lifetime: timedelta = timedelta(days=30)
    ) -> x509.CertificateRevocationList:
        """The signed list of what was revoked, to be replaced before `at` + `lifetime`."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(at - _CLOCK_SKEW)
            .next_update(at + lifetime)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private_key.public_key()),
                critical=False,
            )
            .add_extension(x509.CRLNumber(int(at.timestamp())), critical=False)
        )
        for serial, when in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.private_key, hashes.SHA256())

    def save(self, folder: Path, at: datetime) -> None:
        """Write key (0600, never overwritten), certificate and revocation list into a folder.

        Raises:
            KeyFileError: the folder holds a key already.
        """
        folder.mkdir(parents=True, exist_ok=True)
        pem = self.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(folder / _KEY_FILE, pem)
        replace_file(folder / _CERTIFICATE_FILE, self.certificate.public_bytes(serialization.Encoding.PEM))
        self.save_revocations(folder, at)

    def save_revocations(self, folder: Path, at: datetime) -> None:
        """Write the revocation list anew; the file is replaced in one step."""
        pem = self.revocation_list(at).public_bytes(serialization.Encoding.PEM)
        replace_file(folder / _REVOKED_FILE, pem)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read an authority from its folder.

        Raises:
            KeyFileError: the key cannot be used.
            CertificateError: certificate or revocation list cannot be read, or belong to another key.
        """
        key = read_private_key(folder / _KEY_FILE)
        try:
            certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE_FILE).read_bytes())
            certificate.verify_directly_issued_by(certificate)
            revoked = x509.load_pem_x509_crl((folder / _REVOKED_FILE).read_bytes())
        except (OSError, ValueError, TypeError, InvalidSignature):
            raise CertificateError(
                "the authority cannot be read",
                [
                    Problem(
                        str(folder),
                        f"needs {_CERTIFICATE_FILE} and {_REVOKED_FILE} as `hansa ca init` made them",
                    )
                ],
            ) from None
        public = key.public_key()
        if certificate.public_key() != public or not revoked.is_signature_valid(public):
            raise CertificateError(
                "the authority cannot be used",
                [Problem(str(folder), f"{_CERTIFICATE_FILE} or {_REVOKED_FILE} belong to another key")],
            )
        return cls(
            key, certificate, tuple((entry.serial_number, entry.revocation_date_utc) for entry in revoked)
        )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _address(text: str) -> x509.GeneralName:
    """An IP address, or a host name of letters, digits, hyphens and dots, without wildcards."""
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        if not _HOST.fullmatch(text) or text.rpartition(".")[2].isdigit():
            raise
        return x509.DNSName(text)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
