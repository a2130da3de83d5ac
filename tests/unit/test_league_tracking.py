"""A league's run in TensorBoard or at an MLflow server: what is told of it, and that a run never fails for it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from hansa.agreement import Agreement
from hansa.errors import UsageError
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.events import Spend
from hansa.privacy.sampling import sampling_of
from hansa_server.federation import Outcome
from hansa_server.rounds import RoundRecord, SumFacts
from hansa_server.tracking import keep_targets, track, tracked
from support.leagues import frozen_league


def record(number: int, begun: tuple[int, ...]) -> RoundRecord:
    facts = SumFacts(begun, {}, {}, {})
    return RoundRecord(number, ("a", "b"), {"c": "absent"}, {"a": 10, "b": 12}, {"a": 5, "b": 5}, 0.5, facts)


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    return frozen_league()[0]


@pytest.fixture
def outcome() -> Outcome:
    """Of a run whose second step was summed at the second try."""
    return Outcome(None, [record(1, (1,)), record(2, (2, 3))])  # type: ignore[arg-type]


def test_it_tells_who_was_there_what_it_cost_and_the_epsilon_of_every_round_that_was_begun(
    agreement: Agreement, outcome: Outcome
) -> None:
    made = tracked(agreement, "run-1", outcome)
    found = {(one.name, one.step): one.value for one in made.figures}
    assert (found["members/present", 2], found["members/absent", 2]) == (2, 1)
    assert (found["cost/upload_bytes", 1], found["cost/download_bytes", 1]) == (22, 10)
    noise, delta = agreement.require_frozen().noise_multiplier, agreement.terms.privacy.delta
    assert noise is not None
    assert delta is not None
    event = sampling_of(agreement.terms).event(noise)
    steps = 3 * agreement.terms.local_steps  # two rounds, one of them twice
    assert found["privacy/epsilon", 2] == pytest.approx(epsilon_spent([Spend(event, steps)], delta))
    assert found["privacy/epsilon", 1] < found["privacy/epsilon", 2]
    assert {name.split("/")[0] for name, _ in found} == {"members", "cost", "privacy"}  # of nobody alone
    assert made.terms["agreement_id"] == agreement.agreement_id
    assert made.done


def test_a_target_that_is_none_changes_nothing_and_a_folder_is_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tracking` is not installed")
    monkeypatch.chdir(tmp_path)
    keep_targets(tmp_path, ["tensorboard:board"])
    kept = (tmp_path / "track.json").read_text()
    assert json.loads(kept) == [f"tensorboard:{tmp_path / 'board'}"]
    with pytest.raises(UsageError):
        keep_targets(tmp_path, ["wandb:x"])
    assert (tmp_path / "track.json").read_text() == kept


def test_a_server_that_is_not_there_costs_a_warning(
    tmp_path: Path, agreement: Agreement, outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    track(tmp_path, agreement, "run-1", outcome)  # nobody asked for it
    assert not caplog.records
    keep_targets(tmp_path, ["mlflow:http://127.0.0.1:1"])
    with caplog.at_level(logging.WARNING, "hansa.coordinator"):
        track(tmp_path, agreement, "run-1", outcome)
    assert "is not tracked" in caplog.text
