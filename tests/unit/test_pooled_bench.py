"""`hansa bench pooled`, small: a real league whose parts add up to its whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from hansa.cli.app import run
from hansa.errors import EngineError
from hansa_server.federation import Outcome
from hansa_server.rounds import RoundRecord
from hansa_simulations.bench import pooled
from hansa_simulations.bench.pooled_league import _require_whole


def test_a_step_is_taken_apart(tmp_path: Path) -> None:
    bench = pooled.measure_pooled(steps=2, repeats=1, growth=False, folder=tmp_path, members=3, length=1000)
    figures = bench.data()["figures"]
    assert isinstance(figures, dict)
    label = "ms_per_step_n3_d1k"
    parts = ("noise", "masks", "signatures", "other")
    assert set(figures) == {
        f"{name}_{label}"
        for name in (
            "protocol",
            "protocol_in_turn",
            "durable_writes",
            "protocol_in_memory",
            "protocol_cpu",
            "behind_gradient",
            *parts,
        )
    }
    together = sum(figures[f"{name}_{label}"] for name in parts)
    assert together == pytest.approx(figures[f"protocol_in_memory_{label}"])
    for name in ("noise", "masks", "signatures", "behind_gradient"):
        assert 0 < figures[f"{name}_{label}"] < figures[f"protocol_in_turn_{label}"]
    assert bench.data()["goals"] == {f"protocol_{label}": 50.0}
    assert list(tmp_path.iterdir()) == []  # what was measured with is gone
    assert "of it: durable writes" in bench.table()


def test_a_step_without_somebody_is_no_measurement() -> None:
    record = RoundRecord(1, ("a", "b"), {"c": "absent"}, {}, {}, 0.0, None)
    outcome = Outcome(state=None, rounds=[record])  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="not 3 in each of 1"):
        _require_whole(outcome, 3, 1)


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["bench", "pooled", "--folder", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert "there is no folder" in capsys.readouterr().err
