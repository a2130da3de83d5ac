"""The bench of the secure sum measures what it says, in small."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hansa.errors import EngineError
from hansa_simulations.bench import PLOT_SUFFIXES, Bench, Figure, measure_secagg, plot_growth
from hansa_simulations.bench import secagg as whole
from hansa_simulations.bench import secagg_coordinator as coordinator
from hansa_simulations.bench import secagg_member as member
from hansa_simulations.bench import secagg_peer as peer
from hansa_simulations.bench.figures import describe_machine
from hansa_simulations.bench.sampling import best_of_laps, in_turn, label_of, noting
from hansa_simulations.bench.secagg_growth import growth_grids
from hansa_simulations.bench.secure_league import SumLeague


def by_name(figures: Sequence[Figure]) -> dict[str, Figure]:
    assert figures
    assert all(sample > 0 for figure in figures for sample in figure.samples)
    return {figure.name: figure for figure in figures}


def test_a_sample_is_the_best_of_five_runs_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], list[str]()
    monkeypatch.setattr("hansa_simulations.bench.sampling.time.perf_counter", lambda: clock[0])

    def thing(name: str, seconds: list[float]) -> Any:
        def run() -> None:
            order.append(name)
            clock[0] += seconds.pop(0)

        return run

    first, second = thing("a", [5.0, 1.0, 3.0, 2.0, 4.0, 9.0, 8.0, 7.0, 9.0, 9.0]), thing("b", [2.0] * 10)
    assert in_turn(2, first, second) == [(1000.0, 7000.0), (2000.0, 2000.0)]
    assert order == ["a", "b"] * 10
    laps = [1.0]
    with noting(laps):
        clock[0] += 0.5
    assert laps == [1.0, 0.5]


def test_of_a_long_run_each_lap_is_taken_at_its_best() -> None:
    assert best_of_laps([[1.0, 9.0], [3.0, 2.0], [5.0, 4.0]]) == 3.0
    with pytest.raises(ValueError, match="longer"):
        best_of_laps([[1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("length", "label"), [(1_000_000, "n10_1m"), (100_000_000, "n10_100m"), (20_000, "n10_d20000")]
)
def test_names_tell_the_sizes(length: int, label: str) -> None:
    assert label_of(10, length) == label


def test_members_are_measured() -> None:
    masked = by_name(member.member_mask(3, 20_000, 2))
    assert set(masked) == {
        "member_mask_n3_d20000_ms", "member_expand_and_add_n3_d20000_ms", "aes_256_ctr_n3_d20000_ms",
        "member_hash_n3_d20000_ms", "member_spool_n3_d20000_ms", "upload_bytes_per_parameter",
    }  # fmt: skip
    assert masked["upload_bytes_per_parameter"].value == 4
    assert len(masked["member_mask_n3_d20000_ms"].samples) == 2
    shares = by_name(member.member_shares(4, 1))
    assert set(shares) == {"member_shares_n4_ms", "member_open_n4_ms"}


def test_hybrid_mode_is_measured_with_ml_kem(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def noted(n: int, length: int, **options: Any) -> SumLeague:
        made.append(options)
        return make_league(n, length, **options)

    make_league = member.make_league
    monkeypatch.setattr(member, "make_league", noted)
    assert set(by_name(member.member_shares(4, 1, post_quantum=True))) == {
        "member_shares_hybrid_n4_ms", "member_open_hybrid_n4_ms",
    }  # fmt: skip
    assert made == [{"post_quantum": True}]


def test_the_coordinator_is_measured() -> None:
    assert set(by_name(coordinator.coordinator_secrets(5, 1))) == {"coordinator_secrets_n5_ms"}
    rounds = by_name(coordinator.coordinator_round(4, 1000, 2, processes=1))
    assert set(rounds) == {"coordinator_round_n4_d1000_ms", "coordinator_hash_n4_d1000_ms"}
    assert {len(figure.samples) for figure in rounds.values()} == {2}


def test_secrets_that_come_out_wrong_give_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def reconstruct(*arguments: Any) -> Any:
        secrets, liars = right(*arguments)
        return secrets, (*liars, "m0")

    right = coordinator.reconstruct
    monkeypatch.setattr(coordinator, "reconstruct", reconstruct)
    with pytest.raises(EngineError, match="not those that were shared"):
        coordinator.coordinator_secrets(5, 1)


def test_exchanges_are_counted() -> None:
    assert [figure.value for figure in coordinator.steady_rounds()] == [3, 2]


def test_preparing_the_next_round_meanwhile_halves_the_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("hansa_simulations.bench.secagg_coordinator.time.sleep", waits.append)
    walls = by_name(coordinator.round_walls(4, 100, 1))
    assert set(walls) == {"round_cold_ms", "round_steady_ms", "round_steady_trusted_ms"}
    assert waits == [coordinator.CARRIER_S] * (
        6 + 3 + 4 + 2
    )  # cold, steady, cold and trusted, steady and trusted


def test_a_large_vector_is_measured_in_a_process_of_its_own() -> None:
    figures = by_name(member.large_member(3, 2_000_000, 2))
    assert figures["member_upload_n3_2m_bytes"].value == 8_000_000
    assert figures["member_peak_n3_2m_bytes"].value > 16_000_000
    assert figures["member_mask_n3_2m_s"].goal == 1.0


def test_growth_is_told_and_drawn(tmp_path: Path) -> None:
    times, each = growth_grids((3, 10), (10_000, 100_000))
    assert set(times.cells) == {(3, 10_000), (3, 100_000), (10, 10_000), (10, 100_000)}
    for (n, length), figure in times.cells.items():
        assert figure.name == f"growth_n{n}_d{length}_ms"
        assert each.cells[n, length].name == f"growth_n{n}_d{length}_ns_per_word"
        assert each.cells[n, length].value == pytest.approx(1e6 * figure.value / (n * length))
    plain = Figure("aes_256_ctr_n10_1m_ms", "plain", (5.0,))
    bench = Bench("growth", {}, (plain,), (), (), describe_machine(), (times, each))
    assert "100,000" in bench.table()
    assert PLOT_SUFFIXES
    for suffix in PLOT_SUFFIXES:
        plot_growth(bench, tmp_path / f"growth{suffix}")
        assert (tmp_path / f"growth{suffix}").stat().st_size > 5000
    drawn = ET.parse(tmp_path / "growth.svg").getroot()  # noqa: S314  # written a line above
    comments = (tmp_path / "growth.svg").read_text()
    assert drawn.tag.endswith("svg")
    assert comments.count("<!-- n = 3 -->") == comments.count("<!-- n = 10 -->") == 2  # a line and the legend
    assert "<!-- n = 30 -->" not in comments
    assert "<!-- plain AES-256-CTR -->" in comments


def test_flower_is_measured_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flwr", reason="the peer is an extra")
    measured = peer.run_secaggplus(4, 2000, rounds=2)
    assert measured["max_error"] < 1e-3
    assert measured["upload_bytes"] == pytest.approx(16_264, abs=300)
    assert len(measured["server_s"]) == 2
    assert {len(spent) for spent in measured["member_s"].values()} == {8}
    assert all(
        seconds > 0 for spent in (*measured["member_s"].values(), measured["server_s"]) for seconds in spent
    )
    monkeypatch.setattr(peer, "run_secaggplus", lambda members, floats, rounds: measured)
    theirs = by_name(peer.peer_figures())
    shares = [1e3 * seconds for seconds in measured["member_s"]["share_keys"]]
    assert theirs["flower_member_shares_n50_ms"].samples == (min(shares[:5]), min(shares[5:]))
    ours = {
        name: Figure(name, name, (2.0,))
        for name in (
            "member_mask_n10_1m_ms", "member_shares_n50_ms", "coordinator_secrets_n50_ms",
            "coordinator_round_n10_1m_ms", "aes_256_ctr_n10_1m_ms", "member_expand_and_add_n10_1m_ms",
        )
    }  # fmt: skip
    ratios = {ratio.name: ratio for ratio in whole.ratios_of(ours | theirs)}
    assert set(ratios) == {
        "member_mask_n10_1m", "member_shares_n50", "coordinator_secrets_n50", "coordinator_round_n10_1m", "share_of_aes_ctr",
    }  # fmt: skip
    assert ratios["share_of_aes_ctr"].value == 1.0
    assert ratios["coordinator_round_n10_1m"].value == 1e3 * min(measured["server_s"]) / 2
    assert (ratios["member_mask_n10_1m"].goal, ratios["share_of_aes_ctr"].goal) == (8.0, 0.6)


def test_parts_can_be_left_out_and_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def figure(name: str) -> Any:
        return lambda *_args, **_options: [Figure(name, name, (1.0,))]

    monkeypatch.setattr(
        whole, "member_mask",
        lambda *_: [Figure(f"{name}_n10_1m_ms", name, (1.0,)) for name in ("aes_256_ctr", "member_expand_and_add")],
    )  # fmt: skip
    for name in ("member_shares", "coordinator_secrets", "coordinator_round", "steady_rounds", "round_walls"):
        monkeypatch.setattr(whole, name, figure(f"{name}_ms"))
    monkeypatch.setattr(whole, "large_member", figure("large_s"))
    monkeypatch.setattr(whole, "peer_figures", figure("peer_ms"))
    monkeypatch.setattr(whole, "growth_grids", lambda *_: ())
    told: list[str] = []
    bench = measure_secagg(
        peer=False, large=False, growth=False, processes=1, repeats=2, progress=told.append
    )
    assert len(told) == 7
    assert bench.settings == {"processes": 1, "repeats": 2}
    assert {"large_s", "peer_ms"}.isdisjoint(bench.data()["figures"])  # type: ignore[call-overload]
    assert not any("Flower" in note for note in bench.notes)
    full = measure_secagg(progress=told.append)
    assert {"large_s", "peer_ms"} < set(full.data()["figures"])  # type: ignore[call-overload]
    assert any("Flower" in note for note in full.notes)
    assert "growth with n and d" in told
