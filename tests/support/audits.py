"""A federation that keeps logs: five members, four rounds of real secure sums, real signatures, and ways to tamper.

What a run writes is a `Story`: bytes of entries, records of rounds, checkpoints. `Story.write` makes the folder that a
simulation leaves, signed by whoever signs logs; a tampering changes the story before, or the folder after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hansa.canonical import sha256_hex
from hansa.identity import COORDINATOR, Roster, Signer, Statement
from hansa.ledger import (
    Aggregate,
    AgreementSigned,
    BudgetGranted,
    Charging,
    Log,
    MemoryLogStore,
    NoteSigner,
    Release,
    Reservation,
    RunClosed,
    SignatureType,
    SignedEntry,
    SignedNote,
    Spending,
    SqliteLogStore,
    TrustedKeys,
    export_tiles,
    officer_of,
    real,
)
from hansa.ledger.kinds import Kind
from hansa.privacy.charges import Charge
from hansa.privacy.events import Spend, poisson_gaussian
from hansa.secagg import RoundRecord
from hansa.secagg import messages as m
from hansa.secagg.errors import QuorumError
from hansa.secagg.record import SumOutcome
from hansa_simulations.bench.secure_league import PURPOSE, SumLeague, make_league

MEMBERS = tuple(f"member-{number}" for number in range(1, 6))
AGREEMENT, TERMS, RUN = "a1" * 32, "b2" * 32, "run-1"
ROUNDS, STEPS, EPSILON, DELTA = 4, 5, 3.0, 1e-5
EVENT = poisson_gaussian(0.1, 2.0)
CHARGE = Charge("training", EVENT, (ROUNDS + 2) * STEPS)
DATASETS = {name: sha256_hex(name.encode())[:32] for name in MEMBERS}
SIGNERS = {name: Signer.generate(name) for name in (*MEMBERS, COORDINATOR)}
OFFICERS = {name: Signer.generate(officer_of(name)) for name in MEMBERS}
ROSTER = Roster({name: SIGNERS[name].public_key for name in MEMBERS}, SIGNERS[COORDINATOR].public_key)
FEDERATION_SIGNER = NoteSigner.generate("hansa.example/league")
LOG_SIGNERS = {name: NoteSigner.generate(f"hansa.example/{name}/own") for name in MEMBERS}
WITNESSES = {name: NoteSigner.generate(f"hansa.example/{name}", SignatureType.WITNESS) for name in MEMBERS}
KEYS = TrustedKeys(
    agreement_id=AGREEMENT,
    quorum=4,
    members=dict(ROSTER.members),
    coordinator=ROSTER.coordinator,
    federation_log=FEDERATION_SIGNER.key.text,
    logs={name: signer.key.text for name, signer in LOG_SIGNERS.items()},
    witnesses={name: signer.key.text for name, signer in WITNESSES.items()},
    officers={name: signer.public_key for name, signer in OFFICERS.items()},
)
LATE = MEMBERS[4]  # vanishes in round 2, and comes too late in round 3


def at(minute: int) -> str:
    """A time of that day."""
    return f"2026-03-01T{12 + minute // 60:02d}:{minute % 60:02d}:00Z"


def signed(entry: Kind, *names: str) -> bytes:
    """An entry as it is logged, signed by its writer or by those who are named."""
    signers = {**SIGNERS, **{one.name: one for one in OFFICERS.values()}}
    return SignedEntry.sign(entry, *(signers[name] for name in names or (entry.writer,))).encoded


def entry_of(data: bytes) -> Any:
    """What a logged entry says."""
    return SignedEntry.parse(data).entry


def reworded(data: bytes, **changes: Any) -> Any:
    """What a logged entry says, with other words."""
    entry = entry_of(data)
    return type(entry).model_validate({**entry.model_dump(), **changes})


def changed(data: bytes, **changes: Any) -> bytes:
    """The entry with other words, signed anew by its writer."""
    return signed(reworded(data, **changes))


def edited(data: bytes, **changes: Any) -> bytes:
    """The entry with other words under the old signature."""
    return bytes(reworded(data, **changes).data) + data[data.index(b"\n") :]


def cosigned(log: Log, names: Iterable[str] = MEMBERS, *extensions: str) -> SignedNote:
    """The log as it is now, signed by it and cosigned by these members."""
    note = log.checkpoint(*extensions)
    for number, name in enumerate(names):
        signature = WITNESSES[name].sign(note.text, 1_772_366_400 + number)
        note = log.add_cosignature(note, signature, WITNESSES[name].key)
    return note


@dataclass(frozen=True)
class Story:
    """What a run leaves.

    Attributes:
        federation: entries of the federation's log.
        own: entries of each member's own.
        records: signed records of the rounds.
        sizes: of the federation's log at each manifest.
    """

    federation: tuple[bytes, ...]
    own: Mapping[str, tuple[bytes, ...]]
    records: tuple[bytes, ...]
    sizes: tuple[int, ...] = ()

    def find(self, log: str, type_: str, **said: Any) -> int:
        """The place of an entry in a log: ``federation`` or a member's name."""
        for index, data in enumerate(self.federation if log == "federation" else self.own[log]):
            entry = entry_of(data)
            if entry.type == type_ and all(getattr(entry, key) == value for key, value in said.items()):
                return index
        raise AssertionError(f"no {type_} in {log} says {said}")

    def with_federation(self, entries: Sequence[bytes]) -> Story:
        return replace(self, federation=tuple(entries))

    def with_own(self, name: str, entries: Sequence[bytes]) -> Story:
        return replace(self, own={**self.own, name: tuple(entries)})

    def write(self, folder: Path, *, witnesses: Sequence[str] = MEMBERS) -> Path:
        """Write `ledgers` as a simulation does; the logs sign whatever the story is.

        Args:
            folder: of the output.
            witnesses: who cosigns the federation's log.
        """
        ledgers = folder / "ledgers"
        write_log(self.federation, FEDERATION_SIGNER, ledgers / "federation", witnesses)
        for name, entries in self.own.items():
            write_log(entries, LOG_SIGNERS[name], ledgers / "members" / name)
        (ledgers / "rounds.jsonl").write_bytes(b"".join(line + b"\n" for line in self.records))
        KEYS.write(ledgers / "keys.json")
        return ledgers


