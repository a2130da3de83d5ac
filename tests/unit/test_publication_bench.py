"""The bench of publication: that it measures what it names, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hansa.errors import UsageError
from hansa_simulations.bench.publication import measure_publication
from hansa_simulations.bench.publication_model import ABSTRACTS, _abstracts, _pieces, medquad_task, quick_task

WANTED = {
    "int8_bytes_over_fp32",
    "int8_speedup_batch1",
    "int8_speedup_batch32",
    "accuracy_lost_points",
    "worst_group_lost_points",
    "student_bytes_over_fp32",
    "student_speedup_batch1",
    "student_speedup_batch32",
    "student_small_vocabulary_bytes_over_fp32",
    "student_accuracy_lost_points",
}


def test_the_figures_that_were_promised_are_measured() -> None:
    told: list[str] = []
    bench = measure_publication(
        None, records=32, student_steps=1, repeats=1, quick=True, progress=told.append
    )
    figures = {figure.name: figure for figure in bench.all_figures}
    assert set(figures) >= WANTED
    assert 0 < figures["int8_bytes_over_fp32"].value < 1
    assert figures["student_bytes_over_fp32"].value < figures["int8_bytes_over_fp32"].value
    assert not figures["int8_bytes_over_fp32"].more_is_better
    assert figures["int8_speedup_batch32"].more_is_better
    assert figures["worst_group_lost_points"].value >= figures["accuracy_lost_points"].value
    assert not any(figure.goal for figure in figures.values())  # of a model that is too small to have goals
    assert len(told) == 4


def test_texts_are_measured_once_each_and_with_their_own_labels() -> None:
    task = quick_task(16)
    rows = np.concatenate([rows for rows, _ in task.batches()])
    assert sorted(rows.tolist()) == list(range(16))
    assert len(task.labels) == len(task.groups) == len(task.texts) == 16
    assert task.longest["input_ids"].shape == (1, 32)


def test_data_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not in"):
        medquad_task(tmp_path, 32)


def test_abstracts_are_cut_into_texts_of_a_few_sentences(tmp_path: Path) -> None:
    path = tmp_path / ABSTRACTS
    path.write_text('condition_label,medical_abstract\n1,"One. Two. Three. Four."\n2,Five.\n')
    assert _pieces(_abstracts(path)) == ("One. Two. Three.", "Four.", "Five.")
