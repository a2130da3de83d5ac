"""Performance settings make training fast, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hansa.agreement import Agreement, parse_agreement
from hansa.agreement.freezing import freeze_with
from hansa.agreement.writing import agreement_toml
from hansa.errors import AgreementError, ModelError
from hansa.models import BuiltModel
from hansa.privacy.randomness import SecretRandomness
from hansa_client.data import Dataset
from hansa_client.training import Trainer, TrainerFactory, TrainingPlan, engine_for, factory
from support.classifiers import LENGTH, answers, batch, built_of, hugging_face, moved
from support.leagues import TERMS, frozen_league, table, terms_of

RECORDS = 12


def with_frozen_part(**changes: object) -> tuple[Agreement, BuiltModel, Dataset]:
    """A private league whose model is a tiny BERT of which the classifier alone is trained, and texts for it."""
    module, inputs = moved(hugging_face("bert")), batch("bert", RECORDS)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("classifier" in name)
    built = built_of(module, inputs)
    agreement = terms_of(privacy={"sampling_rate": 1.0, **changes})
    data = Dataset(
        inputs=inputs,
        labels=answers(RECORDS),
        units=np.arange(RECORDS, dtype=np.int64),
        unit_ids=tuple(map(str, range(RECORDS))),
        groups={},
    )
    return freeze_with(agreement, built, built.initial_vector()), built, data


def seen_by_first_layer(built: BuiltModel) -> list[int]:
    seen: list[int] = []
    query = built.module.model.bert.encoder.layer[0].attention.self.query
    query.register_forward_hook(lambda _m, _i, out: seen.append(len(out)))
    return seen


def trainer_of(agreement: Agreement, built: BuiltModel, data: Dataset, **settings: object) -> Trainer:
    agreement = agreement.with_performance(**settings)
    return TrainerFactory(engine_for(built, agreement.performance), agreement).trainer("a", data)


def sums(trainer: Trainer) -> np.ndarray:
    return trainer.clipped_sum(np.arange(RECORDS)).values


# --- the settings ----------------------------------------------------------------------------------------


def test_the_fast_path_is_the_default_and_is_written_as_it_was_read() -> None:
    silent = parse_agreement(TERMS)
    assert silent.performance.physical_batch_size is None
    assert silent.performance.keep_activations == "auto"
    said = '[performance]\nphysical_batch_size = "auto"\nkeep_activations = "disk"\nprecision = "bfloat16"\n'
    read = parse_agreement(TERMS + said)
    assert (read.performance.physical_batch_size, read.performance.precision) == (None, "bfloat16")
    assert parse_agreement(agreement_toml(read)).performance == read.performance
    assert read.terms_id == silent.terms_id


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ('physical_batch_size = "fast"', "physical_batch_size"),
        ("physical_batch_size = 0", "physical_batch_size"),
        ("keep_activations = true", "keep_activations"),
        ('precision = "float16"', "precision"),
    ],
)
def test_settings_that_are_none_are_told_with_their_place(setting: str, place: str) -> None:
    with pytest.raises(AgreementError) as caught:
        parse_agreement(f"{TERMS}[performance]\n{setting}\n")
    assert [problem.place for problem in caught.value.problems] == [f"performance.{place}"]


@pytest.mark.parametrize(
    "settings",
    [
        {"physical_batch_size": 1},
        {"keep_activations": "memory"},
        {"keep_activations": "disk", "precision": "bfloat16"},
        {"precision": "bfloat16", "processes": 7},
    ],
)
def test_no_setting_changes_what_is_charged(settings: dict[str, object]) -> None:
    agreement, built, data = with_frozen_part()
    plain = TrainingPlan.of(agreement, "a")
    trainer = trainer_of(agreement, built, data, **settings)
    plan = trainer._plan
    assert (plan.spend(), plan.grid, plan.sigma, plan.divisor, plan.sampling) == (
        plain.spend(), plain.grid, plain.sigma, plain.divisor, plain.sampling,
    )  # fmt: skip
    assert trainer.clipped_sum(np.arange(3)).sensitivity == plain.grid.sensitivity  # type: ignore[union-attr]


def test_in_bfloat16_a_unit_stays_within_the_clipping_norm_that_noise_is_for() -> None:
    agreement, built, data = with_frozen_part(clipping_norm=0.01)
    trainer = trainer_of(agreement, built, data, precision="bfloat16", physical_batch_size=5)
    assert trainer._engine.precision == torch.bfloat16
    for unit in range(RECORDS):
        alone = trainer.clipped_sum(np.array([unit]))
        length = float(np.linalg.norm(alone.values))
        assert 0.98 * alone.bound < length <= alone.bound + alone.rounding / 2


# --- the microbatch --------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """What was measured; the answer is 5."""
    asked: list[tuple[int, bool]] = []

    def five(_engine: object, places: int, *, kept: bool) -> int:
        asked.append((places, kept))
        return 5

    monkeypatch.setattr(factory, "fastest_microbatch", five)
    return asked


def passes(trainer: Trainer, units: int) -> list[int]:
    return [len(records) for records, _ in trainer._microbatches(np.arange(units))]


def test_the_microbatch_is_measured_once_for_all_members(measured: list[tuple[int, bool]]) -> None:
    agreement, built = frozen_league()
    made = TrainerFactory(engine_for(built, agreement.performance), agreement)
    assert passes(made.trainer("a", table(61, 1)), 12) == [5, 5, 2]
    assert passes(made.trainer("b", table(38, 2)), 5) == [5]
    assert measured == [(0, False)]


def test_a_number_is_taken_at_its_word(measured: list[tuple[int, bool]]) -> None:
    agreement, built = frozen_league()
    trainer = trainer_of(agreement, built, table(61, 1), physical_batch_size=7)
    assert passes(trainer, 12) == [7, 5]
    assert not measured


def test_without_privacy_nothing_is_measured_or_kept(measured: list[tuple[int, bool]]) -> None:
    """So that a run that draws from a public seed gives the same bits on every machine's mood."""
    agreement, built, data = with_frozen_part()
    agreement = agreement.derive(privacy={"mechanism": "none", "epsilon": None, "delta": None})
    agreement = freeze_with(agreement, built, built.initial_vector())
    trainer = trainer_of(agreement, built, data)
    assert trainer._kept is None
    assert passes(trainer, RECORDS) == [RECORDS]
    assert not measured
    assert trainer_of(agreement, built, data, keep_activations="memory")._kept is not None


