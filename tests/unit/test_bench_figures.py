"""Figures, ratios and the table that every bench prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version

import pytest

from hansa_simulations.bench import Bench, Figure, Grid, Ratio
from hansa_simulations.bench.figures import UNITS, describe_machine

OURS = Figure("local_ms_per_client", "ours, per client", (0.5, 2.0, 1.0), goal=1.0)
PEER = Figure("ray_ms_per_client", "theirs, per client", (12.0, 10.0, 30.0))


def bench(
    *,
    figures: Sequence[Figure] = (OURS, PEER),
    ratios: Sequence[Ratio] | None = None,
    grids: Sequence[Grid] = (),
) -> Bench:
    return Bench(
        title="a bench",
        settings={"clients": 64},
        figures=figures,
        ratios=[Ratio("ms_per_client", "time per client", peer=PEER, ours=OURS)]
        if ratios is None
        else ratios,
        notes=("read it [with care]",),
        machine={"cores": 2, "python": "3.11"},
        grids=grids,
    )


def test_a_figure_is_the_median_of_its_samples() -> None:
    assert OURS.value == 1.0
    assert Figure("wait_s", "even number", (1.0, 4.0, 2.0, 3.0)).value == 2.5


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("local_ms_per_client", "ms"),
        ("ray_start_s", "s"),
        ("upload_bytes_per_client", "bytes"),
        ("peak_mib", "mib"),
        ("time_s_per_million_bytes", "s"),
        ("append_batched_per_s", "per_s"),
        ("int8_speedup_batch32", "times"),
        ("accuracy_lost_points", "points"),
    ],
)
def test_the_unit_is_read_from_the_name(name: str, unit: str) -> None:
    assert unit in UNITS
    assert Figure(name, "anything", (1.0,)).unit == unit


@pytest.mark.parametrize("name", ["local", "local_speed", "seconds_of_client", "local_per_ms", ""])
def test_a_name_without_a_unit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not say its unit"):
        Figure(name, "anything", (1.0,))


def test_what_was_not_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match="was not measured"):
        Figure("local_s", "anything", ())


def test_a_ratio_is_the_peer_over_ours() -> None:
    ratio = Ratio("ms_per_client", "time per client", peer=PEER, ours=OURS)
    assert ratio.value == 12.0


def test_a_ratio_of_different_units_or_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        Ratio("x", "x", peer=Figure("start_s", "start", (1.0,)), ours=OURS)
    with pytest.raises(ValueError, match="divides nothing"):
        Ratio("x", "x", peer=PEER, ours=Figure("free_ms", "free", (0.0,)))


def test_the_data_hold_figures_and_ratios_by_name_and_are_json() -> None:
    data = json.loads(json.dumps(bench().data(), allow_nan=False))
    assert data["figures"] == {"local_ms_per_client": 1.0, "ray_ms_per_client": 12.0}
    assert data["ratios"] == {"ms_per_client": 12.0}
    assert data["spread"]["ray_ms_per_client"] == {"lowest": 10.0, "highest": 30.0, "samples": 3}
    assert data["goals"] == {"local_ms_per_client": 1.0}
    assert data["met"] == {"local_ms_per_client": True}
    assert data["settings"] == {"clients": 64}
    assert data["machine"]["cores"] == 2


def test_the_table_shows_every_figure_with_spread_goal_and_ratio() -> None:
    table = bench().table()
    lines = table.splitlines()
    assert lines[0].strip() == "a bench"
    ours = next(line for line in lines if "ours, per client" in line)
    assert [cell.strip() for cell in ours.strip("│").split("│")] == [
        "ours, per client", "1.00 ms", "0.500 ms", "2.00 ms", "3", "≤ 1.00 ms", "yes",
    ]  # fmt: skip
    ratio = next(line for line in lines if "time per client" in line)
    assert "12.0 ×" in ratio
    assert "read it [with care]" in table
    assert "cores 2, python 3.11" in table
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(("value", "met"), [(0.9, True), (1.0, True), (1.1, False)])
def test_a_figure_meets_its_goal_from_below_and_a_ratio_from_above(value: float, met: bool) -> None:
    figure = Figure("x_ms", "x", (value,), goal=1.0)
    one = Figure("one_ms", "one", (1.0,))
    ratio = Ratio("r", "r", peer=one, ours=Figure("y_ms", "y", (value,)), goal=1.0)
    assert (figure.met, ratio.met) == (met, met)
    shown = bench(figures=[figure], ratios=[ratio])
    assert shown.data()["met"] == {"x_ms": met, "r": met}
    assert shown.data()["goals"] == {"x_ms": 1.0, "r": 1.0}
    assert shown.table().count("yes" if met else "no ") == 2
    assert "≥ 1.00 ×" in shown.table()


def test_without_a_goal_nothing_is_met_or_missed() -> None:
    assert PEER.met is None
    assert Ratio("r", "r", peer=PEER, ours=OURS).met is None


def test_figures_in_a_grid_are_data_and_a_table_of_their_own() -> None:
    cells = {
        (n, d): Figure(f"t_n{n}_d{d}_ms", "t", (float(n * d),)) for n, d in ((3, 10), (3, 1000), (10, 10))
    }
    shown = bench(grids=[Grid("time, ms", "n \\ d", cells)])
    assert shown.data()["figures"]["t_n3_d1000_ms"] == 3000.0  # type: ignore[index]
    assert shown.data()["spread"]["t_n10_d10_ms"]["samples"] == 1  # type: ignore[index]
    lines = shown.table().splitlines()
    start = lines.index("time, ms")
    assert lines[start + 2].replace("┃", " ").split() == ["n", "\\", "d", "10", "1,000"]
    rows = [[cell.strip() for cell in lines[start + i].strip("│").split("│")] for i in (4, 5)]
    assert rows == [["3", "30.0", "3,000"], ["10", "100", ""]]
    assert "t_n3" not in shown.table()


def test_a_bench_without_ratios_prints_no_empty_table() -> None:
    assert "peer" not in bench(ratios=[]).table()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.000 s"), (0.01234, "0.012 s"), (1.239, "1.24 s"), (12.39, "12.4 s"), (1239.4, "1,239 s"),
        (2.5e-5, "2.5e-05 s"), (3.2e9, "3.2e+09 s"),
    ],
)  # fmt: skip
def test_numbers_are_shown_with_three_digits(value: float, shown: str) -> None:
    assert shown in bench(figures=[Figure("x_s", "x", (value,))], ratios=[]).table()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("x_bytes", 16_264.0, "16,264 bytes"), ("x_bytes", 4e8, "400 MB"), ("x_bytes", 1.33e9, "1.33 GB"),
        ("x_us", 2.5, "2.50 µs"), ("x_ns", 0.6, "0.600 ns"),
    ],
)  # fmt: skip
def test_units_are_shown_as_people_write_them(name: str, value: float, shown: str) -> None:
    assert shown in bench(figures=[Figure(name, "x", (value,))], ratios=[]).table()


def test_the_machine_says_its_cores_and_versions() -> None:
    machine = describe_machine()
    assert isinstance(machine["cores"], int)
    assert machine["cores"] >= 1
    assert machine["numpy"] == version("numpy")


def test_of_a_rate_more_is_better() -> None:
    shown = bench(figures=(Figure("append_per_s", "appends", (900.0,), goal=500.0), OURS), ratios=()).table()
    assert "≥ 500 per_s" in shown
    assert "≤ 1.00 ms" in shown
