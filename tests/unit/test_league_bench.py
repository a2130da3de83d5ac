"""What a bench of leagues makes of what it has seen; the leagues themselves run in `tests/e2e/test_league_killed.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from hansa.agreement import parse_agreement
from hansa_simulations.bench.chaos import victims
from hansa_simulations.bench.league import Measured, figures_of_memory, figures_of_rounds, model_of
from hansa_simulations.bench.league_soak import Soak, slope
from hansa_simulations.processes.league import LINK, RUN, terms
from hansa_simulations.processes.watching import (
    PeakMemory,
    children,
    command,
    descriptor_count,
    resident_bytes,
    thread_count,
)


def test_a_round_is_divided_by_three_exchanges_that_do_nothing() -> None:
    found = Measured(10_000_000, rounds=[6.0, 9.0], noops=[2.0, 1.0, 3.0])
    figures = {figure.name: figure for figure in figures_of_rounds("10m", found)}
    assert figures["round_s_10m"].value == 7.5
    assert figures["round_s_10m"].met is True
    over = figures["round_over_three_noop_10m"]
    assert over.samples == (1.0, 1.5)
    assert over.met is True
    assert not over.more_is_better
    slow = figures_of_rounds("10m", Measured(1, rounds=[60.0], noops=[2.0]))
    assert [figure.met for figure in slow] == [False, None, False]


def test_memory_is_told_of_both_processes_together_and_of_each() -> None:
    found = Measured(10_000_000, peak_bytes=10**9, link_bytes=7 * 10**8, run_bytes=4 * 10**8)
    figures = {figure.name: figure for figure in figures_of_memory("10m", found)}
    both = figures.pop("peak_rss_bytes_5x10m")
    assert (both.value, both.met) == (1e9, True)
    assert {name: (one.value, one.met) for name, one in figures.items()} == {
        "peak_rss_link_bytes_5x10m": (7e8, None),
        "peak_rss_run_bytes_5x10m": (4e8, None),
    }


def test_agreements_of_every_size_are_read() -> None:
    for size in ("10k", "100k", "10m", "25m", "100m"):
        assert parse_agreement(terms(("a", "b", "c"), 3, model_of(size))).terms.training.rounds == 3


def test_who_is_killed_is_of_every_kind_and_the_same_for_a_seed() -> None:
    plan = victims(200, ("a", "b", "c"), 1)
    assert plan == victims(200, ("a", "b", "c"), 1) != victims(200, ("a",), 2)
    kinds = Counter("member" if who in "abc" else who for who, _ in plan)
    assert set(kinds) == {"member", RUN, LINK}
    assert min(kinds.values()) >= 66
    assert len({seconds for _, seconds in plan}) > 190


def test_a_slope_is_that_of_least_squares() -> None:
    assert slope([5 + 3 * n for n in range(50)]) == pytest.approx(3)
    rng = np.random.default_rng(1)
    assert abs(slope([int(n) for n in 1e6 + rng.normal(0, 10, 1000)])) < 1


def test_what_grows_over_a_run_is_told_of_each_party() -> None:
    found = Soak(
        memory={"grows": [n * 100 for n in range(30)], "settles": [min(n, 10) for n in range(30)], "came late": [1] * 15},
        threads=[4] * 30,
        descriptors=[9, 9, 12, *[9] * 25, 9, 30],  # connections that come and go
    )  # fmt: skip
    assert found.slopes == {"grows": pytest.approx(100), "settles": pytest.approx(0)}
    assert (found.more(found.threads), found.more(found.descriptors)) == (0, 0)
    assert found.more(list(range(60))) > 30


def test_the_system_is_asked_about_processes() -> None:
    sleeping = "import time; x = bytearray(50_000_000); print(1, flush=True); time.sleep(600)"
    with (
        subprocess.Popen([sys.executable, "-c", sleeping], stdout=subprocess.PIPE) as other,
        PeakMemory(lambda: (other.pid,), every_s=0.001) as peak,
    ):
        assert other.stdout is not None
        other.stdout.readline()
        assert other.pid in children(os.getpid())
        assert "bytearray" in command(other.pid)
        assert 50_000_000 < resident_bytes(other.pid) < 500_000_000
        assert (thread_count(other.pid), descriptor_count(other.pid) >= 3) == (1, True)
        assert peak.now() >= 50_000_000
        assert peak.now_of_each() == {other.pid: peak.now()}
        other.kill()
    assert set(peak.of_each) <= {other.pid}
    assert peak.bytes == peak.of_each.get(other.pid, 0)
    assert (command(other.pid), resident_bytes(other.pid), thread_count(other.pid)) == ("", 0, 0)
    assert children(other.pid) == []
