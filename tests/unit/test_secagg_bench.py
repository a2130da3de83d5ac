"""The bench measures what it says, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa_simulations.bench import secagg as bench
from hansa_simulations.bench.figures import Bench, Figure, describe_machine
from hansa_simulations.bench.secagg_growth import plot_growth


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    assert figures
    assert all(sample > 0 for figure in figures for sample in figure.samples)
    return {figure.name: figure for figure in figures}


def test_members_are_measured() -> None:
    masked = by_name(bench.member_mask(3, 20_000, 2))
    assert set(masked) == {
        "member_mask_n3_d20000_ms", "member_expand_and_add_n3_d20000_ms", "aes_256_ctr_n3_d20000_ms",
        "member_hash_n3_d20000_ms", "member_spool_n3_d20000_ms", "upload_bytes_per_parameter",
    }  # fmt: skip
    assert masked["upload_bytes_per_parameter"].value == 4
    assert len(masked["member_mask_n3_d20000_ms"].samples) == 2
    shares = by_name(bench.member_shares(4, 1))
    assert set(shares) == {"member_shares_n4_ms", "member_open_n4_ms"}


def test_the_coordinator_is_measured() -> None:
    assert set(by_name(bench.coordinator_secrets(5, 1))) == {"coordinator_secrets_n5_ms"}
    rounds = by_name(bench.coordinator_round(4, 1000, 2, processes=1))
    assert {len(figure.samples) for figure in rounds.values()} == {2}


def test_exchanges_are_counted() -> None:
    assert [figure.value for figure in bench.steady_rounds()] == [3, 2]


def test_a_large_vector_is_measured_in_a_process_of_its_own() -> None:
    figures = by_name(bench.large_member(3, 2_000_000, 2))
    assert figures["member_upload_n3_2m_bytes"].value == 8_000_000
    assert figures["member_peak_n3_2m_bytes"].value > 16_000_000


def test_growth_is_drawn(tmp_path: Path) -> None:
    figures = tuple(bench.growth_figures((3, 10), (10_000, 100_000)))
    assert len(figures) == 4
    plot_growth(Bench("growth", {}, figures, (), (), describe_machine()), tmp_path / "growth.svg")
    assert (
        "n = 10" in (tmp_path / "growth.svg").read_text() or (tmp_path / "growth.svg").stat().st_size > 5000
    )


def test_flower_is_measured_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flwr", reason="the peer is an extra")
    measured = bench._peer(4, 2000)
    assert measured["max_error"] < 1e-3
    assert measured["upload_bytes"] == pytest.approx(16_264, abs=300)
    assert measured["server_s"] > 0
    monkeypatch.setattr(bench, "_peer", lambda members, floats: measured)
    ours = {
        name: Figure(name, name, (2.0,))
        for name in (
            "member_mask_n10_1m_ms", "member_shares_n50_ms", "coordinator_secrets_n50_ms",
            "coordinator_round_n10_1m_ms", "aes_256_ctr_n10_1m_ms", "member_expand_and_add_n10_1m_ms",
        )
    }  # fmt: skip
    figures = ours | by_name(bench.peer_figures())
    ratios = {ratio.name: ratio.value for ratio in bench._ratios(figures)}
    assert set(ratios) == {
        "member_mask_n10_1m", "member_shares_n50", "coordinator_secrets_n50", "coordinator_round_n10_1m", "share_of_aes_ctr",
    }  # fmt: skip
    assert ratios["share_of_aes_ctr"] == 1.0
    assert ratios["coordinator_round_n10_1m"] == 1e3 * measured["server_s"] / 2
