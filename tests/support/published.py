"""What an honest simulator publishes about a story of `support.audits`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend
from hansa.report.schema import (
    Counts,
    EventCount,
    HistoryPoint,
    Intervals,
    MemberReport,
    Quality,
    Report,
    RoundReport,
    SumReport,
)
from support.audits import AGREEMENT, DELTA, EPSILON, EVENT, MEMBERS, ROUNDS, STEPS, TERMS, Story, entry_of


def report_of(told: Story) -> Report:
    """What an honest simulator publishes about a story."""
    sums = [entry for data in told.federation if (entry := entry_of(data)).type == "aggregate"]
    releases = {
        name: sum(entry_of(data).type == "release" for data in entries) for name, entries in told.own.items()
    }
    quality = Quality(
        metric="accuracy",
        pooled=0.8,
        mean_over_members=0.8,
        by_member={},
        by_group={},
        intervals=Intervals(pooled=(0.7, 0.9), mean_over_members=(0.7, 0.9), by_member={}, by_group={}),
        counts=Counts(pooled=100, by_member={}, by_group={}),
    )
    return Report(
        status="done",
        title="Readmission",
        agreement_id=AGREEMENT,
        terms_id=TERMS,
        engine="local",
        seed=1,
        created="2026-03-01T12:00:00+00:00",
        mechanism="local",
        unit="patient",
        sampling_rate=0.1,
        noise_multiplier=2.0,
        clipping_norm=1.0,
        rounds=len(sums),
        rounds_planned=ROUNDS,
        parameters=8,
        randomness="the operating system's",
        notes=(),
        not_in_force=(),
        members=tuple(
            MemberReport(
                name=name,
                epsilon=epsilon_spent([Spend(EVENT, STEPS * count)], DELTA),
                delta=DELTA,
                budget_epsilon=EPSILON,
                units=100,
                weight=0.2,
                rounds_present=sum(name in entry.released for entry in sums),
                noisy_steps=STEPS * count,
                upload_bytes=1,
                download_bytes=1,
                train_seconds=1,
            )
            for name, count in releases.items()
        ),
        quality=quality,
        initial_quality=None,
        history=tuple(
            HistoryPoint(
                round=number,
                epsilon=epsilon_spent([Spend(EVENT, STEPS * number)], DELTA),
                pooled=0.8,
                mean_over_members=0.8,
                by_member={},
            )
            for number in range(len(sums) + 1)
        ),
        round_log=tuple(
            RoundReport(
                round=number,
                present=tuple(entry.released),
                absent={name: "absent" for name in MEMBERS if name not in entry.released},
                upload_bytes=1,
                download_bytes=1,
                seconds=1,
                secure_sum=SumReport(
                    rounds=(entry.round,), dropped={}, blamed={}, phases={}, verified_by=MEMBERS[0]
                ),
            )
            for number, entry in enumerate(sums, 1)
        ),
        events=tuple(
            EventCount(member=name, event=dict(EVENT), count=STEPS * count)
            for name, count in releases.items()
        ),
        versions={"hansa": "0.1.0"},
        seconds=1,
        seconds_by_part={},
        peak_rss_bytes=1,
        model_sha256=sums[-1].model_sha256,
    )


def write_report_json(report: Report, folder: Path, **changes: Any) -> Path:
    """Write a report.json, with top-level members changed."""
    path = folder / "report.json"
    path.write_text(json.dumps({**report.model_dump(mode="json"), **changes}))
    return path
