"""What a log costs: durable appends beside the disk's own fsync, proofs, and the verification of a whole copy.

Appends and raw writes take turns on one disk, so that a busy spell hits both. Entries are releases of about 800
bytes; the log that is verified is built here, signed by three members.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from hansa.errors import EngineError
from hansa.identity import COORDINATOR, Roster, Signer
from hansa.ledger import (
    Agreed,
    Checkpoint,
    Keyring,
    Log,
    NoteSigner,
    Release,
    Spending,
    SqliteLogStore,
    StoredEntries,
    utc,
    verify_log,
)
from hansa.merkle import leaf_hash, path_length, verify_inclusion
from hansa.privacy.events import Spend, poisson_gaussian
from hansa.privacy.records import new_dataset_id
from hansa_simulations.bench.figures import Bench, Figure, Ratio, describe_machine
from hansa_simulations.bench.ledger_round import measure_rounds

MILLION = 1_000_000
SINGLES = 300  # durable appends in one sample
BATCH = 10_000
WARM_UP = 3 * SINGLES  # until the write-ahead log is written over instead of lengthened
PROOFS = 1000
SHARE = "append_single_over_raw_fsync"
LEAST_SHARE_OF_FSYNC = 0.6
_MEMBERS = ("member-1", "member-2", "member-3")
_AGREEMENT = "a" * 64
_MARK = 2**53 - 1  # stands where the number of the round will be


def measure_ledger(
    entries: int = MILLION,
    *,
    processes: int = 2,
    repeats: int = 5,
    signatures: bool = True,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure a log.

    Args:
        entries: of the logs that are verified.
        processes: for verification.
        repeats: samples of appends.
        signatures: also build and verify a log in which every entry is signed.
        folder: on which disk; by default that of temporary files.
        progress: told what comes next.

    Raises:
        EngineError: a proof or a log came out wrong.
    """
    writers = _Writers()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        progress("durable appends and raw fsync, in turn")
        raw, single = _singles(place, writers, repeats)
        progress("rounds of five members, with ledgers and without, in turn")
        rounds = measure_rounds(place, repeats)
        progress(f"{entries:,} entries in batches of {BATCH:,}")
        batched = _batched(place / "unsigned.sqlite", writers.unsigned(entries), entries)
        progress(f"{PROOFS:,} inclusion proofs")
        proofs = _proofs(place / "unsigned.sqlite", entries)
        progress(f"verification of {entries:,} entries")
        verified = _verified(place / "unsigned.sqlite", entries, None, processes)
        if signatures:
            progress(f"{entries:,} signatures")
            _batched(place / "signed.sqlite", writers.signed(entries), entries)
            progress(f"verification of {entries:,} signatures")
            verified += _verified(place / "signed.sqlite", entries, writers.keys, processes)
    return Bench(
        title="A log",
        settings={"entries": entries, "processes": processes, "repeats": repeats},
        figures=(raw, single, _multiple(raw, single), batched, *proofs, *verified, *rounds),
        ratios=(Ratio(SHARE, "durable appends ÷ raw fsyncs", raw, single, LEAST_SHARE_OF_FSYNC),),
        notes=(
            "A raw fsync writes the same bytes to the end of a plain file.",
            "An append is on disk when it returns: SQLite, write-ahead log, synchronous = FULL.",
            *_growth(verified),
        ),
        machine=describe_machine(),
    )


class _Writers:
    """Entries of one league, as many as are wanted, each in a round of its own."""

    def __init__(self) -> None:
        self._signers = [Signer.generate(name) for name in _MEMBERS]
        coordinator = Signer.generate(COORDINATOR).public_key
        roster = Roster({signer.name: signer.public_key for signer in self._signers}, coordinator)
        self.keys = Keyring({_AGREEMENT: Agreed.of(roster, 3)})
        spend = Spending.of(Spend(poisson_gaussian(0.01, 1.1), 20))
        self._halves = [self._template(name, spend) for name in _MEMBERS]

    @staticmethod
    def _template(member: str, spend: Spending) -> tuple[bytes, bytes]:
        entry = Release(
            at=utc(datetime.now(UTC)),
            agreement_id=_AGREEMENT,
            run="bench",
            member=member,
            dataset_id=new_dataset_id(),
            purpose="training",
            round=_MARK,
            step=0,
            unit="patient",
            adjacency="add-or-remove-one",
            spends=(spend,),
            y_sha256="b" * 64,
            manifest_sha256="c" * 64,
            software={"hansa": "0.1.0", "opacus": "1.6.0", "torch": "2.13.0"},
            lock_sha256="d" * 64,
            rng="AES-CTR keyed by the operating system",
        )
        before, _, after = entry.data.partition(str(_MARK).encode())
        return before, after

    def _data(self, number: int) -> bytes:
        before, after = self._halves[number % len(_MEMBERS)]
        return b"%b%d%b" % (before, number + 1, after)

    def unsigned(self, count: int) -> Iterator[bytes]:
        """Logged entries without signatures."""
        return (self._data(number) + b"\n" for number in range(count))

    def signed(self, count: int) -> Iterator[bytes]:
        """Logged entries, each signed by its member."""
        for number in range(count):
            data, signer = self._data(number), self._signers[number % len(_MEMBERS)]
            signature = signer.sign("ledger.release", data).hex()
            yield b"%b\n%b %b\n" % (data, signer.name.encode(), signature.encode())


# --- writing ---------------------------------------------------------------------------------------------


