"""A federation of real nodes whose ledgers, mirrors, witnesses and sums lie in files, as a process makes it that starts.

What leaves a member is told to `left` before it is handed on: whoever kills the process knows afterwards what was out.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.canonical import canonical_hash, sha256_hex
from hansa.errors import HansaError
from hansa.identity import Statement
from hansa.ledger import (
    Log,
    LogStore,
    LogView,
    MemoryLogStore,
    NoteSigner,
    SignedEntry,
    SqliteLogStore,
    officer_of,
)
from hansa.ledger.officer import sign_grant
from hansa.privacy.book import BudgetBook
from hansa.privacy.composition import RenyiFilter, Rule
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.randomness import SecretRandomness
from hansa.privacy.records import Grant, Limit, new_dataset_id
from hansa.protocol import PolicyCode, read_sum_reply, read_word_reply
from hansa.secagg import FolderStore, Seal
from hansa.secagg.bundle import unbundle
from hansa.secagg.messages import SIGNED, Masked
from hansa.wire import Message, array_sha256, parse
from hansa_client.ledger import MemberLedger, Software
from hansa_client.node import Node
from hansa_client.summing import SumIdentity
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal
from hansa_server.summation import SecureSummation, SumHouse
from hansa_simulations.identities import Identities
from hansa_simulations.ledgers import LEDGER_FILE, book_of, records_in, software, stores_in
from hansa_simulations.seat import Seat
from support.leagues import DoesNothing

Vector = npt.NDArray[np.float64]
WIDE = RenyiFilter(8)  # quick to compose, however many runs there were


class Left(NamedTuple):
    """Something that has left a member.

    Attributes:
        member: from whom.
        what: ``entry`` for one of its log, ``masked`` for a vector.
        sha256: of the entry's bytes, or of the vector's.
        run, round: that it is of; of an entry the exchange in which it left.
    """

    member: str
    what: str
    sha256: str
    run: str
    round: int

    @property
    def line(self) -> bytes:
        return " ".join(map(str, self)).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> list[Left]:
        """All that was told; the last line may be cut short, and then nothing was handed on."""
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        parts = (line.decode().split(" ") for line in lines)
        return [cls(member, what, digest, run, int(number)) for member, what, digest, run, number in parts]


def grant_in(
    store: LogStore,
    agreement: Agreement,
    identities: Identities,
    name: str,
    epsilon: float,
    rule: Rule = WIDE,
) -> None:
    """Have a member's officer grant a budget at the agreement's δ, if nothing was granted yet."""
    ledger = opened(store, identities, name)
    if ledger.books:
        return
    privacy = agreement.terms.privacy
    assert privacy.delta is not None
    signed = sign_grant(
        identities.signer(officer_of(name)),
        name,
        Grant(new_dataset_id(), Limit(PrivacyLoss(epsilon, privacy.delta), rule)),
        unit=privacy.unit,
        max_records_per_unit=privacy.max_records_per_unit,
        at=datetime.now(UTC),
    )
    ledger.grant(signed)


def opened(store: LogStore, identities: Identities, name: str) -> MemberLedger:
    """A member's ledger over a store, all of it read and verified."""
    versions = software()
    return MemberLedger(
        Log(store, identities.log_signer(name)),
        identities.signer(name),
        identities.officer_keys[name],
        Software(versions, canonical_hash(dict(versions))),
    )


