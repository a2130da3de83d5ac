"""`hansa node recover`: a ledger that was lost, or put back from an old copy, is rebuilt from the federation's log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.lines import lines
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import UsageError

if TYPE_CHECKING:
    from hansa.ledger import TrustedKeys
    from hansa_client.federation_log import FederationLog
    from hansa_client.node_file import NodeHome
    from hansa_client.recovery import Recovered


def recover(
    home: HomeOption,
    federation: Annotated[
        Path | None,
        typer.Option(
            "--federation",
            metavar="COPY",
            help="A copy of the federation's log under the checkpoint: a folder of tiles, a mirror, or a .sqlite file.",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="keys.json", help="The keys that `hansa agreement keys` wrote."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Rebuild a ledger that was lost, or put back from an old copy, from the federation's log.

    First without --federation: it makes a line for the coordinator, who puts it into the log's next checkpoint; a
    checkpoint that carries it and that enough members cosigned cannot be an old one. Then with a copy of the log under
    that checkpoint. Runs that were open are ended, and all that they had reserved counts as spent. A ledger that is gone
    altogether needs its grant back first: hansa node grant --home DIR --signed FILE.
    """
    with reported(output_format):
        from hansa.protocol import fresh_line
        from hansa_client.node_file import read_home

        if (federation is None) != (keys is None):
            raise UsageError("--federation and --keys go together", remedy="See `hansa node recover --help`.")
        node = read_home(home)
        if federation is None or keys is None:
            line = fresh_line(node.settings.name, _nonce(node))
            text = (
                f"Give this line to the coordinator, for the next checkpoint of the federation's log:\n  {line}\n"
                f"Then: hansa node recover --home {home} --federation COPY --keys keys.json"
            )
            emit({"home": str(home), "line": line}, text=text, output_format=output_format)
            return
        found, size = _recovered(node, federation, keys)
        data = {
            "home": str(home),
            "put_back": [signed.entry.sha256 for signed in found.entries],
            "ended_in_full": list(found.forfeited),
            "entries": size,
        }
        emit(data, text=_text(found, size), output_format=output_format)


def _nonce(node: NodeHome) -> str:
    """The nonce that waits for its checkpoint; a new one where none does."""
    import secrets

    from hansa.identity.keys import read_private, write_private

    path = node.recovery_nonce
    if not path.exists():
        write_private(path, secrets.token_hex(16).encode())
    return read_private(path).decode("ascii", "replace")


def _recovered(node: NodeHome, place: Path, keys: Path) -> tuple[Recovered, int]:
    """What was put back, and how many entries the ledger has now."""
    from hansa.ledger import TrustedKeys
    from hansa.ledger.errors import RecoveryError
    from hansa.protocol import fresh_line
    from hansa_client.federation_copy import read_copy
    from hansa_client.node_ledger import opening, store_of
    from hansa_client.recovery import recover as rebuild

    if not node.recovery_nonce.exists():
        raise RecoveryError(
            "no recovery was begun here, so that any checkpoint could be an old one",
            remedy=f"First: hansa node recover --home {node.folder}",
        )
    nonce = _nonce(node)
    federation = _believed(node, TrustedKeys.read(keys))
    copy = read_copy(place, fresh_line(node.settings.name, nonce))
    opened = opening(node)
    with store_of(node) as store:
        found = rebuild(store, opened, federation, copy.entries, copy.note, nonce)
        found.ledger.checkpoint()
        size = found.ledger.log.size
    node.recovery_nonce.unlink()  # a nonce is good for one recovery
    return found, size


def _believed(node: NodeHome, keys: TrustedKeys) -> FederationLog:
    """What the keys say of the federation's log, if they are those of this member.

    Raises:
        UnknownSignerError, ForeignKeyError: they are of an agreement that this member has no part in, or of another key.
        TrustedKeysError: another privacy officer stands there.
    """
    from hansa.errors import Problem
    from hansa.identity.errors import ForeignKeyError, UnknownSignerError
    from hansa.ledger import VerifierKey
    from hansa.ledger.errors import TrustedKeysError
    from hansa_client.federation_log import FederationLog

    name = node.settings.name
    if keys.members.get(name) not in node.settings.former_keys:
        try:
            keys.roster.require_own(node.signer())
        except (UnknownSignerError, ForeignKeyError) as error:
            raise type(error)(
                f"{error.cause}, by the keys of agreement {keys.agreement_id[:16]}",
                remedy="Name the keys.json of the agreement that this member has signed: these are another agreement's, or "
                "this home has another key.",
            ) from None
    if keys.officers.get(name) != node.officer().public_key:
        raise TrustedKeysError(
            "the keys are not those that this member has signed",
            [Problem(f"officers.{name}", "is not the officer whose card the node holds")],
        )
    witnesses = {member: VerifierKey.parse(text) for member, text in keys.witnesses.items()}
    return FederationLog(VerifierKey.parse(keys.federation_log), witnesses, keys.quorum, keys.keyring)


def _text(found: Recovered, size: int) -> str:
    shown = lines(
        {
            "put back": f"{len(found.entries)} of this member's entries",
            "ended in full": [f"run {run}" for run in found.forfeited],
            "entries now": str(size),
        }
    )
    return f"The ledger holds what the federation has seen of it.\n{shown}\nSee: hansa node budget"
