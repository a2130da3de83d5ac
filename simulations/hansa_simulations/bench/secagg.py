"""The secure sum's speed, beside Flower's SecAgg+ in the same run.

Every sample of a short figure is the best of three runs, because a busy machine only ever adds time. The share of
AES-CTR's own speed is taken against a loop of plain AES-256-CTR that takes turns with what is measured.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hansa.errors import EngineError
from hansa.identity.keys import verify
from hansa.secagg import FolderStore, SumOutcome
from hansa.secagg.bundle import bundle, unbundle
from hansa.secagg.keys import RoundSecrets
from hansa.secagg.masks import MaskKey, add_masks
from hansa.secagg.messages import Delivery, SharesRequest
from hansa.secagg.shares import split
from hansa.secagg.terms import ThreatModel, threshold
from hansa.secagg.unmasking import Opened, RoundFacts, reconstruct
from hansa.wire import array_sha256
from hansa_simulations.bench.figures import Bench, Figure, Ratio, describe_machine
from hansa_simulations.bench.peers import run_peer
from hansa_simulations.bench.secagg_growth import (
    BEST_OF,
    BINDING,
    GROWTH_LENGTHS,
    GROWTH_MEMBERS,
    MILLION,
    TRANSCRIPT,
    adding,
    growth_figures,
    in_turn,
    label_of,
    large_member,
    mask_phase,
)
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, SumLeague, make_league, over_the_wire

_PEER = "hansa_simulations.bench.peers.flower_secaggplus"
_PEER_TIMEOUT_S = 600.0
_NOTES = (
    "Mask phase: encode, agree on n - 1 keys, expand and add n masks; hash and durable spool are apart.",
    "Share phase: check n signatures, n - 1 X25519, split two secrets, 2(n - 1) envelopes, sign, seal the state.",
    "Coordinator's secrets: all n self-mask seeds from t shares each, compared with their commitments.",
    "Coordinator's round: three exchanges, the next round's preparation in them; hashing vectors is apart.",
    "Members of n = 10 and a million entries mask in one process; `processes` are the coordinator's.",
    "Peak memory counts what two processes share twice.",
    "Flower's figures are of one round: its stages collect_masked_vectors and share_keys, and all of its server.",
)


def measure_secagg(
    *,
    peer: bool = True,
    large: bool = True,
    growth: bool = True,
    processes: int = 2,
    repeats: int = 5,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure the secure sum.

    Args:
        peer: run Flower's SecAgg+ too, in a process of its own; needs flwr.
        large: also mask 100 million entries, which takes 1.3 GB of memory and 0.4 GB of disk for a while.
        growth: also measure how time grows with n and d.
        processes: for the large vector and for the coordinator's round.
        repeats: samples of each short figure.
        progress: told what comes next.

    Raises:
        EngineError: the peer cannot be run, or a sum came out wrong.
    """
    figures: dict[str, Figure] = {}
    steps: list[tuple[str, Callable[[], Sequence[Figure]]]] = [
        ("member, mask phase, n = 10, 1M entries", lambda: member_mask(10, MILLION, repeats)),
        ("member, share phase, n = 50", lambda: member_shares(50, repeats)),
        ("coordinator, secrets, n = 50", lambda: coordinator_secrets(50, repeats)),
        (
            "coordinator, whole round, n = 10, 1M entries",
            lambda: coordinator_round(10, MILLION, repeats, processes),
        ),
        ("exchanges of a steady round", steady_rounds),
    ]
    if large:
        steps.append(("member, n = 10, 100M entries", lambda: large_member(10, 100 * MILLION, processes)))
    if growth:
        steps.append(("growth with n and d", lambda: growth_figures(GROWTH_MEMBERS, GROWTH_LENGTHS)))
    if peer:
        steps.append(("Flower SecAgg+, n = 10, 1M entries, then n = 50", peer_figures))
    for what, step in steps:
        progress(what)
        figures |= {figure.name: figure for figure in step()}
    machine = describe_machine()
    return Bench(
        title="The secure sum",
        settings={"processes": processes, "repeats": repeats},
        figures=tuple(figures.values()),
        ratios=_ratios(figures),
        notes=_NOTES,
        machine=machine,
    )


