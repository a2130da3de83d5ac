"""What is written in place of a package: which conditions stood in the way, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hansa.agreement import Agreement
from hansa.artifact.contents import FairnessTable, Part, part_bytes
from hansa.artifact.page import group_pictures
from hansa.gate.deciding import GateDecision
from hansa.identity.files import replace_file
from hansa.report import words
from hansa.report.page import environment

REFUSAL_JSON = "refusal.json"
REFUSAL_HTML = "refusal.html"


class Obstacle(Part):
    """One condition that does not hold.

    Attributes:
        condition: its name, by which an override names it.
        verdict: whether it fails, or could not be decided.
        sentence: what was found, and by how much it misses.
    """

    condition: str
    verdict: Literal["fail", "inconclusive"]
    sentence: str


class Refusal(Part):
    """`refusal.json`.

    Attributes:
        schema_version: of this form.
        agreement_id, run: of the model.
        gate_sha256: of the closed gate in the federation's log.
        approved_by: members that came to the same decision.
        obstacles: in the way, failures first.
        fairness: the quality by group, and all verdicts.
    """

    schema_version: Literal[1] = 1
    agreement_id: str
    run: str
    gate_sha256: str
    approved_by: list[str]
    obstacles: list[Obstacle]
    fairness: FairnessTable


def obstacles_of(decision: GateDecision) -> list[Obstacle]:
    """What stands in the way of a publication, failures first."""
    found = [
        Obstacle(condition=condition.name, verdict=condition.verdict, sentence=told.sentence)
        for condition, told in zip(decision.conditions, decision.needed, strict=True)
        if not condition.holds and condition.verdict != "pass"
    ]
    return sorted(found, key=lambda one: one.verdict != "fail")


def refusal_text(obstacles: Sequence[Obstacle]) -> str:
    """In one line, the first obstacle and how many there are."""
    first = obstacles[0]
    more = f" And {len(obstacles) - 1} more." if len(obstacles) > 1 else ""
    verb = "fails" if first.verdict == "fail" else "could not be decided"
    return f"{first.condition!r} {verb}. {first.sentence}{more}"


def write_refusal(folder: Path, agreement: Agreement, refusal: Refusal) -> None:
    """Write `refusal.json` and a page of it.

    Raises:
        UsageError: a file cannot be written.
    """
    replace_file(folder / REFUSAL_JSON, part_bytes(refusal))
    replace_file(folder / REFUSAL_HTML, refusal_page(agreement, refusal).encode())


def refusal_page(agreement: Agreement, refusal: Refusal) -> str:
    """One HTML page that needs nothing else."""
    return (
        environment(__package__ or "")
        .get_template("refusal.html.j2")
        .render(
            refusal=refusal,
            fairness=refusal.fairness,
            task=agreement.terms.task.name,
            pictures=group_pictures(refusal.fairness),
            words=words,
        )
        + "\n"
    )
