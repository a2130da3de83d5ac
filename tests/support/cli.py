"""The real command line, and a league whose data are files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from hansa.cli.app import run
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


def hansa(*arguments: str | Path) -> Called:
    """Run a command line of `hansa` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
    return Called(int(status), out.getvalue(), err.getvalue())


# A process that was started in the background of a shell ignores Ctrl-C, and so would all that it starts.
_HEARS_CTRL_C = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from hansa.cli import main; main()"
)


def hansa_process(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start `hansa` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _HEARS_CTRL_C, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


_IN_TURN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from support.cli import hansa
with open(sys.argv[2], "x") as told:
    json.dump([vars(hansa(*one)) for one in json.load(sys.stdin)], told)
"""


def in_another_process(told: Path, *commands: Sequence[str | Path]) -> list[Called]:
    """Run command lines of `hansa` one after the other in one process that is not this one.

    For those that start processes, which this one would have to clear up, and need none of their own: a process loads torch once.

    Args:
        told: a new file, through which the process says what came of them.
        commands: the arguments of each.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _IN_TURN, Path(__file__).parents[1], told],
        input=json.dumps([[str(argument) for argument in one] for one in commands]),
        capture_output=True,
        text=True,
        check=False,
        timeout=1000,
    )
    assert ran.returncode == 0, ran.stderr
    return [Called(**one) for one in json.loads(told.read_text())]


def finished(process: subprocess.Popen[str], timeout_s: float = 1000) -> Called:
    """What a started command left behind."""
    stdout, stderr = process.communicate(timeout=timeout_s)
    return Called(process.returncode, stdout, stderr)


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
