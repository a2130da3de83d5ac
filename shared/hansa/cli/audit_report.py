"""`hansa audit report`: what logs show about privacy, for somebody who answers for it."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from hansa.cli.audit import KeysOption, LogsArgument, ProcessesOption, RunReportOption, trusted_keys
from hansa.cli.files import refuse_existing, write_text
from hansa.cli.lines import lines
from hansa.cli.options import ForceOption, FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError


def report(
    logs: LogsArgument,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="What to write: a page (.html) or values (.json)."),
    ],
    keys: KeysOption = None,
    run_report: RunReportOption = None,
    processes: ProcessesOption = 1,
    force: ForceOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Write what copies of logs show about privacy: guarantee, coverage, history, trust, integrity.

    The page needs nothing from elsewhere and can be printed to PDF. The audit of `hansa audit verify` is made first and
    stands in it: when something is wrong the report says FAILED at its top, and the status is 4. What the logs cannot
    tell is said, and nothing is filled in.
    """
    status = ExitStatus.DONE
    with reported(output_format):
        from hansa.audit import audit, read_sources
        from hansa.audit.report import FORMS, audit_report, report_text

        if out.suffix not in FORMS:
            raise UsageError(f"{out} is neither {' nor '.join(FORMS)}", remedy="Name a file that ends so.")
        refuse_existing(out, force=force)
        sources = read_sources(logs)
        trusted = trusted_keys(logs, keys)
        claims = None
        if run_report is not None:
            from hansa.report.files import read_report

            claims = read_report(run_report)
        findings = audit(sources, trusted, claims, processes=processes)
        told = audit_report(
            sources,
            findings,
            trusted,
            claims,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            command=_command(logs, keys, run_report),
            checked_by=f"hansa {version('hansa')}",
            keys_beside=keys is None,
        )
        write_text(out, report_text(told, out.suffix), force=force)
        status = ExitStatus.DONE if findings.verified else ExitStatus.VERIFICATION_FAILED
        data = {
            "out": str(out),
            "verified": findings.verified,
            "failures": len(findings.failures),
            "not_checked": len(findings.not_checked),
        }
        first = f" The first: {findings.failures[0].where}." if findings.failures else ""
        verdict = "Verified" if findings.verified else f"FAILED.{first}"
        emit(
            data,
            text=f"{verdict}\n{lines({'written': str(out), 'not checked': len(findings.not_checked)})}",
            output_format=output_format,
            status=status,
        )
    raise typer.Exit(status)


def _command(logs: list[Path], keys: Path | None, run_report: Path | None) -> str:
    parts = ["hansa", "audit", "verify", *map(str, logs), "--keys", str(keys or "KEYS.json")]
    return shlex.join([*parts, *(["--report", str(run_report)] if run_report is not None else [])])
