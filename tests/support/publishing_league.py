"""A league enrolled by the commands that people run, from real homes, whose messages are function calls: it publishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np

from hansa.identity import COORDINATOR
from hansa.wire import Message
from hansa_client.assembly import desk_of
from hansa_client.desk import Desk
from hansa_client.node_file import read_home as read_node
from hansa_server.coordinating import coordinate
from hansa_server.home import read_home
from hansa_server.runs import RunRow
from hansa_simulations.processes.league import Commands, ProcessLeague
from support.cli import hansa
from support.processes import in_this_process

ROWS = 1500
_TERMS = """
[task]
name = "Readmission"
purpose = "Planning of beds."
labels = ["no", "yes"]
{members}
[data]
label = "outcome"
[[data.features]]
kind = "number"
name = "signal"
range = [-3, 3]
[[data.groups]]
kind = "category"
name = "sex"
values = ["f", "m"]

[model]
kind = "logistic"

[training]
rounds = 1
learning_rate = 1.0

[privacy]
mechanism = "local"
epsilon = 8.0
delta = 1e-4
clipping_norm = 1.0
sampling_rate = 1.0
steps = 5

[secure_sum]
min_members = 3

[evaluation]
bins = 2
max_rows_per_cell = {rows}
epsilon = 6.0
evaluations = 2
compared = "decisions"
share = 0.3

[fairness]
max_gap = 0.2
min_worst_group = 0.6
min_group_size = {min_group_size}

[publication]
compress = ["onnx", "int8"]
min_quality = 0.6
"""


@dataclass
class PublishingLeague(ProcessLeague):
    """See above.

    Attributes:
        min_group_size: below which groups are too small to judge.
        women: share of a member's records.
    """

    terms: str = ""
    does: Callable[[Commands], None] = in_this_process
    min_group_size: int = 100
    women: float = 0.5
    desks: dict[str, Desk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        members = "".join(f'\n[[members]]\nname = "{name}"\nunits = {ROWS}\n' for name in self.names)
        self.terms = _TERMS.format(members=members, rows=ROWS, min_group_size=self.min_group_size)

    def records(self, name: str) -> str:
        rng = np.random.default_rng(self.names.index(name))
        labels = rng.integers(0, 2, ROWS)
        signal = np.clip(rng.normal(2.0 * labels - 1.0, 1.0), -3, 3)
        women = rng.random(ROWS) < self.women
        rows = zip(signal, women, labels, strict=True)
        lines = [f"{x:.4f},{'mf'[int(f)]},{('no', 'yes')[y]}" for x, f, y in rows]
        return "\n".join(["signal,sex,outcome", *lines]) + "\n"

    def enrol(self) -> None:
        """As every league; units that judge have a budget of their own, apart from those that train."""
        super().enrol()
        for name in self.names:
            home, key = self.home(name), self.folder / f"officer-{name}" / f"{name}.officer.key"
            (trains,) = hansa("node", "budget", "--home", home, "--format", "json").data["datasets"]
            granted = hansa(
                "node", "grant", "--home", home, "--officer-key", key, "--epsilon", "30", "--delta", "0.01",
                "--reservations", "2", "--unit", "record", "--max-records", "1", "--disjoint-from", trains["dataset"], "--format", "json",
            )  # fmt: skip
            settings = (home / "node.toml").read_text()
            told = f'[evaluation]\ndataset_id = "{granted.data["dataset"]}"\n'
            assert "[evaluation]\n" in settings
            (home / "node.toml").write_text(settings.replace("[evaluation]\n", told))

    @contextmanager
    def open(self) -> Iterator[None]:
        """All nodes at their places."""
        with ExitStack() as stack:
            self.desks = {
                name: stack.enter_context(desk_of(read_node(self.home(name)))) for name in self.names
            }
            yield
        self.desks = {}

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        """See `hansa_server.members.Members`."""
        assert deadline_s > 0
        return {name: self.desks[name].handle(request) for name, request in requests.items()}

    def begin(self) -> str:
        """A run in the coordinator's register."""
        league = read_home(self.home(COORDINATOR))
        return self.runs.begin(league.agreement.agreement_id, league.agreement.terms.training.rounds)

    def carry(self, run: str) -> RunRow:
        """Carry a run as its process does; nodes are started and stopped around it."""
        with self.open():
            coordinate(read_home(self.home(COORDINATOR)), self.runs, run, lambda _: self)
        return self.runs.one(run)
