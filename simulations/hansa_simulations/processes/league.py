"""A league of real processes on this machine, for benches and tests: enrolled by the commands that people run, over TLS.

Each party has a home of its own in one folder. Nodes are `hansa node start`, or a program that takes a home and trains nothing
(`hansa_simulations.processes.node`), which starts in a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hansa.errors import EngineError
from hansa.identity import COORDINATOR
from hansa.ledger import LogView, SignedEntry, SqliteLogStore
from hansa.ledger.kinds import Kind
from hansa_client.node_file import read_home as read_node
from hansa_server.home import CoordinatorHome, read_home
from hansa_server.runs import RunRow, Runs
from hansa_simulations.processes.ports import free_port
from hansa_simulations.processes.watching import children, command

RECORDS = 40  # of each member
RUN, LINK, EXEC = "serverapp", "superlink", "superexec"  # what the coordinator starts
PARTS = {  # by a word of their command lines
    RUN: "flwr-serverapp",
    LINK: "hansa_server.flower_app.superlink",
    EXEC: "hansa_server.flower_app.superexec",
}
HANSA = "from hansa.cli import main; main()"
TRAINS_NOTHING = "hansa_simulations.processes.node"
_COMMANDS = """
import json, sys
from hansa.cli.app import run
for arguments in json.load(sys.stdin):
    status = run(arguments)
    if status:
        sys.exit(f"hansa {' '.join(arguments)}: status {status}")
"""
Commands = Sequence[Sequence[str]]


def terms(
    names: Sequence[str], rounds: int, model: str = 'kind = "logistic"', *, deadline_s: float = 120.0
) -> str:
    """An agreement of members with 40 records each, and one noisy step a round."""
    members = "".join(f'[[members]]\nname = "{name}"\nunits = {RECORDS}\n' for name in names)
    return f"""
