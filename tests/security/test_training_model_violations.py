"""Violations that lie in a model or a schema: weights used twice or not at all, and what only a neighbour has seen."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from hansa.errors import TrainingError
from hansa.models import BuiltModel
from hansa.privacy.clipping import ClippingKind
from hansa.privacy.grid import Grid
from hansa_client.data import Dataset, Records, encode
from hansa_client.data.cells import Cells
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.clipping import MARGIN, ClippedSum
from hansa_client.training.gradients import GradientEngine
from support.leagues import frozen_league, table
from support.schemas import TABLE, schema_agreement
from support.violations import ViolationError, check_neighbours, with_features, with_unit

AGREEMENT, _ = frozen_league()


def engine_of(module: nn.Module) -> GradientEngine:
    probe = {"table": np.array([[3.0, -1.0], [0.5, 4.0]], dtype=np.float32)}
    return GradientEngine(BuiltModel.of(module.train(), device="cpu", probe_inputs=probe))


def plan_for(engine: GradientEngine, clipping_norm: float = 1.0) -> TrainingPlan:
    """The league's plan on a grid of another model."""
    plan = TrainingPlan.of(AGREEMENT, "a")
    grid = Grid.of(clipping_norm, engine.built.flat.size)
    return replace(plan, grid=grid, sigma=grid.sigma(2.0))


def one_unit(value: float) -> Dataset:
    return with_features(table(1, 3), value)


# --- a weight that only some records reach ----------------------------------------------------------------


class ReachesSeldom(nn.Module):
    """A branch that is computed only where a record asks for it: no record follows another, but control flow does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.seldom = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        asks = (table > 2).any(1, keepdim=True).float()
        out: torch.Tensor = self.always(table)
        return out + asks * self.seldom(table) if bool(asks.any()) else out


class StopsAtUnusedWeights(Trainer):
    """ "Per sample gradient is not initialized", Opacus issues 469, 578 and 645: a round without the unit fails."""

    def clipped_sum(self, drawn):
        found = super().clipped_sum(drawn)
        flat = self._engine.built.flat
        for start, size in zip(flat.offsets, flat.sizes, strict=True):
            if not found.values[start : start + size].any():
                raise TrainingError("a weight has no gradient")
        return found


def test_unused_parameter() -> None:
    engine = engine_of(ReachesSeldom())
    pair = (table(20, 1), with_unit(table(20, 1), one_unit(3.0), 4))
    plan = plan_for(engine)
    assert max(check_neighbours(Trainer, engine, pair, plan)) > 0
    with pytest.raises(ViolationError, match="control flow"):
        check_neighbours(StopsAtUnusedWeights, engine, pair, plan)


def test_a_weight_that_no_record_can_reach_is_told_before_anything_is_spent() -> None:
    """Opacus issue 820: ε is spent and nothing is learned."""

    class Never(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, table: torch.Tensor) -> torch.Tensor:
            return self.used(table)

    with pytest.raises(TrainingError, match="idle"):
        engine_of(Never())


# --- a weight that is used twice --------------------------------------------------------------------------


class Tied(nn.Module):
    """One matrix in two layers, as embeddings and heads share one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        return self.first(table) + self.second(table)


class ClipsEachUse(Trainer):
    """Norms of each use apart, as ghost norms do where the cross term is forgotten: √2 too short at the worst."""

    def clipped_sum(self, drawn):
        grid = self._plan.grid
        total = np.zeros(grid.dimension)
        for records, units in self._microbatches(drawn):
            (both,) = self._engine.per_record(*self._batch(records))
            whole = np.zeros((len(records), grid.dimension))
            np.add.at(whole, units, both.flatten(1).double().numpy())
            norms = np.sqrt(2) * np.linalg.norm(whole / 2, axis=1)  # the two uses are equal here
            total += (whole * np.minimum(1, grid.clipping_norm / np.maximum(norms, 1e-30))[:, None]).sum(0)
        return ClippedSum(np.rint(total * grid.scale).astype(np.int64), grid)


def test_tied_weights() -> None:
    engine = engine_of(Tied())
    assert engine.built.flat.size == 4
    unit = replace(with_features(table(2, 3, units=np.zeros(2, np.int64)), 50.0), labels=np.array([0, 1]))
    pair = (table(20, 1), with_unit(table(20, 1), unit, 4))
    plan = plan_for(engine)
    assert max(check_neighbours(Trainer, engine, pair, plan)) > 0
    with pytest.raises(ViolationError, match="sensitivity"):
        check_neighbours(ClipsEachUse, engine, pair, plan)


def test_the_gradient_of_a_tied_weight_is_that_of_both_uses() -> None:
    engine = engine_of(Tied())
    data, plain = table(5, 2), Tied()
    (ours,) = engine.per_record(data.inputs, data.labels)
    for row, label, gradient in zip(data.inputs["table"], data.labels, ours, strict=True):
        loss = nn.functional.cross_entropy(plain(torch.tensor(row[None])), torch.tensor([label]))
        (expected,) = torch.autograd.grad(loss, [plain.first.weight])
        assert torch.allclose(gradient, expected, atol=1e-6)


