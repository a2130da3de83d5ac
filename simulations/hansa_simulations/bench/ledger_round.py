"""What the logs add to a round: the same five members and secure sums, with everybody's ledger and without any.

Members train nothing, so that nothing hides the difference. Runs with and without take turns on one machine. With
ledgers every member has its own log, its mirror and its memory as a witness in files of one disk, each write durable;
all five and the coordinator share one process, so their times add up as they would not on five machines.
"""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, parse_agreement
from hansa.agreement.freezing import freeze_with
from hansa.errors import EngineError
from hansa.ledger import Log, MemoryLogStore, NoteSigner, SqliteLogStore
from hansa.models import build_model
from hansa.privacy.randomness import SecretRandomness
from hansa.secagg import MemoryStore, Seal
from hansa_client.flower_node import AnswersRequests
from hansa_client.node import Node
from hansa_client.records import NoRecords, Records
from hansa_client.summing import SumIdentity
from hansa_server.federation import Outcome, run_federation
from hansa_server.history import History
from hansa_server.journal import InMemoryJournal
from hansa_server.members import Members
from hansa_server.summation import SecureSummation
from hansa_simulations.bench.engine import IdleTraining
from hansa_simulations.bench.figures import Figure
from hansa_simulations.engines.local import run_in_process
from hansa_simulations.identities import Identities
from hansa_simulations.ledgers import records_in, stores_in
from hansa_simulations.seat import Seat

GOAL_OVERHEAD_MS = 20.0
MEMBERS = 5
ROUNDS = 30


def measure_rounds(folder: Path, repeats: int, *, rounds: int = ROUNDS) -> tuple[Figure, ...]:
    """Milliseconds of a round without ledgers and with them, and the difference; a sample is a pair of runs.

    Args:
        folder: on which disk the ledgers lie.
        repeats: pairs of runs.
        rounds: of a run; the first is not measured, since it holds the opening of all.

    Raises:
        EngineError: a run lost a round or a member, so that what it measured is something else.
    """
    agreement, start = league(rounds)
    bare, kept = [], []
    for number in range(repeats):
        bare.append(_round_ms(agreement, start, None))
        kept.append(_round_ms(agreement, start, folder / f"round-{number}"))
    added = tuple(b - a for a, b in zip(bare, kept, strict=True))
    return (
        Figure("round_without_ledger_ms", f"a round of {MEMBERS} members, no ledger", tuple(bare)),
        Figure("round_with_ledger_ms", f"a round of {MEMBERS} members, all ledgers", tuple(kept)),
        Figure("round_overhead_ms", "what ledgers add to a round", added, goal=GOAL_OVERHEAD_MS),
    )


def league(rounds: int) -> tuple[Agreement, npt.NDArray[np.float64]]:
    """A frozen agreement of five members with local noise, and its model 0, float64 [d]."""
    members = "\n".join(f'[[members]]\nname = "member-{i}"\nunits = 1000' for i in range(1, MEMBERS + 1))
    agreement = parse_agreement(
        f"""
        [task]
        name = "members that do nothing, on record"
        labels = ["no", "yes"]
        [data]
        label = "answer"
        features = [{{ kind = "number", name = "x", range = [0.0, 1.0] }}]
        [model]
        kind = "logistic"
        [training]
        rounds = {rounds}
        learning_rate = 1.0
        [privacy]
        mechanism = "local"
        epsilon = 8.0
        delta = 1e-5
        clipping_norm = 1.0
        sampling_rate = 0.1
        steps = {rounds}
        {members}
        """,
        name="the idle agreement on record",
    )
    built = build_model(agreement.terms)
    start = built.initial_vector()
    return freeze_with(agreement, built, start), start


def _round_ms(agreement: Agreement, start: npt.NDArray[np.float64], folder: Path | None) -> float:
    """Median of the rounds of one run, in milliseconds."""
    run = f"bench-{secrets.token_hex(8)}"
    names = [member.name for member in agreement.terms.members]
    identities = Identities.ephemeral(names)
    ends: list[float] = []
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        records: dict[str, Records] = {name: NoRecords() for name in names}
        log = Log(MemoryLogStore(), NoteSigner.generate("hansa.example/bench"))
        if folder is not None:
            folder.mkdir()
            store = stack.enter_context(closing(SqliteLogStore.create(folder / "federation.sqlite")))
            log = Log(store, NoteSigner.generate("hansa.example/bench"))
            for name in names:
                stores = stack.enter_context(stores_in(folder / name, run))
                records[name] = records_in(stores, agreement, name, identities, log.key)
        house = Seat(agreement, run, identities, log).house()
        if folder is None:
            house = replace(house, history=None)
        nodes: list[AnswersRequests] = [
            Node(
                agreement,
                name,
                IdleTraining(),
                records[name],
                lambda _run, _round: SecretRandomness(),
                SumIdentity(
                    identities.signer(name),
                    identities.roster,
                    start,
                    MemoryStore(),
                    Seal(identities.seal_keys[name]),
                ),
            )
            for name in names
        ]

        def coordinate(members: Members) -> None:
            journal = InMemoryJournal(keep=1)
            summation = SecureSummation(agreement, members, journal, run, house)
            outcomes.append(
                run_federation(
                    agreement,
                    start,
                    members,
                    journal,
                    run=run,
                    summation=summation,
                    after_round=lambda _: ends.append(time.perf_counter()),
                )
            )

        run_in_process(agreement, nodes, run, coordinate)
        _require_whole(agreement, outcomes[0], house.history)
    return 1e3 * median(np.diff(ends).tolist())


def _require_whole(agreement: Agreement, outcome: Outcome, history: History | None) -> None:
    """Every member was summed in every round and, where there is a log, every release is in it."""
    rounds, names = agreement.terms.training.rounds, len(agreement.terms.members)
    present = [len(record.present) for record in outcome.rounds]
    if present != [names] * rounds:
        raise EngineError(f"members summed by round were {present}, not {names} in each of {rounds}")
    if history is not None:
        size = history.log.size
        # for each member: the signed agreement, a reservation, its releases, the end of the run
        wanted = names * (rounds + 3) + rounds
        if size != wanted:
            raise EngineError(f"the federation's log has {size} entries, not {wanted}")
