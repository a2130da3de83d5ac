"""The real command line, and a league whose data are files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from support.leagues import TERMS, table

SIMULATION = """
[simulation.partition]
kind = "files"
files = { a = "a.csv", b = "b.csv", c = "c.csv" }

[simulation.test]
share = 0.3
"""


@dataclass(frozen=True)
class Called:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The JSON on stdout."""
        value: dict[str, Any] = json.loads(self.stdout)
        return value

    @property
    def data(self) -> dict[str, Any]:
        """The result in the envelope; fails with what the command said where there is none."""
        assert "data" in self.envelope, self.stdout + self.stderr
        value: dict[str, Any] = self.envelope["data"]
        return value


def hansa(*arguments: str | Path, timeout_s: float = 280, **environment: str) -> Called:
    """Run `hansa` in a process of its own."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", "from hansa.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout_s, env=settings, check=False,
    )  # fmt: skip
    return Called(done.returncode, done.stdout, done.stderr)


def league_on_disk(folder: Path, extra: str = "", terms: str = TERMS) -> Path:
    """Write three members' CSV files and an agreement that names them; returns the agreement's path."""
    for seed, (name, records) in enumerate({"a": 90, "b": 60, "c": 36}.items()):
        data = table(records, seed)
        lines = ["x,y,side,outcome"]
        for point, label, side in zip(data.inputs["table"], data.labels, data.groups["side"], strict=True):
            lines.append(f"{point[0]:.6f},{point[1]:.6f},{('left', 'right')[side]},{('no', 'yes')[label]}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    path = folder / "agreement.toml"
    path.write_text(terms + SIMULATION + extra)
    return path


def final_weights(folder: Path) -> np.ndarray:
    """The published weights of a run's output folder, flat, by name."""
    arrays = load_file(folder / "model.safetensors")
    return np.concatenate([arrays[name].astype(np.float64).flatten() for name in sorted(arrays)])
