"""What a secure sum costs a member."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.identity.keys import verify
from hansa.quorum import threshold
from hansa.secagg import FolderStore, MaskWorkers, Quantiser
from hansa.secagg.dealing import Held, Parties, own_masks
from hansa.secagg.keys import RoundSecrets
from hansa.secagg.masks import MaskKey, add_masks
from hansa.secagg.messages import Delivery, SharesRequest
from hansa.secagg.ring import Vector
from hansa.wire import array_sha256
from hansa_simulations.bench.figures import Figure
from hansa_simulations.bench.sampling import BEST_OF, in_turn, label_of, noting
from hansa_simulations.bench.secure_league import SumLeague, make_league

BINDING, TRANSCRIPT = "ab" * 32, "cd" * 32


def member_mask(n: int, length: int, repeats: int) -> list[Figure]:
    """Encoding and masking one vector, plain AES-CTR beside it, and what follows: the hash and the durable spool."""
    phase = mask_phase(n, length)
    vector, keystream, zeros = np.zeros(length, dtype="<u4"), bytearray(4 * length), bytes(4 * length)

    def masks_alone() -> None:
        add_masks(vector, [MaskKey(os.urandom(32)) for _ in range(n)])

    def plain_aes() -> None:
        for _ in range(n):
            Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor().update_into(
                zeros, keystream
            )

    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        spool = lambda: store.put("y", vector.data)  # noqa: E731  (one line, timed)
        hashed = lambda: array_sha256(vector)  # noqa: E731
        samples = in_turn(repeats, phase, masks_alone, plain_aes, hashed, spool)
        store.close()
    label = label_of(n, length)
    words = f"n = {n}, {length:,} entries"
    return [
        Figure(f"member_mask_{label}_ms", f"member: mask phase, {words}", samples[0], goal=10.0),
        Figure(f"member_expand_and_add_{label}_ms", f"of it: expand and add {n} masks", samples[1]),
        Figure(f"aes_256_ctr_{label}_ms", "plain AES-256-CTR over as many bytes", samples[2]),
        Figure(f"member_hash_{label}_ms", f"member: hash of the vector, {words}", samples[3]),
        Figure(f"member_spool_{label}_ms", f"member: durable spool, {words}", samples[4]),
        Figure(
            "upload_bytes_per_parameter",
            "member: upload for each parameter",
            (float(vector.itemsize),),
            goal=4.0,
        ),
    ]


def member_shares(n: int, repeats: int, *, post_quantum: bool = False) -> list[Figure]:
    """The share phase of one member, and its opening of what it is dealt; in hybrid mode with ML-KEM-768."""
    dealt, opened = [], []
    for _ in range(repeats):
        league = make_league(n, 8, post_quantum=post_quantum)
        league.exchange()
        dealt.append(_phase_ms(league, SharesRequest))
        league.exchange()
        opened.append(_phase_ms(league, Delivery))
    label, words = (f"hybrid_n{n}", f"n = {n}, hybrid") if post_quantum else (f"n{n}", f"n = {n}")
    goal = None if post_quantum else 10.0
    return [
        Figure(f"member_shares_{label}_ms", f"member: share phase, {words}", tuple(dealt), goal),
        Figure(f"member_open_{label}_ms", f"member: opening {n - 1} envelopes, {words}", tuple(opened)),
    ]


def _phase_ms(league: SumLeague, request: type[SharesRequest | Delivery]) -> float:
    best = float("inf")
    for name in list(league.members)[:BEST_OF]:
        message = league.pending(name, request)
        verify.cache_clear()  # signatures that other members of this process have checked count here too
        started = time.perf_counter()
        league.members[name].handle(message)
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


def mask_phase(n: int, length: int) -> Callable[[], None]:
    """What a member does between training and sending: encode, agree on n - 1 keys, expand and add n masks."""
    secrets, parties, held = parties_of(n)
    quantiser = Quantiser.finest(1.0, n)
    values = np.random.default_rng(0).normal(0, 0.02, length).astype(np.float32)
    vector = np.full(length, 1, dtype="<u4")  # zeros would be memory that was never touched

    def phase() -> None:
        quantiser.encode(values, out=vector)
        add_masks(vector, *own_masks(secrets, parties, held, tuple(parties.x), BINDING))

    return phase


def large_member(n: int, length: int, processes: int) -> list[Figure]:
    """A member's mask phase over a large vector, in a fresh process whose peak memory is measured too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        measured = pool.submit(_large_member, n, length, processes).result()
    label = label_of(n, length)
    words = f"n = {n}, {length:,} entries, {processes} processes"
    return [
        Figure(f"member_mask_{label}_s", f"member: mask phase, {words}", tuple(measured["mask"]), goal=1.0),
        Figure(
            f"member_first_mask_{label}_s",
            "the same in memory that was never touched",
            tuple(measured["first"]),
        ),
        Figure(f"member_hash_{label}_s", "member: hash of the vector", tuple(measured["hash"])),
        Figure(f"member_spool_{label}_s", "member: durable spool", tuple(measured["spool"])),
        Figure(
            f"member_upload_{label}_bytes", "member: upload", tuple(measured["upload"]), goal=4.0 * length
        ),
        Figure(f"member_peak_{label}_bytes", "member: peak memory", tuple(measured["peak"]), goal=1.5e9),
    ]


def _large_member(n: int, length: int, processes: int) -> dict[str, list[float]]:
    secrets, parties, held = parties_of(n)
    quantiser = Quantiser.finest(1.0, n)
    values: Vector = np.random.default_rng(0).standard_normal(length, dtype=np.float32)
    values *= np.float32(0.02)
    seconds: list[float] = []
    with MaskWorkers(processes) as workers, tempfile.TemporaryDirectory() as folder:
        workers.warm()
        for _ in range(BEST_OF + 1):
            started = time.perf_counter()
            vector = quantiser.encode(values, out=workers.empty(length))
            workers.add_masks(vector, *own_masks(secrets, parties, held, tuple(parties.x), BINDING))
            seconds.append(time.perf_counter() - started)
            if len(seconds) <= BEST_OF:
                del vector
        hashed, spooled = list[float](), list[float]()
        with noting(hashed):
            array_sha256(vector)
        store = FolderStore(Path(folder))
        with noting(spooled):
            store.put("y", vector.data)
        store.close()
    kib = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    )
    return {
        "first": seconds[:1],
        "mask": seconds[1:],
        "hash": hashed,
        "spool": spooled,
        "upload": [float(vector.nbytes)],
        "peak": [1024.0 * kib],
    }


def parties_of(n: int) -> tuple[RoundSecrets, Parties, dict[str, Held]]:
    """The secrets of one of n members, whom it shares a round with, and what it holds of them."""
    names = [f"m{index}" for index in range(n)]
    secrets = {name: RoundSecrets.draw(os.urandom) for name in names}
    x = {name: index + 1 for index, name in enumerate(names)}
    keys = {name: secrets[name].public(name, post_quantum=False) for name in names}
    me = names[n // 2]
    held = {name: Held(b"", b"", b"") for name in names}
    return secrets[me], Parties(me, x, keys, TRANSCRIPT, threshold(n)), held
