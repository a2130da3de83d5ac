"""A league under shared noise whose gradients cost nothing, so that what is left of a step is the protocol.

Real nodes, a real coordinator, ledgers, mirrors, cosignatures and a verifier that recomputes each sum, in one process; members
answer side by side, so that they wait for the disk together, or in turn. Each member's clipped sum lies ready; its share of the noise is drawn in the step. Beside the clock, meters stand at
the ports where noise is drawn, masks are added and P-256 signatures are made and checked.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, Frozen, FrozenModel, parse_agreement
from hansa.canonical import sha256_hex
from hansa.errors import EngineError
from hansa.identity import Signer
from hansa.identity.keys import verify
from hansa.ledger import Log, MemoryLogStore, NoteSigner, SqliteLogStore
from hansa.privacy.calibration import calibrated_noise_multiplier
from hansa.privacy.randomness import Randomness, SecretRandomness
from hansa.privacy.sampling import Sampling, sampling_of
from hansa.protocol.derivation import shared_noise
from hansa.secagg import MaskWorkers, MemoryStore, Seal, Store
from hansa.secagg.masks import MaskKey
from hansa.secagg.ring import RingVector
from hansa.secagg.store import FolderStore, Spool
from hansa.wire import Message, array_sha256
from hansa_client.flower_node import AnswersRequests
from hansa_client.node import Node
from hansa_client.summing import SumIdentity
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal
from hansa_server.members import Members
from hansa_server.summation import SecureSummation, SumHouse, Verifier
from hansa_simulations.bench.sampling import noting
from hansa_simulations.identities import VERIFIER, Identities
from hansa_simulations.ledgers import MemberStores, records_in, stores_in
from hansa_simulations.seat import Seat

EPSILON, DELTA, RATE, UNITS = 8.0, 1e-6, 0.05, 1000
WARMING = 3  # steps that are not measured: the first reserves, and two more fill caches
_SWITCH_S = 0.02  # threads that share an interpreter take turns this long: few members lose the processor in the middle
_SIGNATURES = 200  # made and checked to know what one costs here


@dataclass
class Meters:
    """Seconds since the last reading, by what they went into."""

    noise: list[float] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)  # from a gradient to the masked reply, of one member
    calls: Counter[str] = field(default_factory=Counter)
    given: threading.local = field(
        default_factory=threading.local
    )  # when a gradient was there, by the member's thread

    def read(self) -> dict[str, float]:
        """The sums of all members and the coordinator; starts anew."""
        found = {
            "noise": sum(self.noise),
            "masks": sum(self.masks),
            "behind": sum(self.behind) / max(1, len(self.behind)),
            "signed": float(self.calls["signed"]),
        }
        for laps in (self.noise, self.masks, self.behind):
            laps.clear()
        self.calls.clear()
        return found


class _MeteredRandomness:
    """Draws from the operating system's generator, and notes how long noise took."""

    def __init__(self, meters: Meters) -> None:
        self._source, self._meters = SecretRandomness(), meters

    def key(self) -> bytes:
        return self._source.key()

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        with noting(self._meters.noise):
            return self._source.noise(sigma, size)


class _MeteredWorkers(MaskWorkers):
    """One process, and a note of how long masks took."""

    def __init__(self, meters: Meters) -> None:
        super().__init__(1)
        self._meters = meters

    def add_masks(self, vector: RingVector, plus: Sequence[MaskKey], minus: Sequence[MaskKey] = ()) -> None:
        with noting(self._meters.masks):
            super().add_masks(vector, plus, minus)


class _MeteredSigner(Signer):
    """Counts what it signs."""

    def __init__(self, signer: Signer, meters: Meters) -> None:
        super().__init__(signer.name, signer.private_key)
        self._meters = meters

    def sign(self, domain: str, data: bytes) -> bytes:
        self._meters.calls["signed"] += 1
        return super().sign(domain, data)


class _MeteredIdentities(Identities):
    """Whose signers count."""

    meters: Meters

    def signer(self, name: str) -> Signer:
        return _MeteredSigner(super().signer(name), self.meters)


class PreparedGradients:
    """Stands where a `PooledTrainer` would: the clipped sum lies ready, and the share of the noise is drawn."""

    def __init__(self, sigma: float, length: int, meters: Meters) -> None:
        self._sigma, self._meters = sigma, meters
        self._sum = np.arange(length, dtype=np.int64) % 1001 - 500

    def train(
        self,
        weights: npt.NDArray[np.float64],
        randomness: Randomness,
        _rotation: object = None,
        _adapted: object = None,
    ) -> npt.NDArray[np.int64]:
        """int64 [d], in grid units."""
        noise = randomness.noise(self._sigma, len(weights))
        noise += self._sum
        self._meters.given.at = time.perf_counter()
        return noise


