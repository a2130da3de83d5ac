"""`hansa bench training` as a person calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import finished, hansa, hansa_process


def test_training_is_measured_in_small_and_told_in_one_envelope(tmp_path: Path) -> None:
    plot = tmp_path / "growth.svg"
    small = ("--quick", "--repeats", "1", "--no-memory", "--plot", str(plot), "--format", "json")
    done = finished(hansa_process("bench", "training", *small))
    assert done.status == 0, done.stderr
    assert done.stderr == ""  # progress is for terminals
    figures = done.data["figures"]
    wanted = {
        "full_dp_over_plain_cpu", "ffa_lora_dp_over_plain_cpu", "opacus_hooks_over_plain_cpu", "noise_draws_per_s",
    }  # fmt: skip
    assert wanted < set(figures)
    assert all(isinstance(value, float) and value > 0 for value in figures.values())
    assert done.data["settings"]["quick"] == 1
    assert done.data["ratios"] == {}
    assert "<svg" in plot.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot", "growth.png", "--no-growth"], "--no-growth"),
        (["--plot", "growth.png", "--only", "cpu"], "--only"),
        (["--plot", "growth.txt"], ".pdf, .png, .svg"),
        (["--plot", "nowhere/growth.png"], "no folder nowhere"),
        (["--repeats", "0"], "--repeats"),
    ],
)
def test_what_cannot_be_measured_or_drawn_is_told_before_measuring(arguments: list[str], words: str) -> None:
    done = hansa("bench", "training", *arguments, "--format", "json")
    assert done.status == 2
    assert done.envelope["error"]["code"] == "HANSA-104"
    assert words in done.envelope["error"]["cause"]


def test_options_reach_the_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hansa_simulations import bench
    from hansa_simulations.bench.figures import describe_machine
    from hansa_simulations.bench.training import PARTS

    asked = []

    def measured(**options: object) -> bench.Bench:
        asked.append(options)
        return bench.Bench("small", {}, (), (), ("Left out: GPU.",), describe_machine())

    monkeypatch.setattr(bench, "measure_training", measured)
    done = hansa("bench", "training", "--no-opacus", "--no-memory", "--no-growth", "--repeats", "3")
    assert done.status == 0, done.stderr
    assert "Left out: GPU." in done.stdout
    full = tmp_path / "folder.png"
    full.mkdir()
    monkeypatch.setattr(bench, "plot_training_growth", lambda _bench, path: path.write_bytes(b""))
    done = hansa("bench", "training", "--only", "noise", "--only", "growth", "--plot", full)
    assert done.status == 2
    assert f"cannot write {full}" in done.stderr
    for options in asked:
        del options["progress"]
    assert asked == [
        {"repeats": 3, "opacus": False, "memory": False, "growth": False, "only": PARTS, "quick": False},
        {
            "repeats": 9,
            "opacus": True,
            "memory": True,
            "growth": True,
            "only": ("noise", "growth"),
            "quick": False,
        },
    ]
