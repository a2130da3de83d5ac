"""`hansa ca init|issue|revoke|refresh`: the consortium's certificate authority, in one folder.

A certificate says to which institution a key belongs, for TLS and for the record. It admits nobody: that takes the
key that the agreement pins.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from hansa.cli.files import make_folder
from hansa.cli.lines import lines
from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    from cryptography import x509

FolderArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The authority's own folder.")
]

_RECORD = "issued"  # beside the authority's key: a copy of every certificate
_LOOPBACK = "127.0.0.1"
_FILES = ("ca.key", "ca.crt", "ca.crl")


def init(
    folder: FolderArgument,
    name: Annotated[
        str, typer.Option("--name", metavar="CONSORTIUM", help="As it stands in every certificate.")
    ],
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Make an authority: a key that stays in the folder, a certificate for everybody, an empty list of revoked ones."""
    with reported(output_format):
        from hansa.identity.authority import EPHEMERAL_NAME, Authority
        from hansa.identity.keys import fingerprint, public_text

        if not 1 <= len(name) <= 64 or not name.isprintable() or name == EPHEMERAL_NAME:
            raise UsageError(
                f"{name!r} is no name for a consortium", remedy="1 to 64 visible characters, as X.509 has it."
            )
        there = [file for file in _FILES if (folder / file).exists()]
        if there:
            raise OutputExistsError(
                f"{folder} has a {there[0]} already",
                remedy="Name another folder; no authority is overwritten.",
            )
        make_folder(folder)
        authority = Authority.create(name, _now())
        authority.save(folder, _now())
        data = {
            "folder": str(folder),
            "name": name,
            "fingerprint": fingerprint(public_text(authority.private_key.public_key())),
            "valid_until": f"{authority.certificate.not_valid_after_utc:%Y-%m-%d}",
            "revocations_until": _list_until(folder),
        }
        text = (
            f"Made the authority of {name} in {folder}.\n{lines(data)}\n"
            f"ca.key stays there and is read by you alone. Give ca.crt and ca.crl to everybody, and the fingerprint\n"
            f"over another channel. Sign the list anew before it expires: hansa ca refresh {folder}"
        )
        emit(data, text=text, output_format=output_format)


