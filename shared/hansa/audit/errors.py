"""Errors of audits. HANSA-76x. What an audit finds is no error but a finding (`hansa.audit.findings`)."""

from __future__ import annotations

from hansa.errors import ExitStatus, HansaError


class AuditSourceError(HansaError):
    """What was given to an audit is no copy of a log, no checkpoint and no file of records, or cannot be read."""

    code = "HANSA-761"
    exit_status = ExitStatus.BAD_INPUT
    remedy = (
        "Name folders of tiles, .sqlite files, kept checkpoints and rounds.jsonl, or one `ledgers` folder."
    )
