"""Rules of `[publication]`: that its steps end in a file, and that its conditions ask what can be answered."""

from __future__ import annotations

from collections.abc import Iterator

from hansa.agreement.conditions import (
    MAX_DEPTH,
    SMALL_IS_GOOD,
    AllOfTerm,
    AnyOfTerm,
    ConditionTerm,
    EpsilonTerm,
    GapTerm,
    GroupLossTerm,
    LossTerm,
    MembersTerm,
    UtilityTerm,
    WorstGroupTerm,
    walked,
)
from hansa.agreement.publication import Evaluation, Fairness, Publication
from hansa.agreement.terms import Data, Privacy, Task, TextFeature
from hansa.errors import Problem

ORDER = ("merge", "prune", "distil", "vocabulary", "onnx", "int8")
_COMPARED = frozenset({"accuracy", "balanced-accuracy", "auc"})  # of which a loss is defined
_OF_EVERY_TASK = frozenset({"accuracy", "balanced-accuracy", "auc", "calibration-error"})


def reads_public_texts(publication: Publication, data: Data) -> bool:
    """Whether a step reads texts that everybody may read, which whoever compresses has to name."""
    of_texts = any(isinstance(feature, TextFeature) for feature in data.features)
    return of_texts and bool({"distil", "vocabulary"} & {*publication.compress})


def publication_problems(
    publication: Publication,
    evaluation: Evaluation | None,
    fairness: Fairness,
    privacy: Privacy | None,
    task: Task | None,
    data: Data | None,
) -> Iterator[Problem]:
    """What is wrong with a publication; sections that could not be read are `None`."""
    yield from _steps(publication)
    if publication.compress and privacy is not None and privacy.mechanism == "none":
        yield Problem(
            "publication.compress",
            "a run without a privacy mechanism keeps no log in which members could approve a publication",
            "leave [publication] out, or agree on a mechanism",
        )
    if publication.compress and privacy is not None and privacy.mechanism != "none" and evaluation is None:
        yield Problem(
            "evaluation",
            "is missing, and nothing is published that was not evaluated",
            "add an [evaluation] section",
        )
    compared = None if evaluation is None else evaluation.compared
    if (
        publication.compress
        and compared not in (None, "none")
        and not {*publication.compress} - {"merge", "onnx"}
    ):
        yield Problem(
            "evaluation.compared",
            f"is {compared!r}, and no step of publication.compress makes another file than the one before",
            "add 'int8', or write compared = 'none'",
        )
    if publication.compress and not asks_something(publication, fairness):
        yield Problem(
            "publication.conditions",
            "nothing is asked of the model that would be published",
            "state a condition, or say kind = 'unsafe-no-gate'",
        )
    attributes = None if data is None else [group.name for group in data.groups]
    if attributes == [] and (fairness.max_gap is not None or fairness.min_worst_group is not None):
        yield Problem("data.groups", "is empty, and [fairness] compares groups", "declare a group")
    labels = None if task is None else len(task.labels)
    for place, depth, term in walked(publication.conditions):
        if depth > MAX_DEPTH:
            yield Problem(place, f"stands more than {MAX_DEPTH} lists deep")
        yield from _condition(place, term, fairness, attributes, labels)
        if isinstance(term, LossTerm | GroupLossTerm) and evaluation is not None:
            yield from _compared(place, term.metric or fairness.metric, evaluation)


def asks_something(publication: Publication, fairness: Fairness) -> bool:
    """Whether any condition is about the model's quality, or says that none is."""
    keys = (
        publication.min_quality,
        publication.max_quality_loss,
        fairness.max_gap,
        fairness.min_worst_group,
    )
    about = [
        term
        for _, _, term in walked(publication.conditions)
        if not isinstance(term, EpsilonTerm | MembersTerm | AllOfTerm | AnyOfTerm)
    ]
    return bool(about) or any(key is not None for key in keys)


def _steps(publication: Publication) -> Iterator[Problem]:
    names = publication.compress
    places = [ORDER.index(name) for name in names]
    if places != sorted(set(places)):
        yield Problem(
            "publication.compress",
            f"{', '.join(names)} is not in order, or names a step twice",
            f"the order is {', '.join(ORDER)}",
        )
    if names and "onnx" not in names:
        yield Problem(
            "publication.compress",
            "has no 'onnx', and what ships and is judged is an ONNX file",
            "compress = [..., 'onnx', 'int8']",
        )


def _compared(place: str, metric: str, evaluation: Evaluation) -> Iterator[Problem]:
    wanted = ("scores",) if metric == "auc" else ("decisions", "scores")
    if evaluation.compared not in wanted:
        yield Problem(
            f"{place}.metric",
            f"a loss of {metric} is compared, and evaluation.compared = {evaluation.compared!r}",
            f"write evaluation.compared = {wanted[0]!r}",
        )


def _condition(
    place: str, term: ConditionTerm, fairness: Fairness, attributes: list[str] | None, labels: int | None
) -> Iterator[Problem]:
    if isinstance(term, GapTerm | WorstGroupTerm | GroupLossTerm) and attributes is not None:
        if not attributes:
            yield Problem(f"{place}.attribute", "the agreement declares no groups", "declare data.groups")
        elif term.attribute is not None and term.attribute not in attributes:
            yield Problem(
                f"{place}.attribute",
                f"{term.attribute!r} is no attribute of data.groups",
                f"known are {', '.join(attributes)}",
            )
    if not isinstance(term, UtilityTerm | GapTerm | WorstGroupTerm | LossTerm | GroupLossTerm):
        return
    metric = term.metric or fairness.metric
    if isinstance(term, UtilityTerm | WorstGroupTerm) and metric in SMALL_IS_GOOD:
        yield Problem(f"{place}.metric", f"{metric} is better small", "ask for another metric, or for a gap")
    if isinstance(term, LossTerm | GroupLossTerm) and metric not in _COMPARED:
        yield Problem(
            f"{place}.metric", f"no loss of {metric} is defined", f"use {', '.join(sorted(_COMPARED))}"
        )
    if labels is not None and labels > 2 and metric not in _OF_EVERY_TASK:
        yield Problem(f"{place}.metric", f"{metric} is of two labels, and there are {labels}")
    if labels is not None and labels > 2 and metric == "auc" and fairness.metric != "auc":
        yield Problem(
            f"{place}.metric",
            "of more than two labels an auc needs tables of its own",
            "set fairness.metric = 'auc'",
        )