[task]
name = "A league of processes"
labels = ["no", "yes"]
{members}
[data]
label = "outcome"
[[data.features]]
kind = "number"
name = "x"
range = [-1, 1]
[[data.features]]
kind = "number"
name = "y"
range = [-1, 1]
[model]
{model}
[training]
rounds = {rounds}
learning_rate = 0.5
deadline_s = {deadline_s}
[privacy]
mechanism = "local"
epsilon = 5.0
delta = 1e-3
clipping_norm = 1.0
sampling_rate = 0.5
steps = {rounds}
[secure_sum]
retries = 3
"""


def in_one_process(commands: Commands) -> None:
    """Give commands to `hansa`, in one process of their own.

    Raises:
        EngineError: one failed.
    """
    ran = subprocess.run(  # noqa: S603  # this interpreter, and a program of this file
        [sys.executable, "-c", _COMMANDS],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise EngineError(f"a league of processes could not be made: {ran.stderr[-2000:]}")


@dataclass
class ProcessLeague:
    """See above.

    Attributes:
        folder: of everything; a new one.
        names: of the members.
        terms: the agreement that they sign.
        does: gives commands to `hansa`.
        node: the module that is a node's process; empty for `hansa node start`.
        processes: those that run, by party.
    """

    folder: Path
    names: tuple[str, ...]
    terms: str
    does: Callable[[Commands], None] = in_one_process
    node: str = TRAINS_NOTHING
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def enrol(self) -> None:
        """Everything up to where processes may be started."""
        self.address, ledger = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        folder = self.folder
        for name in ("keys", "links", "signatures"):
            (folder / name).mkdir(parents=True)
        (folder / "league.toml").write_text(self.terms)
        everybody = (*self.names, COORDINATOR)
        self._do(["ca", "init", folder / "ca", "--name", "A league of processes"])
        self._do(*(command for name in everybody for command in self._keys_of(name)))
        for name in everybody:
            self._hand_over(name)
        frozen, keys = folder / "league.frozen.toml", folder / "keys.json"
        self._do(
            ["agreement", "freeze", folder / "league.toml", "--keys", folder / "keys"],
            *(command for name in self.names for command in self._signed(name, frozen)),
        )
        key = read_node(self.home(COORDINATOR)).log_signer().key.text
        self._do(
            ["agreement", "keys", frozen, "--signatures", folder / "signatures", "--federation-log", key, "--out", keys],
            *(["node", "accept", frozen, "--keys", keys, "--home", self.home(name)] for name in self.names),
            ["coordinator", "init", frozen, "--home", self.home(COORDINATOR), "--keys", keys,
             "--links", folder / "links", "--listen", self.address, "--ledger", ledger],
        )  # fmt: skip

    def records(self, name: str) -> str:
        """A member's records, as CSV."""
        rng = np.random.default_rng(self.names.index(name))
        rows = ["x,y,outcome"]
        for x, y in rng.uniform(-1, 1, (RECORDS, 2)):
            rows.append(f"{x:.6f},{y:.6f},{('no', 'yes')[int(x + y > 0)]}")
        return "\n".join(rows) + "\n"

    def home(self, name: str) -> Path:
        """Of a party."""
        return self.folder / "homes" / name

    @property
    def coordinator(self) -> CoordinatorHome:
        """The coordinator's home."""
        return read_home(self.home(COORDINATOR))

    @property
    def runs(self) -> Runs:
        """The register."""
        return Runs(self.coordinator.runs)

    def row(self) -> RunRow:
        """The newest run."""
        return self.runs.one()

    def start(self, *names: str) -> None:
        """Start the process of a party; what it writes goes to a file."""
        for name in names:
            command = [sys.executable, "-m", self.node, str(self.home(name))]
            if name == COORDINATOR or not self.node:
                noun = "coordinator" if name == COORDINATOR else "node"
                command = [sys.executable, "-c", HANSA, noun, "start", "--home", str(self.home(name))]
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(  # noqa: S603  # likewise
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"},
                )  # fmt: skip

    def kill(self, name: str) -> None:
        """End a process as a power failure would."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_all(self, name: str) -> None:
        """End a process as a power failure would, and all that it has started."""
        started = children(self.processes[name].pid)
        self.kill(name)
        for pid in started:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def part(self, word: str) -> int | None:
        """The process that the coordinator has started whose command line says this; `None` where there is none."""
        found = [pid for pid in children(self.processes[COORDINATOR].pid) if word in command(pid)]
        return found[0] if found else None

    def run(self, what: str) -> bool:
        """Do as `hansa run start|resume` does, in this process; whether the SuperLink took it."""
        from hansa.errors import LinkError
        from hansa_server.supervising import carry, control_of

        home, runs = self.coordinator, self.runs
        try:
            with control_of(home) as control:
                control.wait(0.0)
                if what == "start":
                    run = runs.begin(home.agreement.agreement_id, home.agreement.terms.training.rounds)
                else:
                    run = runs.one().run
                carry(control, runs, run)
        except (LinkError, EngineError):
            return False
        return True

    def log(self, name: str) -> str:
        """What a party has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, true: Callable[[], bool], timeout_s: float = 240.0) -> None:
        """Wait for something.

        Raises:
            EngineError: it does not come; tells what everybody has written.
        """
        end = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > end:
                logs = "\n".join(
                    f"— {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self._logs()
                )
                raise EngineError(f"it did not come to pass within {timeout_s} s\n{logs}")
            time.sleep(0.05)

    def stop(self) -> dict[str, int]:
        """SIGTERM to everybody; their exit statuses."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        ended = {name: process.wait(240) for name, process in self.processes.items()}
        self.processes.clear()
        return ended

    def end(self) -> None:
        """End what still runs, and all that it has started, at once."""
        for name in list(self.processes):
            self.kill_all(name)

    def entries(self, name: str) -> list[Kind]:
        """The entries of a party's log: of a member its ledger, of the coordinator the federation's log."""
        path = self.coordinator.log if name == COORDINATOR else self.home(name) / "state" / "ledger.sqlite"
        with closing(SqliteLogStore(path, read_only=True)) as store:
            return [SignedEntry.parse(data).entry for data in LogView(store).entries()]

    def _logs(self) -> list[Path]:
        return sorted(
            [*self.folder.glob("*.log"), *self.folder.glob("homes/coordinator/coordinator/**/*.log")]
        )

    def _do(self, *commands: Sequence[object]) -> None:
        self.does([[str(argument) for argument in command] for command in commands])

    def _keys_of(self, name: str) -> list[list[object]]:
        folder, home, certificate = self.folder, self.home(name), self.folder / f"{name}.crt"
        if name == COORDINATOR:
            made: list[list[object]] = [["node", "init", name, "--home", home, "--role", COORDINATOR]]
            where = ["--address", "127.0.0.1"]
        else:
            officer, where = folder / f"officer-{name}", []
            made = [
                ["node", "officer", name, "--out", officer],
                ["node", "init", name, "--home", home, "--officer", officer / f"{name}.officer.pub",
                 "--superlink", self.address],
            ]  # fmt: skip
        return [
            *made,
            ["ca", "issue", folder / "ca", "--request", home / f"{name}.csr", "--member", name, "--out", certificate,
             *where],
            ["node", "certificate", certificate, "--home", home, "--ca", folder / "ca" / "ca.crt",
             "--crl", folder / "ca" / "ca.crl"],
        ]  # fmt: skip

    def _signed(self, name: str, frozen: Path) -> list[list[object]]:
        folder, home = self.folder, self.home(name)
        return [
            ["agreement", "sign", frozen, "--home", home, "--out", folder / "signatures" / f"league.frozen.{name}.sig"],
            ["node", "grant", "--home", home, "--officer-key", folder / f"officer-{name}" / f"{name}.officer.key",
             "--epsilon", "20", "--delta", "0.01", "--unit", "record", "--max-records", "1"],
        ]  # fmt: skip

    def _hand_over(self, name: str) -> None:
        """What a party sends to the coordinator, and where its data are."""
        folder, home = self.folder, self.home(name)
        (folder / "keys" / f"{name}.pub").write_bytes((home / f"{name}.pub").read_bytes())
        if name == COORDINATOR:
            return
        (folder / "links" / f"{name}.link").write_bytes((home / f"{name}.link").read_bytes())
        settings = (home / "node.toml").read_text()
        data = folder / f"{name}.csv"
        data.write_text(self.records(name))
        (home / "node.toml").write_text(settings.replace('# data = "/srv/hansa/data"', f'data = "{data}"'))
