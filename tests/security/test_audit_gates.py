"""Gates in a log that a coordinator and a quorum of members have signed against the sums: an auditor decides them anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from hansa.audit.gates import decided_anew
from hansa.identity import COORDINATOR
from hansa.ledger import Gate, Override, Publication
from hansa.ledger.kinds import Kind
from support.gates import FAIR, RUN, UNFAIR, RunStory, total_of
from support.ledgers import AT, HASH, OTHER
from support.packages import TERMS, agreement_of

SMALL = {"f": (40, 10, 10, 40), "m": (860, 140, 140, 860)}  # too few women to judge
AGREEMENT = agreement_of(TERMS)
FAIR_RUN = RunStory(AGREEMENT, total_of(AGREEMENT, FAIR))
UNFAIR_RUN = RunStory(AGREEMENT, total_of(AGREEMENT, UNFAIR))


def publication_of(gate: Gate, **changes: Any) -> Publication:
    said = {
        "at": AT,
        "agreement_id": gate.agreement_id,
        "run": gate.run,
        "artifact_sha256": gate.artifact_sha256,
        "gate_sha256": gate.sha256,
        "files": {"model.onnx": gate.artifact_sha256},
        "steps": AGREEMENT.terms.publication.compress,
    }
    return Publication(**{**said, **changes})


def wrong(told: RunStory, *later: Kind, manifest: bytes | None = None) -> list[str]:
    """What an auditor says of each gate and each publication."""
    entries = [*(one.entry for one in told.entries()), *later]
    shown = told.manifest() if manifest is None else manifest
    return [problem for _, problem in decided_anew(entries, told.agreement, {(RUN, 11): shown})]


def test_an_honest_run_is_decided_alike() -> None:
    gate = FAIR_RUN.gate()
    assert gate.decision == "open"
    assert wrong(FAIR_RUN, gate, publication_of(gate)) == ["", ""]
    closed = UNFAIR_RUN.gate()
    assert closed.decision == "closed"
    assert wrong(UNFAIR_RUN, closed) == [""]


def passing(gate: Gate) -> Gate:
    """The gate that lets everything through."""
    conditions = tuple(one.model_copy(update={"verdict": "pass"}) for one in gate.conditions)
    return gate.model_copy(update={"conditions": conditions, "decision": "open"})


def test_a_gate_that_was_opened_against_the_sums_is_told_by_its_condition() -> None:
    honest = UNFAIR_RUN.gate()
    gate = passing(honest)
    (first, *_) = [one.name for one in honest.conditions if one.verdict != "pass"]
    told, published = wrong(UNFAIR_RUN, gate, publication_of(gate))
    assert "says open, and the sums say closed" in told
    assert first in told
    assert published == ""  # by itself it follows from the gate, which is what is wrong


def moved(gate: Gate) -> Gate:
    """An interval that was made narrower than it is, and a verdict that stays."""
    place = next(i for i, one in enumerate(gate.conditions) if one.low is not None)
    one = gate.conditions[place]
    changed = one.model_copy(update={"low": one.high})
    conditions = (*gate.conditions[:place], changed, *gate.conditions[place + 1 :])
    return gate.model_copy(update={"conditions": conditions})


def shortened(gate: Gate) -> Gate:
    return gate.model_copy(update={"conditions": gate.conditions[:-1]})


def renamed(gate: Gate) -> Gate:
    first = gate.conditions[0].model_copy(update={"name": "accuracy >= 0.01"})
    return gate.model_copy(update={"conditions": (first, *gate.conditions[1:])})


def excused(gate: Gate) -> Gate:
    """By an override that the log does not show."""
    first = gate.conditions[0].model_copy(update={"override_sha256": HASH})
    return gate.model_copy(update={"conditions": (first, *gate.conditions[1:])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (moved, "another interval than follows"),
        (shortened, "conditions, and"),
        (renamed, "follows"),
        (excused, "excused otherwise than agreed and logged"),
        (lambda gate: gate.model_copy(update={"artifact_sha256": OTHER}), "another file than was evaluated"),
        (lambda gate: gate.model_copy(update={"evaluation_sha256": OTHER}), "that the log does not show"),
    ],
)
def test_a_gate_that_says_something_else_than_the_sums_is_found(
    change: Callable[[Gate], Gate], words: str
) -> None:
    (told,) = wrong(FAIR_RUN, change(FAIR_RUN.gate()))
    assert words in told


def test_the_file_that_was_judged_is_the_one_that_members_were_asked_about() -> None:
    other = replace(FAIR_RUN, artifact=OTHER).manifest()
    (told,) = wrong(FAIR_RUN, FAIR_RUN.gate(), manifest=other)
    assert "another manifest than is shown" in told


def test_an_evaluation_too_many_is_found() -> None:
    twice = replace(FAIR_RUN, evaluations=2)
    (told,) = wrong(twice, FAIR_RUN.gate())
    assert "the agreement fixed 1" in told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gate_sha256": OTHER}, "names a gate that the log does not show"),
        ({"artifact_sha256": OTHER}, "another file than went through the gate"),
        ({"files": {"model.onnx": OTHER}}, "is not the one that went through the gate"),
        ({"steps": ("merge",)}, "other steps than the agreement"),
    ],
)
def test_a_publication_that_does_not_follow_from_its_gate_is_found(
    changes: dict[str, Any], words: str
) -> None:
    gate = FAIR_RUN.gate()
    assert words in wrong(FAIR_RUN, gate, publication_of(gate, **changes))[1]


def test_a_publication_through_a_closed_gate_and_a_second_one_are_found() -> None:
    closed, gate = UNFAIR_RUN.gate(), FAIR_RUN.gate()
    assert "is closed" in wrong(UNFAIR_RUN, closed, publication_of(closed))[1]
    first = publication_of(gate)
    second = publication_of(gate, files={**first.files, "README": OTHER})
    assert "a publication of this run already" in wrong(FAIR_RUN, gate, first, second)[2]


def test_what_comes_after_a_gate_excuses_nothing_in_it() -> None:
    """An override counts from where it stands."""
    told = RunStory(AGREEMENT, total_of(AGREEMENT, SMALL))
    gate = told.gate()
    undecided = [one.name for one in gate.conditions if one.verdict == "inconclusive"]
    assert undecided
    overrides = [
        Override(
            at=AT, agreement_id=AGREEMENT.agreement_id, run=RUN, party=COORDINATOR, name="Ada Example", role="officer",
            condition=name, artifact_sha256=told.artifact, reason="reviewed",
        )
        for name in undecided
    ]  # fmt: skip
    late: Sequence[Kind] = [gate, *overrides]
    assert wrong(told, *late) == [""]
    opened = replace(told, overrides=overrides).gate()
    assert opened.decision == "open"
    assert wrong(told, *overrides, opened) == [""]
    (early,) = wrong(told, opened, *overrides)
    assert "says open, and the sums say closed" in early
