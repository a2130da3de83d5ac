"""An audit report as one HTML page that needs nothing else, and can be printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hansa.audit.findings import Failure, Place
from hansa.audit.report import pictures
from hansa.audit.report import words as said
from hansa.audit.report.composition import spaced
from hansa.audit.report.evidence import History
from hansa.audit.report.guarantee import largest
from hansa.audit.report.schema import AuditReport
from hansa.audit.report.words import sample
from hansa.canonical import Json, canonical_json
from hansa.report import words
from hansa.report.page import environment

if TYPE_CHECKING:
    from hansa.report.drawing import Picture

PAGE_RELEASES = 12  # of each history; the JSON form lists more
OPEN_HISTORIES = 6  # more are folded away until a reader opens them; on paper all are open


@dataclass(frozen=True)
class Drawn:
    """The pictures.

    Attributes:
        budgets: over time.
        epsilon: by round, of the newest runs.
        participation: of the same.
    """

    budgets: Picture | None
    epsilon: tuple[Picture, ...]
    participation: tuple[Picture, ...]


def render_html(report: AuditReport) -> str:
    """Draw an audit report as a self-contained page.

    Args:
        report: what to draw; all of its text is escaped.

    Returns:
        An HTML document. The same report gives the same bytes.
    """
    drawn = Drawn(
        pictures.budgets_over_time(report),
        pictures.epsilon_by_round(report),
        pictures.participation(report),
    )
    return (
        environment("hansa.audit.report")
        .get_template("audit.html.j2")
        .render(
            report=report,
            drawn=drawn,
            failures=tuple(_failures(report)),
            largest=largest(report.guarantee.budgets),
            canonical=_canonical,
            sentence=_sentence,
            said=said,
            histories=tuple(map(_shortened, report.composition.histories)),
            open_histories=OPEN_HISTORIES,
            words=words,
            sample=sample,
        )
        + "\n"
    )


def _failures(report: AuditReport) -> Iterator[Failure]:
    """The failures of the findings, which the report holds as plain values."""
    for one in cast("list[Mapping[str, Json]]", report.integrity.findings["failures"]):
        beside = cast("Mapping[str, Json] | None", one["beside"])
        place = None if beside is None else Place(str(beside["log"]), cast("int", beside["entry"]))
        yield Failure(
            str(one["log"]), cast("int | None", one["entry"]), str(one["type"]), str(one["what"]),
            str(one["copy"]), place,
        )  # fmt: skip


def _shortened(history: History) -> History:
    """With a few of its releases, those of which ε was computed where there are any."""
    releases = [line for line in history.lines if line.what == "released"]
    known = [line for line in releases if line.released is not None] or releases
    kept = {id(known[place]) for place in spaced(len(known), PAGE_RELEASES)}
    lines = tuple(line for line in history.lines if line.what != "released" or id(line) in kept)
    left_out = history.left_out + len(history.lines) - len(lines)
    return history.model_copy(update={"lines": lines, "left_out": left_out})


def _sentence(text: str) -> str:
    """With a capital letter, but for ε, which has no other name."""
    return text if text.startswith("ε") else words.sentence_start(text)


def _canonical(event: Mapping[str, Json]) -> str:
    return canonical_json(dict(event)).decode()
