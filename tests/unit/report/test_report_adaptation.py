"""What a report says of a clipping norm and of weights that adapted."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hansa.errors import PrivacyParameterError
from hansa.privacy.adaptation import Adaptation
from hansa.privacy.following import NormRule, WeightRule
from hansa.report import Reference, adaptation_told, mitigated, render_text
from hansa.report.adaptation import AdaptationReport, rule_told
from hansa.report.schema import Report

NORM = NormRule(0.5, 0.2, 0.25, 4.0, 1.0)
WEIGHTS = WeightRule("sex", ("female", "male"), 0.5, 0.1, 2.0, 0.5, 0.05)


@pytest.mark.parametrize(
    "adapts",
    [
        Adaptation(1.0, NORM, 0.1, WEIGHTS, 0.2),
        Adaptation(1.0, NORM, 0.1),
        Adaptation(1.0, weights=WEIGHTS, weights_share=0.2),
    ],
    ids=["both", "norm", "weights"],
)
def test_what_is_told_leads_back_to_the_rules(adapts: Adaptation) -> None:
    steps = [adapts.following(adapts.first, [0.1] * adapts.coordinates, 20.0)]
    told = adaptation_told(adapts, steps)
    assert rule_told(told, 1.0) == adapts
    assert AdaptationReport.model_validate_json(told.model_dump_json(), strict=False) == told


def test_a_report_in_which_nothing_adapts_has_no_rules() -> None:
    with pytest.raises(PrivacyParameterError):
        rule_told(AdaptationReport(noise_factor=1.0), 1.0)


def test_a_reader_is_told_norm_weights_cost_and_effect(
    cases: Mapping[str, Report], pages: Mapping[str, str]
) -> None:
    report = cases["secure-sum"]
    text = " ".join(render_text(report).split())
    assert "The clipping norm followed the length below which 0.5 of the units' gradients should be" in text
    assert "weighed by sex, by noisy losses in the steps' own sums, each weight between 0.1 and 1" in text
    assert "At the end: female 1 (mean 1, loss 1.5), male 0." in text
    assert "no ε, and 1.19523 times the noise in each gradient" in text
    assert "--references makes one" in text
    assert '<h2 id="mitigation-heading">Mitigation</h2>' in pages["secure-sum"]
    assert 'id="mitigation"' not in pages["normal"]
    assert mitigated.told(cases["normal"]) == ()


def test_the_effect_is_that_against_a_run_without(cases: Mapping[str, Report]) -> None:
    report = cases["secure-sum"]
    without = Reference(kind=mitigated.WITHOUT, agreement_id=report.agreement_id, quality=report.quality)
    told = mitigated.told(report.model_copy(update={"references": (without,)}))
    assert "Over all of them the metric moved by" in told[-1]
    assert not any("--references" in one for one in told)
