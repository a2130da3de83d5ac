"""The auditor's command line on a story that was told, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.audits import KEYS
from support.cli import Called, hansa


def audited(ledgers: Path, *more: str | Path) -> Called:
    """The auditor's command line, with keys that it has from elsewhere."""
    keys = ledgers.parent / "compared-keys.json"
    KEYS.write(keys)
    return hansa("audit", "verify", ledgers, "--keys", keys, "--format", "json", *more)


def failures(called: Called) -> list[dict[str, Any]]:
    assert called.status == 4, called.stdout + called.stderr
    assert called.envelope["status"] == "verification_failed"
    assert called.data["verified"] is False
    found: list[dict[str, Any]] = called.data["failures"]
    assert found
    return found


def failure_of(called: Called, log: str, *, entries: bool = True) -> dict[str, Any]:
    """The one broken entry, or the one wrong checkpoint, of a log."""
    found = [
        one for one in failures(called) if one["log"] == log and (one["type"] != "checkpoint") is entries
    ]
    assert len(found) == 1, called.stdout
    return found[0]


def named(called: Called) -> set[tuple[str, int | None, str]]:
    """All that is wrong: log, entry and type."""
    return {(one["log"], one["entry"], one["type"]) for one in failures(called)}


def without(entries: Sequence[bytes], index: int) -> list[bytes]:
    return [*entries[:index], *entries[index + 1 :]]


def with_one(entries: Sequence[bytes], index: int, data: bytes) -> list[bytes]:
    return [*entries[:index], data, *entries[index + 1 :]]
