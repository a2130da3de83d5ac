"""The trainer: what it accounts is what it does, whatever the data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from hansa.errors import ModelError, PrivacyParameterError, TrainingError
from hansa.models import BuiltModel
from hansa.privacy.randomness import PublicSampling, SecretRandomness
from hansa_client.data import Dataset
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine
from support.leagues import frozen_league, table
from support.recorders import Chosen, Recorder


def trainer(
    dataset: Dataset, batches: list[list[int]] | None = None, **changes: object
) -> tuple[Trainer, TrainingPlan, BuiltModel]:
    """A trainer of member a, on every unit in each step or on chosen batches."""
    agreement, built = frozen_league(**changes)
    plan = TrainingPlan.of(agreement, "a")
    draws = Chosen(dataset.number_of_units, batches)
    return Trainer(GradientEngine(built), dataset, plan, draws), plan, built


def everyone(dataset: Dataset) -> npt.NDArray[np.int64]:
    return np.arange(dataset.number_of_units)


def test_the_plan_is_public_numbers() -> None:
    agreement, _ = frozen_league()
    plan = TrainingPlan.of(agreement, "b")
    assert (plan.sampling_rate, plan.divisor, plan.steps_per_round, plan.charged_steps) == (0.5, 20.0, 2, 8)
    spend = plan.spend()
    assert spend is not None
    assert spend.count == 8
    assert spend.event["sampling_probability"] == 0.5
    multiplier = agreement.require_frozen().noise_multiplier
    inner = spend.event["event"]
    assert isinstance(inner, dict)
    assert inner["noise_multiplier"] == pytest.approx(multiplier, rel=1e-12)


def test_one_step_is_dp_sgd_by_hand() -> None:
    data = table(10, 5)
    trained, plan, built = trainer(data, privacy={"steps": 4})
    start = np.linspace(-1, 1, built.flat.size)
    recorder = Recorder()
    update = trained.train(start, recorder)
    names = dict(zip(built.flat.names, built.flat.arrays(start).values(), strict=True))
    weight = next(v for n, v in names.items() if n.endswith("weight"))
    bias = next(v for n, v in names.items() if n.endswith("bias"))
    total = np.zeros(built.flat.size)
    assert plan.grid is not None
    for x, y in zip(data.inputs["table"].astype(np.float64), data.labels, strict=True):
        logits = weight @ x + bias
        p = np.exp(logits - logits.max())
        p /= p.sum()
        p[y] -= 1
        flat = np.concatenate(
            [p.flatten() if n.endswith("bias") else np.outer(p, x).flatten() for n in built.flat.names]
        )
        total += flat * min(1, 1.0 / np.linalg.norm(flat))
    expected = -plan.learning_rate * (total + 1 / plan.grid.scale) / plan.divisor
    assert np.abs(update - expected).max() < 20 / plan.grid.scale
    assert recorder.asked == [("noise", plan.sigma, built.flat.size)]


def test_the_divisor_and_the_noise_do_not_follow_the_data() -> None:
    """Twice the records, the same plan: twice the sum over the same public divisor, the same noise."""
    one, two = table(20, 1), Dataset.concat([table(20, 1), table(20, 1)])
    updates, asked = [], []
    for data in (one, two):
        recorder = Recorder()
        trained, _, built = trainer(data, privacy={"steps": 4})
        updates.append(trained.train(np.zeros(built.flat.size), recorder))
        asked.append(recorder.asked)
    assert asked[0] == asked[1]
    assert np.allclose(updates[1], 2 * updates[0], atol=1e-3)


@pytest.mark.parametrize("records", [0, 1, 5])
def test_an_empty_batch_is_a_step(records: int) -> None:
    trained, plan, built = trainer(table(records, 1), [[], []])
    recorder = Recorder()
    update = trained.train(np.zeros(built.flat.size), recorder)
    assert [what for what, *_ in recorder.asked] == ["noise"] * plan.steps_per_round
    assert np.all(update != 0)
    assert trained.observed.empty_batches == 2
    assert trained.observed.steps == 2


def test_control_flow_is_the_same_on_a_neighbouring_dataset() -> None:
    """D and D' differ in one unit, with an infinite feature: same draws, same shapes, sums within the bound."""
    data = table(12, 4)
    poisoned = {"table": data.inputs["table"].copy()}
    poisoned["table"][3] = np.inf
    neighbours = [data, replace(data, inputs=poisoned), data.take(np.delete(np.arange(12), 3))]
    asked, sums = [], []
    for dataset in neighbours:
        trained, plan, built = trainer(dataset)
        built.flat.load(built.module, np.linspace(-0.5, 0.5, built.flat.size))
        recorder = Recorder()
        sums.append(trained.clipped_sum(everyone(dataset)).values)
        trained.train(np.zeros(built.flat.size), recorder)
        asked.append(recorder.asked)
    assert asked[0] == asked[1] == asked[2]
    assert plan.grid is not None
    assert np.array_equal(sums[1], sums[2])  # what is not finite counts as if it were not there
    assert 0 < np.linalg.norm(sums[0] - sums[2]) <= plan.grid.sensitivity


