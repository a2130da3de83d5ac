"""`hansa node init|certificate`: a party's own keys, and the certificate for them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hansa.cli.files import make_folder
from hansa.cli.lines import lines
from hansa.cli.options import AmendmentsOption, FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import OutputExistsError, UsageError


class RoleName(StrEnum):
    """What a node is."""

    MEMBER = "member"
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"


def init(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="As it will stand in agreements; the coordinator is `coordinator`."
        ),
    ],
    home: Annotated[Path, typer.Option("--home", metavar="DIR", help="A new folder, or an empty one.")],
    role: Annotated[RoleName, typer.Option("--role", help="What the node is.")] = RoleName.MEMBER,
    superlink: Annotated[
        str | None,
        typer.Option(
            "--superlink", metavar="HOST:PORT", help="The coordinator's SuperLink, if you know it already."
        ),
    ] = None,
    officer: Annotated[
        Path | None,
        typer.Option(
            "--officer",
            metavar="FILE.pub",
            help="A member's: the card of its privacy officer, as `hansa node officer` made it.",
        ),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Make a node's folder: a private key, a request for a certificate, a public card, and node.toml.

    A member also gets a state folder, the key that its state is sealed with, and keys for its log and as a witness of
    the federation's. The card of its privacy officer, who alone grants budgets, is copied into the folder; without
    --officer it has to be put there before an agreement is signed. The coordinator and auditors sign with keys of
    their own: --role coordinator, --role auditor. Nothing is ever overwritten, and no private key is shown.
    """
    with reported(output_format):
        from hansa.identity.cards import Card
        from hansa.identity.certificates import request_certificate
        from hansa.identity.files import write_new
        from hansa.identity.keys import Signer
        from hansa.identity.link_key import SUFFIX, make_link_key
        from hansa.identity.pem import pem
        from hansa.identity.roster import COORDINATOR, NAME
        from hansa.ledger.officer import card_name, read_officer
        from hansa_client.node_file import FILE, node_toml, read_home

        if not NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name",
                remedy="Letters, digits, '_', '.' and '-', up to 64, the first no mark.",
            )
        if (role is RoleName.COORDINATOR) != (name == COORDINATOR):
            raise UsageError(
                f"a node called {name!r} cannot have the role {role.value!r}",
                remedy=f"The coordinator, and nobody else, is called {COORDINATOR!r}: "
                f"hansa node init {COORDINATOR} --role {COORDINATOR} --home DIR",
            )
        if officer is not None and role is not RoleName.MEMBER:
            raise UsageError("--officer is a member's", remedy="Leave it out.")
        if superlink is not None:
            from hansa.following.address import Address

            if role is RoleName.COORDINATOR:
                raise UsageError("--superlink is of nodes that dial one", remedy="Leave it out.")
            superlink = str(Address.parse(superlink))
        granting = None if officer is None else read_officer(officer, name)
        _empty_folder(home)
        signer = Signer.generate(name)
        card = Card(name, signer.public_key)
        signer.save(home / "identity.key")
        write_new(home / f"{name}.csr", pem(request_certificate(signer)))
        write_new(home / f"{name}.pub", card.line.encode())
        link = None
        if role is not RoleName.COORDINATOR:
            link = home / f"{name}{SUFFIX}"
            write_new(link, make_link_key(home / "link.key", signer).encode())
        notes = _note_keys(home, name, role)
        if role is RoleName.MEMBER:
            from hansa.secagg.seal import Seal

            Seal.create(home / "sealing.key")
            make_folder(home / "state", 0o700)
        if granting is not None:
            write_new(home / card_name(name), granting.line.encode())
        write_new(home / FILE, node_toml(name, role.value, superlink).encode())
        read_home(home)
        data = {
            "home": str(home),
            "name": name,
            "role": role.value,
            "card": str(home / f"{name}.pub"),
            "request": str(home / f"{name}.csr"),
            "link": None if link is None else str(link),
            "public_key": card.public_key,
            "fingerprint": card.fingerprint,
            **notes,
            "officer": None if granting is None else granting.fingerprint,
        }
        shown = {key: data[key] for key in ("role", "card", "request", "link", "fingerprint", "officer")}
        if role is RoleName.COORDINATOR:
            shown |= notes  # a member's stand in its signature; this one the coordinator tells everybody
        missing = role is RoleName.MEMBER and granting is None
        text = (
            f"Made the node of {name} in {home}.\n{lines(shown)}\n{_next(name, home, role, missing=missing)}"
        )
        emit(data, text=text, output_format=output_format)


