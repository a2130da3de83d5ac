"""Who may read logs from afar: members and auditors of the roster, by certificate and pinned key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography import x509

from hansa.errors import Problem, UsageError
from hansa.identity import COORDINATOR, Roster, check_certificate
from hansa.identity.certificates import member_of
from hansa.identity.errors import CertificateError, RosterError, UnknownSignerError
from hansa.identity.pem import pem, read_certificate, read_revocations
from hansa.ledger import AmendmentMade, Keyring, SignedEntry, TrustedKeys
from hansa_server.served_logs import ServedLog

_AMENDMENT = b'"type":"amendment"'


class RosterInForce:
    """The roster as the federation's log has amended it.

    Args:
        keys: of the agreement, as they were frozen.
        logs: that are served; amendments stand in the federation's, if it is among them.
    """

    def __init__(self, keys: TrustedKeys, logs: Sequence[ServedLog]) -> None:
        self._keyring: Keyring = keys.keyring
        self._agreement_id, self._size = keys.agreement_id, 0
        self._log = next((log for log in logs if log.origin == keys.federation.log.name), None)

    def __call__(self) -> Roster:
        """As of now. Where it raises, the next question reads from the same place again.

        Raises:
            HansaError: an amendment in the log is none, or the log cannot be read.
        """
        if self._log is not None:
            with self._log.reading() as view:
                size, keyring = view.size, self._keyring
                for index, data in enumerate(view.entries(self._size, size), self._size):
                    if _AMENDMENT in data:
                        entry = SignedEntry.parse(data).entry
                        if isinstance(entry, AmendmentMade):
                            keyring = keyring.amended(entry, index)
                self._size, self._keyring = size, keyring
        return self._keyring.agreements[self._agreement_id].rosters[-1][1]


class WithReaders:
    """A roster, and whom the coordinator lets read beyond it; for admission to a log alone.

    Args:
        roster: as of now.
        readers: public key by name. They attest nothing: no agreement knows them.

    Raises, when called:
        RosterError: a reader has the name or the key of a party.
    """

    def __init__(self, roster: Callable[[], Roster], readers: Mapping[str, str]) -> None:
        self._roster, self._readers = roster, dict(readers)

    def __call__(self) -> Roster:
        """As of now."""
        roster = self._roster()
        taken = sorted(set(self._readers) & {*roster.members, *roster.auditors})
        if taken:
            raise RosterError(
                "readers have names of parties", [Problem(name, "is a party") for name in taken]
            )
        return replace(roster, auditors={**roster.auditors, **self._readers})


class Admission:
    """Decides about certificates, each time anew, so that whoever is revoked is out with the next question.

    Args:
        roster: as of now.
        authority: the consortium's certificate.
        revocations: a file, read anew whenever it has changed.
        clock: now, with a time zone.

    Raises:
        CertificateError, UsageError: a file cannot be read, or is none.
    """

    def __init__(
        self,
        roster: Callable[[], Roster],
        authority: Path,
        revocations: Path,
        clock: Callable[[], datetime],
    ) -> None:
        self._roster, self._clock, self._path = roster, clock, revocations
        self._authority = read_certificate(authority)
        self._lock = threading.Lock()
        self._stamp, self._revocations = _stamp(revocations), read_revocations(revocations)

    @property
    def authority(self) -> bytes:
        """The consortium's certificate, PEM, for TLS."""
        return pem(self._authority)

    def admit(self, shown: bytes) -> str:
        """Check a certificate.

        Args:
            shown: PEM, as TLS has taken it.

        Returns:
            The name of the member or auditor.

        Raises:
            HansaError: everything that is wrong with it, for the service's own log and nobody else.
        """
        try:
            certificate = x509.load_pem_x509_certificate(shown)
        except ValueError:
            raise CertificateError("what was shown is no certificate", []) from None
        name = member_of(certificate)
        if name == COORDINATOR:
            raise UnknownSignerError("the coordinator reads its logs where they lie")
        with self._lock:
            roster, revocations = self._roster(), self._current()
        check_certificate(
            certificate,
            name,
            roster,
            authority=self._authority,
            revocations=revocations,
            at=self._clock(),
        )
        return name

    def _current(self) -> x509.CertificateRevocationList:
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp, self._revocations = stamp, read_revocations(self._path)
        return self._revocations


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", remedy="Name the authority's ca.crl."
        ) from None
    return status.st_mtime_ns, status.st_size, status.st_ino