# --- what only a neighbour has seen -----------------------------------------------------------------------


def records(stages: list[str], outcomes: list[str]) -> Records:
    n = len(stages)
    columns = {"age": ["50"] * n, "stage": stages, "sex": ["f"] * n, "outcome": outcomes}
    return Records({name: Cells.of(values) for name, values in columns.items()}, np.arange(n))


KNOWN = records(["i", "ii"] * 8, ["no"] * 16)
# a stage, and an outcome, that nobody else has
WITH_ONE_MORE = records([*["i", "ii"] * 8, "iii"], [*["no"] * 16, "yes"])
SCHEMA = schema_agreement(TABLE)


def by_the_agreement(held: Records) -> Dataset:
    return encode(held, SCHEMA.terms, None)


def by_what_is_there(held: Records) -> Dataset:
    """The vocabulary read from the data, as pandas.get_dummies and scikit-learn's encoders do."""
    seen = sorted(set(held.columns["stage"].as_text().values.tolist()))
    data = SCHEMA.terms.data
    age, stage = data.features
    narrow = data.model_copy(update={"features": (age, stage.model_copy(update={"values": tuple(seen)}))})
    return encode(held, SCHEMA.terms.model_copy(update={"data": narrow}), None)


def test_domain_inference() -> None:
    """A category, and a label, that only the added unit has: the same widths, the same model, the same steps."""
    engine = GradientEngine(_logistic(width=4))
    plan = plan_for(engine)
    pair = (by_the_agreement(KNOWN), by_the_agreement(WITH_ONE_MORE))
    assert [data.inputs["table"].shape[1] for data in pair] == [4, 4]
    assert max(check_neighbours(Trainer, engine, pair, plan, seed=2)) > 0
    inferred = (by_what_is_there(KNOWN), by_what_is_there(WITH_ONE_MORE))
    with pytest.raises(ViolationError, match="control flow"):
        check_neighbours(Trainer, engine, inferred, plan, seed=2)


def _logistic(width: int) -> BuiltModel:
    from hansa.models import build_model

    built = build_model(SCHEMA.terms)
    assert built.flat.size == 2 * width + 2
    return built


def test_a_class_that_nobody_has_keeps_its_output() -> None:
    """Labels are places in the agreement's list, not in the sorted values of the data."""
    without, with_it = by_the_agreement(KNOWN), by_the_agreement(WITH_ONE_MORE)
    assert set(without.labels) == {0}
    assert set(with_it.labels) == {0, 1}
    assert np.array_equal(with_it.labels[:16], without.labels)


# --- rules of clipping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.01, 3.0, 1e38, np.nan])
@pytest.mark.parametrize("rule", get_args(ClippingKind))
def test_every_rule_of_clipping_keeps_a_unit_within_the_sensitivity(rule: ClippingKind, value: float) -> None:
    """On a model of two layers, one of which only the added unit reaches at 3."""
    engine = engine_of(ReachesSeldom())
    pair = (table(20, 1), with_unit(table(20, 1), one_unit(value), 4))
    plan = replace(plan_for(engine), clipping=rule)
    found = [max(check_neighbours(Trainer, engine, pair, plan, seed)) for seed in range(3)]
    if np.isfinite(value) and value < 1e38:
        assert max(found) > 0


def test_the_trainer_clips_by_the_rule_of_its_plan() -> None:
    """One unit whose gradient is long: the whole at C, each of two layers at C/√2, and C·‖g‖ / (‖g‖ + γ)."""
    engine, unit, norm = engine_of(ReachesSeldom()), one_unit(3.0), 0.005
    flat = engine.built.flat
    layers = np.repeat([name.startswith("seldom") for name in flat.names], flat.sizes)
    whole = np.sqrt(sum(float(g.square().sum()) for g in engine.per_record(unit.inputs, unit.labels)))
    assert whole > 5 * norm
    shares, rounding = {}, 0.0
    for rule in get_args(ClippingKind):
        plan = replace(plan_for(engine, norm), clipping=rule)
        assert plan.grid is not None
        rounding = np.sqrt(flat.size) / 2 / (plan.grid.scale * norm)
        values = Trainer(engine, unit, plan).clipped_sum(np.array([0])).values / (plan.grid.scale * norm)
        shares[rule] = [float(np.linalg.norm(part)) for part in (values, values[layers], values[~layers])]
    most = 1 - MARGIN
    assert rounding < 1e-3
    assert shares["flat"][0] == pytest.approx(most, abs=rounding)
    assert shares["per-layer"] == pytest.approx([most, most / np.sqrt(2), most / np.sqrt(2)], abs=rounding)
    assert shares["automatic"][0] == pytest.approx(most * whole / (whole + 0.01), abs=rounding)
    assert shares["automatic"][0] < 0.9
