"""The publication's report: one HTML page that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hansa.agreement import Agreement
from hansa.artifact.contents import FairnessTable, GroupRow, PrivacyStatement, Release
from hansa.report import words
from hansa.report.drawing import BLUE, QUIET, Picture, dots, height, picture, span
from hansa.report.page import environment
from hansa.report.rows import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def publication_page(
    agreement: Agreement, release: Release, privacy: PrivacyStatement, fairness: FairnessTable
) -> str:
    """Draw the report; the same values give the same bytes."""
    return (
        environment(__package__ or "")
        .get_template("publication.html.j2")
        .render(
            release=release,
            privacy=privacy,
            fairness=fairness,
            everyone=fairness.rows[0],
            task=agreement.terms.task.name,
            pictures=group_pictures(fairness),
            words=words,
        )
        + "\n"
    )


def group_pictures(fairness: FairnessTable) -> list[Picture]:
    """One picture for each attribute: its groups, published and before compression, beside everybody."""
    found = []
    for number, attribute in enumerate(
        dict.fromkeys(row.attribute for row in fairness.rows if row.attribute)
    ):
        rows = [row for row in fairness.rows if row.attribute in ("", attribute)]
        estimates, colours = [], []
        for row in rows:
            name = row.group if row.attribute else "everybody"
            estimates.append(_estimate(row, name, published=True))
            colours.append(BLUE)
            if row.uncompressed is not None:
                estimates.append(_estimate(row, f"{name}, before", published=False))
                colours.append(QUIET)
        if not any(estimate.value is not None for estimate in estimates):
            continue

        def draw(figure: Figure, shown: list[Estimate] = estimates, inks: list[str] = colours) -> None:
            axes = figure.subplots()
            dots(axes, shown, span(shown), inks)
            axes.set_xlabel(words.metric(fairness.metric))

        told = "; ".join(f"{e.name} {words.quality(e.value)}" for e in estimates)
        found.append(
            picture(
                f"groups-{number}",
                f"{words.sentence_start(words.metric(fairness.metric))} by {attribute}",
                told,
                height([e.name for e in estimates]),
                draw,
            )
        )
    return found


def _estimate(row: GroupRow, name: str, *, published: bool) -> Estimate:
    measured = row.published if published else row.uncompressed
    if measured is None:
        return Estimate(name, None, None, row.records)
    return Estimate(name, measured.value, (measured.low, measured.high), row.records)