# --- members ---------------------------------------------------------------------------------------------


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


def member_shares(n: int, repeats: int) -> list[Figure]:
    """The share phase of one member, and its opening of what it is dealt."""
    dealt, opened = [], []
    for _ in range(repeats):
        league = make_league(n, 8)
        league.exchange()
        dealt.append(_phase_ms(league, SharesRequest))
        league.exchange()
        opened.append(_phase_ms(league, Delivery))
    return [
        Figure(f"member_shares_n{n}_ms", f"member: share phase, n = {n}", tuple(dealt), goal=10.0),
        Figure(f"member_open_n{n}_ms", f"member: opening {n - 1} envelopes", tuple(opened)),
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


# --- coordinator -----------------------------------------------------------------------------------------


def coordinator_secrets(n: int, repeats: int) -> list[Figure]:
    """Reconstructing all n self-mask seeds from t shares each and comparing them with the commitments."""
    names = [f"m{index}" for index in range(n)]
    x = {name: index + 1 for index, name in enumerate(names)}
    secrets = {name: RoundSecrets.draw(os.urandom) for name in names}
    keys = {name: secrets[name].public(name, post_quantum=False) for name in names}
    facts = RoundFacts(TRANSCRIPT, BINDING, x, keys, tuple(names), tuple(names))
    shares = [split(secrets[name].self_seed, list(x.values()), threshold(n), os.urandom) for name in names]
    opened = {holder: Opened(b"".join(row[x[holder] - 1] for row in shares), b"") for holder in names}

    def all_secrets() -> None:
        found, liars = reconstruct(facts, opened, {}, threshold(n))
        if liars or any(found.self_seeds[name] != secrets[name].self_seed for name in names):
            raise EngineError("reconstructed secrets are not those that were shared")

    samples = in_turn(repeats, all_secrets)[0]
    return [Figure(f"coordinator_secrets_n{n}_ms", f"coordinator: secrets, n = {n}", samples, goal=5.0)]


def coordinator_round(n: int, length: int, repeats: int, processes: int = 2) -> list[Figure]:
    """One steady round at the coordinator, the disk under the spool left out."""
    league = make_league(n, length, spool=_Nowhere(), processes=processes)
    spent: list[float] = []
    hashed: list[float] = []
    with league.workers:
        league.sum(0)
        for sample in range(repeats):
            steps = range(1 + sample * BEST_OF, 1 + (sample + 1) * BEST_OF)
            measured = [_steady_round(league, step) for step in steps]
            spent.append(1e3 * min(seconds for seconds, _ in measured))
            hashed.append(1e3 * min(seconds for _, seconds in measured))
    label = label_of(n, length)
    words = f"n = {n}, {length:,} entries"
    return [
        Figure(
            f"coordinator_round_{label}_ms", f"coordinator: whole round, {words}", tuple(spent), goal=30.0
        ),
        Figure(
            f"coordinator_hash_{label}_ms", f"coordinator: hashing {n} vectors and the sum", tuple(hashed)
        ),
    ]


def _steady_round(league: SumLeague, step: int) -> tuple[float, float]:
    coordinator, spent, hashed = league.coordinator, [0.0], [0.0]
    with adding(spent):
        coordinator.begin(PURPOSE, step, MODEL)
    outcome: SumOutcome | None = None
    while outcome is None:
        with adding(spent):
            requests = coordinator.requests()
        replies = {}
        for name, request in requests.items():
            reply = bundle([league.members[name].handle(part) for part in unbundle(over_the_wire(request))])
            with adding(hashed):
                replies[name] = over_the_wire(reply)
        verify.cache_clear()
        with adding(spent):
            for name, reply in replies.items():
                coordinator.receive(name, reply)
            outcome = coordinator.close()
    own = [0.0]
    with adding(own):
        array_sha256(outcome.total)
    return spent[0] - own[0], hashed[0] + own[0]


class _Nowhere:
    """A spool that forgets."""

    def put(self, name: str, data: bytes | memoryview) -> None:
        pass

    def get(self, _: str) -> None:
        return None

    def delete(self, name: str) -> None:
        pass


def steady_rounds() -> list[Figure]:
    """How many exchanges the third round of a league takes under either threat model."""
    models: tuple[ThreatModel, ...] = ("malicious", "honest-but-curious")
    return [
        Figure(
            f"steady_round_{model.replace('-', '_')}_exchanges_count",
            f"exchanges of a steady round, coordinator {model}",
            (float(_exchanges(model)),),
            goal=goal,
        )
        for model, goal in zip(models, (3.0, 2.0), strict=True)
    ]


def _exchanges(threat_model: ThreatModel) -> int:
    league = make_league(4, 8, threat_model=threat_model)
    league.sum(0)
    league.sum(1)
    count = 0
    while not league.coordinator.ready:
        league.exchange()
        count += 1
    league.coordinator.begin(PURPOSE, 2, MODEL)
    while True:
        count += 1
        if league.exchange() is not None:
            return count


# --- the peer --------------------------------------------------------------------------------------------


def peer_figures() -> list[Figure]:
    """Flower's SecAgg+ for n = 10 and a million entries, then for n = 50.

    Raises:
        EngineError: it cannot be run, or its sum is wrong.
    """
    vectors, keys = _peer(10, MILLION), _peer(50, 1000)
    return [
        Figure(
            "flower_member_mask_n10_1m_ms",
            "Flower: member, mask stage, n = 10, 1M",
            (_stage(vectors, "collect_masked_vectors"),),
        ),
        Figure(
            "flower_coordinator_round_n10_1m_ms",
            "Flower: server, whole round, n = 10, 1M",
            (1e3 * vectors["server_s"],),
        ),
        Figure(
            "flower_member_shares_n50_ms",
            "Flower: member, share stage, n = 50",
            (_stage(keys, "share_keys"),),
        ),
        Figure("flower_coordinator_secrets_n50_ms", "Flower: server, n = 50", (1e3 * keys["server_s"],)),
        Figure(
            "flower_upload_bytes_per_parameter",
            "Flower: upload for each parameter",
            (vectors["upload_bytes"] / MILLION,),
        ),
    ]


def _peer(members: int, floats: int) -> Mapping[str, float]:
    arguments = ["--members", str(members), "--floats", str(floats)]
    told = run_peer(_PEER, arguments, timeout_s=_PEER_TIMEOUT_S)
    return {**told, **told["member_s"]}


def _stage(measured: Mapping[str, float], stage: str) -> float:
    return 1e3 * float(measured[stage])


def _ratios(figures: Mapping[str, Figure]) -> tuple[Ratio, ...]:
    wanted = {
        "member_mask_n10_1m": "member: mask phase, n = 10, 1M entries",
        "member_shares_n50": "member: share phase, n = 50",
        "coordinator_secrets_n50": "coordinator: secrets, n = 50",
        "coordinator_round_n10_1m": "coordinator: whole round, n = 10, 1M entries",
    }
    ratios = [
        Ratio(name, what, peer=figures[f"flower_{name}_ms"], ours=figures[f"{name}_ms"])
        for name, what in wanted.items()
        if f"flower_{name}_ms" in figures
    ]
    plain, ours = figures["aes_256_ctr_n10_1m_ms"], figures["member_expand_and_add_n10_1m_ms"]
    return (
        *ratios,
        Ratio("share_of_aes_ctr", "share of AES-256-CTR's own speed (goal 0.6)", peer=plain, ours=ours),
    )