def _singles(place: Path, writers: _Writers, repeats: int) -> tuple[Figure, Figure]:
    """Milliseconds of one raw write with fsync, and of one durable append, of the same bytes."""
    entries = writers.signed(WARM_UP + repeats * SINGLES)
    with (
        closing(SqliteLogStore.create(place / "single.sqlite")) as store,
        (place / "raw").open("ab", 0) as raw,
    ):
        log = Log(store, NoteSigner.generate("hansa.example/bench"))

        def flushed(data: bytes) -> None:
            raw.write(data)
            os.fsync(raw.fileno())

        for _ in range(WARM_UP):
            log.append((next(entries),))
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            sample = [next(entries) for _ in range(SINGLES)]
            times[0].append(_per_item_ms(sample, flushed))
            times[1].append(_per_item_ms(sample, lambda data: log.append((data,))))
        if log.size != WARM_UP + repeats * SINGLES or log.check().root != log.root:
            raise EngineError("a log does not hold what was appended to it")
    return (
        Figure("raw_fsync_ms", "one raw write with fsync", tuple(times[0])),
        Figure("append_single_ms", "one durable append", tuple(times[1])),
    )


def _multiple(raw: Figure, single: Figure) -> Figure:
    """Rate of durable appends divided by the rate of raw fsyncs, pair by pair."""
    pairs = zip(raw.samples, single.samples, strict=True)
    what = "durable appends ÷ raw fsyncs, pairs"
    return Figure(SHARE, what, tuple(one / other for one, other in pairs), LEAST_SHARE_OF_FSYNC)


def _per_item_ms(sample: Sequence[bytes], act: Callable[[bytes], object]) -> float:
    started = time.perf_counter()
    for data in sample:
        act(data)
    return 1e3 * (time.perf_counter() - started) / len(sample)


def _batched(path: Path, entries: Iterator[bytes], count: int) -> Figure:
    """Entries in a second, appended in batches; a sample is a tenth of the log, at least one batch."""
    rates, part = [], max(count // 10, BATCH)
    with closing(SqliteLogStore.create(path)) as store:
        log = Log(store, NoteSigner.generate("hansa.example/bench"))
        while log.size < count:
            spent, before = 0.0, log.size
            while log.size < min(before + part, count):
                batch = [data for _, data in zip(range(min(BATCH, count - log.size)), entries, strict=False)]
                started = time.perf_counter()
                log.append(batch)
                spent += time.perf_counter() - started
            rates.append((log.size - before) / spent)
    what = f"durable appends in batches of {BATCH:,}"
    return Figure("append_batched_per_s", what, tuple(rates), goal=50_000.0)


# --- reading ---------------------------------------------------------------------------------------------


def _proofs(path: Path, count: int) -> list[Figure]:
    """Milliseconds of one inclusion proof, each verified, and how many hashes the longest has."""
    label, spent, longest = size_label(count), [], 0
    places = random.Random(0)  # noqa: S311  (which proofs are timed is no secret)
    with closing(SqliteLogStore(path)) as store:
        log = Log(store, NoteSigner.generate("hansa.example/bench"))
        root = log.root
        for _ in range(PROOFS):
            index = places.randrange(count)
            started = time.perf_counter()
            proof = log.prove_inclusion(index, count)
            spent.append(1e3 * (time.perf_counter() - started))
            verify_inclusion(leaf_hash(log.entry(index)), index, count, proof, root)
            longest = max(longest, len(proof))
    if longest > path_length(0, count):
        raise EngineError(f"a proof has {longest} hashes")
    return [
        Figure(f"proof_{label}_ms", f"one inclusion proof among {count:,} entries", tuple(spent), goal=5.0),
        Figure(f"proof_{label}_hashes_count", "hashes of the longest proof", (float(longest),)),
    ]


def _verified(path: Path, count: int, keys: Keyring | None, processes: int) -> list[Figure]:
    """Seconds to verify the first hundredth, tenth and all of a log."""
    kind, figures = ("unsigned" if keys is None else "signed"), []
    with closing(SqliteLogStore(path)) as store:
        log = Log(store, NoteSigner.generate("hansa.example/bench"))
        checkpoints = [
            Checkpoint(log.key.name, size, log.root_at(size)) for size in (count // 100, count // 10, count)
        ]
    for checkpoint in checkpoints:
        started = time.perf_counter()
        seen = verify_log(StoredEntries(path), checkpoint, keys, processes=processes)
        seconds = time.perf_counter() - started
        if seen.entries != {"release": checkpoint.size} or seen.signatures != (
            checkpoint.size if keys else 0
        ):
            raise EngineError(f"verification saw {seen.entries} and {seen.signatures} signatures")
        goal = {"unsigned": 15.0, "signed": 120.0}[kind] if checkpoint.size == MILLION else None
        what = f"verification of {checkpoint.size:,} {kind} entries"
        figures.append(Figure(f"verify_{size_label(checkpoint.size)}_{kind}_s", what, (seconds,), goal))
    return figures


def _growth(figures: Sequence[Figure]) -> Iterator[str]:
    """Lines that tell whether verification grows as the log does."""
    for kind in ("unsigned", "signed"):
        held = [figure for figure in figures if figure.name.endswith(f"_{kind}_s")]
        if held:
            sizes = [label_size(figure.name.split("_")[1]) for figure in held]
            each = [f"{1e6 * f.value / size:.1f} µs at {size:,}" for f, size in zip(held, sizes, strict=True)]
            yield f"Verification of one {kind} entry, start of processes included: {', '.join(each)}."


def size_label(count: int) -> str:
    """How a figure's name tells a number of entries: ``1m``, ``250k``, ``1234``."""
    for unit, letter in ((MILLION, "m"), (1000, "k")):
        if count and count % unit == 0:
            return f"{count // unit}{letter}"
    return str(count)


def label_size(label: str) -> int:
    """The number of entries in a figure's name."""
    return int(label.rstrip("mk")) * {"m": MILLION, "k": 1000}.get(label[-1], 1)
