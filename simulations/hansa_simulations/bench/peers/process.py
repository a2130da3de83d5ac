"""Run a peer in a process of its own, and read what it measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hansa.errors import EngineError

# Peers must not report home, and must find no settings of this user's.
_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
_LAST_LINES = 15


def run_peer(module: str, arguments: Sequence[str], *, timeout_s: float) -> dict[str, Any]:
    """Run ``python -m module *arguments --out FILE`` and read FILE.

    Args:
        module: a module of this package with a ``main`` behind ``__main__``.
        arguments: its command line, without ``--out``.
        timeout_s: how long it may take.

    Returns:
        The JSON object that it wrote.

    Raises:
        EngineError: it failed, took too long or wrote nothing; with the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="hansa-peer-") as folder:
        out = Path(folder) / "measured.json"
        log = Path(folder) / "log.txt"
        environment = {**os.environ, **_QUIET, "FLWR_HOME": folder}
        command = [sys.executable, "-m", module, *arguments, "--out", str(out)]
        status = _status_of(command, environment, log, timeout_s)
        if status is None:
            raise EngineError(f"{module} took longer than {timeout_s:g} s\n{_end_of(log)}")
        if status != 0 or not out.exists():
            raise EngineError(f"{module} ended with status {status}\n{_end_of(log)}")
        try:
            measured = json.loads(out.read_text())
        except ValueError:
            measured = None
        if not isinstance(measured, dict):
            raise EngineError(f"{module} wrote no JSON object\n{_end_of(log)}")
        return measured


def _status_of(
    command: Sequence[str], environment: Mapping[str, str], log: Path, timeout_s: float
) -> int | None:
    """The exit status of a command, or `None` if it had to be ended; it leaves no processes behind then."""
    with log.open("wb") as stream:
        # a session of its own: Ray starts processes that would outlive a peer that is killed alone
        peer = subprocess.Popen(  # noqa: S603  # the command is built here, of our own modules
            command, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
        try:
            return peer.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if peer.poll() is None:  # also when a person interrupts the bench
                os.killpg(peer.pid, signal.SIGKILL)
                peer.wait()


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
