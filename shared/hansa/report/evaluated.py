"""From a noisy table to the part of a report that tells of it: post-processing that anybody can repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from hansa.fairness.errors import EvaluationError
from hansa.fairness.evaluated import Evaluated
from hansa.fairness.intervals import Estimate
from hansa.fairness.judging import Rules
from hansa.fairness.layout import Table, TableLayout, groups_of
from hansa.fairness.metrics import Metric, by_group, flips, gap, positives, quality, reported_metrics
from hansa.fairness.release import EvaluationPlan, NoisyTables
from hansa.fairness.views import view
from hansa.report.fairness import (
    EstimateReport,
    EvaluationCost,
    EvaluationReport,
    GapReport,
    GroupReport,
    LayoutReport,
    TableReport,
)

ERROR = 0.05


def evaluation_report(
    evaluated: Evaluated,
    metric: Metric,
    rules: Rules,
    costs: Sequence[EvaluationCost],
    *,
    delta: float,
    units: Literal["held-out", "own-file"],
    composition: Literal["parallel", "added"],
) -> EvaluationReport:
    """The report of one evaluation.

    Args:
        evaluated: the noisy sum, and what it is of.
        metric: that gaps and losses are of.
        rules: of the agreement; the error is shared out among all intervals of one metric, and among evaluations.
        costs: what the members' own ledgers say that the evaluations cost.
        delta, units, composition: of the charge.
    """
    plan, tables = evaluated.plan, evaluated.tables
    overall, groups, gaps = _measured(tables, metric, rules)
    return EvaluationReport(
        number=evaluated.number,
        allowed=rules.evaluations,
        run=evaluated.run,
        round=evaluated.round,
        artifact_sha256=evaluated.artifact_sha256,
        reference_sha256=evaluated.reference_sha256,
        table_sha256=evaluated.total_sha256,
        contributors=evaluated.contributors,
        metric=metric,  # type: ignore[arg-type]  # of the agreement, which has only these
        layout=_layout(plan.layout),
        noise_multiplier=plan.noise_multiplier,
        honest=plan.honest,
        colluding=plan.colluding,
        noise_sd=tables.noise_sd,
        cell_cap=plan.cell_cap,
        liars=rules.liars,
        confidence=1 - rules.error,
        smallest_group=round(rules.smallest_group),
        units=units,
        composition=composition,
        delta=delta,
        costs=tuple(costs),
        overall=overall,
        groups=groups,
        gaps=gaps,
    )


def plan_told(told: EvaluationReport, evaluations: int = 1) -> EvaluationPlan:
    """The public numbers of an evaluation as its report tells them.

    Args:
        told: the report.
        evaluations: how many were reserved.

    Raises:
        EvaluationError: no table is laid out so.
        PrivacyParameterError: the numbers do not fit together.
    """
    layout = TableLayout(
        attributes=told.layout.attributes,
        labels=told.layout.labels,
        edges=told.layout.edges,
        tables=tuple(Table(table.attributes, table.against_rest) for table in told.layout.tables),
        rows_per_unit=told.layout.rows_per_unit,
        compared=told.layout.compared,
    )
    return EvaluationPlan(
        layout, told.noise_multiplier, told.cell_cap, evaluations, told.honest, told.colluding
    )


def recomputed(told: EvaluationReport, tables: NoisyTables) -> EvaluationReport:
    """The same report with every number that follows from a table computed anew from this one."""
    rules = Rules(
        error=round(1 - told.confidence, 12),
        evaluations=told.allowed,
        liars=told.liars,
        smallest_group=told.smallest_group,
    )
    overall, groups, gaps = _measured(tables, told.metric, rules)
    new = {"overall": overall, "groups": groups, "gaps": gaps, "noise_sd": tables.noise_sd}
    return told.model_copy(update=new)


def _measured(
    tables: NoisyTables, metric: Metric, rules: Rules
) -> tuple[GroupReport, tuple[GroupReport, ...], tuple[GapReport, ...]]:
    names = [name for attribute in tables.layout.attributes for name in groups_of(tables.layout, attribute)]
    reading = rules.reading(len(names) + 1)
    wanted = tuple(dict.fromkeys((metric, *reported_metrics(len(tables.layout.labels)))))

    def one(name: str, group: Mapping[str, str] | None, smallest: float) -> GroupReport:
        seen = view(tables, group)
        size = positives(seen)
        if size < smallest:
            return GroupReport(name=name, size=size, assessable=False, metrics={}, loss=None, flips=None)
        found = {metric: quality(tables, metric, reading, group) for metric in wanted}
        compared = tables.layout.compared != "none"
        return GroupReport(
            name=name,
            size=size,
            assessable=True,
            metrics={key: _estimate(value) for key, value in found.items() if value is not None},
            loss=_loss(tables, metric, group) if compared else None,
            flips=_maybe(flips(seen, reading)) if compared else None,
        )

    def _loss(tables: NoisyTables, metric: Metric, group: Mapping[str, str] | None) -> EstimateReport | None:
        try:
            return _maybe(quality(tables, metric, reading, group, comparing=True))
        except EvaluationError:
            return None  # an area under the curve of a file of which decisions alone were counted

    groups = []
    for name in names:
        attribute, _, value = name.partition("=")
        groups.append(one(name, {attribute: value}, rules.smallest_group))
    gaps = []
    for attribute in tables.layout.attributes:
        among = by_group(tables, attribute, metric, reading, smallest=rules.smallest_group)
        found = gap(among.estimates, metric)
        if found is not None:
            gaps.append(
                GapReport(
                    attribute=attribute,
                    gap=_estimate(found.estimate),
                    ratio=_estimate(found.ratio),
                    worst=found.worst,
                    between=found.between,
                )
            )
    return one("all", None, float("-inf")), tuple(groups), tuple(gaps)


def _layout(layout: TableLayout) -> LayoutReport:
    return LayoutReport(
        attributes=dict(layout.attributes),
        labels=layout.labels,
        edges=layout.edges,
        tables=tuple(
            TableReport(attributes=table.attributes, against_rest=table.against_rest)
            for table in layout.tables
        ),
        rows_per_unit=layout.rows_per_unit,
        compared=layout.compared,
    )


def _estimate(found: Estimate) -> EstimateReport:
    return EstimateReport(value=found.value, low=found.low, high=found.high)


def _maybe(found: Estimate | None) -> EstimateReport | None:
    return None if found is None else _estimate(found)
