"""`hansa ledger serve`: logs for the machines of members and auditors."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from hansa.cli.lines import lines
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported

GRACE_S = 5.0


def serve(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOGS...", help="Logs: .sqlite files, also while they are written, and folders of tiles."
        ),
    ],
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="HOST:PORT", help="Where to answer; port 0 takes a free one."),
    ],
    home: HomeOption,
    keys: Annotated[
        Path, typer.Option("--keys", metavar="FILE", help="The federation's keys, which say who may read.")
    ],
    ca: Annotated[Path, typer.Option("--ca", metavar="ca.crt", help="The authority's own certificate.")],
    crl: Annotated[Path, typer.Option("--crl", metavar="ca.crl", help="Its list of revoked certificates.")],
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Serve logs to members and auditors, read-only, until SIGTERM or Ctrl-C.

    Both sides show certificates of the consortium's authority. This node's own must name the host under which it is
    asked (`hansa ca issue --address HOST`). Who asks must be a member or an auditor of the keys, with the key that is
    pinned there, not revoked. docs/ledger-service.md describes the service.
    """
    with reported(output_format):
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        from hansa.following.address import Address
        from hansa.identity.certificates import check_own_certificate
        from hansa.identity.pem import pem, read_certificate, read_revocations
        from hansa.ledger.trust import TrustedKeys
        from hansa_client.node_file import read_home
        from hansa_server.admission import Admission, RosterInForce
        from hansa_server.ledger_service import ServiceIdentity, ledger_server
        from hansa_server.served_logs import require_named, served_logs

        where = Address.parse(listen, any_port=True)
        node = read_home(home)
        signer, certificate = node.signer(), read_certificate(node.certificate)
        check_own_certificate(
            certificate,
            signer,
            authority=read_certificate(ca),
            revocations=read_revocations(crl),
            at=datetime.now(UTC),
        )
        served = served_logs(logs)
        trusted = TrustedKeys.read(keys)
        require_named(served, trusted)
        admission = Admission(RosterInForce(trusted, served), ca, crl, lambda: datetime.now(UTC))
        key = signer.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        server, port = ledger_server(served, admission, ServiceIdentity(key, pem(certificate)), str(where))
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        server.start()
        data = {"port": port, "logs": [log.origin for log in served], "members": list(trusted.members)}
        text = f"Serving at {where.at(port)}, until it is stopped.\n{lines({'logs': data['logs']})}"
        emit(data, text=text, output_format=output_format)
        ended.wait()
        server.stop(GRACE_S).wait()
