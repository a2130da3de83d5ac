"""A ledger service on this machine: an authority, parties with certificates, and a server that is real."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hansa.following.remote import Credentials, RemoteLog
from hansa.identity import COORDINATOR, Authority, Signer, request_certificate
from hansa.identity.pem import pem
from hansa.ledger import TrustedKeys
from hansa_server.admission import Admission, RosterInForce
from hansa_server.ledger_service import ServiceIdentity, ledger_server
from hansa_server.served_logs import ServedLog, served_logs
from support.audits import FEDERATION_SIGNER, KEYS, SIGNERS

AUDITOR = Signer.generate("inspector")
# Of those who may read; what the logs say was signed under the keys of the story, which name no auditor.
READERS = TrustedKeys(**{**KEYS.model_dump(), "auditors": {AUDITOR.name: AUDITOR.public_key}})
ORIGIN = FEDERATION_SIGNER.key.name
HOST = "127.0.0.1"


def private(signer: Signer) -> bytes:
    """A private key as PEM."""
    return signer.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Consortium:
    """An authority in a folder, and homes of those who have its certificates.

    Attributes:
        folder: of everything.
        authority: as it stands.
    """

    folder: Path
    authority: Authority

    @classmethod
    def make(cls, folder: Path) -> Consortium:
        made = cls(folder, Authority.create("League", datetime.now(UTC)))
        made.authority.save(folder / "ca", datetime.now(UTC))
        KEYS.write(folder / "keys.json")
        return made

    @property
    def ca(self) -> Path:
        return self.folder / "ca" / "ca.crt"

    @property
    def crl(self) -> Path:
        return self.folder / "ca" / "ca.crl"

    @property
    def keys(self) -> Path:
        return self.folder / "keys.json"

    def home(
        self, signer: Signer, *addresses: str, name: str = "", authority: Authority | None = None
    ) -> Path:
        """A node's home with key and certificate, which is the authority's unless another issues it."""
        home = self.folder / f"home-{len(list(self.folder.glob('home-*')))}-{signer.name}"
        home.mkdir(parents=True)
        issuer = authority or self.authority
        certificate = issuer.issue(
            request_certificate(signer), name or signer.name, datetime.now(UTC), addresses
        )
        signer.save(home / "identity.key")
        (home / f"{signer.name}.crt").write_bytes(pem(certificate))
        role = "coordinator" if signer.name == COORDINATOR else "auditor"
        (home / "node.toml").write_text(
            f'name = "{signer.name}"\nrole = "{role}"\ncertificate = "{signer.name}.crt"\n'
        )
        return home

    def credentials(self, home: Path) -> Credentials:
        """What a client shows."""
        name = next(home.glob("*.crt")).stem
        return Credentials.of(Signer.load(name, home / "identity.key"), home / f"{name}.crt", self.ca)

    def revoke(self, home: Path) -> None:
        """Revoke the certificate of a home."""
        from hansa.identity.pem import read_certificate

        serial = read_certificate(next(home.glob("*.crt"))).serial_number
        self.authority = self.authority.revoke([serial], datetime.now(UTC))
        self.authority.save_revocations(self.folder / "ca", datetime.now(UTC))

    @contextmanager
    def serving(self, logs: Sequence[ServedLog], **more: Any) -> Iterator[str]:
        """A server over these logs, as ``HOST:PORT``."""
        home = self.home(SIGNERS[COORDINATOR], HOST, "localhost")
        admission = Admission(RosterInForce(READERS, logs), self.ca, self.crl, lambda: datetime.now(UTC))
        identity = ServiceIdentity(private(SIGNERS[COORDINATOR]), (home / f"{COORDINATOR}.crt").read_bytes())
        server, port = ledger_server(logs, admission, identity, f"{HOST}:0", **more)
        server.start()
        try:
            yield f"{HOST}:{port}"
        finally:
            server.stop(0).wait()

    @contextmanager
    def serving_paths(self, *paths: Path, **more: Any) -> Iterator[str]:
        """The same over what lies at these places."""
        with self.serving(served_logs(paths), **more) as address:
            yield address


@contextmanager
def remote(address: str, credentials: Credentials, origin: str = ORIGIN, **more: Any) -> Iterator[RemoteLog]:
    """A client, closed at the end."""
    log = RemoteLog(address, origin, credentials, **more)
    try:
        yield log
    finally:
        log.close()