@pytest.mark.parametrize("physical", [1, 3, 1000])
def test_physical_batch_size_changes_no_sum(physical: int) -> None:
    agreement, built = frozen_league()
    plans = [
        TrainingPlan.of(agreement.with_performance(physical_batch_size=size), "a") for size in (physical, 7)
    ]
    data = table(25, 9, units=np.arange(25, dtype=np.int64) // 2)
    engine = GradientEngine(built)
    built.flat.load(built.module, np.linspace(-0.5, 0.5, built.flat.size))
    sums = [Trainer(engine, data, plan).clipped_sum(everyone(data)).values for plan in plans]
    assert np.abs(sums[0] - sums[1]).max() <= 1  # float32 gradients may differ in their last digit
    assert plans[0].spend() == plans[1].spend()


def test_records_of_a_patient_are_drawn_together() -> None:
    units = np.array([0, 1, 0, 2, 1, 0], dtype=np.int64)
    data = table(6, 2, units=units)
    trained, plan, built = trainer(
        data,
        privacy={"unit": "patient", "max_records_per_unit": 3},
        data={"unit": "patient"},
    )
    built.flat.load(built.module, np.linspace(-0.5, 0.5, built.flat.size))
    got = trained.clipped_sum(np.array([0, 2]))
    alone = trained.clipped_sum(np.array([0])).values + trained.clipped_sum(np.array([2])).values
    assert np.abs(got.values - alone).max() <= 1
    assert plan.grid is not None
    three_records = trained.clipped_sum(np.array([0])).values
    assert np.linalg.norm(three_records) <= plan.grid.scale * plan.grid.clipping_norm + 2


def test_noise_has_the_size_that_is_accounted() -> None:
    trained, plan, built = trainer(table(0, 1), privacy={"steps": 4})
    assert plan.grid is not None
    assert plan.sigma is not None
    draws = np.concatenate([trained.train(np.zeros(built.flat.size), SecretRandomness()) for _ in range(200)])
    expected = plan.learning_rate * plan.sigma / (plan.grid.scale * plan.divisor)
    assert draws.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * len(draws)))


def test_two_calls_never_draw_the_same_noise() -> None:
    trained, _, built = trainer(table(0, 1))
    start = np.zeros(built.flat.size)
    assert not np.array_equal(
        trained.train(start, SecretRandomness()), trained.train(start, SecretRandomness())
    )


# --- noise that is made ahead -----------------------------------------------------------------------------


class Numbered:
    """In place of secret noise: the n-th vector is full of 1000·n."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        monkeypatch.setattr(SecretRandomness, "noise", lambda _self, _sigma, size: self._next(size))

    def _next(self, size: int) -> npt.NDArray[np.int64]:
        self.threads.append(threading.current_thread())
        return np.full(size, 1000 * len(self.threads), dtype=np.int64)


def noise_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hansa-noise")]


@pytest.mark.parametrize("ahead", [False, True])
def test_each_step_has_noise_of_its_own_and_a_round_makes_no_more(
    ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ahead, as for a GPU, and when a step has its sum, as without one."""
    made = Numbered(monkeypatch)
    trained, plan, built = trainer(table(3, 1), [[], []])
    assert not trained._ahead
    trained._ahead = ahead
    assert plan.grid is not None
    assert plan.steps_per_round == 2
    source, start = SecretRandomness(), np.zeros(built.flat.size)
    for expected in (1 + 2, 3 + 4):  # two rounds of two steps, each without a unit
        noise = -trained.train(start, source) * plan.grid.scale * plan.divisor / plan.learning_rate
        assert noise == pytest.approx(np.full(built.flat.size, 1000 * expected))
    assert len(made.threads) == 4
    assert (threading.current_thread() in made.threads) is not ahead
    assert not noise_threads()


