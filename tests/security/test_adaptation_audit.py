"""Logs and reports that lie about what adapted to the sums of a run."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hansa.audit.adaptations import check_adaptations, check_adapted
from hansa.audit.claims import Evidence
from hansa.audit.findings import Notebook
from hansa.audit.integrity import Examined
from hansa.audit.reading import LogFacts
from hansa.ledger import Adaptation as Entry
from hansa.ledger import Aggregate, real
from hansa.privacy.adaptation import Adaptation, model_name
from hansa.privacy.following import NormRule, WeightRule
from hansa.report.adaptation import AdaptationReport, adaptation_told
from hansa.report.schema import Report
from support.ledgers import AGREEMENT, AT

SCALE, NORM = 1000.0, 1.0
ADAPTS = Adaptation(NORM, NormRule(0.5, 0.2, 0.25, 4.0, NORM), 0.1)
UNITS = {"a": 60, "b": 40, "c": 20}
RATE = 0.5
COUNTS = [3000, -800, 5]
PRESENT = [("a", "b", "c"), ("a", "b", "c"), ("a", "c")]


def packed(count: int) -> str:
    return base64.b64encode(struct.pack("<i", count)).decode()


def quantities(counts: Sequence[int] = COUNTS, adapts: Adaptation = ADAPTS) -> list[tuple[float, ...]]:
    """What follows after each step."""
    found, now = [], adapts.first
    for count, names in zip(counts, PRESENT, strict=True):
        now = adapts.following(now, [count / SCALE / NORM], RATE * sum(UNITS[name] for name in names))
        found.append(now)
    return found


def logged(norms: Sequence[tuple[float, ...]], counts: Sequence[int] = COUNTS, **changes: Any) -> LogFacts:
    """A log whose aggregates name the models that its entries make."""
    facts = LogFacts()
    for step, (now, count, names) in enumerate(zip(norms, counts, PRESENT, strict=True)):
        weights, total = f"{step:064x}", f"{step + 100:064x}"
        said = {
            "at": AT,
            "agreement_id": AGREEMENT,
            "run": "r",
            "round": step + 1,
            "step": step,
            "aggregate_sha256": total,
        }
        summed = {
            "purpose": "training", "manifest_sha256": weights, "record_sha256": weights,
            "released": dict.fromkeys(names, weights), "model_sha256": model_name(weights, now),
        }  # fmt: skip
        facts.aggregates.append((2 * step, Aggregate(**{**said, **summed})))
        entry = {
            **said,
            "weights_sha256": weights,
            "counted": packed(count),
            "adapted": tuple(map(real, now)),
        }
        facts.adaptations.append((2 * step + 1, Entry(**{**entry, **(changes if step == 1 else {})})))
    return facts


def evidence(facts: LogFacts) -> Evidence:
    keys, log = (
        SimpleNamespace(agreement_id=AGREEMENT),
        SimpleNamespace(facts=facts, place=Path("f"), whole=True),
    )
    return Evidence(cast("Any", keys), cast("Any", log), {}, {})


def report(told: AdaptationReport | None, **changes: Any) -> Report:
    members = tuple(SimpleNamespace(name=name, units=units) for name, units in UNITS.items())
    said = {
        "agreement_id": AGREEMENT, "adaptation": told, "clipping_norm": NORM, "sampling_rate": RATE, "members": members,
        "shared_noise": SimpleNamespace(scale=SCALE),
    }  # fmt: skip
    return cast("Report", SimpleNamespace(**{**said, **changes}))


def problems(facts: LogFacts, published: Report | None = None) -> list[str]:
    """What an auditor finds wrong."""
    notebook = Notebook()
    check_adaptations(cast("Examined", evidence(facts).federation), notebook)
    check_adapted(published, evidence(facts), notebook)
    return [one.what for one in notebook.findings("key").failures]


TOLD = adaptation_told(ADAPTS, tuple(quantities()))


def test_what_follows_from_the_log_holds():
    assert problems(logged(quantities()), report(TOLD)) == []
    assert problems(LogFacts(), report(None)) == []
    assert len(set(TOLD.clipping.norms)) == 4


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"adapted": (real(2.0),)}, "are not the model"),
        ({"weights_sha256": "e" * 64}, "are not the model"),
        ({"aggregate_sha256": "e" * 64}, "another sum"),
        ({"step": 7}, "another sum"),
        ({"round": 9}, "no sum of training"),
        ({"round": 1, "step": 0, "aggregate_sha256": f"{100:064x}"}, "stands in the log before it"),
    ],
)
def test_an_entry_that_does_not_fit_its_sum(changes: dict[str, Any], why: str):
    (found,) = problems(logged(quantities(), **changes))
    assert why in found


def test_an_entry_that_comes_twice_or_before_its_sum():
    facts = logged(quantities())
    facts.adaptations.append((9, facts.adaptations[-1][1]))
    assert "stands in the log before it" in problems(facts)[0]
    early = logged(quantities())
    early.adaptations[1] = (1, early.adaptations[1][1])
    assert "no sum of training" in problems(early)[0]


def test_a_coordinator_whose_norms_do_not_follow_from_its_counts():
    """Its aggregates name the models of these norms; only who computes them anew sees it."""
    kinder = [(2.0,), (2.0,), (2.0,)]
    facts = logged(kinder)
    (found,) = problems(facts, report(TOLD))
    assert "after step 0 do not follow" in found
    (found,) = problems(facts, report(adaptation_told(ADAPTS, tuple(kinder))))
    assert "after step 0 do not follow" in found


def test_a_count_that_was_changed_behind_the_norm_that_followed():
    (found,) = problems(logged(quantities(), [3000, -801, 5]), report(TOLD))
    assert "after step 1 do not follow" in found


def changed(**of_clipping: Any) -> AdaptationReport:
    return TOLD.model_copy(update={"clipping": TOLD.clipping.model_copy(update=of_clipping)})


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "is missing"),
        (changed(norms=(1.0, 1.0, 1.0, 1.0)), "does not follow"),
        (changed(norms=TOLD.clipping.norms[:-1]), "does not follow"),
        (changed(norms=(1.5, *TOLD.clipping.norms[1:])), "does not follow"),
        (changed(rate=0.1), "do not follow"),
        (changed(quantile=0.9), "do not follow"),
        (changed(largest=0.5), "no rule that an agreement could have"),
        (TOLD.model_copy(update={"noise_factor": 1.0}), "does not follow"),
    ],
)
def test_a_report_that_tells_another_story(told: AdaptationReport | None, why: str):
    (found,) = problems(logged(quantities()), report(told))
    assert why in found


def test_a_report_of_sums_that_nothing_adapted_to():
    facts = logged(quantities())
    facts.adaptations.pop()
    assert "is of 3 sums, and the log holds what adapted to 2" in problems(facts, report(TOLD))[0]
    assert "noise was not shared" in problems(logged(quantities()), report(TOLD, shared_noise=None))[0]


# --- weights ----------------------------------------------------------------------------------------------

WEIGHING = Adaptation(
    NORM, weights=WeightRule("sex", ("f", "m"), 0.5, 0.1, 2.0, 0.8, 0.05), weights_share=0.1
)
BY_GROUP = [(-900, 700, 4000, 9000), (-500, 900, 5000, 8000), (-700, 100, 4500, 9500)]


def weighed(sums: Sequence[Sequence[int]] = BY_GROUP) -> tuple[LogFacts, AdaptationReport]:
    """A log of weights that follow losses, and what a report says of them."""
    found, now = [], WEIGHING.first
    for counted, names in zip(sums, PRESENT, strict=True):
        batch = RATE * sum(UNITS[name] for name in names)
        now = WEIGHING.following(now, [value / SCALE / NORM for value in counted], batch)
        found.append(now)
    facts = logged(found)
    for step, counted in enumerate(BY_GROUP):
        index, entry = facts.adaptations[step]
        text = base64.b64encode(struct.pack("<4i", *counted)).decode()
        facts.adaptations[step] = (index, entry.model_copy(update={"counted": text}))
    return facts, adaptation_told(WEIGHING, found)


def test_weights_that_follow_from_the_log_hold_and_others_do_not():
    facts, told = weighed()
    assert problems(facts, report(told)) == []
    assert told.weights is not None
    few, many = told.weights.groups
    assert few.weights[-1] < many.weights[-1] == 1
    kinder = told.weights.model_copy(
        update={"groups": (few.model_copy(update={"weights": (1.0,) * 4}), many)}
    )
    (found,) = problems(facts, report(told.model_copy(update={"weights": kinder})))
    assert "does not follow" in found
    slower = told.weights.model_copy(update={"rate": 0.25})
    (found,) = problems(facts, report(told.model_copy(update={"weights": slower})))
    assert "after step 0 do not follow" in found
    other, _ = weighed([BY_GROUP[0], (0, 0, 0, 0), BY_GROUP[2]])
    (found,) = problems(other, report(told))
    assert "after step 1 do not follow" in found
