"""What a secure sum costs its coordinator, and how many exchanges a round takes."""

from __future__ import annotations

import os
import time

from hansa.errors import EngineError
from hansa.identity.keys import verify
from hansa.quorum import threshold
from hansa.secagg import NoSpool, SumOutcome
from hansa.secagg.bundle import bundle, unbundle
from hansa.secagg.keys import RoundSecrets
from hansa.secagg.shares import split
from hansa.secagg.terms import ThreatModel
from hansa.secagg.unmasking import Opened, RoundFacts, reconstruct
from hansa.wire import array_sha256
from hansa_simulations.bench.figures import Figure
from hansa_simulations.bench.sampling import BEST_OF, best_of_laps, in_turn, label_of, noting
from hansa_simulations.bench.secagg_member import BINDING, TRANSCRIPT
from hansa_simulations.bench.secure_league import MODEL, PURPOSE, SumLeague, make_league, over_the_wire

CARRIER_S = 0.05  # that an exchange waits in `round_walls`


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
    league = make_league(n, length, spool=NoSpool(), processes=processes)
    spent: list[float] = []
    hashed: list[float] = []
    with league.workers:
        league.sum(0)
        for sample in range(repeats):
            steps = range(1 + sample * BEST_OF, 1 + (sample + 1) * BEST_OF)
            rounds = [_steady_round(league, step) for step in steps]
            own, others = zip(*((laps[-1], laps[:-1]) for _, laps in rounds), strict=True)
            spent.append(1e3 * (best_of_laps([laps for laps, _ in rounds]) - min(own)))
            hashed.append(1e3 * (best_of_laps(others) + min(own)))
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


def _steady_round(league: SumLeague, step: int) -> tuple[list[float], list[float]]:
    """Seconds of the coordinator's steps, and of hashing what it gets; the last is of the sum, and among its steps too."""
    coordinator, spent, hashed = league.coordinator, list[float](), list[float]()
    with noting(spent):
        coordinator.begin(PURPOSE, step, MODEL)
    outcome: SumOutcome | None = None
    while outcome is None:
        with noting(spent):
            requests = coordinator.requests()
        replies = {}
        for name, request in requests.items():
            reply = bundle([league.members[name].handle(part) for part in unbundle(over_the_wire(request))])
            with noting(hashed):
                replies[name] = over_the_wire(reply)
        verify.cache_clear()
        for name, reply in replies.items():
            with noting(spent):
                coordinator.receive(name, reply)
        with noting(spent):
            outcome = coordinator.close()
    with noting(hashed):
        array_sha256(outcome.total)
    return spent, hashed


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


def round_walls(n: int, length: int, repeats: int) -> list[Figure]:
    """Time of a whole league's round if every exchange waits for a carrier: from cold, steady, and steady and trusted.

    A round from cold is what every round would be without the next one prepared meanwhile.
    """
    cold, steady, trusted = [], [], []
    for _ in range(repeats):
        league = make_league(n, length)
        cold.append(_wall_ms(league, 0))
        steady.append(_wall_ms(league, 1))
        league = make_league(n, length, threat_model="honest-but-curious")
        _wall_ms(league, 0)
        trusted.append(_wall_ms(league, 1))
    words = f"n = {n}, {length:,} entries, {1000 * CARRIER_S:.0f} ms for each exchange"
    return [
        Figure("round_cold_ms", f"league: round that nothing prepared, {words}", tuple(cold)),
        Figure("round_steady_ms", "league: the same, prepared during the one before", tuple(steady)),
        Figure("round_steady_trusted_ms", "league: the same, coordinator honest-but-curious", tuple(trusted)),
    ]


def _wall_ms(league: SumLeague, step: int) -> float:
    started = time.perf_counter()
    begun, outcome = False, None
    while outcome is None:
        if league.coordinator.ready and not begun:
            league.coordinator.begin(PURPOSE, step, MODEL)
            begun = True
        time.sleep(CARRIER_S)
        outcome = league.exchange()
    verify.cache_clear()
    return 1e3 * (time.perf_counter() - started)
