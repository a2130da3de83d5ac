"""Rules of `[evaluation]`: what it says must fit the schema, the mechanism and the members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hansa.agreement.publication import Evaluation, Fairness, Publication
from hansa.agreement.terms import Data, Member, Privacy, Task
from hansa.errors import Problem
from hansa.fairness.errors import EvaluationError
from hansa.fairness.layout import layout_of

MOST_LOGGED_CELLS = 10_000  # a noisy table is one entry of the federation's log, in four bytes a cell
MOST_EPSILON = 50.0


def evaluation_problems(sections: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule of the section, for sections by their names; those that cannot be read are `None`."""
    evaluation: Evaluation = sections["evaluation"]
    privacy: Privacy | None = sections.get("privacy")
    members: tuple[Member, ...] | None = sections.get("members")
    if sections.get("baseline") is not None:
        yield Problem("evaluation", "means nothing where there is no federation", "leave it out")
    if privacy is not None and privacy.mechanism == "none":
        yield Problem(
            "evaluation",
            "is a release, and privacy.mechanism = 'none' would show its counts as they are",
            "name a mechanism, or leave the section out",
        )
    if privacy is not None and evaluation.max_rows_per_unit > privacy.max_records_per_unit:
        yield Problem(
            "evaluation.max_rows_per_unit",
            f"{evaluation.max_rows_per_unit} is above privacy.max_records_per_unit = {privacy.max_records_per_unit}",
            "no unit has so many records",
        )
    if evaluation.epsilon > MOST_EPSILON:
        yield Problem(
            "evaluation.epsilon", f"{evaluation.epsilon:g} is no promise", f"at most {MOST_EPSILON:g}"
        )
    if members is not None and evaluation.liars >= len(members):
        yield Problem(
            "evaluation.liars",
            f"{evaluation.liars} of {len(members)} members leave nobody whose counts are true",
            f"at most {len(members) - 1}",
        )
    yield from _units(evaluation)
    yield from _layout(evaluation, sections)


def _units(evaluation: Evaluation) -> Iterator[Problem]:
    if evaluation.units == "held-out" and evaluation.share is None:
        yield Problem(
            "evaluation.share",
            "is missing",
            "units = 'held-out' needs the share that is held out, 0.2 is usual",
        )
    if evaluation.units == "own-file" and evaluation.share is not None:
        yield Problem("evaluation.share", "means nothing under units = 'own-file'", "leave it out")


def _layout(evaluation: Evaluation, sections: Mapping[str, Any]) -> Iterator[Problem]:
    """Whether there is a table like this, and whether a log can hold it."""
    task: Task | None = sections.get("task")
    data: Data | None = sections.get("data")
    fairness: Fairness = sections.get("fairness") or Fairness()
    publication: Publication = sections.get("publication") or Publication()
    if evaluation.bins % 2:
        yield Problem(
            "evaluation.bins",
            f"{evaluation.bins} bins of equal width do not meet at one half",
            "an even number",
        )
        return
    if (
        fairness.metric == "auc"
        and publication.max_quality_loss is not None
        and evaluation.compared != "scores"
    ):
        yield Problem(
            "evaluation.compared",
            f"is {evaluation.compared!r}, and publication.max_quality_loss compares areas under the ROC curve",
            "write compared = 'scores'",
        )
    if publication.max_quality_loss is not None and evaluation.compared == "none":
        yield Problem(
            "evaluation.compared",
            "is 'none', and publication.max_quality_loss compares two models",
            "write 'decisions'",
        )
    if evaluation.compared != "none" and not {*publication.compress} - {"merge", "onnx"}:
        yield Problem(
            "evaluation.compared",
            f"is {evaluation.compared!r}, and no step of publication.compress makes a second file",
            "add 'int8' to the steps, or write compared = 'none'",
        )
    if task is None or data is None:
        return
    known = [group.name for group in data.groups]
    wrong = False
    for i, crossed in enumerate(evaluation.groups):
        for name in crossed:
            if name not in known:
                wrong = True
                yield Problem(
                    f"evaluation.groups.{i}",
                    f"{name!r} is no declared group",
                    f"known are {', '.join(known)}" if known else "declare it under [[data.groups]]",
                )
        if len(set(crossed)) != len(crossed) or set(crossed) in [
            set(other) for other in evaluation.groups[:i]
        ]:
            wrong = True
            yield Problem(
                f"evaluation.groups.{i}", "names an attribute, or a set of them, twice", "names must differ"
            )
    missing = sorted({*known} - {name for crossed in evaluation.groups for name in crossed})
    if evaluation.groups and missing and not wrong:
        wrong = True
        yield Problem(
            "evaluation.groups",
            f"no table tells {missing[0]!r} apart",
            "name every attribute of data.groups, or leave it out",
        )
    if wrong:
        return
    try:
        layout = layout_of(data, task, fairness.metric, evaluation)
    except EvaluationError as error:
        yield Problem("evaluation", error.cause)
        return
    if layout.size > MOST_LOGGED_CELLS:
        yield Problem(
            "evaluation",
            f"has {layout.size} cells, and an entry of the log holds {MOST_LOGGED_CELLS}",
            "fewer bins, attributes in tables of their own, or compared = 'decisions' or 'none'",
        )
