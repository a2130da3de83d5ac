"""Errors of identities: keys, certificates, rosters, signatures. HANSA-70x and 710."""

from __future__ import annotations

from hansa.errors import ExitStatus, HansaError, ProblemsError


class SignatureError(HansaError):
    """A signature is not by the key that the roster pins for its signer."""

    code = "HANSA-701"
    travels = True
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Do not act on it; ask its signer over another channel which key is the right one."


class UnknownSignerError(HansaError):
    """A message is signed by someone whom the agreement does not name."""

    code = "HANSA-702"
    travels = True
    exit_status = ExitStatus.REFUSED
    remedy = "Compare names and agreement on both sides."


class RevokedError(HansaError):
    """A message is signed with a key that has been revoked."""

    code = "HANSA-703"
    travels = True
    exit_status = ExitStatus.REFUSED


class CertificateError(ProblemsError):
    """A certificate or a request for one is not acceptable."""

    code = "HANSA-704"
    remedy = "Correct what is named, and request the certificate again."


class KeyFileError(HansaError):
    """A file that should hold a private key is missing, readable by others, or not a key."""

    code = "HANSA-705"
    exit_status = ExitStatus.BAD_INPUT
    remedy = "Check path, mode (0600) and content of the file."


class RosterError(ProblemsError):
    """The names and keys of an agreement do not make a roster."""

    code = "HANSA-706"
    remedy = "Compare the keys with their owners over another channel, then correct the agreement."


class AmendmentError(HansaError):
    """A change of keys was not approved as the agreement demands, or does not fit the roster it changes."""

    code = "HANSA-707"
    exit_status = ExitStatus.REFUSED


class NodeFileError(ProblemsError):
    """A `node.toml` cannot be read, or says something that no node does."""

    code = "HANSA-708"
    remedy = "Correct the file; `hansa node init` writes one with every setting explained."


class ForeignKeyError(HansaError):
    """A node was asked to sign with a key that is not the one pinned for its name."""

    code = "HANSA-709"
    exit_status = ExitStatus.REFUSED


class BadSignaturesError(ProblemsError):
    """Signatures of an agreement are forged, of another agreement, or no signatures at all."""

    code = "HANSA-710"
    exit_status = ExitStatus.VERIFICATION_FAILED
    remedy = "Ask each signer that is named over another channel, and have it sign again."
