"""A league in one process, for benches and tests: real machines, messages by function call."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from hansa.errors import HansaError
from hansa.identity import COORDINATOR, Roster, Signer, Statement
from hansa.identity.keys import CURVE
from hansa.privacy.parts import PartSeeds
from hansa.secagg import (
    Coordinator,
    Manifest,
    MaskWorkers,
    Member,
    MemoryStore,
    Quantiser,
    Seal,
    Store,
    SumOutcome,
    SumTerms,
    VectorTerms,
    answer,
)
from hansa.secagg.bundle import unbundle
from hansa.secagg.messages import SIGNED, Said
from hansa.secagg.shares import Rand
from hansa.secagg.terms import ThreatModel
from hansa.wire import Array, Message, array_sha256, parse

RUN = "run-1"
PURPOSE = "update"
MODEL = "0" * 64


@dataclass
class Fixed:
    """A contributor that gives what it is told to."""

    values: Array
    asked: list[Manifest] = field(default_factory=list)

    def contribute(self, manifest: Manifest, _seeds: PartSeeds | None = None) -> Array:
        """See `hansa.secagg.Contributor`."""
        self.asked.append(manifest)
        return self.values

    def summed(self, number: int, vectors: Mapping[str, str]) -> None:
        """See `Contributor.summed`."""

    def released(self, manifest: Manifest, manifest_sha256: str, y_sha256: str) -> None:
        """See `hansa.secagg.Contributor`; nothing is recorded here."""


@dataclass
class SumLeague:
    """Members, a coordinator, and everything that a test or a bench wants to reach into.

    Attributes:
        terms: of the sum.
        signers: of every party, the coordinator's under its name.
        stores, seals: of every member.
        contributors: what each member puts in.
        members: the machines.
        coordinator: its machine.
        rands: where a member's random bytes come from, if not from the operating system.
        refused: errors that members kept to themselves, by member.
        away: members that do not answer.
        workers: the coordinator's.
    """

    terms: SumTerms
    signers: Mapping[str, Signer]
    stores: dict[str, Store]
    seals: dict[str, Seal]
    contributors: dict[str, Fixed]
    members: dict[str, Member]
    coordinator: Coordinator
    spool: Store
    workers: MaskWorkers
    rands: Mapping[str, Rand]
    refused: dict[str, list[HansaError]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)

    def exchange(self, tamper: Callable[[str, Message], Message] | None = None) -> SumOutcome | None:
        """One exchange: ask, answer, close.

        Args:
            tamper: changes a request on its way to a member.
        """
        for name, request in self.coordinator.requests().items():
            if name in self.away:
                continue
            carried = request if tamper is None else tamper(name, request)
            reply = answer(
                self.members[name], over_the_wire(carried), self.refused.setdefault(name, []).append
            )
            self.coordinator.receive(name, over_the_wire(reply))
        return self.coordinator.close()

    def prepare(self) -> None:
        """Exchange until a round can begin."""
        while not self.coordinator.ready:
            self.exchange()

    def sum(self, step: int) -> SumOutcome:
        """A whole round."""
        self.prepare()
        self.coordinator.begin(PURPOSE, step, MODEL)
        while (outcome := self.exchange()) is None:
            pass
        return outcome

    def pending(self, name: str, request: type[Said]) -> Message:
        """What the coordinator would send to a member now, of one kind and for the oldest round."""
        parts = unbundle(self.coordinator.requests()[name])
        return next(over_the_wire(part) for part in parts if part.kind == request.purpose_name)

    def restart(self, name: str) -> None:
        """A new process of a member, over the same store."""
        self.members[name] = Member(
            self.terms, RUN, self.signers[name], self.contributors[name], store=self.stores[name],
            seal=self.seals[name], rand=self.rands.get(name, os.urandom),
        )  # fmt: skip

    def expected(self, names: tuple[str, ...]) -> Array:
        """The sum that the contributions of these members add up to, in grid steps, by plain integers."""
        quantiser = self.terms.vectors[PURPOSE].quantiser
        total = np.zeros(self.terms.vectors[PURPOSE].length, dtype=np.int64)
        for name in names:
            values = self.contributors[name].values
            if values.dtype.kind == "f":
                values = np.clip(
                    np.rint(values.astype(np.float64) * quantiser.scale),
                    -quantiser.magnitude,
                    quantiser.magnitude,
                )
            total += values.astype(np.int64)
        return total

    def as_coordinator(
        self, message: Message, arrays: Mapping[str, Array] | None = None, **changes: object
    ) -> Message:
        """A message with other content, signed by the coordinator's own key: what a malicious one can send.

        Args:
            message: an honest one.
            arrays: that take the place of the honest ones.
            **changes: to the statement.
        """
        statement = Statement.parse(message.text(SIGNED))
        carried = dict(message.arrays) | dict(arrays or {})
        hashes = {name: array_sha256(array) for name, array in carried.items()}
        value = {**statement.value, "arrays": hashes, **changes}
        forged = Statement.sign(self.signers[COORDINATOR], statement.purpose, value)
        return Message(message.kind, {SIGNED: forged.line}, carried)


def over_the_wire(message: Message) -> Message:
    """The message as the other side reads it from bytes."""
    return parse(message.header, {name: array.copy() for name, array in message.arrays.items()})


def make_league(
    n: int,
    length: int,
    *,
    seed: int = 0,
    min_members: int = 3,
    threat_model: ThreatModel = "malicious",
    post_quantum: bool = False,
    clip: float = 1.0,
    processes: int = 1,
    signers: Mapping[str, Signer] | None = None,
    rands: Mapping[str, Rand] | None = None,
    spool: Store | None = None,
) -> SumLeague:
    """A league whose members hold seeded random vectors."""
    names = [f"member-{index}" for index in range(1, n + 1)]
    signers = signers or {name: Signer.generate(name) for name in (*names, COORDINATOR)}
    roster = Roster({name: signers[name].public_key for name in names}, signers[COORDINATOR].public_key)
    vectors = {PURPOSE: VectorTerms(length, Quantiser.finest(clip, n))}
    terms = SumTerms("a" * 64, roster, vectors, min_members, threat_model, post_quantum)
    rng = np.random.default_rng(seed)
    contributors = {name: Fixed(rng.normal(0, clip / 4, length).astype(np.float32)) for name in names}
    workers = MaskWorkers(processes)  # the coordinator's; members in one process have no use for more
    spool = spool or MemoryStore()
    league = SumLeague(
        terms=terms,
        signers=signers,
        stores={name: MemoryStore() for name in names},
        seals={name: Seal(bytes([index]) * 32) for index, name in enumerate(names)},
        contributors=contributors,
        members={},
        coordinator=Coordinator(terms, RUN, signers[COORDINATOR], spool=spool, workers=workers),
        spool=spool,
        workers=workers,
        rands=rands or {},
    )
    for name in names:
        league.restart(name)
    return league


def fixed_league(n: int, length: int, *, label: str = "", **options: Any) -> SumLeague:
    """A league in which everything that is drawn at random is fixed, for known-answer tests and repeatable fuzzing.

    Its keys are worthless: anyone can derive them from the label.
    """
    names = [*(f"member-{index}" for index in range(1, n + 1)), COORDINATOR]
    signers = {
        name: Signer(
            name,
            ec.derive_private_key(int.from_bytes(FixedStream(f"{label}/key/{name}")(31), "big") + 1, CURVE),
        )
        for name in names
    }
    return make_league(
        n,
        length,
        signers=signers,
        rands={name: FixedStream(f"{label}/rand/{name}") for name in names},
        **options,
    )


class FixedStream:
    """A stream of bytes that a label determines: SHA-256 of label and counter."""

    def __init__(self, label: str) -> None:
        self._label, self._counter = label, 0

    def __call__(self, size: int) -> bytes:
        """The next bytes."""
        blocks = []
        for _ in range(-(-size // 32)):
            blocks.append(hashlib.sha256(f"{self._label}\n{self._counter}".encode()).digest())
            self._counter += 1
        return b"".join(blocks)[:size]
