"""The bench of logs measures what it says, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from hansa.errors import EngineError
from hansa_server.history import History
from hansa_simulations.bench import ledger as bench
from hansa_simulations.bench import ledger_round
from support.cli import hansa


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SINGLES", 5)
    monkeypatch.setattr(bench, "WARM_UP", 2)
    monkeypatch.setattr(bench, "PROOFS", 20)
    monkeypatch.setattr(bench, "BATCH", 300)
    monkeypatch.setattr(bench, "measure_rounds", partial(ledger_round.measure_rounds, rounds=3))


def test_a_run_that_lost_an_entry_gives_no_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(History, "aggregate", lambda *_: None)
    with pytest.raises(EngineError, match="the federation's log has 30 entries, not 33"):
        ledger_round.measure_rounds(tmp_path, 1, rounds=3)


@pytest.mark.usefixtures("small")
def test_every_figure_is_there_and_above_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    measured = bench.measure_ledger(1000, processes=1, repeats=2, folder=tmp_path, progress=told.append)
    figures = {figure.name: figure for figure in measured.figures}
    assert set(figures) == {
        "raw_fsync_ms", "append_single_ms", "append_single_over_raw_fsync", "append_batched_per_s", "proof_1k_ms", "proof_1k_hashes_count",
        "verify_10_unsigned_s", "verify_100_unsigned_s", "verify_1k_unsigned_s",
        "verify_10_signed_s", "verify_100_signed_s", "verify_1k_signed_s",
        "round_without_ledger_ms", "round_with_ledger_ms", "round_overhead_ms",
    }  # fmt: skip
    added = figures.pop("round_overhead_ms")
    assert all(sample > 0 for figure in figures.values() for sample in figure.samples)
    sides = zip(
        figures["round_with_ledger_ms"].samples, figures["round_without_ledger_ms"].samples, strict=True
    )
    assert list(added.samples) == [one - other for one, other in sides]
    share = figures["append_single_over_raw_fsync"]
    assert (share.unit, share.goal, share.met) == ("times", 0.6, share.value >= 0.6)
    assert figures["proof_1k_hashes_count"].value == 10
    assert len(figures["append_single_ms"].samples) == 2
    (ratio,) = measured.ratios
    assert ratio.name == "append_single_over_raw_fsync"
    assert ratio.value == figures["raw_fsync_ms"].value / figures["append_single_ms"].value
    assert len(told) == 7
    assert list(tmp_path.iterdir()) == []
    shown = " ".join(measured.table().split())
    assert "Verification of one signed entry" in shown
    assert "at 1,000" in shown


@pytest.mark.usefixtures("small")
def test_signatures_can_be_left_out(tmp_path: Path) -> None:
    names = [f.name for f in bench.measure_ledger(100, repeats=1, signatures=False, folder=tmp_path).figures]
    assert "verify_100_unsigned_s" in names
    assert not any("_signed_" in name for name in names)


def test_goals_are_those_of_a_million_entries() -> None:
    assert [bench.size_label(count) for count in (1_000_000, 2_000_000, 250_000, 1234, 0)] == [
        "1m", "2m", "250k", "1234", "0",
    ]  # fmt: skip
    for count in (1_000_000, 3_000_000, 250_000, 1234):
        assert bench.label_size(bench.size_label(count)) == count


def test_entries_of_the_bench_are_real_ones(tmp_path: Path) -> None:
    from hansa.ledger import GivenEntries, SignedEntry

    writers = bench._Writers()
    entries = list(writers.signed(7))
    for index, data in enumerate(entries):
        writers.keys.verify(SignedEntry.parse(data), index)
    assert len(set(entries)) == 7
    assert all(600 < len(data) < 1200 for data in entries)
    assert [SignedEntry.parse(data).statements for data in writers.unsigned(3)] == [()] * 3
    assert GivenEntries(entries).size() == 7


@pytest.mark.usefixtures("small")
def test_the_command_prints_one_envelope(tmp_path: Path) -> None:
    done = hansa(
        "bench", "ledger", "--entries", "200", "--repeats", "1", "--processes", "1", "--folder", tmp_path, "--format", "json"
    )  # fmt: skip
    assert done.status == 0, done.stderr
    data = done.data
    assert data["settings"] == {"entries": 200, "processes": 1, "repeats": 1}
    assert data["ratios"]["append_single_over_raw_fsync"] > 0
    assert data["figures"]["append_batched_per_s"] > 0
    assert "raw fsync" in done.stderr


@pytest.mark.parametrize("arguments", [["--entries", "99"], ["--processes", "0"], ["--repeats", "0"]])
def test_sizes_out_of_range_are_bad_input(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from hansa.cli import main; main()", "bench", "ledger", *arguments]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert arguments[0] in json.loads(done.stdout)["error"]["cause"]
