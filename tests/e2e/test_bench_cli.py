"""`hansa bench engine` as a person calls it, Flower's Ray runtime included."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("ray")

COMMAND = [sys.executable, "-c", "from hansa.cli import main; main()", "bench", "engine"]


def hansa_bench_engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=280, check=False)


def test_it_measures_both_engines_and_prints_one_envelope() -> None:
    done = hansa_bench_engine("--clients", "3", "--floats", "50", "--rounds", "2", "--format", "json")
    assert done.returncode == 0, done.stderr
    envelope = json.loads(done.stdout)
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
    done = hansa_bench_engine(*arguments, "--format", "json")
    assert done.returncode == 2
    envelope = json.loads(done.stdout)
    assert envelope["status"] == "bad_input"
    assert arguments[0] in envelope["error"]["cause"]