class _Watched:
    """A node, and how long after its gradient its masked reply was ready."""

    def __init__(self, node: Node, meters: Meters) -> None:
        self._node, self._meters = node, meters

    def handle(self, request: Message) -> Message:
        given = self._meters.given
        given.at = None
        reply = self._node.handle(request)
        if given.at is not None:
            self._meters.behind.append(time.perf_counter() - given.at)
        return reply


class _Called:
    """The league as calls of its nodes, in turn until they are told to answer side by side; see `hansa_server.members.Members`.

    Replies are given in the order of the requests and nodes share nothing, so that a step is the same either way.
    """

    def __init__(self, nodes: Mapping[str, AnswersRequests]) -> None:
        self._nodes, self.together = nodes, False
        self._threads = ThreadPoolExecutor(len(nodes), thread_name_prefix="hansa-member")
        self._switch_s = sys.getswitchinterval()

    def __enter__(self) -> Self:
        sys.setswitchinterval(_SWITCH_S)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setswitchinterval(self._switch_s)
        self._threads.shutdown(wait=True)

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:  # noqa: ARG002  # the port's
        """Every reply, in the order of the requests."""
        run = self._threads.map if self.together else map
        return dict(zip(requests, run(self._answer, requests.items()), strict=True))

    def _answer(self, asked: tuple[str, Message]) -> Message:
        name, request = asked
        return self._nodes[name].handle(request)


