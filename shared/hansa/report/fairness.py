"""Private evaluations by group, as a report tells them: everything follows from the noisy table in the federation's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import model_validator

from hansa.report.part import NonNegative, NonNegativeInt, Part, Sha256


class TableReport(Part):
    """One table of an evaluation.

    Attributes:
        attributes: whose values are crossed.
        against_rest: the class that is counted against all others; null where all labels are counted, or two.
    """

    attributes: tuple[str, ...]
    against_rest: int | None


class LayoutReport(Part):
    """What was counted: enough to read the noisy table without the agreement.

    Attributes:
        attributes: by name, the values of the schema; each has a place "no value" besides.
        labels: the classes.
        edges: of the bins of a score.
        tables: one after the other in the noisy vector.
        rows_per_unit: rows of one privacy unit that are counted, at most.
        compared: what is counted of a second file: ``none``, ``decisions`` or ``scores``.
    """

    attributes: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    tables: tuple[TableReport, ...]
    rows_per_unit: NonNegativeInt
    compared: Literal["none", "decisions", "scores"]


class EstimateReport(Part):
    """A number computed from noisy counts, and its interval.

    Attributes:
        value: as computed.
        low: end of the interval, which holds which records were there, the noise, and what `liars` members could do.
        high: the other end.
    """

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> EstimateReport:
        if not self.low <= self.high:
            raise ValueError(f"an interval runs from {self.low} down to {self.high}")
        return self


class GroupReport(Part):
    """One group, or all records together.

    Attributes:
        name: ``attribute=value``; ``all`` for all records.
        size: records by which it is decided whether the group can be assessed, as counted with noise: positives of two
            labels, all records of more. Noise can make it negative.
        assessable: whether it is large enough. A group that is not has no numbers, and is listed all the same.
        metrics: by name.
        loss: by how much the judged file is worse than the one it is compared with, in the report's metric; null without one.
        flips: how often the two decide differently; null without a second file.
    """

    name: str
    size: float
    assessable: bool
    metrics: Mapping[str, EstimateReport]
    loss: EstimateReport | None
    flips: EstimateReport | None


class GapReport(Part):
    """How far apart the groups of one attribute are, in the report's metric.

    Attributes:
        attribute: whose groups.
        gap: the largest difference of two groups that can be assessed.
        ratio: the smallest of their values over the largest.
        worst: where the metric is worst.
        between: the two that are furthest apart.
    """

    attribute: str
    gap: EstimateReport
    ratio: EstimateReport
    worst: str
    between: tuple[str, str]


class EvaluationCost(Part):
    """What the evaluations of a model cost one member, all that are allowed together.

    Attributes:
        member: whose units.
        epsilon: against everyone, from the member's own noise.
        epsilon_colluding: against few, where noise is shared; null where it is not.
    """

    member: str
    epsilon: NonNegative
    epsilon_colluding: NonNegative | None


class EvaluationReport(Part):
    """One private evaluation of a file by all members.

    Attributes:
        number: which of those that the agreement allows, from 1.
        allowed: how many that are.
        run: of the federation.
        round: of the secure sum.
        artifact_sha256: of the file that was judged.
        reference_sha256: of the one that it was compared with; null without one.
        table_sha256: of the noisy sum, which stands in the federation's log.
        contributors: members whose tables are in it.
        metric: the one that gaps and losses are of.
        layout: what was counted.
        noise_multiplier: noise over L2 sensitivity of what protects a unit, of one evaluation.
        honest: members whose noise it is; 1 where each member's own is full.
        colluding: members that may pool what they know of shared noise; 0 where it is the member's own.
        noise_sd: standard deviation of the noise of one cell of the sum, in rows.
        cell_cap: rows of one member in one cell, at most.
        liars: members that may lie within their caps; the intervals hold all the same.
        confidence: with which all intervals of one metric hold together, over all evaluations that are allowed.
        smallest_group: below so many positives, as counted with noise, a group is not assessed.
        units: ``held-out`` by a public rule of each unit, or of each member's ``own-file``.
        composition: ``parallel``: no unit both trains and evaluates, and it loses the larger of the two ε; ``added``: the
            events are among `events`, and the ε of `members` holds both.
        delta: at which the ε of `costs` hold.
        costs: by member; of the units that evaluate.
        overall: all records.
        groups: in the agreement's order.
        gaps: one for each attribute of which two groups can be assessed.
    """

    number: NonNegativeInt
    allowed: NonNegativeInt
    run: str
    round: NonNegativeInt
    artifact_sha256: Sha256
    reference_sha256: Sha256 | None
    table_sha256: Sha256
    contributors: tuple[str, ...]
    metric: Literal["accuracy", "balanced-accuracy", "auc"]
    layout: LayoutReport
    noise_multiplier: NonNegative
    honest: NonNegativeInt
    colluding: NonNegativeInt
    noise_sd: NonNegative
    cell_cap: NonNegativeInt
    liars: NonNegativeInt
    confidence: NonNegative
    smallest_group: NonNegativeInt
    units: Literal["held-out", "own-file"]
    composition: Literal["parallel", "added"]
    delta: NonNegative
    costs: tuple[EvaluationCost, ...]
    overall: GroupReport
    groups: tuple[GroupReport, ...]
    gaps: tuple[GapReport, ...]


class FairnessReport(Part):
    """What is known of a run's model by group, under privacy. No number here shows that a model is fair.

    Attributes:
        evaluations: in the order in which they took place.
        not_evaluated: why an evaluation that the agreement has, or one on later records that was asked for, did not take
            place; null where it did.
    """

    evaluations: tuple[EvaluationReport, ...]
    not_evaluated: str | None = None