class Stops:
    """Batches that end in an error after the first."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def batches(self, _randomness: object, _steps: int) -> Iterator[npt.NDArray[np.int64]]:
        yield np.zeros(0, dtype=np.int64)
        raise self._error


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("error", [TrainingError("a step fails"), KeyboardInterrupt()])
def test_whatever_ends_a_round_ends_its_noise(
    error: BaseException, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Numbered(monkeypatch)
    agreement, built = frozen_league()
    stopped = Trainer(GradientEngine(built), table(3, 1), TrainingPlan.of(agreement, "a"), Stops(error))
    stopped._ahead = ahead
    with pytest.raises(type(error)):
        stopped.train(np.zeros(built.flat.size), SecretRandomness())
    assert not noise_threads()
    assert 1 <= len(made.threads) <= 2


@pytest.mark.parametrize("ahead", [False, True])
def test_noise_that_fails_fails_the_round(ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: SecretRandomness, _sigma: float, _size: int) -> npt.NDArray[np.int64]:
        raise PrivacyParameterError("no more random numbers")

    monkeypatch.setattr(SecretRandomness, "noise", fails)
    trained, _, built = trainer(table(3, 1))
    trained._ahead = ahead
    with pytest.raises(PrivacyParameterError, match="no more random"):
        trained.train(np.zeros(built.flat.size), SecretRandomness())
    assert not noise_threads()


def test_another_source_is_asked_when_a_step_has_its_sum() -> None:
    agreement, built = frozen_league()
    plan, recorder = TrainingPlan.of(agreement, "a"), Recorder()
    Trainer(GradientEngine(built), table(3, 1), plan).train(np.zeros(built.flat.size), recorder)
    assert [call[0] for call in recorder.asked] == ["key", "noise"] * plan.steps_per_round


def test_without_a_mechanism_nothing_is_clipped_and_no_noise_is_drawn() -> None:
    data = table(30, 1)
    trained, plan, built = trainer(
        data, privacy={"mechanism": "none", "epsilon": None, "delta": None, "clipping_norm": 1e-6, "steps": 4}
    )
    recorder = Recorder()
    update = trained.train(np.zeros(built.flat.size), recorder)
    assert recorder.asked == []
    assert np.abs(update).max() > 1e-3
    assert plan.spend() is None
    _, fresh = frozen_league()
    drawn = Trainer(GradientEngine(fresh), data, plan)
    again = [drawn.train(np.zeros(built.flat.size), PublicSampling(1, "a", number)) for number in (1, 1, 2)]
    assert np.array_equal(again[0], again[1])
    assert not np.array_equal(again[0], again[2])


def test_a_weight_that_must_not_move_and_does_stops_the_run() -> None:
    _, _, built = trainer(table(10, 1))
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)

    class Writes(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.other = inner, frozen

        def forward(self, table: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.other.add_(1)
            return self.inner(table)

    module = Writes(built.module)
    wrapped = BuiltModel.of(module, device="cpu", probe_inputs=built.probe_inputs)
    agreement, _ = frozen_league()
    bad = Trainer(GradientEngine(wrapped), table(10, 1), TrainingPlan.of(agreement, "a"))
    with pytest.raises(TrainingError, match="not trained was changed"):
        bad.train(np.zeros(built.flat.size), SecretRandomness())


def test_a_trained_weight_without_influence_stops_the_run() -> None:
    """The symptom of opacus issue 820: ε is spent on weights that the model does not use."""

    class Ignores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, table: torch.Tensor) -> torch.Tensor:
            return self.used(table) + 0 * self.idle(table)

    built = BuiltModel.of(
        Ignores().train(), device="cpu", probe_inputs={"table": np.eye(2, dtype=np.float32)}
    )
    with pytest.raises(TrainingError, match="idle"):
        GradientEngine(built)


def test_layers_that_mix_records_are_refused() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    built = BuiltModel.of(module.train(), device="cpu", probe_inputs={"input": np.eye(2, dtype=np.float32)})
    with pytest.raises(ModelError, match="records mix"):
        GradientEngine(built)


def test_a_plan_for_another_model_is_refused() -> None:
    agreement, built = frozen_league()
    plan = TrainingPlan.of(agreement, "a")
    assert plan.grid is not None
    wrong = replace(plan, grid=replace(plan.grid, dimension=99))
    with pytest.raises(TrainingError, match="dimension"):
        Trainer(GradientEngine(built), table(3, 1), wrong)


def test_a_promise_without_noise_has_no_plan() -> None:
    agreement, _ = frozen_league()
    silent = replace(
        agreement, frozen=agreement.require_frozen().model_copy(update={"noise_multiplier": None})
    )
    with pytest.raises(PrivacyParameterError, match="names no noise"):
        TrainingPlan.of(silent, "a")
