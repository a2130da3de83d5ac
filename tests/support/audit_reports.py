"""Audit reports about a story of `support.audits`, changed or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hansa.audit import audit, read_sources
from hansa.audit.report import AuditReport, audit_report
from hansa.identity import Amendment
from hansa.ledger import (
    AmendmentMade,
    Condition,
    Evaluation,
    Gate,
    Membership,
    Override,
    Publication,
    real,
)
from hansa.report.schema import Report
from support.audits import AGREEMENT, KEYS, MEMBERS, ROSTER, RUN, SIGNERS, Story, at, signed
from support.ledgers import TABLE, TABLE_SHA256

MADE = "2026-03-02T08:00:00+00:00"
HASH, OTHER = "c3" * 32, "d4" * 32


def report_on(
    paths: Sequence[Path], claims: Report | None = None, *, keys_beside: bool = False, **changes: Any
) -> AuditReport:
    """The report of an audit of these places, under the keys of the story."""
    keys = KEYS.model_copy(update=changes)
    sources = read_sources(paths)
    findings = audit(sources, keys, claims)
    return audit_report(
        sources,
        findings,
        keys,
        claims,
        made=MADE,
        command="hansa audit verify LOGS",
        checked_by="hansa 0",
        keys_beside=keys_beside,
    )


def published(told: Story) -> Story:
    """The story with an evaluation, a gate that a person helped open, a publication, and changes of who takes part."""
    base: dict[str, Any] = {"at": at(90), "agreement_id": AGREEMENT}
    run: dict[str, Any] = {**base, "run": RUN}
    conditions = tuple(
        Condition(name=name, verdict=verdict, exempt=exempt, override_sha256=override, low=low, high=high)
        for name, verdict, exempt, override, low, high in (
            ("auc", "pass", False, None, real(0.71), real(0.83)),
            ("auc, sex=female", "inconclusive", False, OTHER, real(0.41), real(0.93)),
            ("auc, age=90", "inconclusive", True, None, None, None),
        )
    )
    change = Amendment(AGREEMENT, 1, ROSTER.sha256, "revoke", MEMBERS[4], None, "its key was lost")
    amended = AmendmentMade.of(change, {name: change.sign(SIGNERS[name]) for name in MEMBERS[:4]}, at(95))
    return told.with_federation(
        [
            *told.federation,
            signed(Membership(**base, member=MEMBERS[0], change="join", reason="")),
            signed(
                Evaluation(
                    **run,
                    number=1,
                    artifact_sha256=HASH,
                    reference_sha256=None,
                    round=9,
                    aggregate_sha256=TABLE_SHA256,
                    table=TABLE,
                )
            ),
            signed(
                Override(
                    **run,
                    party=MEMBERS[1],
                    name="Dr. Ada Example",
                    role="chief medical officer",
                    condition="auc, sex=female",
                    artifact_sha256=HASH,
                    reason="few women in the test period; <b>reviewed</b> by hand",
                )
            ),
            signed(
                Gate(
                    **run,
                    artifact_sha256=HASH,
                    evaluation_sha256=OTHER,
                    conditions=conditions,
                    decision="open",
                ),
                "coordinator",
                *MEMBERS[:4],
            ),
            signed(
                Publication(
                    **run,
                    artifact_sha256=HASH,
                    gate_sha256=OTHER,
                    files={"model.onnx": HASH, "docs/card.md": OTHER},
                    steps=("merge", "onnx"),
                ),
                "coordinator",
                *MEMBERS[:4],
            ),
            signed(amended),
        ]
    )
