"""Certificates, requests for them, and lists of revoked ones, as PEM files that somebody sent."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hansa.errors import Problem
from hansa.identity.errors import CertificateError
from hansa.identity.files import read_small


def read_certificate(path: Path) -> x509.Certificate:
    """A certificate from its file.

    Raises:
        UsageError: the file cannot be read.
        CertificateError: it is no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(read_small(path))
    except ValueError:
        raise _no(path, "certificate") from None


def read_request(path: Path) -> x509.CertificateSigningRequest:
    """A request for a certificate from its file; see `read_certificate`."""
    try:
        return x509.load_pem_x509_csr(read_small(path))
    except ValueError:
        raise _no(path, "request for a certificate") from None


def read_revocations(path: Path) -> x509.CertificateRevocationList:
    """A list of revoked certificates from its file; see `read_certificate`."""
    try:
        return x509.load_pem_x509_crl(read_small(path))
    except ValueError:
        raise _no(path, "list of revoked certificates") from None


def pem(value: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """As it stands in a file."""
    return value.public_bytes(Encoding.PEM)


def _no(path: Path, what: str) -> CertificateError:
    return CertificateError(
        f"{path} is no {what}", [Problem(path.name, "is not PEM of one", "ask for the file again")]
    )
