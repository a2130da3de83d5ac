"""A report as one HTML page that needs nothing else: no network, no scripts, pictures and styles inside."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from hansa.report import evaluations, mitigated, pictures, rows, sums, words
from hansa.report.schema import Report
from hansa.report.statement import largest_loss, statement, still_reserved

if TYPE_CHECKING:
    from jinja2 import Environment

OPEN_ROUNDS = 30  # a longer table of rounds is folded away until a reader opens it


def render_html(report: Report) -> str:
    """Draw a report as a self-contained page.

    Args:
        report: what to draw; all of its text is escaped.

    Returns:
        An HTML document. The same report gives the same bytes.
    """
    groups = rows.groups(report.quality)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            lead=words.lead(report),
            loss=largest_loss(report),
            statement=statement(report),
            still_reserved=still_reserved(report),
            members=rows.members(report),
            groups=[(g, rows.gap_in_words(g), pictures.by_group(report, g, i)) for i, g in enumerate(groups)],
            evaluations=evaluations.shown(report),
            lacking=evaluations.lacking(report),
            mitigated=mitigated.told(report),
            mitigation_heading=mitigated.heading(report),
            comparisons=rows.comparisons(report),
            spreads=rows.spreads(report),
            charges=[(charge, rows.everyone(charge.members, report)) for charge in rows.charges(report)],
            absences=rows.absences(report),
            over_rounds=pictures.over_rounds(report),
            by_member=pictures.by_member(report),
            spending=pictures.spending(report),
            attendance=pictures.attendance(report),
            compared=pictures.compared(report),
            metric=words.metric(report.quality.metric),
            settings=_settings(report),
            traffic_bytes=sum(member.upload_bytes + member.download_bytes for member in report.members),
            open_rounds=len(report.round_log) <= OPEN_ROUNDS,
            words=words,
            sums=sums,
        )
        + "\n"
    )


def _settings(report: Report) -> list[tuple[str, str]]:
    """What the run was made with, as pairs of a name and a value."""
    return [
        ("Mechanism", words.mechanism(report.mechanism)),
        ("Privacy unit", report.unit),
        ("Adjacency", report.adjacency),
        ("Sampling rate", words.plain(report.sampling_rate)),
        ("Noise multiplier", words.plain(report.noise_multiplier)),
        ("Clipping norm", words.plain(report.clipping_norm)),
        ("Rounds", f"{report.rounds} of {report.rounds_planned}"),
        ("Trained parameters", words.count(report.parameters)),
        ("Engine", report.engine),
        ("Seed of what is public", str(report.seed)),
        ("Noise and sampling from", report.randomness),
        ("Began", words.clock(report.created)),
        ("Peak memory", words.amount_bytes(report.peak_rss_bytes)),
    ]


@cache  # templates are compiled once in a process
def environment(*packages: str) -> Environment:
    """How all reports are drawn: everything is escaped, and a name that nobody has given is an error.

    Args:
        packages: whose folders `templates` are looked through before this one's.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in (*packages, __package__ or "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