def write_log(
    entries: Sequence[bytes], signer: NoteSigner, folder: Path, witnesses: Sequence[str] = ()
) -> SignedNote:
    """Write a log as tiles, signed and cosigned."""
    log = Log(MemoryLogStore(), signer)
    log.append(entries)
    note = cosigned(log, witnesses)
    export_tiles(log, note, folder)
    return note


def write_store(
    entries: Sequence[bytes],
    signer: NoteSigner,
    path: Path,
    sizes: Sequence[int],
    witnesses: Sequence[str] = (),
) -> Path:
    """Write a log as an SQLite file with checkpoints at several sizes."""
    store = SqliteLogStore.create(path)
    log = Log(store, signer)
    for size in sorted({*sizes, len(entries)}):
        log.append(entries[log.size : size])
        if size in sizes:
            cosigned(log, witnesses)
    store.close()
    return path


@dataclass
class Running:
    """A run while it goes on."""

    league: SumLeague
    log: Log = field(default_factory=lambda: Log(MemoryLogStore(), FEDERATION_SIGNER))
    federation: list[bytes] = field(default_factory=list)
    own: dict[str, list[bytes]] = field(default_factory=lambda: {name: [] for name in MEMBERS})
    records: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, *entries: bytes) -> None:
        """Log in the federation's log."""
        self.log.append(entries)
        self.federation += entries

    def both(self, name: str, entry: Kind) -> None:
        """Log in a member's own log, then in the federation's."""
        data = signed(entry)
        self.own[name].append(data)
        self.add(data)

    def sum(self, number: int, after: int | None = None) -> None:
        """A round; member 5 vanishes in the second and is late in the third.

        Args:
            number: from 1, of the step.
            after: the step whose model it trains on, by default the one before.
        """
        league = self.league
        while not league.coordinator.ready:
            league.exchange()
        note = cosigned(self.log)
        self.sizes.append(self.log.size)
        start = model(number - 1 if after is None else after)
        league.coordinator.begin(PURPOSE, number - 1, start, checkpoint=note.encoded)
        late = league.members[LATE].handle(league.pending(LATE, m.Manifest)) if number == 3 else None
        league.away = {LATE} if number in {2, 3} else set()
        outcome = league.exchange()
        league.away = set()
        vectors: dict[str, m.Masked] = {}
        if late is not None:
            said, statement = m.Context(league.terms, RUN).read(late, m.Masked, LATE)
            current = league.coordinator._current
            assert current is not None
            current.accept(said, statement, late)  # it came when the survivors were fixed
            league.away = {LATE}
            vectors[LATE] = said
        while outcome is None:
            outcome = league.exchange()
            league.away = set()
        self.log_round(number, outcome, vectors)

    def fail(self, step: int) -> int:
        """A round that ends when its survivors are fixed: two members are gone before they confirm. Its number."""
        league = self.league
        while not league.coordinator.ready:
            league.exchange()
        note = cosigned(self.log)
        number = league.coordinator.begin(PURPOSE, step, model(step), checkpoint=note.encoded)
        league.exchange()
        current = league.coordinator._current
        assert current is not None
        vectors = {name: said for name, (said, _) in current.answers[m.Masked].items()}
        manifest = current.manifest.sha256
        league.away = set(MEMBERS[:2])
        with pytest.raises(QuorumError):
            league.exchange()
        league.coordinator.abandon()
        league.away = set()
        self.log_releases(number, step, vectors, manifest)
        return number

    def log_releases(self, number: int, step: int, vectors: Mapping[str, m.Masked], manifest: str) -> None:
        """What each member writes before its vector leaves."""
        for name in sorted(vectors):
            release = Release(
                at=at(10 * step + 10),
                agreement_id=AGREEMENT,
                run=RUN,
                purpose="training",
                round=number,
                step=step,
                manifest_sha256=manifest,
                member=name,
                dataset_id=DATASETS[name],
                unit="patient",
                adjacency="add-or-remove-one",
                spends=(Spending.of(Spend(EVENT, STEPS)),),
                y_sha256=vectors[name].y_sha256,
                software={"hansa": "0.1.0"},
                lock_sha256="c3" * 32,
                rng="AES-CTR keyed by the operating system",
            )
            self.both(name, release)

    def log_round(self, number: int, outcome: SumOutcome, vectors: dict[str, m.Masked]) -> None:
        """The releases of a round, its record and its sum."""
        record = outcome.record
        for text in record.masked:
            statement = Statement.parse(text)
            vectors[statement.signer] = m.Masked.model_validate_json(statement.data)
        manifest = Statement.parse(record.manifest).sha256
        self.log_releases(outcome.round, number - 1, vectors, manifest)
        line = record.model_dump_json().encode()
        self.records.append(line)
        aggregate = Aggregate(
            at=at(10 * number),
            agreement_id=AGREEMENT,
            run=RUN,
            purpose="training",
            round=outcome.round,
            step=number - 1,
            manifest_sha256=manifest,
            record_sha256=sha256_hex(line),
            aggregate_sha256=record.aggregate_sha256,
            released={name: vectors[name].y_sha256 for name in outcome.survivors},
            excluded=tuple(sorted(set(vectors) - set(outcome.survivors))),
            model_sha256=model(number),
        )
        self.add(signed(aggregate))

    def told(self) -> Story:
        """What there is so far."""
        return Story(
            tuple(self.federation),
            {name: tuple(entries) for name, entries in self.own.items()},
            tuple(self.records),
            tuple(self.sizes),
        )