class DurableFederation:
    """See above; a context, which gives the files back.

    Args:
        agreement: frozen, private.
        start: model 0.
        home: of all members, with their keys.
        epsilon: what each officer grants, or by member; at the agreement's δ.
        left: told of everything that leaves a member.
        names: members whose nodes run; the others are absent.
    """

    def __init__(
        self,
        agreement: Agreement,
        start: Vector,
        home: Path,
        epsilon: float | Mapping[str, float],
        left: Callable[[Left], None] = lambda _: None,
        names: Iterable[str] | None = None,
    ) -> None:
        self.agreement, self.start, self.home, self._left = agreement, start, home, left
        members = [member.name for member in agreement.terms.members]
        home.mkdir(parents=True, exist_ok=True)
        self.identities = Identities.at(home, members)
        self.run_name = f"run-{secrets.token_hex(6)}"
        self.log = Log(MemoryLogStore(), NoteSigner.generate(f"hansa.test/federation/{self.run_name}"))
        self.between: Callable[[str, Message], None] = lambda _name, _request: None
        self.stores: dict[str, LogStore] = {}
        self.trainings: dict[str, DoesNothing] = {}
        self._epsilon = epsilon
        self._open = ExitStack()
        with ExitStack() as opening:
            opening.callback(self._open.close)
            self.nodes = {name: self._node(name) for name in names or members}
            opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back, as a process does that ends."""
        self._open.close()

    def run(self) -> Outcome:
        """A whole run."""
        journal = InMemoryJournal()
        summation = SecureSummation(self.agreement, self, journal, self.run_name, self._house())
        return run_federation(
            self.agreement, self.start, self, journal, run=self.run_name, summation=summation
        )

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:
        """See `hansa_server.members.Members`."""
        assert deadline_s > 0
        replies = {}
        for name, request in requests.items():
            if name in self.nodes:
                self.between(name, request)
                reply = self.nodes[name].handle(_over_the_wire(request))
                for one in leaving(name, request, reply):
                    self._left(one)
                replies[name] = _over_the_wire(reply)
        return replies

    def book(self, name: str) -> BudgetBook:
        """What a member's log says of its budget."""
        return book_of(LogView(self.stores[name]))

    def types(self, name: str) -> list[str]:
        """The types of the entries in a member's log."""
        return [SignedEntry.parse(data).entry.type for data in LogView(self.stores[name]).entries()]

    def _node(self, name: str) -> Node:
        stores = self._open.enter_context(stores_in(self.home / name, self.run_name))
        self.stores[name] = stores.log
        epsilon = self._epsilon if isinstance(self._epsilon, float) else self._epsilon[name]
        grant_in(stores.log, self.agreement, self.identities, name, epsilon)
        state = FolderStore(self.home / name / "sums")
        self._open.callback(state.close)
        self.trainings[name] = DoesNothing(lambda weights: np.full_like(weights, 0.01))
        return Node(
            self.agreement,
            name,
            self.trainings[name],
            records_in(stores, self.agreement, name, self.identities, self.log.key),
            lambda _run, _number: SecretRandomness(),
            SumIdentity(
                self.identities.signer(name),
                self.identities.roster,
                self.start,
                state,
                Seal(self.identities.seal_keys[name]),
            ),
        )

    def _house(self) -> SumHouse:
        return Seat(self.agreement, self.run_name, self.identities, self.log).house()


def leaving(name: str, request: Message, reply: Message) -> list[Left]:
    """What of a member's log, and which masked vectors, a reply carries."""
    run, number = request.text("run"), request.integer("round")
    try:
        said = read_sum_reply(request, reply) if request.kind == "sum" else None
        word = said.word if said is not None and not isinstance(said, PolicyCode) else None
        if said is None:
            told = read_word_reply(request, reply)
            word = None if isinstance(told, PolicyCode) else told
    except HansaError:
        return []
    found = (
        [] if word is None else [Left(name, "entry", sha256_hex(data), run, number) for data in word.entries]
    )
    if said is not None and not isinstance(said, PolicyCode):
        for part in unbundle(said.bundle):
            if part.kind == Masked.purpose_name:
                masked = Masked.model_validate_json(Statement.parse(part.text(SIGNED)).data)
                found.append(Left(name, "masked", array_sha256(part.arrays["y"]), run, masked.round))
    return found


def _over_the_wire(message: Message) -> Message:
    return parse(message.header, {name: np.array(array) for name, array in message.arrays.items()})


def ledger_path(home: Path, name: str) -> Path:
    """Where a member's ledger is."""
    return home / name / LEDGER_FILE


def store_at(home: Path, name: str) -> SqliteLogStore:
    """A member's ledger, to open when its process is gone."""
    return SqliteLogStore(ledger_path(home, name))


def entries_in(home: Path, name: str) -> int:
    """How many entries a member's ledger has by now, whoever has it open."""
    path = ledger_path(home, name)
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            (size,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        except sqlite3.OperationalError:  # it is being made
            return 0
    return int(size)
