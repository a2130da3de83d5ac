"""The rules of one run that need no grant, and what a run counts."""

from __future__ import annotations

from typing import Any

import pytest

from hansa.audit.spending import Spending, total
from hansa.ledger import Abort, Charging, Release, Reservation, RunClosed
from hansa.ledger import Spending as Spent
from hansa.ledger.errors import LogVerificationError
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from support.audits import AGREEMENT, at
from support.ledgers import DATASET, HASH

EVENT, SHARED = poisson_gaussian(0.1, 1.0), poisson_gaussian(0.1, 2.0)
TABLE = gaussian(8.0)
CHARGES = (Charge("training", EVENT, 20, SHARED, 1), Charge("evaluation", TABLE, 2))


def base(run: str = "r", **changes: Any) -> dict[str, Any]:
    return {
        "at": at(1),
        "agreement_id": AGREEMENT,
        "run": run,
        "member": "a",
        "dataset_id": DATASET,
        **changes,
    }


def reservation(run: str = "r", charges: tuple[Charge, ...] = CHARGES, **changes: Any) -> Reservation:
    return Reservation(
        **base(run, **changes),
        unit="patient",
        adjacency="add-or-remove-one",
        charges=tuple(map(Charging.of, charges)),
    )


def release(number: int, run: str = "r", event: Any = EVENT, count: int = 5, **changes: Any) -> Release:
    said = {"purpose": "training", "step": number, **changes}
    return Release(
        **base(
            run, **{key: said.pop(key) for key in ("agreement_id", "member", "dataset_id") if key in said}
        ),
        **said,
        round=number,
        unit="patient",
        adjacency="add-or-remove-one",
        spends=(Spent.of(Spend(event, count)),),
        y_sha256=HASH,
        manifest_sha256=HASH,
        software={"hansa": "0"},
        lock_sha256=HASH,
        rng="x",
    )


def abort(number: int, count: int = 5, event: Any = EVENT) -> Abort:
    said = {key: value for key, value in base().items() if key != "member"}
    spends = (Spent.of(Spend(event, count)),) if count else ()
    return Abort(
        **said, party="a", round=number, manifest_sha256=None, code="gone", purpose="training", spends=spends
    )


def closed(run: str = "r", **released: int) -> RunClosed:
    return RunClosed(**base(run), released=released)


def read(*entries: Any) -> Spending:
    spending = Spending()
    for index, entry in enumerate(entries):
        spending.take(index, entry)
    return spending


def counts(spending: Spending, coalition: int | None = None) -> list[tuple[float, int]]:
    return [
        (spend.event.get("event", spend.event)["noise_multiplier"], spend.count)
        for spend in total(spending.runs.values(), coalition)
    ]


class TestWhatCounts:
    def test_all_that_was_reserved_until_the_run_is_closed(self) -> None:
        assert counts(read(reservation(), release(1))) == [(1.0, 20), (8.0, 2)]

    def test_then_what_the_close_says(self) -> None:
        assert counts(read(reservation(), release(1), closed(training=5))) == [(1.0, 5)]
        assert counts(read(reservation(), closed())) == []

    def test_shared_noise_against_so_few(self) -> None:
        assert counts(read(reservation()), 1) == [(2.0, 20), (8.0, 2)]
        assert counts(read(reservation()), 2) == [(1.0, 20), (8.0, 2)]

    def test_runs_add_up(self) -> None:
        spending = read(reservation(), reservation("s"), closed("s", training=3))
        assert counts(spending) == [(1.0, 20), (8.0, 2), (1.0, 3)]
        assert [run.run for run in spending.of("a", AGREEMENT)] == ["r", "s"]
        assert spending.of("b", AGREEMENT) == spending.of("a", "0" * 64) == ()

    def test_an_abort_is_charged_once(self) -> None:
        run = next(iter(read(reservation(), release(1), abort(1), abort(2), abort(3, 0)).runs.values()))
        assert run.recorded == {"training": 10}
        assert (run.rounds, run.last_round, run.steps) == (1, 1, {"training": {5}})


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([release(1)], "no reservation before"),
        ([closed()], "no reservation before"),
        ([abort(1)], "no reservation before"),
        ([reservation(), reservation()], "reserved twice"),
        ([reservation(), release(1, "s")], "no reservation before"),
        ([reservation(), release(1, member="b")], "no reservation before"),
        ([reservation(), release(1, dataset_id="f" * 32)], "no reservation before"),
        ([reservation(), release(1, agreement_id="0" * 64)], "no reservation before"),
        ([reservation(), release(2), release(2)], "in order"),
        ([reservation(), release(2), release(1)], "in order"),
        ([reservation(), abort(1), release(1)], "in order"),
        ([reservation(), release(1, event=SHARED)], "other events"),
        ([reservation(), release(1, purpose="compression")], "other events"),
        ([reservation(), abort(1, event=SHARED)], "other events"),
        ([reservation(), release(1, count=21)], "released 21 events of 20"),
        ([reservation(), *(release(number) for number in range(1, 6))], "released 25 events of 20"),
        ([reservation(), release(1), closed(training=4)], "cannot be closed with 4"),
        ([reservation(), closed(training=21)], "cannot be closed with 21"),
        ([reservation(), closed(compression=1)], "cannot be closed with 1"),
        ([reservation(), closed(), closed()], "was closed before"),
        ([reservation(), closed(), release(1)], "was closed before"),
        ([reservation(), closed(), abort(1)], "was closed before"),
    ],
)
def test_what_does_not_follow_is_refused(entries: list[Any], what: str) -> None:
    *good, bad = entries
    spending = read(*good)
    before = counts(spending)
    with pytest.raises(LogVerificationError, match=what):
        spending.take(len(good), bad)
    assert counts(spending) == before


def test_an_event_that_nobody_knows() -> None:
    strange = Charging.model_construct(
        kind="training", event={"type": "Magic"}, count=1, shared=None, coalition=0
    )
    entry = reservation().model_copy(update={"charges": (strange,)})
    with pytest.raises(LogVerificationError, match="no known event"):
        read(entry)
