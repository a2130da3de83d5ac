"""What a run reports: the values, and how they are drawn in a terminal and on a page.

`Report` is the frozen form of `report.json`. `rows` sorts and subtracts, `words` and `statement` say it, `text`
and `page` draw it. Nothing here imports matplotlib, jinja2 or rich before something is drawn.
"""

from hansa.report.adaptation import AdaptationReport, adaptation_told
from hansa.report.fairness import EvaluationCost, EvaluationReport, FairnessReport
from hansa.report.files import read_report, write_report
from hansa.report.mitigation import GroupRateReport, MitigationReport
from hansa.report.page import render_html
from hansa.report.publication import ConditionReport, PublicationReport
from hansa.report.schema import (
    AttackReport,
    Counts,
    EventCount,
    HistoryPoint,
    Intervals,
    MemberReport,
    PhaseReport,
    Quality,
    Reference,
    Repeat,
    Report,
    RoundReport,
    SecureSumTerms,
    SumReport,
)
from hansa.report.shared_noise import SharedNoiseReport
from hansa.report.text import render_text

__all__ = [
    "AdaptationReport",
    "AttackReport",
    "ConditionReport",
    "Counts",
    "EvaluationCost",
    "EvaluationReport",
    "EventCount",
    "FairnessReport",
    "GroupRateReport",
    "HistoryPoint",
    "Intervals",
    "MemberReport",
    "MitigationReport",
    "PhaseReport",
    "PublicationReport",
    "Quality",
    "Reference",
    "Repeat",
    "Report",
    "RoundReport",
    "SecureSumTerms",
    "SharedNoiseReport",
    "SumReport",
    "adaptation_told",
    "read_report",
    "render_html",
    "render_text",
    "write_report",
]