def certificate(
    file: Annotated[Path, typer.Argument(metavar="FILE.crt", help="What the authority sent.")],
    home: HomeOption,
    ca: Annotated[Path, typer.Option("--ca", metavar="ca.crt", help="The authority's own certificate.")],
    crl: Annotated[Path, typer.Option("--crl", metavar="ca.crl", help="Its list of revoked certificates.")],
    agreement: Annotated[
        Path | None,
        typer.Option(
            "--agreement", metavar="FROZEN", help="Also check it against the key that is pinned there."
        ),
    ] = None,
    amendments: AmendmentsOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Check a certificate for this node's key, and put it where node.toml says, with the authority's two files.

    Older ones are replaced; so a newer list of revoked certificates is put in place by the same command.
    """
    with reported(output_format):
        from hansa.identity.certificates import check_certificate, check_own_certificate
        from hansa.identity.files import replace_file
        from hansa.identity.pem import pem, read_certificate, read_revocations
        from hansa_client.node_file import read_home

        node = read_home(home)
        signer = node.signer()
        shown, authority, revocations = read_certificate(file), read_certificate(ca), read_revocations(crl)
        if amendments and agreement is None:
            raise UsageError("--amendments needs --agreement", remedy="Name the agreement that they amend.")
        now = datetime.now(UTC)
        check_own_certificate(shown, signer, authority=authority, revocations=revocations, at=now)
        if agreement is not None:
            from hansa.agreement import read_agreement
            from hansa.agreement.amendments import roster_in_force

            check_certificate(
                shown,
                signer.name,
                roster_in_force(read_agreement(agreement), amendments or ()).roster,
                authority=authority,
                revocations=revocations,
                at=now,
            )
        replace_file(node.certificate, pem(shown))
        for source, target in ((ca, node.authority), (crl, node.revocations)):
            if not target.exists() or not source.samefile(target):
                replace_file(target, source.read_bytes())
        data = {
            "certificate": str(node.certificate),
            "name": signer.name,
            "serial": hex(shown.serial_number),
            "valid_until": f"{shown.not_valid_after_utc:%Y-%m-%d}",
            "pinned": agreement is not None,
        }
        text = f"{file} is for this node's key.\n{lines({**data, 'pinned': None})}"
        emit(data, text=text, output_format=output_format)


def _note_keys(home: Path, name: str, role: RoleName) -> dict[str, str]:
    """Make the keys of logs and witnesses; their public sides."""
    from hansa.ledger.note import NoteSigner, SignatureType

    made: dict[str, str] = {}
    origins = {
        RoleName.MEMBER: {"log": f"hansa.member/{name}", "witness": f"hansa.member/witness/{name}"},
        RoleName.COORDINATOR: {"log": "hansa.federation/log"},
        RoleName.AUDITOR: {},
    }
    for what, origin in origins[role].items():
        signer = NoteSigner.generate(origin, SignatureType[what.upper()])
        signer.save(home / f"{what}.key")
        made[f"{what}_key"] = signer.key.text
    return made


def _empty_folder(home: Path) -> None:
    """Make the folder, open to its owner alone; one that holds anything is left as it is."""
    make_folder(home, 0o700)
    if any(home.iterdir()):
        raise OutputExistsError(
            f"{home} is not empty", remedy="Name a new folder; nothing in a node's home is ever overwritten."
        )
    home.chmod(0o700)


def _next(name: str, home: Path, role: RoleName, *, missing: bool) -> str:
    lines_ = [
        f"Next: send {name}.pub to whoever freezes the agreement, and {name}.csr to the consortium's authority;",
        "read the fingerprint to both over the phone. identity.key never leaves this machine.",
    ]
    if role is not RoleName.COORDINATOR:
        lines_.append(f"Send {name}.link to the coordinator: it admits this node to the SuperLink.")
    if missing:
        lines_.append(
            f"Have the privacy officer make a key on another machine (hansa node officer {name} --out DIR), and put "
            f"{name}.officer.pub into {home} before you sign an agreement."
        )
    if role is RoleName.MEMBER:
        lines_.append(
            f"Read {home / 'node.toml'}: it says what else you may set, and where sealing.key should go."
        )
    return "\n".join(lines_)
