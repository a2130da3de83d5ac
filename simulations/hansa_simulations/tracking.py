"""What a report shows, as it is tracked; all of it stands in `report.json` too."""

from __future__ import annotations

import time
from collections.abc import Iterator

from hansa.report import Report
from hansa.tracking import Figure, Tracked


def tracked(report: Report) -> Tracked:
    """The report's run for `hansa.tracking`."""
    name = f"{report.agreement_id[:12]}-{report.seed}-{time.strftime('%Y%m%dT%H%M%S')}"
    return Tracked(report.title, name, tuple(figures(report)), terms(report), report.status == "done")


def figures(report: Report) -> Iterator[Figure]:
    """What is tracked of a run, round by round."""
    for point in report.history:
        if point.epsilon is not None:
            yield Figure("privacy/epsilon", point.round, point.epsilon)
        if point.epsilon_colluding is not None:
            yield Figure("privacy/epsilon_colluding", point.round, point.epsilon_colluding)
        yield Figure("quality/pooled", point.round, point.pooled)
        yield Figure("quality/mean_over_members", point.round, point.mean_over_members)
    for one in report.round_log:
        yield Figure("members/present", one.round, len(one.present))
        yield Figure("members/absent", one.round, len(one.absent))
        yield Figure("cost/seconds", one.round, one.seconds)
        yield Figure("cost/upload_bytes", one.round, one.upload_bytes)
        yield Figure("cost/download_bytes", one.round, one.download_bytes)


def terms(report: Report) -> dict[str, str]:
    """What stays the same over a run."""
    found = {
        "agreement_id": report.agreement_id, "mechanism": report.mechanism, "engine": report.engine,
        "seed": report.seed, "rounds_planned": report.rounds_planned, "sampling_rate": report.sampling_rate,
        "noise_multiplier": report.noise_multiplier, "clipping_norm": report.clipping_norm,
        "parameters": report.parameters, "members": len(report.members), "quality_metric": report.quality.metric,
    }  # fmt: skip
    return {name: str(value) for name, value in found.items() if value is not None}
