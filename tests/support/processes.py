"""A real league: enrolled by the commands that people run, its parties as processes of this machine, over TLS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hansa.identity import COORDINATOR
from hansa_server.home import read_home
from hansa_server.runs import RunRow, Runs
from support.cli import hansa
from support.leagues import TERMS, table
from support.superlinks import free_port

_MAIN = "from hansa.cli import main; main()"


def terms(names: Sequence[str], rounds: int, deadline_s: float = 120.0) -> str:
    """The small league's terms for these members, one noisy step a round."""
    members = "".join(f'[[members]]\nname = "{name}"\nunits = 40\n' for name in names)
    head, _, tail = TERMS.partition("[[members]]")
    rest = tail[tail.index("[data]") :].replace("rounds = 4", f"rounds = {rounds}\ndeadline_s = {deadline_s}")
    return head + members + rest.replace("steps = 8", f"steps = {rounds}") + "\n[secure_sum]\nretries = 3\n"


@dataclass
class RealLeague:
    """See above.

    Attributes:
        folder: of everything.
        names: of the members.
        rounds: of a run.
    """

    folder: Path
    names: tuple[str, ...]
    rounds: int = 4
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def enrol(self) -> None:
        """Everything up to where processes may be started."""
        port, ledger = free_port(), free_port()
        folder = self.folder
        for name in ("keys", "links", "signatures"):
            (folder / name).mkdir()
        self._do("ca", "init", folder / "ca", "--name", "North Sea hospitals")
        for name in (*self.names, COORDINATOR):
            self._enrol_one(name, port)
        (folder / "league.toml").write_text(self.text())
        frozen = folder / "league.frozen.toml"
        self._do("agreement", "freeze", folder / "league.toml", "--keys", folder / "keys")
        for name in self.names:
            signature = folder / "signatures" / f"league.frozen.{name}.sig"
            self._do("agreement", "sign", frozen, "--home", self.home(name), "--out", signature)
            self._do(
                "node", "grant", "--home", self.home(name), "--officer-key",
                folder / f"officer-{name}" / f"{name}.officer.key",
                "--epsilon", "20", "--delta", "0.01", "--unit", "record", "--max-records", "1",
            )  # fmt: skip
        from hansa_client.node_file import read_home as read_node

        key = read_node(self.home(COORDINATOR)).log_signer().key.text
        self._do(
            "agreement", "keys", frozen, "--signatures", folder / "signatures", "--federation-log", key,
            "--out", folder / "keys.json",
        )  # fmt: skip
        for name in self.names:
            self._do("node", "accept", frozen, "--keys", folder / "keys.json", "--home", self.home(name))
        self._do(
            "coordinator", "init", frozen, "--home", self.home(COORDINATOR), "--keys", folder / "keys.json",
            "--links", folder / "links", "--listen", f"127.0.0.1:{port}", "--ledger", f"127.0.0.1:{ledger}",
        )  # fmt: skip

    def text(self) -> str:
        """The terms, before anything is frozen."""
        return terms(self.names, self.rounds)

    def records(self, name: str) -> str:
        """A member's records, as CSV."""
        made = table(40, self.names.index(name))
        lines = ["x,y,side,outcome"]
        for point, label, side in zip(made.inputs["table"], made.labels, made.groups["side"], strict=True):
            lines.append(f"{point[0]:.6f},{point[1]:.6f},{('left', 'right')[side]},{('no', 'yes')[label]}")
        return "\n".join(lines) + "\n"

    def home(self, name: str) -> Path:
        return self.folder / "homes" / name

    @property
    def runs(self) -> Runs:
        return Runs(read_home(self.home(COORDINATOR)).runs)

    def start(self, *names: str) -> None:
        """Start the process of a party; what it writes goes to a file."""
        for name in names:
            command = ["coordinator", "start"] if name == COORDINATOR else ["node", "start"]
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-c", _MAIN, *command, "--home", str(self.home(name))],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"},
                )  # fmt: skip

    def kill(self, name: str) -> None:
        """End a process as a power failure would."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> str:
        """What a party has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, true: Callable[[], bool], timeout_s: float = 240.0) -> None:
        """Wait for something; fails with what everybody has written."""
        end = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > end:
                logs = "\n".join(
                    f"— {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self._logs()
                )
                raise AssertionError(f"it did not come to pass within {timeout_s} s\n{logs}")
            time.sleep(0.1)

    def row(self) -> RunRow:
        """The newest run."""
        return self.runs.one()

    def stop(self) -> dict[str, int]:
        """SIGTERM to everybody; their exit statuses."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: process.wait(60) for name, process in self.processes.items()}
        self.processes.clear()
        return ended

    def _logs(self) -> list[Path]:
        return sorted(
            [*self.folder.glob("*.log"), *self.folder.glob("homes/coordinator/coordinator/**/*.log")]
        )

    def _enrol_one(self, name: str, port: int) -> None:
        folder, home = self.folder, self.home(name)
        if name == COORDINATOR:
            more: list[str | Path] = ["--role", COORDINATOR]
            addresses = ["--address", "127.0.0.1"]
        else:
            self._do("node", "officer", name, "--out", folder / f"officer-{name}")
            more = [
                "--officer",
                folder / f"officer-{name}" / f"{name}.officer.pub",
                "--superlink",
                f"127.0.0.1:{port}",
            ]
            addresses = []
        self._do("node", "init", name, "--home", home, *more)
        (folder / "keys" / f"{name}.pub").write_bytes((home / f"{name}.pub").read_bytes())
        certificate = folder / f"{name}.crt"
        self._do(
            "ca", "issue", folder / "ca", "--request", home / f"{name}.csr", "--member", name,
            "--out", certificate, *addresses,
        )  # fmt: skip
        self._do(
            "node", "certificate", certificate, "--home", home, "--ca", folder / "ca" / "ca.crt",
            "--crl", folder / "ca" / "ca.crl",
        )  # fmt: skip
        if name == COORDINATOR:
            return
        (folder / "links" / f"{name}.link").write_bytes((home / f"{name}.link").read_bytes())
        data = self._data(name)
        settings = (home / "node.toml").read_text().replace('# data = "/srv/hansa/data"', f'data = "{data}"')
        (home / "node.toml").write_text(settings)

    def _data(self, name: str) -> Path:
        path = self.folder / f"{name}.csv"
        path.write_text(self.records(name))
        return path

    @staticmethod
    def _do(*arguments: str | Path) -> None:
        called = hansa(*arguments)
        assert called.status == 0, (arguments, called)
