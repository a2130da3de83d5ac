"""`hansa audit …`: checking a federation from copies of its logs and public keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from hansa.agreement import Agreement
    from hansa.ledger.trust import TrustedKeys


LogsArgument: TypeAlias = Annotated[
    list[Path],
    typer.Argument(
        metavar="LOGS...",
        help="Copies: folders of tiles, .sqlite files, rounds.jsonl, kept checkpoints; or one `ledgers` folder.",
    ),
]
KeysOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="The public keys that you have compared with their owners."),
]
RunReportOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="The run's report.json, whose claims are checked too."),
]
AgreementOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--agreement",
        metavar="FILE",
        help="The frozen agreement, by whose conditions gates are decided anew.",
    ),
]
ProcessesOption: TypeAlias = Annotated[
    int, typer.Option("--processes", min=1, max=256, help="For the signatures of long logs.")
]


def verify(
    logs: LogsArgument,
    keys: KeysOption = None,
    report: RunReportOption = None,
    agreement: AgreementOption = None,
    processes: ProcessesOption = 1,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Check a federation: signatures, histories, sums, budgets, gates and every ε, trusting nobody.

    LOGS are copies: folders of tiles, .sqlite files of logs or of witnesses, rounds.jsonl, files with a checkpoint that
    somebody kept, or one folder `ledgers` as a simulation leaves it.

    Status 0 when nothing that could be checked is wrong, 4 with the first broken entry when something is, 2 when
    something cannot be read. What could not be checked is listed, with the reason. docs/for-auditors.md says what
    each check means, and how to do the same without Hansa.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        from hansa.audit import audit, read_sources, render_text  # pydantic, cryptography, numpy

        sources = read_sources(logs)
        trusted = trusted_keys(logs, keys)
        claims = None
        if report is not None:
            from hansa.report.files import read_report

            claims = read_report(report)
        agreed = None if agreement is None else agreement_of(agreement, trusted)
        findings = audit(sources, trusted, claims, agreement=agreed, processes=processes)
        status = ExitStatus.DONE if findings.verified else ExitStatus.VERIFICATION_FAILED
        emit(findings.as_dict(), text=render_text(findings), output_format=output_format, status=status)
    raise typer.Exit(status)


def agreement_of(path: Path, keys: TrustedKeys) -> Agreement:
    """The frozen agreement of which the keys are.

    Raises:
        UsageError: it is another one.
    """
    from hansa.agreement import read_agreement

    agreement = read_agreement(path)
    agreement.require_frozen()
    if agreement.agreement_id != keys.agreement_id:
        raise UsageError(
            f"{path} is not the agreement of which the keys are",
            remedy=f"Pass the one whose id begins with {keys.agreement_id[:16]}.",
        )
    return agreement


def trusted_keys(logs: list[Path], keys: Path | None) -> TrustedKeys:
    """The keys that were named, or, with a warning, those that lie beside the logs."""
    from hansa.audit import keys_beside
    from hansa.ledger.trust import TrustedKeys

    if keys is not None:
        return TrustedKeys.read(keys)
    beside = keys_beside(logs)
    if beside is None:
        raise UsageError(
            "an audit needs the public keys of the federation",
            remedy="Pass --keys FILE, with keys that you have compared with their owners.",
        )
    trusted = TrustedKeys.read(beside)
    typer.echo(
        f"warning: the keys are those that lie beside the logs, {beside}. Whoever made up the logs made up the keys "
        f"too.\n  Compare their fingerprint {trusted.fingerprint} with the members over another channel, then pass "
        "--keys.",
        err=True,
    )
    return trusted
