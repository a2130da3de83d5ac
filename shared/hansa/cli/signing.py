"""`hansa agreement sign|keys`, and who has signed, for `hansa agreement check --signatures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from hansa.agreement import Agreement, read_agreement
from hansa.agreement.roster import roster_of
from hansa.cli.agreement import agreement_summary
from hansa.cli.lines import lines
from hansa.cli.options import ForceOption, FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.identity.files import write_new
from hansa.identity.keys import fingerprint
from hansa.ledger.errors import NoteFormatError
from hansa.ledger.files import entry_lines
from hansa.ledger.note import VerifierKey
from hansa.ledger.signatures import check_signatures, sign_as_party, trusted_keys
from hansa_client.node_file import NodeHome, read_home

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
    (`hansa agreement show FROZEN`) with their owners before you sign. A member's signature is also an entry of its
    ledger, and names the keys of its log, of its witness and of its privacy officer.
    """
    with reported(output_format):
        agreement = read_agreement(frozen)
        node = read_home(home)
        signer = node.signer()
        roster = roster_of(agreement)
        roster.require_own(signer)
        if signer.name in roster.members:
            signature = _signed_by_member(agreement, node)
        else:
            signature = sign_as_party(agreement, signer).line + "\n"
        target = frozen.with_name(f"{frozen.stem}.{signer.name}.sig") if out is None else out
        line = signature.encode()
        # signing twice gives the same bytes, so that a second time is no harm
        if not target.is_file() or target.read_bytes() != line:
            write_new(target, line)
        summary = {"signature": str(target), "signer": signer.name, **agreement_summary(agreement)}
        text = f"{signer.name} has signed: {target}\n{lines(agreement_summary(agreement))}"
        emit(summary, text=text, output_format=output_format)


def keys(
    frozen: FrozenArgument,
    signatures: Annotated[
        Path, typer.Option("--signatures", metavar="FOLDER", help="The folder with the members' signatures.")
    ],
    federation_log: Annotated[
        str,
        typer.Option(
            "--federation-log",
            metavar="VKEY",
            help="The public key of the federation's log, as the coordinator tells it.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the keys, as JSON.")],
    force: ForceOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Write the keys that an audit and every node of a league believe, from a frozen agreement and its signatures.

    All members must have signed. Compare the fingerprint that is shown with others who made the file for themselves:
    it covers every key.
    """
    with reported(output_format):
        from hansa.cli.files import refuse_existing, write_text
        from hansa.quorum import threshold

        agreement = read_agreement(frozen)
        refuse_existing(out, force=force)
        log = _federation_key(federation_log)
        quorum = threshold(len(agreement.terms.members))
        trusted = trusted_keys(agreement, check_signatures(agreement, signatures, frozen.stem), log, quorum)
        write_text(out, trusted.text, force=force)
        officers = {name: fingerprint(key) for name, key in trusted.officers.items()}
        data = {
            "file": str(out),
            "agreement_id": trusted.agreement_id,
            "fingerprint": trusted.fingerprint,
            "quorum": trusted.quorum,
            "officers": officers,
        }
        shown = lines({name: value for name, value in data.items() if name not in {"file", "officers"}})
        text = f"Wrote {out}.\n{shown}\nPrivacy officers, who alone grant budgets:\n{lines(officers)}"
        emit(data, text=text, output_format=output_format)


def _federation_key(text: str) -> VerifierKey:
    """The key of the federation's log, as the command line gives it.

    Raises:
        NoteFormatError: it is none.
    """
    try:
        return VerifierKey.parse(text)
    except NoteFormatError as error:
        raise NoteFormatError(
            f"--federation-log: {error.cause}",
            remedy="Copy the whole `log key` that `hansa node init coordinator` showed, in quotes.",
        ) from None


def _signed_by_member(agreement: Agreement, node: NodeHome) -> str:
    """The member's signature, which stands in its ledger from then on."""
    from hansa_client.node_ledger import ledger_of, lost_ledger

    witness = node.witness_signer().key
    with ledger_of(
        node, begin=lost_ledger(node) is None
    ) as ledger:  # one that was lost is never begun anew by this
        signed = ledger.sign_agreement(
            agreement.agreement_id,
            terms_id=agreement.terms_id,
            roster_sha256=roster_of(agreement).sha256,
            witness_key=witness,
        )
    return entry_lines(signed)


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
        "officers": [f"{name} {fingerprint(entry.officer_key)}" for name, entry in found.entries.items()],
    }
