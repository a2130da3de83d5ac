"""Checking a federation from outside: from copies of its logs and public keys, trusting nobody.

`read_sources` finds out what lies at some places, `audit` checks it and answers with `Findings`, `render_text` says
those to a privacy officer. Nothing here imports torch or flwr, and dp_accounting only once an ε is computed.
How to do the same without Hansa: docs/for-auditors.md.
"""

from hansa.audit.auditor import audit
from hansa.audit.copies import GivenCopy, GivenRecords, Kept, LogCopy, Sources, keys_beside, read_sources
from hansa.audit.findings import Failure, Findings, LogSeen, NotChecked, Place, Remark, Spent
from hansa.audit.text import render_text

__all__ = [
    "Failure",
    "Findings",
    "GivenCopy",
    "GivenRecords",
    "Kept",
    "LogCopy",
    "LogSeen",
    "NotChecked",
    "Place",
    "Remark",
    "Sources",
    "Spent",
    "audit",
    "keys_beside",
    "read_sources",
    "render_text",
]