def model(number: int) -> str:
    """The model after so many rounds."""
    return sha256_hex(f"model {number}".encode())


def opening(name: str) -> tuple[Kind, Kind, Kind]:
    """How a member's log begins: a grant, the agreement, a reservation."""
    dataset: dict[str, Any] = {
        "member": name,
        "dataset_id": DATASETS[name],
        "unit": "patient",
        "adjacency": "add-or-remove-one",
    }
    granted = BudgetGranted(
        at=at(0),
        **dataset,
        max_records_per_unit=4,
        epsilon=real(EPSILON),
        delta=real(DELTA),
        rule={"rule": "fixed-in-advance"},
        reason="board of 1 March",
    )
    agreed = AgreementSigned(
        at=at(1),
        agreement_id=AGREEMENT,
        terms_id=TERMS,
        roster_sha256=ROSTER.sha256,
        member=name,
        log_key=KEYS.logs[name],
        witness_key=KEYS.witnesses[name],
        officer_key=KEYS.officers[name],
    )
    reserved = Reservation(
        at=at(2), agreement_id=AGREEMENT, run=RUN, **dataset, charges=(Charging.of(CHARGE),)
    )
    return granted, agreed, reserved


def begun() -> Running:
    """A run whose members have signed and reserved."""
    run = Running(make_league(5, 8, signers=SIGNERS))
    for name in MEMBERS:
        granted, agreed, reserved = opening(name)
        run.own[name].append(signed(granted))
        run.both(name, agreed)
        run.both(name, reserved)
    return run


@cache
def story(rounds: int = ROUNDS, *, close: bool = True) -> Story:
    """A run that went well."""
    run = begun()
    for number in range(1, rounds + 1):
        run.sum(number)
    for name in MEMBERS if close else ():
        said = {"at": at(10 * rounds + 10), "agreement_id": AGREEMENT, "run": RUN, "member": name}
        count = STEPS * sum(entry_of(data).type == "release" for data in run.own[name])
        run.both(name, RunClosed(**said, dataset_id=DATASETS[name], released={"training": count}))
    return run.told()


def record_of(line: bytes) -> RoundRecord:
    """A record of a round."""
    return RoundRecord.model_validate_json(line)


# --- tiles, changed by somebody without any key ----------------------------------------------------------


def rewrite_bundle(folder: Path, entries: Sequence[bytes], *, hashes: bool = False) -> None:
    """Put other entries into the one bundle of a short log, and, if asked, hashes that fit them."""
    from hansa.ledger.tiles import write_bundle
    from hansa.merkle import leaf_hash

    bundles = [path for path in folder.rglob("*") if path.is_file() and "entries" in path.parts]
    assert len(bundles) == 1, "a short log has one bundle"
    bundles[0].write_bytes(write_bundle(entries))
    if hashes:
        tiles = [path for path in folder.rglob("*") if path.is_file() and "0" in path.parts]
        assert len(tiles) == 1
        tiles[0].write_bytes(np.frombuffer(b"".join(map(leaf_hash, entries)), np.uint8).tobytes())