@dataclass(frozen=True)
class StepTimes:
    """What each measured step took, in milliseconds, of all members and the coordinator together.

    Attributes:
        wall: by the clock.
        cpu: of the process; a busy machine shows less in it.
        noise, masks, signatures: of that, at their ports; signatures from their number and what one costs here.
        behind: from one member's gradient to its masked reply; the mean over members.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    noise: tuple[float, ...]
    masks: tuple[float, ...]
    signatures: tuple[float, ...]
    behind: tuple[float, ...]


def pooled_agreement(n: int, length: int, steps: int) -> Agreement:
    """A frozen agreement of n members under shared noise; its model is named and never built."""
    members = "\n".join(f'[[members]]\nname = "member-{i}"\nunits = {UNITS}' for i in range(1, n + 1))
    agreement = parse_agreement(
        f"""
        [task]
        name = "gradients that lie ready"
        labels = ["no", "yes"]
        [data]
        label = "answer"
        features = [{{ kind = "number", name = "x", range = [0.0, 1.0] }}]
        [model]
        kind = "logistic"
        [training]
        rounds = {steps}
        learning_rate = 0.1
        [privacy]
        mechanism = "distributed"
        epsilon = {EPSILON}
        delta = {DELTA}
        clipping_norm = 1.0
        sampling_rate = {RATE}
        steps = {steps}
        {members}
        """,
        name="the pooled agreement",
    )
    hashes = FrozenModel(
        parameters=length, initial_sha256=array_sha256(np.zeros(length)), frozen_sha256=sha256_hex(b"")
    )
    multiplier = _multiplier(sampling_of(agreement.terms), steps)
    return agreement.freeze(Frozen(terms_id=agreement.terms_id, model=hashes, noise_multiplier=multiplier))


def pooled_steps(
    n: int, length: int, steps: int, folder: Path | None, *, together: bool = True, warming: int = WARMING
) -> StepTimes:
    """Run a league for some steps.

    Args:
        n, length: members and trained weights.
        steps: that are measured, after `warming` that are not.
        folder: a new one, for everything that must be durable; `None` keeps it all in memory.
        together: whether members answer side by side; in turn, what one takes is not what another waits for.

    Raises:
        EngineError: a step was summed over fewer than all, so that something else was measured.
    """
    agreement = pooled_agreement(n, length, steps + warming)
    run, meters, start = f"bench-{secrets.token_hex(8)}", Meters(), np.zeros(length)
    names = [member.name for member in agreement.terms.members]
    identities = _metered(Identities.ephemeral(names), meters)
    sigma = shared_noise(agreement).share_sigma
    one_signed, one_checked = _signature_ms()
    walls, cpus = [time.perf_counter()], [time.process_time()]
    parts: list[dict[str, float]] = []
    outcomes: list[Outcome] = []
    checked = [verify.cache_info().misses]

    def note(_outcome: Outcome) -> None:
        members.together = (
            together  # from the second step on: what a process computes once it computes in the first
        )
        walls.append(time.perf_counter())
        cpus.append(time.process_time())
        checked.append(verify.cache_info().misses)
        parts.append(meters.read())

    with ExitStack() as stack:
        log = _federation_log(stack, folder)
        nodes: list[AnswersRequests] = []
        for name in names:
            stores, sums = _stores(stack, folder, name, run)
            identity = SumIdentity(
                identities.signer(name), identities.roster, start, sums, Seal(identities.seal_keys[name]),
                workers=_MeteredWorkers(meters),
            )  # fmt: skip
            node = Node(
                agreement, name, PreparedGradients(sigma, length, meters),
                records_in(stores, agreement, name, identities, log.key),
                lambda _run, _step: _MeteredRandomness(meters), identity,
            )  # fmt: skip
            nodes.append(_Watched(node, meters))
        house = _house(agreement, run, identities, log, meters, folder)

        def coordinate(members: Members) -> None:
            journal = InMemoryJournal(keep=1)
            summation = SecureSummation(agreement, members, journal, run, house)
            outcomes.append(
                run_federation(
                    agreement, start, members, journal, run=run, summation=summation, after_round=note
                )
            )

        with _Called(dict(zip(names, nodes, strict=True))) as members:
            coordinate(members)
    _require_whole(outcomes[0], n, steps + warming)

    def measured(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(1e3 * value for value in values[warming:])

    signatures = [
        part["signed"] * one_signed + (after - before) * one_checked
        for part, before, after in zip(parts, checked, checked[1:], strict=False)
    ]
    return StepTimes(
        measured(np.diff(walls).tolist()), measured(np.diff(cpus).tolist()),
        measured([part["noise"] for part in parts]), measured([part["masks"] for part in parts]),
        tuple(signatures[warming:]), measured([part["behind"] for part in parts]),
    )  # fmt: skip


@lru_cache(maxsize=32)  # takes seconds, and is the same for every league
def _multiplier(sampling: Sampling, steps: int) -> float:
    return calibrated_noise_multiplier(EPSILON, DELTA, sampling, steps)


def _metered(identities: Identities, meters: Meters) -> Identities:
    made = _MeteredIdentities(identities.roster, identities.keys, identities.seal_keys, identities.note_keys)
    object.__setattr__(made, "meters", meters)
    return made


def _federation_log(stack: ExitStack, folder: Path | None) -> Log:
    signer = NoteSigner.generate("hansa.example/bench")
    if folder is None:
        return Log(MemoryLogStore(), signer)
    folder.mkdir(parents=True)
    return Log(stack.enter_context(closing(SqliteLogStore.create(folder / "federation.sqlite"))), signer)


def _stores(stack: ExitStack, folder: Path | None, name: str, run: str) -> tuple[MemberStores, Store]:
    if folder is None:
        return MemberStores(), MemoryStore()
    stores = stack.enter_context(stores_in(folder / name, run))
    return stores, stack.enter_context(closing(FolderStore(folder / name / "sums")))


def _house(
    agreement: Agreement, run: str, identities: Identities, log: Log, meters: Meters, folder: Path | None
) -> SumHouse:
    seat = Seat(agreement, run, identities, log).house()
    return SumHouse(
        seat.signer,
        seat.roster,
        MemoryStore() if folder is None else Spool(FolderStore(folder / "spool")),
        Verifier(identities.signer(VERIFIER), _MeteredWorkers(meters)),
        seat.history,
        seat.records,
        _MeteredWorkers(meters),
    )


def _signature_ms() -> tuple[float, float]:
    """Milliseconds of signing and of checking one short statement."""
    signer, data = Signer.generate("bench"), [b"%d" % i for i in range(_SIGNATURES)]
    made, seen = list[float](), list[float]()
    with noting(made):
        signatures = [signer.sign("bench", one) for one in data]
    with noting(seen):
        for one, signature in zip(data, signatures, strict=True):
            verify(signer.public_key, "bench", one, signature)
    return 1e3 * made[0] / _SIGNATURES, 1e3 * seen[0] / _SIGNATURES


def _require_whole(outcome: Outcome, n: int, steps: int) -> None:
    present = [len(record.present) for record in outcome.rounds]
    if present != [n] * steps:
        why = outcome.stopped_because or "members were missing"
        raise EngineError(f"members summed by step were {present}, not {n} in each of {steps}: {why}")
