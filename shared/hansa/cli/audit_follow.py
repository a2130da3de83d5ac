"""`hansa audit follow`: an auditor's mirror of the federation's log, checked as it grows."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.lines import lines
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported

if TYPE_CHECKING:
    from hansa.following import LogMirror, Standing


def follow(
    address: Annotated[
        str,
        typer.Argument(metavar="HOST:PORT", help="Of the ledger service, by the name in its certificate."),
    ],
    keys: Annotated[
        Path,
        typer.Option(
            "--keys", metavar="FILE", help="The public keys that you have compared with their owners."
        ),
    ],
    mirror: Annotated[
        Path, typer.Option("--mirror", metavar="DIR", help="Where the copy is kept; it goes on from there.")
    ],
    home: HomeOption,
    ca: Annotated[Path, typer.Option("--ca", metavar="ca.crt", help="The authority's own certificate.")],
    once: Annotated[bool, typer.Option("--once", help="Take what is there, then end.")] = False,
    reconnect: Annotated[
        float, typer.Option("--reconnect", min=0, metavar="SECONDS", help="For how long to try again.")
    ] = 300.0,
    cosigned_within: Annotated[
        float,
        typer.Option(
            "--cosigned-within",
            min=0,
            metavar="SECONDS",
            help="How long entries may wait for a quorum of members to cosign them.",
        ),
    ] = 86_400.0,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Mirror the federation's log from a ledger service, and check every entry before it is kept.

    SIGTERM ends it with status 0. Signatures, consistency with all that was seen before, the rules of rounds and spends, and that a quorum of members
    has cosigned. Status 4 when something is wrong, with what the log has signed kept in the mirror; 5 when the service
    cannot be reached. `hansa audit verify MIRROR` checks the copy as a whole and recomputes what was spent.
    """
    with reported(output_format):
        from hansa.following import LogMirror, Patience, follow
        from hansa.following.address import Address
        from hansa.following.remote import Credentials, RemoteLog
        from hansa.ledger.trust import TrustedKeys
        from hansa_client.node_file import read_home

        signal.signal(signal.SIGTERM, _stopped)
        Address.parse(address)
        trusted = TrustedKeys.read(keys)
        node = read_home(home)
        credentials = Credentials.of(node.signer(), node.certificate, ca)
        copy = LogMirror(mirror, trusted)
        try:
            source = RemoteLog(address, copy.origin, credentials)
            try:
                standing = follow(
                    source,
                    copy,
                    once=once,
                    tell=lambda now: None if once else typer.echo(_line(now), err=True),
                    clock=time.monotonic,
                    sleep=time.sleep,
                    patience=Patience(reconnect, cosigned_within),
                )
            finally:
                source.close()
            emit(_data(copy, standing), text=_text(copy, standing), output_format=output_format)
        finally:
            copy.close()


def _stopped(*_: object) -> None:
    """End well: what the mirror holds is checked, and the next start goes on from there."""
    raise typer.Exit


def _line(now: Standing) -> str:
    return f"{now.size} entries, {now.cosigned} of them cosigned by {len(now.by)} members"


def _data(copy: LogMirror, now: Standing) -> dict[str, object]:
    return {
        "log": copy.origin,
        "entries": now.size,
        "root": now.root.hex(),
        "cosigned": now.cosigned,
        "by": list(now.by),
    }


def _text(copy: LogMirror, now: Standing) -> str:
    told = {
        "log": copy.origin,
        "entries": now.size,
        "root": now.root.hex(),
        "cosigned": f"{now.cosigned} entries, by {', '.join(now.by)}",
    }
    waiting = now.size - now.cosigned
    more = f"\n{waiting} entries wait for a quorum of cosignatures." if waiting else ""
    return f"Verified and mirrored.\n{lines(told)}{more}"
