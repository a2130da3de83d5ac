"""A federation of real nodes and a real coordinator in one process, with a place to interfere at every message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.identity import COORDINATOR
from hansa.privacy.randomness import PublicSampling, SecretRandomness
from hansa.secagg import MemoryStore, Seal
from hansa.secagg.bundle import unbundle
from hansa.wire import Message, parse
from hansa_client.node import Node
from hansa_client.state import MemoryStore as MemoryState
from hansa_client.state import StateStore
from hansa_client.summing import SumIdentity
from hansa_client.training import TrainingPlan
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal, Journal
from hansa_server.summation import SumHouse, Verifier
from hansa_simulations.identities import VERIFIER, Identities
from support.leagues import DoesNothing

Vector = npt.NDArray[np.float64]
Update = Callable[[Vector], Vector]
Between = Callable[[str, Message, Callable[[Message], Message]], Message | None]


def honest(_name: str, request: Message, answer: Callable[[Message], Message]) -> Message | None:
    """Carry a request and its reply as they are."""
    return answer(request)


def kinds(request: Message) -> set[str]:
    """What a request asks for: kinds of the secure sum's messages, or the request's own kind."""
    if request.kind not in {"sum", "summed"}:
        return {request.kind}
    body: Any = request.body["bundle"]
    return {part["kind"] for part in body["parts"]}


def parts(message: Message) -> list[Message]:
    """The messages in a request's or a reply's bundle."""
    arrays = {name: array for name, array in message.arrays.items() if not name.startswith("total.")}
    body: Any = message.body["bundle"]
    return unbundle(Message("secagg.bundle", body, arrays))


@dataclass
class Federation:
    """Members that are called, and their coordinator.

    Attributes:
        agreement: frozen.
        start: model 0.
        updates: what each member's training returns.
        between: sees every request on its way, and may change, drop or forge.
        exchanges: the kinds asked for in each exchange.
    """

    agreement: Agreement
    start: Vector
    updates: Mapping[str, Update]
    between: Between = honest
    exchanges: list[set[str]] = field(default_factory=list)
    max_retries: int = 10
    states: dict[str, StateStore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [member.name for member in self.agreement.terms.members]
        self.identities = Identities.ephemeral(names)
        self.trainings = {name: DoesNothing(update) for name, update in self.updates.items()}
        self.stores = {name: MemoryStore() for name in self.updates}
        self.states = {name: self.states.get(name, MemoryState()) for name in self.updates}
        self.nodes = {name: self.node(name) for name in self.updates}

    def node(self, name: str) -> Node:
        """A node of a member, as a process makes it that starts, or starts again, over the same stores."""
        secret = self.agreement.terms.private
        return Node(
            self.agreement,
            name,
            self.trainings[name],
            TrainingPlan.of(self.agreement, name).spend(),
            self.states[name],
            lambda _run, number: SecretRandomness() if secret else PublicSampling(0, name, number),
            SumIdentity(
                self.identities.signer(name),
                self.identities.roster,
                self.start,
                self.stores[name],
                Seal(self.identities.seal_keys[name]),
                max_retries=self.max_retries,
            ),
        )

    def restart(self, name: str) -> None:
        """A new process of a member."""
        self.nodes[name] = self.node(name)

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        assert deadline_s > 0
        self.exchanges.append(set().union(*(kinds(request) for request in requests.values())))
        replies = {}
        for name, request in requests.items():
            if name not in self.nodes:
                continue
            # over the wire and back, as any carrier would
            reply = self.between(name, over_the_wire(request), self.nodes[name].handle)
            if reply is not None:
                replies[name] = over_the_wire(reply)
        return replies

    @property
    def house(self) -> SumHouse:
        """The coordinator's keys and its verifier."""
        identities = self.identities
        return SumHouse(
            identities.signer(COORDINATOR),
            identities.roster,
            MemoryStore(),
            Verifier(identities.signer(VERIFIER)),
        )

    def run(self, journal: Journal | None = None, run: str = "r", **more: Any) -> Outcome:
        """A whole run."""
        return run_federation(
            self.agreement,
            self.start,
            self,
            journal or InMemoryJournal(),
            run=run,
            house=self.house,
            **more,
        )


def over_the_wire(message: Message) -> Message:
    """As it arrives on the other side."""
    return parse(message.header, {name: np.array(array) for name, array in message.arrays.items()})
