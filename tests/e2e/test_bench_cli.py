"""`hansa bench …` as a person calls it, Flower's Ray runtime included."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa_simulations.bench import sampling, secagg, secagg_coordinator, secagg_member
from support.cli import hansa

pytest.importorskip("ray")


def test_it_measures_both_engines_and_prints_one_envelope() -> None:
    done = hansa("bench", "engine", "--clients", "3", "--floats", "50", "--rounds", "2", "--format", "json")
    assert done.status == 0, done.stderr
    envelope = done.envelope
    assert envelope["status"] == "done"
    figures, ratios = envelope["data"]["figures"], envelope["data"]["ratios"]
    assert set(figures) == {
        "local_ms_per_client", "ray_ms_per_client", "local_start_s", "ray_start_s", "upload_bytes_per_client",
    }  # fmt: skip
    assert all(value > 0 for value in figures.values())
    assert ratios["ms_per_client"] == figures["ray_ms_per_client"] / figures["local_ms_per_client"]
    assert envelope["data"]["spread"]["ray_ms_per_client"]["samples"] == 2
    assert envelope["data"]["machine"]["flwr"].startswith("1.41.")


@pytest.mark.parametrize(
    "arguments",
    [["--clients", "2"], ["--clients", "101"], ["--floats", "0"], ["--rounds", "0"], ["--rounds", "x"]],
)
def test_sizes_out_of_range_are_bad_input(arguments: list[str]) -> None:
    done = hansa("bench", "engine", *arguments, "--format", "json")
    assert done.status == 2
    assert done.envelope["status"] == "bad_input"
    assert arguments[0] in done.envelope["error"]["cause"]


def test_the_secure_sum_is_measured_and_told_in_one_envelope(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (secagg, sampling):
        monkeypatch.setattr(room, "MILLION", 20_000)  # figures keep their names
    for room in (secagg_coordinator, secagg_member):
        monkeypatch.setattr(room, "BEST_OF", 1)
    small = ("--no-peer", "--no-large", "--no-growth", "--processes", "1", "--repeats", "1")
    done = hansa("bench", "secagg", *small, "--format", "json")
    assert done.status == 0, done.stderr
    assert done.stderr == ""  # progress is for terminals
    assert done.envelope["status"] == "done"
    figures, ratios = done.data["figures"], done.data["ratios"]
    assert set(figures) == {
        "member_mask_n10_1m_ms", "member_expand_and_add_n10_1m_ms", "aes_256_ctr_n10_1m_ms", "member_hash_n10_1m_ms",
        "member_spool_n10_1m_ms", "upload_bytes_per_parameter", "member_shares_n50_ms", "member_open_n50_ms",
        "member_shares_hybrid_n50_ms", "member_open_hybrid_n50_ms", "coordinator_secrets_n50_ms",
        "coordinator_round_n10_1m_ms", "coordinator_hash_n10_1m_ms", "steady_round_malicious_exchanges_count",
        "steady_round_honest_but_curious_exchanges_count", "round_cold_ms", "round_steady_ms", "round_steady_trusted_ms",
    }  # fmt: skip
    assert all(isinstance(value, float) and value > 0 for value in figures.values())
    assert figures["upload_bytes_per_parameter"] == 4.0
    assert figures["round_steady_ms"] > 150  # three exchanges of 50 ms
    assert figures["round_cold_ms"] > 300
    assert set(ratios) == {"share_of_aes_ctr"}
    assert ratios["share_of_aes_ctr"] == (
        figures["aes_256_ctr_n10_1m_ms"] / figures["member_expand_and_add_n10_1m_ms"]
    )
    assert done.data["goals"]["member_shares_n50_ms"] == 10.0
    assert done.data["met"]["steady_round_malicious_exchanges_count"] is True
    assert done.data["settings"] == {"processes": 1, "repeats": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot", "growth.png", "--no-growth"], "--no-growth"),
        (["--plot", "growth.txt"], ".pdf, .png, .svg"),
        (["--plot", "nowhere/growth.png"], "no folder nowhere"),
        (["--repeats", "0"], "--repeats"),
        (["--processes", "0"], "--processes"),
    ],
)
def test_what_cannot_be_measured_or_drawn_is_told_before_measuring(arguments: list[str], words: str) -> None:
    done = hansa("bench", "secagg", *arguments, "--format", "json")
    assert done.status == 2
    assert done.envelope["error"]["code"] == "HANSA-104"
    assert words in done.envelope["error"]["cause"]


def test_the_growth_is_drawn_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hansa_simulations import bench
    from hansa_simulations.bench.figures import describe_machine
    from hansa_simulations.bench.secagg_growth import growth_grids

    asked = []

    def measured(**options: object) -> bench.Bench:
        asked.append(options)
        return bench.Bench("small", {}, (), (), (), describe_machine(), growth_grids((3,), (1000, 2000)))

    monkeypatch.setattr(bench, "measure_secagg", measured)
    plot = tmp_path / "growth.png"
    done = hansa("bench", "secagg", "--no-peer", "--repeats", "2", "--plot", plot)
    assert done.status == 0, done.stderr
    assert done.stdout.endswith(f"Wrote {plot}.\n")
    assert plot.read_bytes().startswith(b"\x89PNG")
    (options,) = asked
    assert (options["peer"], options["large"], options["growth"]) == (False, True, True)
    assert (options["processes"], options["repeats"]) == (2, 2)
    full = tmp_path / "folder.png"
    full.mkdir()
    done = hansa("bench", "secagg", "--plot", full)
    assert done.status == 2
    assert f"cannot write {full}" in done.stderr