# --- activations that are kept ---------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["auto", "memory", "disk"])
def test_rounds_run_frozen_layers_once_for_each_record(
    keep: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    agreement, built, data = with_frozen_part()
    plain = trainer_of(agreement, built, data, keep_activations="off", physical_batch_size=5)
    kept = trainer_of(agreement, built, data, keep_activations=keep, physical_batch_size=5)
    seen = seen_by_first_layer(built)
    expected = sums(plain)
    assert seen == [5, 5, 2]
    seen.clear()
    assert np.abs(sums(kept) - expected).max() <= 1
    assert np.abs(sums(kept) - expected).max() <= 1
    assert seen == [5, 5, 2]
    for _ in range(2):
        kept.train(built.initial_vector(), SecretRandomness())
    assert seen == [5, 5, 2]


def test_runs_without_privacy_may_keep_too() -> None:
    agreement, built, data = with_frozen_part()
    agreement = agreement.derive(privacy={"mechanism": "none", "epsilon": None, "delta": None})
    agreement = freeze_with(agreement, built, built.initial_vector())
    plain, kept = (trainer_of(agreement, built, data, keep_activations=keep) for keep in ("off", "memory"))
    seen = seen_by_first_layer(built)
    expected = plain._plain_sum(np.arange(RECORDS))
    got = [kept._plain_sum(np.arange(RECORDS)) for _ in range(2)]
    assert seen == [RECORDS, RECORDS]
    assert all(np.allclose(one, expected, rtol=1e-4, atol=1e-5) for one in got)


def test_auto_keeps_nothing_where_there_is_nothing_to_keep_and_memory_says_so() -> None:
    agreement, built = frozen_league()
    assert trainer_of(agreement, built, table(61, 1))._kept is None
    with pytest.raises(ModelError, match="no activations to keep") as caught:
        trainer_of(agreement, built, table(61, 1), keep_activations="memory")
    assert "keep_activations" in caught.value.what_to_do


def test_auto_takes_a_quarter_of_free_memory_shared_by_processes() -> None:
    agreement, built, data = with_frozen_part()
    agreement = agreement.with_performance(processes=3, physical_batch_size=5)
    engine = engine_for(built, agreement.performance)
    assert engine.frozen_part is not None
    one = engine.frozen_part.bytes_for(RECORDS, LENGTH)
    assert one % (RECORDS * 4) == 0

    def kept(available: Callable[[], int | None], members: int) -> list[bool]:
        made = TrainerFactory(engine, agreement, available=available)
        return [made.trainer(name, data)._kept is not None for name in ("a", "b", "c")[:members]]

    assert kept(lambda: 4 * 3 * one, 2) == [True, False]
    assert kept(lambda: 4 * 3 * one - 1, 1) == [False]
    assert kept(lambda: 4 * 3 * 3 * one, 3) == [True, True, True]
    assert kept(lambda: None, 1) == [False]


def test_what_is_kept_is_forgotten_when_a_league_closes() -> None:
    agreement, built, data = with_frozen_part()
    made = TrainerFactory(engine_for(built, agreement.performance), agreement)
    kept = made.trainer("a", data)._kept
    assert kept is not None
    assert kept._values.size
    made.close()
    assert not kept._values.size