def issue(
    folder: FolderArgument,
    request: Annotated[
        Path, typer.Option("--request", metavar="FILE.csr", help="What `hansa node init` made.")
    ],
    member: Annotated[
        str, typer.Option("--member", metavar="NAME", help="Who asks, by its name in agreements.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.crt", help="By default beside the request.")
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            metavar="HOST",
            help="A host name or IP address under which the machine serves others, such as logs; repeat it.",
        ),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Issue a certificate for the key of a request, if the request is in the name of the member that you name.

    Read the fingerprint that is shown to the member over the phone before you hand the certificate over: a request
    that came by mail may be somebody else's.
    """
    with reported(output_format):
        from hansa.identity.authority import Authority
        from hansa.identity.certificates import check_request
        from hansa.identity.files import locked, write_new
        from hansa.identity.keys import fingerprint
        from hansa.identity.pem import pem, read_request
        from hansa.identity.roster import COORDINATOR

        addresses = list(address or ())
        if member == COORDINATOR and addresses and _LOOPBACK not in addresses:
            addresses.append(_LOOPBACK)  # where the coordinator's own processes meet
        target = request.with_suffix(".crt") if out is None else out
        if target.exists():
            raise OutputExistsError(
                f"{target} is already there", remedy="Move it away, or name another by --out."
            )
        asked = read_request(request)
        key = check_request(asked, member)
        with locked(folder):
            authority = Authority.load(folder)
            revoked = {serial for serial, _ in authority.revoked}
            earlier = [
                one
                for name, one in _issued(folder)
                if name == member and one.serial_number not in revoked and one.not_valid_after_utc > _now()
            ]
            certificate = authority.issue(asked, member, _now(), addresses)
            make_folder(folder / _RECORD)
            write_new(folder / _RECORD / f"{member}-{certificate.serial_number:x}.crt", pem(certificate))
        write_new(target, pem(certificate))
        data = {
            "certificate": str(target),
            "member": member,
            "fingerprint": fingerprint(key),
            "serial": hex(certificate.serial_number),
            "valid_until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
            "addresses": addresses,
            "earlier": [hex(one.serial_number) for one in earlier],
        }
        text = (
            f"Issued {target}.\n{lines(data)}\n"
            f"Read the fingerprint to {member} over the phone before you send the certificate. "
            "It admits nobody by itself."
        )
        if earlier:
            text += (
                f"\n{member} has {len(earlier)} earlier certificate{'s' if len(earlier) != 1 else ''} that still "
                f"count{'s' if len(earlier) == 1 else ''}. Revoke what should not: hansa ca revoke {folder} --serial N"
            )
        emit(data, text=text, output_format=output_format)


def revoke(
    folder: FolderArgument,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="The certificate to revoke.")
    ] = None,
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="N", help="Its serial number, decimal or 0x….")
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Revoke a certificate, and sign the list of revoked ones anew.

    It takes effect wherever the new ca.crl arrives. The key that an agreement pins is not revoked by it; that takes
    an amendment.
    """
    with reported(output_format):
        from hansa.identity.authority import Authority
        from hansa.identity.files import locked

        if (certificate is None) == (serial is None):
            raise UsageError("name either --certificate or --serial", remedy="See `hansa ca revoke --help`.")
        with locked(folder):
            authority = Authority.load(folder)
            number = (
                _number_of(authority.certificate, certificate)
                if certificate is not None
                else _known_number(folder, serial or "")
            )
            before = number in {known for known, _ in authority.revoked}
            authority = authority.revoke([number], _now())
            authority.save_revocations(folder, _now())
        data = {
            "serial": hex(number),
            "revoked_before": before,
            "revocations": str(folder / "ca.crl"),
            "revoked": len(authority.revoked),
            "revocations_until": _list_until(folder),
        }
        text = (
            f"{'Was revoked before' if before else 'Revoked'}: {hex(number)}.\n{lines({**data, 'revoked_before': None})}\n"
            f"Give {folder / 'ca.crl'} to everybody. A key that an agreement pins is revoked by an amendment: "
            "hansa agreement amend"
        )
        emit(data, text=text, output_format=output_format)


def refresh(folder: FolderArgument, output_format: FormatOption = Format.TEXT) -> None:
    """Sign the list of revoked certificates anew. A list that has expired is refused by everybody."""
    with reported(output_format):
        from hansa.identity.authority import Authority
        from hansa.identity.files import locked

        with locked(folder):
            authority = Authority.load(folder)
            authority.save_revocations(folder, _now())
        data = {
            "revocations": str(folder / "ca.crl"),
            "revoked": len(authority.revoked),
            "revocations_until": _list_until(folder),
        }
        emit(data, text=f"Signed {folder / 'ca.crl'} anew.\n{lines(data)}", output_format=output_format)


def _number_of(authority: x509.Certificate, path: Path) -> int:
    """The serial number of a certificate that this authority has issued."""
    from cryptography.exceptions import InvalidSignature

    from hansa.errors import Problem
    from hansa.identity.errors import CertificateError
    from hansa.identity.pem import read_certificate

    certificate = read_certificate(path)
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateError(
            "nothing is revoked", [Problem(str(path), "was not issued by this authority")]
        ) from None
    return certificate.serial_number


def _known_number(folder: Path, text: str) -> int:
    """A serial number that was issued here: a mistyped one would leave the certificate in force."""
    try:
        number = int(text, 0)
    except ValueError:
        raise UsageError(
            f"{text!r} is no serial number", remedy="Decimal, or hexadecimal after 0x."
        ) from None
    if number not in {one.serial_number for _, one in _issued(folder)}:
        raise UsageError(
            f"no certificate with the number {hex(number)} is recorded in {folder / _RECORD}",
            remedy="Compare the number, or name the certificate itself by --certificate.",
        )
    return number


def _issued(folder: Path) -> list[tuple[str, x509.Certificate]]:
    """The certificates that were issued here, by member."""
    from hansa.identity.pem import read_certificate

    paths = sorted((folder / _RECORD).glob("*.crt"))
    return [(path.stem.rpartition("-")[0], read_certificate(path)) for path in paths]


def _list_until(folder: Path) -> str:
    from hansa.identity.pem import read_revocations

    return f"{read_revocations(folder / 'ca.crl').next_update_utc:%Y-%m-%d}"


def _now() -> datetime:
    return datetime.now(UTC)
