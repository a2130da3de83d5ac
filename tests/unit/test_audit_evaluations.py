"""Whether tables in a log are sums of rounds, and no more than members reserved."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hansa.audit.evaluations import check_evaluations
from hansa.audit.findings import Notebook
from hansa.audit.reading import LogFacts
from hansa.audit.spending import RunSpend
from hansa.ledger.outcomes import Aggregate, Evaluation
from hansa.privacy.charges import EVALUATION, TRAINING, Charge
from hansa.privacy.events import gaussian
from support.ledgers import AGREEMENT, DATASET, MEMBERS, one_of_each

EACH = one_of_each()
HASHES = ("a1" * 32, "b2" * 32, "c3" * 32)
RELEASED = MEMBERS[:3]


def summed(round_number: int, **changes: Any) -> Aggregate:
    sample = EACH["aggregate"]
    assert isinstance(sample, Aggregate)
    told = {"purpose": EVALUATION, "round": round_number, "aggregate_sha256": HASHES[round_number - 1]}
    return sample.model_copy(update={**told, **changes})


def shown(round_number: int, **changes: Any) -> Evaluation:
    sample = EACH["evaluation"]
    assert isinstance(sample, Evaluation)
    told = {"number": round_number, "round": round_number, "aggregate_sha256": HASHES[round_number - 1]}
    return sample.model_copy(update={**told, **changes})


def reserved(member: str, count: int, kind: str = EVALUATION) -> RunSpend:
    charge = Charge(kind=kind, event=gaussian(4.0), count=count)
    return RunSpend(member, DATASET, "run-1", AGREEMENT, 0, {kind: charge})


def found(*tables: Evaluation, spends: list[RunSpend], sums: tuple[Aggregate, ...] | None = None) -> Notebook:
    """What the audit notes of a log in which rounds 1, 2 and 3 summed tables, and `tables` were shown."""
    facts = LogFacts()
    facts.aggregates = list(enumerate(sums or (summed(1), summed(2), summed(3))))
    facts.evaluations = [(10 + i, one) for i, one in enumerate(tables)]
    facts.spending.runs = {(one.member, one.dataset, one.run): one for one in spends}
    notebook = Notebook()
    check_evaluations(SimpleNamespace(facts=facts, place="copy"), notebook)  # type: ignore[arg-type]  # no more is read
    return notebook


def everybody(count: int) -> list[RunSpend]:
    return [reserved(name, count) for name in RELEASED]


def test_as_many_as_were_reserved_pass_and_a_sum_without_its_table_is_remarked() -> None:
    notebook = found(shown(1), shown(2), spends=everybody(2))
    assert notebook.failures == []
    assert notebook.counts["evaluations whose table is the sum of a round"] == 2
    assert [one.what for one in notebook.remarks] == ["round 3 summed tables, and no entry shows the sum"]


def test_one_more_than_a_member_reserved_is_found_at_that_entry() -> None:
    spends = [reserved(RELEASED[0], 3), reserved(RELEASED[1], 1), reserved(RELEASED[2], 3)]
    (failure,) = found(shown(1), shown(2), shown(3), spends=spends).failures
    assert failure.entry == 11
    assert failure.what == (f"it is evaluation 2 of run 'run-1', and {RELEASED[1]!r} has reserved 1 there")


@pytest.mark.parametrize(
    "spend", [None, reserved(RELEASED[2], 5, TRAINING)], ids=["nothing", "training alone"]
)
def test_a_member_that_reserved_no_table_has_none_to_give(spend: RunSpend | None) -> None:
    spends = [reserved(name, 5) for name in RELEASED[:2]] + ([] if spend is None else [spend])
    (failure,) = found(shown(1), spends=spends).failures
    assert "has reserved 0 there" in failure.what


def test_what_was_reserved_for_another_run_counts_for_that_one_alone() -> None:
    elsewhere = [replace(one, run="run-2") for one in everybody(5)]
    assert len(found(shown(1), spends=elsewhere).failures) == 1


@pytest.mark.parametrize(
    ("table", "sums", "says"),
    [
        (shown(1, aggregate_sha256="d4" * 32), None, "another one than entry 0 says"),
        (shown(1), (summed(1, purpose=TRAINING),), "no sum of tables of that round"),
        (shown(1, run="run-2"), None, "no sum of tables of that round"),
    ],
    ids=["another table", "a sum of gradients", "another run"],
)
def test_a_table_that_no_round_summed(
    table: Evaluation, sums: tuple[Aggregate, ...] | None, says: str
) -> None:
    (failure,) = found(table, spends=everybody(5), sums=sums).failures
    assert says in failure.what


def test_numbers_rise() -> None:
    (failure,) = found(shown(1), shown(2, number=1), spends=everybody(5)).failures
    assert failure.what == "it is evaluation 1 of run 'run-1', and evaluation 1 came before"
