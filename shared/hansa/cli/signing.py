"""`hansa agreement sign`, and who has signed, for `hansa agreement check --signatures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from hansa.agreement import Agreement, read_agreement
from hansa.agreement.signatures import check_signatures, sign_agreement
from hansa.cli.agreement import agreement_summary
from hansa.cli.lines import lines
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.identity.files import write_new
from hansa_client.node_file import read_home

FrozenArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FROZEN", help="An agreement that was frozen with keys.")
]


def sign(
    frozen: FrozenArgument,
    home: HomeOption,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="By default FROZEN-stem.NAME.sig beside the agreement."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Sign an agreement with this node's key, if that is the key that it pins for this node.

    The signature covers everything: terms, model 0, noise, and all parties' keys. Compare fingerprints
    (`hansa agreement show FROZEN`) with their owners before you sign.
    """
    with reported(output_format):
        agreement = read_agreement(frozen)
        signer = read_home(home).signer()
        statement = sign_agreement(agreement, signer)
        target = frozen.with_name(f"{frozen.stem}.{signer.name}.sig") if out is None else out
        line = (statement.line + "\n").encode()
        # signing twice gives the same bytes, so that a second time is no harm
        if not target.is_file() or target.read_bytes() != line:
            write_new(target, line)
        summary = {"signature": str(target), "signer": signer.name, **agreement_summary(agreement)}
        text = f"{signer.name} has signed: {target}\n{lines(agreement_summary(agreement))}"
        emit(summary, text=text, output_format=output_format)


def signature_summary(agreement: Agreement, folder: Path, stem: str) -> dict[str, Any]:
    """What `check --signatures` adds to its answer.

    Raises:
        BadSignaturesError: a signature is false.
    """
    found = check_signatures(agreement, folder, stem)
    return {
        "signed": list(found.signed),
        "missing_signatures": list(found.missing),
        "signatures_of_other_agreements": found.others or None,
    }
