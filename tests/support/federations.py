"""A federation of real nodes and a real coordinator in one process, with a place to interfere at every message."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.ledger import Log, LogView, MemoryLogStore, NoteSigner, SignedEntry
from hansa.privacy.book import BudgetBook
from hansa.privacy.randomness import PublicSampling, SecretRandomness
from hansa.secagg import MemoryStore, Seal
from hansa.secagg.bundle import unbundle
from hansa.wire import Message, parse
from hansa_client.evaluation.judging import LocalEvaluation
from hansa_client.node import Node
from hansa_client.records import NoRecords, Records
from hansa_client.summing import SumIdentity
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal, Journal
from hansa_server.summation import SecureSummation, SumHouse
from hansa_simulations.identities import Identities
from hansa_simulations.ledgers import MemberStores, book_of, records_in
from hansa_simulations.seat import Seat
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
    arrays = {
        name: array
        for name, array in message.arrays.items()
        if not name.startswith(("total.", "log.", "file."))
    }
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
        max_retries: that members allow.
        evaluations: with what each member evaluates files, where it can.
        stores: of each member's log, mirror and witness; those of an earlier federation go on from there.
        identities: of everybody; with `stores` of an earlier federation they are needed too.
    """

    agreement: Agreement
    start: Vector
    updates: Mapping[str, Update]
    between: Between = honest
    exchanges: list[set[str]] = field(default_factory=list)
    max_retries: int = 10
    evaluations: Mapping[str, LocalEvaluation] = field(default_factory=dict)
    stores: dict[str, MemberStores] = field(default_factory=dict)
    identities: Identities | None = None

    def __post_init__(self) -> None:
        names = [member.name for member in self.agreement.terms.members]
        self.identities = self.identities or Identities.ephemeral(names)
        self.federation_log = NoteSigner.generate(f"hansa.test/federation/{secrets.token_hex(4)}")
        self.trainings = {name: DoesNothing(update) for name, update in self.updates.items()}
        self.states = {name: MemoryStore() for name in self.updates}
        # a member keeps its own log over federations, and mirrors each federation's log anew
        logs = {name: held.log for name, held in self.stores.items()}
        self.stores = {
            name: MemberStores(logs[name]) if name in logs else MemberStores() for name in self.updates
        }
        self.log = Log(MemoryLogStore(), self.federation_log)
        self.nodes = {name: self.node(name) for name in self.updates}

    @property
    def keys(self) -> Identities:
        """The identities, which are there once it is made."""
        assert self.identities is not None
        return self.identities

    def node(self, name: str) -> Node:
        """A node of a member, as a process makes it that starts, or starts again, over the same stores."""
        secret = self.agreement.terms.private
        records: Records = NoRecords()
        if secret:
            records = records_in(self.stores[name], self.agreement, name, self.keys, self.federation_log.key)
        return Node(
            self.agreement,
            name,
            self.trainings[name],
            records,
            lambda _run, number: SecretRandomness() if secret else PublicSampling(0, name, number),
            SumIdentity(
                self.keys.signer(name),
                self.keys.roster,
                self.start,
                self.states[name],
                Seal(self.keys.seal_keys[name]),
                max_retries=self.max_retries,
            ),
            self.evaluations.get(name),
        )

    def restart(self, name: str) -> None:
        """A new process of a member."""
        self.nodes[name] = self.node(name)

    def book(self, name: str) -> BudgetBook:
        """What a member's log says of its budget."""
        return book_of(LogView(self.stores[name].log))

    def entries(self, name: str) -> list[str]:
        """The types of the entries in a member's log."""
        log = LogView(self.stores[name].log)
        return [SignedEntry.parse(data).entry.type for data in log.entries()]

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
        """The coordinator's keys, its verifier and its log."""
        return Seat(self.agreement, "r", self.keys, self.log).house()

    def run(self, journal: Journal | None = None, run: str = "r", **more: Any) -> Outcome:
        """A whole run."""
        journal = journal or InMemoryJournal()
        house = more.pop("house", None) or self.house
        summation = SecureSummation(self.agreement, self, journal, run, house)
        return run_federation(self.agreement, self.start, self, journal, run=run, summation=summation, **more)


def over_the_wire(message: Message) -> Message:
    """As it arrives on the other side."""
    return parse(message.header, {name: np.array(array) for name, array in message.arrays.items()})
